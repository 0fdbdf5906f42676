"""Images with their masks: found by a list or by the layout of a folder, and read by index.

h, w size of an image, C its channels.
"""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_loader.common.image_cache import read_once, stamp
from data_loader.common.options import MaskLoaderOptions, PairOptions
from data_loader.images.files import (
    IMAGE_SUFFIXES,
    first_paths,
    image_size,
    read_entries,
    read_image,
    read_mask,
    require_files,
)
from utils.errors import ConfigError, DataError
from utils.geometry import Size


class Pair(NamedTuple):
    """The files of an image and its mask."""

    image: Path
    mask: Path


class Header(NamedTuple):
    """Properties of a pair that are known before it is decoded.

    Attributes:
        image: Size of the image.
        mask: Size of its mask.
        depth: Bytes per value of the image.
    """

    image: Size
    mask: Size
    depth: int


class PairSource(ABC):
    """A data source of images with their masks, by index. Several threads and processes may read from it at once."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of pairs."""

    @abstractmethod
    def names(self, index: int) -> tuple[str, str]:
        """Return the names of image and mask by which a user finds them."""

    @abstractmethod
    def header(self, index: int) -> Header:
        """Return the sizes of a pair, as cheaply as they are available.

        Raises:
            DataError: A file is missing or of another kind.
        """

    @abstractmethod
    def image(self, index: int) -> np.ndarray:
        """Return an image (h, w, C), as the preprocessing accepts it.

        Raises:
            DataError: It is missing, cut off, or of another kind.
        """

    @abstractmethod
    def mask(self, index: int) -> np.ndarray:
        """Return a mask (h, w) uint8 or uint16, the values as they are stored.

        Raises:
            DataError: It is missing, cut off, or of another kind.
        """

    def identity(self, index: int) -> Hashable | None:
        """Return everything that decides image and mask as they are read; None if that is unknown."""
        return None


class FilePairs(PairSource):
    """Pairs of files.

    Args:
        pairs: The files.
        settings: Everything else that decides image and mask as they are read.
    """

    def __init__(self, pairs: Sequence[Pair], *settings: Hashable) -> None:
        self.pairs = list(pairs)
        self._settings = settings

    def __len__(self) -> int:
        return len(self.pairs)

    def names(self, index: int) -> tuple[str, str]:
        """Return the two paths."""
        return str(self.pairs[index].image), str(self.pairs[index].mask)

    def identity(self, index: int) -> Hashable:
        """Return the state of the two files, and how they are read."""
        pair = self.pairs[index]
        return stamp(pair.image), stamp(pair.mask), *self._settings


class ImagePairs(FilePairs):
    """Pairs of image files.

    Args:
        pairs: The files.
        in_channels: With 4, an image's fourth channel is read as well.
        is_binary: Masks are black and white, so that they may be JPEG files.
    """

    def __init__(self, pairs: Sequence[Pair], *, in_channels: int = 3, is_binary: bool = False) -> None:
        super().__init__(pairs, in_channels, is_binary)
        self._in_channels = in_channels
        self._is_binary = is_binary

    def header(self, index: int) -> Header:
        """Return the sizes from the headers alone, the image turned as its EXIF orientation says."""
        pair = self.pairs[index]
        height, width, depth = image_size(pair.image, upright=self._in_channels != 4)
        mask_height, mask_width, _ = image_size(pair.mask, upright=False)
        return Header((height, width), (mask_height, mask_width), depth)

    def image(self, index: int) -> np.ndarray:
        """Return an image (h, w, 3 or 4) uint8 or uint16, RGB."""
        return read_image(self.pairs[index].image, in_channels=self._in_channels)

    def mask(self, index: int) -> np.ndarray:
        """Return a mask (h, w) uint8 or uint16."""
        return read_mask(self.pairs[index].mask, is_binary=self._is_binary)


