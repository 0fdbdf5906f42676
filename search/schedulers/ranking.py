"""Rankings of candidates by one objective or by several.

With one objective: the larger value first. With several: as in NSGA-II (Deb et al. 2002, "A fast and elitist
multiobjective genetic algorithm", III-A and III-B), first the candidates that no other dominates, then those that only
these dominate, and so on; within such a front those in sparse regions first. Equal ones are in the order of their
numbers. NaN is worse than any number, also than minus infinity.

Dimensions: N candidates, M objectives.
"""

import math
import sys
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from search.schedulers.base import Values

Table = NDArray[np.float64]
LEAST = -sys.float_info.max
FEWEST_PAIRS = 3  # candidates for a correlation


def comparable(value: float) -> float:
    """Return a value that compares with any other: NaN becomes the least of all, minus infinity the next."""
    return -math.inf if math.isnan(value) else max(value, LEAST)


def best_first(values: Mapping[int, Values]) -> list[int]:
    """Order candidates.

    Args:
        values: Values of each candidate; if one has fewer than another, those that it lacks are NaN.
    """
    width = max(map(len, values.values()), default=1)
    if width == 1:
        return sorted(values, key=lambda candidate: (-comparable(values[candidate][0]), candidate))
    candidates = np.array(sorted(values))
    table = as_table([values[candidate] for candidate in candidates], width)
    ranks = non_dominated_ranks(table)
    ordered: list[int] = []
    for rank in range(int(ranks.max()) + 1):
        front = np.flatnonzero(ranks == rank)
        ordered += candidates[front[np.argsort(-crowding_distances(table[front]), kind="stable")]].tolist()
    return ordered


def as_table(rows: Sequence[Values], width: int) -> Table:
    """Return comparable values (N, width) float64."""
    return np.array([[comparable(value) for value in (*row, *[math.nan] * (width - len(row)))] for row in rows])


def non_dominated_ranks(table: Table) -> NDArray[np.int64]:
    """Return the front (N,) that each row of comparable values (N, M) belongs to, from 0."""
    ranks = np.zeros(len(table), dtype=np.int64)
    order = np.lexsort(-table.T[::-1])  # every row comes after the rows that dominate it
    ordered = table[order]
    for place in range(1, len(order)):
        if (ordered[place] == ordered[place - 1]).all():  # equal ones do not dominate each other
            ranks[order[place]] = ranks[order[place - 1]]
            continue
        dominating = (ordered[:place] >= ordered[place]).all(axis=1)
        ranks[order[place]] = ranks[order[:place][dominating]].max(initial=-1) + 1
    return ranks


