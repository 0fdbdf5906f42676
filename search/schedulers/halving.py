"""The synchronous schedulers: random search, successive halving and Hyperband.

Each fills brackets of candidates, one begun after the other, whose rungs wait for all of their members.
"""

import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from search.schedulers.base import (
    FAILED,
    Decision,
    Ending,
    Job,
    JobBook,
    Rung,
    RungDecision,
    Scheduler,
    Values,
    check_at_least,
    check_halving,
)
from search.schedulers.ranking import best_first
from utils.errors import ConfigError


class BracketSizes(NamedTuple):
    """The sizes of a bracket.

    Attributes:
        size: Candidates in its first rung.
        levels: Epochs of its rungs, ascending; the last is a full training.
        factors: One in `factor` of those at a rung is promoted to the next; one for each rung but the last.
    """

    size: int
    levels: tuple[int, ...]
    factors: tuple[int, ...]


@dataclass
class _Level:
    """A rung in the making.

    Attributes:
        epochs: Epochs at which it compares.
        awaited: Members that have not reached it.
        queue: Those of them that wait for a worker, the best first.
        values: Values of the members that reached it.
        promoted: Candidates that continued past it.
        reserve: The other members of a closed rung, the best first; they follow if a promoted one is withdrawn.
        is_closed: Whether its members were compared.
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

    Of n candidates, n divided by the first k factors and rounded down are promoted to rung k, at least one. Failed
    candidates are never promoted, so there may be fewer. The promotions depend on the members' values only, not on the
    order in which they were reported.

    Args:
        number: Number of the bracket, from 0.
        sizes: Its candidates and rungs.

    Attributes:
        levels: Its rungs, in ascending order of epochs.
    """

    def __init__(self, number: int, sizes: BracketSizes) -> None:
        self.number = number
        self.levels = [_Level(epochs) for epochs in sizes.levels]
        self._size = sizes.size
        self._factors = sizes.factors
        self._level_of: dict[int, int] = {}
        self._failed: set[int] = set()
        self._finished: dict[int, Values] = {}

    @property
    def has_room(self) -> bool:
        """Whether its first rung takes more candidates."""
        first = self.levels[0]
        return not first.is_closed and len(first.awaited) + len(first.values) < self._size

    def admit(self, candidate: int) -> Job:
        """Take a new candidate into the first rung."""
        first = self.levels[0]
        first.awaited.add(candidate)
        self._level_of[candidate] = 0
        return Job(candidate, 0, first.epochs)

    def end_draws(self) -> None:
        """Take no more candidates: the size of the bracket is the number that it has."""
        if self.has_room:
            self._size = len(self.levels[0].awaited) + len(self.levels[0].values)
            self._close_complete_rungs()

    def next_job(self) -> Job | None:
        """Return the job of the next promoted candidate, the best first; None if none waits."""
        for index, level in enumerate(self.levels):
            if level.queue:
                candidate = level.queue.popleft()
                self._level_of[candidate] = index
                return Job(candidate, self.levels[index - 1].epochs, level.epochs)
        return None

    def record(self, candidate: int, values: Values, *, is_final: bool = False) -> None:
        """Note the values of a candidate at the rung that it ran for.

        Args:
            candidate: Number of the candidate.
            values: Its values; one with the values `FAILED` is the last of its rung and never promoted.
            is_final: Whether the values hold for all later rungs, too, which then need no training.
        """
        if values is FAILED:
            self._failed.add(candidate)
        elif is_final:
            self._finished[candidate] = values
        level = self.levels[self._level_of[candidate]]
        level.awaited.remove(candidate)
        level.values[candidate] = values
        self._close_complete_rungs()

    def withdraw(self, candidate: int) -> None:
        """Forget a candidate. In the first rung that makes room; later the next best of the rung below follows."""
        index = self._level_of.pop(candidate)
        self.levels[index].awaited.remove(candidate)
        # As if it had never been drawn: also the rungs that it has passed forget it.
        for level in self.levels[:index]:
            del level.values[candidate]
            level.promoted.remove(candidate)
        if index and self.levels[index - 1].reserve:
            self._promote_best(index - 1)
        self._close_complete_rungs()

    def may_resume(self, candidate: int) -> bool:
        """Return whether a paused candidate was promoted or may still be."""
        index = self._level_of[candidate]
        if candidate in self._failed or candidate in self._finished or index + 1 == len(self.levels):
            return False
        level, above = self.levels[index], self.levels[index + 1]
        return not level.is_closed or candidate in above.awaited or (candidate in level.reserve and not above.is_closed)

    def _close_complete_rungs(self) -> None:
        """Compare the members of each rung that all of them have reached."""
        for index, level in enumerate(self.levels):
            if level.is_closed:
                continue
            if level.awaited or (index == 0 and self.has_room):
                return  # the rungs above wait for this one
            level.is_closed = True
            if index + 1 < len(self.levels):
                ranked = [candidate for candidate in best_first(level.values) if candidate not in self._failed]
                level.reserve = dict.fromkeys(ranked)
                places = max(1, self._size // math.prod(self._factors[: index + 1]))
                for _ in ranked[:places]:
                    self._promote_best(index)

    def _promote_best(self, index: int) -> None:
        level, above = self.levels[index], self.levels[index + 1]
        candidate = next(iter(level.reserve))  # the reserve is in the order of the ranking
        del level.reserve[candidate]
        level.promoted.append(candidate)
        if candidate in self._finished:
            self._level_of[candidate] = index + 1
            above.values[candidate] = self._finished[candidate]
        else:
            above.awaited.add(candidate)
            above.queue.append(candidate)


class SynchronousScheduler(Scheduler):
    """A scheduler that fills brackets with candidates and halves each by itself.

    Decisions depend on the candidates' values only, not on the number of workers and not on the order of their
    reports. So that no worker idles at the end of a bracket, the next one is begun as soon as the first rung of the
    one before was compared: from then on the numbers of its candidates are known.

    A candidate that is withdrawn in its first rung is replaced by a new one; later, by the next best of the rung below.

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.
        brackets: The brackets in their order, again and again; the last one is cut at num_samples.
    """

    def __init__(self, num_samples: int, max_epochs: int, brackets: Sequence[BracketSizes]) -> None:
        super().__init__(num_samples, max_epochs)
        self._book = JobBook(num_samples)
        self._coming = itertools.cycle(brackets)
        self._brackets: list[Bracket] = []
        self._open: list[Bracket] = []
        self._bracket_of: dict[int, Bracket] = {}

    def ask(self) -> Job | None:
        """Return the job of the best promoted candidate of the oldest bracket that has one, else of a new one."""
        self._open = [bracket for bracket in self._open if not bracket.levels[-1].is_closed]
        for bracket in self._open:
            job = bracket.next_job()
            if job is not None:
                return self._book.begin(job)
        # No promoted one waits: draw a new one, for the newest bracket if it has room, else for the next.
        newest = self._brackets[-1] if self._brackets else None
        if newest is None or not newest.has_room:
            if not self._book.remaining or (newest is not None and not newest.levels[0].is_closed):
                return None
            sizes = next(self._coming)
            newest = Bracket(len(self._brackets), sizes._replace(size=min(sizes.size, self._book.remaining)))
            self._brackets.append(newest)
            self._open.append(newest)
        candidate = self._book.draw()
        self._bracket_of[candidate] = newest
        return self._book.begin(newest.admit(candidate))

    def report(self, candidate: int, epoch: int, values: Values) -> RungDecision:
        """Continue up to the rung, pause there, stop at the last."""
        if epoch < self._book.advance(candidate, epoch, values).end:
            return RungDecision(Decision.CONTINUE)
        self._book.end(candidate)
        self._bracket_of[candidate].record(candidate, values)
        return RungDecision(Decision.STOP if epoch == self.max_epochs else Decision.PAUSE, rung=epoch)

    def end(self, candidate: int, ending: Ending) -> None:
        """Make a failed candidate the worst of its rung; promote a finished one without a job.

        A withdrawn one is replaced by a new candidate in the first rung, by the next best of the rung below in a later
        one.
        """
        job = self._book.end(candidate)
        bracket, values = self._bracket_of[candidate], self._book.last_values.get(candidate)
        if ending is Ending.WITHDRAWN:
            bracket.withdraw(candidate)
            del self._bracket_of[candidate]
            if self._book.has_ended_draws:  # nothing will fill the room that it leaves
                bracket.end_draws()
            elif job.start == 0:
                self._book.remaining += 1
        elif ending is Ending.FINISHED and values is not None:
            bracket.record(candidate, values, is_final=True)
        else:  # also if it finished before its first report: there is nothing to compare it by
            bracket.record(candidate, FAILED)

    def end_draws(self) -> None:
        """Halve the bracket that is being filled with the candidates that it has."""
        self._book.end_draws()
        if self._brackets:
            self._brackets[-1].end_draws()

    @property
    def is_done(self) -> bool:
        """Whether every bracket is done."""
        is_closed = all(bracket.levels[-1].is_closed for bracket in self._open)
        return is_closed and not self._book.remaining and not self._book.jobs

    def may_resume(self, candidate: int) -> bool:
        """Return whether a paused candidate was promoted or may still be; false if it is not paused."""
        if candidate in self._book.jobs or candidate not in self._bracket_of:
            return False
        return self._bracket_of[candidate].may_resume(candidate)

    def rungs(self) -> list[Rung]:
        """Return the rungs of the brackets that were begun."""
        return [
            Rung(bracket.number, level.epochs, dict(level.values), tuple(level.promoted))
            for bracket in self._brackets
            for level in bracket.levels
        ]


GRACE_PERIOD, REDUCTION_FACTOR = 1, 3


def rung_epochs(max_epochs: int, grace_period: int, reduction_factor: int) -> tuple[int, ...]:
    """Return the epochs of the rungs: grace_period, each next reduction_factor times it, and at last max_epochs.

    One that is nearer to max_epochs than half a step (by their ratio) is left out: comparing at 27 epochs saves
    nothing if 28 are a full training. From 2 in threes: 2, 6, 18, 50 for 50 and 2, 6, 20 for 20.
    """
    levels = []
    epochs = grace_period
    while epochs**2 * reduction_factor <= max_epochs**2:
        levels.append(epochs)
        epochs *= reduction_factor
    return (*levels, max_epochs)


def bracket_sizes(num_rungs: int, reduction_factor: int) -> list[int]:
    """Return the candidates of each bracket, that with the most rungs first.

    A bracket of s + 1 rungs, of num_rungs = s_max + 1 at most, begins with the smallest whole number that is at least
    (s_max + 1) / (s + 1) * reduction_factor ** s (Li et al. 2018, https://arxiv.org/abs/1603.06560, Algorithm 1).
    """
    halvings = range(num_rungs - 1, -1, -1)
    return [-(-num_rungs * reduction_factor**halving // (halving + 1)) for halving in halvings]


class RandomSearch(SynchronousScheduler):
    """Training in full of every candidate: the baseline of all other schedulers.

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.
    """

    def __init__(self, num_samples: int, max_epochs: int) -> None:
        super().__init__(num_samples, max_epochs, [BracketSizes(num_samples, (max_epochs,), ())])


class SuccessiveHalving(SynchronousScheduler):
    """Successive halving: all candidates train a little, the better ones more, the best in full.

    Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943.

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.
        grace_period: Epochs of the first rung; see `rung_epochs` for the others.
        reduction_factor: Of n candidates, n // reduction_factor ** k are promoted to rung k, at least one.
        rungs: Instead of these two, each rung before the full training as [epochs, factor], from which one in `factor`
            is promoted: of 120 candidates, [[2, 6], [6, 4], [18, 2]] trains 20 beyond 2 epochs, 5 beyond 6 and 2
            beyond 18.
        bracket_size: Candidates that are compared with each other; None: all. The last bracket takes the rest.

    Raises:
        ConfigError: A number does not fit.
    """

    def __init__(
        self,
        num_samples: int,
        max_epochs: int,
        *,
        grace_period: int = GRACE_PERIOD,
        reduction_factor: int = REDUCTION_FACTOR,
        rungs: Sequence[tuple[int, int]] | None = None,
        bracket_size: int | None = None,
    ) -> None:
        check_halving(max_epochs, grace_period, reduction_factor)
        if bracket_size is not None:
            check_at_least("bracket_size", bracket_size, 1)
        if rungs is None:
            levels = rung_epochs(max_epochs, grace_period, reduction_factor)
            factors = (reduction_factor,) * (len(levels) - 1)
        else:
            if (grace_period, reduction_factor) != (GRACE_PERIOD, REDUCTION_FACTOR):
                raise ConfigError(
                    f"rungs {rungs} with grace_period {grace_period} and reduction_factor {reduction_factor}: rungs "
                    "say both. Leave out either rungs or the other two."
                )
            before = [epochs for epochs, _ in rungs]
            if before != sorted(set(before)) or not all(0 < epochs < max_epochs for epochs in before):
                raise ConfigError(
                    f"rungs at {before} epochs: must ascend from at least 1 and end before the {max_epochs} epochs of "
                    "a full training, which is not one of them. Write e.g. [[2, 6], [6, 4], [18, 2]]."
                )
            for _, factor in rungs:
                check_at_least("rungs: a factor of", factor, 2)
            levels = (*before, max_epochs)  # a full training follows the last of them without a factor
            factors = tuple(factor for _, factor in rungs)
        super().__init__(num_samples, max_epochs, [BracketSizes(bracket_size or num_samples, levels, factors)])


class Hyperband(SynchronousScheduler):
    """Brackets of successive halving that begin with few epochs for many candidates or with many epochs for few.

    The brackets with s_max, ..., 1, 0 halvings follow each other, again and again until num_samples candidates have
    been drawn; the last bracket takes the rest and its rungs shrink accordingly. The rungs are those of successive
    halving: a bracket with s halvings has the last s + 1 of them. Li et al. 2018, https://arxiv.org/abs/1603.06560.

    Args:
        num_samples: Candidates to try, in all brackets together.
        max_epochs: Epochs of a full training.
        grace_period: Epochs of the first rung of the first bracket.
        reduction_factor: One in `reduction_factor` is promoted to the next rung.

    Raises:
        ConfigError: A number does not fit.
    """

    def __init__(self, num_samples: int, max_epochs: int, *, grace_period: int = 1, reduction_factor: int = 3) -> None:
        check_halving(max_epochs, grace_period, reduction_factor)
        levels = rung_epochs(max_epochs, grace_period, reduction_factor)
        sizes = bracket_sizes(len(levels), reduction_factor)
        factors = (reduction_factor,) * (len(levels) - 1)
        # A later bracket begins at a later rung.
        brackets = [BracketSizes(size, levels[first:], factors[first:]) for first, size in enumerate(sizes)]
        super().__init__(num_samples, max_epochs, brackets)
