"""The sections of the report that a progressive search adds."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from search.results.importance import is_number
from search.results.record import CandidateRecord, Objective
from search.strategies.popnas.generation import Generation
from utils.architecture.cells.cell import Cell
from utils.errors import ConfigError

Section = Mapping[str, Any]
_FEWEST = 3  # cells for a correlation
_MOST_ROWS = 300


def generation_sections(
    generations: Sequence[Generation],
    records: Mapping[int, CandidateRecord],
    cells: Mapping[int, str],
    goals: Sequence[Objective],
) -> Iterator[Section]:
    """Yield the sections: generations, predictions against results, and the use of operations and inputs.

    Args:
        generations: Of the study.
        records: By candidate.
        cells: Text of the cell of each candidate.
        goals: Objectives of the study.
    """
    if not generations:
        return
    yield _numbers(generations, records, goals)
    if any(each.estimates for generation in generations for each in generation.cells):
        yield _predictors(generations, records, goals)
        yield _predictions(generations, records, goals)
    yield _uses(generations)


def results_of(record: CandidateRecord) -> dict[str, float]:
    """Return the objectives and facts of a candidate by name."""
    return {**record.facts, **record.objectives}


def _numbers(
    generations: Sequence[Generation], records: Mapping[int, CandidateRecord], goals: Sequence[Objective]
) -> Section:
    """Return a row for each generation: how many cells, why, and the range of each objective."""
    head = ["blocks", "expanded", "trained", "front", "best scores", "exploration", "failed", "epochs"]
    for goal in goals:
        head += [f"{'best' if goal.sign > 0 else 'least'} {goal.name}", f"mean {goal.name}"]
    rows: list[list[Any]] = [head]
    for each in generations:
        known = [records[number] for number in each.numbers]
        reasons = Counter(cell.reason for cell in each.cells)
        failed = sum(record.status in ("failed", "refused", "out_of_memory") for record in known)
        row: list[Any] = [each.name, each.num_expanded, sum(bool(record.reports) for record in known)]
        row += [reasons[reason] for reason in ("front", "score", "exploration")]
        row += [failed, sum(record.epochs for record in known)]
        for goal in goals:
            found = (results_of(record).get(goal.name) for record in known)
            values = [value for value in found if value is not None and is_number(value)]
            row += [max(values) if goal.sign > 0 else min(values), float(np.mean(values))] if values else [None, None]
        rows.append(row)
    text = "Cells of each generation: grown from those trained before (expanded), and those of them that were trained."
    return {"title": "Generations", "text": text, "table": rows}


def pairs_of(
    generation: Generation, records: Mapping[int, CandidateRecord], name: str
) -> tuple[list[float], list[float]]:
    """Return the predictions and the results of an objective, of the cells of a generation that have both."""
    predicted, trained = [], []
    for number, cell in zip(generation.numbers, generation.cells, strict=False):
        value = results_of(records[number]).get(name)
        if name in cell.estimates and value is not None and is_number(value):
            predicted.append(cell.estimates[name])
            trained.append(float(value))
    return predicted, trained


def _rank_correlation(predicted: Sequence[float], trained: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None of fewer than three pairs, or if one side is constant."""
    if len(predicted) < _FEWEST or len(set(predicted)) == 1 or len(set(trained)) == 1:
        return None
    return float(spearmanr(predicted, trained).statistic)


def _predictors(
    generations: Sequence[Generation], records: Mapping[int, CandidateRecord], goals: Sequence[Objective]
) -> Section:
    """Return a row for each generation and objective: its predictor, and how right it was."""
    rows: list[list[Any]] = [
        ["blocks", "objective", "predictor", "cells", "rank correlation", "mean error", "mean absolute error", "reason"]
    ]
    for each in generations:
        for goal in goals:
            predicted, trained = pairs_of(each, records, goal.name)
            if not predicted:
                continue
            errors = np.array(predicted) - np.array(trained)
            used = each.predictors.get(goal.name, {})
            row = [each.name, goal.name, used.get("name"), len(predicted), _rank_correlation(predicted, trained)]
            rows.append([*row, float(errors.mean()), float(np.abs(errors).mean()), used.get("reason") or ""])
    text = (
        "What was predicted of the cells that were then trained, against their results. A predictor that is worse than "
        "a trivial one in a generation is replaced by it in the next; the reason is given."
    )
    return {"title": "Predictors", "text": text, "table": rows}


def _predictions(
    generations: Sequence[Generation], records: Mapping[int, CandidateRecord], goals: Sequence[Objective]
) -> Section:
    """Return a row for each predicted cell."""
    head = ["candidate", "blocks", "chosen for"]
    for goal in goals:
        head += [f"predicted {goal.name}", goal.name]
    rows: list[list[Any]] = []
    for each in generations:
        for number, cell in zip(each.numbers, each.cells, strict=False):
            if cell.estimates:
                known = results_of(records[number])
                values = [value for goal in goals for value in (cell.estimates.get(goal.name), known.get(goal.name))]
                rows.append([number, each.name, cell.reason, *values, cell.cell])
    text = f"The last {_MOST_ROWS} of {len(rows):,} predicted cells." if len(rows) > _MOST_ROWS else ""
    return {"title": "Predictions and results", "text": text, "table": [[*head, "cell"], *rows[-_MOST_ROWS:]]}


def _uses(generations: Sequence[Generation]) -> Section:
    """Return how often each operation and input is used in the cells of each reason."""
    counts: dict[str, Counter[str]] = {}
    for each in generations:
        for chosen in each.cells:
            uses = counts.setdefault(chosen.reason, Counter())
            try:
                blocks = Cell.parse(chosen.cell).blocks
            except ConfigError:  # of a table, which has a notation of its own
                continue
            for block in blocks:
                uses.update(f"operation {name}" for name in block.operators)
                uses.update(f"input {number}" for number in block.inputs)
    reasons = [reason for reason in ("first", "front", "score", "exploration") if reason in counts]
    names = sorted({name for reason in reasons for name in counts[reason]})
    rows: list[list[Any]] = [["", *reasons]]
    for name in names:
        rows.append([name, *(counts[reason][name] for reason in reasons)])
    return {"title": "Use of operations and inputs", "text": "Times that each occurs in the cells.", "table": rows}
