"""Images with their masks: found by a list or by the layout of a folder, read by index, and decoded for the cache.

h, w size of an image, C its channels.
"""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import KW_ONLY, dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_loader.common.image_cache import Decoder, Footprint, first_few, read_once, stamp
from data_loader.common.lists import (
    first_paths,
    name_of_split,
    read_entries,
    require_files,
    split_entry,
    warn_of_left_out,
)
from data_loader.common.options import MaskLoaderOptions, PairOptions
from data_loader.images.files import image_size, read_image, read_mask
from data_loader.images.preprocessing import NO_ENLARGEMENT, Enlargement, Preprocessing, scaled_mask
from data_loader.segmentation.labels import Labels
from data_loader.segmentation.sparse_labels import SparseLabels
from utils.errors import ConfigError, DataError
from utils.files import IMAGE_SUFFIXES, files_below
from utils.geometry import Size

MASK_SUFFIXES = (".png", *sorted(IMAGE_SUFFIXES - {".png"}), ".gif")
"""Kinds of mask files, the preferred one first."""

_LABELS_SHOWN = 8
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
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        in_channels: int = 3,
        is_binary: bool = False,
        ignore_index: int | None = None,
        max_decoded_mb: int | None = None,
    ) -> None:
        super().__init__(pairs, in_channels, is_binary, ignore_index)
        self._in_channels = in_channels
        self._is_binary = is_binary
        self._ignore_index = ignore_index
        self._max_decoded_mb = max_decoded_mb

    def header(self, index: int) -> Header:
        """Return the sizes from the headers alone, turned as their EXIF orientations say."""
        pair = self.pairs[index]
        height, width, depth = image_size(pair.image, upright=True, max_decoded_mb=self._max_decoded_mb)
        mask_height, mask_width, _ = image_size(pair.mask, upright=True, max_decoded_mb=self._max_decoded_mb)
        return Header((height, width), (mask_height, mask_width), depth)

    def image(self, index: int) -> np.ndarray:
        """Return an image (h, w, 3 or 4) uint8 or uint16, RGB."""
        path = self.pairs[index].image
        return read_image(path, in_channels=self._in_channels, max_decoded_mb=self._max_decoded_mb)

    def mask(self, index: int) -> np.ndarray:
        """Return a mask (h, w) uint8 or uint16."""
        return read_mask(
            self.pairs[index].mask,
            is_binary=self._is_binary,
            ignore_index=self._ignore_index,
            max_decoded_mb=self._max_decoded_mb,
        )


class UnknownLabels(DataError):
    """A mask holds labels that it must not hold.

    Attributes:
        finding: The mask and its labels, without the repair.
        unknown: The labels.
    """

    finding: str = ""
    unknown: Sequence[int] = ()


class DecodedPair(NamedTuple):
    """A pair as the cache holds it.

    Attributes:
        image: (h', w', C) as the source gives it, RGB if it is a photo, no larger than the augmentation needs it.
        mask: (h', w') as the image, or (h, w) if masks are whole; uint8 or uint16 ids.
        original: Size of the files.
        labelled: Number of pixels with a class in the mask at its original size, if labels are hidden.
    """

    image: np.ndarray
    mask: np.ndarray
    original: Size
    labelled: int