def crowding_distances(front: Table) -> Table:
    """Return the distance of the neighbours of each row of a front (N, M), summed over the objectives.

    Each objective is scaled by the range of its numbers. The outermost rows, and those next to a value that is not
    finite, are infinitely far from others.
    """
    distances = np.zeros(len(front))
    for column in front.T:
        order = np.argsort(column, kind="stable")
        # `comparable` has made minus infinity finite; here it is infinite again.
        ascending = np.where(np.abs(column[order]) < -LEAST, column[order], np.copysign(np.inf, column[order]))
        distances[order[[0, -1]]] = np.inf
        numbers = ascending[np.isfinite(ascending)]
        span = np.ptp(numbers) if len(numbers) else 0.0
        if span > 0:
            with np.errstate(invalid="ignore"):  # between two equal infinities
                gaps = (ascending[2:] - ascending[:-2]) / span
            distances[order[1:-1]] += np.nan_to_num(gaps, nan=0.0, posinf=np.inf)
    return distances


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation of two (N,) columns, equal values with their mean rank; NaN if undefined."""
    if len(first) < FEWEST_PAIRS:
        return math.nan
    if first.min() == first.max() or second.min() == second.max():
        return math.nan
    return float(np.corrcoef(mean_ranks(first), mean_ranks(second))[0, 1])


def mean_ranks(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of each value (N,), from 1 for the least; equal ones have their mean rank."""
    _, codes, counts = np.unique(column, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[codes]
    return ranks


@dataclass
class SingleObjectiveOrder:
    """The candidates of a rung by one objective, the larger first; equal ones by number. Each waits until it is taken.

    The order is that of `best_first`, updated with a binary search as candidates arrive.
    """

    _all: list[tuple[float, int]] = field(default_factory=list)
    _waiting: list[tuple[float, int]] = field(default_factory=list)
    _keys: dict[int, tuple[float, int]] = field(default_factory=dict)

    def add(self, candidate: int, values: Values) -> None:
        """Add a candidate, which waits."""
        key = (-comparable(values[0]), candidate)
        self._keys[candidate] = key
        insort(self._all, key)
        insort(self._waiting, key)

    def take(self, candidate: int) -> None:
        """Let a candidate wait no more; its place remains."""
        del self._waiting[bisect_left(self._waiting, self._keys[candidate])]

    def position(self, candidate: int) -> int:
        """Count the candidates before it."""
        return bisect_left(self._all, self._keys[candidate])

    def first_waiting(self) -> int | None:
        """Return the best candidate that waits."""
        return self._waiting[0][1] if self._waiting else None

    def tied_places(self, candidate: int) -> tuple[int, int]:
        """Count the candidates before the first of those with the same value, and the others that have it."""
        level = self._keys[candidate][0]
        first = bisect_left(self._all, (level, -1))
        return first, bisect_left(self._all, (level, sys.maxsize)) - first - 1

    least_position = position  # whoever is before a candidate remains there

    def num_hopeful(self, limit: int) -> int:
        """Count the candidates that wait and have a least position below a limit."""
        if limit >= len(self._all):
            return len(self._waiting)
        # Both lists have the same order, so those before the place of the limit count.
        return bisect_left(self._waiting, self._all[limit])


class ParetoOrder:
    """The candidates of a rung by several objectives: by front, crowding distance and number. Each waits until taken.

    The order is that of `best_first`. A newcomer may bring others forward, as it changes fronts and distances; only
    candidates that dominate another one remain before it. A newcomer is compared with every other candidate, as it may
    push those that it dominates to the next front: about a millisecond for ten thousand.

    Args:
        num_objectives: Number of objectives.
    """

    def __init__(self, num_objectives: int) -> None:
        self._rows: dict[int, int] = {}
        self._table = np.empty((0, num_objectives))
        self._candidates = np.empty(0, dtype=np.int64)
        self._ranks = np.empty(0, dtype=np.int64)
        self._dominators = np.empty(0, dtype=np.int64)
        self._waits = np.empty(0, dtype=bool)
        # Known until the next candidate arrives, as most questions are about rungs that have not changed since.
        self._fronts: dict[int, list[int]] = {}
        self._first: list[int | None] = []  # empty: not known

    def add(self, candidate: int, values: Values) -> None:
        """Add a candidate, which waits."""
        new = as_table([values], self._table.shape[1])
        # Dominating: at least as good in every objective and not equal.
        unequal = (self._table != new).any(axis=1)
        dominating = (self._table >= new).all(axis=1) & unequal
        dominated = np.flatnonzero((self._table <= new).all(axis=1) & unequal)
        rank = int(self._ranks[dominating].max(initial=-1)) + 1
        # Rows move to the next front as long as new members of their front dominate them: first the newcomer, then
        # the rows that moved there. No rows but those that the newcomer dominates can move.
        pushing, front_rank = new, rank
        while len(pushing):
            front = dominated[self._ranks[dominated] == front_rank]
            rows = self._table[front][:, None]
            is_pushed = np.all(pushing >= rows, axis=2) & np.any(pushing > rows, axis=2)
            moved = front[np.any(is_pushed, axis=1)]
            front_rank += 1
            self._ranks[moved] = front_rank
            pushing = self._table[moved]
        self._dominators[dominated] += 1
        self._rows[candidate] = len(self._rows)
        # These copies take far less time than the comparisons above.
        self._table = np.concatenate([self._table.T, new.T], axis=1).T  # each objective in one piece: faster to compare
        self._candidates = np.append(self._candidates, candidate)
        self._ranks = np.append(self._ranks, rank)
        self._dominators = np.append(self._dominators, np.count_nonzero(dominating))
        self._waits = np.append(self._waits, True)
        self._fronts.clear()
        self._first.clear()

    def take(self, candidate: int) -> None:
        """Let a candidate wait no more; its place remains."""
        self._waits[self._rows[candidate]] = False
        self._first.clear()

    def position(self, candidate: int) -> int:
        """Count the candidates before it."""
        rank = int(self._ranks[self._rows[candidate]])
        return int(np.count_nonzero(self._ranks < rank)) + self._ordered_front(rank).index(candidate)

    def tied_places(self, candidate: int) -> tuple[int, int]:
        """Count the candidates before the first of those with the same values, and the others that have them."""
        row = self._rows[candidate]
        equal = set(self._candidates[(self._table == self._table[row]).all(axis=1)].tolist())
        front = self._ordered_front(int(self._ranks[row]))
        first = next(place for place, member in enumerate(front) if member in equal)
        return int(np.count_nonzero(self._ranks < self._ranks[row])) + first, len(equal) - 1

    def first_waiting(self) -> int | None:
        """Return the best candidate that waits."""
        if not self._first:
            waiting = self._ranks[self._waits]
            front = self._ordered_front(int(waiting.min())) if len(waiting) else []
            self._first = [next((each for each in front if self._waits[self._rows[each]]), None)]
        return self._first[0]

    def least_position(self, candidate: int) -> int:
        """Count the candidates that remain before it, whichever others arrive."""
        return int(self._dominators[self._rows[candidate]])

    def num_hopeful(self, limit: int) -> int:
        """Count the candidates that wait and have a least position below a limit."""
        return int(np.count_nonzero(self._waits & (self._dominators < limit)))

    def _ordered_front(self, rank: int) -> list[int]:
        """Return the candidates of a front, those in sparse regions first."""
        if rank not in self._fronts:
            rows = np.flatnonzero(self._ranks == rank)
            rows = rows[np.argsort(self._candidates[rows])]
            sparse_first = np.argsort(-crowding_distances(self._table[rows]), kind="stable")
            self._fronts[rank] = self._candidates[rows[sparse_first]].tolist()
        return self._fronts[rank]


RungOrder = SingleObjectiveOrder | ParetoOrder
