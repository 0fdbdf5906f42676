"""Images that are arrays of numbers: `.npy` and `.npz` files with any number of channels.

h, w size of an image, H, W size of the input, C channels.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_loader.common.array_files import ARRAY_SUFFIXES, array_header, read_array
from data_loader.common.options import ArrayOptions, Layout
from data_loader.images.preprocessing import Preprocessing, checked_size
from utils.errors import ConfigError, DataError
from utils.geometry import Size

__all__ = ["ARRAY_SUFFIXES", "ArrayPreprocessing", "array_header", "read_array", "read_channels"]


def read_channels(
    path: str | Path, *, layout: Layout = "hwc", key: str | None = None, max_decoded_mb: int | None = None
) -> np.ndarray:
    """Read an image of any number of channels.

    Args:
        path: A `.npy` or `.npz` file.
        layout: "hwc" if channels come last in the file, "chw" if they come first.
        key: Name of the array in an `.npz`.
        max_decoded_mb: Limit on the array; None: the default of `read_array`.

    Returns:
        (h, w, C); uint8 and uint16 unchanged, all other types as float32.

    Raises:
        DataError: The file cannot be read, or holds no image, or values that are no numbers.
    """
    array = read_array(path, key, max_decoded_mb=max_decoded_mb)
    if array.ndim not in (2, 3) or 0 in array.shape or array.dtype.kind not in "biuf":
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
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, which is reported
            array = array.astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise DataError(f"{path} holds values that are not finite (NaN or infinite). Replace them.")
    return np.ascontiguousarray(array)


class ArrayPreprocessing(Preprocessing):
    """Letterbox and `(value - mean) / std`, the values as they are in the file.

    Args:
        options: Channels, size, padding and normalisation.

    Raises:
        ConfigError: An option is out of its range, or the number of channels is unknown.
    """

    suffixes = ARRAY_SUFFIXES
    recipe = (
        "Scale the array (height, width, channels) to fit into resize [height, width], if there is one, aspect ratio "
        "kept, by interpolation: linear is by area averages when shrinking, bilinear when growing, nearest takes the "
        "value under the centre of each pixel; centre it on padding_value; (value - mean) / std, values as they are in "
        "the file; (C, H, W) float32."
    )

    def __init__(self, options: ArrayOptions) -> None:
        if options.in_channels is None:
            raise ConfigError("in_channels is missing: say it in arch.args or in the loader's args.")
        # Not the constructor of the base class: channels of arrays have no colours, and no table of 256 values.
        self.size = checked_size(options.resize)
        self.in_channels = options.in_channels
        self.interpolation = cv2.INTER_LINEAR if options.interpolation == "linear" else cv2.INTER_NEAREST
        self.mean = _per_channel("mean", options.mean, 0.0, self.in_channels)
        self.std = _per_channel("std", options.std, 1.0, self.in_channels)
        if (self.std <= 0).any():
            raise ConfigError(f"Wrong std {options.std}: every value must be above 0.")
        resize = None if self.size is None else list(self.size)
        mean, std = self.mean.tolist(), self.std.tolist()
        self.options: ArrayOptions = replace(options, resize=resize, mean=mean, std=std)

    def read(self, path: str | Path) -> np.ndarray:
        """Return (h, w, C) of a file, as the loader reads it.

        Raises:
            DataError: It cannot be read.
        """
        options = self.options
        return read_channels(
            path, layout=options.layout, key=options.picture_key, max_decoded_mb=options.max_decoded_mb
        )

    def channels(self, image: np.ndarray) -> np.ndarray:
        """Return (h, w, C), all channels unchanged.

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

    def scaled(self, image: np.ndarray, size: Size, shrinking: int = cv2.INTER_AREA) -> np.ndarray:
        """Resize (h, w, C), four channels at a time: not all of OpenCV's methods support more."""
        if image.shape[:2] == size:
            return image
        if self.interpolation == cv2.INTER_NEAREST:
            resize = partial(cv2.resize, dsize=(size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
        else:
            resize = partial(super().scaled, size=size, shrinking=shrinking)
        parts = [image[..., first : first + 4] for first in range(0, self.in_channels, 4)]
        return np.concatenate([resize(np.ascontiguousarray(part)).reshape(*size, -1) for part in parts], axis=2)

    def padding(self, dtype: Any) -> float:
        """Return the value of the padding.

        Raises:
            ConfigError: It is out of the range of these whole numbers.
        """
        value, kind = self.options.padding_value, np.dtype(dtype)
        if kind.kind in "iu":
            least, most = np.iinfo(kind).min, np.iinfo(kind).max
            if not least <= value <= most:
                raise ConfigError(
                    f"padding_value: {value:g} is no value of the arrays, which are {kind}. Set a number from {least} "
                    f"to {most}, or store the arrays as float32."
                )
        return value

    def normalize_into(self, out: np.ndarray, placed: np.ndarray) -> None:
        """Write the input's values: (H, W, C) of any kind of number -> `out` (H, W, C) float32."""
        # Without temporary arrays: `out` is a part of the batch.
        np.subtract(placed, self.mean, out=out)
        out /= self.std


def _per_channel(name: str, values: float | Sequence[float] | None, default: float, in_channels: int) -> np.ndarray:
    """Return (C,) float32."""
    if values is None or isinstance(values, int | float):
        return np.full(in_channels, default if values is None else values, np.float32)
    if len(values) != in_channels:
        raise ConfigError(
            f"{name} lists {len(values)} values, but there are {in_channels} channels. Give one number, or one "
            "per channel."
        )
    return np.asarray(values, np.float32)
