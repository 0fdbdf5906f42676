"""Images that are arrays of numbers: `.npy` and `.npz` files with any number of channels."""

import zipfile
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import numpy as np

from data_loader.common.shared_cache import stamp
from data_loader.images.files import image_size, read_mask, single_channel, whole_labels
from data_loader.images.preprocessing import Preprocessing, checked_size
from data_loader.segmentation.pairs import Pair
from data_loader.segmentation.sources import Header, PairSource
from utils.errors import ConfigError, DataError
from utils.geometry import Size

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
    """Read an image of any number of channels.

    Args:
        path: A `.npy` or `.npz` file.
        layout: "hwc" where channels come last in the file, "chw" where they come first.
        key: Name of the array in an `.npz`.

    Returns:
        (h, w, C); uint8 and uint16 as they are, all else float32.

    Raises:
        DataError: The file cannot be read, or holds no image, or values that are no numbers.
    """
    array = read_array(path, key)
    if array.ndim not in (2, 3) or array.dtype.kind not in "biuf":
        raise DataError(
            f"{path} holds {array.dtype} values of shape {array.shape}; an image has height, width and channels, and "
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
    """Pairs of an array and its mask, which is an array or an image file.

    Args:
        pairs: The files.
        layout: Of the images: "hwc" or "chw".
        picture_key: Name of the image in `.npz` files.
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
        return str(self.pairs[index].image), str(self.pairs[index].mask)

    def channels(self, index: int) -> int:
        """Channels of an image, from its header."""
        shape, _ = array_header(self.pairs[index].image, self._picture_key)
        return 1 if len(shape) < 3 else shape[2 if self._layout == "hwc" else 0]

    def header(self, index: int) -> Header:
        """From the headers alone."""
        pair = self.pairs[index]
        shape, dtype = array_header(pair.image, self._picture_key)
        if len(shape) == 3 and self._layout == "chw":
            shape = shape[1:]
        depth = dtype.itemsize if dtype in (np.uint8, np.uint16, np.bool_) else np.dtype(np.float32).itemsize
        return Header((shape[0], shape[1]) if len(shape) > 1 else (0, 0), self._mask_size(pair.mask), depth)

    def _mask_size(self, path: Path) -> tuple[int, int]:
        if path.suffix.lower() not in ARRAY_SUFFIXES:
            return image_size(path, upright=False)[:2]
        shape, _ = array_header(path, self._mask_key)
        return (shape[0], shape[1]) if len(shape) > 1 else (0, 0)

    def image(self, index: int) -> np.ndarray:
        """(h, w, C) uint8, uint16 or float32."""
        return read_channels(self.pairs[index].image, layout=self._layout, key=self._picture_key)

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
        return stamp(pair.image), stamp(pair.mask), self._layout, self._picture_key, self._mask_key


Interpolation = Literal["linear", "nearest"]


class ArrayPreprocessing(Preprocessing):
    """Letterbox and `(value - mean) / std`, the values as they are in the file.

    Args:
        in_channels: Channels of the arrays.
        resize: Size of the input, `[height, width]` or one number for a square; None keeps every array's own size.
        padding_value: Value around an array of another shape, before the mean is subtracted.
        mean: Subtracted, one number or one per channel; None: 0.
        std: Divided by, likewise; None: 1.
        interpolation: "linear", or "nearest" where values must not mix.
        layout: Of the files: "hwc" or "chw".
        picture_key: Name of the array in `.npz` files.

    Raises:
        ConfigError: An argument is out of its range.
    """

    suffixes = ARRAY_SUFFIXES

    def __init__(
        self,
        in_channels: int,
        *,
        resize: int | Sequence[int] | None = None,
        padding_value: float = 0.0,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        interpolation: Interpolation = "linear",
        layout: Layout = "hwc",
        picture_key: str | None = None,
    ) -> None:
        if in_channels < 1:
            raise ConfigError(f"Wrong in_channels {in_channels}: it must be 1 or more.")
        self.size = checked_size(resize)
        self.in_channels = in_channels
        self.padding_value = padding_value  # type: ignore[assignment]
        self.interpolation = cv2.INTER_LINEAR if interpolation == "linear" else cv2.INTER_NEAREST
        self.mean = _per_channel("mean", mean, 0.0, in_channels)
        self.std = _per_channel("std", std, 1.0, in_channels)
        if (self.std <= 0).any():
            raise ConfigError(f"Wrong std {std}: every value must be above 0.")
        self._layout: Layout = layout
        self._picture_key = picture_key

    def read(self, path: str | Path) -> np.ndarray:
        """(h, w, C) of a file, as the loader reads it.

        Raises:
            DataError: It cannot be read.
        """
        return read_channels(path, layout=self._layout, key=self._picture_key)

    def channels(self, image: np.ndarray) -> np.ndarray:
        """(h, w, C), all channels as they are.

        Raises:
            DataError: The array has another number of channels.
        """
        channels = 1 if image.ndim == 2 else image.shape[2]
        if channels != self.in_channels:
            raise DataError(
                f"The image has {channels} channels, but in_channels is {self.in_channels}. Set in_channels "
                'right, or layout to "hwc" or "chw", as the files are.'
            )
        return image.reshape(*image.shape[:2], channels)

    def scaled(self, image: np.ndarray, size: Size) -> np.ndarray:
        """Resize (h, w, C), four channels at a time: OpenCV knows no more in all its methods."""
        if image.shape[:2] == size:
            return image
        if self.interpolation == cv2.INTER_NEAREST:
            resize = partial(cv2.resize, dsize=(size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
        else:
            resize = partial(super().scaled, size=size)
        parts = [image[..., first : first + 4] for first in range(0, self.in_channels, 4)]
        return np.concatenate([resize(np.ascontiguousarray(part)).reshape(*size, -1) for part in parts], axis=2)

    def padding(self, dtype: Any) -> float:
        """Value of the padding."""
        return self.padding_value

    def normalize_into(self, out: np.ndarray, placed: np.ndarray) -> None:
        """Write the input's values: (H, W, C) of any kind of number -> `out` (H, W, C) float32."""
        np.subtract(placed, self.mean, out=out)
        out /= self.std

    def describe(self) -> dict[str, Any]:
        """Every argument with its value, as plain data; `ArrayPreprocessing(**describe())` is the same again."""
        return {
            "in_channels": self.in_channels,
            "resize": None if self.size is None else list(self.size),
            "padding_value": self.padding_value,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "interpolation": "linear" if self.interpolation == cv2.INTER_LINEAR else "nearest",
            "layout": self._layout,
            "picture_key": self._picture_key,
        }


def _per_channel(name: str, values: float | Sequence[float] | None, default: float, in_channels: int) -> np.ndarray:
    """(C,) float32."""
    if values is None or isinstance(values, int | float):
        return np.full(in_channels, default if values is None else values, np.float32)
    if len(values) != in_channels:
        raise ConfigError(
            f"{name} lists {len(values)} values, but there are {in_channels} channels. Give one number, or one "
            "per channel."
        )
    return np.asarray(values, np.float32)
