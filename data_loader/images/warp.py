"""Crops, turns, rotations and flips of an image and its mask, from an image that may be larger than the input.

An image that was shrunk before is resampled by a sharper kernel than a file: two averages in turn would blur it.
h, w size of an image, H, W size of the area that it fills, C channels.
"""

import math
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from data_loader.images.preprocessing import Preprocessing, scaled_mask
from utils.geometry import Size

# Pixels of the image per pixel of the result up to which an affine map is sharp with an interpolation.
_CUBIC_UP_TO, _LINEAR_UP_TO = 1.4, 2.0
_ROUNDING = 1e-6


class Move(NamedTuple):
    """A change of geometry, as it was drawn.

    Attributes:
        crop: Side of the window as a fraction of the image's side; above 1 there is padding around the image.
        left: Position of the window, from 0 (left) to 1 (right).
        top: Position of the window, from 0 (top) to 1 (bottom).
        is_flipped: Left and right are exchanged, before the turns.
        quarters: Quarter turns clockwise: -1, 0 or 1.
        radians: Rotation in addition to that, clockwise.
    """

    crop: float
    left: float
    top: float
    is_flipped: bool
    quarters: int
    radians: float

    def window(self, image: Size, size: Size) -> tuple[slice, slice] | None:
        """Return rows and columns of the window; None if rotation, magnification or padding make it more than a cut.

        They are whole pixels: a window that begins between two pixels would blur the image.
        """
        filled = size[::-1] if self.quarters else size
        height, width = (math.floor(self.crop * side + _ROUNDING) for side in image)
        if self.radians or self.crop > 1 or height < filled[0] or width < filled[1]:
            return None
        top, left = round((image[0] - height) * self.top), round((image[1] - width) * self.left)
        return slice(top, top + height), slice(left, left + width)

    def matrix(self, image: Size, size: Size) -> np.ndarray:
        """Return the affine map (2, 3) from the pixels (x, y) of an image to those of the area of size (H, W)."""
        height, width = image
        # After a quarter turn, the image's width fills the area's height.
        across, down = (height, width) if self.quarters else (width, height)
        scale_x, scale_y = size[1] / (self.crop * across), size[0] / (self.crop * down)
        radians, flip = self.radians + self.quarters * math.pi / 2, -1.0 if self.is_flipped else 1.0
        cosine, sine = math.cos(radians), math.sin(radians)
        linear = np.array(((flip * scale_x * cosine, -scale_x * sine), (flip * scale_y * sine, scale_y * cosine)))
        centre = np.array(
            (width * (0.5 + (self.left - 0.5) * (1 - self.crop)), height * (0.5 + (self.top - 0.5) * (1 - self.crop)))
        )
        # Pixel i covers [i, i + 1), so its centre is at i + 0.5 on both sides.
        offset = linear @ (0.5 - centre) + np.array((size[1] / 2 - 0.5, size[0] / 2 - 0.5))
        return np.column_stack((linear, offset))


