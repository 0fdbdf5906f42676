"""Cityscapes as it is downloaded: photos of streets with 34 kinds of label, of which 19 are classes.

Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, https://arxiv.org/abs/1604.01685.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_loader.images.augmentation import Augmentation
from data_loader.images.files import read_mask
from data_loader.images.preprocessing import ColorChannel
from data_loader.segmentation.labels import Labels, count_classes, export_ids
from data_loader.segmentation.loader import Choice, MaskDataLoader, MaskTask, Role
from data_loader.segmentation.pairs import Pair, first_pairs
from data_loader.segmentation.sources import ImageFiles
from utils.errors import DataError

IGNORED = 255
# Class -> its id in the files *_labelIds.png, in the order of the ids in *_labelTrainIds.png, as the data set's own
# scripts have it (cityscapesscripts/helpers/labels.py).
CLASS_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
LABEL_MAP = {str(raw): number for number, raw in enumerate(CLASS_IDS.values())}
_IMAGE_ENDING = "_leftImg8bit.png"
_SERVER = (
    "its server judges results: run inference.py with --source on its leftImg8bit/test, --mode mask and --own-ids, or "
    'judge by split "val"'
)

LabelKind = Literal["labelIds", "labelTrainIds"]
Annotations = Literal["gtFine", "gtCoarse"]


class CityscapesDataLoader(MaskDataLoader):
    """Batches of Cityscapes, from the folder with `leftImg8bit` and `gtFine`.

    Pixels of other labels than the 19 classes are ignored (255).

    Args:
        folder: Holds `leftImg8bit/{split}/CITY/*_leftImg8bit.png` and `gtFine/{split}/CITY/*_gtFine_labelIds.png`.
        split: "train", "val" or "test" (also "train_extra"); by the section that names the loader where not given.
        label_kind: Files to read: "labelIds" as downloaded, or "labelTrainIds" as its scripts make them.
        annotations: "gtFine" or "gtCoarse".
        label_map: Another choice of classes than the 19: id in the files -> class; every other id is ignored.
        classes: Their names, in the order of the classes.
        samples: Only the first so many images, in the order of their names.
        folds: `{"fold": 0, "of": 5}`: training takes the other folds, validation and test that one.
        role: "train", "valid" or "test"; where not given, by the section that names the loader.
        sparse: Hide labels in training, as `{"pattern": "halves", "density": 0.5}`; see `data_loader.sparse`.
        in_channels: 1 or 3; where not given, what `color_channel` implies.
        color_channel: "RGB", "BGR" or "GRAY".
        resize: Size of the input, `[height, width]`, aspect ratio kept; null: 1024 x 2048 as they are.
        padding_value: Grey of the padding, 0 to 255.
        normalize: Subtract ImageNet's mean and divide by its deviation; otherwise 0..1.
        is_training: Augment and shuffle; otherwise evaluate.
        noise_std: As the following ones, see `data_loader.transforms.Augmentation`.
        crop_range: Share of the image's sides that a random window has, [smallest, largest].
        flip_hor: Probability of a left-right flip.
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
        cache_mb: Most memory for decoded images; null: a quarter of what is free.
        seed: Seed of the run.

    Raises:
        ConfigError: An argument is out of its range, or two of them disagree.
        DataError: The folder does not hold what it should, or the test split no labels.
    """

    def __init__(
        self,
        folder: str,
        *,
        split: str | None = None,
        label_kind: LabelKind = "labelIds",
        annotations: Annotations = "gtFine",
        label_map: Mapping[str, int] | None = None,
        classes: Sequence[str] | None = None,
        samples: int | None = None,
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
        angle: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        transforms: Sequence[Any] = (),
        batch_size: int = 8,
        shuffle: bool | None = None,
        drop_last: bool = False,
        validation_split: int | float = 0.0,
        n_workers: int = 0,
        pin_memory: bool = False,
        cache_mb: int | None = None,
        seed: int = 0,
    ) -> None:
        labels, names = _labels(label_kind, label_map, classes)
        chosen = split or ("train" if is_training else "val")
        pairs = first_pairs(find_cityscapes(folder, chosen, label_kind, annotations), samples)
        if chosen == "test":
            _require_labels(pairs[0], labels)
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
            angle=angle,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
        )
        super().__init__(
            MaskTask(ImageFiles(pairs, in_channels=preprocessing.in_channels), preprocessing, labels, names),
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
        """The data set's own id for each class, as its server wants results."""
        return export_ids(label_map or LABEL_MAP)


def find_cityscapes(
    folder: str | Path, split: str, label_kind: LabelKind = "labelIds", annotations: Annotations = "gtFine"
) -> list[Pair]:
    """Images and masks of a split, sorted by city and name.

    Raises:
        DataError: A folder or a mask is missing.
    """
    images = Path(folder) / "leftImg8bit" / split
    found = sorted(images.glob(f"*/*{_IMAGE_ENDING}"))
    if not found:
        raise DataError(
            f"{images} holds no CITY/*{_IMAGE_ENDING}. Let folder be where the archives of Cityscapes were "
            "unpacked, with leftImg8bit and gtFine in it."
        )
    masks = Path(folder) / annotations / split
    ending = f"_{annotations}_{label_kind}.png"
    pairs = [Pair(path, masks / path.parent.name / (path.name.removesuffix(_IMAGE_ENDING) + ending)) for path in found]
    missing = [pair.mask for pair in pairs if not pair.mask.is_file()]
    if missing and split == "test":
        raise DataError(f"The test split of Cityscapes has no labels ({missing[0]} does not exist); {_SERVER}.")
    if missing:
        scripts = " Make them with cityscapesscripts, or read labelIds." if label_kind == "labelTrainIds" else ""
        raise DataError(
            f"{len(missing)} masks are missing, {missing[0]} the first of them.{scripts} Unpack them there."
        )
    return pairs


def _labels(
    label_kind: LabelKind, label_map: Mapping[str, int] | None, classes: Sequence[str] | None
) -> tuple[Labels, list[str]]:
    if label_map is not None:
        count, names = count_classes(None, classes, label_map=label_map)
        return Labels(count, IGNORED, label_map=label_map), names
    count, names = count_classes(len(CLASS_IDS), classes or list(CLASS_IDS))
    return Labels(count, IGNORED, label_map=LABEL_MAP if label_kind == "labelIds" else None), names


def _require_labels(pair: Pair, labels: Labels) -> None:
    """The masks of the test split are there, but empty, in the archive."""
    ids, _ = labels.convert(read_mask(pair.mask))
    if (np.asarray(ids) == labels.ignored).all():
        raise DataError(f"The test split of Cityscapes has no labels ({pair.mask} is empty); {_SERVER}.")
