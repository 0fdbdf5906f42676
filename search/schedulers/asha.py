"""ASHA: asynchronous successive halving, in which no worker ever waits for another."""

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

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
from search.schedulers.halving import bracket_sizes
from search.schedulers.ranking import LEAST, ParetoOrder, RungOrder, SingleObjectiveOrder, comparable
from utils.errors import ConfigError


@dataclass
class AsyncRung:
    """A rung at which candidates arrive one by one and are compared with those that arrived before.

    Attributes:
        bracket: Number of its bracket.
        epochs: Epochs at which it compares.
        reduction_factor: One in `reduction_factor` continues.
        values: Values of each candidate that reached it or failed on the way.
        order: The candidates that did not fail, the best first.
        ascending: Comparable values of the first objective of all candidates, sorted.
        promoted: Candidates that continued past it.
    """

    bracket: int
    epochs: int
    reduction_factor: int
    values: dict[int, Values] = field(default_factory=dict)
    order: RungOrder = field(default_factory=SingleObjectiveOrder)
    ascending: list[float] = field(default_factory=list)
    promoted: list[int] = field(default_factory=list)

    def record(self, candidate: int, values: Values) -> None:
        """Note the values of a candidate that reached the rung and waits to be promoted.

        One with the values `FAILED` failed on its way to the rung: it counts as the worst and is never promoted.
        """
        self.values[candidate] = values
        insort(self.ascending, comparable(values[0]))
        if values is FAILED:
            return
        if len(values) > 1 and isinstance(self.order, SingleObjectiveOrder):  # the first that did not fail
            self.order = ParetoOrder(len(values))
        self.order.add(candidate, values)

    def decide(self, candidate: int, values: Values) -> RungDecision:
        """Record a candidate that reached the rung and decide whether it continues.

        With one objective, it stops below the (1 - 1 / reduction_factor) quantile of the values that were there before.
        With several, it stops if more than one in reduction_factor of all others are better, which is the same rule
        for a value that is not between two others.
        """
        before = len(self.values)
        cutoff = self.cutoff() if len(values) == 1 else None
        self.record(candidate, values)
        if len(values) == 1:  # the first candidate has no cutoff and continues
            stops = cutoff is not None and comparable(values[0]) < comparable(cutoff)
        else:
            stops = before > 0 and self.order.position(candidate) * self.reduction_factor > before - 1
        if not stops:
            self.promote(candidate)
        return RungDecision(Decision.STOP if stops else Decision.CONTINUE, rung=self.epochs, cutoff=cutoff)

    def cutoff(self) -> float | None:
        """Return the quantile of the first objective, interpolated as numpy does; None if no number is required.

        A quantile between minus infinity and a number is minus infinity.
        """
        if not self.ascending:
            return None
        below, rest = divmod((len(self.ascending) - 1) * (self.reduction_factor - 1), self.reduction_factor)
        low, high = self.ascending[below], self.ascending[min(below + 1, len(self.ascending) - 1)]
        if low == -math.inf:  # NaN
            return None
        if low == LEAST:
            return -math.inf
        if rest == 0 or high == math.inf:
            return high if rest else low
        share = rest / self.reduction_factor
        # From the nearer end, as numpy does, so that the results are equal.
        return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)

    def promote(self, candidate: int) -> None:
        """Let a candidate that waits continue."""
        self.order.take(candidate)
        self.promoted.append(candidate)


