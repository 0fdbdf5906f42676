"""Arrays in `.npy` and `.npz` files: headers first, so that nothing is read that is damaged or too large."""

import math
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from utils.errors import DataError
from utils.files import open_regular, require_decoded_size

ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
T = TypeVar("T")

_KINDS = "biufcSUmM"  # all but objects, which would be unpickled, and records
_READINGS = 100


class ArrayHeader(NamedTuple):
    """The properties that the header of an array states.

    Attributes:
        shape: Sizes of its axes.
        dtype: Type of its values.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def num_bytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def bytes_as_float32(self) -> int:
        """Return the bytes of the values and of their conversion to float32, if they are another kind of number."""
        is_converted = self.dtype != np.float32
        return self.num_bytes + (4 * math.prod(self.shape) if is_converted else 0)


def read_array(path: str | Path, key: str | None = None, *, max_decoded_mb: int | None = None) -> np.ndarray:
    """Read an array as it was saved.

    Args:
        path: A `.npy` or `.npz` file.
        key: Name of the array in an `.npz`; None if it holds a single one.
        max_decoded_mb: Limit on the array; None: `IMAGE_MB`.

    Raises:
        DataError: The file is missing, damaged, too large, holds objects, or no array of that name.
    """
    with _open_array(path, key) as (file, num_bytes):
        header = _read_header(file, num_bytes)
        found = f"an array {header.shape} of {header.dtype}"
        require_decoded_size(path, found, header.num_bytes, max_decoded_mb, of_many=False)
        return _read_values(file)


def array_header(path: str | Path, key: str | None = None) -> ArrayHeader:
    """Return shape and dtype of an array, without reading it.

    Raises:
        DataError: As `read_array`.
    """
    with _open_array(path, key) as (file, num_bytes):
        return _read_header(file, num_bytes)


def read_arrays(path: str | Path, *, max_decoded_mb: int | None = None) -> dict[str, np.ndarray]:
    """Read all arrays of an `.npz` file, which together may take `FILE_MB` if no other limit is given.

    Raises:
        DataError: The file is missing, damaged, too large, or holds objects.
    """
    headers = {}
    for key in _array_names(path):
        with _open_array(path, key) as (file, num_bytes):
            headers[key] = _read_header(file, num_bytes)
    found = ", ".join(f"{key} {header.shape} of {header.dtype}" for key, header in headers.items())
    total = sum(header.bytes_as_float32() for header in headers.values())
    require_decoded_size(path, f"the arrays {found}", total, max_decoded_mb, of_many=True)
    arrays = {}
    for key in headers:
        with _open_array(path, key) as (file, _):
            arrays[key] = _read_values(file)
    return arrays


def _array_names(path: str | Path) -> list[str]:
    with _damage_explained(path), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


@contextmanager
def _open_array(path: str | Path, key: str | None) -> Iterator[tuple[BinaryIO, int]]:
    """Open the file of an array; also yields its bytes. Errors of the block are raised as `DataError`, too."""
    with _damage_explained(path):
        if Path(path).suffix.lower() != ".npz":
            with open_regular(path) as file:
                yield file, os.fstat(file.fileno()).st_size
            return
        # An `.npz` is a zip archive of `.npy` files; NumPy's reader would load a whole array for its header.
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist()]
            if key is None and len(keys) == 1:
                key = keys[0]
            if key is None or key not in keys:
                wanted = "none is named" if key is None else f"{key!r} is not among them"
                raise DataError(
                    f"{path} holds the arrays {', '.join(keys)}; {wanted}. Name one: picture_key or mask_key."
                )
            name = archive.namelist()[keys.index(key)]
            with archive.open(name) as member:
                yield member, archive.getinfo(name).file_size  # type: ignore[misc]


def _read_header(file: BinaryIO, num_bytes: int) -> ArrayHeader:
    """Return the header of an array in a file of that many bytes.

    Raises:
        ValueError: It is damaged, or states another size than the file has.
    """

    def read() -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        version = np.lib.format.read_magic(file)
        first = version == (1, 0)
        return np.lib.format.read_array_header_1_0(file) if first else np.lib.format.read_array_header_2_0(file)

    shape, _, dtype = _read_beside_threads(file, read)
    header = ArrayHeader(tuple(shape), dtype)
    if any(isinstance(side, bool) or side < 0 for side in shape):
        raise ValueError(f"its header states the shape {header.shape}")
    if dtype.hasobject or dtype.kind not in _KINDS:
        raise ValueError(f"its values are {dtype}, and Object arrays cannot be loaded: numbers are wanted")
    if header.num_bytes > num_bytes - file.tell():
        raise ValueError(
            f"it is cut off: its header states {header.num_bytes} bytes of values, and {num_bytes - file.tell()} follow"
        )
    return header


def _read_values(file: BinaryIO) -> np.ndarray:
    # An array of Python objects would be unpickled, which can run any code.
    return _read_beside_threads(file, lambda: np.lib.format.read_array(file, allow_pickle=False))


def _read_beside_threads(file: BinaryIO, read: Callable[[], T]) -> T:
    """Read a file from its beginning, again while another thread disturbs the parser of headers.

    NumPy parses headers with `ast`. Until Python 3.11.8 all threads share the counter of its depth: of two threads
    that parse at the same time, one is told "AST constructor recursion depth mismatch" (Python's issue 106905).
    """
    for _ in range(_READINGS - 1):
        file.seek(0)
        try:
            return read()
        except SystemError:
            time.sleep(0)  # the other thread may finish
    file.seek(0)
    return read()


@contextmanager
def _damage_explained(path: str | Path) -> Iterator[None]:
    """Turn errors of a reader into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Correct the path or the list that names it.") from None
    except Exception as error:  # damaged bytes can raise any error in zipfile, zlib and NumPy
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path} cannot be read as an array: {reason}. Save it anew with numpy.save or numpy.savez, as numbers."
        ) from None
