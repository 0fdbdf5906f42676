"""The sections of the report that a progressive search adds."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from search.results.record import CandidateRecord, Objective
from search.strategies.popnas.estimates import FullResults
from search.strategies.popnas.generation import EXACT, Generation, audit_of
from search.strategies.popnas.plots import (
    blocks_of,
    front_plots,
    prediction_plots,
    results_of,
    results_plots,
    use_plots,
)
from search.strategies.popnas.predicted import Predictions
from utils.architecture.cells.cell import Block
from utils.architecture.cells.pictures import block_cell_svg

Section = Mapping[str, Any]
_FEWEST = 3  # cells for a correlation
_MOST_ROWS = 300
_FEWEST_CORRELATED = 5


def generation_sections(
    generations: Sequence[Generation],
    records: Mapping[int, CandidateRecord],
    goals: Sequence[Objective],
    results: FullResults,
    predictions: Mapping[str, Predictions],
) -> Iterator[Section]:
    """Yield the sections: generations, predictions against results, fronts, and the use of operations and inputs.

    Args:
        generations: Of the study.
        records: By candidate.
        goals: Objectives of the study.
        results: With which predictions are compared.
        predictions: Of all cells of a generation, by its name; those whose files are there.
    """
    if not generations:
        return
    with_audit, generations = generations, [each for each in generations if not each.is_audit]
    yield {**_numbers(generations, records, goals), "plots": results_plots(generations, records, goals)}
    if any(each.estimates for generation in generations for each in generation.cells):
        yield {**_predictors(with_audit, results, goals), "plots": prediction_plots(generations, results, goals)}
        if plots := front_plots(generations, results, goals, predictions):
            text = (
                "Of each generation the predictions of all cells (some of them, if there are many), those of the cells "
                "that were chosen, and their results, to which a line leads; of stopped cells the estimated ones."
            )
            yield {"title": "Fronts of the generations", "text": text, "plots": plots}
        yield _predictions(generations, records, goals)
    yield {**_uses(generations), "plots": use_plots(generations)}


def best_cell(ranked: Sequence[int], cells: Mapping[int, str], config: Mapping[str, Any]) -> Iterator[Section]:
    """Yield the picture of the best cell, if it is one of blocks.

    Args:
        ranked: Candidates with results, the best first.
        cells: Text of the cell of each candidate.
        config: Of the study.
    """
    arch = config.get("arch")
    args = arch.get("args") if isinstance(arch, Mapping) else None
    only_unused = args.get("concat_only_unused", True) if isinstance(args, Mapping) else True
    for cell in blocks_of(cells[number] for number in ranked[:1]):
        text = f"Candidate {ranked[0]}, the first of the leaderboard: {cell}"
        yield {
            "title": "The best cell",
            "text": text,
            "pictures": [block_cell_svg(cell, concat_only_unused=only_unused)],
        }


def cost_sections(
    ranked: Sequence[int],
    records: Mapping[int, CandidateRecord],
    cells: Mapping[int, str],
    goals: Sequence[Objective],
) -> Iterator[Section]:
    """Yield the costs of single operations, and the correlations of results and costs.

    Args:
        ranked: Candidates with results, the best first.
        records: By candidate.
        cells: Text of the cell of each candidate.
        goals: Objectives of the study.
    """
    known = {cell: results_of(records[number]) for number, cell in cells.items()}
    costs = [each.name for each in goals if each.is_cost]
    yield from _operation_costs(known, costs)
    yield from _correlations([results_of(records[number]) for number in ranked])


def _operation_costs(known: Mapping[str, Mapping[str, float]], costs: Sequence[str]) -> Iterator[Section]:
    """Yield a row for each operation that was trained alone: its additional cost over the empty cell."""
    empty = known.get("[]", {})
    alone = {}
    for cell in blocks_of(known):
        if len(cell) == 1 and cell.blocks[0] == Block(-1, cell.blocks[0].first, -1, cell.blocks[0].first):
            alone[cell.blocks[0].first] = known[str(cell)]
    names = [name for name in costs if name in empty and all(name in results for results in alone.values())]
    if not alone or not names:
        return
    head = ["operation"]
    for name in names:
        head += [f"{name} above the empty cell", "of the largest"]
    rows: list[list[Any]] = []
    more = {each: {name: results[name] - empty[name] for name in names} for each, results in alone.items()}
    largest = {name: max(abs(each[name]) for each in more.values()) or 1.0 for name in names}
    for each in sorted(alone, key=lambda each: -more[each][names[0]]):
        rows.append(
            [each, *(value for name in names for value in (more[each][name], more[each][name] / largest[name]))]
        )
    text = "Cells with one operation on both sides of a single block: what the operation costs."
    yield {"title": "Costs of the operations", "text": text, "table": [head, *rows]}


def _correlations(results: Sequence[Mapping[str, float]]) -> Iterator[Section]:
    """Yield the rank correlations of all results and costs that the trained cells have."""
    names = [name for name in (results[0] if results else {}) if all(name in each for each in results)]
    columns = {name: [each[name] for each in results] for name in names}
    columns = {name: values for name, values in columns.items() if len(set(values)) > 1}
    if len(results) < _FEWEST_CORRELATED or len(columns) < 2:
        return
    rows: list[list[Any]] = [["", *columns]]
    rows += [
        [name, *(_rank_correlation(values, other) for other in columns.values())] for name, values in columns.items()
    ]
    text = "Spearman's rank correlation of results and costs, over all trained cells."
    yield {"title": "Correlations", "text": text, "table": rows}


def _numbers(
    generations: Sequence[Generation], records: Mapping[int, CandidateRecord], goals: Sequence[Objective]
) -> Section:
    """Return a row for each generation: how many cells, why, and the range of each objective."""
    head = ["blocks", "grown", "different", "trained", "front", "best scores", "exploration", "failed", "epochs"]
    head += ["seconds of training", "of prediction"]
    for goal in goals:
        head += [f"{'best' if goal.sign > 0 else 'least'} {goal.name}", f"mean {goal.name}"]
    rows: list[list[Any]] = [head]
    for each in generations:
        known = [records[number] for number in each.numbers]
        reasons = Counter(cell.reason for cell in each.cells)
        failed = sum(record.status in ("failed", "refused", "out_of_memory") for record in known)
        row: list[Any] = [each.name, each.num_grown or None, each.num_expanded]
        row.append(sum(bool(record.reports) for record in known))
        row += [reasons[reason] for reason in ("front", "score", "exploration")]
        row += [failed, sum(record.epochs for record in known)]
        row += [round(sum(record.seconds for record in known), 1), round(each.seconds, 1) or None]
        for goal in goals:
            found = (results_of(record).get(goal.name) for record in known)
            values = [value for value in found if value is not None]
            row += [max(values) if goal.sign > 0 else min(values), float(np.mean(values))] if values else [None, None]
        rows.append(row)
    text = (
        "Cells of each generation: ways in which those trained before grow, the different cells among these, as "
        "equivalent ones are merged, and those that were trained."
    )
    return {"title": "Generations", "text": text, "table": rows}


def _rank_correlation(predicted: Iterable[float], trained: Iterable[float]) -> float | None:
    """Return Spearman's rank correlation; None of fewer than three pairs, or if one side is constant."""
    predicted, trained = list(predicted), list(trained)
    if len(predicted) < _FEWEST or len(set(predicted)) == 1 or len(set(trained)) == 1:
        return None
    return float(spearmanr(predicted, trained).statistic)


