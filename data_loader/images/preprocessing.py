"""Conversion of an image to a network's input: the same in training, testing, inference and export.

h, w size of an image, H, W size of the input, C channels.
"""

import json
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from data_loader.common.options import ColorChannel, ImageOptions, InputOptions
from data_loader.images.files import read_image
from utils.drawing import IMAGENET_MEAN, IMAGENET_STD
from utils.errors import ConfigError, DataError
from utils.files import IMAGE_MB
from utils.geometry import Geometry, Size, letterbox_geometry

# An image that is at most so much larger than needed is left as it is: shrunk twice, it would lose sharpness.
_WHOLE_FILE_UP_TO = 1.5
_ROUNDING = 1e-6
_MOST_PIXELS = IMAGE_MB * 2**20 // 3
_OF_READING = ("max_decoded_mb", "reduced_decoding")  # options of how files are read, not of what an input is


class Enlargement(NamedTuple):
    """The most that an augmentation enlarges a part of an image, compared with the image scaled to fit the input.

    Attributes:
        factor: Side of the input as a multiple of the side of the part; at least 1.
        is_turned: The image may be turned by a quarter, and then fits another scale.
    """

    factor: float = 1.0
    is_turned: bool = False

    def describe(self) -> str:
        """Return the scale of the images as the end of a sentence; empty if it is that of the input."""
        if self.factor == 1:
            return ""
        return f", at the size that crop_range needs ({self.factor:.2f} times the side of the input)"


NO_ENLARGEMENT = Enlargement()
"""As in evaluation: the whole image is shown."""


