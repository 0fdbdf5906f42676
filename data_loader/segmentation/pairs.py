"""Images with their masks: found by a list or by the layout of a folder, and read by index.

h, w size of an image, C its channels.
"""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_loader.common.image_cache import read_once, stamp
from data_loader.common.lists import (
    Listing,
    first_paths,
    missing_fault,
    name_of_split,
    read_entries,
    several_lines,
    split_entry,
    warn_of_left_out,
)
from data_loader.common.options import MaskLoaderOptions, PairOptions
from data_loader.images.files import ScaledImage, image_size, read_image, read_mask, read_scaled_image
from utils.errors import ConfigError, DataError, joined_faults
from utils.files import IMAGE_SUFFIXES, files_below
from utils.geometry import Size

MASK_SUFFIXES = (".png", *sorted(IMAGE_SUFFIXES - {".png"}), ".gif")
"""Kinds of mask files, the preferred one first."""

_NOTHING_ELSE = frozenset({".png", ".npy", ".npz"})  # kinds of which a folder of masks holds no other files


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

    def scaled_image(self, index: int, needed: Callable[[Size], Size]) -> ScaledImage:
        """Return an image, which may be smaller than its file, and the size of the file.

        Args:
            index: Of the pair.
            needed: Size of the file -> size that the image must have at least.

        Raises:
            DataError: As `image`.
        """
        image = self.image(index)
        return ScaledImage(image, (image.shape[0], image.shape[1]))

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
        is_binary: Masks are black and white, so that they may be lossy files, as JPEG.
        ignore_index: With `is_binary`, a label that counts nowhere; masks must then not be lossy.
        max_decoded_mb: Limit on a decoded image or mask; None: the default of `read_image`.
        reduced_decoding: A JPEG is decoded at a part of its size if no more is needed.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        in_channels: int = 3,
        is_binary: bool = False,
        ignore_index: int | None = None,
        max_decoded_mb: int | None = None,
        reduced_decoding: bool = False,
    ) -> None:
        super().__init__(pairs, in_channels, is_binary, ignore_index, reduced_decoding)
        self._reduced_decoding = reduced_decoding
        self._in_channels = in_channels
        self._is_binary = is_binary
        self._ignore_index = ignore_index
        self._max_decoded_mb = max_decoded_mb

    def header(self, index: int) -> Header:
        """Return the sizes from the headers alone, turned as their EXIF orientations say."""
        image, depth = self.image_header(index)
        height, width, _ = image_size(self.pairs[index].mask, upright=True, max_decoded_mb=self._max_decoded_mb)
        return Header(image, (height, width), depth)

    def image_header(self, index: int) -> tuple[Size, int]:
        """Return size and bytes per value of an image from its header alone, turned as its EXIF orientation says."""
        path = self.pairs[index].image
        height, width, depth = image_size(path, upright=True, max_decoded_mb=self._max_decoded_mb)
        return (height, width), depth

    def image(self, index: int) -> np.ndarray:
        """Return an image (h, w, 3 or 4) uint8 or uint16, RGB."""
        path = self.pairs[index].image
        return read_image(path, in_channels=self._in_channels, max_decoded_mb=self._max_decoded_mb)

    def scaled_image(self, index: int, needed: Callable[[Size], Size]) -> ScaledImage:
        """Return an image at the size that is needed or above, and the size of the file."""
        if not self._reduced_decoding:
            return super().scaled_image(index, needed)
        path, limit = self.pairs[index].image, self._max_decoded_mb
        return read_scaled_image(path, needed, in_channels=self._in_channels, max_decoded_mb=limit)

    def mask(self, index: int) -> np.ndarray:
        """Return a mask (h, w) uint8 or uint16."""
        return read_mask(
            self.pairs[index].mask,
            is_binary=self._is_binary,
            ignore_index=self._ignore_index,
            max_decoded_mb=self._max_decoded_mb,
        )


def choose_pairs(
    files: PairOptions,
    loading: MaskLoaderOptions,
    *,
    image_suffixes: frozenset[str] = IMAGE_SUFFIXES,
    mask_suffixes: Sequence[str] = MASK_SUFFIXES,
) -> Listing[Pair]:
    """Return the pairs of a list or a folder, whichever is named, as many as the option `samples` says.

    Raises:
        ConfigError: Neither list nor folder is named, or both are.
        DataError: No pair can be used.
    """
    if (files.pairs_file is None) == (files.folder is None):
        raise ConfigError("A loader needs pairs_file (a list) or folder (with data/ and labels/), and not both.")
    if files.pairs_file is not None:
        found = read_once(
            files.pairs_file,
            lambda path: list_pairs(path, files.data_root),
            lambda listing: sum(sys.getsizeof(str(path)) for pair in listing.entries for path in pair),
            # Without a root, paths may be relative to the working directory.
            how=(files.data_root, os.getcwd()),
        )
    else:
        root = Path(files.data_root or "") / str(files.folder)
        split = files.split or loading.default_split
        found = list_folder(root, split, image_suffixes=image_suffixes, mask_suffixes=mask_suffixes)
    return Listing(found.usable()[: loading.samples], found.faults)