@dataclass(eq=False)
class PairDecoder(Decoder[DecodedPair]):
    """Reader of pairs, at the scale that network and augmentation need: an epoch costs no decoding and no large resize.

    Args:
        source: Images and masks.
        preprocessing: Gives scale and channels.
        labels: Gives the allowed values of masks.
        has_whole_masks: Masks retain their original size, as evaluation needs them.
        enlargement: The most that an augmentation enlarges a part of an image, which is then kept as much larger.
        sparse: Hides labels, on the mask as it is in its file.
    """

    noun = "pairs"

    source: PairSource
    preprocessing: Preprocessing
    labels: Labels
    _: KW_ONLY
    has_whole_masks: bool
    enlargement: Enlargement = NO_ENLARGEMENT
    sparse: SparseLabels | None = None

    def footprint(self, index: int) -> Footprint:
        """Return the size of a pair from its headers."""
        header = self.source.header(index)
        size = header.image
        if size != header.mask:
            size = self.decode(index).original  # a header may mislead; the pixels decide
        height, width = size
        pixels = prod(self.preprocessing.shrunk_size(size, self.enlargement))
        mask_pixels = height * width if self.has_whole_masks else pixels
        image_bytes = pixels * self.preprocessing.in_channels * header.depth
        return Footprint(size, image_bytes + mask_pixels * self.labels.dtype.itemsize + 16)  # 16 for the alignment

    def decode(self, index: int) -> DecodedPair:
        """Return a pair at the network's scale.

        Raises:
            DataError: A file is missing or damaged, the two differ in size, or the mask has unknown labels.
        """
        image, raw = self.source.image(index), self.source.mask(index)
        size, mask_size = (image.shape[0], image.shape[1]), (raw.shape[0], raw.shape[1])
        if size != mask_size:
            name, mask_name = self.source.names(index)
            turned = " Height and width are swapped: if EXIF turns the photo, turn the mask, too."
            raise DataError(
                f"{mask_name} is {mask_size[0]}x{mask_size[1]} (height x width) but its image {name} is "
                f"{size[0]}x{size[1]}: both must have the same size.{turned if size == mask_size[::-1] else ''} "
                "Resize the mask (nearest neighbour)."
            )
        mask = self._class_ids(index, raw)
        labelled = 0 if self.sparse is None else int(np.count_nonzero(mask != self.labels.ignored))
        shrunk = self.preprocessing.shrink(image, self.enlargement)
        if not self.has_whole_masks:
            mask = scaled_mask(mask, (shrunk.shape[0], shrunk.shape[1]))
        return DecodedPair(shrunk, mask, size, labelled)

    def mask(self, index: int) -> np.ndarray:
        """Return the mask of a pair at its original size, (h, w) ids, without its image.

        Raises:
            DataError: The file is missing or damaged, or the mask has unknown labels.
        """
        return self._class_ids(index, self.source.mask(index))

    def scale(self) -> str:
        """Return the scale of the decoded images as the end of a sentence."""
        return self.enlargement.describe()

    def settings(self) -> Hashable:
        """Return everything that decides a decoded pair except its files."""
        decided_by = self.preprocessing.identity(), self.labels.identity()
        return DecodedPair, type(self.source), *decided_by, self.has_whole_masks, self.enlargement, self.sparse

    def identities(self, indices: Sequence[int]) -> dict[int, Hashable]:
        """Return the state of the files of each pair, as far as it is known."""
        known = {index: self.source.identity(index) for index in indices}
        # The labels that are hidden follow from the index of a pair as well.
        return {
            index: identity if self.sparse is None else (identity, index)
            for index, identity in known.items()
            if identity is not None
        }

    def summarize(self, faults: Sequence[DataError], count: int) -> str:
        """Return one message for several pairs; those with unknown labels come last, with one repair for all."""
        unknown = [fault for fault in faults if isinstance(fault, UnknownLabels)]
        lines = [f"{len(faults)} of {count} {self.noun} cannot be used."]
        lines += first_few([str(fault) for fault in faults if not isinstance(fault, UnknownLabels)])
        if unknown:
            lines += first_few([fault.finding for fault in unknown])
            values = {value for fault in unknown for value in fault.unknown}
            lines.append(f"Masks must hold {self.labels.rule()}. {self.labels.repair(values)}")
        return "\n".join(lines)

    def _class_ids(self, index: int, raw: np.ndarray) -> np.ndarray:
        """Convert a mask as read (h, w) to class ids, and hide labels."""
        mask, unknown = self.labels.convert(raw)
        if unknown:
            shown = ", ".join(map(str, unknown[:_LABELS_SHOWN])) + (", ..." if len(unknown) > _LABELS_SHOWN else "")
            finding = f"{self.source.names(index)[1]} holds the labels {shown}"
            fault = UnknownLabels(f"{finding}: masks must hold {self.labels.rule()}. {self.labels.repair(unknown)}")
            # Set, not passed: an error that a loader worker sends is rebuilt from its message alone.
            fault.finding, fault.unknown = finding, unknown
            raise fault
        if self.sparse is not None:
            visible = self.sparse.visible((mask.shape[0], mask.shape[1]), index)
            mask = np.where(visible, mask, mask.dtype.type(self.labels.ignored))
        return mask


