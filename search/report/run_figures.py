"""Figures of compared runs, as plain data for `charts.js` (see `figures.py`): a colour for each group of runs."""

import math
from collections.abc import Sequence
from typing import Any

from search.comparison.groups import FACT_COLUMNS, RunGroup, class_columns, differing_values
from search.report.axes import categories_axis, drawn_axis, numbers_axis, results_axis, seconds_axis, significant
from search.report.figures import Figure
from search.results.importance import as_text, is_number, short_names
from search.results.record import Objective

COLORS = 8  # --series-0 to --series-7
MOST_PLOTS = 12
MOST_CLASSES = 40
FACT_TITLES = {
    "labelled_megapixels": "labelled megapixels",
    "params": "parameters",
    "flops": "FLOPs of a sample",
    "seconds": "training time",
    "epochs": "epochs",
}
_POINTS_PER_CURVE = 200
_HEIGHT = 340
_ROW_HEIGHT = 24  # pixels of a class


def color_of(place: int) -> str:
    """Return the colour of a group by its number, a variable of the style sheet."""
    return f"--series-{place % COLORS}"


def curve_figures(groups: Sequence[RunGroup], metric: Objective) -> dict[str, Figure]:
    """Return the learning curves of the metric on validation data, and of the training loss, with a layer per group."""
    on_validation = f"val_{metric.name.partition('_')[2]}"
    goals = [Objective(on_validation, metric.sign), Objective("loss", -1)]
    found = {}
    for place, goal in enumerate(goals):
        layers = [layer for number, group in enumerate(groups) for layer in _curves_of(group, number, goal)]
        values = [y for layer in layers for _, _, ys in layer["items"] for y in ys if y is not None]
        if not values:
            continue
        longest = max(row["epoch"] for group in groups for run in group.runs for row in run.reports if "epoch" in row)
        found[f"curves{place}"] = {
            "height": _HEIGHT,
            "x": numbers_axis("epoch", [1, longest], is_log=False, margin=0.01, is_whole=True),
            "y": results_axis(goal, values),
            "layers": layers,
        }
    return found


def _curves_of(group: RunGroup, number: int, goal: Objective) -> list[Figure]:
    items: list[Any] = []
    for place, run in enumerate(group.runs):
        rows = [row for row in run.reports if "epoch" in row and goal.name in row]
        step = max(1, math.ceil(len(rows) / _POINTS_PER_CURVE))
        rows = rows[:-1:step] + rows[-1:] if step > 1 else rows
        if rows:
            items.append([place, [int(row["epoch"]) for row in rows], _rounded([row[goal.name] for row in rows])])
    names = [f"{group.name}, seed {run.seed}" for run in group.runs]
    layer = {"kind": "lines", "name": group.name, "color": color_of(number), "names": names, "items": items}
    return [layer] if items else []


def class_figure(groups: Sequence[RunGroup], prefix: str) -> Figure | None:
    """Return the result of each class with a layer per group, those of the largest differences if there are many.

    Args:
        groups: The groups.
        prefix: `test_` or `val_`.
    """
    columns = class_columns(groups, prefix)
    means = [{name: group.spread(name).mean for name, _ in columns} for group in groups]

    def spread_of(name: str) -> float:
        known = [each[name] for each in means if math.isfinite(each[name])]
        return max(known) - min(known) if known else 0.0

    if len(columns) > MOST_CLASSES:
        chosen = {name for name, _ in sorted(columns, key=lambda each: -spread_of(each[0]))[:MOST_CLASSES]}
        columns = [each for each in columns if each[0] in chosen]
    if not columns:
        return None
    columns = columns[::-1]  # the first class on top
    layers: list[Figure] = []
    for number, group in enumerate(groups):
        known = [place for place, (name, _) in enumerate(columns) if math.isfinite(means[number][name])]
        if not known:
            continue
        shift = 0.0 if len(groups) < 2 else 0.25 - 0.5 * number / (len(groups) - 1)  # so that equal ones are seen
        layer = _points(group.name, number, _rounded([means[number][columns[place][0]] for place in known]), known)
        layers.append(layer | {"y": [place + round(shift, 3) for place in known]})
    values = [value for layer in layers for value in layer["x"]]
    kind = columns[0][0].removeprefix(prefix).partition("_")[0]
    title = f"{'IoU' if kind == 'iou' else 'F1'} of each class, {'test' if prefix == 'test_' else 'validation'} data"
    return {
        "height": 90 + _ROW_HEIGHT * len(columns),
        "x": numbers_axis(title, values, is_log=False),
        "y": categories_axis("", [label for _, label in columns]),
        "layers": layers,
    }


def column_figures(groups: Sequence[RunGroup], metric: Objective) -> dict[str, Figure]:
    """Return the metric against each column that differs: facts first, then values of the configs.

    A group is a point at its means, with the interval of the metric's mean over its seeds.
    """
    columns: list[tuple[str, list[Any]]] = [
        (FACT_TITLES[name], [group.fact(name) for group in groups]) for name in FACT_COLUMNS
    ]
    differences = differing_values([group.config for group in groups])
    names = short_names([path for path, _ in differences])
    columns += [(names[path], values) for path, values in differences]
    has_result = [bool(group.spread(metric.name).values) for group in groups]
    figures: dict[str, Figure] = {}
    drawn = []
    for title, values in columns:
        known = [place for place, value in enumerate(values) if value is not None and has_result[place]]
        texts = [as_text(values[place]) for place in known]
        # Two columns of the same values, such as the rates of an optimizer and its schedule, are one plot.
        if len(set(texts)) > 1 and (known, texts) not in drawn and len(figures) < MOST_PLOTS:
            drawn.append((known, texts))
            figures[f"column{len(figures)}"] = _column_figure(
                title, [values[place] for place in known], [(place, groups[place]) for place in known], metric
            )
    return figures


def _column_figure(
    title: str, values: Sequence[Any], groups: Sequence[tuple[int, RunGroup]], metric: Objective
) -> Figure:
    """Return a plot of some groups, each with its number, at the values of a column."""
    if title == FACT_TITLES["seconds"]:
        axis, unit = seconds_axis(title, [1.05 * value for value in values])
        places: list[float | None] = [significant(value / unit) for value in values]
    elif all(map(is_number, values)):
        axis, places = numbers_axis(title, values, ticks_at_values=True, margin=0.08), list(values)
    else:
        axis, places = drawn_axis(title, values)
    layers: list[Figure] = []
    ends: list[float] = []
    for (number, group), x in zip(groups, places, strict=True):
        spread = group.spread(metric.name)
        interval = spread.interval()
        items = [[0, [x, x], _rounded(interval)]] if interval is not None else []
        layer: Figure = {"kind": "lines", "name": group.name, "color": color_of(number), "names": [group.name]}
        layers.append(layer | {"size": 9, "items": [*items, [0, [x], _rounded([spread.mean])]]})
        ends += [spread.mean, *(interval or ())]
    return {"height": 300, "x": axis, "y": results_axis(metric, ends), "layers": layers}


def _points(name: str, number: int, x: Sequence[float | None], places: Sequence[int]) -> Figure:
    layer: Figure = {"kind": "points", "name": name, "color": color_of(number), "size": 9, "names": [name]}
    return layer | {"x": list(x), "n": [0] * len(places)}


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [significant(value) if math.isfinite(value) else None for value in values]
