"""Parallel coordinates of searched values and objectives, as plain data for `parallel.js`."""

import math
from collections.abc import Sequence
from typing import Any

from search.report.contents import ReportData, axes_paths, drawn_rows, number
from search.results.importance import as_text, columns_of, is_number

_MOST_LEVELS = 24  # labels of an axis of categories
_MOST_NUMBERS = 8  # a number with at most this many outcomes has a tick for each
_LABEL_CHARACTERS = 22


def parallel_axes(data: ReportData) -> dict[str, Any]:
    """Return the axes, and the lines of the candidates that are drawn, the best last."""
    rows = drawn_rows(data.rows)[::-1]
    columns = columns_of([row.candidate.drawn for row in rows])
    axes = [make_axis(data.names[path], path, columns[path]) for path in axes_paths(data) if path in columns]
    for goal in data.goals[::-1]:
        axes.append(make_axis(goal.name, goal.name, [row.candidate.objectives[goal.name] for row in rows]))
    last = max(1, len(data.rows) - 1)
    return {
        "axes": axes,
        "candidates": [row.candidate.index for row in rows],
        "scores": [round(1 - (row.rank - 1) / last, 3) for row in rows],
    }


def make_axis(title: str, path: str, column: Sequence[Any]) -> dict[str, Any]:
    """Make an axis for a column of values: of numbers, linear or logarithmic, or of categories.

    Returns:
        `title` (short name), `path` (full name), `ticks` (position, 0 bottom and 1 top, and label), and for each line
        `places` (position, None if the value was not drawn) and `texts` (its value).
    """
    present = [value for value in column if value is not None]
    if all(is_number(value) and math.isfinite(value) for value in present) and len(set(present)) > 1:
        return _number_axis(title, path, column)
    texts = ["not drawn" if value is None else as_text(value) for value in column]
    levels = sorted({as_text(value) for value in present})
    last = max(1, len(levels) - 1)
    places = {level: round(place / last, 4) if len(levels) > 1 else 0.5 for place, level in enumerate(levels)}
    ticks = []
    for level in levels[:: math.ceil(len(levels) / _MOST_LEVELS) or 1]:
        is_short = len(level) <= _LABEL_CHARACTERS
        ticks.append((places[level], level if is_short else level[: _LABEL_CHARACTERS - 1] + "…"))
    lines = [None if value is None else places[text] for text, value in zip(texts, column, strict=True)]
    return {"title": title, "path": path, "ticks": ticks, "places": lines, "texts": texts}


def _number_axis(title: str, path: str, column: Sequence[Any]) -> dict[str, Any]:
    levels = sorted({value for value in column if value is not None})
    low, high = levels[0], levels[-1]
    is_log = low > 0 and high >= 20 * low
    scale = math.log10 if is_log else float
    bottom, top = scale(low), scale(high)

    def place(value: float) -> float:
        return round((scale(value) - bottom) / (top - bottom), 4)

    if len(levels) <= _MOST_NUMBERS:
        marks = levels
    elif is_log:
        marks = [low, *(10.0**power for power in range(math.ceil(bottom), math.floor(top) + 1)), high]
    else:
        rough = (high - low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        marks = [low, *(step * count for count in range(math.ceil(low / step), math.floor(high / step) + 1)), high]
    if len(levels) > _MOST_NUMBERS:  # no label overlaps those of the ends
        gap = 0.12 if is_log else 0.08
        marks = [mark for mark in marks if mark in (low, high) or gap < place(mark) < 1 - gap]
    return {
        "title": title,
        "path": path,
        "ticks": [(place(value), number(value)) for value in dict.fromkeys(marks)],
        "places": [None if value is None else place(value) for value in column],
        "texts": ["not drawn" if value is None else number(value) for value in column],
    }
