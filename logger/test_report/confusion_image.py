"""A confusion matrix as an image. K is the number of classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utils.drawing import EMPTY_CELL, INK, LINE_GREY, PALE_INK, Image, add_names, ramp_color
from utils.images.lettering import draw_text, text_size

PAPER = (255, 255, 255)
MAX_CLASSES_WITH_NUMBERS = 24
MAX_NAME = 24
MARGIN = 18
TITLE_HEIGHT = 78
LEGEND = "row: truth   column: prediction   "
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
        shown_rows, shown_columns = ([names[index] for index in chosen] for chosen in (rows, columns))
        grid = add_names(grid, shown_rows, shown_columns, (cell, cell), scale)
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
