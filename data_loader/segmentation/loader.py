"""The loader of photos and masks that a configuration names."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from base.base_data_loader import BaseDataLoader
from data_loader.common.folds import Folds
from data_loader.images.augmentation import Augmentation
from data_loader.images.preprocessing import ColorChannel, Preprocessing
from data_loader.segmentation.dataset import SegmentationCollate, SegmentationDataset
from data_loader.segmentation.labels import Labels, count_classes, export_ids
from data_loader.segmentation.pairs import choose_pairs
from data_loader.segmentation.sources import ImageFiles, PairSource
from data_loader.segmentation.sparse_labels import SparseLabels
from utils.errors import ConfigError

Role = Literal["train", "valid", "test"]


class MaskTask(NamedTuple):
    """The data of a loader.

    Attributes:
        source: Images and masks.
        preprocessing: Makes a network's input of an image.
        labels: What masks may hold.
        class_names: Names of the classes.
    """

    source: PairSource
    preprocessing: Preprocessing
    labels: Labels
    class_names: Sequence[str]


class Choice(NamedTuple):
    """Which samples and labels of the data a loader uses.

    Attributes:
        folds: As in the JSON: one fold is held out.
        role: Training takes the other folds, all else the fold; None: by whether the loader trains.
        sparse: As in the JSON: labels are hidden, in training only.
        validation_split: Share or number of samples held out.
    """

    folds: Mapping[str, Any] | None = None
    role: Role | None = None
    sparse: Mapping[str, Any] | None = None
    validation_split: int | float = 0.0


class MaskDataLoader(BaseDataLoader):
    """Batches of images and masks.

    Training batches are (images (B, C, H, W) float32, masks (B, H, W) int64). With `is_training` false nothing is
    augmented and no label hidden, and a batch has a third part: a list of `base.data.samples.NamedMask` with each mask at its
    own size.

    Args:
        task: The data.
        augmentation: What happens to a sample in training.
        transforms: Albumentations' transforms, before it.
        choice: Which samples and labels.
        is_training: Augment and shuffle; otherwise evaluate.
        batch_size: Samples per batch, over all processes.
        shuffle: New order in each epoch; where not given, in training.
        drop_last: Leave out an incomplete last batch.
        n_workers: Worker processes.
        pin_memory: Page-locked batches, where there is CUDA.
        cache_mb: Most memory for decoded images; None: a quarter of what is free.
        seed: Seed of the run.

    Raises:
        ConfigError: An argument is out of its range, or two of them disagree.
        DataError: There is no sample.
    """

    def __init__(
        self,
        task: MaskTask,
        augmentation: Augmentation,
        *,
        transforms: Sequence[Any] = (),
        choice: Choice,
        is_training: bool,
        batch_size: int,
        shuffle: bool | None = None,
        drop_last: bool = False,
        n_workers: int = 0,
        pin_memory: bool = False,
        cache_mb: int | None = None,
        seed: int = 0,
    ) -> None:
        sparse = SparseLabels.parse(choice.sparse, seed) if choice.sparse is not None else None
        parts = (task.source, task.preprocessing, task.labels)
        plain = SegmentationDataset(*parts, cache_mb=cache_mb, batch_size=batch_size)
        augmented = SegmentationDataset(
            *parts,
            augmentation=augmentation,
            transforms=transforms,
            cache_mb=cache_mb,
            sparse=sparse,
            batch_size=batch_size,
        )
        used, fold = _chosen(choice, len(task.source), seed, is_training=is_training)
        super().__init__(
            augmented if is_training else plain,
            batch_size,
            shuffle=is_training if shuffle is None else shuffle,
            validation_split=choice.validation_split,
            n_workers=n_workers,
            collate_fn=SegmentationCollate(task.preprocessing),
            seed=seed,
            pin_memory=pin_memory,
            drop_last=drop_last,
            validation_dataset=plain,
            is_training=is_training,
            indices=used,
        )
        if fold is not None:
            self._held_out = fold
        self.num_classes = task.labels.num_classes
        self.in_channels = task.preprocessing.in_channels
        self.ignore_index = task.labels.ignored
        self.class_names = list(task.class_names)
        self.preprocessing = task.preprocessing

    @staticmethod
    def make_preprocessing(
        *,
        resize: int | Sequence[int] | None = None,
        padding_value: int = 0,
        color_channel: ColorChannel | None = None,
        normalize: bool = True,
        in_channels: int | None = None,
    ) -> Preprocessing:
        """What makes an input of an image, from the arguments of the loader that bear on it and without any data."""
        return Preprocessing(
            resize=resize,
            padding_value=padding_value,
            color_channel=color_channel,
            normalize=normalize,
            in_channels=in_channels,
        )

    @property
    def labelled_megapixels(self) -> float | None:
        """Millions of pixels with a class that this loader trains on; None where no labels are hidden on purpose."""
        megapixels: float | None = self._source().labelled_megapixels
        return megapixels


def _chosen(choice: Choice, count: int, seed: int, *, is_training: bool) -> tuple[Any, Any]:
    """Samples to draw from and samples held out; None for all, and for those that `validation_split` says."""
    if choice.folds is None:
        return None, None
    if choice.validation_split:
        raise ConfigError("folds and validation_split both hold samples out. Remove one of them.")
    others, fold = Folds.parse(choice.folds, seed).split(count)
    trains = is_training if choice.role is None else choice.role == "train"
    return (others, fold) if trains else (fold, fold[:0])


class SegmentationDataLoader(MaskDataLoader):
    """Batches of photos and masks.

    Training batches are (images (B, C, H, W) float32, masks (B, H, W) int64). With `is_training` false nothing is
    augmented, and a batch has a third part: a list of `base.data.samples.NamedMask` with each mask at its own size.

    Args:
        pairs_file: List with one `image, mask` per line; see `data_loader.pairs.read_pairs` for its paths.
        folder: Instead of a list: a folder with `data/{split}/NAME.*` and `labels/{split}/NAME.png`.
        split: Which part of the folder; "train" or "val" by `is_training` where not given.
        data_root: What the paths of the list (or the folder) are relative to.
        samples: Only the first so many pairs.
        num_classes: Classes in the masks.
        classes: Names of the classes, in the order of their ids.
        ignore_index: Value in the masks that counts nowhere. Padding is ignored in any case.
        binary_masks: Every label above 0 is class 1.
        label_map: Value in the masks -> class, as `{"7": 0, "8": 1}`; every other value is ignored.
        in_channels: 1, 3 or 4; where not given, what `color_channel` implies.
        color_channel: "RGB", "BGR" or "GRAY".
        resize: Size of the input, `[height, width]` or one number for a square, aspect ratio kept; null: own sizes.
        padding_value: Grey of the padding around images of another shape, 0 to 255.
        normalize: Subtract ImageNet's mean and divide by its deviation; otherwise 0..1.
        is_training: Augment and shuffle; otherwise evaluate.
        noise_std: As the following ones, see `data_loader.transforms.Augmentation`.
        crop_range: Share of the image's sides that a random window has, [smallest, largest].
        flip_hor: Probability of a left-right flip.
        rotate: Probability of a quarter turn.
        angle: Largest rotation in degrees.
        brightness: Largest change of brightness, a share.
        contrast: Largest change of contrast, a share.
        saturation: Largest change of saturation, a share.
        transforms: Albumentations' transforms, in order, before the augmentation above; in training only.
        one_hot: Only false: every loss here takes ids.
        batch_size: Samples per batch, over all processes.
        shuffle: New order in each epoch; where not given, in training.
        drop_last: Leave out an incomplete last batch.
        validation_split: Share or number of samples held out for `split_validation`.
        folds: `{"fold": 0, "of": 5}`: training takes the other folds, validation and test that one.
        role: "train", "valid" or "test"; where not given, by the section that names the loader.
        sparse: Hide labels in training, as `{"pattern": "halves", "density": 0.5}`; see `data_loader.sparse`.
        n_workers: Worker processes.
        pin_memory: Page-locked batches, where there is CUDA.
        cache_mb: Most memory for decoded images; null: a quarter of what is free.
        seed: Seed of the run.

    Raises:
        ConfigError: An argument is out of its range, or two of them disagree.
        DataError: The list or the folder does not hold what it should.
    """

    def __init__(
        self,
        pairs_file: str | None = None,
        *,
        folder: str | None = None,
        split: str | None = None,
        data_root: str | None = None,
        samples: int | None = None,
        num_classes: int | None = None,
        classes: Sequence[str] | None = None,
        ignore_index: int | None = None,
        binary_masks: bool = False,
        label_map: Mapping[str, int] | None = None,
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
        one_hot: bool = False,
        batch_size: int = 16,
        shuffle: bool | None = None,
        drop_last: bool = False,
        validation_split: int | float = 0.0,
        folds: Mapping[str, Any] | None = None,
        role: Role | None = None,
        sparse: Mapping[str, Any] | None = None,
        n_workers: int = 0,
        pin_memory: bool = False,
        cache_mb: int | None = None,
        seed: int = 0,
    ) -> None:
        if one_hot:
            raise ConfigError("one_hot is true, but every loss here takes class ids. Set one_hot to false.")
        count, names = count_classes(num_classes, classes, binary_masks=binary_masks, label_map=label_map)
        labels = Labels(count, ignore_index, binary=binary_masks, label_map=label_map)
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
        pairs = choose_pairs(pairs_file, folder, split or ("train" if is_training else "val"), data_root, samples)
        source = ImageFiles(
            pairs, in_channels=preprocessing.in_channels, is_binary=binary_masks and ignore_index is None
        )
        super().__init__(
            MaskTask(source, preprocessing, labels, names),
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
        """The masks' own value for each class, for predictions in the data set's own ids; None where it is the same."""
        return export_ids(label_map)
