"""Loaders of images, masks and time series. Names only: nothing is imported until a config asks for it."""

from utils.registry import Section

SECTIONS: dict[str, Section] = {
    "data_loader": Section(
        expects="base.base_data_loader:BaseDataLoader",
        entries={
            "SegmentationDataLoader": "data_loader.segmentation.loader:SegmentationDataLoader",
            "ArraySegmentationDataLoader": "data_loader.segmentation.array_loader:ArraySegmentationDataLoader",
            "CityscapesDataLoader": "data_loader.segmentation.cityscapes:CityscapesDataLoader",
            "TorchvisionSegmentationDataLoader": "data_loader.segmentation.torchvision_loader:"
            "TorchvisionSegmentationDataLoader",
            "ImageClassificationDataLoader": "data_loader.classification.loader:ImageClassificationDataLoader",
            "MnistDataLoader": "data_loader.classification.mnist:MnistDataLoader",
            "TimeSeriesDataLoader": "data_loader.time_series.loader:TimeSeriesDataLoader",
        },
        nested={"transforms": "transform", "dataset": "dataset"},
    ),
    "dataset": Section(expects="torch.utils.data:Dataset", roots=("torchvision",)),
    "transform": Section(
        # The common base of albumentations' transforms and compositions (OneOf, Sequential, ...).
        expects="albumentations.core.serialization:Serializable",
        roots=("albumentations",),
        shortcuts=("albumentations",),
        nested={"transforms": "transform"},
    ),
}
