"""Where pictures and masks come from: whatever gives both by their number. h, w size of a picture, C its channels."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from data_loader.kept import stamp
from data_loader.pairs import Pair
from data_loader.pictures import picture_size, read_mask, read_picture
from utils.geometry import Size


class Header(NamedTuple):
    """What is known of a pair before it is decoded.

    Attributes:
        picture: Size of the picture.
        mask: Size of its mask.
        depth: Bytes per value of the picture.
    """

    picture: Size
    mask: Size
    depth: int


class PairSource(ABC):
    """Pictures and their masks, by number. Reading must be possible from several threads and processes."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def names(self, index: int) -> tuple[str, str]:
        """Picture and mask as the user would look for them."""

    @abstractmethod
    def header(self, index: int) -> Header:
        """Sizes of a pair, as cheaply as they can be had.

        Raises:
            DataError: A file is missing or of another kind.
        """

    @abstractmethod
    def picture(self, index: int) -> np.ndarray:
        """(h, w, C), as the preprocessing takes it.

        Raises:
            DataError: It is missing, cut off, or of another kind.
        """

    @abstractmethod
    def mask(self, index: int) -> np.ndarray:
        """(h, w) uint8 or uint16, the values as they are stored.

        Raises:
            DataError: As for the picture.
        """

    def identity(self, index: int) -> Hashable | None:
        """What decides picture and mask as they are read; None where that is not known, and they are read anew."""
        return None


class PictureFiles(PairSource):
    """Pairs of picture files.

    Args:
        pairs: The files.
        in_channels: 4 keeps a picture's fourth channel.
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
        return str(self.pairs[index].picture), str(self.pairs[index].mask)

    def header(self, index: int) -> Header:
        """From the headers alone, the picture turned as its EXIF says."""
        pair = self.pairs[index]
        height, width, depth = picture_size(pair.picture, upright=self._in_channels != 4)
        mask_height, mask_width, _ = picture_size(pair.mask, upright=False)
        return Header((height, width), (mask_height, mask_width), depth)

    def picture(self, index: int) -> np.ndarray:
        """(h, w, 3 or 4) uint8 or uint16 RGB."""
        return read_picture(self.pairs[index].picture, in_channels=self._in_channels)

    def mask(self, index: int) -> np.ndarray:
        """(h, w) uint8 or uint16."""
        return read_mask(self.pairs[index].mask, is_binary=self._is_binary)

    def identity(self, index: int) -> Hashable:
        """The two files as they are now, and how they are read."""
        pair = self.pairs[index]
        return stamp(pair.picture), stamp(pair.mask), self._in_channels, self._is_binary