class Preprocessing:
    """Letterbox and normalisation.

    An image is scaled to fit the input with its aspect ratio preserved and lies in the middle of padding. With
    `normalize`, ImageNet's mean is subtracted and the values are divided by its deviation (with other than 3 channels,
    by the averages over its three); otherwise values are in 0..1.

    Args:
        options: Size, channels, padding and normalisation.

    Attributes:
        options: All options, those that were left open as the others imply.
        size: (height, width) of the input; None: each image's size.
        in_channels: C.
        mean: Subtracted from values in 0..1, (C,) float32 in the order of the input's channels.
        std: Divisor after that, (C,) float32.
        scale: Factor of values in 0..1 in an input, (C,) float32.
        shift: Added after that, (C,) float32.
        is_bgr: Whether blue is the first channel of an input.

    Raises:
        ConfigError: An option is out of its range, or two of them disagree.
    """

    interpolation = cv2.INTER_LINEAR
    recipe = (
        "Scale the image to fit into resize [height, width], if there is one, aspect ratio kept, by area averages when "
        "shrinking, bilinear when growing; centre it on padding_value; order its channels as color_channel; "
        "(value / 255 - mean) / std, of 16 bits value / 65535; (C, H, W) float32."
    )
    """What a call does, in words, with the names of `describe`: exported networks hold it for other programs.

    A subclass that changes what a call does (`__call__`, `scaled`, `normalize_into`, ...) sets its own.
    """

    def __init__(self, options: ImageOptions = ImageOptions()) -> None:
        self.size = checked_size(options.resize)
        color_channel, in_channels = options.color_channel, options.in_channels
        if color_channel not in (None, "RGB", "BGR", "GRAY"):
            raise ConfigError(f'Wrong color_channel {color_channel!r}: it must be "RGB", "BGR" or "GRAY".')
        if in_channels not in (None, 1, 3, 4):
            raise ConfigError(f"Wrong in_channels {in_channels}: images have 1 (grey), 3 (colour) or 4 channels.")
        colour: ColorChannel = color_channel or ("GRAY" if in_channels == 1 else "RGB")
        channels = in_channels or (1 if colour == "GRAY" else 3)
        if (colour == "GRAY") != (channels == 1):
            raise ConfigError(
                f'color_channel "{colour}" has {1 if colour == "GRAY" else 3} channels, but in_channels is {channels}. '
                'Set in_channels to 1 with "GRAY", to 3 with "RGB" or "BGR".'
            )
        if channels == 4 and colour == "BGR":
            raise ConfigError('color_channel "BGR" with 4 channels is not known. Set color_channel to "RGB".')
        self.in_channels = channels
        resize = None if self.size is None else list(self.size)
        self.options: InputOptions = replace(options, resize=resize, color_channel=colour, in_channels=channels)
        self.is_bgr, self._padding_value = colour == "BGR", options.padding_value
        if not options.normalize:
            mean, std = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        elif channels != 3:
            mean = np.full(channels, sum(IMAGENET_MEAN) / 3, np.float32)
            std = np.full(channels, sum(IMAGENET_STD) / 3, np.float32)
        else:
            order = slice(None, None, -1 if self.is_bgr else 1)
            mean, std = np.array(IMAGENET_MEAN, np.float32)[order], np.array(IMAGENET_STD, np.float32)[order]
        self.mean, self.std = mean, std
        self.scale, self.shift = 1.0 / std, -mean / std
        # Images of 8 bits have 256 values only: a table of their inputs is faster than arithmetic.
        levels = np.arange(256, dtype=np.float32)[:, None] / np.float32(255.0)
        self._table = np.ascontiguousarray((levels * self.scale + self.shift)[None], dtype=np.float32)  # (1, 256, C)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, Geometry]:
        """Convert an image to an input.

        Args:
            image: (h, w, 3) RGB, (h, w, 4) for four channels, or grey (h, w); uint8 or uint16.

        Returns:
            (C, H, W) float32, contiguous, and the position of the image on it.
        """
        geometry = self.geometry(image.shape[:2])
        placed = self.place(self.scaled(self.channels(image), geometry.resized), geometry)
        values = np.empty(placed.shape, np.float32)
        self.normalize_into(values, placed)
        # OpenCV works on (H, W, C); a network takes (C, H, W).
        return np.ascontiguousarray(values.transpose(2, 0, 1)), geometry

    def read(self, path: str | Path) -> np.ndarray:
        """Return the image of a file, as the loader reads it.

        Raises:
            DataError: It cannot be read.
        """
        return read_image(path, in_channels=self.in_channels, max_decoded_mb=self.options.max_decoded_mb)

    def geometry(self, original: Sequence[int]) -> Geometry:
        """Return the position of an image of size (height, width) on the input."""
        return letterbox_geometry((original[0], original[1]), self.size)

    def channels(self, image: np.ndarray) -> np.ndarray:
        """Convert an image to (h, w, C): grey, or grey repeated, if the options say so; the order stays RGB.

        Raises:
            DataError: The image has other channels, or other numbers, than an input can be made of.
        """
        if image.dtype not in (np.uint8, np.uint16):
            raise DataError(
                f"The image holds {image.dtype} values, and must hold uint8 or uint16. Convert it: if its values are "
                "from 0 to 1, by (255 * image).round().astype(numpy.uint8)."
            )
        colours = 1 if image.ndim == 2 else image.shape[2]
        if colours not in (1, 3, 4) or (self.in_channels == 4 and colours != 4):
            wanted = "1 (grey), 3 or 4" if self.in_channels != 4 else "4"
            raise DataError(
                f"The image has {colours} channels, but in_channels is {self.in_channels}, for which it must have "
                f"{wanted}. Set in_channels right, or convert the image."
            )
        if self.in_channels == 1:
            # RGB2GRAY takes four channels as well and ignores the last.
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if colours >= 3 else image
            return np.asarray(grey).reshape(*image.shape[:2], 1)
        if colours == 1:
            return np.repeat(image.reshape(*image.shape[:2], 1), self.in_channels, axis=2)
        return image[..., : self.in_channels]  # drops alpha unless the network wants it

    def shrink(
        self, image: np.ndarray, enlargement: Enlargement = NO_ENLARGEMENT, original: Size | None = None
    ) -> np.ndarray:
        """Scale an image (h, w, C) for the cache: to the scale that is needed if that is smaller, without padding.

        `original` is the size of the file; None: that of the image.
        """
        original = original or (image.shape[0], image.shape[1])
        return self.scaled(self.channels(image), self.shrunk_size(original, enlargement))

    def shrunk_size(self, size: Size, enlargement: Enlargement = NO_ENLARGEMENT) -> Size:
        """Return the size of an image (h, w) after `shrink`."""
        needed = self.enlarged_size(size, enlargement)
        is_little_larger = max(size[0] / needed[0], size[1] / needed[1]) <= _WHOLE_FILE_UP_TO
        return size if enlargement.factor > 1 and is_little_larger else needed

    def enlarged_size(self, size: Size, enlargement: Enlargement = NO_ENLARGEMENT) -> Size:
        """Return the size at which an image (h, w) is shown pixel by pixel if enlarged; at most its own."""
        height, width = self.geometry(size).resized
        if enlargement.is_turned:
            across, down = self.geometry(size[::-1]).resized
            height, width = max(height, down), max(width, across)
        height, width = (math.ceil(side * enlargement.factor - _ROUNDING) for side in (height, width))
        # A larger image would only take memory; `place` and the augmentation enlarge it.
        return size if height > size[0] or width > size[1] else (height, width)

    def place(self, fitted: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Put an image in the middle of the padding: (H, W, C) of the image's dtype, scaled if necessary."""
        if fitted.shape[:2] != geometry.resized:
            fitted = self.scaled(fitted, geometry.resized)
        if geometry.resized == geometry.padded:
            return fitted
        canvas = np.full((*geometry.padded, self.in_channels), self.padding(fitted.dtype), fitted.dtype)
        (top, left), (height, width) = geometry.offset, geometry.resized
        canvas[top : top + height, left : left + width] = fitted
        return canvas

    def normalize_into(self, out: np.ndarray, placed: np.ndarray) -> None:
        """Write the input's values, channels in their order: (H, W, C) of 8 or 16 bits -> `out` (H, W, C) float32."""
        if self.is_bgr:
            placed = placed[..., ::-1]
        if placed.dtype == np.uint8:
            # OpenCV accepts contiguous arrays only; a reversed view is none.
            cv2.LUT(np.ascontiguousarray(placed), self._table, dst=out)
        else:
            # 16 bits have too many values for a table of each channel.
            np.multiply(placed, self.scale / np.float32(full_scale(placed.dtype)), out=out)
            out += self.shift

    def scaled(self, image: np.ndarray, size: Size, shrinking: int = cv2.INTER_AREA) -> np.ndarray:
        """Resize (h, w, C): by area averages (no aliasing) or as told when shrinking, bilinear when growing."""
        if image.shape[:2] == size:
            return image
        shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
        how = shrinking if shrinks else cv2.INTER_LINEAR
        # OpenCV wants (width, height), and returns (h, w) for a single channel.
        return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=how)).reshape(*size, -1)

    def padding(self, dtype: Any) -> float:
        """Return the value of the padding in an image of that dtype."""
        return self._padding_value * full_scale(dtype) // 255

    def describe(self) -> dict[str, Any]:
        """Return the value of every option that decides an input, as plain data: exported networks hold it."""
        return {name: value for name, value in vars(self.options).items() if name not in _OF_READING}

    def identity(self) -> Hashable:
        """Return everything that decides the images at the input's scale."""
        return type(self), json.dumps(self.describe(), sort_keys=True)