def list_pairs(pairs_file: str | Path, data_root: str | Path | None = None) -> Listing[Pair]:
    """Read a list with one `image, mask` per line; a tab, a comma or blanks between them, `#` begins a comment line.

    Names that hold the separator are put between double quotes.

    Paths are relative to `data_root`. Without it they are relative to the first of these places that holds the first
    pair: the folder of the list, that folder's parent, the working directory.

    Raises:
        DataError: The list is missing or empty.
    """
    path = Path(pairs_file)
    names: list[list[str]] = []
    bad_lines = []
    for number, line in read_entries(path, "list of pairs", "pairs_file", "image, mask"):
        fields = split_entry(line)
        if len(fields) == 2:
            names.append(fields)
            continue
        text = (
            f"{path}, line {number}: {line!r} is not one image and one mask. Write `image, mask`; use a tab "
            "between them, or quotes around names, if names hold commas or blanks."
        )
        bad_lines.append(DataError(text, place=f"{path}, line {number}"))
    if data_root is None:
        # The parent of "list.txt" is ".", whose parent would be "." again.
        places = (path.parent, path.parent.parent if path.parent.name else Path(".."), Path())
        first = names[0] if names else []
        root = next((place for place in places if all(os.path.exists(place / name) for name in first)), path.parent)
    else:
        root = Path(data_root)
    pairs = [Pair(root / image, root / mask) for image, mask in names]
    faults = several_lines(bad_lines, f"{len(bad_lines)} lines of {path} are not `image, mask`:")
    missing = missing_fault((each for pair in pairs for each in pair), f"The list {path}", root)
    return Listing(existing_pairs(pairs) if missing else pairs, [*faults, *missing])


def existing_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs of which both files exist."""
    return [pair for pair in pairs if all(map(os.path.isfile, pair))]


def list_folder(
    folder: str | Path,
    split: str,
    *,
    image_suffixes: frozenset[str] = IMAGE_SUFFIXES,
    mask_suffixes: Sequence[str] = MASK_SUFFIXES,
) -> Listing[Pair]:
    """Find the pairs of the layout `folder/data/split/NAME.*` and `folder/labels/split/NAME.png`, sorted by name.

    Hidden files are no part of it, and upper and lower case are the same in suffixes. A name that is on one side only
    is a fault.

    Args:
        folder: Holds `data` and `labels`.
        split: Name of the folders in them.
        image_suffixes: Suffixes of images.
        mask_suffixes: Suffixes of masks in lower case; the first one with a file counts.

    Raises:
        DataError: A folder is missing or empty.
    """
    split = name_of_split(Path(folder) / "data", split)
    images_folder, masks_folder = (Path(folder) / side / split for side in ("data", "labels"))
    absent = [
        DataError(f"The folder {side} does not exist. Images lie in data/{split}, masks in labels/{split}.")
        for side in (images_folder, masks_folder)
        if not os.path.isdir(side)
    ]
    if absent:
        raise joined_faults(absent)
    files = files_below(images_folder)
    images = [path for path in files if path.suffix.lower() in image_suffixes]
    left_out = warn_of_left_out(images_folder, files, image_suffixes)
    if not images:
        others = f"; left out: {left_out}" if left_out else ""
        kinds = ", ".join(sorted(image_suffixes))
        raise DataError(f"The folder {images_folder} holds no image ({kinds}{others}). Add some.")
    masks: dict[Path, list[Path]] = {}  # path without suffix -> files, the preferred one first
    for mask in sorted(files_below(masks_folder), key=lambda path: path.suffix != path.suffix.lower()):
        masks.setdefault(mask.with_suffix(""), []).append(mask)
    pairs = []
    for image in images:
        name = masks_folder / image.relative_to(images_folder).with_suffix("")
        found = [mask for kind in mask_suffixes for mask in masks.get(name, ()) if mask.suffix.lower() == kind]
        pairs.append(Pair(image, found[0] if found else name.with_name(name.name + mask_suffixes[0])))
    missing = missing_fault((path for pair in pairs for path in pair), f"The folder {folder}")
    faults = [*missing]
    strict = _NOTHING_ELSE.intersection(mask_suffixes)
    lonely = {mask for files in masks.values() for mask in files if mask.suffix.lower() in strict}
    lonely -= {pair.mask for pair in pairs}
    if lonely:
        found = sorted(lonely)
        message = f"{len(lonely)} masks without an image in {images_folder}: {first_paths(found)}. Add or remove."
        rule = f"is a mask without an image in {images_folder}. Add or remove."
        parts = [DataError(f"{mask} {rule}", place=str(mask)) for mask in found]
        faults.append(DataError(message, parts))
    return Listing(existing_pairs(pairs) if missing else pairs, faults)
