"""What random search, successive halving and Hyperband share: brackets, one begun after the other."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

from search.schedulers.base import Decision, Job, Rung, Scheduler, Values, Verdict
from search.schedulers.bookkeeping import Draws, Runs, check_least
from search.schedulers.bracket import Bracket


class Plan(NamedTuple):
    """A bracket to be.

    Attributes:
        size: Candidates in its first rung.
        levels: Epochs of its rungs.
        factors: Of those at a rung, one in so many goes on to the next; one for each rung but the last.
    """

    size: int
    levels: tuple[int, ...]
    factors: tuple[int, ...]


def rung_epochs(max_epochs: int, grace_period: int, reduction_factor: int) -> tuple[int, ...]:
    """Epochs of the rungs: grace_period, each next reduction_factor times it, and at last max_epochs.

    One that is nearer to max_epochs than half a step (by their ratio) is left out: comparing at 27 epochs saves
    nothing when 28 are a full training. From 2 in threes: 2, 6, 18, 50 for 50 and 2, 6, 20 for 20.
    """
    levels = []
    epochs = grace_period
    while epochs**2 * reduction_factor <= max_epochs**2:
        levels.append(epochs)
        epochs *= reduction_factor
    return (*levels, max_epochs)


class SynchronousScheduler(Scheduler):
    """Fills brackets with candidates and halves each by itself.

    Decisions depend on the candidates' values only, not on the number of workers and not on the order of their
    reports. So that no worker idles while a bracket comes to its end, the next one is begun as soon as the first rung
    of the one before was judged: from then on it is known which numbers the next one's candidates have.

    A candidate that is withdrawn in its first rung is replaced by a new one; later, by the next best of the rung below.

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.
    """

    def __init__(self, num_samples: int, max_epochs: int) -> None:
        super().__init__(num_samples, max_epochs)
        check_least("num_samples", num_samples, 1)
        check_least("max_epochs", max_epochs, 1)
        self._draws = Draws(num_samples)
        self._runs = Runs()
        self._plans = self._plan()
        self._brackets: list[Bracket] = []
        self._open: list[Bracket] = []
        self._bracket_of: dict[int, Bracket] = {}

    @abstractmethod
    def _plan(self) -> Iterator[Plan]:
        """The brackets in their order, without end; the last one is cut where num_samples is reached."""

    def ask(self) -> Job | None:
        """The best promoted candidate of the oldest bracket that has one; else a new candidate."""
        self._open = [bracket for bracket in self._open if not bracket.is_done]
        for bracket in self._open:
            job = bracket.next_job()
            if job is not None:
                return self._runs.begin(job)
        filling = self._filling()
        if filling is None:
            return None
        candidate = self._draws.draw()
        self._bracket_of[candidate] = filling
        return self._runs.begin(filling.admit(candidate))

    def report(self, candidate: int, epoch: int, values: Values) -> Verdict:
        """Go on up to the rung, pause there, stop at the last."""
        if epoch < self._runs.advance(candidate, epoch, values).end:
            return Verdict(Decision.CONTINUE)
        self._runs.end(candidate)
        bracket = self._bracket_of[candidate]
        bracket.reach(candidate, values)
        return Verdict(Decision.STOP if bracket.is_last(epoch) else Decision.PAUSE, rung=epoch)

    def finish(self, candidate: int) -> None:
        """Its last values stand for all later rungs, to which it is promoted without a job."""
        values = self._runs.last_values(candidate)
        if values is None:  # nothing to compare it by
            self.fail(candidate)
            return
        self._runs.end(candidate)
        self._bracket_of[candidate].finish(candidate, values)

    def fail(self, candidate: int) -> None:
        """It is the worst of its rung."""
        self._runs.end(candidate)
        self._bracket_of[candidate].fail(candidate)

    def withdraw(self, candidate: int) -> None:
        """A new candidate takes its place in the first rung, the next best of the rung below in a later one."""
        bracket = self._bracket_of[candidate]
        job = self._runs.end(candidate)
        bracket.withdraw(candidate)
        del self._bracket_of[candidate]
        if job.start == 0:
            self._draws.give_back()
        if self._draws.is_ended:
            bracket.end_draws()

    def end_draws(self) -> None:
        """Halve the bracket that is being filled by what it has got."""
        self._draws.end()
        if self._brackets:
            self._brackets[-1].end_draws()

    @property
    def is_done(self) -> bool:
        """Whether every bracket came to its end."""
        return not self._draws.remaining and not self._runs.jobs and all(bracket.is_done for bracket in self._open)

    def may_resume(self, candidate: int) -> bool:
        """Whether a paused candidate was promoted or may still be; false for one that is not paused."""
        if candidate in self._runs.jobs or candidate not in self._bracket_of:
            return False
        return self._bracket_of[candidate].may_resume(candidate)

    def rungs(self) -> list[Rung]:
        """The rungs of the brackets that were begun."""
        return [rung for bracket in self._brackets for rung in bracket.rungs()]

    def _filling(self) -> Bracket | None:
        """The bracket that takes the next new candidate; None where none may be drawn now."""
        newest = self._brackets[-1] if self._brackets else None
        if newest is not None and newest.has_room:
            return newest
        if not self._draws.remaining or (newest is not None and not newest.is_settled):
            return None
        plan = next(self._plans)
        size = min(plan.size, self._draws.remaining)
        bracket = Bracket(len(self._brackets), size, levels=plan.levels, factors=plan.factors)
        self._brackets.append(bracket)
        self._open.append(bracket)
        return bracket
