"""ASHA: asynchronous successive halving, where no worker ever waits for another."""

from collections.abc import Sequence
from typing import Literal

from search.schedulers.asha_rung import AsyncRung
from search.schedulers.base import Decision, Job, Rung, Scheduler, Values, Verdict
from search.schedulers.bookkeeping import Draws, Runs, check_halving, check_least
from search.schedulers.hyperband import bracket_sizes
from utils.errors import ConfigError


def rung_epochs(max_epochs: int, grace_period: int, reduction_factor: int) -> list[int]:
    """grace_period * reduction_factor ** k as far as max_epochs: 3, 9, 27, 81, 243 for 500, 3, 3."""
    levels = [grace_period]
    while levels[-1] * reduction_factor <= max_epochs:
        levels.append(levels[-1] * reduction_factor)
    return levels


def interleave(sizes: Sequence[int]) -> list[int]:
    """Which bracket each of sum(sizes) candidates belongs to: at any time, that which is furthest behind its share."""
    counts = [0] * len(sizes)
    order = []
    for drawn in range(1, sum(sizes) + 1):
        behind = [size * drawn - count * sum(sizes) for size, count in zip(sizes, counts, strict=True)]
        order.append(behind.index(max(behind)))
        counts[order[-1]] += 1
    return order


class ASHA(Scheduler):
    """Judges each candidate at each rung by those that came there before (Li et al. 2020, arXiv:1810.05934).

    "stop": a candidate runs on past a rung unless its value is below the (1 - 1 / reduction_factor) quantile of those
    recorded there before; the first one always does. It is never paused, and never resumed.

    "promote" (Algorithm 2): a candidate pauses at each rung. A free worker takes the best paused candidate that is
    among the first n // reduction_factor of the n of its rung, from the highest rung down; where there is none, a new
    candidate. Beyond the paper: after the last rung the same rule leads to a full training; and when nothing else is
    left to do, the first of a rung goes on even where fewer than reduction_factor came to it, as in synchronous
    halving, so that a search ends with a candidate that was trained in full. The others stay paused.

    A candidate that failed counts as the worst of the rung that it ran for. One that is withdrawn is replaced by a new
    one; what it came to at the rungs that it had passed stays there, as others were judged by it.

    With several brackets, bracket b begins at grace_period * reduction_factor ** b. The candidates are dealt out by
    their numbers, in the proportions of Hyperband's brackets.

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.
        grace_period: Epochs of the first rung.
        reduction_factor: One in so many goes on to the next rung.
        mode: "stop" or "promote".
        brackets: How many.

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
        check_least("num_samples", num_samples, 1)
        check_least("max_epochs", max_epochs, 1)
        check_halving(max_epochs, grace_period, reduction_factor)
        check_least("brackets", brackets, 1)
        if mode not in {"stop", "promote"}:
            raise ConfigError(f'mode "{mode}": must be "stop" or "promote". Choose one of them.')
        levels = rung_epochs(max_epochs, grace_period, reduction_factor)
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
        # Promotions from here can never again be as many as before a candidate that counted was withdrawn.
        self._ceilings = [[num_samples] * len(rungs) for rungs in self._rungs]
        self._limits: list[list[int]] | None = None
        self._draws = Draws(num_samples)
        self._runs = Runs()
        self._paused: dict[int, int] = {}
        self._finished: dict[int, Values] = {}
        self._next: Job | None = None

    def ask(self) -> Job | None:
        """The best promotable candidate of the highest rung that has one; else a new candidate."""
        job = self._next or self._promotion(at_least=0)
        if job is None and self._draws.remaining:
            candidate = self._draws.draw()
            job = Job(candidate, 0, self._end_of(candidate, 0))
        self._next = None
        self._limits = None
        if job is not None:
            self._paused.pop(job.candidate, None)
            self._runs.begin(job)
        return job

    def report(self, candidate: int, epoch: int, values: Values) -> Verdict:
        """At a rung: stop or go on, or pause. At max_epochs: stop."""
        self._runs.advance(candidate, epoch, values)
        verdict = self._judge(candidate, epoch, values)
        if epoch == self.max_epochs:
            verdict = verdict._replace(decision=Decision.STOP)
        if verdict.decision is not Decision.CONTINUE:
            self._runs.end(candidate)
        if verdict.decision is Decision.PAUSE:
            self._paused[candidate] = self._passed(candidate) - 1
        self._settle()
        return verdict

    def finish(self, candidate: int) -> None:
        """Its last values stand for all later rungs, to which it comes without a job."""
        values = self._runs.last_values(candidate)
        if values is None:  # nothing to compare it by
            self.fail(candidate)
            return
        self._runs.end(candidate)
        self._finished[candidate] = values
        for rung in self._rungs_of(candidate)[self._passed(candidate) :]:
            if self._promotes:
                rung.record(candidate, values)
                break
            if rung.judge(candidate, values).decision is Decision.STOP:
                break
        self._settle()

    def fail(self, candidate: int) -> None:
        """It is the worst of the rung that it ran for."""
        self._runs.end(candidate)
        for rung in self._rungs_of(candidate)[self._passed(candidate) :][:1]:
            rung.fail(candidate)
        self._settle()

    def withdraw(self, candidate: int) -> None:
        """Another is drawn in its place."""
        if self._passed(candidate):
            self._ceilings = self._limits_now()
        self._runs.end(candidate)
        self._draws.give_back()
        self._settle()

    def end_draws(self) -> None:
        """Only promotions follow."""
        self._draws.end()
        self._settle()

    @property
    def is_done(self) -> bool:
        """Whether nothing runs, nothing may be drawn and nothing can be promoted."""
        return not (self._runs.jobs or self._draws.remaining or self._next)

    def may_resume(self, candidate: int) -> bool:
        """Whether a paused candidate may yet be promoted, whatever comes; false for one that is not paused."""
        if candidate not in self._paused or self.is_done:
            return False
        if self._next is not None and self._next.candidate == candidate:
            return True
        index = self._paused[candidate]
        limit = self._limits_now()[self._bracket_of(candidate)][index]
        return self._rungs_of(candidate)[index].is_hopeful(candidate, limit)

    def rungs(self) -> list[Rung]:
        """Every rung; a full training is one of them only where max_epochs is grace_period * reduction_factor ** k."""
        return [rung.as_rung() for rungs in self._rungs for rung in rungs]

    def _bracket_of(self, candidate: int) -> int:
        return self._dealt[candidate % len(self._dealt)]

    def _rungs_of(self, candidate: int) -> list[AsyncRung]:
        return self._rungs[self._bracket_of(candidate)]

    def _passed(self, candidate: int) -> int:
        """How many rungs it was trained up to."""
        return sum(rung.epochs <= self._runs.epochs(candidate) for rung in self._rungs_of(candidate))

    def _end_of(self, candidate: int, index: int) -> int:
        """Where a job ends that leads to a rung, or beyond the last one."""
        rungs = self._rungs_of(candidate)
        return rungs[index].epochs if self._promotes and index < len(rungs) else self.max_epochs

    def _judge(self, candidate: int, epoch: int, values: Values) -> Verdict:
        """What the rung at an epoch says, if there is one."""
        for rung in self._rungs_of(candidate):
            if rung.epochs == epoch:
                if not self._promotes:
                    return rung.judge(candidate, values)
                rung.record(candidate, values)
                return Verdict(Decision.PAUSE, rung=epoch)
        return Verdict(Decision.CONTINUE)

    def _settle(self) -> None:
        """After anything was heard: where nothing else is left to do, see who may still go on."""
        self._limits = None
        if not self._runs.jobs and not self._draws.remaining and self._next is None:
            self._next = self._promotion(at_least=0) or self._promotion(at_least=1)

    def _promotion(self, *, at_least: int) -> Job | None:
        """Promote the best of the highest rung that has a promotable candidate.

        Args:
            at_least: Places that a rung offers, however few came to it.
        """
        while self._promotes and (found := self._promotable(at_least)):
            candidate, rung, above = found
            rung.promote(candidate)
            if candidate not in self._finished:
                return Job(candidate, rung.epochs, self.max_epochs if above is None else above.epochs)
            if above is not None:
                above.record(candidate, self._finished[candidate])
        return None

    def _promotable(self, at_least: int) -> tuple[int, AsyncRung, AsyncRung | None] | None:
        """The next to be promoted, its rung and the one above; None where there is none."""
        for rung, above, ceiling in self._highest_first():
            candidate = rung.promotable(min(max(len(rung) // self._reduction_factor, at_least), ceiling))
            if candidate is not None:
                return candidate, rung, above
        return None

    def _highest_first(self) -> list[tuple[AsyncRung, AsyncRung | None, int]]:
        """The rungs that lead on, each with the one above and the ceiling of its promotions."""
        leading = [
            entry
            for rungs, ceilings in zip(self._rungs, self._ceilings, strict=True)
            for entry in zip(rungs, [*rungs[1:], None], ceilings, strict=True)
            if entry[0].epochs < self.max_epochs
        ]
        return sorted(leading, key=lambda entry: -entry[0].epochs)

    def _limits_now(self) -> list[list[int]]:
        """How many candidates of each rung could be promoted, if all that can still come to it did."""
        if self._limits is None:
            jobs = [*self._runs.jobs.values(), *([self._next] if self._next else [])]
            self._limits = [self._limits_of(bracket, jobs) for bracket in range(len(self._rungs))]
        return self._limits

    def _limits_of(self, bracket: int, jobs: list[Job]) -> list[int]:
        limits = []
        # One that has not come to a rung may be withdrawn, and its successor belong to another bracket.
        coming = self._draws.remaining + sum(self._passed(job.candidate) == 0 for job in jobs)
        for index, (rung, ceiling) in enumerate(zip(self._rungs[bracket], self._ceilings[bracket], strict=True)):
            if index:
                coming += sum(
                    self._bracket_of(job.candidate) == bracket and self._passed(job.candidate) == index for job in jobs
                )
            limits.append(min(max((len(rung) + coming) // self._reduction_factor, 1), ceiling))
            coming += rung.num_hopeful(limits[-1])
        return limits
