"""ASHA: asynchronous successive halving, in which no worker ever waits for another."""

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

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
from search.schedulers.grace import FirstRung, earlier_defaults, starting_epochs
from search.schedulers.ranking import LEAST, ParetoOrder, RungOrder, SingleObjectiveOrder, comparable
from search.schedulers.rungs import bracket_sizes, check_halving, interleave, rung_epochs
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
        splits_ties: Whether of equal candidates only one in `reduction_factor` continues; all do if not.
        promoted: Candidates that continued past it.
        passed: Those of them that continued without a decision.
    """

    bracket: int
    epochs: int
    reduction_factor: int
    splits_ties: bool = True
    values: dict[int, Values] = field(default_factory=dict)
    order: RungOrder = field(default_factory=SingleObjectiveOrder)
    ascending: list[float] = field(default_factory=list)
    promoted: list[int] = field(default_factory=list)
    passed: set[int] = field(default_factory=set)

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
        for a value that is not between two others. The first one always continues.

        Among equal candidates, neither rule tells those that continue from those that stop: if the quantile is among
        them, a further one continues only while fewer than one in reduction_factor of all did.
        """
        stops, is_tied, cutoff = False, False, None
        if not self.values:
            self.record(candidate, values)
        elif len(values) == 1:
            cutoff = self.cutoff()
            level, required = comparable(values[0]), comparable(math.nan if cutoff is None else cutoff)
            place = bisect_left(self.ascending, level)
            is_recorded = place < len(self.ascending) and self.ascending[place] == level
            stops, is_tied = level < required, level == required and is_recorded
            self.record(candidate, values)
        else:
            places = (len(self.values) - 1) // self.reduction_factor
            self.record(candidate, values)
            best, equal = self.order.tied_places(candidate)
            stops, is_tied = self.order.position(candidate) > places, best <= places < best + equal
        if is_tied and self.splits_ties:
            stops = len(self.promoted) * self.reduction_factor >= len(self.values)
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

    def promotable(self, places: int) -> int | None:
        """Return the best candidate that waits if it is among the first `places`, else None.

        Candidates that were promoted before may have moved back since then. If the last of the places is among equal
        candidates, a further one of these is promotable only while there are fewer promoted ones than places.
        """
        candidate = self.order.first_waiting()
        if candidate is None or self.order.position(candidate) >= places:
            return None
        if self.splits_ties and len(self.promoted) >= places:
            first, equal = self.order.tied_places(candidate)
            if equal and first + equal >= places:
                return None
        return candidate

    def promote(self, candidate: int) -> None:
        """Let a candidate that waits continue."""
        self.order.take(candidate)
        self.promoted.append(candidate)

    def let_pass(self, candidate: int, values: Values) -> None:
        """Record a candidate that continues without a decision."""
        self.record(candidate, values)
        self.promote(candidate)
        self.passed.add(candidate)


