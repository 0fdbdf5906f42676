"""Which candidates are better, by one objective or by several.

By one objective: the larger value first. By several: as NSGA-II does (Deb et al. 2002, "A fast and elitist
multiobjective genetic algorithm", III-A and III-B), those that no other dominates first, then those that only these
dominate, and so on; within such a front those in sparse regions first. Equal ones stand in the order of their numbers.
NaN is worse than any number, also than minus infinity.

Dimensions: N candidates, M objectives.
"""

import math
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search.schedulers.base import Values

Table = NDArray[np.float64]
LEAST = -sys.float_info.max


def comparable(value: float) -> float:
    """The value as one that compares with any other: NaN becomes the least of all, minus infinity the next."""
    return -math.inf if math.isnan(value) else max(value, LEAST)


def best_first(values: Mapping[int, Values]) -> list[int]:
    """Order candidates.

    Args:
        values: Of each candidate; where one has fewer than another, those that it lacks are NaN.
    """
    width = max(map(len, values.values()), default=1)
    if width == 1:
        return sorted(values, key=lambda candidate: (-comparable(values[candidate][0]), candidate))
    candidates = np.array(sorted(values))
    table = as_table([values[candidate] for candidate in candidates], width)
    ranks = non_dominated_ranks(table)
    fronts = [np.flatnonzero(ranks == rank) for rank in range(int(ranks.max()) + 1)]
    return [int(candidate) for front in fronts for candidate in candidates[front[sparse_first(table[front])]]]


def pareto_front(values: Mapping[int, Values]) -> list[int]:
    """The candidates that no other dominates, by number; one without a number for each objective is none of them."""
    width = max(map(len, values.values()), default=1)
    complete = [
        candidate for candidate in sorted(values) if len(values[candidate]) == width and not _has_nan(values[candidate])
    ]
    if not complete:
        return []
    ranks = non_dominated_ranks(as_table([values[candidate] for candidate in complete], width))
    return [candidate for candidate, rank in zip(complete, ranks, strict=True) if rank == 0]


def as_table(rows: Sequence[Values], width: int) -> Table:
    """Comparable values (N, M) float64 of so many objectives."""
    return np.array([[comparable(value) for value in (*row, *[math.nan] * (width - len(row)))] for row in rows])


def non_dominated_ranks(table: Table) -> NDArray[np.int64]:
    """The front (N,) that each row of comparable values (N, M) belongs to, from 0."""
    ranks = np.zeros(len(table), dtype=np.int64)
    order = np.lexsort(-table.T[::-1])  # whatever dominates a row stands before it
    ordered = table[order]
    for place in range(1, len(order)):
        if (ordered[place] == ordered[place - 1]).all():  # equal ones do not dominate each other
            ranks[order[place]] = ranks[order[place - 1]]
            continue
        dominating = (ordered[:place] >= ordered[place]).all(axis=1)
        ranks[order[place]] = ranks[order[:place][dominating]].max(initial=-1) + 1
    return ranks


def sparse_first(front: Table) -> NDArray[np.intp]:
    """Order the rows of a front (N, M) by their crowding distance, the largest first, equal ones as they stand."""
    return np.argsort(-crowding_distances(front), kind="stable")


def crowding_distances(front: Table) -> Table:
    """How far apart the neighbours of each row of a front (N, M) lie, summed over the objectives.

    Each objective is scaled by the range of its numbers. The outermost rows, and those beside a value that is not
    finite, are infinitely far from others.
    """
    distances = np.zeros(len(front))
    for column in front.T:
        order = np.argsort(column, kind="stable")
        ascending = np.where(np.abs(column[order]) < -LEAST, column[order], np.copysign(np.inf, column[order]))
        distances[order[[0, -1]]] = np.inf
        numbers = ascending[np.isfinite(ascending)]
        span = np.ptp(numbers) if len(numbers) else 0.0
        if span > 0:
            with np.errstate(invalid="ignore"):  # between two equal infinities
                gaps = (ascending[2:] - ascending[:-2]) / span
            distances[order[1:-1]] += np.nan_to_num(gaps, nan=0.0, posinf=np.inf)
    return distances


def _has_nan(values: Values) -> bool:
    return any(math.isnan(value) for value in values)
