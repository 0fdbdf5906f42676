"""Data sources of images with one class each: class folders, a list, idx files, or a data set of torchvision.

N number of images, h, w size of an image.
"""

import copy
import gzip
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_loader.common.class_labels import in_order
from data_loader.common.image_cache import read_once
from data_loader.common.lists import (
    VALIDATION_NAMES,
    missing_fault,
    name_of_split,
    read_entries,
    several_lines,
    split_entry,
    warn_of_left_out,
)
from data_loader.images.files import (
    DAMAGED_FILE_ERRORS,
    ScaledImage,
    image_size,
    photo_of,
    read_image,
    read_scaled_image,
)
from utils.errors import ConfigError, DataError, joined_faults
from utils.files import IMAGE_SUFFIXES, describe_left_out, files_below, is_hidden, open_regular, require_decoded_size
from utils.geometry import Size
from utils.writing.text import storable

_IDX_UINT8 = 8  # type byte of the format
_SPLIT_NAMES = ("train", *VALIDATION_NAMES, "test")
_NAMES_SHOWN = 5


class ImageSource(ABC):
    """A data source of images with one class each, by index. Several threads and processes may read from it at once.

    Args:
        names: File, or file and row, by which a user finds each image.
        labels: Name of the class of each.
        classes: Names of all classes, in order.
        files: The file of each, if there is one.

    Attributes:
        rows: Position of each image in the file or data set.
        faults: Entries of the list or folder that cannot be used, and are no part of the source.
    """

    faults: Sequence[DataError] = ()

    def __init__(
        self, names: Sequence[str], labels: Sequence[str], classes: Sequence[str], files: Sequence[Path] = ()
    ) -> None:
        self.names, self.files = list(names), list(files)
        stored = {name: storable(name) for name in {*labels, *classes}}  # names of folders need not be UTF-8
        self.labels, self.classes = [stored[name] for name in labels], [stored[name] for name in classes]
        self.rows: Sequence[int] = range(len(self.labels))

    def whole(self) -> Self:
        """Return the source itself.

        Raises:
            DataError: Entries of its list or folder cannot be used.
        """
        if self.faults:
            raise joined_faults(self.faults)
        return self

    def select(self, indices: Sequence[int]) -> Self:
        """Return a source of some of the images, with the same classes."""
        selected = copy.copy(self)
        selected.names = [self.names[index] for index in indices]
        selected.labels = [self.labels[index] for index in indices]
        selected.files = [self.files[index] for index in indices] if self.files else []
        selected.rows = [self.rows[index] for index in indices]
        return selected

    def header(self, index: int, in_channels: int) -> tuple[int, int, int] | None:
        """Return height, width and bytes per value of an image; None if only decoding it would give them.

        Raises:
            DataError: The file is missing or of another kind.
        """
        return None

    def scaled_image(self, index: int, in_channels: int, needed: Callable[[Size], Size]) -> ScaledImage:
        """Return an image, which may be smaller than its file, and the size of the file.

        Args:
            index: Of the image.
            in_channels: As for `image`.
            needed: Size of the file -> size that the image must have at least.

        Raises:
            DataError: As `image`.
        """
        image = self.image(index, in_channels)
        return ScaledImage(image, (image.shape[0], image.shape[1]))

    @abstractmethod
    def image(self, index: int, in_channels: int) -> NDArray[Any]:
        """Return an image (h, w, 3 or 4) or (h, w), uint8 or uint16; a fourth channel only if `in_channels` is 4.

        Raises:
            DataError: It is missing, cut off, or of another kind.
        """


class FileImages(ImageSource):
    """Images that have a file each.

    Args:
        files: The files.
        labels: Name of the class of each.

    Attributes:
        max_decoded_mb: Limit on a decoded image; None: the default of `read_image`.
        reduced_decoding: A JPEG is decoded at a part of its size if no more is needed.
    """

    def __init__(self, files: Sequence[Path], labels: Sequence[str]) -> None:
        super().__init__(list(map(str, files)), labels, in_order(labels), files)
        self.max_decoded_mb: int | None = None
        self.reduced_decoding = False

    def header(self, index: int, in_channels: int) -> tuple[int, int, int]:
        """Return size and depth from the header of the file."""
        return image_size(self.files[index], upright=True, max_decoded_mb=self.max_decoded_mb)

    def image(self, index: int, in_channels: int) -> NDArray[Any]:
        """Decode the file."""
        return read_image(self.files[index], in_channels=in_channels, max_decoded_mb=self.max_decoded_mb)

    def scaled_image(self, index: int, in_channels: int, needed: Callable[[Size], Size]) -> ScaledImage:
        """Decode the file at the size that is needed or above."""
        if not self.reduced_decoding:
            return super().scaled_image(index, in_channels, needed)
        path, limit = self.files[index], self.max_decoded_mb
        return read_scaled_image(path, needed, in_channels=in_channels, max_decoded_mb=limit)


