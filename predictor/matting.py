"""From a probability to a matte: how much of each pixel is foreground, and what colour that foreground has.

Images are (h, w, 3) uint8 RGB; mattes are (h, w) float32 in 0..1, called alpha.
"""

from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.drawing import Image

Alpha = NDArray[np.float32]
Layers = tuple[NDArray[np.float32], NDArray[np.float32]]

# Sizes below are shares of the image's longer side, so that a photo and its thumbnail get the same matte. They were
# chosen on photos of people whose hand-made masks were taken down to a network's size and back.
EDGE_RADII = (1 / 54, 1 / 108)  # guided filter: how far off the edge may be, in a first pass and in a second
EDGE_SMOOTHNESS = 5e-4  # epsilon of the guided filter, for colours in 0..1
EDGE_GAIN = 2.5  # how much steeper the edge gets before, between and after the passes
GUIDE_SIZE = 256  # longer side at which the filter's coefficients are computed
COLOR_RADII = (1 / 16, 1 / 80)  # foreground colours: a wide pass, then a narrow one
COLOR_SIZES = (256, 512)  # longer side at which each of them is made


def refine_alpha(probability: Alpha, image: Image) -> Alpha:
    """A probability that was enlarged from the network's size, drawn to the edges of the image.

    The guided filter with the colour image as guide (He, Sun, Tang, "Guided Image Filtering", PAMI 2013, section 3.5)
    with its coefficients computed on a smaller image and enlarged (He, Sun, "Fast Guided Filter", arXiv:1505.00996).
    Added here: away from the edge the alpha is what the probability decides, 0 or 1, so that no haze is left behind.

    Args:
        probability: (h, w) float32 in 0..1.
        image: (h, w, 3) uint8 RGB.

    Returns:
        (h, w) float32 in 0..1.
    """
    size = (probability.shape[1], probability.shape[0])
    small_size = _at_most(size, GUIDE_SIZE)
    guide = _unit_colors(cv2.resize(image, small_size, interpolation=cv2.INTER_AREA))
    small = _resize(probability, small_size)
    alpha = _steepen(small)
    for relative_radius in EDGE_RADII:
        model = _guided_coefficients(guide, alpha, max(1, round(max(small_size) * relative_radius)))
        alpha = _steepen((model[..., :3] * guide).sum(axis=-1) + model[..., 3])
    alpha = _resize(model[..., 3], size)
    for channel in range(3):  # one after another: a photo of a telephone has twelve million pixels
        alpha += _resize(model[..., channel], size) * (image[..., channel] * np.float32(1 / 255))
    alpha = _steepen(alpha)
    certain = cv2.resize(_certain(small, EDGE_RADII[0]), size, interpolation=cv2.INTER_NEAREST)
    alpha[certain == _INSIDE] = 1
    alpha[certain == _OUTSIDE] = 0
    return alpha


