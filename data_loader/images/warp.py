"""Crops, turns, rotations and flips of an image and its mask, from an image that may be larger than the input.

An image that was shrunk before is resampled by a sharper kernel than a file: two averages in turn would blur it.
h, w size of an image, H, W size of the area that it fills, C channels.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from data_loader.images.preprocessing import Preprocessing, scaled_mask
from utils.geometry import Size

# Pixels of the image per pixel of the result, along a side: from which on areas are averaged before an affine map, and
# below which a cubic interpolation, five times as slow, leaves an image as sharp as a linear one above it.
_AVERAGE_FROM, _CUBIC_BELOW = 2.5, 1.4
_AVERAGE_WINDOW_FROM = 1.25  # the same for a part of a file that is only scaled
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
        x_of_x, x_of_y = flip * scale_x * cosine, -scale_x * sine
        y_of_x, y_of_y = flip * scale_y * sine, scale_y * cosine
        # Pixel i covers [i, i + 1), so its centre is at i + 0.5 on both sides.
        from_x = 0.5 - width * (0.5 + (self.left - 0.5) * (1 - self.crop))
        from_y = 0.5 - height * (0.5 + (self.top - 0.5) * (1 - self.crop))
        to_x = x_of_x * from_x + x_of_y * from_y + size[1] / 2 - 0.5
        to_y = y_of_x * from_x + y_of_y * from_y + size[0] / 2 - 0.5
        return np.array(((x_of_x, x_of_y, to_x), (y_of_x, y_of_y, to_y)))


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
        matrix = move.matrix(original, size)
        moved = _warped_image(image, matrix, move, size, preprocessing, is_file=is_file)
        return moved, _warped(mask, matrix, size, cv2.INTER_NEAREST, ignored)
    filled = size[::-1] if move.quarters else size
    cut, cut_mask = image[window], mask[window]
    moved = _shrunk(cut, filled, preprocessing) if is_file else _shrunk_again(cut, filled, preprocessing)
    return _turned(moved, move), _turned(scaled_mask(cut_mask, filled), move)


def _turned(array: np.ndarray, move: Move) -> np.ndarray:
    """Flip an array (h, w, C) or (h, w) and turn it by quarters; the result is contiguous and may be written to."""
    shape = array.shape
    is_photo = array.ndim == 2 or array.shape[2] <= 4
    if move.is_flipped:  # OpenCV is many times as fast as the copy of a view, but not for any number of channels
        array = cv2.flip(array, 1).reshape(shape) if is_photo else array[:, ::-1]
    if move.quarters:
        array = np.rot90(array, -move.quarters)
    # A whole image that is neither shrunk nor turned would be the array of the cache.
    return np.ascontiguousarray(array) if array.flags.writeable else array.copy()


def _warped_image(
    image: np.ndarray, matrix: np.ndarray, move: Move, size: Size, preprocessing: Preprocessing, *, is_file: bool
) -> np.ndarray:
    """Apply a move to an image (h, w, C) as an affine map, which `matrix` is: (H, W, C)."""
    height, width = image.shape[:2]
    surplus, kernel = _ratio(height * width, size), preprocessing.interpolation
    ratio = move.crop * surplus
    if ratio >= _AVERAGE_FROM:
        # An affine map reads the nearest pixels only, and would skip others.
        parts = math.floor(ratio * 2 / _AVERAGE_FROM)
        image = preprocessing.scaled(image, (max(1, round(height / parts)), max(1, round(width / parts))))
        matrix = move.matrix((image.shape[0], image.shape[1]), size)
        ratio, is_file = ratio / parts, False
    is_shrunk_for_crops = not is_file and surplus > 1 + _ROUNDING and 1 - _ROUNDING < ratio < _CUBIC_BELOW
    if kernel == cv2.INTER_LINEAR and is_shrunk_for_crops and image.dtype.kind == "u":
        kernel = cv2.INTER_CUBIC
    return _warped(image, matrix, size, kernel, preprocessing.padding(image.dtype)).reshape(*size, -1)


def _ratio(pixels: int, size: Size) -> float:
    """Return the pixels of an image per pixel of the result, along a side."""
    return math.sqrt(pixels / (size[0] * size[1]))


def _shrunk(image: np.ndarray, size: Size, preprocessing: Preprocessing) -> np.ndarray:
    """Shrink a part of a file's image (h, w, C) to (H, W, C)."""
    # Averages of little more than a pixel are those of a linear interpolation, and take five times as long.
    is_close = _ratio(image.shape[0] * image.shape[1], size) < _AVERAGE_WINDOW_FROM
    return preprocessing.scaled(image, size, cv2.INTER_LINEAR if is_close else cv2.INTER_AREA)


def _shrunk_again(image: np.ndarray, size: Size, preprocessing: Preprocessing) -> np.ndarray:
    """Shrink an image (h, w, C) that was shrunk before to (H, W, C), as sharp as if it were the first time.

    Averages of averages are blurred, and a cubic interpolation skips pixels and is too sharp. The mean Laplacian of the
    mixture is that of one average, within a tenth for photos.
    """
    ratio = _ratio(image.shape[0] * image.shape[1], size)
    if image.dtype.kind != "u":  # a cubic interpolation would leave the range of fractions
        return preprocessing.scaled(image, size, cv2.INTER_LINEAR if ratio < 2 else cv2.INTER_AREA)
    cubic = preprocessing.scaled(image, size, cv2.INTER_CUBIC)
    share = 1.4 / ratio**2.4  # of the cubic interpolation, fitted to photos and ratios from 1.2 to 3.3
    if share > 0.8:
        return cubic
    averaged = preprocessing.scaled(image, size)
    return np.asarray(cv2.addWeighted(cubic, share, averaged, 1 - share, 0.0)).reshape(averaged.shape)


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
