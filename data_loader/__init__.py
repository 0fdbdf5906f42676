"""Pictures and masks, ready to train on. Names only: nothing is imported until a configuration asks for it."""

from utils.catalogue import Section

SECTIONS: dict[str, Section] = {
    "data_loader": Section(
        expects="base.base_data_loader:BaseDataLoader",
        entries={
            "SegmentationDataLoader": "data_loader.segmentation:SegmentationDataLoader",
            "ArraySegmentationDataLoader": "data_loader.array_masks:ArraySegmentationDataLoader",
            "CityscapesDataLoader": "data_loader.cityscapes:CityscapesDataLoader",
            "TorchvisionSegmentationDataLoader": "data_loader.torchvision_masks:TorchvisionSegmentationDataLoader",
            "ImageClassificationDataLoader": "data_loader.image_classification:ImageClassificationDataLoader",
            "TimeSeriesDataLoader": "data_loader.series:TimeSeriesDataLoader",
        },
        nested={"transforms": "transform", "dataset": "dataset"},
    ),
    "dataset": Section(expects="torch.utils.data:Dataset", roots=("torchvision",)),
    "transform": Section(
        # What albumentations' transforms and its compositions (OneOf, Sequential, ...) have in common.
        expects="albumentations.core.serialization:Serializable",
        roots=("albumentations",),
        shortcuts=("albumentations",),
        nested={"transforms": "transform"},
    ),
}
