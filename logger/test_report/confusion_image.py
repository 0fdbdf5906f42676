"""A confusion matrix as an image. K is the number of classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utils.drawing import Image, draw_text, text_size

INK = (30, 34, 46)
PALE_INK = (130, 136, 150)
PAPER = (255, 255, 255)
EMPTY_CELL = (238, 239, 243)
# From none to all of a class: white, through light blue, to dark blue.
RAMP = np.array([[255, 255, 255], [198, 219, 239], [107, 174, 214], [33, 113, 181], [8, 48, 107]], dtype=np.float64)
MAX_CLASSES_WITH_NUMBERS = 24
MAX_NAME = 24
MARGIN = 18
TITLE_HEIGHT = 78
LEGEND = "row: truth   column: prediction   "
LINE_GREY = 234
MIN_CELL_WITH_NAME = 14  # pixels


def draw_confusion(
    counts: NDArray[np.int64], class_names: Sequence[str], counted: str = "pixels", ignored: int | None = None
) -> Image:
    """Draw a confusion matrix: rows are the truth and sum to 100 %, columns are the prediction.

    Up to 24 classes the cells contain their numbers.

    Args:
        counts: (K, K) pixels or samples.
        class_names: K names.
        counted: "pixels" or "samples".
        ignored: A class that is ignored: it has no row, and a column only if others were taken for it.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    names = [name if len(name) <= MAX_NAME else name[: MAX_NAME - 2] + ".." for name in class_names]
    with_numbers = len(names) <= MAX_CLASSES_WITH_NUMBERS
    # With many classes the size of the image is fixed instead of the size of a cell.
    cell, scale = (86, 0.55) if with_numbers else (max(6, 1400 // len(names)), 0.4)
    rows = [index for index in range(len(names)) if index != ignored]
    columns = [index for index in range(len(names)) if index != ignored or counts[rows, index].any()]
    counts = counts[np.ix_(rows, columns)]
    grid = np.full((len(rows) * cell, len(columns) * cell, 3), LINE_GREY, dtype=np.uint8)
    # Lines between tiny cells would cover most of the image.
    gap = 1 if cell >= MIN_CELL_WITH_NAME else 0
    for row, values in enumerate(counts):
        total = int(values.sum())
        for column, count in enumerate(values.tolist()):
            top, left = row * cell, column * cell
            fraction = count / total if total else 0.0
            grid[top : top + cell - gap, left : left + cell - gap] = ramp_color(fraction) if total else EMPTY_CELL
            if not with_numbers or not total:
                continue
            ink = PAPER if fraction > 0.5 else INK
            percent = f"{fraction:.1%}" if fraction >= 0.001 else "<0.1%"
            lines = [(percent, 0.48, 0.5, ink), (compact(count), 0.76, 0.4, PALE_INK if fraction < 0.2 else ink)]
            for text, baseline, text_scale, color in lines if count else [("-", 0.55, 0.5, PALE_INK)]:
                start = left + (cell - text_size(text, text_scale)[0]) // 2
                draw_text(grid, text, (start, top + int(cell * baseline)), scale=text_scale, color=color)
    if cell >= MIN_CELL_WITH_NAME:
        grid = _add_names(grid, [names[row] for row in rows], [names[column] for column in columns], cell, scale)
    image = np.pad(grid, ((0, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=255)
    title = f"Where the {counted} of each true class went"
    legend = LEGEND + (f"share of the row, and {counted}" if with_numbers else "the darker, the more of the row")
    width = max(image.shape[1], text_size(title, 0.7)[0] + 2 * MARGIN, text_size(legend, 0.45)[0] + 2 * MARGIN)
    image = np.pad(image, ((TITLE_HEIGHT, 0), (0, width - image.shape[1]), (0, 0)), constant_values=255)
    draw_text(image, title, (MARGIN, 34), scale=0.7, color=INK)
    draw_text(image, legend, (MARGIN, 60), scale=0.45, color=PALE_INK)
    return image


def compact(count: int) -> str:
    """Return a count with three digits and a unit: `950`, `12.3k`, `4.56M`, `1.2G`."""
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}" if count / limit < 999.5 else f"{count / limit:.0f}{unit}"
    return str(count)


def ramp_color(fraction: float) -> tuple[int, int, int]:
    """Return the colour of a fraction between 0 and 1."""
    position = min(max(fraction, 0.0), 1.0) * (len(RAMP) - 1)
    low = min(int(position), len(RAMP) - 2)
    red, green, blue = RAMP[low] + (position - low) * (RAMP[low + 1] - RAMP[low])
    return round(red), round(green), round(blue)


def _add_names(grid: Image, rows: Sequence[str], columns: Sequence[str], cell: int, scale: float) -> Image:
    """Put the names of the classes to the left of the rows and, rotated, above the columns."""
    room = max(text_size(name, scale)[0] for name in (*rows, *columns)) + 16
    line = text_size("Ag", scale)[1]
    left = np.full((len(rows) * cell, room, 3), 255, dtype=np.uint8)
    above = np.full((len(columns) * cell, room, 3), 255, dtype=np.uint8)  # rotated by a quarter turn afterwards
    for index, name in enumerate(rows):
        start = room - text_size(name, scale)[0] - 8
        draw_text(left, name, (start, index * cell + (cell + line) // 2), scale=scale, color=INK)
    for index, name in enumerate(columns):
        draw_text(above, name, (8, index * cell + (cell + line) // 2), scale=scale, color=INK)
    rotated = np.rot90(above)
    corner = np.full((len(rotated), room, 3), 255, dtype=np.uint8)
    return np.vstack([np.hstack([corner, rotated]), np.hstack([left, grid])])
