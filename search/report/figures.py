"""Figures as plain data for plotly.js, and for `parallel.js` the axes of parallel coordinates.

A colour is the name of a variable of the style sheet: `--accent`.
"""

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from search.report.contents import TIMES, ReportData, axes_paths, drawn_rows, number
from search.results.importance import Importance, as_text, columns_of, is_number
from search.results.leaderboard import LeaderboardRow
from search.results.record import CandidateRecord, Objective

Figure = dict[str, Any]
Point = tuple[float | None, float | None, int | None]
_STEPS = 6  # colours from the lowest rung to a full training: --step-0 to --step-5
_POINTS_PER_RUNG = 250  # of the promoted candidates, and of the others
_POINTS_DOMINATED = 800
_FAILED_CURVES = 40
_BARS = 20


def learning_curves(data: ReportData, goal: Objective) -> Figure:
    """Return a result by epoch, with one trace for each rung that was the last to be reached."""
    study = data.study
    drawn = [row.candidate for row in drawn_rows(data.rows)]
    rungs = sorted({rung.epochs for rung in study.rungs})
    groups: dict[tuple[int, str], list[CandidateRecord]] = {}  # by order and label
    for candidate in drawn[::-1]:  # the best last, on top of the others
        reached = [epochs for epochs in rungs if epochs <= candidate.epochs]
        if candidate.status in ("running", "paused"):
            group = (-1, "running or paused")
        elif candidate.status == "completed":
            group = (len(rungs) + 1, "trained to its end")
        else:
            group = (len(reached), f"stopped at rung {reached[-1]}" if reached else "stopped before a rung")
        groups.setdefault(group, []).append(candidate)
    # From faint to strong, as far apart as the number of groups permits; running candidates have their own colour.
    known = sum(order >= 0 for order, _ in groups)
    steps = np.linspace(_STEPS - 1, 0, max(2, known)).round().astype(int).tolist()
    colors = ["--pending"] * (len(groups) - known) + [f"--step-{step}" for step in steps[:known]][::-1]
    traces = [
        _curves(label, members, goal, color, 1.0)
        for ((_, label), members), color in zip(sorted(groups.items()), colors, strict=True)
    ]
    failed = [each for each in study.candidates if each.status == "failed" and each.reports][:_FAILED_CURVES]
    if failed:
        traces.append(_curves("failed", failed, goal, "--bad", 1.2))
    rung_line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    rung_line["line"] = {"color": "--line", "width": 1, "dash": "dot"}
    values = [row.get(goal.name, math.nan) for candidate in drawn for row in candidate.reports]
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": html.escape(goal.name)}, "range": _value_range(values, goal)},
        "shapes": [rung_line | {"x0": epochs, "x1": epochs} for epochs in rungs],
        "hovermode": "closest",
    }
    return {"traces": traces, "layout": layout}


