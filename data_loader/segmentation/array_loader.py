"""The loader of arrays with any number of channels."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from data_loader.common.options import ArrayOptions, MaskLabelOptions, MaskLoaderOptions, PairOptions, TurnOptions
from data_loader.images.arrays import ARRAY_SUFFIXES, ArrayPreprocessing, array_header, read_array, read_channels
from data_loader.images.files import image_size, read_mask
from data_loader.images.masks import mask_labels
from data_loader.segmentation.labels import Labels
from data_loader.segmentation.loader import MaskDataLoader
from data_loader.segmentation.pairs import FilePairs, Header, Pair, choose_pairs
from utils.errors import DataError

_MASK_SUFFIXES = (".npy", ".npz", ".png")


class ArrayPairs(FilePairs):
    """Pairs of an array and its mask, which is an array or an image file.

    Args:
        pairs: The files.
        images: Layout of the arrays, and their name in `.npz` files.
        mask_key: Name of the mask in `.npz` files.
    """

    def __init__(self, pairs: Sequence[Pair], images: ArrayOptions, mask_key: str | None) -> None:
        super().__init__(pairs, images.layout, images.picture_key, mask_key)
        self._images = images
        self._mask_key = mask_key

    def channels(self, index: int) -> int:
        """Return the channels of an image, from its header."""
        shape, _ = array_header(self.pairs[index].image, self._images.picture_key)
        return 1 if len(shape) < 3 else shape[2 if self._images.layout == "hwc" else 0]

    def header(self, index: int) -> Header:
        """Return the sizes from the headers alone."""
        pair = self.pairs[index]
        shape, dtype = array_header(pair.image, self._images.picture_key)
        if len(shape) == 3 and self._images.layout == "chw":
            shape = shape[1:]
        depth = dtype.itemsize if dtype in (np.uint8, np.uint16, np.bool_) else np.dtype(np.float32).itemsize
        mask_shape: tuple[int, ...]
        if pair.mask.suffix.lower() in ARRAY_SUFFIXES:
            mask_shape, _ = array_header(pair.mask, self._mask_key)
        else:
            mask_shape = image_size(pair.mask, upright=True, max_decoded_mb=self._images.max_decoded_mb)
        # The size (0, 0) of an array that is not an image makes `decode` look at it and report the fault.
        size, mask_size = ((each[0], each[1]) if len(each) > 1 else (0, 0) for each in (shape, mask_shape))
        return Header(size, mask_size, depth)

    def image(self, index: int) -> np.ndarray:
        """Return an image (h, w, C) uint8, uint16 or float32."""
        images = self._images
        return read_channels(
            self.pairs[index].image,
            layout=images.layout,
            key=images.picture_key,
            max_decoded_mb=images.max_decoded_mb,
        )

    def mask(self, index: int) -> np.ndarray:
        """Return a mask (h, w) uint8 or uint16."""
        path: Path = self.pairs[index].mask
        if path.suffix.lower() not in ARRAY_SUFFIXES:
            return read_mask(path, max_decoded_mb=self._images.max_decoded_mb)
        mask = read_array(path, self._mask_key, max_decoded_mb=self._images.max_decoded_mb)
        if mask.ndim not in (2, 3) or 0 in mask.shape:
            raise DataError(f"The mask {path} has the shape {mask.shape}; it must be (height, width). Save that.")
        return mask_labels(mask, path)


class ArraySegmentationDataLoader(MaskDataLoader):
    """A loader of batches of `.npy` or `.npz` arrays with any number of channels, and of masks; see `MaskDataLoader`.

    Changes of colour make no sense for channels in general: there is no brightness, contrast, saturation or noise here,
    and no albumentations.

    Args:
        files: List of the files, see `data_loader.segmentation.pairs.list_pairs`, or a folder with
            `data/{split}/NAME.npy` and `labels/{split}/NAME.npy` (or .npz, .png).
        mask_key: Name of the mask in `.npz` files.
        labels: Classes and values of the masks.
        images: Conversion of an array to an input.
        augmentation: Random changes in training.
        loading: Selection, order and loading of the samples.

    Raises:
        ConfigError: An argument is out of its range, or two of them disagree.
        DataError: A file is missing, damaged, or does not fit the others.
    """

    def __init__(
        self,
        files: PairOptions = PairOptions(),
        *,
        mask_key: Annotated[str | None, Field(description="Name of the mask in `.npz` files.")] = None,
        labels: MaskLabelOptions = MaskLabelOptions(),
        images: ArrayOptions = ArrayOptions(),
        augmentation: TurnOptions = TurnOptions(),
        loading: MaskLoaderOptions = MaskLoaderOptions(),
    ) -> None:
        classes = Labels(labels)
        listing = choose_pairs(files, loading, image_suffixes=ARRAY_SUFFIXES, mask_suffixes=_MASK_SUFFIXES)
        source = ArrayPairs(listing.entries, images, mask_key)
        if images.in_channels is None:
            images = replace(images, in_channels=source.channels(0))
        super().__init__(source, self.make_preprocessing(images), classes, augmentation, loading)
        self.listing_faults = listing.faults

    @staticmethod
    def make_preprocessing(images: ArrayOptions = ArrayOptions()) -> ArrayPreprocessing:  # type: ignore[override]
        """Return the conversion of an array to an input, without any data.

        Raises:
            ConfigError: The number of channels is unknown.
        """
        return ArrayPreprocessing(images)
