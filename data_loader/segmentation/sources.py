"""Where images and masks come from: whatever gives both by their number. h, w size of an image, C its channels."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from data_loader.common.shared_cache import stamp
from data_loader.images.files import image_size, read_image, read_mask
from data_loader.segmentation.pairs import Pair
from utils.geometry import Size


class Header(NamedTuple):
    """What is known of a pair before it is decoded.

    Attributes:
        image: Size of the image.
        mask: Size of its mask.
        depth: Bytes per value of the image.
    """

    image: Size
    mask: Size
    depth: int


class PairSource(ABC):
    """Images and their masks, by number. Reading must be possible from several threads and processes."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def names(self, index: int) -> tuple[str, str]:
        """Image and mask as the user would look for them."""

    @abstractmethod
    def header(self, index: int) -> Header:
        """Sizes of a pair, as cheaply as they can be had.

        Raises:
            DataError: A file is missing or of another kind.
        """

    @abstractmethod
    def image(self, index: int) -> np.ndarray:
        """(h, w, C), as the preprocessing takes it.

        Raises:
            DataError: It is missing, cut off, or of another kind.
        """

    @abstractmethod
    def mask(self, index: int) -> np.ndarray:
        """(h, w) uint8 or uint16, the values as they are stored.

        Raises:
            DataError: As for the image.
        """

    def identity(self, index: int) -> Hashable | None:
        """What decides image and mask as they are read; None where that is not known, and they are read anew."""
        return None


class ImageFiles(PairSource):
    """Pairs of image files.

    Args:
        pairs: The files.
        in_channels: 4 keeps an image's fourth channel.
        is_binary: Masks are black and white, so that JPEG will do.
    """

    def __init__(self, pairs: Sequence[Pair], *, in_channels: int = 3, is_binary: bool = False) -> None:
        self.pairs = list(pairs)
        self._in_channels = in_channels
        self._is_binary = is_binary

    def __len__(self) -> int:
        return len(self.pairs)

    def names(self, index: int) -> tuple[str, str]:
        """The two paths."""
        return str(self.pairs[index].image), str(self.pairs[index].mask)

    def header(self, index: int) -> Header:
        """From the headers alone, the image turned as its EXIF says."""
        pair = self.pairs[index]
        height, width, depth = image_size(pair.image, upright=self._in_channels != 4)
        mask_height, mask_width, _ = image_size(pair.mask, upright=False)
        return Header((height, width), (mask_height, mask_width), depth)

    def image(self, index: int) -> np.ndarray:
        """(h, w, 3 or 4) uint8 or uint16 RGB."""
        return read_image(self.pairs[index].image, in_channels=self._in_channels)

    def mask(self, index: int) -> np.ndarray:
        """(h, w) uint8 or uint16."""
        return read_mask(self.pairs[index].mask, is_binary=self._is_binary)

    def identity(self, index: int) -> Hashable:
        """The two files as they are now, and how they are read."""
        pair = self.pairs[index]
        return stamp(pair.image), stamp(pair.mask), self._in_channels, self._is_binary
