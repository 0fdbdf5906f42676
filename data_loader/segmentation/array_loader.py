"""The loader of arrays with any number of channels."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_loader.images.arrays import ARRAY_SUFFIXES, ArrayFiles, ArrayPreprocessing, Interpolation, Layout
from data_loader.images.augmentation import Augmentation
from data_loader.segmentation.labels import Labels, count_classes, export_ids
from data_loader.segmentation.loader import Choice, MaskDataLoader, MaskTask, Role
from data_loader.segmentation.pairs import choose_pairs
from utils.errors import ConfigError

_MASK_SUFFIXES = (".npy", ".npz", ".png")


class ArraySegmentationDataLoader(MaskDataLoader):
    """Batches of `.npy` or `.npz` arrays with any number of channels, and of masks.

    What changes colours makes no sense of channels in general: there is no brightness, contrast, saturation or noise
    here, and no albumentations.

    Args:
        pairs_file: List with one `image, mask` per line; see `data_loader.pairs.read_pairs` for its paths.
        folder: Instead of a list: a folder with `data/{split}/NAME.npy` and `labels/{split}/NAME.npy` (or .npz, .png).
        split: Which part of the folder; by the section that names the loader where not given.
        data_root: What the paths of the list (or the folder) are relative to.
        layout: "hwc" where channels come last in the files, "chw" where they come first.
        picture_key: Name of the image in `.npz` files; where not given, they hold a single array.
        mask_key: Name of the mask in `.npz` files.
        samples: Only the first so many pairs.
        num_classes: Classes in the masks.
        classes: Names of the classes, in the order of their ids.
        ignore_index: Value in the masks that counts nowhere. Padding is ignored in any case.
        label_map: Value in the masks -> class, as `{"7": 0, "8": 1}`; every other value is ignored.
        folds: `{"fold": 0, "of": 5}`: training takes the other folds, validation and test that one.
        role: "train", "valid" or "test"; where not given, by the section that names the loader.
        sparse: Hide labels in training, as `{"pattern": "halves", "density": 0.5}`; see `data_loader.sparse`.
        in_channels: Channels of the arrays; where not given, those of the first.
        resize: Size of the input, `[height, width]` or one number for a square, aspect ratio kept; null: own sizes.
        padding_value: Value around arrays of another shape, before the mean is subtracted.
        mean: Subtracted from the values as they are in the files: one number, or one per channel; null: 0.
        std: Divided by afterwards, likewise; null: 1.
        interpolation: "linear", or "nearest" where values must not mix.
        is_training: Augment and shuffle; otherwise evaluate.
        crop_range: Share of the image's sides that a random window has, [smallest, largest].
        flip_hor: Probability of a left-right flip.
        rotate: Probability of a quarter turn.
        angle: Largest rotation in degrees.
        batch_size: Samples per batch, over all processes.
        shuffle: New order in each epoch; where not given, in training.
        drop_last: Leave out an incomplete last batch.
        validation_split: Share or number of samples held out for `split_validation`.
        n_workers: Worker processes.
        pin_memory: Page-locked batches, where there is CUDA.
        cache_mb: Most memory for decoded arrays; null: a quarter of what is free.
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
        layout: Layout = "hwc",
        picture_key: str | None = None,
        mask_key: str | None = None,
        samples: int | None = None,
        num_classes: int | None = None,
        classes: Sequence[str] | None = None,
        ignore_index: int | None = None,
        label_map: Mapping[str, int] | None = None,
        folds: Mapping[str, Any] | None = None,
        role: Role | None = None,
        sparse: Mapping[str, Any] | None = None,
        in_channels: int | None = None,
        resize: int | Sequence[int] | None = None,
        padding_value: float = 0.0,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        interpolation: Interpolation = "linear",
        is_training: bool = True,
        crop_range: Sequence[float] | None = None,
        flip_hor: float = 0.0,
        rotate: float = 0.0,
        angle: float = 0.0,
        batch_size: int = 16,
        shuffle: bool | None = None,
        drop_last: bool = False,
        validation_split: int | float = 0.0,
        n_workers: int = 0,
        pin_memory: bool = False,
        cache_mb: int | None = None,
        seed: int = 0,
    ) -> None:
        count, names = count_classes(num_classes, classes, label_map=label_map)
        labels = Labels(count, ignore_index, label_map=label_map)
        pairs = choose_pairs(
            pairs_file,
            folder,
            split or ("train" if is_training else "val"),
            data_root,
            samples,
            image_suffixes=ARRAY_SUFFIXES,
            mask_suffixes=_MASK_SUFFIXES,
        )
        source = ArrayFiles(pairs, layout=layout, picture_key=picture_key, mask_key=mask_key)
        preprocessing = self.make_preprocessing(
            resize=resize,
            padding_value=padding_value,
            mean=mean,
            std=std,
            interpolation=interpolation,
            in_channels=source.channels(0) if in_channels is None else in_channels,
            layout=layout,
            picture_key=picture_key,
        )
        super().__init__(
            MaskTask(source, preprocessing, labels, names),
            Augmentation(crop_range=crop_range, flip_hor=flip_hor, rotate=rotate, angle=angle),
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
    def make_preprocessing(  # type: ignore[override]
        *,
        resize: int | Sequence[int] | None = None,
        padding_value: float = 0.0,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        interpolation: Interpolation = "linear",
        in_channels: int | None = None,
        layout: Layout = "hwc",
        picture_key: str | None = None,
    ) -> ArrayPreprocessing:
        """What makes an input of an array, from the arguments that bear on it and without any data.

        Raises:
            ConfigError: The number of channels is not known.
        """
        if in_channels is None:
            raise ConfigError("in_channels is missing: say it in arch.args or in the loader's args.")
        return ArrayPreprocessing(
            in_channels,
            resize=resize,
            padding_value=padding_value,
            mean=mean,
            std=std,
            interpolation=interpolation,
            layout=layout,
            picture_key=picture_key,
        )

    @staticmethod
    def make_export_ids(*, label_map: Mapping[str, int] | None = None) -> list[int] | None:
        """The masks' own value for each class; None where it is the same."""
        return export_ids(label_map)
