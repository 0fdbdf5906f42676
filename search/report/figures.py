"""Figures of a study's course and results, as plain data that `charts.js` draws as SVG.

A figure has `height` in pixels, the axes `x` and `y` (see `axes.py`), `marks` (places on x with a dotted line) and
`layers`, each with a `name` for the legend and a `color`, which is the name of a variable of the style sheet:

- `lines`: `items` of [candidate, x or None for epochs 1, 2, ..., y]; `step` is "hv" or "vh" for stairs; `size` in
  pixels of a point between gaps.
- `points`: columns `x`, `y` and `n` (candidates), and a `size` in pixels.
- `spans`: `items` of [row, begin, end, candidate]: bars along x.
- `cells`: `rows` from the bottom, a string each with a digit per cell: the number of its colour, or "-" for none.

None is a gap in a line. `legend` is False if the layers are explained elsewhere; `scale` has the meaning of each colour
of cells.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from search.report.axes import categories_axis, numbers_axis, results_axis, seconds_axis, significant
from search.report.contents import ReportData, drawn_rows, predictions_of
from search.results.beliefs import ORIGIN_WORDS
from search.results.progress import Improvement, best_so_far, hypervolumes, working_time
from search.results.record import CandidateRecord, Objective, RetrainedRecord, StudyRecord

Figure = dict[str, Any]
STEPS = 6  # colours from the lowest rung to a full training: --step-0 to --step-5
_HEIGHT = 380
_POINTS_PER_RUNG = 250  # of the promoted candidates, and of the others
_POINTS_PER_CURVE = 120
_POINTS_DOMINATED = 800
_FAILED_CURVES = 40
_MOST_WORKERS = 64
_MOST_SPANS = 4000
_MOST_PREDICTIONS = 40
_ROW_HEIGHT = 22  # pixels of a worker
# Colour of a point by the origin of its candidate; that of the line if it is unknown.
_ORIGIN_COLORS = {"": "--accent", "random": "--muted", "model": "--pending", "enqueued": "--warn"}
# Colour of a job by the status of its candidate.
_SPAN_COLORS = {"trained to its end": "--step-5", "stopped or running": "--step-2", "failed": "--bad"}


def learning_curves(data: ReportData, goal: Objective) -> Figure:
    """Return a result by epoch, with one layer for each rung that was the last to be reached."""
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
    steps = np.linspace(STEPS - 1, 0, max(2, known)).round().astype(int).tolist()
    colors = ["--pending"] * (len(groups) - known) + [f"--step-{step}" for step in steps[:known]][::-1]
    layers = [
        _curves(label, members, goal, color)
        for ((_, label), members), color in zip(sorted(groups.items()), colors, strict=True)
    ]
    failed = [each for each in study.candidates if each.status == "failed" and each.reports][:_FAILED_CURVES]
    if failed:
        layers.append(_curves("failed", failed, goal, "--bad"))
    values = [row.get(goal.name, math.nan) for candidate in drawn for row in candidate.reports]
    longest = max((candidate.epochs for candidate in drawn), default=1)
    axes = {
        "x": numbers_axis("epoch", [1, longest], is_log=False, margin=0.01, is_whole=True),
        "y": results_axis(goal, values),
    }
    return {"height": _HEIGHT, **axes, "marks": [rung for rung in rungs if rung < longest], "layers": layers}


def _curves(name: str, members: Sequence[CandidateRecord], goal: Objective, color: str) -> Figure:
    """Return a layer of the curves of several candidates, long ones thinned evenly."""
    items = []
    for candidate in members:
        rows, count = candidate.reports, len(candidate.reports)
        places = range(count)
        if count > _POINTS_PER_CURVE:
            places = np.unique(np.linspace(0, count - 1, _POINTS_PER_CURVE).round().astype(int)).tolist()
        epochs = [int(rows[place]["epoch"]) for place in places]
        is_whole = epochs == list(range(1, count + 1))
        items.append(
            [candidate.index, None if is_whole else epochs, _finite(rows[place].get(goal.name) for place in places)]
        )
    return {"kind": "lines", "name": f"{name} ({len(members):,})", "color": color, "items": items}


def predictions(data: ReportData) -> Figure | None:
    """Return the predictions of the candidates that run or may be continued, the best first; None without any."""
    found = predictions_of(data)[:_MOST_PREDICTIONS]
    if not found:
        return None
    goal = data.curve or data.goals[0]
    numbers = [candidate.index for candidate, _ in found]
    intervals = [[each.low, each.high] for _, each in found]
    so_far = [candidate.objectives.get(goal.name, math.nan) for candidate, _ in found]
    known = [place for place, value in enumerate(so_far) if math.isfinite(value)]
    best = data.rows[0].candidate.objectives[goal.name] if data.rows else math.nan
    values = [value for ends in intervals for value in ends] + so_far + [best]
    items = [
        [number, [place, place], _finite(ends)]
        for place, (number, ends) in enumerate(zip(numbers, intervals, strict=True))
    ]
    layers: list[Figure] = [{"kind": "lines", "name": "interval of 80 %", "color": "--pending", "items": items}]
    if math.isfinite(best):
        line = [None, [-0.5, len(found) - 0.5], _finite([best, best])]
        layers.insert(0, {"kind": "lines", "name": "best so far", "color": "--accent", "items": [line]})
    columns = {
        "so far": ("--muted", known, [so_far[place] for place in known]),
        "predicted": ("--pending", list(range(len(found))), [each.mean for _, each in found]),
    }
    for name, (color, places, column) in columns.items():
        layer: Figure = {"kind": "points", "name": name, "color": color, "size": 7, "x": places}
        layer |= {"y": [significant(value) for value in column], "n": [numbers[place] for place in places]}
        if places:
            layers.append(layer)
    axes = {"x": categories_axis("candidate", list(map(str, numbers))), "y": results_axis(goal, values)}
    return {"height": 300, **axes, "layers": layers}


def progress_curves(data: ReportData, goal: Objective) -> dict[str, Figure]:
    """Return the best result so far by the epochs of all candidates, and by time if that is known."""
    course = best_so_far(data.study, goal)
    if not course:
        return {}
    # The values at evenly spread epochs: a bad first result is not worth most of the axis.
    places = np.linspace(course[0].epochs, course[-1].epochs, 100)
    at_places = np.searchsorted([each.epochs for each in course[:-1]], places, side="right") - 1
    y = results_axis(goal, [course[place].value for place in at_places])
    origins = {each.index: each.origin for each in data.study.candidates}
    figures = {"progress-epochs": _stairs(course, [each.epochs for each in course], y, origins)}
    figures["progress-epochs"]["x"] = numbers_axis(
        "epochs of all candidates", [0, course[-1].epochs], is_log=False, margin=0.01
    )
    times = [each.seconds for each in course if each.seconds is not None]
    if len(times) == len(course):
        axis, unit = seconds_axis("time of the search", times)
        figures["progress-time"] = _stairs(course, [seconds / unit for seconds in times], y, origins) | {"x": axis}
    return figures


def _stairs(course: Sequence[Improvement], x: Sequence[float], y_axis: Figure, origins: Mapping[int, str]) -> Figure:
    """Return a line of stairs with a point for each improvement, in a layer for each origin of its candidate."""
    places, values = [significant(each) for each in x], [significant(each.value) for each in course]
    line: Figure = {"kind": "lines", "name": "best so far", "color": "--accent", "step": "hv"}
    layers = [line | {"items": [[None, places, values]]}]
    groups: dict[str, list[int]] = {}
    for place, each in enumerate(course[:-1]):  # the last repeats the best at the end
        groups.setdefault(origins.get(each.candidate, "") if each.candidate is not None else "", []).append(place)
    for origin, color in _ORIGIN_COLORS.items():
        members = groups.get(origin, ())
        if members:
            dots: Figure = {
                "kind": "points",
                "name": ORIGIN_WORDS.get(origin, "improvements"),
                "color": color,
                "size": 6,
            }
            dots |= {"x": [places[each] for each in members], "y": [values[each] for each in members]}
            layers.append(dots | {"n": [course[each].candidate for each in members]})
    return {"height": 300, "y": y_axis, "layers": layers, "legend": bool(groups.keys() - {""})}


def volume_curve(study: StudyRecord) -> Figure | None:
    """Return the hypervolume of the front by the epochs of all candidates; None for a single objective."""
    course = hypervolumes(study)
    if not course:
        return None
    epochs, volumes = [each for each, _ in course], [significant(volume, 4) for _, volume in course]
    line: Figure = {"kind": "lines", "name": "hypervolume", "color": "--accent", "items": [[None, epochs, volumes]]}
    axes = {
        "x": numbers_axis("epochs of all candidates", [0, epochs[-1]], is_log=False, margin=0.01, is_whole=True),
        "y": numbers_axis("hypervolume (more is better)", [0.0, max(volumes)], is_log=False),
    }
    return {"height": _HEIGHT, **axes, "layers": [line]}


def rung_strips(data: ReportData) -> Figure:
    """Return the first objective that is a result, of all candidates at each rung, in layers by their later epochs."""
    rungs, goal = data.study.rungs, data.curve or data.goals[0]
    layers = []
    kinds = {"not promoted": "--muted", "promoted": "--accent", "trained to the end": "--step-5"}
    for name, color in kinds.items():
        x, y, numbers = [], [], []
        for place, rung in enumerate(rungs):
            # At the last rung nothing is left to be promoted to.
            is_last, promoted = rung.epochs >= data.study.max_epochs, set(rung.promoted)
            kind_of = {index: "promoted" if index in promoted else "not promoted" for index in rung.values}
            chosen = [
                item for item in rung.values.items() if name == ("trained to the end" if is_last else kind_of[item[0]])
            ]
            for index, value in chosen[:: 1 + len(chosen) // _POINTS_PER_RUNG]:
                if math.isfinite(value):
                    # Multiples of the golden ratio spread the points evenly around their rung, always the same.
                    x.append(significant(place + ((index * 0.618034) % 1 * 0.6 - 0.3), 4))
                    y.append(significant(value))
                    numbers.append(index)
        if numbers or name != "trained to the end":
            layers.append({"kind": "points", "name": name, "color": color, "size": 5, "x": x, "y": y, "n": numbers})
    labels = [f"{rung.epochs} epoch" + ("s" if rung.epochs != 1 else "") for rung in rungs]
    if len({rung.bracket for rung in rungs}) > 1:
        labels = [f"bracket {rung.bracket}: {label}" for rung, label in zip(rungs, labels, strict=True)]
    values = [value for rung in rungs for value in rung.values.values()]
    return {"height": _HEIGHT, "x": categories_axis("", labels), "y": results_axis(goal, values), "layers": layers}


def pareto(data: ReportData, second: Objective) -> Figure:
    """Return two objectives of every ranked candidate, with a layer for the front of all objectives."""
    first = data.goals[0]
    groups: dict[str, list[tuple[float, float, int]]] = {
        "violates constraints": [],
        "dominated": [],
        "on the front": [],
    }
    for row in data.rows:
        values = row.candidate.objectives
        point = significant(values[second.name], 6), significant(values[first.name]), row.candidate.index
        name = "violates constraints" if row.candidate.violation else "on the front" if row.is_on_front else "dominated"
        groups[name].append(point)
    layers: list[Figure] = []
    # The line has the best first objective that is possible at each value of the second.
    front = sorted(groups["on the front"])
    if len(data.goals) == 2 and len(front) > 1:
        stairs = [None, [x for x, _, _ in front], [y for _, y, _ in front]]
        step = "hv" if second.sign < 0 else "vh"
        line: Figure = {"kind": "lines", "name": "", "color": "--accent", "step": step, "items": [stairs]}
        layers.append(line)
    colors = {"violates constraints": "--warn", "dominated": "--muted", "on the front": "--accent"}
    for name, points in groups.items():
        few = points if name == "on the front" else points[:: 1 + len(points) // _POINTS_DOMINATED]
        x, y, numbers = zip(*few, strict=True) if few else ((), (), ())
        layer = {
            "kind": "points",
            "name": f"{name} ({len(points):,})",
            "color": colors[name],
            "x": x,
            "y": y,
            "n": numbers,
        }
        if few:
            layers.append(layer | {"size": 9 if name == "on the front" else 5})
    x_axis, y_axis = (
        results_axis(goal, [row.candidate.objectives[goal.name] for row in data.rows]) for goal in (second, first)
    )
    return {"height": _HEIGHT, "x": x_axis, "y": y_axis, "layers": layers}


def timeline(study: StudyRecord) -> Figure | None:
    """Return the jobs of each worker along the time of the search, so that idle gaps show; None if they are unknown."""
    records: list[CandidateRecord | RetrainedRecord] = [*study.candidates, *study.retrained]
    spans = [(record, span) for record in records for span in record.spans]
    if not spans or not study.sessions:
        return None
    worked = working_time(study)
    workers = sorted({span.worker for _, span in spans})
    shown = workers[:_MOST_WORKERS]
    total = worked(max(end for _, end in study.sessions))
    busy = dict.fromkeys(workers, 0.0)
    for _, span in spans:
        busy[span.worker] += max(0.0, worked(span.end) - worked(span.begin))
    axis, unit = seconds_axis("time of the search", [total])
    rows = {worker: place for place, worker in enumerate(reversed(shown))}  # the first worker on top
    groups: dict[str, list[list[float]]] = {name: [] for name in (*_SPAN_COLORS, "trained again")}
    step = 1 + len(spans) // _MOST_SPANS
    for record, span in spans[::step]:
        if span.worker in rows:
            ends = [significant(worked(each) / unit) for each in (span.begin, span.end)]
            number = record.candidate if isinstance(record, RetrainedRecord) else record.index
            groups[_span_group(record)].append([rows[span.worker], *ends, number])
    colors = {**_SPAN_COLORS, "trained again": "--pending"}
    layers = [
        {"kind": "spans", "name": name, "color": colors[name], "items": items}
        for name, items in groups.items()
        if items
    ]
    labels = [f"{worker}: {busy[worker] / total:.0%}" if total else str(worker) for worker in reversed(shown)]
    starts = [significant(worked(begin) / unit) for begin, _ in study.sessions[1:]]
    figure: Figure = {"x": axis, "y": categories_axis("worker: share of the time with a job", labels)}
    height = 80 + _ROW_HEIGHT * len(shown)
    return figure | {"height": height, "marks": starts, "layers": layers, "step": step, "workers": len(workers)}


def _span_group(record: CandidateRecord | RetrainedRecord) -> str:
    if isinstance(record, RetrainedRecord):
        return "trained again"
    if record.status == "completed":
        return "trained to its end"
    return "failed" if record.status in ("failed", "out_of_memory") else "stopped or running"


def _finite(values: Iterable[float | None]) -> list[float | None]:
    """Return values as they are written; None for one that is missing or not finite."""
    return [significant(value) if value is not None and math.isfinite(value) else None for value in values]
