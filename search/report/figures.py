"""Figures as plain data for plotly.js. A colour is the name of a variable of the style sheet: `--accent`."""

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from search.report.markup import TIMES, number
from search.report.selection import Shown, lines
from search.results.importance import Importance
from search.results.leaderboard import LeaderboardRow
from search.results.objectives import Objective
from search.results.record import CandidateRecord, RungRecord, StudyRecord

Figure = dict[str, Any]
_STEPS = 6  # colours from the lowest rung to a full training: --step-0 to --step-5
_POINTS_PER_RUNG = 250  # of those that stayed, and of those that went on
_POINTS_DOMINATED = 800


def learning_curves(page: Shown, goal: Objective) -> Figure:
    """A result by epoch, a trace for each rung that was the last to be reached."""
    study = page.study
    failed = [each for each in study.candidates if each.status == "failed" and each.reports][:40]
    drawn = [row.candidate for row in lines(page.rows)]
    groups: dict[tuple[int, str], list[CandidateRecord]] = {}
    for candidate in drawn[::-1]:  # the best last, over the others
        groups.setdefault(_group(candidate, study), []).append(candidate)
    colors = _colors([order for order, _ in sorted(groups)])
    traces = [
        _curves(label, members, goal, color, 1.0)
        for ((_, label), members), color in zip(sorted(groups.items()), colors, strict=True)
    ]
    if failed:
        traces.append(_curves("failed", failed, goal, "--bad", 1.2))
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": html.escape(goal.name)}, "range": _value_range(drawn, goal)},
        "shapes": [_rung_line(epochs) for epochs in sorted({rung.epochs for rung in study.rungs})],
        "hovermode": "closest",
    }
    return {"traces": traces, "layout": layout}


def rung_strips(page: Shown) -> Figure:
    """The first objective of all that reached each rung, those that went on apart."""
    rungs, goal = page.study.rungs, page.goals[0]
    brackets = len({rung.bracket for rung in rungs}) > 1
    labels = [_rung_label(rung, brackets) for rung in rungs]
    traces = []
    for name, color, goes_on in (("stayed", "--muted", False), ("went on", "--accent", True)):
        points = [
            (place + _jitter(index), value, index)
            for place, rung in enumerate(rungs)
            for index, value in _points(rung, goes_on)
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [point[0] for point in points],
                "y": [point[1] for point in points],
                "customdata": [point[2] for point in points],
                "hovertemplate": "candidate %{customdata}: %{y:.4f}<extra></extra>",
                "marker": {"size": 5, "color": color, "opacity": 0.75},
            }
        )
    layout = {
        "xaxis": {"tickvals": list(range(len(rungs))), "ticktext": labels, "zeroline": False},
        "yaxis": {"title": {"text": html.escape(goal.name)}, "range": _spread_range(rungs, goal)},
    }
    return {"traces": traces, "layout": layout}


def pareto(page: Shown, second: Objective) -> Figure:
    """Two objectives of every judged candidate; the front of all objectives is marked."""
    first = page.goals[0]
    front = [row for row in page.rows if row.is_on_front]
    rest = [row for row in page.rows if not row.is_on_front]
    rest = rest[:: 1 + len(rest) // _POINTS_DOMINATED]
    traces = [
        _objective_points("dominated", rest, first, second, {"color": "--muted", "size": 5, "opacity": 0.8}),
        _objective_points("on the front", front, first, second, {"color": "--accent", "size": 9}),
    ]
    if len(page.goals) == 2:
        line = {"color": "--accent", "width": 1.5, "shape": _corner(second)}
        traces[1] |= {"mode": "lines+markers", "line": line}
    layout = {
        "xaxis": _objective_axis(second, page.rows),
        "yaxis": _objective_axis(first, page.rows),
        "hovermode": "closest",
    }
    return {"traces": traces, "layout": layout}


def importance_bars(found: Sequence[Importance], names: dict[str, str]) -> Figure:
    """A bar per value, and per pair beyond what its two explain alone; the most important on top."""
    bars = [each for each in found if each.share >= 0.0005][:20][::-1]
    labels = [html.escape(TIMES.join(names[path] for path in each.paths)) for each in bars]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [each.share for each in bars],
        "y": list(range(len(bars))),
        "text": [f"{each.share:.1%}" for each in bars],
        "textposition": "outside",
        "cliponaxis": False,
        "hoverinfo": "skip",
        "marker": {"color": [_bar_color(each) for each in bars]},
    }
    layout = {
        "xaxis": {"tickformat": ".0%", "rangemode": "tozero", "title": {"text": "share of the variance of ranks"}},
        "yaxis": {"tickvals": list(range(len(bars))), "ticktext": labels, "automargin": True, "showgrid": False},
        "height": 110 + 26 * len(bars),
        "bargap": 0.35,
    }
    return {"traces": [trace], "layout": layout}


def _bar_color(each: Importance) -> str:
    if not each.is_clear:
        return "--muted"
    return "--accent" if len(each.paths) == 1 else "--step-2"


