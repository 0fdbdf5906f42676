"""From a probability to a matte: the share of foreground in each pixel, and the colour of that foreground.

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
# chosen on photos of people whose hand-made masks were reduced to a network's size and enlarged again.
EDGE_RADII = (
    1 / 54,
    1 / 108,
)  # guided filter: distance by which the edge may be wrong, in a first pass and in a second
EDGE_SMOOTHNESS = 5e-4  # epsilon of the guided filter, for colours in 0..1
EDGE_GAIN = 2.5  # how much steeper the edge gets before, between and after the passes
GUIDE_SIZE = 256  # longer side at which the filter's coefficients are computed
_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # of colour channels, in the order of cv2.split below
COLOR_RADII = (1 / 16, 1 / 80)  # foreground colours: a wide pass, then a narrow one
COLOR_SIZES = (256, 512)  # longer side at which each pass is computed


def refine_alpha(probability: Alpha, image: Image) -> Alpha:
    """Align a probability that was enlarged from the network's size with the edges of the image.

    The guided filter with the colour image as guide (He, Sun, Tang, "Guided Image Filtering", PAMI 2013, section 3.5)
    with its coefficients computed on a smaller image and enlarged (He, Sun, "Fast Guided Filter", arXiv:1505.00996).
    Different from the paper: away from the edge alpha is 0 or 1 as the probability decides, so that no haze remains.

    Args:
        probability: (h, w) float32 in 0..1.
        image: (h, w, 3) uint8 RGB.

    Returns:
        (h, w) float32 in 0..1.
    """
    size = (probability.shape[1], probability.shape[0])
    small_size = size_at_most(size, GUIDE_SIZE)
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
    # Pixels farther from the edge of the mask than the filter can see are certain.
    radius = max(1, round(max(small.shape) * EDGE_RADII[0]))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    mask = (small >= 0.5).astype(np.uint8)
    inside = cv2.erode(mask, kernel, borderType=cv2.BORDER_REPLICATE)
    near = cv2.dilate(mask, kernel, borderType=cv2.BORDER_REPLICATE)
    alpha[cv2.resize(inside, size, interpolation=cv2.INTER_NEAREST) == 1] = 1
    alpha[cv2.resize(near, size, interpolation=cv2.INTER_NEAREST) == 0] = 0
    return alpha


def size_at_most(size: tuple[int, int], longer_side: int) -> tuple[int, int]:
    """Return (width, height), scaled down with its aspect ratio if it is larger than `longer_side`."""
    scale = min(1.0, longer_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _unit_colors(image: NDArray[Any]) -> NDArray[np.float32]:
    """Convert colours of 8 bits to float32 in 0..1."""
    return np.asarray(image * np.float32(1 / 255), dtype=np.float32)


def _resize(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize values to (width, height): by area averages when shrunk, bilinear when enlarged."""
    how = cv2.INTER_AREA if size[0] < values.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, size, interpolation=how), dtype=np.float32)


def _steepen(alpha: Alpha) -> Alpha:
    """Increase the contrast around one half and clip at 0 and 1."""
    return np.asarray(np.clip((alpha - 0.5) * EDGE_GAIN + 0.5, 0, 1), dtype=np.float32)


def _box(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Return the mean over a square window of side 2 * radius + 1."""
    side = 2 * radius + 1
    return np.asarray(cv2.boxFilter(values, -1, (side, side), borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def _guided_coefficients(guide: NDArray[np.float32], target: Alpha, radius: int) -> NDArray[np.float32]:
    """Fit `target ~ slope . guide + offset` in each window and average over the windows that contain a pixel.

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
    variance[..., [0, 3, 5]] += EDGE_SMOOTHNESS  # the diagonal: rr, gg, bb
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


def foreground_colors(image: Image, alpha: Alpha) -> Image:
    """Estimate the colours of the foreground alone, so that a cut-out has no rim of its old background.

    Blur fusion, applied twice (Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021, section 2): estimate
    both layers by weighted blurs, then add the residual of the mixture to the foreground. Different from the paper: the
    blurs are computed on smaller images; pixels with alpha 0 or 1 are unchanged.

    Args:
        image: (h, w, 3) uint8 RGB, a mixture of foreground and background.
        alpha: (h, w) float32 in 0..1.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    full_size = (alpha.shape[1], alpha.shape[0])
    better: Layers | None = None
    for longer_side, relative_radius in zip(COLOR_SIZES, COLOR_RADII, strict=True):
        size = size_at_most(full_size, longer_side)
        pixels = _unit_colors(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        share = _resize(alpha, size)
        before = (pixels, pixels) if better is None else (_resize(better[0], size), _resize(better[1], size))
        radius = max(1, round(max(size) * relative_radius))
        blurs = [
            _box(layer * weight[..., None], radius) / (_box(weight, radius)[..., None] + 1e-5)
            for layer, weight in zip(before, (share, 1 - share), strict=True)
        ]
        better = _add_residual(pixels, blurs[0], blurs[1], share[..., None]), blurs[1]
    # The blurs of the last pass at full size, where the pixels are mixed.
    mixed = (alpha > 0) & (alpha < 1)
    enlarge = partial(cv2.resize, dsize=full_size, interpolation=cv2.INTER_LINEAR)
    front, back = (_unit_colors(enlarge((layer * 255).round().astype(np.uint8))[mixed]) for layer in blurs)
    result = image.copy()
    colors = _add_residual(_unit_colors(image[mixed]), front, back, alpha[mixed][:, None])
    result[mixed] = (colors * 255).round().astype(np.uint8)
    return result


def _add_residual(
    pixels: NDArray[np.float32], front: NDArray[np.float32], back: NDArray[np.float32], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the foreground (..., 3) plus the part of the pixels that a mixture of the two layers does not explain."""
    return np.asarray(np.clip(front + share * (pixels - share * front - (1 - share) * back), 0, 1), dtype=np.float32)