class ASHA(Scheduler):
    """Asynchronous successive halving: each candidate is compared with those that reached a rung before it.

    Li et al. 2020, https://arxiv.org/abs/1810.05934.

    "stop": a candidate continues past a rung unless its value is below the (1 - 1 / reduction_factor) quantile of those
    recorded there before; the first one always does. It is never paused, and never resumed.

    "promote" (Algorithm 2): a candidate pauses at each rung. A free worker takes the best paused candidate that is
    among the first n // reduction_factor of the n of its rung, from the highest rung down; if there is none, a new
    candidate. Beyond the paper: after the last rung the same rule leads to a full training; and if nothing else is
    left to do, the first of a rung continues even if fewer than reduction_factor reached it, as in synchronous halving,
    so that a search ends with a candidate that was trained in full. The others stay paused.

    A candidate that failed counts as the worst of the rung that it ran for. One that is withdrawn is replaced by a new
    one; its values at the rungs that it had passed remain, as others were compared with them.

    With several brackets, bracket b begins at grace_period * reduction_factor ** b. The candidates are dealt to them by
    their numbers, in the proportions of Hyperband's brackets.

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.
        grace_period: Epochs of the first rung.
        reduction_factor: One in `reduction_factor` continues to the next rung.
        mode: "stop" or "promote".
        brackets: Number of brackets.

    Raises:
        ConfigError: A number does not fit.
    """

    def __init__(
        self,
        num_samples: int,
        max_epochs: int,
        *,
        grace_period: int = 3,
        reduction_factor: int = 3,
        mode: Literal["stop", "promote"] = "stop",
        brackets: int = 1,
    ) -> None:
        super().__init__(num_samples, max_epochs)
        check_halving(max_epochs, grace_period, reduction_factor)
        check_at_least("brackets", brackets, 1)
        if mode not in {"stop", "promote"}:
            raise ConfigError(f'mode "{mode}": must be "stop" or "promote". Choose one of them.')
        levels = [grace_period]  # 3, 9, 27, 81, 243 for 500 epochs; a full training is no rung unless it is a power
        while levels[-1] * reduction_factor <= max_epochs:
            levels.append(levels[-1] * reduction_factor)
        if brackets > len(levels):
            raise ConfigError(
                f"brackets {brackets}: each begins a rung later, and there are {len(levels)} rungs ({levels}). "
                f"Set brackets to {len(levels)} or less."
            )
        self._reduction_factor = reduction_factor
        self._promotes = mode == "promote"
        self._dealt = interleave(bracket_sizes(len(levels), reduction_factor)[:brackets])
        self._rungs = [
            [AsyncRung(bracket, epochs, reduction_factor) for epochs in levels[bracket:]] for bracket in range(brackets)
        ]
        # Promotions from a rung can never again be as many as before a candidate that counted there was withdrawn.
        self._ceilings = [[num_samples] * len(rungs) for rungs in self._rungs]
        self._cached_limits: list[list[int]] | None = None
        self._book = JobBook(num_samples)
        self._paused: dict[int, int] = {}
        self._finished: dict[int, Values] = {}
        self._next: Job | None = None

    def ask(self) -> Job | None:
        """Return the job of the best promotable candidate of the highest rung that has one, else of a new one."""
        job = self._next or self._promotion(at_least=0)
        if job is None and self._book.remaining:
            candidate = self._book.draw()
            job = Job(candidate, 0, self._rungs_of(candidate)[0].epochs if self._promotes else self.max_epochs)
        self._next = None
        self._cached_limits = None  # every call that changes something invalidates them
        if job is not None:
            self._paused.pop(job.candidate, None)
            self._book.begin(job)
        return job

    def report(self, candidate: int, epoch: int, values: Values) -> RungDecision:
        """At a rung: stop or continue, or pause. At max_epochs: stop."""
        self._book.advance(candidate, epoch, values)
        rung = next((each for each in self._rungs_of(candidate) if each.epochs == epoch), None)
        result = RungDecision(Decision.CONTINUE)
        if rung is not None and self._promotes:
            rung.record(candidate, values)
            result = RungDecision(Decision.PAUSE, rung=epoch)
        elif rung is not None:
            result = rung.decide(candidate, values)
        if epoch == self.max_epochs:
            result = result._replace(decision=Decision.STOP)
        if result.decision is not Decision.CONTINUE:
            self._book.end(candidate)
        if result.decision is Decision.PAUSE:
            self._paused[candidate] = self._num_passed(candidate) - 1
        self._promote_last()
        return result

    def end(self, candidate: int, ending: Ending) -> None:
        """Make a failed candidate the worst of the rung that it ran for; compare a finished one at all later rungs.

        A withdrawn one is replaced by a new candidate.
        """
        num_passed, values = self._num_passed(candidate), self._book.last_values.get(candidate)
        later_rungs = self._rungs_of(candidate)[num_passed:]
        if ending is Ending.WITHDRAWN and num_passed:
            self._ceilings = self._limits()  # a checkpoint that was given up before must not be needed again
        self._book.end(candidate)
        if ending is Ending.WITHDRAWN:
            self._book.remaining += not self._book.has_ended_draws
        elif ending is Ending.FINISHED and values is not None:
            self._finished[candidate] = values
            for rung in later_rungs:
                if self._promotes:  # at the rungs above it is recorded when it is promoted
                    rung.record(candidate, values)
                    break
                if rung.decide(candidate, values).decision is Decision.STOP:
                    break
        elif later_rungs:  # also if it finished before its first report: there is nothing to compare it by
            later_rungs[0].record(candidate, FAILED)
        self._promote_last()

    def end_draws(self) -> None:
        """Let only promotions follow."""
        self._book.end_draws()
        self._promote_last()

    @property
    def is_done(self) -> bool:
        """Whether nothing runs, nothing may be drawn and nothing can be promoted."""
        return not (self._book.jobs or self._book.remaining or self._next)

    def may_resume(self, candidate: int) -> bool:
        """Return whether a paused candidate may still be promoted in any case; false if it is not paused."""
        if candidate not in self._paused or self.is_done:
            return False
        if self._next is not None and self._next.candidate == candidate:  # promoted, not asked for yet
            return True
        index = self._paused[candidate]
        limit = self._limits()[self._bracket_of(candidate)][index]
        return self._rungs_of(candidate)[index].order.least_position(candidate) < limit

    def rungs(self) -> list[Rung]:
        """Return every rung; a full training is one only if max_epochs is grace_period * reduction_factor ** k."""
        return [
            Rung(rung.bracket, rung.epochs, dict(rung.values), tuple(rung.promoted))
            for rungs in self._rungs
            for rung in rungs
        ]

    def _bracket_of(self, candidate: int) -> int:
        return self._dealt[candidate % len(self._dealt)]

    def _rungs_of(self, candidate: int) -> list[AsyncRung]:
        return self._rungs[self._bracket_of(candidate)]

    def _num_passed(self, candidate: int) -> int:
        """Count the rungs that a candidate was trained up to."""
        return sum(rung.epochs <= self._book.epochs[candidate] for rung in self._rungs_of(candidate))

    def _promote_last(self) -> None:
        """If nothing else is left to do, find the candidate that may still continue."""
        self._cached_limits = None
        if not self._book.jobs and not self._book.remaining and self._next is None:
            self._next = self._promotion(at_least=0) or self._promotion(at_least=1)

    def _promotion(self, *, at_least: int) -> Job | None:
        """Promote the best of the highest rung that has a promotable candidate.

        Args:
            at_least: Places that a rung offers even if too few candidates reached it.
        """
        leading = [  # each rung before a full training, with the one above
            entry
            for rungs, ceilings in zip(self._rungs, self._ceilings, strict=True)
            for entry in zip(rungs, [*rungs[1:], None], ceilings, strict=True)
            if self._promotes and entry[0].epochs < self.max_epochs
        ]
        leading.sort(key=lambda entry: -entry[0].epochs)
        found = True
        while found:
            found = False
            for rung, above, ceiling in leading:
                places = min(max(len(rung.values) // self._reduction_factor, at_least), ceiling)
                candidate = rung.order.first_waiting()
                if candidate is None or rung.order.position(candidate) >= places:
                    continue
                rung.promote(candidate)
                if candidate not in self._finished:
                    return Job(candidate, rung.epochs, self.max_epochs if above is None else above.epochs)
                if above is not None:  # needs no training; this may let another one of a higher rung continue
                    above.record(candidate, self._finished[candidate])
                found = True
                break
        return None

    def _limits(self) -> list[list[int]]:
        """Return how many candidates of each rung can be promoted if all that can still reach it do."""
        if self._cached_limits is not None:
            return self._cached_limits
        jobs = [*self._book.jobs.values(), *([self._next] if self._next else [])]
        passed = [(self._bracket_of(job.candidate), self._num_passed(job.candidate)) for job in jobs]
        self._cached_limits = []
        for bracket, (rungs, ceilings) in enumerate(zip(self._rungs, self._ceilings, strict=True)):
            limits: list[int] = []
            # One that has not reached a rung may be withdrawn, and its successor belong to another bracket.
            coming = self._book.remaining + sum(num_passed == 0 for _, num_passed in passed)
            for index, (rung, ceiling) in enumerate(zip(rungs, ceilings, strict=True)):
                if index:
                    coming += passed.count((bracket, index))
                limits.append(min(max((len(rung.values) + coming) // self._reduction_factor, 1), ceiling))
                coming += rung.order.num_hopeful(limits[-1])
            self._cached_limits.append(limits)
        return self._cached_limits


def interleave(sizes: Sequence[int]) -> list[int]:
    """Deal sum(sizes) candidates to brackets: each to the one that is furthest behind its share.

    Returns:
        The bracket of each candidate.
    """
    counts = [0] * len(sizes)
    order = []
    for drawn in range(1, sum(sizes) + 1):
        behind = [size * drawn - count * sum(sizes) for size, count in zip(sizes, counts, strict=True)]
        order.append(behind.index(max(behind)))
        counts[order[-1]] += 1
    return order
