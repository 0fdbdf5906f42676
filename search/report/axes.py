"""Axes of figures as plain data for `charts.js`: a range, a scale, and labelled ticks.

An axis is a dict with `title`, `low` and `high` (its ends), `log` (whether it is logarithmic) and `ticks` (values with
labels; the page leaves out those that would overlap). An axis of categories has their names in `labels`, each at its
number.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from search.report.contents import number
from search.results.importance import as_text, is_number
from search.results.record import Objective

Axis = dict[str, Any]
LOG_FACTOR = 20  # an axis is logarithmic if its ends differ by at least this factor
LABEL_CHARACTERS = 60
_TICKS = 6
_MOST_LEVELS = 8  # a number with at most this many outcomes has a tick for each
_LARGEST = 1e150  # so that ranges and their margins are finite, too
_UNITS = ((1.0, "s"), (60.0, "min"), (3600.0, "h"))


def numbers_axis(
    title: str,
    values: Sequence[float],
    *,
    is_log: bool | None = None,
    margin: float = 0.04,
    ticks_at_values: bool = False,
    is_whole: bool = False,
) -> Axis:
    """Make an axis for numbers.

    Args:
        title: Its name.
        values: Values to show; those that are not finite are ignored.
        is_log: Whether it is logarithmic; None: if all values are positive, differ enough, and most are small.
        margin: Room on each side as a share of the range.
        ticks_at_values: Whether few whole numbers, such as numbers of channels, have a tick each.
        is_whole: Whether there is nothing between whole numbers.
    """
    finite = [float(value) for value in values if abs(value) < _LARGEST]  # False for NaN
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if is_log is None:
        is_log = low > 0 and high >= LOG_FACTOR * low and float(np.median(finite)) < low + (high - low) / 3
    if low == high:
        low, high = low - (abs(low) * 0.05 or 0.5), high + (abs(high) * 0.05 or 0.5)
        is_log = False
    levels = sorted(set(finite))
    are_few = ticks_at_values and len(levels) <= _MOST_LEVELS and all(level == int(level) for level in levels)
    few = levels if are_few else None
    if is_log:
        factor = (high / low) ** margin
        ends = low / factor, high * factor
        marks = few or log_ticks(*ends)
    else:
        ends = low - margin * (high - low), high + margin * (high - low)
        marks = few or linear_ticks(*ends)
    return {
        "title": title,
        "low": significant(ends[0]),
        "high": significant(ends[1]),
        "log": is_log,
        "ticks": [[significant(mark), number(mark)] for mark in marks if not is_whole or mark == int(mark)],
    }


def results_axis(goal: Objective, values: Sequence[float]) -> Axis:
    """Make an axis for an objective without the worst hundredth of the values, which may be far away."""
    finite = np.array([value for value in values if abs(value) < _LARGEST])
    if len(finite):
        worst, best = (0.01, 1.0) if goal.sign > 0 else (0.0, 0.99)
        low, high = np.quantile(finite, worst, method="lower"), np.quantile(finite, best, method="higher")
        finite = finite[(finite >= low) & (finite <= high)]
    is_log = None if goal.is_fact else False  # a result is compared by differences
    title = f"{goal.name} ({'more' if goal.sign > 0 else 'less'} is better)"
    return numbers_axis(title, finite.tolist(), is_log=is_log, ticks_at_values=goal.is_fact)


def categories_axis(title: str, labels: Sequence[str]) -> Axis:
    """Make an axis of names at 0, 1, 2, ..."""
    shown = [short(label) for label in labels]
    ticks = [[place, label] for place, label in enumerate(shown)]
    return {"title": title, "low": -0.5, "high": len(labels) - 0.5, "log": False, "ticks": ticks, "labels": shown}


def seconds_axis(title: str, seconds: Sequence[float]) -> tuple[Axis, float]:
    """Make an axis from 0 in seconds, minutes or hours.

    Returns:
        The axis, and the seconds of its unit, by which values are divided.
    """
    longest = max(1.0, *seconds)
    unit, name = next((each for each in _UNITS[::-1] if longest >= 2 * each[0]), _UNITS[0])
    axis = numbers_axis(f"{title} ({name})", [0.0, longest / unit], is_log=False, margin=0.0)
    return {**axis, "ticks": [[mark, number(mark)] for mark in linear_ticks(0.0, longest / unit)]}, unit


def drawn_axis(
    title: str, column: Sequence[Any], *, margin: float = 0.04, has_levels: bool = False
) -> tuple[Axis, list[float | None]]:
    """Make an axis for a column of searched values, None for those that were not drawn.

    Args:
        title: Its name.
        column: The values.
        margin: Of an axis of numbers, see `numbers_axis`.
        has_levels: Whether numbers of few outcomes are at equal distances, as categories are.

    Returns:
        The axis, of numbers or of categories, and the position of each value; None where nothing was drawn.
    """
    present = [value for value in column if value is not None]
    is_numeric = all(is_number(value) and math.isfinite(value) for value in present)
    outcomes = len(set(present)) if is_numeric else 0
    if outcomes > (_MOST_LEVELS if has_levels else 1):
        axis = numbers_axis(title, present, margin=margin, ticks_at_values=True)
        return axis, [None if value is None else significant(value) for value in column]
    ordered = sorted(set(present)) if is_numeric else sorted({as_text(value) for value in present})
    names = [as_text(value) for value in ordered]
    places = {name: float(place) for place, name in enumerate(names)}
    return categories_axis(title, names), [None if value is None else places[as_text(value)] for value in column]


def positions(axis: Mapping[str, Any], values: Sequence[float | None]) -> list[float | None]:
    """Return the place of each value between the ends of an axis, 0 to 1."""
    scale = math.log10 if axis["log"] else float
    low, high = scale(axis["low"]), scale(axis["high"])
    return [None if value is None else round((scale(value) - low) / (high - low), 4) for value in values]


def linear_ticks(low: float, high: float) -> list[float]:
    """Return about six round numbers between two numbers: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [significant(step * count, 12) for count in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten between two positive numbers, with 2 and 5 times these if there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 5 else (1,)
    marks = [significant(factor * 10.0**power, 12) for power in powers for factor in factors]
    return [mark for mark in marks if low <= mark <= high]


def significant(value: float, digits: int = 5) -> float:
    """Round to significant digits, so that a page with many numbers stays small."""
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded == int(rounded) and abs(rounded) < 1e15 else rounded


def short(text: str) -> str:
    """Cut a label that is too long for a figure."""
    return text if len(text) <= LABEL_CHARACTERS else f"{text[: LABEL_CHARACTERS - 1]}…"
