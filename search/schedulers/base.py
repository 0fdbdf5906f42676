"""Schedulers decide how long each candidate trains. A scheduler knows nothing of networks, files or clocks.

It is a state machine: the same calls in the same order give the same answers. So a search is resumed after a kill by
repeating the recorded calls, and a simulation runs the same code as a search.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from utils.errors import ConfigError

Values = tuple[float, ...]  # one per objective, larger is better; NaN is worse than any number
FAILED: Values = (float("nan"),)
"""Values of a candidate that failed: worse than any other, for any number of objectives."""


class Decision(StrEnum):
    """Action of a candidate after an epoch."""

    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"


class Ending(StrEnum):
    """How a candidate ended other than by a decision."""

    FINISHED = "finished"  # by itself (early stopping): its last values hold for all later epochs
    FAILED = "failed"  # it counts as tried and is worse than any other
    WITHDRAWN = "withdrawn"  # it does not count (refused, drawn before, out of memory): another one replaces it


@dataclass(frozen=True)
class Need:
    """The answer of a scheduler that needs a candidate that it does not know; `admit` gives it one.

    Nothing is remembered of it: who asks again without an `admit` in between receives it again.
    """


@dataclass(frozen=True)
class Job:
    """A candidate and the epochs that it is to be trained for.

    A job that begins after epoch 0 continues a candidate that paused. It is given as soon as that follows from the
    reports, whether the candidate's state is saved yet or not: its epochs can begin only afterwards. Jobs may be begun
    in another order than they were given in.

    Attributes:
        candidate: Number of the candidate, as it was admitted.
        start: Epochs that it was trained for already.
        end: Epoch after which it is paused or stopped at the latest.
    """

    candidate: int
    start: int
    end: int


class RungDecision(NamedTuple):
    """A decision with its reason.

    Attributes:
        decision: Action of the candidate.
        rung: Epochs of the rung that was reached; None between rungs.
        cutoff: Value of the first objective that was required; None if nothing was compared. A candidate that equals
            it may stop if others with the same value continued.
    """

    decision: Decision
    rung: int | None = None
    cutoff: float | None = None


@dataclass(frozen=True)
class Rung:
    """The present state of a rung.

    Attributes:
        bracket: Number of its bracket, from 0.
        epochs: Epochs at which it compares.
        values: Values of each candidate that reached it.
        promoted: Candidates that continued past it, in the order in which they did.
        passed: Those of them that continued without a decision, drawn without regard to their results.
        decides: "compares" at present; "passes all"; or "waits" for the test of the rung below.
    """

    bracket: int
    epochs: int
    values: dict[int, Values]
    promoted: tuple[int, ...]
    passed: frozenset[int] = frozenset()
    decides: str = "compares"


class Scheduler(ABC):
    """Gives jobs and answers reports.

    A new candidate is drawn by the caller: the scheduler answers `ask` with a `Need`, and `admit` gives it a number.
    For each job it receives a `report` after every epoch, in order, until it answers PAUSE or STOP; or an `end`, after
    which nothing more is reported of the candidate.

    Only calls that may change something have to be repeated to reach the same state: an `ask` that is answered with a
    job, and all others but questions. An `ask` that is answered with a `Need` or None changes nothing.

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.

    Raises:
        ConfigError: A number is below 1.
    """

    def __init__(self, num_samples: int, max_epochs: int) -> None:
        check_at_least("num_samples", num_samples, 1)
        check_at_least("max_epochs", max_epochs, 1)
        self.num_samples = num_samples
        self.max_epochs = max_epochs

    def follow_format(self, version: int) -> None:  # noqa: B027
        """Decide by the rules of the time of a journal, so that it can be repeated and continued; before all calls.

        Args:
            version: Format of the journal, 1 or 2, or from 3 on format 2 with the present defaults.
        """

    @abstractmethod
    def ask(self) -> Job | Need | None:
        """Return the next job; a need of a new candidate; None if nothing is to be done before another report.

        A scheduler that is done (`is_done`) answers None until it grows.
        """

    @abstractmethod
    def admit(self, number: int) -> Job:
        """Return the job of a new candidate, in answer to a `Need`.

        Args:
            number: Number of the candidate, above all numbers before. Numbers that are left out, such as those of
                draws that equal an earlier one, are never admitted later.

        Raises:
            ValueError: No candidate is needed, or the number is not above that of the last one.
        """

    @abstractmethod
    def report(self, candidate: int, epoch: int, values: Values) -> RungDecision:
        """Take the values after an epoch and decide how the candidate continues.

        Args:
            candidate: A candidate that runs.
            epoch: Epochs trained, one more than at the last report.
            values: Values of each objective, the best so far if an objective is a running best.
        """

    @abstractmethod
    def end(self, candidate: int, ending: Ending) -> None:
        """Note that a candidate ended other than by a decision.

        One that does not run any more, as it was paused or stopped, may also end once, e.g. since its state could not
        be saved: its values remain, and it is not asked for again.

        Raises:
            ValueError: The candidate was never admitted, or has ended.
        """

    @abstractmethod
    def end_draws(self) -> None:
        """Note that no further candidate can be drawn: only those that were drawn are brought to their end."""

    def grow(self, num_samples: int) -> None:
        """Continue with more candidates than before, also if it is done or the draws were ended.

        No decision that was made is taken back: a candidate that could not be resumed still cannot be.

        Args:
            num_samples: Candidates to try, those of before included.

        Raises:
            ConfigError: They are not more than before, or the scheduler has made a decision that needed all of them.
        """
        raise ConfigError(
            f"search.num_samples {num_samples}: {type(self).__name__} cannot continue with other than its "
            f"{self.num_samples} candidates. Set search.num_samples to {self.num_samples}, or start a new search."
        )

    def fidelities(self) -> tuple[int, ...]:
        """Return all epochs after which candidates are compared, ascending, with those of a full training last."""
        return tuple(sorted({rung.epochs for rung in self.rungs()} | {self.max_epochs}))

    @property
    @abstractmethod
    def is_done(self) -> bool:
        """Whether nothing runs and no job will be given any more."""

    @abstractmethod
    def may_resume(self, candidate: int) -> bool:
        """Return whether a paused candidate may be asked for again, so that its checkpoint is needed."""

    @abstractmethod
    def rungs(self) -> list[Rung]:
        """Return the present state of every rung, bracket by bracket, in ascending order of epochs."""


@dataclass
class JobBook:
    """The candidates that a scheduler counts, and the jobs that run.

    Attributes:
        num_samples: Candidates to try.
        num_counted: Candidates that were admitted, without those that are to be replaced.
        last_number: Number of the candidate that was admitted last; -1 before the first.
        has_ended_draws: Whether no more are drawn, even if others are withdrawn.
        jobs: The jobs that run, by candidate.
        epochs: Epochs that each candidate was trained for.
        last_values: The values that each candidate reported last.
        ended: Candidates that ended other than by a decision.
    """

    num_samples: int
    num_counted: int = 0
    last_number: int = -1
    has_ended_draws: bool = False
    jobs: dict[int, Job] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    last_values: dict[int, Values] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)

    @property
    def remaining(self) -> int:
        """Candidates that are still to be drawn."""
        return 0 if self.has_ended_draws else max(0, self.num_samples - self.num_counted)

    def admit(self, number: int) -> None:
        """Count a new candidate.

        Raises:
            ValueError: No candidate is needed, or its number is not above the last one.
        """
        if not self.remaining:
            raise ValueError(f"Candidate {number}: none is needed. Admit one only in answer to a Need.")
        if number <= self.last_number:
            raise ValueError(f"Candidate {number}: must be above the last one, {self.last_number}.")
        self.num_counted += 1
        self.last_number = number

    def grow(self, num_samples: int) -> None:
        """Let more candidates be drawn, also if the draws were ended."""
        self.num_samples = num_samples
        self.has_ended_draws = False

    def begin(self, job: Job) -> Job:
        """Note that a job was given, and return it."""
        self.jobs[job.candidate] = job
        self.epochs[job.candidate] = job.start
        return job

    def advance(self, candidate: int, epoch: int, values: Values) -> Job:
        """Note the values after an epoch and return the candidate's job.

        Raises:
            ValueError: The candidate does not run, or this is not its next epoch.
        """
        job = self._job_of(candidate)
        expected = self.epochs[candidate] + 1
        if epoch != expected:
            raise ValueError(f"Epoch {epoch} of candidate {candidate}: epoch {expected} must be reported next.")
        self.epochs[candidate] = epoch
        self.last_values[candidate] = values
        return job

    def leave(self, candidate: int) -> None:
        """Note that a candidate was paused or stopped."""
        del self.jobs[candidate]

    def check_ends(self, candidate: int) -> None:
        """Raise if a candidate cannot end.

        Raises:
            ValueError: It was never admitted, or has ended.
        """
        if candidate in self.ended or candidate not in self.epochs:
            raise ValueError(f"Candidate {candidate}: it does not run. End only candidates that were given, and once.")

    def end(self, candidate: int) -> Job | None:
        """Note that a candidate ended and return its job; None if it was paused or stopped before.

        Raises:
            ValueError: It was never admitted, or has ended.
        """
        self.check_ends(candidate)
        self.ended.add(candidate)
        return self.jobs.pop(candidate, None)

    def _job_of(self, candidate: int) -> Job:
        if candidate not in self.jobs:
            raise ValueError(f"Candidate {candidate}: it does not run. Report only jobs that were given.")
        return self.jobs[candidate]


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise if an argument is too small.

    Raises:
        ConfigError: It is below `least`.
    """
    if value < least:
        raise ConfigError(f"{name} {value}: must be at least {least}. Set {name} to {least} or more.")


def check_grows(num_samples: int, before: int) -> None:
    """Raise if a search would not become larger.

    Raises:
        ConfigError: There are not more candidates than before.
    """
    if num_samples <= before:
        raise ConfigError(
            f"search.num_samples {num_samples}: must be more than the {before} of the study to continue it with more. "
            f"Set search.num_samples to {before + 1} or more."
        )
