"""Parallel coordinates of searched values and objectives, as plain data for `parallel.js`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from search.report.markup import number
from search.report.selection import Shown, axes_paths, lines
from search.results.importance import as_text, columns_of, is_number

_MOST_LEVELS = 24  # categories of an axis; beyond, neighbours share a place
_LABEL_CHARACTERS = 22


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: Short name.
        path: Full name.
        ticks: Place (0 bottom, 1 top) and label.
        places: Of each line; None where the value was not drawn.
        texts: What each line's value is.
    """

    title: str
    path: str
    ticks: list[tuple[float, str]]
    places: list[float | None]
    texts: list[str]


def parallel_axes(page: Shown) -> dict[str, Any]:
    """Axes, and a line per candidate that is drawn, the best last."""
    rows = lines(page.rows)[::-1]
    columns = columns_of([row.candidate.drawn for row in rows])
    paths = [path for path in axes_paths(page)[0] if path in columns]
    axes = [make_axis(page.names[path], path, columns[path]) for path in paths]
    for goal in page.goals[::-1]:
        axes.append(make_axis(goal.name, goal.name, [row.candidate.objectives[goal.name] for row in rows]))
    last = max(1, len(page.rows) - 1)
    return {
        "axes": [vars(axis) for axis in axes],
        "candidates": [row.candidate.index for row in rows],
        "scores": [round(1 - (row.rank - 1) / last, 3) for row in rows],
    }


def make_axis(title: str, path: str, column: Sequence[Any]) -> Axis:
    """An axis for a column of values: of numbers, linear or logarithmic, or of categories."""
    present = [value for value in column if value is not None]
    if all(is_number(value) and math.isfinite(value) for value in present) and len(set(present)) > 1:
        return _number_axis(title, path, column, min(present), max(present))
    return _category_axis(title, path, column)


def _number_axis(title: str, path: str, column: Sequence[Any], low: float, high: float) -> Axis:
    is_log = low > 0 and high >= 20 * low
    scale = math.log10 if is_log else float
    bottom, top = scale(low), scale(high)

    def place(value: float) -> float:
        return round((scale(value) - bottom) / (top - bottom), 4)

    levels = sorted({value for value in column if value is not None})
    marks = levels if len(levels) <= 8 else (_decades(low, high) if is_log else _steps(low, high))
    return Axis(
        title,
        path,
        [(place(value), number(value)) for value in marks],
        [None if value is None else place(value) for value in column],
        ["not drawn" if value is None else number(value) for value in column],
    )


def _category_axis(title: str, path: str, column: Sequence[Any]) -> Axis:
    texts = ["not drawn" if value is None else as_text(value) for value in column]
    levels = sorted({text for text, value in zip(texts, column, strict=True) if value is not None})
    last = max(1, len(levels) - 1)
    places = {level: round(place / last, 4) if len(levels) > 1 else 0.5 for place, level in enumerate(levels)}
    marks = levels if len(levels) <= _MOST_LEVELS else levels[:: math.ceil(len(levels) / _MOST_LEVELS)]
    return Axis(
        title,
        path,
        [(places[level], _cut(level)) for level in marks],
        [None if value is None else places[text] for text, value in zip(texts, column, strict=True)],
        texts,
    )


def _decades(low: float, high: float) -> list[float]:
    """The ends and the powers of ten between."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    gap = 0.12 * math.log10(high / low)
    inner = [10.0**power for power in range(first, last + 1)]
    near = [each for each in inner if math.log10(each / low) > gap and math.log10(high / each) > gap]
    return [low, *near, high]


def _steps(low: float, high: float) -> list[float]:
    """The ends and round numbers between."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    inner = [step * count for count in range(math.ceil(low / step), math.floor(high / step) + 1)]
    gap = 0.08 * (high - low)
    return [low, *(each for each in inner if each - low > gap and high - each > gap), high]


def _cut(text: str) -> str:
    return text if len(text) <= _LABEL_CHARACTERS else text[: _LABEL_CHARACTERS - 1] + "…"
