"""What every loader of pictures and masks has in common, whatever its files are."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from base.base_data_loader import BaseDataLoader
from data_loader.batches import SegmentationCollate
from data_loader.dataset import SegmentationDataset
from data_loader.folds import Folds
from data_loader.labels import Labels
from data_loader.preprocessing import ColorChannel, Preprocessing
from data_loader.sources import PairSource
from data_loader.sparse import SparseLabels
from data_loader.transforms import Augmentation
from utils.errors import ConfigError

Role = Literal["train", "valid", "test"]


class MaskTask(NamedTuple):
    """The data of a loader.

    Attributes:
        source: Pictures and masks.
        preprocessing: Makes a network's input of a picture.
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
    """Batches of pictures and masks.

    Training batches are (images (B, C, H, W) float32, masks (B, H, W) int64). With `is_training` false nothing is
    augmented and no label hidden, and a batch has a third part: a list of `base.sample.Source` with each mask at its
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
        cache_mb: Most memory for decoded pictures; None: a quarter of what is free.
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
        """What makes an input of a picture, from the arguments of the loader that bear on it and without any data."""
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
