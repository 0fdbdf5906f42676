"""Cityscapes as it is downloaded: photos of streets with 34 kinds of label, of which 19 are classes.

Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, https://arxiv.org/abs/1604.01685.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from data_loader.common.lists import Listing
from data_loader.common.options import (
    ImageOptions,
    LabelMapOptions,
    MaskLabelOptions,
    MaskLoaderOptions,
    UprightAugmentationOptions,
)
from data_loader.images.files import read_mask
from data_loader.segmentation.labels import Labels, export_ids, unmapped_value
from data_loader.segmentation.loader import MaskDataLoader
from data_loader.segmentation.pairs import Header, ImagePairs, Pair, existing_pairs
from utils.errors import DataError
from utils.files import is_hidden

IGNORED = 255
# Class -> its id in the files *_labelIds.png, in the order of the ids in *_labelTrainIds.png, after the data set's
# scripts (cityscapesscripts/helpers/labels.py).
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
    "its server evaluates results: test.py --export-predictions FOLDER writes what it expects. Or evaluate on split "
    '"val"'
)

LabelKind = Literal["labelIds", "labelTrainIds"]
Annotations = Literal["gtFine", "gtCoarse"]


class CityscapesDataLoader(MaskDataLoader):
    """A loader of batches of Cityscapes, from the folder with `leftImg8bit` and `gtFine`; see `MaskDataLoader`.

    Pixels of other labels than the 19 classes are ignored (255).

    Args:
        folder: Holds `leftImg8bit/{split}/CITY/*_leftImg8bit.png` and `gtFine/{split}/CITY/*_gtFine_labelIds.png`.
        split: "train", "val", "test" or "train_extra"; "train" or "val" by `is_training` if not given.
        label_kind: Files to read: "labelIds" as downloaded, or "labelTrainIds" as the data set's scripts make them.
        annotations: "gtFine" or "gtCoarse".
        labels: Other classes than the 19: id in the files -> class; every other id is ignored.
        images: Conversion of an image to an input.
        augmentation: Random changes in training.
        loading: Selection, order and loading of the samples.

    Raises:
        ConfigError: An argument is out of its range, or two of them disagree.
        DataError: A file is missing, or the test split is to be trained on, which has no labels.
    """

    def __init__(
        self,
        folder: str,
        *,
        split: str | None = None,
        label_kind: Annotated[LabelKind, Field(description='Files to read; or `"labelTrainIds"`.')] = "labelIds",
        annotations: Annotated[Annotations, Field(description='Folder of the masks; or `"gtCoarse"`.')] = "gtFine",
        labels: LabelMapOptions = LabelMapOptions(),
        images: ImageOptions = ImageOptions(),
        augmentation: UprightAugmentationOptions = UprightAugmentationOptions(),
        loading: MaskLoaderOptions = MaskLoaderOptions(batch_size=8),
    ) -> None:
        # LABEL_MAP holds the ids of labelIds; the other files hold the classes themselves.
        if labels.label_map is not None:
            options = MaskLabelOptions(**vars(labels), ignore_index=IGNORED)
        else:
            names = labels.classes or list(CLASS_IDS)
            label_map = LABEL_MAP if label_kind == "labelIds" else None
            options = MaskLabelOptions(
                names, label_map, labels.palette, num_classes=len(CLASS_IDS), ignore_index=IGNORED
            )
        classes = Labels(options)
        chosen = split or loading.default_split
        listing = list_cityscapes(folder, chosen, label_kind, annotations)
        pairs = listing.usable()[: loading.samples]
        self._without_labels = reason_without_labels(pairs[0], label_kind) if chosen == "test" else None
        if self._without_labels is not None and loading.is_training:
            raise self._without_labels
        preprocessing = self.make_preprocessing(images)
        source = (ImagePairs if self._without_labels is None else UnlabelledImages)(
            pairs,
            in_channels=preprocessing.in_channels,
            max_decoded_mb=images.max_decoded_mb,
            reduced_decoding=images.reduced_decoding,
        )
        if isinstance(source, UnlabelledImages) and options.label_map is not None:
            source.value = unmapped_value(options.label_map)
        super().__init__(source, preprocessing, classes, augmentation, loading)
        self.listing_faults = listing.faults

    def require_counted_targets(self, section: str) -> None:
        """Refuse the test split, which has no labels, and other samples of which none has a label that counts.

        Raises:
            DataError: Every label is ignored.
        """
        if self._without_labels is not None:
            raise self._without_labels
        super().require_counted_targets(section)

    @staticmethod
    def make_export_ids(*, label_map: Mapping[str, int] | None = None) -> list[int] | None:
        """Return the data set's id for each class, as its server expects results."""
        return export_ids(label_map or LABEL_MAP)


class UnlabelledImages(ImagePairs):
    """Image files whose masks are missing or empty: every pixel is ignored.

    Attributes:
        value: Of every pixel of a mask.
    """

    value: int = IGNORED

    def header(self, index: int) -> Header:
        """Return the size of an image, which is that of its mask, too."""
        image, depth = self.image_header(index)
        return Header(image, image, depth)

    def mask(self, index: int) -> np.ndarray:
        """Return a mask (h, w) uint8 or uint16 of ignored pixels."""
        return np.full(self.image_header(index)[0], self.value, np.min_scalar_type(self.value))


def reason_without_labels(first: Pair, label_kind: LabelKind) -> DataError | None:
    """Return why the test split has no labels, None if it has some.

    Masks that the archive has for it hold none of the 19 classes, only the ids 0 to 3 of what no camera sees. A label
    map may make a class of these, so that the ids of the file decide.

    Args:
        first: Of the split.
        label_kind: Of its mask.
    """
    if not os.path.isfile(first.mask):
        return DataError(f"The test split of Cityscapes has no labels ({first.mask} does not exist); {_SERVER}.")
    known = list(CLASS_IDS.values()) if label_kind == "labelIds" else range(len(CLASS_IDS))
    if not np.isin(read_mask(first.mask), list(known)).any():
        return DataError(f"The test split of Cityscapes has no labels ({first.mask} is empty); {_SERVER}.")
    return None


def list_cityscapes(
    folder: str | Path, split: str, label_kind: LabelKind = "labelIds", annotations: Annotations = "gtFine"
) -> Listing[Pair]:
    """Find the images and masks of a split, sorted by city and name; an image without a mask is a fault.

    Raises:
        DataError: A folder is missing.
    """
    images = Path(folder) / "leftImg8bit" / split
    found = sorted(path for path in images.glob(f"*/*{_IMAGE_ENDING}") if not is_hidden(path.name))
    if not found:
        raise DataError(
            f"{images} holds no CITY/*{_IMAGE_ENDING}. Set folder to the one in which the archives of Cityscapes were "
            "unpacked, with leftImg8bit and gtFine in it."
        )
    masks = Path(folder) / annotations / split
    ending = f"_{annotations}_{label_kind}.png"
    pairs = [Pair(path, masks / path.parent.name / (path.name.removesuffix(_IMAGE_ENDING) + ending)) for path in found]
    missing = [pair.mask for pair in pairs if not os.path.isfile(pair.mask)]
    if not missing or split == "test":  # a loader of the test split needs no masks
        return Listing(pairs)
    scripts = " Make them with cityscapesscripts, or read labelIds." if label_kind == "labelTrainIds" else ""
    message = f"{len(missing)} masks are missing, {missing[0]} the first of them.{scripts} Unpack them there."
    parts = [DataError(f"The mask {mask} is missing.{scripts} Unpack it there.", place=str(mask)) for mask in missing]
    return Listing(existing_pairs(pairs), [DataError(message, parts)])
