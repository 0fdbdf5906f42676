"""Data sources of images with one class each: class folders, a list, idx files, or a data set of torchvision.

N number of images, h, w size of an image.
"""

import copy
import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from data_loader.common.class_labels import in_order
from data_loader.common.image_cache import read_once
from data_loader.images.files import IMAGE_SUFFIXES, image_size, read_entries, read_image, require_files
from utils.errors import ConfigError, DataError

_IDX_UINT8 = 8  # type byte of the format


class ImageSource(ABC):
    """A data source of images with one class each, by index. Several threads and processes may read from it at once.

    Args:
        names: File, or file and row, by which a user finds each image.
        labels: Name of the class of each.
        classes: Names of all classes, in order.
        files: The file of each, if there is one.

    Attributes:
        rows: Position of each image in the file or data set.
    """

    def __init__(
        self, names: Sequence[str], labels: Sequence[str], classes: Sequence[str], files: Sequence[Path] = ()
    ) -> None:
        self.names, self.labels, self.classes, self.files = list(names), list(labels), list(classes), list(files)
        self.rows: Sequence[int] = range(len(self.labels))

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
    """

    def __init__(self, files: Sequence[Path], labels: Sequence[str]) -> None:
        super().__init__(list(map(str, files)), labels, in_order(labels), files)
        self.max_decoded_mb: int | None = None

    def header(self, index: int, in_channels: int) -> tuple[int, int, int]:
        """Return size and depth from the header of the file."""
        return image_size(self.files[index], upright=True, max_decoded_mb=self.max_decoded_mb)

    def image(self, index: int, in_channels: int) -> NDArray[Any]:
        """Decode the file."""
        return read_image(self.files[index], in_channels=in_channels, max_decoded_mb=self.max_decoded_mb)


class IdxImages(ImageSource):
    """Images of two idx files, as of MNIST and Fashion-MNIST, compressed (`.gz`) or not.

    Args:
        images_file: (N, h, w) or (N, h, w, C) uint8.
        labels_file: (N,) uint8.

    Raises:
        DataError: A file is missing, cut off, or of another kind, or the two do not fit together.
    """

    def __init__(self, images_file: str, labels_file: str) -> None:
        images, labels = (read_once(file, read_idx, lambda array: array.nbytes) for file in (images_file, labels_file))
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
        image = np.asarray(self.dataset[self.rows[index]][0])
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise DataError(
                f"{self.names[index]} is {image.dtype} {image.shape}: it must be an image of 8 bits. Leave its "
                "transform out."
            )
        return image


def find_in_folders(folder: str | Path, split: str) -> FileImages:
    """Return images of the layout `folder/split/CLASS/NAME.*`, or `folder/CLASS/NAME.*` if there are no splits.

    Raises:
        DataError: A folder is missing, or a class has no image.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"The folder {root} does not exist. It must hold a folder for each class. Correct the path.")
    splits = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    if splits:
        if split not in splits:
            raise DataError(f"{root} holds {', '.join(splits)}, but not {split}. Add it, or set split.")
        root /= split
    # Hidden folders, as file managers and notebooks create them, are no classes.
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DataError(f"{root} holds no folder. Each class has one, named after it, with its images.")
    files, labels = [], []
    for path in folders:
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise DataError(
                f"{path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}), and every class needs one. Add some, or "
                "remove the folder."
            )
        files += found
        labels += [path.name] * len(found)
    return FileImages(files, labels)


def read_list(list_file: str | Path, data_root: str | Path | None = None) -> FileImages:
    """Return images of a list with one `path, class` per line.

    Between them is a comma or a tab, and `#` begins a comment line. Paths are relative to `data_root`, or else to the
    folder of the list.

    Raises:
        DataError: The list is missing, empty, badly written, or names files that do not exist.
    """
    path = Path(list_file)
    root = path.parent if data_root is None else Path(data_root)
    files, labels = [], []
    for number, line in read_entries(path, "list", "list_file", "path, class"):
        # From the right: the path may contain a comma, too.
        parts = [part.strip() for part in line.rsplit("," if "," in line else "\t", maxsplit=1)]
        if len(parts) != 2 or not all(parts):
            raise DataError(f"{path}, line {number}: {line!r} is not one image and its class. Write `path, class`.")
        files.append(root / parts[0])
        labels.append(parts[1])
    require_files(files, f"The list {path}", root)
    return FileImages(files, labels)


def read_idx(file: str | Path) -> NDArray[np.uint8]:
    """Read an idx file of bytes, of any shape.

    Raises:
        DataError: It is missing, cut off, or no idx file of bytes.
    """
    path = Path(file)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Correct the path.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}. Fetch it again.") from None
    # Two zero bytes, type of the values, number of axes, their sizes as 32-bit big-endian numbers, values.
    if len(data) < 8 or data[:2] != b"\0\0" or data[2] != _IDX_UINT8:
        raise DataError(f"{path} is not an idx file of bytes (it begins with {data[:4]!r}). Name another file.")
    rank = data[3]
    shape = tuple(int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(rank))
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    if values.size != int(np.prod(shape)):
        raise DataError(f"{path} holds {values.size} bytes for a shape of {shape}: it is cut off. Fetch it again.")
    return values.reshape(shape)