def _group(candidate: CandidateRecord, study: StudyRecord) -> tuple[int, str]:
    """Where a curve belongs: order and label."""
    if candidate.status in ("running", "paused"):
        return -1, "running or paused"
    reached = [rung for rung in sorted({rung.epochs for rung in study.rungs}) if rung <= candidate.epochs]
    if candidate.status == "completed":
        return len({rung.epochs for rung in study.rungs}) + 1, "trained to its end"
    return len(reached), f"stopped at rung {reached[-1]}" if reached else "stopped before a rung"


def _colors(orders: Sequence[int]) -> list[str]:
    """Of groups in their order: from faint to strong, apart as far as their number lets them."""
    steps = np.linspace(_STEPS - 1, 0, max(2, sum(order >= 0 for order in orders))).round().astype(int).tolist()
    known = sum(order >= 0 for order in orders)
    strong = [f"--step-{step}" for step in steps[:known]][::-1]
    return ["--pending"] * (len(orders) - known) + strong


def _curves(name: str, members: Sequence[CandidateRecord], goal: Objective, color: str, width: float) -> Figure:
    """Curves of several candidates in one trace, parted by gaps: a trace each would be slow to draw."""
    epochs: list[float | None] = []
    values: list[float | None] = []
    indices: list[int | None] = []
    for candidate in members:
        for row in candidate.reports:
            epochs.append(row["epoch"])
            values.append(_rounded(row.get(goal.name, math.nan)))
            indices.append(candidate.index)
        for column in (epochs, values, indices):
            column.append(None)
    return {
        "type": "scatter",
        "mode": "lines+markers" if any(member.epochs == 1 for member in members) else "lines",
        "name": f"{name} ({len(members)})",
        "x": epochs,
        "y": values,
        "customdata": indices,
        "hovertemplate": "candidate %{customdata}<br>epoch %{x}: %{y:.4f}<extra></extra>",
        "line": {"color": color, "width": width},
        "marker": {"size": 3, "color": color},
        "connectgaps": False,
    }


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _value_range(candidates: Sequence[CandidateRecord], goal: Objective) -> list[float] | None:
    values = [row.get(goal.name, math.nan) for candidate in candidates for row in candidate.reports]
    return _range(values, goal)


def _spread_range(rungs: Sequence[RungRecord], goal: Objective) -> list[float] | None:
    return _range([value for rung in rungs for value in rung.values.values()], goal)


def _range(values: Sequence[float], goal: Objective) -> list[float] | None:
    """All values but the worst hundredth, which may be far off."""
    finite = np.array([value for value in values if math.isfinite(value)])
    if len(finite) == 0:
        return None
    low, high = np.quantile(finite, (0.01, 1.0) if goal.sign > 0 else (0.0, 0.99))
    margin = 0.04 * (high - low) or 0.01
    return [float(low - margin), float(high + margin)]


def _rung_line(epochs: int) -> Figure:
    line = {"color": "--line", "width": 1, "dash": "dot"}
    return {
        "type": "line",
        "x0": epochs,
        "x1": epochs,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": line,
    }


def _rung_label(rung: RungRecord, brackets: bool) -> str:
    label = f"{rung.epochs} epoch" + ("s" if rung.epochs != 1 else "")
    return f"bracket {rung.bracket}<br>{label}" if brackets else label


def _points(rung: RungRecord, goes_on: bool) -> list[tuple[int, float]]:
    promoted = set(rung.promoted)
    points = [(index, value) for index, value in rung.values.items() if (index in promoted) == goes_on]
    return points[:: 1 + len(points) // _POINTS_PER_RUNG]


def _jitter(index: int) -> float:
    """Where a point stands beside its rung: spread evenly, and the same in each drawing (golden ratio's multiples)."""
    return (index * 0.618034) % 1 * 0.6 - 0.3


def _objective_points(
    name: str, rows: Sequence[LeaderboardRow], first: Objective, second: Objective, marker: Figure
) -> Figure:
    ordered = sorted(rows, key=lambda row: row.candidate.objectives[second.name])
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{name} ({len(ordered)})",
        "x": [row.candidate.objectives[second.name] for row in ordered],
        "y": [row.candidate.objectives[first.name] for row in ordered],
        "customdata": [row.candidate.index for row in ordered],
        "hovertemplate": "candidate %{customdata}<br>%{x:,.5~g}: %{y:.4f}<extra></extra>",
        "marker": marker,
    }


def _corner(second: Objective) -> str:
    """How the front goes from point to point, left to right: as good as can be had for so much of the second."""
    return "hv" if second.sign < 0 else "vh"


def _objective_axis(goal: Objective, rows: Sequence[LeaderboardRow]) -> Figure:
    values = [row.candidate.objectives[goal.name] for row in rows]
    low, high = min(values), max(values)
    title = f"{goal.name}, {'more' if goal.sign > 0 else 'less'} is better"
    axis: Figure = {"title": {"text": html.escape(title)}}
    if low <= 0 or high <= 8 * low:
        return axis
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in ((1, 2, 5) if len(powers) < 5 else (1,))]
    return axis | {"type": "log", "tickvals": ticks, "ticktext": [number(tick) for tick in ticks]}
