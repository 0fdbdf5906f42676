"""Pictures that are arrays of numbers: `.npy` and `.npz` files with any number of channels."""

import zipfile
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from data_loader.kept import stamp
from data_loader.pairs import Pair
from data_loader.pictures import picture_size, read_mask, single_channel, whole_labels
from data_loader.sources import Header, PairSource
from utils.errors import DataError

ARRAY_SUFFIXES = frozenset({".npy", ".npz"})

Layout = Literal["hwc", "chw"]
Result = TypeVar("Result")


def read_array(path: str | Path, key: str | None = None) -> np.ndarray:
    """Read an array as it was saved.

    Args:
        path: A `.npy` or `.npz` file.
        key: Name of the array in an `.npz`; None where it holds a single one.

    Raises:
        DataError: The file is missing, damaged, holds objects, or no array of that name.
    """
    return _opened(path, key, lambda file: np.lib.format.read_array(file, allow_pickle=False))


def array_header(path: str | Path, key: str | None = None) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array, without reading it.

    Raises:
        DataError: As `read_array`.
    """

    def header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        return tuple(shape), dtype

    return _opened(path, key, header)


def _opened(path: str | Path, key: str | None, read: Callable[[Any], Result]) -> Result:
    try:
        if Path(path).suffix.lower() != ".npz":
            with Path(path).open("rb") as file:
                return read(file)
        with zipfile.ZipFile(path) as archive, archive.open(_member(archive, path, key)) as member:
            return read(member)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Correct the path or the list that names it.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read as an array: {error}. Save it anew with numpy.save or numpy.savez, as numbers."
        ) from None


def _member(archive: zipfile.ZipFile, path: str | Path, key: str | None) -> str:
    keys = [name.removesuffix(".npy") for name in archive.namelist()]
    if key is None and len(keys) == 1:
        return f"{keys[0]}.npy"
    if key is None or key not in keys:
        wanted = "none is named" if key is None else f"{key!r} is not among them"
        raise DataError(f"{path} holds the arrays {', '.join(keys)}; {wanted}. Name one: picture_key or mask_key.")
    return f"{key}.npy"


def read_channels(path: str | Path, *, layout: Layout = "hwc", key: str | None = None) -> np.ndarray:
    """Read a picture of any number of channels.

    Args:
        path: A `.npy` or `.npz` file.
        layout: "hwc" where channels come last in the file, "chw" where they come first.
        key: Name of the array in an `.npz`.

    Returns:
        (h, w, C); uint8 and uint16 as they are, all else float32.

    Raises:
        DataError: The file cannot be read, or holds no picture, or values that are no numbers.
    """
    array = read_array(path, key)
    if array.ndim not in (2, 3) or array.dtype.kind not in "biuf":
        raise DataError(
            f"{path} holds {array.dtype} values of shape {array.shape}; a picture has height, width and channels, and "
            "its values are numbers."
        )
    if array.ndim == 2:
        array = array[..., None]
    elif layout == "chw":
        array = array.transpose(1, 2, 0)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype not in (np.uint8, np.uint16):
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise DataError(f"{path} holds values that are not finite (NaN or infinite). Replace them.")
    return np.ascontiguousarray(array)


class ArrayFiles(PairSource):
    """Pairs of an array and its mask, which is an array or a picture file.

    Args:
        pairs: The files.
        layout: Of the pictures: "hwc" or "chw".
        picture_key: Name of the picture in `.npz` files.
        mask_key: Name of the mask in `.npz` files.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        layout: Layout = "hwc",
        picture_key: str | None = None,
        mask_key: str | None = None,
    ) -> None:
        self.pairs = list(pairs)
        self._layout: Layout = layout
        self._picture_key = picture_key
        self._mask_key = mask_key

    def __len__(self) -> int:
        return len(self.pairs)

    def names(self, index: int) -> tuple[str, str]:
        """The two paths."""
        return str(self.pairs[index].picture), str(self.pairs[index].mask)

    def channels(self, index: int) -> int:
        """Channels of a picture, from its header."""
        shape, _ = array_header(self.pairs[index].picture, self._picture_key)
        return 1 if len(shape) < 3 else shape[2 if self._layout == "hwc" else 0]

    def header(self, index: int) -> Header:
        """From the headers alone."""
        pair = self.pairs[index]
        shape, dtype = array_header(pair.picture, self._picture_key)
        if len(shape) == 3 and self._layout == "chw":
            shape = shape[1:]
        depth = dtype.itemsize if dtype in (np.uint8, np.uint16, np.bool_) else np.dtype(np.float32).itemsize
        return Header((shape[0], shape[1]) if len(shape) > 1 else (0, 0), self._mask_size(pair.mask), depth)

    def _mask_size(self, path: Path) -> tuple[int, int]:
        if path.suffix.lower() not in ARRAY_SUFFIXES:
            return picture_size(path, upright=False)[:2]
        shape, _ = array_header(path, self._mask_key)
        return (shape[0], shape[1]) if len(shape) > 1 else (0, 0)

    def picture(self, index: int) -> np.ndarray:
        """(h, w, C) uint8, uint16 or float32."""
        return read_channels(self.pairs[index].picture, layout=self._layout, key=self._picture_key)

    def mask(self, index: int) -> np.ndarray:
        """(h, w) uint8 or uint16."""
        path = self.pairs[index].mask
        if path.suffix.lower() not in ARRAY_SUFFIXES:
            return read_mask(path)
        mask = read_array(path, self._mask_key)
        if mask.ndim not in (2, 3):
            raise DataError(f"The mask {path} has the shape {mask.shape}; it must be (height, width).")
        return whole_labels(single_channel(mask, path), path)

    def identity(self, index: int) -> Hashable:
        """The two files as they are now, and how they are read."""
        pair = self.pairs[index]
        return stamp(pair.picture), stamp(pair.mask), self._layout, self._picture_key, self._mask_key