def move_both(
    image: np.ndarray,
    mask: np.ndarray,
    move: Move,
    size: Size,
    preprocessing: Preprocessing,
    *,
    ignored: int,
    is_file: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Apply a move to an image and its mask.

    Args:
        image: (h, w, C).
        mask: (h, w).
        move: Of both.
        size: (H, W).
        preprocessing: Gives interpolation and padding.
        ignored: Label of the area outside of the image.
        is_file: The image has the size of its file: it was not resampled yet.

    Returns:
        Image (H, W, C) and mask (H, W), of the same dtypes.
    """
    original = image.shape[0], image.shape[1]
    window = move.window(original, size)
    if window is None:
        moved_mask = _warped(mask, move.matrix(original, size), size, cv2.INTER_NEAREST, ignored)
        return _warped_image(image, move, size, preprocessing, is_file=is_file), moved_mask
    filled = size[::-1] if move.quarters else size
    cut, cut_mask = image[window], mask[window]
    resize = preprocessing.scaled if is_file else partial(_scaled_again, preprocessing)
    moved, moved_mask = resize(cut, filled), scaled_mask(cut_mask, filled)
    if move.is_flipped:
        moved, moved_mask = moved[:, ::-1], moved_mask[:, ::-1]
    if move.quarters:
        moved, moved_mask = np.rot90(moved, -move.quarters), np.rot90(moved_mask, -move.quarters)
    # OpenCV takes contiguous arrays only.
    return np.ascontiguousarray(moved), np.ascontiguousarray(moved_mask)


def _warped_image(
    image: np.ndarray, move: Move, size: Size, preprocessing: Preprocessing, *, is_file: bool
) -> np.ndarray:
    """Apply a move to an image (h, w, C) as an affine map: (H, W, C)."""
    height, width = image.shape[:2]
    ratio = move.crop * _ratio(height * width, size)
    if ratio >= _LINEAR_UP_TO:
        # An affine map reads the nearest pixels only, and would skip others.
        parts = math.floor(ratio)
        image = preprocessing.scaled(image, (max(1, round(height / parts)), max(1, round(width / parts))))
        ratio, is_file = ratio / parts, False
    kernel = preprocessing.interpolation
    # An image that was shrunk just as far as a crop needs it is one that was shrunk, too.
    is_shrunk = not is_file and (ratio > 1 + _ROUNDING or (ratio > 1 - _ROUNDING and move.crop < 1))
    if kernel == cv2.INTER_LINEAR and is_shrunk:
        kernel = _kernel(ratio, image.dtype)
    matrix = move.matrix((image.shape[0], image.shape[1]), size)
    return _warped(image, matrix, size, kernel, preprocessing.padding(image.dtype)).reshape(*size, -1)


def _ratio(pixels: int, size: Size) -> float:
    """Return the pixels of an image per pixel of the result, along a side."""
    return math.sqrt(pixels / (size[0] * size[1]))


def _scaled_again(preprocessing: Preprocessing, image: np.ndarray, size: Size) -> np.ndarray:
    """Shrink an image (h, w, C) that was shrunk before to (H, W, C), as sharp as if it were the first time.

    Averages of averages are blurred, and a cubic interpolation skips pixels and is too sharp. The mean Laplacian of the
    mixture is that of one average, within 5 % for photos.
    """
    ratio = _ratio(image.shape[0] * image.shape[1], size)
    if image.dtype.kind != "u":  # a cubic interpolation would leave the range of fractions
        return preprocessing.scaled(image, size, cv2.INTER_LINEAR if ratio < _LINEAR_UP_TO else cv2.INTER_AREA)
    share = min(1.0, 1.4 / ratio**2.4)  # of the cubic interpolation, fitted to photos and ratios from 1.2 to 3.3
    cubic = preprocessing.scaled(image, size, cv2.INTER_CUBIC)
    if share == 1:
        return cubic
    averaged = preprocessing.scaled(image, size)
    return np.asarray(cv2.addWeighted(cubic, share, averaged, 1 - share, 0.0)).reshape(averaged.shape)


def _kernel(ratio: float, dtype: np.dtype) -> int:
    """Return OpenCV's number of the interpolation that leaves an image sharp which is shrunk again, by `ratio` below 2.

    A cubic one overshoots: integers stay in their range, fractions would leave that of the data.
    """
    return cv2.INTER_CUBIC if ratio < _CUBIC_UP_TO and dtype.kind == "u" else cv2.INTER_LINEAR


def _warped(array: np.ndarray, matrix: np.ndarray, size: Size, interpolation: int, border: float) -> np.ndarray:
    """Apply an affine map to (h, w) or (h, w, C)."""
    if array.ndim == 3 and array.shape[2] > 4:  # OpenCV fills the border of no more than four channels
        parts = [array[..., first : first + 4] for first in range(0, array.shape[2], 4)]
        moved = [_warped(part, matrix, size, interpolation, border).reshape(*size, -1) for part in parts]
        return np.concatenate(moved, axis=2)
    return np.asarray(
        cv2.warpAffine(
            array,
            matrix,
            (size[1], size[0]),
            flags=interpolation,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(border,) * 4,
        )
    )
