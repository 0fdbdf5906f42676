"""The loader of data sets that torchvision knows."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_loader.labels import Labels, count_classes, export_ids
from data_loader.mask_loader import Choice, MaskDataLoader, MaskTask, Role
from data_loader.pairs import sample_count
from data_loader.preprocessing import ColorChannel
from data_loader.torchvision_pairs import TorchvisionPairs, open_dataset
from data_loader.transforms import Augmentation

# The classes of PASCAL VOC in the order of their ids; borders and what is hard to tell are 255.
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
KNOWN_CLASSES = {f"torchvision.datasets.{name}": VOC_CLASSES for name in ("VOCSegmentation", "SBDataset")}


class TorchvisionSegmentationDataLoader(MaskDataLoader):
    """Batches of a data set of torchvision whose samples are a picture and a mask.

    Args:
        source: `torchvision.datasets.NAME`, e.g. `torchvision.datasets.VOCSegmentation`.
        args: Its arguments, e.g. `{"root": "data", "image_set": "train"}`; downloaded only with `"download": true`.
        samples: Only the first so many samples.
        num_classes: Classes in the masks; known of VOCSegmentation and SBDataset.
        classes: Names of the classes, in the order of their ids; known as well.
        ignore_index: Value in the masks that counts nowhere.
        label_map: Value in the masks -> class, as `{"1": 0, "2": 1}`; every other value is ignored.
        folds: `{"fold": 0, "of": 5}`: training takes the other folds, validation and test that one.
        role: "train", "valid" or "test"; where not given, by the section that names the loader.
        sparse: Hide labels in training, as `{"pattern": "halves", "density": 0.5}`; see `data_loader.sparse`.
        in_channels: 1, 3 or 4; where not given, what `color_channel` implies.
        color_channel: "RGB", "BGR" or "GRAY".
        resize: Size of the input, `[height, width]` or one number for a square, aspect ratio kept; null: own sizes.
        padding_value: Grey of the padding around pictures of another shape, 0 to 255.
        normalize: Subtract ImageNet's mean and divide by its deviation; otherwise 0..1.
        is_training: Augment and shuffle; otherwise evaluate.
        noise_std: As the following ones, see `data_loader.transforms.Augmentation`.
        crop_range: Share of the picture's sides that a random window has, [smallest, largest].
        flip_hor: Probability of a left-right flip.
        rotate: Probability of a quarter turn.
        angle: Largest rotation in degrees.
        brightness: Largest change of brightness, a share.
        contrast: Largest change of contrast, a share.
        saturation: Largest change of saturation, a share.
        transforms: Albumentations' transforms, in order, before the augmentation above; in training only.
        batch_size: Samples per batch, over all processes.
        shuffle: New order in each epoch; where not given, in training.
        drop_last: Leave out an incomplete last batch.
        validation_split: Share or number of samples held out for `split_validation`.
        n_workers: Worker processes.
        pin_memory: Page-locked batches, where there is CUDA.
        cache_mb: Most memory for decoded pictures; null: a quarter of what is free.
        seed: Seed of the run.

    Raises:
        ConfigError: An argument is out of its range, or two of them disagree.
        DataError: The data set is not there.
    """

    def __init__(
        self,
        source: str,
        args: Mapping[str, Any] | None = None,
        *,
        samples: int | None = None,
        num_classes: int | None = None,
        classes: Sequence[str] | None = None,
        ignore_index: int | None = 255,
        label_map: Mapping[str, int] | None = None,
        folds: Mapping[str, Any] | None = None,
        role: Role | None = None,
        sparse: Mapping[str, Any] | None = None,
        in_channels: int | None = None,
        color_channel: ColorChannel | None = None,
        resize: int | Sequence[int] | None = None,
        padding_value: int = 0,
        normalize: bool = True,
        is_training: bool = True,
        noise_std: float = 0.0,
        crop_range: Sequence[float] | None = None,
        flip_hor: float = 0.0,
        rotate: float = 0.0,
        angle: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        transforms: Sequence[Any] = (),
        batch_size: int = 16,
        shuffle: bool | None = None,
        drop_last: bool = False,
        validation_split: int | float = 0.0,
        n_workers: int = 0,
        pin_memory: bool = False,
        cache_mb: int | None = None,
        seed: int = 0,
    ) -> None:
        opened = open_dataset(source, args or {})
        known = KNOWN_CLASSES.get(source, ()) if label_map is None else ()
        if num_classes in (None, len(known)):
            classes = classes or known
        count, names = count_classes(num_classes, classes, label_map=label_map)
        labels = Labels(count, ignore_index, label_map=label_map)
        preprocessing = self.make_preprocessing(
            resize=resize,
            padding_value=padding_value,
            color_channel=color_channel,
            normalize=normalize,
            in_channels=in_channels,
        )
        augmentation = Augmentation(
            noise_std=noise_std,
            crop_range=crop_range,
            flip_hor=flip_hor,
            rotate=rotate,
            angle=angle,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
        )
        pairs = TorchvisionPairs(
            opened, source, count=sample_count(len(opened), samples), in_channels=preprocessing.in_channels
        )
        super().__init__(
            MaskTask(pairs, preprocessing, labels, names),
            augmentation,
            transforms=transforms,
            choice=Choice(folds, role, sparse, validation_split),
            is_training=is_training,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            n_workers=n_workers,
            pin_memory=pin_memory,
            cache_mb=cache_mb,
            seed=seed,
        )

    @staticmethod
    def make_export_ids(*, label_map: Mapping[str, int] | None = None) -> list[int] | None:
        """The masks' own value for each class; None where it is the same."""
        return export_ids(label_map)
