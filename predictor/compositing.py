"""Layers of images: backgrounds of every kind, and one layer over another.

Images are (h, w, 3) uint8 RGB; alpha is (h, w) float32 in 0..1, the foreground's share of each pixel.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from predictor.matting import Alpha, size_at_most
from utils.drawing import Image, to_displayable
from utils.errors import ConfigError
from utils.images.palette import Palette

Background = Callable[[Image, Alpha], Image]
BLUR_SIGMA = 1 / 40  # of a blurred background, as a share of the image's longer side
BLUR_SIZE = 320  # longer side at which a background is blurred: more detail would be lost anyway
CHECKER_SQUARE = 12  # pixels
CHECKER_GREYS = (176, 112)


def composite(foreground: Image, alpha: Alpha, background: Image) -> Image:
    """Return the foreground over the background, (h, w, 3) uint8 RGB."""
    mixed = cv2.blendLinear(foreground, np.ascontiguousarray(background), alpha, 1 - alpha)
    return np.asarray(mixed, dtype=np.uint8)


def overlay_exactly(foreground: Image, inside: Alpha, background: Image) -> Image:
    """Return `composite` of a foreground that covers a pixel entirely or not at all: `inside` is 1 or 0."""
    return np.asarray(cv2.copyTo(foreground, inside.astype(np.uint8), np.array(background, order="C")), dtype=np.uint8)


def parse_background(text: str, read: Callable[[Path], NDArray[Any]]) -> Background:
    """Return the background that `--background` names: a colour (`#00ff00`, `#0f0`), `blur`, or an image.

    An image fills the frame: its aspect ratio is preserved and the excess is cut off on both sides.

    Args:
        text: The value of the option.
        read: Path -> (h, w, 3) RGB.

    Raises:
        ConfigError: The text is none of the three.
        DataError: The image cannot be read.
    """
    if text == "blur":
        return blurred
    if text.startswith("#") and not os.path.exists(text):
        digits = text[1:] if len(text) != 4 else "".join(2 * digit for digit in text[1:])
        try:
            color = np.array(list(bytes.fromhex(digits)), dtype=np.uint8)
        except ValueError:
            color = np.empty(0, np.uint8)
        if len(color) != 3:
            raise ConfigError(
                f"--background {text}: a colour is # and six hexadecimal digits, like '#00ff00'. Correct it."
            )
        return lambda image, _alpha: np.broadcast_to(color, image.shape)
    path = Path(text).expanduser()
    if not os.path.isfile(path):
        raise ConfigError(
            f"--background {text}: must be a colour like '#00ff00', blur, or an image that exists. Check the path."
        )
    image = as_rgb(read(path))
    # All frames of a video have one size: the image is scaled once.
    fitted = lru_cache(maxsize=1)(lambda height, width: cover(image, (height, width)))
    return lambda frame, _alpha: fitted(*frame.shape[:2])


def cover(image: Image, size: tuple[int, int]) -> Image:
    """Scale an image to fill `size` (height, width), preserve its aspect ratio and cut off the rest evenly."""
    scale = max(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = max(size[0], round(image.shape[0] * scale)), max(size[1], round(image.shape[1] * scale))
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return np.ascontiguousarray(scaled[top : top + size[0], left : left + size[1]], dtype=np.uint8)


def blurred(image: Image, alpha: Alpha) -> Image:
    """Return the background of the image out of focus; only background is averaged: the foreground leaves no halo.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    height, width = alpha.shape
    size = size_at_most((width, height), BLUR_SIZE)
    sigma = max(0.5, max(size) * BLUR_SIGMA)
    weight = 1 - np.asarray(cv2.resize(alpha, size, interpolation=cv2.INTER_AREA), dtype=np.float32)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    weights = cv2.GaussianBlur(weight, (0, 0), sigma) + 1e-4
    plain = cv2.GaussianBlur(small, (0, 0), sigma)
    # Deep inside the foreground there is no background near: the plain blur replaces it.
    soft = (cv2.GaussianBlur(small * weight[..., None], (0, 0), sigma) + 1e-4 * plain) / weights[..., None]
    enlarged = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.convertScaleAbs(enlarged), dtype=np.uint8)  # rounds, and limits to 255


def as_rgb(image: NDArray[Any]) -> Image:
    """Convert any image that was read to (h, w, 3) uint8 RGB: 16 bits become 8, a fourth channel is left out.

    An array that is no photo (fractions, or more than four channels) is shown by its first channels, stretched to the
    full range.
    """
    if image.dtype not in (np.uint8, np.uint16) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        return to_displayable(np.asarray(image.reshape(*image.shape[:2], -1).transpose(2, 0, 1), np.float32))
    if image.dtype == np.uint16:
        image = (image // 257).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] < 3:
        return np.repeat(image.reshape(*image.shape[:2], -1)[..., :1], 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def to_show(result: NDArray[Any], palette: Palette, *, has_legend: bool = False) -> Image:
    """Convert a result to (h, w, 3) RGB for a window or a video: ids in colours, transparency as a checkerboard."""
    if result.ndim == 2:
        drawn = palette.colorize(result)
        return palette.with_legend(drawn) if has_legend else drawn
    if result.shape[2] == 3:
        return result
    rows, columns = (np.arange(length) // CHECKER_SQUARE % 2 for length in result.shape[:2])
    greys = np.array(CHECKER_GREYS, dtype=np.uint8)[rows[:, None] ^ columns]
    share = np.asarray(result[..., 3], dtype=np.float32) / np.float32(255)
    return composite(np.ascontiguousarray(result[..., :3]), share, np.repeat(greys[..., None], 3, axis=2))
