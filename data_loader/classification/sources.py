"""Images with a class each: from class folders, a list, idx files, or a data set of torchvision."""

import gzip
import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_loader.common.image_cache import read_once, stamp
from data_loader.images.files import IMAGE_SUFFIXES, read_image
from utils.errors import ConfigError, DataError

NO_CLASS = -100
"""Target of a sample that counts nowhere; the ignored label of classifications."""

_SHOWN = 12


def in_order(names: Sequence[str]) -> list[str]:
    """Every name once: numbers by their value, anything else by its letters."""
    unique = set(names)
    if all(name.isdecimal() for name in unique):
        return sorted(unique, key=lambda name: (int(name), name))
    return sorted(unique)


def checked_classes(classes: Sequence[str], found: Sequence[str]) -> list[str]:
    """The names that were given, or else those that were found, at least two and each once.

    Args:
        classes: Given by the config; empty where it leaves them open.
        found: Those of the data, in their order.

    Raises:
        ConfigError: A name is given twice, or there are fewer than two.
    """
    names = list(classes or found)
    if len(set(names)) != len(names):
        raise ConfigError(
            f"classes lists {len(names)} names, of which {len(set(names))} differ. Name every class once."
        )
    if len(names) < 2:
        raise ConfigError(
            f"There are {len(names)} classes ({', '.join(names)}): it takes two or more. Add data of another."
        )
    return names


def class_ids(labels: Sequence[str], classes: Sequence[str], place: Callable[[int], str]) -> list[int]:
    """The id of each sample's class.

    Args:
        labels: Name of the class of each sample.
        classes: All names, in the order of their ids.
        place: Where a sample is from, for the error.

    Raises:
        DataError: A sample is of a class that is not among them.
    """
    ids = {name: number for number, name in enumerate(classes)}
    unknown = [position for position, label in enumerate(labels) if label not in ids]
    if unknown:
        shown = ", ".join(list(classes)[:_SHOWN]) + (", ..." if len(classes) > _SHOWN else "")
        raise DataError(
            f'{place(unknown[0])} is of the class "{labels[unknown[0]]}", and {len(unknown)} of {len(labels)} samples '
            f"are of a class that is not known. The classes are those of the training data: {shown}. Correct the "
            "labels, or name all in classes."
        )
    return [ids[label] for label in labels]


def first_of_each_class(labels: Sequence[str], samples: int | None) -> list[int]:
    """Positions of `samples` samples, taken from the classes in turn so that few hold all; in order, all for None.

    Raises:
        ConfigError: The number is not positive.
    """
    if samples is None:
        return list(range(len(labels)))
    if samples < 1:
        raise ConfigError(f"Wrong samples {samples}: it must be 1 or more, or null for all.")
    seen: dict[str, int] = {}
    turns = []
    for position, label in enumerate(labels):
        turns.append((seen.setdefault(label, 0), position))
        seen[label] += 1
    return sorted(position for _, position in sorted(turns)[:samples])


_IDX_UINT8 = 8  # type byte of the format
_SHOWN_LABELLED_IMAGES = 5


@dataclass(frozen=True)
class LabelledImages:
    """Where images and their classes are, with no image read yet.

    Attributes:
        names: File, or file and row, of each.
        labels: Name of the class of each.
        classes: All classes, in order.
        read: Position, channels wanted -> (h, w, 3 or 4) or (h, w) uint8 or uint16.
        files: The file of each, where every image has its own; empty otherwise.
        shared_file: The one that holds all of them, where there is such a file.
    """

    names: Sequence[str]
    labels: Sequence[str]
    classes: Sequence[str]
    read: Callable[[int, int], NDArray[Any]]
    files: Sequence[Path] = ()
    shared_file: Path | None = None

    def identities(self, positions: Sequence[int]) -> dict[int, Hashable]:
        """What decides the pixels of each image as it is read; nothing where that is not known."""
        if self.files:
            return {position: stamp(self.files[position]) for position in positions}
        if self.shared_file is None:
            return {}
        shared = stamp(self.shared_file)
        return {position: (shared, self.names[position]) for position in positions}

    def chosen(self, positions: Sequence[int]) -> "LabelledImages":
        """Some of them; the classes stay."""
        names, labels, files = (
            [values[position] for position in positions] if values else []
            for values in (self.names, self.labels, self.files)
        )
        return LabelledImages(
            [str(name) for name in names],
            [str(label) for label in labels],
            self.classes,
            partial(_read_position, self.read, list(positions)),
            [Path(file) for file in files],
            self.shared_file,
        )


def _read_position(read: Callable[[int, int], NDArray[Any]], positions: list[int], position: int, channels: int) -> Any:
    return read(positions[position], channels)


def _read_file(files: Sequence[Path], position: int, channels: int) -> NDArray[Any]:
    return read_image(files[position], in_channels=channels)


def from_files(files: Sequence[Path], labels: Sequence[str], classes: Sequence[str]) -> LabelledImages:
    """Images that have a file each."""
    return LabelledImages(list(map(str, files)), labels, classes, partial(_read_file, files), files)


