"""Tables of shares as images: the darker a cell, the larger its value."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.drawing import Image, draw_text, text_size

INK = (30, 34, 46)
PALE_INK = (130, 136, 150)
EMPTY_CELL = (238, 239, 243)
LINE_GREY = 234
# From none to all: white, through light blue, to dark blue.
RAMP = np.array([[255, 255, 255], [198, 219, 239], [107, 174, 214], [33, 113, 181], [8, 48, 107]], dtype=np.float64)
_MARK = (240, 110, 30)
_CELL = (46, 22)  # pixels: width and height
_SCALE, _MARGIN, _TITLE_HEIGHT = 0.42, 14, 34


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
