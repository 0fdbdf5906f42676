"""Label maps as images: colours for classes, overlays, rows of captioned images; tables of shares.

Images are (h, w, 3) uint8 RGB; masks are (h, w) integers. `K` is the number of classes.
"""

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.images.lettering import draw_text, text_size

Image = NDArray[np.uint8]

# Mean and deviation of ImageNet's images in 0..1, RGB, as every pretrained backbone of torchvision expects them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IGNORED_COLOR = (224, 224, 224)
BACKGROUND_COLOR = (24, 24, 32)  # class 0 in coloured masks
FIRST_COLORS = (  # chosen by eye; the others are computed
    (0, 200, 140),
    (255, 120, 40),
    (70, 130, 255),
    (240, 50, 110),
    (250, 210, 50),
    (160, 90, 230),
    (90, 220, 240),
    (150, 200, 60),
    (200, 140, 110),
)
MAX_CAPTION = 60
# Of tables.
INK = (30, 34, 46)
PALE_INK = (130, 136, 150)
EMPTY_CELL = (238, 239, 243)
LINE_GREY = 234
# From none to all: white, through light blue, to dark blue.
RAMP = np.array([[255, 255, 255], [198, 219, 239], [107, 174, 214], [33, 113, 181], [8, 48, 107]], dtype=np.float64)
_LARGEST_BYTE = 255
_MARK = (240, 110, 30)
_CELL = (46, 22)  # pixels: width and height
_SCALE, _MARGIN, _TITLE_HEIGHT = 0.42, 14, 34


def class_colors(num_classes: int) -> Image:
    """Return a colour for each class: class 0 dark, the others bright and far apart; class i has one colour for any K.

    Returns:
        (K, 3) uint8 RGB.
    """
    palette = _palette(max(32, 1 << max(0, num_classes - 1).bit_length()))
    return np.array(palette[:num_classes], dtype=np.uint8).reshape(-1, 3)


