"""From an array of any number of channels to a network's input."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from data_loader.arrays import ARRAY_SUFFIXES, Layout, read_channels
from data_loader.preprocessing import Preprocessing, checked_size
from utils.errors import ConfigError, DataError
from utils.geometry import Size

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

    def channels(self, picture: np.ndarray) -> np.ndarray:
        """(h, w, C), all channels as they are.

        Raises:
            DataError: The array has another number of channels.
        """
        channels = 1 if picture.ndim == 2 else picture.shape[2]
        if channels != self.in_channels:
            raise DataError(
                f"The picture has {channels} channels, but in_channels is {self.in_channels}. Set in_channels "
                'right, or layout to "hwc" or "chw", as the files are.'
            )
        return picture.reshape(*picture.shape[:2], channels)

    def scaled(self, picture: np.ndarray, size: Size) -> np.ndarray:
        """Resize (h, w, C), four channels at a time: OpenCV knows no more in all its methods."""
        if picture.shape[:2] == size:
            return picture
        if self.interpolation == cv2.INTER_NEAREST:
            resize = partial(cv2.resize, dsize=(size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
        else:
            resize = partial(super().scaled, size=size)
        parts = [picture[..., first : first + 4] for first in range(0, self.in_channels, 4)]
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
