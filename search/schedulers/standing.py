"""The order of the candidates of one rung, kept while they come in one by one.

The orders are those of `ranking.best_first`. By one objective a candidate costs a binary search. By several it costs a
comparison with each other candidate of the rung, as it may push those that it dominates to the next front: about a
millisecond where there are ten thousand.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray

from search.schedulers.base import Values
from search.schedulers.ranking import Table, as_table, comparable, sparse_first

FIRST_CAPACITY = 64
Key = tuple[float, int]


class Standing(ABC):
    """Candidates, the best first; each waits until it is taken."""

    @abstractmethod
    def add(self, candidate: int, values: Values) -> None:
        """A candidate comes in; it waits."""

    @abstractmethod
    def take(self, candidate: int) -> None:
        """It does not wait any more; its place stays."""

    @abstractmethod
    def position(self, candidate: int) -> int:
        """How many stand before it."""

    @abstractmethod
    def first_waiting(self) -> int | None:
        """The best that waits."""

    @abstractmethod
    def least_position(self, candidate: int) -> int:
        """How many stand before it for good, whoever else comes in."""

    @abstractmethod
    def num_hopeful(self, limit: int) -> int:
        """How many wait whose least position is below a limit."""


class SingleStanding(Standing):
    """By one objective, the larger the better; equal ones by number."""

    def __init__(self) -> None:
        self._all: list[Key] = []
        self._waiting: list[Key] = []
        self._keys: dict[int, Key] = {}

    def add(self, candidate: int, values: Values) -> None:
        """A candidate comes in; it waits."""
        key = (-comparable(values[0]), candidate)
        self._keys[candidate] = key
        insort(self._all, key)
        insort(self._waiting, key)

    def take(self, candidate: int) -> None:
        """It does not wait any more; its place stays."""
        del self._waiting[bisect_left(self._waiting, self._keys[candidate])]

    def position(self, candidate: int) -> int:
        """How many stand before it."""
        return bisect_left(self._all, self._keys[candidate])

    def first_waiting(self) -> int | None:
        """The best that waits."""
        return self._waiting[0][1] if self._waiting else None

    def least_position(self, candidate: int) -> int:
        """How many stand before it for good."""
        return self.position(candidate)

    def num_hopeful(self, limit: int) -> int:
        """How many wait whose least position is below a limit."""
        if limit >= len(self._all):
            return len(self._waiting)
        return bisect_left(self._waiting, self._all[limit])


class FrontStanding(Standing):
    """By several objectives: by front, then by crowding distance, then by number.

    A newcomer may bring others forward, as it changes fronts and distances; only what dominates a candidate stands
    before it for good.

    Args:
        num_objectives: How many.
    """

    def __init__(self, num_objectives: int) -> None:
        self._rows: dict[int, int] = {}
        self._table = np.empty((FIRST_CAPACITY, num_objectives))
        self._candidates = np.empty(FIRST_CAPACITY, dtype=np.int64)
        self._ranks = np.empty(FIRST_CAPACITY, dtype=np.int64)
        self._dominators = np.empty(FIRST_CAPACITY, dtype=np.int64)
        self._waits = np.empty(FIRST_CAPACITY, dtype=bool)

    def add(self, candidate: int, values: Values) -> None:
        """A candidate comes in; it waits."""
        row = len(self._rows)
        if row == len(self._table):
            self._grow()
        new = as_table([values], self._table.shape[1])[0]
        others = self._table[:row]
        unequal = (others != new).any(axis=1)
        dominating = (others >= new).all(axis=1) & unequal
        dominated = np.flatnonzero((others <= new).all(axis=1) & unequal)
        rank = int(self._ranks[:row][dominating].max(initial=-1)) + 1
        self._push_down(dominated, rank, new[None])
        self._dominators[dominated] += 1
        self._rows[candidate] = row
        self._table[row], self._candidates[row] = new, candidate
        self._ranks[row], self._dominators[row], self._waits[row] = rank, np.count_nonzero(dominating), True

    def take(self, candidate: int) -> None:
        """It does not wait any more; its place stays."""
        self._waits[self._rows[candidate]] = False

    def position(self, candidate: int) -> int:
        """How many stand before it."""
        ranks = self._ranks[: len(self._rows)]
        rank = ranks[self._rows[candidate]]
        return int(np.count_nonzero(ranks < rank)) + self._ordered_front(rank).index(candidate)

    def first_waiting(self) -> int | None:
        """The best that waits."""
        waiting = self._ranks[: len(self._rows)][self._waits[: len(self._rows)]]
        if not len(waiting):
            return None
        front = self._ordered_front(waiting.min())
        return next(candidate for candidate in front if self._waits[self._rows[candidate]])

    def least_position(self, candidate: int) -> int:
        """How many stand before it for good."""
        return int(self._dominators[self._rows[candidate]])

    def num_hopeful(self, limit: int) -> int:
        """How many wait whose least position is below a limit."""
        size = len(self._rows)
        return int(np.count_nonzero(self._waits[:size] & (self._dominators[:size] < limit)))

    def _grow(self) -> None:
        """Make room for twice as many rows."""
        for name in ("_table", "_candidates", "_ranks", "_dominators", "_waits"):
            array = vars(self)[name]
            setattr(self, name, np.concatenate([array, np.empty_like(array)]))

    def _push_down(self, dominated: NDArray[np.intp], rank: int, pushing: Table) -> None:
        """Move rows to the next front as long as new members of their front dominate them.

        Args:
            dominated: Rows (D,) that the newcomer dominates; no others can move.
            rank: Front of the newcomer.
            pushing: Values (P, M) of those that have just come to this front.
        """
        while len(dominated):
            front = dominated[self._ranks[dominated] == rank]
            values = self._table[front][:, None]
            moved = front[((pushing >= values).all(axis=2) & (pushing > values).any(axis=2)).any(axis=1)]
            if not len(moved):
                return
            rank += 1
            self._ranks[moved] = rank
            pushing = self._table[moved]

    def _ordered_front(self, rank: int) -> list[int]:
        """The candidates of a front, those in sparse regions first."""
        rows = np.flatnonzero(self._ranks[: len(self._rows)] == rank)
        rows = rows[np.argsort(self._candidates[rows])]
        ordered: list[int] = self._candidates[rows[sparse_first(self._table[rows])]].tolist()
        return ordered