class IdxImages(ImageSource):
    """Images of two idx files, as of MNIST and Fashion-MNIST, compressed (`.gz`) or not.

    Args:
        images_file: (N, h, w) or (N, h, w, C) uint8.
        labels_file: (N,) uint8.
        max_decoded_mb: Limit on each file; None: the default of `read_idx`.

    Raises:
        DataError: A file is missing, cut off, or of another kind, or the two do not fit together.
    """

    def __init__(self, images_file: str, labels_file: str, *, max_decoded_mb: int | None = None) -> None:
        def read(path: Path) -> NDArray[np.uint8]:
            return read_idx(path, max_decoded_mb=max_decoded_mb)

        images, labels = (
            read_once(file, read, lambda array: array.nbytes, how=max_decoded_mb) for file in (images_file, labels_file)
        )
        if images.ndim not in (3, 4) or labels.ndim != 1 or len(images) != len(labels):
            raise DataError(
                f"{images_file} is {images.shape} and {labels_file} {labels.shape}: there must be N images "
                "(N, h, w) and N labels (N,). Name the two files of one set."
            )
        self.images = images
        names = [f"{images_file}, image {row}" for row in range(len(images))]
        num_classes = int(labels.max()) + 1 if len(labels) else 0
        classes = list(map(str, range(num_classes)))
        super().__init__(names, list(map(str, labels.tolist())), classes, [Path(images_file)] * len(images))

    def header(self, index: int, in_channels: int) -> tuple[int, int, int]:
        """Return the size, which all images share."""
        return self.images.shape[1], self.images.shape[2], 1

    def image(self, index: int, in_channels: int) -> NDArray[Any]:
        """Return the row of the array."""
        return np.asarray(self.images[self.rows[index]])