def choose_pairs(
    files: PairOptions,
    loading: MaskLoaderOptions,
    *,
    image_suffixes: frozenset[str] = IMAGE_SUFFIXES,
    mask_suffixes: Sequence[str] = (".png",),
) -> list[Pair]:
    """Return the pairs of a list or a folder, whichever is named, as many as the option `samples` says.

    Raises:
        ConfigError: Neither list nor folder is named, or both are.
        DataError: A file is missing, damaged, or does not fit the others.
    """
    if (files.pairs_file is None) == (files.folder is None):
        raise ConfigError("A loader needs pairs_file (a list) or folder (with data/ and labels/), and not both.")
    if files.pairs_file is not None:
        found = read_pairs(files.pairs_file, files.data_root)
    else:
        root = Path(files.data_root or "") / str(files.folder)
        split = files.split or loading.default_split
        found = find_pairs(root, split, image_suffixes=image_suffixes, mask_suffixes=mask_suffixes)
    return found[: loading.samples]


def read_pairs(pairs_file: str | Path, data_root: str | Path | None = None) -> list[Pair]:
    """Read a list with one `image, mask` per line; a comma, a tab or blanks between them, `#` begins a comment line.

    Paths are relative to `data_root`. Without it they are relative to the first of these places that holds the first
    pair: the folder of the list, that folder's parent, the working directory.

    Raises:
        DataError: The list is missing, empty, badly written, or names files that do not exist.
    """
    return read_once(
        pairs_file,
        lambda path: _read_list(path, data_root),
        lambda pairs: sum(sys.getsizeof(str(path)) for pair in pairs for path in pair),
        # Without a root, paths may be relative to the working directory.
        how=(None if data_root is None else str(data_root), os.getcwd()),
    )


def _read_list(path: Path, data_root: str | Path | None) -> list[Pair]:
    names: list[list[str]] = []
    for number, line in read_entries(path, "list of pairs", "pairs_file", "image, mask"):
        separator = "," if "," in line else "\t" if "\t" in line else None
        names.append([part.strip() for part in line.split(separator) if part.strip()])
        if len(names[-1]) != 2:
            raise DataError(
                f"{path}, line {number}: {line!r} is not one image and one mask. Write `image, mask`; use a comma or a "
                "tab if names hold blanks."
            )
    if data_root is None:
        # The parent of "list.txt" is ".", whose parent would be "." again.
        places = (path.parent, path.parent.parent if path.parent.name else Path(".."), Path())
        found = (place for place in places if all((place / name).exists() for name in names[0]))
        root = next(found, path.parent)
    else:
        root = Path(data_root)
    pairs = [Pair(root / image, root / mask) for image, mask in names]
    require_files((path for pair in pairs for path in pair), f"The list {path}", root)
    return pairs


def find_pairs(
    folder: str | Path,
    split: str,
    *,
    image_suffixes: frozenset[str] = IMAGE_SUFFIXES,
    mask_suffixes: Sequence[str] = (".png",),
) -> list[Pair]:
    """Return the pairs of the layout `folder/data/split/NAME.*` and `folder/labels/split/NAME.png`, sorted by name.

    Args:
        folder: Holds `data` and `labels`.
        split: Name of the folders in them.
        image_suffixes: Suffixes of images.
        mask_suffixes: Suffixes of masks; the first one with a file counts.

    Raises:
        DataError: A folder is missing or empty, or a name is on one side only.
    """
    images_folder, masks_folder = (Path(folder) / side / split for side in ("data", "labels"))
    for side in (images_folder, masks_folder):
        if not side.is_dir():
            raise DataError(f"The folder {side} does not exist. Images lie in data/{split}, masks in labels/{split}.")
    images = sorted(path for path in images_folder.rglob("*") if path.suffix.lower() in image_suffixes)
    if not images:
        raise DataError(f"The folder {images_folder} holds no image ({', '.join(sorted(image_suffixes))}).")
    pairs = []
    for image in images:
        path = masks_folder / image.relative_to(images_folder)
        candidates = [path.with_suffix(suffix) for suffix in mask_suffixes]
        pairs.append(Pair(image, next((mask for mask in candidates if mask.is_file()), candidates[0])))
    require_files((path for pair in pairs for path in pair), f"The folder {folder}")
    masks = {mask for suffix in mask_suffixes for mask in masks_folder.rglob(f"*{suffix}")}
    lonely = masks - {pair.mask for pair in pairs}
    if lonely:
        raise DataError(
            f"{len(lonely)} masks without an image in {images_folder}: {first_paths(sorted(lonely))}. Add or remove."
        )
    return pairs