def choose_pairs(
    files: PairOptions,
    loading: MaskLoaderOptions,
    *,
    image_suffixes: frozenset[str] = IMAGE_SUFFIXES,
    mask_suffixes: Sequence[str] = MASK_SUFFIXES,
) -> list[Pair]:
    """Return the pairs of a list or a folder, whichever is named, as many as the option `samples` says.

    Raises:
        ConfigError: Neither list nor folder is named, or both are.
        DataError: A file is missing, damaged, or does not fit the others.
    """
    if (files.pairs_file is None) == (files.folder is None):
        raise ConfigError("A loader needs pairs_file (a list) or folder (with data/ and labels/), and not both.")
    if files.pairs_file is not None:
        found = read_once(
            files.pairs_file,
            lambda path: read_pairs(path, files.data_root),
            lambda pairs: sum(sys.getsizeof(str(path)) for pair in pairs for path in pair),
            # Without a root, paths may be relative to the working directory.
            how=(files.data_root, os.getcwd()),
        )
    else:
        root = Path(files.data_root or "") / str(files.folder)
        split = files.split or loading.default_split
        found = find_pairs(root, split, image_suffixes=image_suffixes, mask_suffixes=mask_suffixes)
    return found[: loading.samples]


def read_pairs(pairs_file: str | Path, data_root: str | Path | None = None) -> list[Pair]:
    """Read a list with one `image, mask` per line; a tab, a comma or blanks between them, `#` begins a comment line.

    Names that hold the separator are put between double quotes.

    Paths are relative to `data_root`. Without it they are relative to the first of these places that holds the first
    pair: the folder of the list, that folder's parent, the working directory.

    Raises:
        DataError: The list is missing, empty, badly written, or names files that do not exist.
    """
    path = Path(pairs_file)
    names: list[list[str]] = []
    for number, line in read_entries(path, "list of pairs", "pairs_file", "image, mask"):
        names.append(split_entry(line))
        if len(names[-1]) != 2:
            raise DataError(
                f"{path}, line {number}: {line!r} is not one image and one mask. Write `image, mask`; use a tab "
                "between them, or quotes around names, if names hold commas or blanks."
            )
    if data_root is None:
        # The parent of "list.txt" is ".", whose parent would be "." again.
        places = (path.parent, path.parent.parent if path.parent.name else Path(".."), Path())
        found = (place for place in places if all(os.path.exists(place / name) for name in names[0]))
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
    mask_suffixes: Sequence[str] = MASK_SUFFIXES,
) -> list[Pair]:
    """Return the pairs of the layout `folder/data/split/NAME.*` and `folder/labels/split/NAME.png`, sorted by name.

    Hidden files are no part of it, and upper and lower case are the same in suffixes.

    Args:
        folder: Holds `data` and `labels`.
        split: Name of the folders in them.
        image_suffixes: Suffixes of images.
        mask_suffixes: Suffixes of masks in lower case; the first one with a file counts.

    Raises:
        DataError: A folder is missing or empty, or a name is on one side only.
    """
    split = name_of_split(Path(folder) / "data", split)
    images_folder, masks_folder = (Path(folder) / side / split for side in ("data", "labels"))
    for side in (images_folder, masks_folder):
        if not os.path.isdir(side):
            raise DataError(f"The folder {side} does not exist. Images lie in data/{split}, masks in labels/{split}.")
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
    require_files((path for pair in pairs for path in pair), f"The folder {folder}")
    strict = _NOTHING_ELSE.intersection(mask_suffixes)
    lonely = {mask for files in masks.values() for mask in files if mask.suffix.lower() in strict}
    lonely -= {pair.mask for pair in pairs}
    if lonely:
        raise DataError(
            f"{len(lonely)} masks without an image in {images_folder}: {first_paths(sorted(lonely))}. Add or remove."
        )
    return pairs