def _at_most(size: tuple[int, int], longer_side: int) -> tuple[int, int]:
    """(width, height) scaled down, the aspect ratio kept, where it is larger."""
    scale = min(1.0, longer_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _unit_colors(image: NDArray[Any]) -> NDArray[np.float32]:
    """Colours of 8 bits as float32 in 0..1."""
    return np.asarray(image * np.float32(1 / 255), dtype=np.float32)


def _resize(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Values at another size (width, height): averaged when shrunk, bilinear when enlarged."""
    how = cv2.INTER_AREA if size[0] < values.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, size, interpolation=how), dtype=np.float32)


def _steepen(alpha: Alpha) -> Alpha:
    """Contrast around one half, cut off at 0 and 1."""
    return _unit((alpha - 0.5) * EDGE_GAIN + 0.5)


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values cut off at 0 and 1."""
    return np.asarray(np.clip(values, 0, 1), dtype=np.float32)


def _box(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Mean over a square window of side 2 * radius + 1."""
    side = 2 * radius + 1
    return np.asarray(cv2.boxFilter(values, -1, (side, side), borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def _guided_coefficients(guide: NDArray[np.float32], target: Alpha, radius: int) -> NDArray[np.float32]:
    """The model `target ~ slope . guide + offset` of each window, averaged over the windows that hold a pixel.

    Args:
        guide: (h, w, 3) float32 in 0..1.
        target: (h, w) float32.
        radius: Of the windows, in pixels.

    Returns:
        (h, w, 4) float32: three slopes and the offset.
    """
    mean_guide, mean_target = _box(guide, radius), _box(target, radius)
    red, green, blue = cv2.split(_box(guide * target[..., None], radius) - mean_guide * mean_target[..., None])
    pairs = np.stack([guide[..., i] * guide[..., j] for i, j in _PAIRS], axis=-1)
    means = np.stack([mean_guide[..., i] * mean_guide[..., j] for i, j in _PAIRS], axis=-1)
    variance = _box(pairs, radius) - means
    variance[..., [0, 3, 5]] += EDGE_SMOOTHNESS
    rr, rg, rb, gg, gb, bb = cv2.split(variance)
    # Cramer's rule for the symmetric 3x3 system of each pixel; a batched solver takes ten times as long.
    minor_r, minor_g, minor_b = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    inverse = 1 / (rr * minor_r + rg * minor_g + rb * minor_b)
    slope = np.stack(
        [
            (minor_r * red + minor_g * green + minor_b * blue) * inverse,
            (minor_g * red + (rr * bb - rb * rb) * green + (rg * rb - rr * gb) * blue) * inverse,
            (minor_b * red + (rg * rb - rr * gb) * green + (rr * gg - rg * rg) * blue) * inverse,
        ],
        axis=-1,
    )
    offset = mean_target - (slope * mean_guide).sum(axis=-1)
    return _box(np.concatenate([slope, offset[..., None]], axis=-1), radius)


_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def _certain(probability: Alpha, relative_radius: float) -> NDArray[np.uint8]:
    """(h, w) where a pixel is farther from the edge of the decided mask than the filter can see, and on which side."""
    radius = max(1, round(max(probability.shape) * relative_radius))
    decided = (probability >= 0.5).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    inside = cv2.erode(decided, kernel, borderType=cv2.BORDER_REPLICATE)
    outside = 1 - cv2.dilate(decided, kernel, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(inside * _INSIDE + outside * _OUTSIDE, dtype=np.uint8)


_INSIDE, _OUTSIDE = 1, 2


def foreground_colors(image: Image, alpha: Alpha) -> Image:
    """The colours of the foreground alone, so that a cut-out carries no rim of its old background.

    Blur fusion, applied twice (Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021, section 2): estimate
    both layers by weighted blurs, then put what they do not explain onto the foreground. Here the blurs are made on
    smaller images; where alpha is 0 or 1 the image stays as it is.

    Args:
        image: (h, w, 3) uint8 RGB, a mixture of foreground and background.
        alpha: (h, w) float32 in 0..1.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    mixed = (alpha > 0) & (alpha < 1)
    enlarge = partial(cv2.resize, dsize=(alpha.shape[1], alpha.shape[0]), interpolation=cv2.INTER_LINEAR)
    front, back = (_unit_colors(enlarge(_eight_bits(layer))[mixed]) for layer in _layers(image, alpha))
    result = image.copy()
    result[mixed] = _eight_bits(_explained(_unit_colors(image[mixed]), front, back, alpha[mixed][:, None]))
    return result


def _layers(image: Image, alpha: Alpha) -> Layers:
    """The blurs of foreground and background after the last pass, (h', w', 3) in 0..1 each."""
    better: Layers | None = None
    for longer_side, relative_radius in zip(COLOR_SIZES, COLOR_RADII, strict=True):
        size = _at_most((alpha.shape[1], alpha.shape[0]), longer_side)
        pixels = _unit_colors(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        share = _resize(alpha, size)
        before = (pixels, pixels) if better is None else (_resize(better[0], size), _resize(better[1], size))
        radius = max(1, round(max(size) * relative_radius))
        blurs = _weighted_box(before[0], share, radius), _weighted_box(before[1], 1 - share, radius)
        better = _explained(pixels, *blurs, share[..., None]), blurs[1]
    return blurs


def _explained(
    pixels: NDArray[np.float32], front: NDArray[np.float32], back: NDArray[np.float32], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The foreground (..., 3) once what a mixture of the two layers does not explain is put onto it."""
    return _unit(front + share * (pixels - share * front - (1 - share) * back))


def _eight_bits(colors: NDArray[np.float32]) -> Image:
    """Colours in 0..1 as 8 bits."""
    return np.asarray((colors * 255).round(), dtype=np.uint8)


def _weighted_box(values: NDArray[np.float32], weight: Alpha, radius: int) -> NDArray[np.float32]:
    """Mean over a window in which each pixel counts by its weight."""
    return _box(values * weight[..., None], radius) / (_box(weight, radius)[..., None] + 1e-5)