def _predictors(generations: Sequence[Generation], results: FullResults, goals: Sequence[Objective]) -> Section:
    """Return a row for each generation and objective that is predicted: its predictor, and how right it was."""
    rows: list[list[Any]] = [["blocks", "objective", "predictor", "cells", "stopped early", "rank correlation", "R²"]]
    rows[0] += ["mean error", "mean absolute error"]
    rows[0] += ["as a part of the result", "rank correlation of a trivial one", "within the 80 % interval"]
    rows[0] += ["error in deviations", "reason", "not used in the next"]
    for place, each in enumerate(generations):
        audits = audit_of(place, generations)
        for goal in goals:
            pairs, used = results.pairs(each, goal.name), each.predictors.get(goal.name, {})
            if not pairs or used.get("name") == EXACT:
                continue
            predicted, trained = np.array([pair[1:] for pair in pairs]).T
            errors, spread = predicted - trained, float(((trained - trained.mean()) ** 2).sum())
            relative = float(np.mean(np.abs(errors / trained))) if trained.all() else None
            fit = 1 - float((errors**2).sum()) / spread if spread and len(pairs) >= _FEWEST else None
            stopped = sum(number in results.stopped for number, *_ in pairs)
            row = [each.name, goal.name, used.get("name"), len(pairs), stopped]
            row += [
                _rank_correlation(predicted, trained),
                fit,
                float(errors.mean()),
                float(np.abs(errors).mean()),
                relative,
            ]
            audit = audits.get(goal.name, {})
            rows.append([*row, *_audited(audit), used.get("reason") or "", _switched_off(audit)])
    text = (
        "What was predicted of the cells that were then trained, against their results. Predicted are results of full "
        "trainings: for the score of a cell that was stopped early, the estimate from which the predictors learn "
        "counts. Costs that follow from the cell need no predictor. A predictor that is worse than "
        "a trivial one in a generation is replaced by it in the next; the reason is given. Each generation is compared "
        "with the trivial predictors, and with the predicted deviations, after it. If the search ended before that, "
        "the last one has no such numbers."
    )
    return {"title": "Predictors", "text": text, "table": rows}