def rung_strips(data: ReportData) -> Figure:
    """Return the first objective of all candidates at each rung, with a trace for the promoted ones."""
    rungs, goal = data.study.rungs, data.goals[0]
    traces = []
    for name, color, is_promoted in (("not promoted", "--muted", False), ("promoted", "--accent", True)):
        points = []
        for place, rung in enumerate(rungs):
            promoted = set(rung.promoted)
            chosen = [item for item in rung.values.items() if (item[0] in promoted) == is_promoted]
            for index, value in chosen[:: 1 + len(chosen) // _POINTS_PER_RUNG]:
                # Multiples of the golden ratio spread the points evenly around their rung, the same in each drawing.
                points.append((place + ((index * 0.618034) % 1 * 0.6 - 0.3), value, index))
        traces.append(_scatter(name, points, ": %{y:.4f}", marker={"size": 5, "color": color, "opacity": 0.75}))
    labels = [f"{rung.epochs} epoch" + ("s" if rung.epochs != 1 else "") for rung in rungs]
    if len({rung.bracket for rung in rungs}) > 1:
        labels = [f"bracket {rung.bracket}<br>{label}" for rung, label in zip(rungs, labels, strict=True)]
    values = [value for rung in rungs for value in rung.values.values()]
    layout = {
        "xaxis": {"tickvals": list(range(len(rungs))), "ticktext": labels, "zeroline": False},
        "yaxis": {"title": {"text": html.escape(goal.name)}, "range": _value_range(values, goal)},
    }
    return {"traces": traces, "layout": layout}


def pareto(data: ReportData, second: Objective) -> Figure:
    """Return two objectives of every ranked candidate, with a trace for the front of all objectives."""
    first = data.goals[0]
    points: dict[bool, list[tuple[float, float, int]]] = {True: [], False: []}  # on the front, or dominated
    for row in data.rows:
        candidate = row.candidate
        values = candidate.objectives
        points[row.is_on_front].append((values[second.name], values[first.name], candidate.index))
    few = points[False][:: 1 + len(points[False]) // _POINTS_DOMINATED]
    dominated, front = (sorted(each, key=lambda point: point[0]) for each in (few, points[True]))
    hover = "<br>%{x:,.5~g}: %{y:.4f}"
    small, large = {"color": "--muted", "size": 5, "opacity": 0.8}, {"color": "--accent", "size": 9}
    traces = [
        _scatter(f"dominated ({len(dominated)})", dominated, hover, marker=small),
        _scatter(f"on the front ({len(front)})", front, hover, marker=large),
    ]
    if len(data.goals) == 2:
        # The line has the best first objective that is possible at each value of the second.
        line = {"color": "--accent", "width": 1.5, "shape": "hv" if second.sign < 0 else "vh"}
        traces[1] |= {"mode": "lines+markers", "line": line}
    axes = {"xaxis": _objective_axis(second, data.rows), "yaxis": _objective_axis(first, data.rows)}
    return {"traces": traces, "layout": axes | {"hovermode": "closest"}}


def importance_bars(found: Sequence[Importance], names: dict[str, str]) -> Figure:
    """Return a bar per value and per pair, the most important on top."""
    bars = [each for each in found if each.share >= 0.0005][:_BARS][::-1]
    labels = [html.escape(TIMES.join(names[path] for path in each.paths)) for each in bars]
    colors = ["--muted" if not each.is_clear else "--accent" if each.is_single else "--step-2" for each in bars]
    shares = [each.share for each in bars]
    places = list(range(len(bars)))
    trace: Figure = {"type": "bar", "orientation": "h", "x": shares, "y": places, "marker": {"color": colors}}
    trace |= {"text": [f"{share:.1%}" for share in shares], "textposition": "outside", "cliponaxis": False}
    trace |= {"hoverinfo": "skip"}
    axis: Figure = {"tickformat": ".0%", "rangemode": "tozero", "title": {"text": "share of the variance of ranks"}}
    names_axis: Figure = {"tickvals": places, "ticktext": labels, "automargin": True, "showgrid": False}
    layout = {"xaxis": axis, "yaxis": names_axis, "height": 110 + 26 * len(bars), "bargap": 0.35}
    return {"traces": [trace], "layout": layout}


def _curves(name: str, members: Sequence[CandidateRecord], goal: Objective, color: str, width: float) -> Figure:
    """Return the curves of several candidates in one trace with gaps between them: one trace each is slow to draw."""
    points: list[Point] = []
    for candidate in members:
        for row in candidate.reports:
            value = row.get(goal.name, math.nan)
            points.append((row["epoch"], float(f"{value:.5g}") if math.isfinite(value) else None, candidate.index))
        points.append((None, None, None))
    mode = "lines+markers" if any(member.epochs == 1 for member in members) else "lines"
    line, marker = {"color": color, "width": width}, {"size": 3, "color": color}
    hover = "<br>epoch %{x}: %{y:.4f}"
    return _scatter(f"{name} ({len(members)})", points, hover, mode=mode, line=line, marker=marker, connectgaps=False)


def _scatter(name: str, points: Sequence[Point], hover: str, mode: str = "markers", **style: Any) -> Figure:
    """Return a trace of points (x, y, candidate)."""
    x, y, candidates = zip(*points, strict=True) if points else ((), (), ())
    trace = {"type": "scatter", "mode": mode, "name": name, "x": x, "y": y, "customdata": candidates}
    return trace | {"hovertemplate": f"candidate %{{customdata}}{hover}<extra></extra>"} | style


def _value_range(values: Sequence[float], goal: Objective) -> list[float] | None:
    """Return the range of all values but the worst hundredth, which may be far away."""
    finite = np.array([value for value in values if math.isfinite(value)])
    if len(finite) == 0:
        return None
    low, high = np.quantile(finite, (0.01, 1.0) if goal.sign > 0 else (0.0, 0.99))
    margin = 0.04 * (high - low) or 0.01
    return [float(low - margin), float(high + margin)]


def _objective_axis(goal: Objective, rows: Sequence[LeaderboardRow]) -> Figure:
    """Return an axis, logarithmic if its values differ by more than a factor of 8."""
    values = [row.candidate.objectives[goal.name] for row in rows]
    low, high = min(values), max(values)
    title = f"{goal.name}, {'more' if goal.sign > 0 else 'less'} is better"
    axis: Figure = {"title": {"text": html.escape(title)}}
    if low <= 0 or high <= 8 * low:
        return axis
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in ((1, 2, 5) if len(powers) < 5 else (1,))]
    return axis | {"type": "log", "tickvals": ticks, "ticktext": [number(tick) for tick in ticks]}


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
    if not all(is_number(value) and math.isfinite(value) for value in present) or len(set(present)) < 2:
        # Categories, at equal distances.
        texts = ["not drawn" if value is None else as_text(value) for value in column]
        names = sorted({as_text(value) for value in present})
        last = max(1, len(names) - 1)
        places = {name: round(place / last, 4) if len(names) > 1 else 0.5 for place, name in enumerate(names)}
        ticks = []
        for name in names[:: math.ceil(len(names) / _MOST_LEVELS) or 1]:
            is_short = len(name) <= _LABEL_CHARACTERS
            ticks.append((places[name], name if is_short else name[: _LABEL_CHARACTERS - 1] + "…"))
        lines = [None if value is None else places[text] for text, value in zip(texts, column, strict=True)]
        return {"title": title, "path": path, "ticks": ticks, "places": lines, "texts": texts}
    levels = sorted(set(present))
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
