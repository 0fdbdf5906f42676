"""The synchronous schedulers: random search, successive halving and Hyperband.

Each fills brackets of candidates, one begun after the other, whose rungs wait for all of their members.
"""

import math
from abc import abstractmethod
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
    Need,
    Rung,
    RungDecision,
    Scheduler,
    Values,
    check_at_least,
    check_grows,
)
from search.schedulers.ranking import best_first
from search.schedulers.rungs import bracket_sizes, check_halving, interleave, rung_epochs
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
        return not self.levels[0].is_closed and self.num_members < self._size

    def admit(self, candidate: int) -> Job:
        """Take a new candidate into the first rung."""
        first = self.levels[0]
        first.awaited.add(candidate)
        self._level_of[candidate] = 0
        return Job(candidate, 0, first.epochs)

    def end_draws(self) -> None:
        """Take no more candidates: the size of the bracket is the number that it has."""
        if self.has_room:
            self._size = self.num_members
            self._close_complete_rungs()

    def widen(self, size: int) -> None:
        """Take up to `size` candidates, if none of them were compared yet."""
        if not self.levels[0].is_closed:
            self._size = max(self._size, size)

    @property
    def num_members(self) -> int:
        """Candidates in its first rung."""
        return len(self.levels[0].awaited) + len(self.levels[0].values)

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

    def give_up(self, candidate: int) -> None:
        """Never continue a candidate that does not run; its values remain. One that was promoted fails there."""
        index = self._level_of[candidate]
        self.levels[index].reserve.pop(candidate, None)
        if index + 1 < len(self.levels) and candidate in self.levels[index + 1].queue:
            self.levels[index + 1].queue.remove(candidate)
            self._level_of[candidate] = index + 1
            self.record(candidate, FAILED)
        else:
            self._failed.add(candidate)

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
        levels: Epochs of all rungs, ascending; the last is a full training.
    """

    def __init__(self, num_samples: int, max_epochs: int, levels: Sequence[int]) -> None:
        super().__init__(num_samples, max_epochs)
        self._levels = tuple(levels)
        self._book = JobBook(num_samples)
        self._brackets: list[Bracket] = []
        self._open: list[Bracket] = []
        self._bracket_of: dict[int, Bracket] = {}
        # The brackets of the present round, how many of them were begun, and the candidates before it.
        self._round: list[BracketSizes] = []
        self._num_begun = 0
        self._num_before = 0

    @abstractmethod
    def plan_round(self, num_candidates: int) -> list[BracketSizes]:
        """Return the brackets that follow each other for the candidates that remain; further rounds take the rest.

        Of more candidates, no bracket may become smaller. The last bracket is cut at the number that remains.
        """

    def ask(self) -> Job | Need | None:
        """Return the job of the best promoted candidate of the oldest bracket that has one, else ask for a new one."""
        self._open = [bracket for bracket in self._open if not bracket.levels[-1].is_closed]
        for bracket in self._open:
            job = bracket.next_job()
            if job is not None:
                return self._book.begin(job)
        return Need() if self._needs_candidate else None

    @property
    def _needs_candidate(self) -> bool:
        """Whether the newest bracket has room, or was compared for the first time, so that the next one may begin."""
        newest = self._brackets[-1] if self._brackets else None
        is_free = newest is None or newest.has_room or newest.levels[0].is_closed
        return is_free and self._book.remaining > 0

    def admit(self, number: int) -> Job:
        """Train it up to the first rung of the newest bracket, or of the next one."""
        if self._book.remaining and not self._needs_candidate:
            raise ValueError(f"Candidate {number}: none is needed. Admit one only in answer to a Need.")
        remaining = self._book.remaining
        self._book.admit(number)
        if not (self._brackets and self._brackets[-1].has_room):
            self._begin_bracket(remaining)
        self._bracket_of[number] = self._brackets[-1]
        return self._book.begin(self._brackets[-1].admit(number))

    def _begin_bracket(self, remaining: int) -> None:
        """Begin the next bracket that takes candidates."""
        while self._num_begun < len(self._round) and not self._round[self._num_begun].size:
            self._num_begun += 1
        if self._num_begun == len(self._round):
            self._round, self._num_begun = self.plan_round(remaining), 0
            self._num_before = self._book.num_counted - 1
        sizes = self._round[self._num_begun]
        self._num_begun += 1
        self._brackets.append(Bracket(len(self._brackets), sizes._replace(size=min(sizes.size, remaining))))
        self._open.append(self._brackets[-1])

    def report(self, candidate: int, epoch: int, values: Values) -> RungDecision:
        """Continue up to the rung, pause there, stop at the last."""
        if epoch < self._book.advance(candidate, epoch, values).end:
            return RungDecision(Decision.CONTINUE)
        self._book.leave(candidate)
        self._bracket_of[candidate].record(candidate, values)
        return RungDecision(Decision.STOP if epoch == self.max_epochs else Decision.PAUSE, rung=epoch)

    def end(self, candidate: int, ending: Ending) -> None:
        """Make a failed candidate the worst of its rung; promote a finished one without a job.

        A withdrawn one is replaced by a new candidate in the first rung, by the next best of the rung below in a later
        one. One that does not run any more is not promoted.
        """
        job = self._book.end(candidate)
        bracket, values = self._bracket_of[candidate], self._book.last_values.get(candidate)
        if job is None:
            bracket.give_up(candidate)
        elif ending is Ending.WITHDRAWN:
            bracket.withdraw(candidate)
            del self._bracket_of[candidate]
            self._book.num_counted -= job.start == 0
            if self._book.has_ended_draws:  # nothing will fill the room that it leaves
                bracket.end_draws()
        elif ending is Ending.FINISHED and values is not None:
            bracket.record(candidate, values, is_final=True)
        else:  # also if it finished before its first report: there is nothing to compare it by
            bracket.record(candidate, FAILED)

    def end_draws(self) -> None:
        """Halve the bracket that is being filled with the candidates that it has."""
        self._book.has_ended_draws = True
        if self._brackets:
            self._brackets[-1].end_draws()

    def grow(self, num_samples: int) -> None:
        """Widen the bracket that is being filled, as long as none of it were compared, and begin further ones."""
        check_grows(num_samples, self.num_samples)
        self.num_samples = num_samples
        self._book.grow(num_samples)
        if self._brackets:
            newest = self._brackets[-1]
            self._round = self.plan_round(num_samples - self._num_before)
            planned = self._round[self._num_begun - 1].size
            newest.widen(min(planned, newest.num_members + self._book.remaining))

    def fidelities(self) -> tuple[int, ...]:
        """Return the epochs of all rungs."""
        return self._levels

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


class RandomSearch(SynchronousScheduler):
    """Training in full of every candidate: the baseline of all other schedulers.

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.
    """

    def __init__(self, num_samples: int, max_epochs: int) -> None:
        super().__init__(num_samples, max_epochs, (max_epochs,))

    def plan_round(self, num_candidates: int) -> list[BracketSizes]:
        """Return one bracket, in which nothing is compared."""
        return [BracketSizes(num_candidates, self._levels, ())]


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
        super().__init__(num_samples, max_epochs, levels)
        self._factors = factors
        self._bracket_size = bracket_size

    def plan_round(self, num_candidates: int) -> list[BracketSizes]:
        """Return a bracket of `bracket_size` candidates, or of all."""
        return [BracketSizes(self._bracket_size or num_candidates, self._levels, self._factors)]

    def grow(self, num_samples: int) -> None:
        """Fill the last bracket and begin further ones.

        Raises:
            ConfigError: They are not more than before; or all are to be compared with each other and were.
        """
        is_compared = any(bracket.levels[0].is_closed and bracket.num_members for bracket in self._brackets)
        if self._bracket_size is None and self._factors and is_compared:
            raise ConfigError(
                f"search.num_samples {num_samples}: must stay {self.num_samples}, as the candidates were compared with "
                f"each other after {self._levels[0]} epochs, and more of them would change who was promoted. Set "
                "search.num_samples back, or start a new search, whose scheduler may have a bracket_size."
            )
        super().grow(num_samples)


class Hyperband(SynchronousScheduler):
    """Brackets of successive halving that begin with few epochs for many candidates or with many epochs for few.

    The brackets with s_max, ..., 1, 0 halvings follow each other, again and again until num_samples candidates have
    been drawn. The rungs are those of successive halving: a bracket with s halvings has the last s + 1 of them.
    Li et al. 2018, https://arxiv.org/abs/1603.06560.

    In the paper a round of all brackets is always complete. Here num_samples may be fewer than those of a round, or
    leave a rest for the last one: they are shared among the brackets of that round in the proportions of the paper, so
    that also a small search has candidates that are not compared after few epochs. A bracket of one candidate trains
    it in full.

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
        super().__init__(num_samples, max_epochs, levels)
        self._sizes = bracket_sizes(len(levels), reduction_factor)
        self._factors = (reduction_factor,) * (len(levels) - 1)
        self._shares_rest = True

    def follow_format(self, version: int) -> None:
        """For format 1: brackets of the paper's sizes, of which the last takes the rest, also if it is the first."""
        self._shares_rest = version > 1

    def plan_round(self, num_candidates: int) -> list[BracketSizes]:
        """Return the brackets of a round; a later one begins at a later rung."""
        sizes = self._sizes
        if self._shares_rest and num_candidates < sum(sizes):
            dealt = interleave(sizes)[:num_candidates]
            sizes = [dealt.count(bracket) for bracket in range(len(sizes))]
        return [BracketSizes(size, self._levels[first:], self._factors[first:]) for first, size in enumerate(sizes)]