def _audited(audit: Mapping[str, Any]) -> list[float | None]:
    """Return the better trivial rank correlation, the share of results in the interval, the error in deviations.

    Args:
        audit: Of one objective of a generation; empty if there is none.
    """
    by = audit.get("by", {})
    trivial = [by[name]["rank_correlation"] for name in ("parents", "operations") if name in by]
    known = [each for each in trivial if each is not None]
    return [max(known, default=None), audit.get("within_80"), audit.get("error_in_deviations")]


def _switched_off(audit: Mapping[str, Any]) -> str:
    """Return the predictors that the next generation does not use, with the reasons."""
    return "; ".join(f"{name}: {reason}" for name, reason in audit.get("switched_off", {}).items())


def _predictions(
    generations: Sequence[Generation], records: Mapping[int, CandidateRecord], goals: Sequence[Objective]
) -> Section:
    """Return a row for each predicted cell."""
    head = ["candidate", "blocks", "chosen for", "epochs"]
    for goal in goals:
        head += [f"predicted {goal.name}", goal.name]
    rows: list[list[Any]] = []
    for each in generations:
        for number, cell in zip(each.numbers, each.cells, strict=False):
            if cell.estimates:
                known = results_of(records[number])
                values = [value for goal in goals for value in (cell.estimates.get(goal.name), known.get(goal.name))]
                rows.append([number, each.name, cell.reason, records[number].epochs, *values, cell.cell])
    text = f"The last {_MOST_ROWS} of {len(rows):,} predicted cells." if len(rows) > _MOST_ROWS else ""
    return {"title": "Predictions and results", "text": text, "table": [[*head, "cell"], *rows[-_MOST_ROWS:]]}


def _uses(generations: Sequence[Generation]) -> Section:
    """Return how often each operation and input is used in the cells of each reason."""
    counts: dict[str, Counter[str]] = {}
    for each in generations:
        for chosen in each.cells:
            uses = counts.setdefault(chosen.reason, Counter())
            for cell in blocks_of([chosen.cell]):
                for block in cell.blocks:
                    uses.update(f"operation {name}" for name in block.operators)
                    uses.update(f"input {number}" for number in block.inputs)
    reasons = [reason for reason in ("first", "front", "score", "exploration") if reason in counts]
    names = sorted({name for reason in reasons for name in counts[reason]})
    rows: list[list[Any]] = [["", *reasons]]
    for name in names:
        rows.append([name, *(counts[reason][name] for reason in reasons)])
    return {"title": "Use of operations and inputs", "text": "Times that each occurs in the cells.", "table": rows}
