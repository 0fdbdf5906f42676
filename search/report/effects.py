"""Figures of the effect of searched values on the first objective: slices, a contour, parallel coordinates."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.report.axes import Axis, drawn_axis, positions, results_axis, significant
from search.report.contents import ReportData, axes_paths, drawn_rows, number
from search.report.figures import STEPS, Figure
from search.results.importance import columns_of
from search.results.leaderboard import LeaderboardRow

_GRID = 24  # cells of a contour along a number
_MOST_CATEGORIES = 30  # of a contour
_REACH = 0.07  # standard deviation of the weights of a contour, as a share of an axis
_MOST_DOTS = 400  # candidates on a contour


def slices(data: ReportData) -> dict[str, Figure]:
    """Return for each searched value the first objective by it, of the candidates that the other figures show, too."""
    goal = data.goals[0]
    rows = drawn_rows(data.rows)[::-1]
    columns = columns_of([row.candidate.drawn for row in rows])
    values = [row.candidate.objectives[goal.name] for row in rows]
    y_axis = results_axis(goal, values)
    is_full = [row.candidate.status == "completed" for row in rows]
    figures: dict[str, Figure] = {}
    for path in axes_paths(data):
        if path not in columns or len({str(value) for value in columns[path]} - {"None"}) < 2:
            continue  # it is the same everywhere
        axis, places = drawn_axis(data.names[path], columns[path], has_levels=True)
        layers = []
        for name, color, wanted in (("stopped early", "--muted", False), ("trained to its end", "--accent", True)):
            chosen = [place for place, at in enumerate(places) if at is not None and is_full[place] == wanted]
            layer: Figure = {"kind": "points", "name": name, "color": color, "size": 5}
            layer["x"] = [_spread(axis, places[place], rows[place]) for place in chosen]
            layer["y"] = [significant(values[place], 4) for place in chosen]
            layers.append(layer | {"n": [rows[place].candidate.index for place in chosen]})
        layers = [layer for layer in layers if layer["n"]]
        figures[f"slice{len(figures)}"] = {"height": 250, "x": axis, "y": y_axis, "layers": layers, "legend": False}
    return figures


def _spread(axis: Axis, place: float | None, row: LeaderboardRow) -> float | None:
    """Return a place, a little beside its category so that points do not hide each other."""
    if place is None or "labels" not in axis:
        return place
    return significant(place + (row.candidate.index * 0.618034) % 1 * 0.5 - 0.25, 4)


def contour(data: ReportData) -> Figure | None:
    """Return the first objective over the two most important values, as bands of colour; None if there are not two.

    A cell without candidates around it is empty: nothing is extrapolated.
    """
    paths = [each.paths[0] for each in data.importances if each.is_single][:2]
    if len(paths) < 2:
        return None
    goal = data.goals[0]
    columns = columns_of([row.candidate.drawn for row in data.rows])
    both = [place for place in range(len(data.rows)) if all(columns[path][place] is not None for path in paths)]
    rows = [data.rows[place] for place in both]
    axes, places = zip(
        *(drawn_axis(data.names[path], [columns[path][place] for place in both], has_levels=True) for path in paths),
        strict=True,
    )
    if len(rows) < 2 or any(len(axis.get("labels", ())) > _MOST_CATEGORIES for axis in axes):
        return None
    means = _smoothed(axes, places, [row.candidate.objectives[goal.name] for row in rows])
    edges = np.quantile(means[np.isfinite(means)], np.linspace(0, 1, STEPS + 1))
    codes = np.searchsorted(edges[1:-1], means, side="right")
    codes = codes if goal.sign > 0 else STEPS - 1 - codes  # the strongest colour is the best
    cells = ["".join(str(code) for code in row) for row in np.where(np.isfinite(means), codes, -1)]
    dots: Figure = {"kind": "points", "name": "candidates", "color": "--text", "size": 3}
    shown = range(0, len(rows), 1 + len(rows) // _MOST_DOTS)
    for key, axis, column in zip("xy", axes, places, strict=True):
        dots[key] = [_spread(axis, column[place], rows[place]) for place in shown]
    dots["n"] = [rows[place].candidate.index for place in shown]
    ranges = [f"{number(significant(low, 3))} to {number(significant(high, 3))}" for low, high in pairwise(edges)]
    return {
        "height": 420,
        "x": axes[0],
        "y": axes[1],
        "layers": [{"kind": "cells", "name": "", "rows": [row.replace("-1", "-") for row in cells]}, dots],
        "scale": ranges if goal.sign > 0 else ranges[::-1],
    }


def _smoothed(
    axes: Sequence[Axis], places: Sequence[Sequence[float | None]], values: Sequence[float]
) -> NDArray[np.float64]:
    """Return the mean of the candidates around each cell of two axes, (cells of y, cells of x) float, NaN if empty.

    The weights are Gaussian (Nadaraya, 1964, "On estimating regression"): by distance along a number, and 0 for
    another category.
    """
    along_x, along_y = (_weights(axis, column) for axis, column in zip(axes, places, strict=True))
    limits = np.quantile(values, (0.01, 0.99))  # one that diverged must not be all of a mean
    total = along_y @ along_x.T
    sums = (along_y * np.clip(values, *limits)) @ along_x.T
    # At least the weight that a candidate has at two standard deviations, so that each has a cell.
    means: NDArray[np.float64] = np.where(total >= math.exp(-2), sums / np.maximum(total, 1e-12), np.nan)
    return means


def _weights(axis: Axis, places: Sequence[float | None]) -> NDArray[np.float64]:
    """Return the weight of each candidate in each cell along an axis, (cells, candidates) float."""
    if "labels" in axis:
        cells = np.arange(len(axis["labels"]))
        return np.array(cells[:, None] == np.array(places)[None], dtype=np.float64)
    centres = (np.arange(_GRID) + 0.5) / _GRID
    distances = centres[:, None] - np.array(positions(axis, places), dtype=float)[None]
    weights: NDArray[np.float64] = np.exp(-0.5 * (distances / _REACH) ** 2)
    return weights


def parallel_axes(data: ReportData) -> dict[str, Any]:
    """Return the axes of parallel coordinates, and the lines of the candidates that are drawn, the best last.

    Returns:
        `axes`, each with `title`, `path`, `ticks` (place, 0 bottom and 1 top, and label) and for each line `places`
        (None: not drawn), and its value in `values` or the number of its name in `labels`; `candidates`, and `scores`
        (1 the best).
    """
    rows = drawn_rows(data.rows)[::-1]
    columns = columns_of([row.candidate.drawn for row in rows])
    shown = {path: columns[path] for path in axes_paths(data) if path in columns}
    titles = {path: data.names[path] for path in shown}
    for goal in data.goals[::-1]:
        shown[f" {goal.name}"] = [row.candidate.objectives[goal.name] for row in rows]  # no path has a space
        titles[f" {goal.name}"] = goal.name
    last = max(1, len(data.rows) - 1)
    return {
        "axes": [parallel_axis(titles[path], path.strip(), column) for path, column in shown.items()],
        "candidates": [row.candidate.index for row in rows],
        "scores": [round(1 - (row.rank - 1) / last, 3) for row in rows],
    }


def parallel_axis(title: str, path: str, column: Sequence[Any]) -> dict[str, Any]:
    """Return one axis of parallel coordinates; see `parallel_axes`."""
    axis, places = drawn_axis(title, column, margin=0.0)
    ticks = [(at, label) for value, label in axis["ticks"] for at in positions(axis, [value])]
    found = {"title": title, "path": path, "ticks": ticks, "places": positions(axis, places)}
    if "labels" in axis:
        return found | {"labels": axis["labels"], "values": [None if at is None else int(at) for at in places]}
    return found | {"values": places}
