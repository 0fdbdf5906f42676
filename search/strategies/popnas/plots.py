"""The plots of a progressive search, as data for the report (see `search.report.sections`).

Results by generation, predictions against results, the front of each generation, and the use of operations.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from search.results.record import CandidateRecord, Objective
from search.strategies.popnas.estimates import FullResults
from search.strategies.popnas.generation import ChosenCell, Generation
from search.strategies.popnas.predicted import Predictions
from utils.architecture.cells.cell import Cell
from utils.errors import ConfigError

Plot = dict[str, Any]
Records = Mapping[int, CandidateRecord]
_MOST_LINES = 8  # as many as there are colours
_GOLDEN = 0.618034  # its multiples spread points evenly, always the same


def results_of(record: CandidateRecord) -> dict[str, float]:
    """Return the objectives and facts of a candidate by name, those that are finite."""
    found = {**record.facts, **record.objectives}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def results_plots(generations: Sequence[Generation], records: Records, goals: Sequence[Objective]) -> list[Plot]:
    """Return a plot for each objective: all trained cells by generation, their mean and the best."""
    plots = []
    labels = [each.name for each in generations]
    for goal in goals:
        points: list[tuple[float, float, int]] = []
        means, bests = [], []
        for place, each in enumerate(generations):
            found = [(number, results_of(records[number]).get(goal.name)) for number in each.numbers]
            known = [(number, value) for number, value in found if value is not None]
            for order, (number, value) in enumerate(known):
                spread = 0.0 if len(known) == 1 else (order * _GOLDEN) % 1 * 0.5 - 0.25
                points.append((place + spread, value, number))
            values = [value for _, value in known]
            means.append(float(np.mean(values)) if values else None)
            bests.append(max(values, key=lambda value, sign=goal.sign: sign * value) if values else None)  # type: ignore[misc]
        if not points:
            continue
        x, y, numbers = zip(*points, strict=True)
        places = list(range(len(generations)))
        best = "best" if goal.sign > 0 else "least"
        series = [
            {"kind": "points", "name": "cells", "color": "--muted", "x": x, "y": y, "candidates": numbers},
            {"kind": "line", "name": "mean", "color": "--pending", "x": places, "y": means},
            {"kind": "line", "name": best, "color": "--accent", "x": places, "y": bests},
        ]
        plots.append({"title": "", "x": {"title": "blocks", "labels": labels}, "y": _axis(goal), "series": series})
    return plots


def _axis(goal: Objective) -> dict[str, str]:
    return {"objective": str(goal)}


def prediction_plots(generations: Sequence[Generation], results: FullResults, goals: Sequence[Objective]) -> list[Plot]:
    """Return a plot for each objective: results by predictions, with a colour for each generation."""
    plots = []
    for goal in goals:
        series = []
        for each in generations:
            pairs = results.pairs(each, goal.name)
            if pairs:
                numbers, x, y = zip(*pairs, strict=True)
                name = f"{each.name} blocks"
                series.append({"kind": "points", "name": name, "x": x, "y": y, "candidates": numbers})
        if series:
            title = {"title": f"predicted {goal.name}"}
            plots.append({"title": "", "x": title, "y": _axis(goal), "series": series, "has_diagonal": True})
    return plots


def front_plots(
    generations: Sequence[Generation],
    results: FullResults,
    goals: Sequence[Objective],
    predictions: Mapping[str, Predictions],
) -> list[Plot]:
    """Return a plot for each generation: the predictions of all cells, of those chosen, and the results of these.

    Args:
        generations: Of the study.
        results: Of the trained cells.
        goals: Objectives; the plot has the second along x and the first along y.
        predictions: Of all cells of a generation, by its name; those whose files are there.
    """
    if len(goals) < 2:
        return []
    score, cost = goals[0].name, goals[1].name
    plots = []
    for each in generations:
        chosen = [cell for cell in each.cells if score in cell.estimates and cost in cell.estimates]
        if not chosen:
            continue
        series: list[Plot] = []
        every = predictions.get(each.name)
        if every is not None and (sample := every.sample(cost, score)):
            series.append({"kind": "points", "name": "predicted", "color": "--muted", "size": 3} | _columns(sample))
        links, trained = [], []
        for number, cell in zip(each.numbers, each.cells, strict=False):
            known = results.by_candidate.get(number, {})
            if score in known and cost in known and cell in chosen:
                end = known[cost], known[score]
                trained.append((number, *end))
                links.append([number, [cell.estimates[cost], end[0]], [cell.estimates[score], end[1]]])
        series.append({"kind": "links", "name": "", "color": "--muted", "items": links})
        series += [_chosen(chosen, score, cost, reason) for reason in ("front", "score", "exploration")]
        if trained:
            numbers, x, y = zip(*trained, strict=True)
            series.append(
                {"kind": "points", "name": "trained", "color": "--series-1", "x": x, "y": y, "candidates": numbers}
            )
        title = f"{each.name} blocks"
        filled = [item for item in series if item.get("x") or item.get("items")]
        plots.append({"title": title, "x": _axis(goals[1]), "y": _axis(goals[0]), "series": filled})
    return plots


def _columns(points: Sequence[tuple[float, float]]) -> Plot:
    return {"x": [x for x, _ in points], "y": [y for _, y in points], "candidates": None}


def _chosen(chosen: Sequence[ChosenCell], score: str, cost: str, reason: str) -> Plot:
    """Return the predictions of the cells that were chosen for a reason."""
    names = {"front": "chosen: front", "score": "chosen: best scores", "exploration": "chosen: exploration"}
    colors = {"front": "--accent", "score": "--series-3", "exploration": "--pending"}
    points = [(cell.estimates[cost], cell.estimates[score]) for cell in chosen if cell.reason == reason]
    return {"kind": "points", "name": names[reason], "color": colors[reason]} | _columns(points)


def use_plots(generations: Sequence[Generation]) -> list[Plot]:
    """Return a plot for operations and one for inputs: the share of each in the cells of a generation."""
    labels, operators, inputs = [], [], []
    for each in generations:
        blocks = [block for cell in blocks_of(chosen.cell for chosen in each.cells) for block in cell.blocks]
        if blocks:
            labels.append(each.name)
            operators.append(Counter(name for block in blocks for name in block.operators))
            inputs.append(Counter(str(number) for block in blocks for number in block.inputs))
    if len(labels) < 2:
        return []
    return [
        _shares("share of the operations", labels, operators),
        _shares("share of the inputs: earlier cells (-1, -2), blocks (0, 1, ...)", labels, inputs),
    ]


def blocks_of(texts: Iterable[str]) -> list[Cell]:
    """Return the cells that are written as blocks; those of a table have a notation of its own."""
    found = []
    for text in texts:
        try:
            found.append(Cell.parse(text))
        except ConfigError:
            continue
    return found


def _shares(title: str, labels: Sequence[str], counts: Sequence[Counter[str]]) -> Plot:
    """Return the lines of the most used names, and one of all others together."""
    total: Counter[str] = sum(counts, Counter())
    names = [name for name, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))]
    groups = [[name] for name in names]
    if len(names) > _MOST_LINES:
        groups = [*groups[: _MOST_LINES - 1], names[_MOST_LINES - 1 :]]
    series = []
    for group in groups:
        shares = [sum(each[name] for name in group) / each.total() for each in counts]
        name = group[0] if len(group) == 1 else f"{len(group)} others"
        series.append({"kind": "line", "name": name, "x": list(range(len(labels))), "y": shares})
    return {"title": "", "x": {"title": "blocks", "labels": labels}, "y": {"title": title}, "series": series}