class ASHA(Scheduler):
    """Asynchronous successive halving: each candidate is compared with those that reached a rung before it.

    Li et al. 2020, https://arxiv.org/abs/1810.05934.

    "stop": a candidate continues past a rung unless its value is below the (1 - 1 / reduction_factor) quantile of those
    recorded there before; the first one always does. It is never paused, and never resumed. Of candidates that are
    equal at this quantile, as many continue as leave it at one in reduction_factor of all; the paper says nothing of
    them, and where most candidates predict one class only, all of them would be trained in full.

    "promote" (Algorithm 2): a candidate pauses at each rung. A free worker takes the best paused candidate that is
    among the first n // reduction_factor of the n of its rung, from the highest rung down; if there is none, a new
    candidate. Beyond the paper: if nothing else is left to do, the first of a rung continues even if fewer than
    reduction_factor reached it, as in synchronous halving, so that a search ends with a candidate that was trained in
    full. The others stay paused.

    A candidate that failed counts as the worst of the rung that it ran for. One that is withdrawn is replaced by a new
    one; its values at the rungs that it had passed remain, as others were compared with them.

    With `grace_period` "auto", the first rung lets all candidates pass until its results are known to predict later
    ones, see `FirstRung`; then about one in `reduction_factor` of those that passed counts at the next rung.

    With several brackets, bracket b begins at rung b of `rung_epochs`, from 0. The candidates are dealt to them by
    their numbers, in the proportions of Hyperband's brackets.

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.
        grace_period: Epochs of the first rung; see `rung_epochs` for the others. "auto": 1, or a hundredth of long
            trainings, and the rung compares only once that is known to be useful.
        reduction_factor: One in `reduction_factor` continues to the next rung.
        mode: "stop" or "promote"; null is "promote", in studies of earlier versions "stop".
        brackets: Number of brackets.

    Raises:
        ConfigError: A number does not fit.
    """

    def __init__(
        self,
        num_samples: int,
        max_epochs: int,
        *,
        grace_period: int | Literal["auto"] = "auto",
        reduction_factor: int = 3,
        mode: Literal["stop", "promote"] | None = None,
        brackets: int = 1,
    ) -> None:
        super().__init__(num_samples, max_epochs)
        if isinstance(grace_period, str) and grace_period != "auto":
            raise ConfigError(
                f'grace_period "{grace_period}": must be a number of epochs, or "auto". Write one of both.'
            )
        start = starting_epochs(grace_period, max_epochs, brackets)
        check_halving(max_epochs, start, reduction_factor)
        check_at_least("brackets", brackets, 1)
        if mode not in {"stop", "promote", None}:
            raise ConfigError(f'mode "{mode}": must be "stop" or "promote". Choose one of them.')
        levels = rung_epochs(max_epochs, start, reduction_factor)
        if brackets > len(levels):
            raise ConfigError(
                f"brackets {brackets}: each begins a rung later, and there are {len(levels)} rungs ({list(levels)}). "
                f"Set brackets to {len(levels)} or less."
            )
        self._grace_period = grace_period
        self._mode = mode
        self._reduction_factor = reduction_factor
        self._promotes = mode != "stop"
        self._num_brackets = brackets
        self._follows_format_1 = False
        self._set_rungs(levels)
        self._first_rung = FirstRung(len(levels), is_chosen=grace_period != "auto" or brackets > 1)
        self._cached_limits: list[list[int]] | None = None
        self._book = JobBook(num_samples)
        self._paused: dict[int, int] = {}
        self._finished: dict[int, Values] = {}
        self._next: Job | None = None

    def follow_format(self, version: int) -> None:
        """Up to 2: other defaults, see `earlier_defaults`. For 1: rungs at every power up to max_epochs; ties continue.

        There, a candidate that finished by itself was promoted at the next `ask` instead of at once.
        """
        if version > 2:
            return
        earlier_grace, mode = earlier_defaults(self._grace_period, self._mode)
        self._promotes = mode == "promote"
        grace_period = min(earlier_grace, self.max_epochs)
        self._first_rung = FirstRung(1, is_chosen=True)
        if version == 2:
            self._set_rungs(rung_epochs(self.max_epochs, grace_period, self._reduction_factor))
            return
        levels = [grace_period]
        while levels[-1] * self._reduction_factor <= self.max_epochs:
            levels.append(levels[-1] * self._reduction_factor)
        self._follows_format_1 = True
        self._set_rungs(levels)

    def _set_rungs(self, levels: Sequence[int]) -> None:
        sizes = bracket_sizes(len(levels), self._reduction_factor)
        self._dealt = interleave(sizes[: self._num_brackets])
        self._rungs = [
            [
                AsyncRung(bracket, epochs, self._reduction_factor, splits_ties=not self._follows_format_1)
                for epochs in levels[bracket:]
            ]
            for bracket in range(self._num_brackets)
        ]
        self._reset_ceilings()

    def _reset_ceilings(self) -> None:
        # Promotions from a rung can never again be as many as before a candidate that counted there was withdrawn.
        self._ceilings = [[self.num_samples] * len(rungs) for rungs in self._rungs]

    def ask(self) -> Job | Need | None:
        """Return the job of the best promotable candidate of the highest rung that has one, else ask for a new one."""
        job = self._next or self._promotion(at_least=0)
        if job is None:
            self._cached_limits = None  # in format 1, one that finished may have been promoted
            return Need() if self._book.remaining else None
        self._next = None
        self._paused.pop(job.candidate, None)
        self._book.begin(job)
        self._settle()
        return job

    def admit(self, number: int) -> Job:
        """Train it up to the first rung of its bracket, or in full if none is paused."""
        self._book.admit(number)
        self._cached_limits = None
        stop = self._rungs_of(number)[self._first_rung.next_stop] if self._promotes else None
        return self._book.begin(Job(number, 0, self.max_epochs if stop is None else stop.epochs))

    def report(self, candidate: int, epoch: int, values: Values) -> RungDecision:
        """At a rung: stop or continue, or pause. At max_epochs: stop."""
        job = self._book.advance(candidate, epoch, values)
        place, rung = next(
            (each for each in enumerate(self._rungs_of(candidate)) if each[1].epochs == epoch), (0, None)
        )
        result = RungDecision(Decision.CONTINUE)
        if rung is not None:
            self._test_first_rung(candidate, place, values)
            if epoch == self.max_epochs or (self._promotes and epoch == job.end):
                rung.record(candidate, values)
                result = RungDecision(Decision.PAUSE, rung=epoch)
            elif self._promotes or self._first_rung.passes(place):
                rung.let_pass(candidate, values)
                result = RungDecision(Decision.CONTINUE, rung=epoch)
            else:
                result = rung.decide(candidate, values)
        if epoch == self.max_epochs:
            result = result._replace(decision=Decision.STOP)
        if result.decision is not Decision.CONTINUE:
            self._book.leave(candidate)
        if result.decision is Decision.PAUSE:
            self._paused[candidate] = self._num_passed(candidate) - 1
        self._settle()
        return result

    def end(self, candidate: int, ending: Ending) -> None:
        """Make a failed candidate the worst of the rung that it ran for; compare a finished one at all later rungs.

        A withdrawn one is replaced by a new candidate. One that does not run any more waits no longer.
        """
        self._book.check_ends(candidate)
        num_passed, values = self._num_passed(candidate), self._book.last_values.get(candidate)
        passed, later_rungs = self._rungs_of(candidate)[:num_passed], self._rungs_of(candidate)[num_passed:]
        if ending is Ending.WITHDRAWN and num_passed:
            self._ceilings = self._limits()  # a checkpoint that was given up before must not be needed again
        job = self._book.end(candidate)
        self._book.num_counted -= ending is Ending.WITHDRAWN
        has_paused = self._paused.pop(candidate, None) is not None
        if self._next is not None and self._next.candidate == candidate:  # promoted, not asked for yet
            job, self._next = self._next, None
        elif has_paused:
            passed[-1].order.take(candidate)
        if job is None:
            pass
        elif ending is Ending.FINISHED and values is not None:
            self._finished[candidate] = values
            for place, rung in enumerate(later_rungs, num_passed):
                self._test_first_rung(candidate, place, values)
                if self._first_rung.passes(place):
                    rung.let_pass(candidate, values)
                elif self._promotes:  # at the rungs above it is recorded when it is promoted
                    rung.record(candidate, values)
                    break
                elif rung.epochs == self.max_epochs:
                    rung.record(candidate, values)
                elif rung.decide(candidate, values).decision is Decision.STOP:
                    break
        elif later_rungs and ending is not Ending.WITHDRAWN:
            # also if it finished before its first report: there is nothing to compare it by
            self._test_first_rung(candidate, num_passed, FAILED)
            later_rungs[0].record(candidate, FAILED)
        self._settle()

    def end_draws(self) -> None:
        """Let only promotions follow."""
        self._book.has_ended_draws = True
        self._settle()

    def grow(self, num_samples: int) -> None:
        """Compare further candidates with those that were there before.

        A paused candidate that could not be promoted any more remains paused: its checkpoint may be deleted.
        """
        check_grows(num_samples, self.num_samples)
        for candidate in [each for each in self._paused if not self.may_resume(each)]:
            self._rungs_of(candidate)[self._paused.pop(candidate)].order.take(candidate)
        self.num_samples = num_samples
        self._book.grow(num_samples)
        self._reset_ceilings()
        self._settle()

    def fidelities(self) -> tuple[int, ...]:
        """Return the epochs of the rungs of the first bracket, and at last max_epochs."""
        levels = tuple(rung.epochs for rung in self._rungs[0])
        return levels if levels[-1] == self.max_epochs else (*levels, self.max_epochs)

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
            Rung(
                rung.bracket,
                rung.epochs,
                dict(rung.values),
                tuple(rung.promoted),
                frozenset(rung.passed),
                self._first_rung.decides(place) if self._promotes or place == 0 else "compares",
            )
            for rungs in self._rungs
            for place, rung in enumerate(rungs)
        ]

    def _test_first_rung(self, candidate: int, place: int, values: Values) -> None:
        """Before a candidate is recorded at a rung: let the first rung learn from it if it passed that one."""
        first = self._rungs_of(candidate)[0]
        if place == 1 and candidate in first.passed:
            self._first_rung.add(first.values[candidate], values)

    def _bracket_of(self, candidate: int) -> int:
        return self._dealt[candidate % len(self._dealt)]

    def _rungs_of(self, candidate: int) -> list[AsyncRung]:
        return self._rungs[self._bracket_of(candidate)]

    def _num_passed(self, candidate: int) -> int:
        """Count the rungs that a candidate was trained up to."""
        return sum(rung.epochs <= self._book.epochs[candidate] for rung in self._rungs_of(candidate))

    def _settle(self) -> None:
        """After a call that changed something: promote candidates that need no training, and find the next job."""
        self._cached_limits = None
        if self._finished and not self._follows_format_1:
            while (found := self._promotable(at_least=0)) and found[2] in self._finished:
                self._promote(*found)
        if not self._book.jobs and not self._book.remaining and self._next is None:
            self._next = self._promotion(at_least=0) or self._promotion(at_least=1)

    def _promotion(self, *, at_least: int) -> Job | None:
        """Promote the best of the highest rung that has a promotable candidate, until one of them needs training.

        Args:
            at_least: Places that a rung offers even if too few candidates reached it.
        """
        while found := self._promotable(at_least=at_least):
            job = self._promote(*found)
            if job is not None:
                return job
        return None

    def _promotable(self, *, at_least: int) -> tuple[AsyncRung, AsyncRung | None, int] | None:
        """Return a rung, the rung above and the candidate that is to be promoted next; None if there is none."""
        leading = [  # each rung before a full training, with the one above
            entry
            for rungs, ceilings in zip(self._rungs, self._ceilings, strict=True)
            for entry in zip(rungs, [*rungs[1:], None], ceilings, range(len(rungs)), strict=True)
            if self._promotes and entry[0].epochs < self.max_epochs
        ]
        leading.sort(key=lambda entry: -entry[0].epochs)
        for rung, above, ceiling, place in leading:
            if self._first_rung.holds(place) and self._book.remaining:
                continue
            counted = len(rung.values) - (self._num_surplus() if place == 1 else 0)
            places = min(max(counted // self._reduction_factor, at_least), ceiling)
            candidate = rung.promotable(places)
            if candidate is not None:
                return rung, above, candidate
        return None

    def _num_surplus(self) -> int:
        """Count the candidates of the second rung that the first one, had it compared, would not have promoted."""
        passed = 0 if self._first_rung.passes(0) else len(self._rungs[0][0].passed)
        return passed - passed // self._reduction_factor

    def _promote(self, rung: AsyncRung, above: AsyncRung | None, candidate: int) -> Job | None:
        """Let a candidate continue past a rung; return its job, None if it needs no training."""
        rung.promote(candidate)
        if candidate not in self._finished:
            return Job(candidate, rung.epochs, self.max_epochs if above is None else above.epochs)
        if above is not None:  # this may let another one of a higher rung continue
            above.record(candidate, self._finished[candidate])
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