class DatasetImages(ImageSource):
    """Images of a data set of torchvision, which gives (image, id of its class).

    Args:
        dataset: The data set, without transforms.

    Raises:
        ConfigError: It gives something else.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        kind = type(dataset).__name__
        # Torchvision has no common name for the ids. Without one they come from the samples, which decodes every image.
        found = (getattr(dataset, name, None) for name in ("targets", "labels", "_labels"))
        targets = next((each for each in found if each is not None and len(each) == len(dataset)), None)
        try:
            ids = [int(dataset[row][1] if targets is None else targets[row]) for row in range(len(dataset))]
        except (TypeError, ValueError, IndexError) as error:
            raise ConfigError(
                f"dataset: {kind} does not give (image, class): {error}. Name a data set for classification."
            ) from error
        classes = [str(name) for name in getattr(dataset, "classes", ())]
        # Names that do not cover the ids, or repeat, would be wrong: numbers then take their place.
        if len(classes) <= max(ids, default=0) or len(set(classes)) != len(classes):
            classes = [str(number) for number in range(max(ids, default=0) + 1)]
        names = [f"{kind}, image {row}" for row in range(len(ids))]
        super().__init__(names, [classes[number] for number in ids], classes)

    def image(self, index: int, in_channels: int) -> NDArray[Any]:
        """Return the image of a sample."""
        try:
            sample = self.dataset[self.rows[index]][0]
            image = np.asarray(photo_of(sample, in_channels) if isinstance(sample, Image.Image) else sample)
        except DAMAGED_FILE_ERRORS as error:
            raise DataError(f"{self.names[index]} cannot be read: {error}. Replace the file.") from error
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise DataError(
                f"{self.names[index]} is {image.dtype} {image.shape}: it must be an image of 8 bits. Leave its "
                "transform out."
            )
        return image


def list_in_folders(folder: str | Path, split: str, *, is_named: bool = False) -> FileImages:
    """Return images of the layout `folder/split/CLASS/NAME.*`, or `folder/CLASS/NAME.*` if there are no splits.

    Hidden files and folders are no part of it. Other kinds of images than those that are read are counted in a warning.

    Args:
        folder: Holds the classes, or the splits.
        split: Name of the split.
        is_named: The user has named the split, so that a folder of that name is one.

    Returns:
        The images; a class without one is among its faults.

    Raises:
        DataError: A folder is missing, no class has an image, or it is open whether a folder is a class or a split.
    """
    root = Path(folder)
    if not os.path.isdir(root):
        raise DataError(f"The folder {root} does not exist. It must hold a folder for each class. Correct the path.")
    root = _folder_of_split(root, split, is_named=is_named)
    folders = _visible_folders(root)
    if not folders:
        raise DataError(f"{root} holds no folder. Each class has one, named after it, with its images.")
    below = {path: files_below(path) for path in folders}
    warn_of_left_out(root, [file for files in below.values() for file in files])
    images, labels, faults = [], [], []
    for path, files in below.items():
        found = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            left_out = describe_left_out(files)
            others = f"; left out: {left_out}" if left_out else ""
            faults.append(
                DataError(
                    f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}{others}), and every class needs one. "
                    "Add some, or remove the folder.",
                    place=str(path),
                )
            )
        images += found
        labels += [path.name] * len(found)
    return _listed(images, labels, faults)


def _listed(files: Sequence[Path], labels: Sequence[str], faults: Sequence[DataError]) -> FileImages:
    """Return a source of the images that can be used.

    Raises:
        DataError: There is none.
    """
    source = FileImages(files, labels)
    source.faults = tuple(faults)
    return source if files else source.whole()


def _visible_folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if os.path.isdir(path) and not is_hidden(path.name))
    except OSError as error:
        raise DataError(f"The folder {root} cannot be read ({error.strerror}). Correct its permissions.") from None


def _folder_of_split(root: Path, split: str, *, is_named: bool) -> Path:
    """Return the folder that holds the classes of a split: `root` itself if its folders are the classes.

    Raises:
        DataError: The split is missing, or it is open whether a folder is a class or a split.
    """
    folders = _visible_folders(root)
    splits = [path for path in folders if path.name in (*_SPLIT_NAMES, split)]
    others = [path for path in folders if path not in splits]
    # "train" is a class next to "bus" and "car": the images of a split lie in folders, one for each class.
    if not splits or (others and all(_holds_images(path) for path in splits)):
        return root
    chosen = root / name_of_split(root, split)
    if chosen not in splits:
        raise DataError(
            f"{root} holds {', '.join(path.name for path in splits)}, but not {split}. Add it, or set split."
        )
    if not is_named and len(splits) == 1 and any(_holds_images_below(path) for path in others):
        names = ", ".join(path.name for path in others[:_NAMES_SHOWN])
        raise DataError(
            f"{root} holds the folder {chosen.name}, the name of a split, next to {names}, which are not splits. All "
            f'must be splits, or all classes. Set split to "{chosen.name}" to use its folders as classes, or rename it '
            "if it is a class."
        )
    return chosen


def _holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name) for path in folder.iterdir())


def _holds_images_below(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in files_below(folder))


def list_labelled(list_file: str | Path, data_root: str | Path | None = None) -> FileImages:
    """Return images of a list with one `path, class` per line.

    Between them is a comma or a tab, and `#` begins a comment line; a path or class that holds one may be put between
    double quotes. Paths are relative to `data_root`, or else to the folder of the list.

    Returns:
        The images; bad lines and missing files are among its faults.

    Raises:
        DataError: The list is missing or empty, or no line can be used.
    """
    path = Path(list_file)
    root = path.parent if data_root is None else Path(data_root)
    found, bad_lines = [], []
    for number, line in read_entries(path, "list", "list_file", "path, class"):
        parts = split_entry(line) if '"' in line or "\t" in line else []
        if len(parts) != 2:  # from the right: the path may contain a comma, too
            parts = [part.strip() for part in line.rsplit(",", maxsplit=1)]
        if len(parts) == 2 and all(parts):
            found.append((root / parts[0], parts[1]))
        else:
            message = f"{path}, line {number}: {line!r} is not one image and its class. Write `path, class`."
            bad_lines.append(DataError(message, place=f"{path}, line {number}"))
    faults = several_lines(bad_lines, f"{len(bad_lines)} lines of {path} are not `path, class`:")
    faults += missing_fault((file for file, _ in found), f"The list {path}", root)
    usable = [(file, label) for file, label in found if os.path.isfile(file)]
    return _listed([file for file, _ in usable], [label for _, label in usable], faults)


def read_idx(file: str | Path, *, max_decoded_mb: int | None = None) -> NDArray[np.uint8]:
    """Read an idx file of bytes, of any shape.

    Args:
        file: An idx file; compressed if its name ends in `.gz`.
        max_decoded_mb: Limit on the values; None: `FILE_MB`.

    Raises:
        DataError: It is missing, cut off, too large, or no idx file of bytes.
    """
    path = Path(file)
    try:
        # Streamed: the header says how much follows, so that no more than that is ever unpacked.
        with open_regular(path) as whole, gzip.open(whole) if path.suffix.lower() == ".gz" else whole as stream:
            head = stream.read(4)
            # Two zero bytes, type of the values, number of axes, their sizes as 32-bit big-endian numbers, values.
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _IDX_UINT8:
                raise DataError(f"{path} is not an idx file of bytes (it begins with {head!r}). Name another file.")
            sizes = stream.read(4 * head[3])
            shape = tuple(int.from_bytes(sizes[start : start + 4], "big") for start in range(0, 4 * head[3], 4))
            num_bytes = math.prod(shape)
            require_decoded_size(path, f"an array {shape} of bytes", num_bytes, max_decoded_mb, of_many=True)
            values = stream.read(num_bytes + 1)  # one more shows that the header is wrong
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Correct the path.") from None
    except DataError:
        raise
    except Exception as error:  # damaged bytes can raise any error in gzip and zlib
        raise DataError(f"{path} cannot be read: {error}. Fetch it again.") from None
    if len(sizes) < 4 * head[3] or len(values) < num_bytes:
        raise DataError(f"{path} holds {len(values)} bytes for a shape of {shape}: it is cut off. Fetch it again.")
    if len(values) > num_bytes:
        raise DataError(f"{path} holds more than the {num_bytes} bytes of its shape {shape}. Fetch it again.")
    return np.frombuffer(values, np.uint8).reshape(shape)