def find_in_folders(folder: str | Path, split: str) -> LabelledImages:
    """Images of the layout `folder/split/CLASS/NAME.*`, or `folder/CLASS/NAME.*` where there are no splits.

    Raises:
        DataError: A folder is missing, or a class has no image.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"The folder {root} does not exist. It must hold a folder for each class. Correct the path.")
    parts = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    if parts:
        if split not in parts:
            raise DataError(f"{root} holds the parts {', '.join(parts)}, but not {split}. Add it, or set split.")
        root /= split
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DataError(f"{root} holds no folder. Each class has one, named after it, with its images.")
    found = {path.name: _images_below(path) for path in folders}
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise DataError(
            f"{root / empty[0]} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}), and every class needs one. "
            "Add some, or remove the folder."
        )
    pairs = [(file, name) for name, files in found.items() for file in files]
    return from_files([file for file, _ in pairs], [name for _, name in pairs], in_order(list(found)))


def _images_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def read_list(list_file: str | Path, data_root: str | Path | None = None) -> LabelledImages:
    """Images of a list with one `path, class` per line; a comma or a tab between them, `#` begins a comment line.

    Paths are relative to `data_root`, or else to the folder of the list.

    Raises:
        DataError: The list is missing, empty, badly written, or names files that do not exist.
    """
    path = Path(list_file)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"The list {path} does not exist. Correct list_file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list {path} cannot be read: {error}. It must be a text file (UTF-8).") from None
    root = path.parent if data_root is None else Path(data_root)
    files, labels = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = [part.strip() for part in line.rsplit("," if "," in line else "\t", maxsplit=1)]
        if len(parts) != 2 or not all(parts):
            raise DataError(
                f"{path}, line {number}: {line.strip()!r} is not one image and its class. Write `path, class`."
            )
        files.append(root / parts[0])
        labels.append(parts[1])
    if not files:
        raise DataError(f"The list {path} is empty. It must hold one `path, class` per line.")
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        shown = ", ".join(missing[:_SHOWN_LABELLED_IMAGES]) + (", ..." if len(missing) > _SHOWN_LABELLED_IMAGES else "")
        raise DataError(
            f"The list {path} names {len(missing)} files that do not exist: {shown}. Paths are relative to "
            f"{root.resolve()}; set data_root if that is wrong."
        )
    return from_files(files, labels, in_order(labels))


def read_idx_pair(images_file: str | Path, labels_file: str | Path) -> LabelledImages:
    """Images and classes in two idx files, as of MNIST and Fashion-MNIST, compressed (`.gz`) or not.

    Raises:
        DataError: A file is missing, cut off, of another kind, or the two do not go together.
    """
    images, labels = (read_once(file, read_idx, _size) for file in (images_file, labels_file))
    if images.ndim not in (3, 4) or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{images_file} is {_shape(images)} and {labels_file} {_shape(labels)}: there must be N images (N, h, w) "
            "and N labels (N,). Name the two files of one set."
        )
    ids = [str(label) for label in labels.tolist()]
    classes = [str(number) for number in range(int(labels.max()) + 1)] if len(labels) else []
    names = [f"{images_file}, image {number}" for number in range(len(images))]
    return LabelledImages(names, ids, classes, partial(_read_row, images), shared_file=Path(images_file))


def _size(values: NDArray[Any]) -> int:
    return values.nbytes


def _read_row(images: NDArray[Any], position: int, _channels: int) -> NDArray[Any]:
    return np.asarray(images[position])


def read_idx(file: str | Path) -> NDArray[np.uint8]:
    """An idx file of bytes, of any shape.

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
    if len(data) < 8 or data[:2] != b"\0\0" or data[2] != _IDX_UINT8:
        raise DataError(f"{path} is no idx file of bytes (it begins with {data[:4]!r}). Name another file.")
    rank = data[3]
    shape = tuple(int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(rank))
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    if values.size != int(np.prod(shape)):
        raise DataError(f"{path} holds {values.size} bytes for a shape of {shape}: it is cut off. Fetch it again.")
    return values.reshape(shape)


def _shape(array: NDArray[Any]) -> str:
    return f"({', '.join(map(str, array.shape))})"


def from_dataset(dataset: Any) -> LabelledImages:
    """Images of a data set of torchvision, which gives (image, id of its class).

    Raises:
        ConfigError: It gives something else.
    """
    kind = type(dataset).__name__
    ids = _ids_of(dataset, kind)
    names = [str(name) for name in getattr(dataset, "classes", ())]
    if len(names) <= max(ids, default=0) or len(set(names)) != len(names):
        names = [str(number) for number in range(max(ids, default=0) + 1)]
    places = [f"{kind}, image {number}" for number in range(len(ids))]
    return LabelledImages(places, [names[number] for number in ids], names, partial(_read_item, dataset))


def _ids_of(dataset: Any, kind: str) -> list[int]:
    """The classes without decoding an image, where the data set tells them."""
    for attribute in ("targets", "labels", "_labels"):
        told = getattr(dataset, attribute, None)
        if told is not None and len(told) == len(dataset):
            return [int(each) for each in told]
    try:
        return [int(dataset[position][1]) for position in range(len(dataset))]
    except (TypeError, ValueError, IndexError) as error:
        raise ConfigError(
            f"dataset: {kind} does not give (image, class): {error}. Name a data set for classification."
        ) from error


def _read_item(dataset: Any, position: int, _channels: int) -> NDArray[Any]:
    image = np.asarray(dataset[position][0])
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise DataError(
            f"{type(dataset).__name__}, image {position} is {image.dtype} {_shape(image)}: it must be an image "
            "of 8 bits. Leave its transform out."
        )
    return image
