"""Pictures with a class each: from class folders, a list, idx files, or a data set of torchvision."""

import gzip
import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_loader.classes import in_order
from data_loader.kept import read_once, stamp
from data_loader.pictures import PICTURE_SUFFIXES, read_picture
from utils.errors import ConfigError, DataError

_IDX_UINT8 = 8  # type byte of the format
_SHOWN = 5


@dataclass(frozen=True)
class LabelledPictures:
    """Where pictures and their classes are, with no picture read yet.

    Attributes:
        names: File, or file and row, of each.
        labels: Name of the class of each.
        classes: All classes, in order.
        read: Position, channels wanted -> (h, w, 3 or 4) or (h, w) uint8 or uint16.
        files: The file of each, where every picture has its own; empty otherwise.
        shared_file: The one that holds all of them, where there is such a file.
    """

    names: Sequence[str]
    labels: Sequence[str]
    classes: Sequence[str]
    read: Callable[[int, int], NDArray[Any]]
    files: Sequence[Path] = ()
    shared_file: Path | None = None

    def identities(self, positions: Sequence[int]) -> dict[int, Hashable]:
        """What decides the pixels of each picture as it is read; nothing where that is not known."""
        if self.files:
            return {position: stamp(self.files[position]) for position in positions}
        if self.shared_file is None:
            return {}
        shared = stamp(self.shared_file)
        return {position: (shared, self.names[position]) for position in positions}

    def chosen(self, positions: Sequence[int]) -> "LabelledPictures":
        """Some of them; the classes stay."""
        names, labels, files = (
            [values[position] for position in positions] if values else []
            for values in (self.names, self.labels, self.files)
        )
        return LabelledPictures(
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
    return read_picture(files[position], in_channels=channels)


def from_files(files: Sequence[Path], labels: Sequence[str], classes: Sequence[str]) -> LabelledPictures:
    """Pictures that have a file each."""
    return LabelledPictures(list(map(str, files)), labels, classes, partial(_read_file, files), files)


def find_in_folders(folder: str | Path, split: str) -> LabelledPictures:
    """Pictures of the layout `folder/split/CLASS/NAME.*`, or `folder/CLASS/NAME.*` where there are no splits.

    Raises:
        DataError: A folder is missing, or a class has no picture.
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
        raise DataError(f"{root} holds no folder. Each class has one, named after it, with its pictures.")
    found = {path.name: _pictures_below(path) for path in folders}
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise DataError(
            f"{root / empty[0]} holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))}), and every class needs one. "
            "Add some, or remove the folder."
        )
    pairs = [(file, name) for name, files in found.items() for file in files]
    return from_files([file for file, _ in pairs], [name for _, name in pairs], in_order(list(found)))


def _pictures_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)


def read_list(list_file: str | Path, data_root: str | Path | None = None) -> LabelledPictures:
    """Pictures of a list with one `path, class` per line; a comma or a tab between them, `#` begins a comment line.

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
                f"{path}, line {number}: {line.strip()!r} is not one picture and its class. Write `path, class`."
            )
        files.append(root / parts[0])
        labels.append(parts[1])
    if not files:
        raise DataError(f"The list {path} is empty. It must hold one `path, class` per line.")
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise DataError(
            f"The list {path} names {len(missing)} files that do not exist: {shown}. Paths are relative to "
            f"{root.resolve()}; set data_root if that is wrong."
        )
    return from_files(files, labels, in_order(labels))


def read_idx_pair(images_file: str | Path, labels_file: str | Path) -> LabelledPictures:
    """Pictures and classes in two idx files, as of MNIST and Fashion-MNIST, compressed (`.gz`) or not.

    Raises:
        DataError: A file is missing, cut off, of another kind, or the two do not go together.
    """
    images, labels = (read_once(file, read_idx, _size) for file in (images_file, labels_file))
    if images.ndim not in (3, 4) or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{images_file} is {_shape(images)} and {labels_file} {_shape(labels)}: there must be N pictures (N, h, w) "
            "and N labels (N,). Name the two files of one set."
        )
    ids = [str(label) for label in labels.tolist()]
    classes = [str(number) for number in range(int(labels.max()) + 1)] if len(labels) else []
    names = [f"{images_file}, picture {number}" for number in range(len(images))]
    return LabelledPictures(names, ids, classes, partial(_read_row, images), shared_file=Path(images_file))


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


def from_dataset(dataset: Any) -> LabelledPictures:
    """Pictures of a data set of torchvision, which gives (picture, id of its class).

    Raises:
        ConfigError: It gives something else.
    """
    kind = type(dataset).__name__
    ids = _ids_of(dataset, kind)
    names = [str(name) for name in getattr(dataset, "classes", ())]
    if len(names) <= max(ids, default=0) or len(set(names)) != len(names):
        names = [str(number) for number in range(max(ids, default=0) + 1)]
    places = [f"{kind}, picture {number}" for number in range(len(ids))]
    return LabelledPictures(places, [names[number] for number in ids], names, partial(_read_item, dataset))


def _ids_of(dataset: Any, kind: str) -> list[int]:
    """The classes without decoding a picture, where the data set tells them."""
    for attribute in ("targets", "labels", "_labels"):
        told = getattr(dataset, attribute, None)
        if told is not None and len(told) == len(dataset):
            return [int(each) for each in told]
    try:
        return [int(dataset[position][1]) for position in range(len(dataset))]
    except (TypeError, ValueError, IndexError) as error:
        raise ConfigError(
            f"dataset: {kind} does not give (picture, class): {error}. Name a data set for classification."
        ) from error


def _read_item(dataset: Any, position: int, _channels: int) -> NDArray[Any]:
    picture = np.asarray(dataset[position][0])
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3):
        raise DataError(
            f"{type(dataset).__name__}, picture {position} is {picture.dtype} {_shape(picture)}: it must be a picture "
            "of 8 bits. Leave its transform out."
        )
    return picture
