"""The choice of the cells of a generation: the predicted Pareto front, and a few with elements that are rare in it."""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search.results.record import FACTS, Constraint, Objective
from search.space.table_space import TableSpace
from search.strategies.popnas.estimates import Answer, Request
from search.strategies.popnas.generation import ChosenCell, Reason
from search.strategies.popnas.options import GrowthOptions
from search.study.settings import StudyParts
from utils.architecture.cells.expansion import Floats, Rows
from utils.architecture.cells.front import best_of, exploration_front, pareto_front

LIMITED_COSTS = {"max_params": "params", "max_flops": "flops"}


def bounded_costs(parts: StudyParts) -> list[str]:
    """Return the costs, known before a training, on which a study has a limit or a constraint."""
    names = [each.name for each in parts.constraints if each.name in LIMITED_COSTS.values()]
    return names + [name for key, name in LIMITED_COSTS.items() if (parts.limits or {}).get(key) is not None]


def exact_facts(parts: StudyParts) -> list[str]:
    """Return the facts on which something depends, all of which follow from a cell; none of a table."""
    names = [each.name for each in parts.objectives] + [each.name for each in parts.constraints]
    names += bounded_costs(parts)
    return [] if isinstance(parts.space, TableSpace) else [name for name in FACTS if name in names]


def allowed_cells(request: Request, answer: Answer, parts: StudyParts) -> set[str]:
    """Return the cells of a request that keep the limits and constraints on costs that are known exactly."""
    rows = np.flatnonzero(is_allowed(len(request.expansion), answer.costs, parts))
    return set(request.expansion.texts(rows))


def choose(
    request: Request, answer: Answer, growth: GrowthOptions, parts: StudyParts, *, is_last: bool
) -> list[ChosenCell]:
    """Return the cells of a generation, the front first, by the predicted score.

    Costs that are known exactly take the place of predictions. Cells whose costs break a limit or a constraint are left
    out. Complete cells are compared with all trained ones, too: no cell grows from them, so that one that is predicted
    to be dominated adds nothing to the front. Places that the front leaves empty go to the best predicted scores: a
    front of few cells would leave the next generation few to grow from.

    Args:
        request: With the cells among which to choose.
        answer: The predictions.
        growth: How many to choose.
        parts: Objectives, constraints and limits of the study.
        is_last: Whether the cells are complete: none is explored, as with `pnas_mode`, and trained ones take part in
            the dominance.
    """
    expansion, goals = request.expansion, request.objectives
    if not len(expansion):
        return []
    costs, keys = answer.costs, expansion.keys()
    allowed = np.flatnonzero(is_allowed(len(expansion), costs, parts))
    values = np.stack([_comparable(goal, answer, costs) for goal in goals], axis=1)[allowed]
    if growth.pnas_mode:
        front = best_of(values[:, 0], growth.max_children, keys[allowed])
    else:
        possible = (
            np.flatnonzero(~_is_dominated(request, answer, costs)[allowed]) if is_last else np.arange(len(allowed))
        )
        front = possible[pareto_front(values[possible], growth.max_children, keys[allowed][possible])]
    reasons: list[tuple[Reason, Rows]] = [("front", front)]
    most = growth.max_children - len(front) if growth.max_best is None else growth.max_best
    if most:
        best = best_of(values[:, 0], most + len(front), keys[allowed])
        best = best[~np.isin(keys[allowed][best], keys[allowed][front])][:most]
        reasons.append(("score", best))
        front = np.concatenate([front, best])
    if growth.num_explored and not is_last and len(front) < len(allowed):
        reasons.append(("exploration", exploration_front(expansion, values, front, growth.num_explored, allowed)))
    known = {**answer.means, **costs}
    return [
        ChosenCell(
            text,
            reason,
            {goal.name: float(known[goal.name][row]) for goal in goals},
            {name: float(deviations[row]) for name, deviations in answer.deviations.items()},
        )
        for reason, places in reasons
        for row, text in zip(allowed[places].tolist(), expansion.texts(allowed[places]), strict=True)
    ]


def _comparable(goal: Objective, answer: Answer, costs: Mapping[str, Floats]) -> Floats:
    """Return the values by which cells are compared in an objective, the larger the better."""
    if goal.name in costs:
        return goal.sign * costs[goal.name]
    if goal.name in answer.acquired:
        return answer.acquired[goal.name]
    return goal.sign * answer.means[goal.name]


def _is_dominated(request: Request, answer: Answer, costs: Mapping[str, Floats]) -> NDArray[np.bool_]:
    """Return which cells (N,) a trained cell dominates, if their results are those predicted."""
    goals = request.objectives
    results = [[goal.sign * each.results.get(goal.name, math.nan) for goal in goals] for each in request.trained]
    trained = np.array(results, dtype=float).reshape(-1, len(goals))
    predicted = np.stack([goal.sign * {**answer.means, **costs}[goal.name] for goal in goals], axis=1)
    dominated = np.zeros(len(predicted), dtype=bool)
    for result in trained[pareto_front(trained)]:
        dominated |= (result >= predicted).all(axis=1) & (result > predicted).any(axis=1)
    return dominated


def is_allowed(
    count: int, costs: Mapping[str, Floats], parts: StudyParts, limited: Collection[str] = tuple(LIMITED_COSTS.values())
) -> NDArray[np.bool_]:
    """Return which networks keep the limits and constraints on costs that are known exactly.

    Args:
        count: N, their number.
        costs: By name, (N,) each.
        parts: Of the study.
        limited: The costs whose limits hold; constraints hold for all.
    """
    allowed = np.ones(count, dtype=bool)
    for key, name in LIMITED_COSTS.items():
        bound = (parts.limits or {}).get(key)
        if bound is not None and name in limited and name in costs:
            allowed &= costs[name] <= bound
    bounds: Sequence[Constraint] = parts.constraints
    for each in bounds:
        if each.name in costs:
            allowed &= (costs[each.name] - each.bound) * each.sign >= 0
    return allowed