@lru_cache(maxsize=8)
def _palette(length: int) -> tuple[tuple[int, ...], ...]:
    """Return the first `length` colours; each computed one is the farthest in CIE Lab from all before it."""
    levels = np.linspace(0, 255, 12).astype(np.uint8)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    candidates = candidates[candidates.max(axis=1) > 110]
    colors: list[tuple[int, ...]] = [BACKGROUND_COLOR, *FIRST_COLORS]
    taken = np.array([*colors, (0, 0, 0), (255, 255, 255), IGNORED_COLOR], np.uint8)
    in_lab = cv2.cvtColor(np.vstack([taken, candidates])[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    positions = in_lab[len(taken) :]
    distance = np.full(len(candidates), np.inf, dtype=np.float32)
    for position in in_lab[: len(taken)]:
        distance = np.minimum(distance, np.linalg.norm(positions - position, axis=1))
    while len(colors) < length:
        farthest = int(distance.argmax())
        colors.append(tuple(int(value) for value in candidates[farthest]))
        distance = np.minimum(distance, np.linalg.norm(positions - positions[farthest], axis=1))
    return tuple(colors)


def colorize(mask: NDArray[Any], colors: Image, ignore_index: int | None = None) -> Image:
    """Draw a mask in the colours of its classes.

    Args:
        mask: (h, w) integer labels; ignored labels and those outside 0..K-1 are light grey.
        colors: (K, 3) uint8 RGB, of `class_colors`.
        ignore_index: Label that is not evaluated.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    labels = counted_labels(mask, len(colors), ignore_index)
    if labels.dtype != np.uint8:
        colors_and_ignored = np.vstack([colors, np.array([IGNORED_COLOR], dtype=np.uint8)])
        return np.asarray(colors_and_ignored[labels])
    table = np.full((256, 1, 3), IGNORED_COLOR, dtype=np.uint8)
    table[: len(colors), 0] = colors
    return np.asarray(cv2.applyColorMap(labels, table), dtype=np.uint8)  # 15 times as fast as an index of numpy


def overlay(
    image: Image, mask: NDArray[Any], colors: Image, alpha: float = 0.5, ignore_index: int | None = None
) -> Image:
    """Draw a mask over its image; ignored pixels show the image alone.

    Args:
        image: (h, w, 3) uint8 RGB.
        mask: (h, w) integer labels.
        colors: (K, 3) uint8 RGB, of `class_colors`.
        alpha: Share of the class's colour, 0..1.
        ignore_index: Label that is not evaluated.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    labels = counted_labels(mask, len(colors), ignore_index)
    mixed = cv2.addWeighted(image, 1 - alpha, colorize(labels, colors), alpha, 0)
    is_drawn = (labels < len(colors)).view(np.uint8)
    return np.asarray(cv2.copyTo(mixed, is_drawn, image.copy()), dtype=np.uint8)


def counted_labels(mask: NDArray[Any], num_classes: int, ignore_index: int | None) -> NDArray[Any]:
    """Return a mask (h, w) with K in the place of every label that is not evaluated; uint8 if K is at most 255."""
    if mask.dtype == np.uint8 and num_classes <= _LARGEST_BYTE:
        table = np.full(_LARGEST_BYTE + 1, num_classes, dtype=np.uint8)
        table[:num_classes] = np.arange(num_classes)
        if ignore_index is not None and 0 <= ignore_index <= _LARGEST_BYTE:
            table[ignore_index] = num_classes
        return look_up(mask, table)
    labels = np.where(valid_pixels(mask, num_classes, ignore_index), mask, np.int32(num_classes))
    return labels.astype(np.uint8) if num_classes <= _LARGEST_BYTE else labels


def look_up(mask: NDArray[np.uint8], table: NDArray[Any]) -> NDArray[Any]:
    """Return the entry of a table (256,) for each label of a mask (h, w) uint8."""
    return np.asarray(cv2.LUT(np.ascontiguousarray(mask), table))  # 20 times as fast as an index of numpy


def valid_pixels(mask: NDArray[Any], num_classes: int, ignore_index: int | None) -> NDArray[np.bool_]:
    """Return (h, w) True for the labels that are evaluated."""
    valid: NDArray[np.bool_] = (mask >= 0) & (mask < num_classes)
    return valid if ignore_index is None else valid & (mask != ignore_index)


def to_displayable(values: NDArray[np.floating[Any]]) -> Image:
    """Convert an input of a network to an image for display, without knowing how it was normalised.

    Values within 0..1 are shown unchanged. Values within the range of ImageNet's normalisation (its averages over the
    channels if they are not three) are converted back. All others are stretched from their minimum to their maximum.

    Args:
        values: (C, H, W) float; of one or two channels the first is shown as grey, of more the first three as colours.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    channels = np.asarray(values, dtype=np.float32)
    mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    if len(channels) != 3:
        channels = channels[:3] if len(channels) > 3 else channels[:1].repeat(3, axis=0)
        mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    low, high = float(channels.min()), float(channels.max())
    restored = channels * std + mean
    if low >= -1e-3 and high <= 1 + 1e-3:
        shown = channels
    elif restored.min() >= -0.05 and restored.max() <= 1.05:
        shown = restored
    else:
        shown = (channels - low) / max(high - low, 1e-12)
    pixels = np.nan_to_num(shown.transpose(1, 2, 0) * 255).round().clip(0, 255)
    return np.ascontiguousarray(pixels.astype(np.uint8))


def resize_to(image: Image, size: tuple[int, int], nearest: bool = False) -> Image:
    """Resize an image to (height, width); `nearest` for drawn labels, whose colours must not mix."""
    if image.shape[:2] == tuple(size):
        return image
    smooth = cv2.INTER_AREA if size[0] * size[1] < image.shape[0] * image.shape[1] else cv2.INTER_LINEAR
    resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST if nearest else smooth)
    return resized.astype(np.uint8, copy=False)


def panel(images: Sequence[Image], captions: Sequence[str], height: int = 240) -> Image:
    """Draw images side by side at one height, each with a caption above.

    Args:
        images: (h, w, 3) uint8 RGB each, of any sizes.
        captions: One for each image; the middle of a long one is left out.
        height: Height of the images in pixels, without the captions.

    Returns:
        (height + strip, w, 3) uint8 RGB on a dark background.
    """
    scale = max(0.4, height / 560)
    strip = int(26 * scale / 0.4 * 0.75) + 4
    cells = []
    for image, caption in zip(images, captions, strict=True):
        width = max(1, round(image.shape[1] * height / image.shape[0]))
        drawn = resize_to(image, (height, width), nearest=height > image.shape[0])
        text = caption if len(caption) <= MAX_CAPTION else f"{caption[: MAX_CAPTION // 2]}...{caption[-25:]}"
        cell = np.full((strip + height, max(width, text_size(text, scale)[0] + 8), 3), 18, dtype=np.uint8)
        cell[strip:, :width] = drawn
        draw_text(cell, text, (4, int(strip * 0.68)), scale=scale)
        cells.append(cell)
    gap = np.full((strip + height, 4, 3), 18, dtype=np.uint8)
    return np.hstack([part for cell in cells for part in (cell, gap)][:-1])


def ramp_color(fraction: float) -> tuple[int, int, int]:
    """Return the colour of a fraction between 0 and 1."""
    position = min(max(fraction, 0.0), 1.0) * (len(RAMP) - 1)
    low = min(int(position), len(RAMP) - 2)
    red, green, blue = RAMP[low] + (position - low) * (RAMP[low + 1] - RAMP[low])
    return round(red), round(green), round(blue)


def draw_heat_map(
    shares: NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    *,
    marked: Collection[tuple[int, int]] = (),
    lines_after: Collection[int] = (),
) -> Image:
    """Draw a table of shares, with the numbers of those that are at least a hundredth.

    Args:
        shares: (R, C) from 0 to 1; NaN for cells that cannot have a value.
        rows: R names.
        columns: C names.
        title: Above the table.
        marked: (row, column) of the cells to be framed.
        lines_after: Rows after which a line divides the table.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    width, height = _CELL
    grid = np.full((len(rows) * height, len(columns) * width, 3), LINE_GREY, dtype=np.uint8)
    for (row, column), share in np.ndenumerate(shares):
        top, left = row * height, column * width
        is_possible = bool(np.isfinite(share))
        cell = grid[top : top + height - 1, left : left + width - 1]
        cell[:] = ramp_color(float(share)) if is_possible else EMPTY_CELL
        if (row, column) in marked:
            cell[:2], cell[-2:], cell[:, :2], cell[:, -2:] = (_MARK,) * 4
        if is_possible and share >= 0.01:
            text = f"{share:.2f}".removeprefix("0")
            start = left + (width - text_size(text, _SCALE)[0]) // 2
            draw_text(grid, text, (start, top + 15), scale=_SCALE, color=(255,) * 3 if share > 0.55 else INK)
    for row in lines_after:
        grid[(row + 1) * height - 1] = PALE_INK
    grid = add_names(grid, rows, columns, _CELL, _SCALE)
    image = np.pad(grid, ((0, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), constant_values=255)
    missing = max(0, text_size(title, 0.55)[0] + 2 * _MARGIN - image.shape[1])
    image = np.pad(image, ((_TITLE_HEIGHT, 0), (0, missing), (0, 0)), constant_values=255)
    draw_text(image, title, (_MARGIN, 24), scale=0.55, color=INK)
    return image


def add_names(grid: Image, rows: Sequence[str], columns: Sequence[str], cell: tuple[int, int], scale: float) -> Image:
    """Put names to the left of the rows of a table and, rotated, above its columns.

    Args:
        grid: (R * height, C * width, 3) uint8 RGB.
        rows: R names.
        columns: C names.
        cell: Width and height of a cell in pixels.
        scale: Of the letters.
    """
    width, height = cell
    line = text_size("Ag", scale)[1]
    beside, over = (max(text_size(name, scale)[0] for name in names) + 16 for names in (rows, columns))
    left = np.full((len(rows) * height, beside, 3), 255, dtype=np.uint8)
    above = np.full((len(columns) * width, over, 3), 255, dtype=np.uint8)  # rotated by a quarter turn afterwards
    for index, name in enumerate(rows):
        start = beside - text_size(name, scale)[0] - 8
        draw_text(left, name, (start, index * height + (height + line) // 2), scale=scale, color=INK)
    for index, name in enumerate(columns):
        draw_text(above, name, (8, index * width + (width + line) // 2), scale=scale, color=INK)
    corner = np.full((over, beside, 3), 255, dtype=np.uint8)
    return np.vstack([np.hstack([corner, np.rot90(above)]), np.hstack([left, grid])])
