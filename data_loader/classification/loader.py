"""The loader of images with one class each that a configuration names."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from base.base_data_loader import BaseDataLoader, Task
from data_loader.classification.dataset import ClassificationCollate, ImageAugmentation, LabelledImageDataset
from data_loader.classification.sources import (
    NO_CLASS,
    LabelledImages,
    checked_classes,
    class_ids,
    find_in_folders,
    first_of_each_class,
    from_dataset,
    read_idx_pair,
    read_list,
)
from data_loader.common.options import AugmentationOptions, ColorChannel, ImageOptions
from data_loader.images.augmentation import Augmentation
from data_loader.images.preprocessing import Preprocessing
from utils.errors import ConfigError


class ImageClassificationDataLoader(BaseDataLoader):
    """Batches of images and their classes, from one of four sources: `folder`, `list_file`, idx files, `dataset`.

    Training batches are (images (B, C, H, W) float32, classes (B,) int64), with `mixup` shares (B, K) float32. With
    `is_training` false nothing is augmented, and a batch has a third part: a list of `base.sample.NamedSample`.

    Args:
        folder: Folder with one folder per class, or with `train`, `val` and `test` that hold these.
        list_file: List with one `path, class` per line.
        images_file: Idx file of images, as of MNIST; `.gz` or not.
        labels_file: Idx file of their classes.
        dataset: Data set of torchvision, e.g. `{"type": "torchvision.datasets.CIFAR10", "args": {"root": "data"}}`.
        split: Part of the folder; "train" or "val" by `is_training` where not given.
        data_root: What the paths of the list (or the folder) are relative to.
        samples: Only so many images, from the classes in turn.
        classes: Names of the classes, in the order of their ids; those of the training data where not given.
        in_channels: 1, 3 or 4; where not given, what `color_channel` implies.
        color_channel: "RGB", "BGR" or "GRAY".
        resize: Size of the input, `[height, width]` or one number for a square, aspect ratio kept; null: own sizes.
        padding_value: Grey of the padding around images of another shape, 0 to 255.
        normalize: Subtract ImageNet's mean and divide by its deviation; otherwise 0..1.
        is_training: Augment and shuffle; otherwise evaluate.
        flip_hor: Probability of a left-right flip.
        shift: Largest shift to each side, a share of the input's sides.
        cutout: Side of a random square that is blanked, a share of the input's shorter side.
        mixup: Parameter of the Beta distribution by which pairs of images are mixed; 0 mixes none.
        crop_range: Share of the image's sides that a random window has, [smallest, largest].
        rotate: Probability of a quarter turn.
        angle: Largest rotation in degrees.
        brightness: Largest change of brightness, a share.
        contrast: Largest change of contrast, a share.
        saturation: Largest change of saturation, a share.
        noise_std: Deviation of added noise, in levels of 0 to 255.
        transforms: Albumentations' transforms, in order, before the augmentation above; in training only.
        batch_size: Samples per batch, over all processes.
        shuffle: New order in each epoch; where not given, in training.
        drop_last: Leave out an incomplete last batch.
        validation_split: Share or number of samples held out for `split_validation`.
        n_workers: Worker processes.
        pin_memory: Page-locked batches, where there is CUDA.
        cache_mb: Most memory for decoded images; null: a quarter of what is free.
        seed: Seed of the run.

    Raises:
        ConfigError: An argument is out of its range, or there is not exactly one source.
        DataError: The source does not hold what it should.
    """

    task: Task = "classification"

    def __init__(
        self,
        folder: str | None = None,
        *,
        list_file: str | None = None,
        images_file: str | None = None,
        labels_file: str | None = None,
        dataset: Any = None,
        split: str | None = None,
        data_root: str | None = None,
        samples: int | None = None,
        classes: Sequence[str] | None = None,
        in_channels: int | None = None,
        color_channel: ColorChannel | None = None,
        resize: int | Sequence[int] | None = None,
        padding_value: int = 0,
        normalize: bool = True,
        is_training: bool = True,
        flip_hor: float = 0.0,
        shift: float = 0.0,
        cutout: float = 0.0,
        mixup: float = 0.0,
        crop_range: Sequence[float] | None = None,
        rotate: float = 0.0,
        angle: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        noise_std: float = 0.0,
        transforms: Sequence[Any] = (),
        batch_size: int = 64,
        shuffle: bool | None = None,
        drop_last: bool = False,
        validation_split: int | float = 0.0,
        n_workers: int = 0,
        pin_memory: bool = False,
        cache_mb: int | None = None,
        seed: int = 0,
    ) -> None:
        preprocessing = self.make_preprocessing(
            resize=resize,
            padding_value=padding_value,
            color_channel=color_channel,
            normalize=normalize,
            in_channels=in_channels,
        )
        options = AugmentationOptions(
            noise_std=noise_std,
            crop_range=crop_range,
            flip_hor=flip_hor,
            rotate=rotate,
            angle=angle,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            transforms=transforms,
        )
        warp = Augmentation(options, preprocessing)
        augmentation = ImageAugmentation(warp, shift=shift, cutout=cutout)
        role = split or ("train" if is_training else "val")
        found = _source(folder, list_file, (images_file, labels_file), dataset, split=role, data_root=data_root)
        found, names = _named(found, classes or ())
        images = found.chosen(first_of_each_class(found.labels, samples))
        ids = class_ids(images.labels, names, images.names.__getitem__)
        plain = LabelledImageDataset(images, ids, preprocessing, cache_mb=cache_mb)
        augmented = LabelledImageDataset(images, ids, preprocessing, augmentation=augmentation, cache_mb=cache_mb)
        super().__init__(
            augmented if is_training else plain,
            batch_size,
            shuffle=is_training if shuffle is None else shuffle,
            validation_split=validation_split,
            n_workers=n_workers,
            collate_fn=ClassificationCollate(preprocessing, len(names), mixup),
            seed=seed,
            pin_memory=pin_memory,
            drop_last=drop_last,
            validation_dataset=plain,
            is_training=is_training,
        )
        self.num_classes, self.class_names = len(names), names
        self.in_channels = preprocessing.in_channels
        self.ignore_index = NO_CLASS
        self.preprocessing = preprocessing
        self.learned = {"classes": names}

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
        options = ImageOptions(
            resize=resize,
            padding_value=padding_value,
            color_channel=color_channel,
            normalize=normalize,
            in_channels=in_channels,
        )
        return Preprocessing(options)


def _source(
    folder: str | None,
    list_file: str | None,
    idx: tuple[str | None, str | None],
    dataset: Any,
    *,
    split: str,
    data_root: str | None,
) -> LabelledImages:
    given = [folder is not None, list_file is not None, idx != (None, None), dataset is not None]
    if sum(given) != 1 or (idx != (None, None) and None in idx):
        raise ConfigError(
            f"{sum(given)} sources are given: images come from exactly one. Set folder, list_file, dataset, or "
            "images_file and labels_file together."
        )
    if folder is not None:
        return find_in_folders(f"{data_root}/{folder}" if data_root else folder, split)
    if list_file is not None:
        return read_list(list_file, data_root)
    return from_dataset(dataset) if dataset is not None else read_idx_pair(str(idx[0]), str(idx[1]))


def _named(found: LabelledImages, classes: Sequence[str]) -> tuple[LabelledImages, list[str]]:
    """The images and all classes; names that are given in the place of numbers take these over."""
    names = checked_classes(classes, found.classes)
    are_ids = all(name.isdecimal() and int(name) < len(names) for name in found.classes)
    if not are_ids or set(found.classes) <= set(names):
        return found, names
    labels = [names[int(label)] for label in found.labels]
    return replace(found, labels=labels, classes=names), names