def place_mask(mask: np.ndarray, geometry: Geometry, ignored: int) -> np.ndarray:
    """Put a mask (h, w) under its letterboxed image: (H, W) of the same dtype, nearest neighbour, padding ignored."""
    scaled = scaled_mask(mask, geometry.resized)
    if geometry.resized == geometry.padded:
        return scaled
    canvas = np.full(geometry.padded, ignored, mask.dtype)
    (top, left), (height, width) = geometry.offset, geometry.resized
    canvas[top : top + height, left : left + width] = scaled
    return canvas


def scaled_mask(mask: np.ndarray, size: Size) -> np.ndarray:
    """Return a mask (h, w) at another size, each pixel the one under its centre."""
    if mask.shape == size:
        return mask
    # OpenCV's plain INTER_NEAREST takes the corner of a pixel, so masks would shift against their images.
    return np.asarray(cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT))


def checked_size(resize: int | Sequence[int] | None) -> Size | None:
    """Return a `resize` of the JSON as (height, width).

    Raises:
        ConfigError: It is not a size.
    """
    if resize is None:
        return None
    # True is an int in Python, but no size.
    sides = (resize, resize) if isinstance(resize, int) else tuple(resize)
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):
        raise ConfigError(f"Wrong resize {resize!r}: it must be one side in pixels, [height, width], or null.")
    if sides[0] * sides[1] > _MOST_PIXELS:
        raise ConfigError(
            f"Wrong resize {resize!r}: an input has at most {_MOST_PIXELS // 10**6} megapixels, as {IMAGE_MB} MB hold "
            "in colours of 8 bits. Write a smaller size."
        )
    return sides[0], sides[1]


def full_scale(dtype: Any) -> int:
    """Return the value of white: 255 in 8 bits, 65535 in 16."""
    return int(np.iinfo(dtype).max)


def require_one_size(shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise an error if the images of a batch differ in size (height, width).

    Raises:
        DataError: Two of them differ.
    """
    sizes = sorted(set(shapes))
    if len(sizes) > 1:
        shown = ", ".join(f"{height}x{width}" for height, width in sizes[:5])
        raise DataError(
            f"Images of different sizes cannot share a batch: {shown}. "
            "Set resize to [height, width], or batch_size to 1."
        )


def mixed_sizes(
    sizes: Mapping[int, Size],
    geometry: Callable[[Size], Geometry],
    name: Callable[[int], str],
    *,
    batch_size: int,
    may_turn: bool,
) -> Iterator[DataError]:
    """Yield an error if images cannot share a batch: one for all of them, since one repair suffices.

    Args:
        sizes: Index of a sample -> (height, width) of its file.
        geometry: (height, width) -> position on the input.
        name: Index -> name of the file.
        batch_size: Samples per batch.
        may_turn: An augmentation turns images by a quarter.
    """
    if batch_size == 1:
        return
    inputs: list[tuple[int, bool, Size]] = []
    for index, (height, width) in sizes.items():
        inputs.append((index, False, geometry((height, width)).padded))
        if may_turn:
            inputs.append((index, True, geometry((width, height)).padded))
    for index, is_turned, size in inputs:
        first, _, expected = inputs[0]
        if size != expected:
            yield DataError(
                f"Images of different sizes cannot share a batch: {name(first)} is {expected[0]}x{expected[1]} "
                f"(height x width), {name(index)}{', turned by rotate,' if is_turned else ''} {size[0]}x{size[1]}, "
                f"and batch_size is {batch_size}. Set resize to [height, width], or batch_size to 1."
            )
            return
