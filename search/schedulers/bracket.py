"""One bracket of synchronous successive halving: a rung is judged when all of its members have been heard of."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from search.schedulers.base import Job, Rung, Values
from search.schedulers.bookkeeping import FAILED
from search.schedulers.ranking import best_first


@dataclass
class _Level:
    """One rung.

    Attributes:
        epochs: At which it compares.
        awaited: Members not yet heard of.
        queue: Those of them that wait for a worker, the best first.
        values: Of the members heard of.
        promoted: Those that went beyond.
        reserve: When it is closed, the rest, the best first; they move up when one that was promoted is withdrawn.
        is_closed: Whether it was judged.
    """

    epochs: int
    awaited: set[int] = field(default_factory=set)
    queue: deque[int] = field(default_factory=deque)
    values: dict[int, Values] = field(default_factory=dict)
    promoted: list[int] = field(default_factory=list)
    reserve: dict[int, None] = field(default_factory=dict)
    is_closed: bool = False


class Bracket:
    """A group of candidates that is halved at each rung.

    Of n candidates, n divided by the first k factors and rounded down are promoted to rung k, at least one. What failed
    or was given up is never promoted, so there may be fewer. Who is promoted depends on the members' values only, not
    on the order in which they became known.

    Args:
        number: Of the bracket, from 0.
        size: Candidates in its first rung.
        levels: Epochs of its rungs, ascending; the last is a full training.
        factors: Of those at a rung, one in so many goes on; one for each rung but the last.
    """

    def __init__(self, number: int, size: int, *, levels: Sequence[int], factors: Sequence[int]) -> None:
        self.number = number
        self._size = size
        self._factors = tuple(factors)
        self._levels = [_Level(epochs) for epochs in levels]
        self._level_of: dict[int, int] = {}
        self._failed: set[int] = set()
        self._finished: dict[int, Values] = {}

    @property
    def has_room(self) -> bool:
        """Whether its first rung takes more candidates."""
        first = self._levels[0]
        return not self.is_settled and len(first.awaited) + len(first.values) < self._size

    @property
    def is_settled(self) -> bool:
        """Whether its first rung was judged, so that no further candidate will be drawn for it."""
        return self._levels[0].is_closed

    @property
    def is_done(self) -> bool:
        """Whether its last rung was judged."""
        return self._levels[-1].is_closed

    def admit(self, candidate: int) -> Job:
        """Take a new candidate into the first rung."""
        first = self._levels[0]
        first.awaited.add(candidate)
        self._level_of[candidate] = 0
        return Job(candidate, 0, first.epochs)

    def end_draws(self) -> None:
        """Take no more candidates: the bracket is as large as it is."""
        if self.has_room:
            self._size = len(self._levels[0].awaited) + len(self._levels[0].values)
            self._settle()

    def next_job(self) -> Job | None:
        """The next promoted candidate's job, the best first; None while none waits."""
        for index, level in enumerate(self._levels):
            if level.queue:
                candidate = level.queue.popleft()
                self._level_of[candidate] = index
                return Job(candidate, self._levels[index - 1].epochs, level.epochs)
        return None

    def is_last(self, epochs: int) -> bool:
        """Whether that is the last rung."""
        return epochs == self._levels[-1].epochs

    def reach(self, candidate: int, values: Values) -> None:
        """A candidate was trained up to the rung that it ran for."""
        self._hear(candidate, values)

    def finish(self, candidate: int, values: Values) -> None:
        """Its values stand for this rung and all later ones, for which it needs no training."""
        self._finished[candidate] = values
        self._hear(candidate, values)

    def fail(self, candidate: int) -> None:
        """It is the last of its rung and never promoted."""
        self._failed.add(candidate)
        self._hear(candidate, FAILED)

    def withdraw(self, candidate: int) -> None:
        """Forget it. In the first rung that makes room; later the next best of the rung below takes its place."""
        index = self._level_of.pop(candidate)
        self._levels[index].awaited.remove(candidate)
        for level in self._levels[:index]:
            del level.values[candidate]
            level.promoted.remove(candidate)
        if index and self._levels[index - 1].reserve:
            self._promote(index - 1)
        self._settle()

    def may_resume(self, candidate: int) -> bool:
        """Whether a paused candidate was promoted or may still be."""
        index = self._level_of[candidate]
        if candidate in self._failed or candidate in self._finished or index + 1 == len(self._levels):
            return False
        level, above = self._levels[index], self._levels[index + 1]
        return not level.is_closed or candidate in above.awaited or (candidate in level.reserve and not above.is_closed)

    def rungs(self) -> list[Rung]:
        """Its rungs as they stand."""
        return [Rung(self.number, level.epochs, dict(level.values), tuple(level.promoted)) for level in self._levels]

    def _hear(self, candidate: int, values: Values) -> None:
        level = self._levels[self._level_of[candidate]]
        level.awaited.remove(candidate)
        level.values[candidate] = values
        self._settle()

    def _settle(self) -> None:
        """Judge each rung of which all members were heard of."""
        for index, level in enumerate(self._levels):
            if level.is_closed:
                continue
            if level.awaited or (index == 0 and self.has_room):
                return
            level.is_closed = True
            if index + 1 < len(self._levels):
                ranked = [candidate for candidate in best_first(level.values) if candidate not in self._failed]
                level.reserve = dict.fromkeys(ranked)
                for _ in ranked[: self._places(index + 1)]:
                    self._promote(index)

    def _places(self, index: int) -> int:
        """How many candidates a rung takes."""
        return max(1, self._size // math.prod(self._factors[:index]))

    def _promote(self, index: int) -> None:
        """Let the best of what is left of a rung go on."""
        level, above = self._levels[index], self._levels[index + 1]
        candidate = next(iter(level.reserve))
        del level.reserve[candidate]
        level.promoted.append(candidate)
        if candidate in self._finished:
            self._level_of[candidate] = index + 1
            above.values[candidate] = self._finished[candidate]
        else:
            above.awaited.add(candidate)
            above.queue.append(candidate)
