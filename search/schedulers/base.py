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
    """The answer of a scheduler that needs a candidate that it does not know; `admit` gives it one."""


@dataclass(frozen=True)
class Job:
    """A candidate and the epochs that it is to be trained for.

    Attributes:
        candidate: Number of the candidate.
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
        cutoff: Value of the first objective that was required; None if nothing was compared.
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
    """

    bracket: int
    epochs: int
    values: dict[int, Values]
    promoted: tuple[int, ...]


class Scheduler(ABC):
    """Gives jobs and answers reports.

    For each job it receives a `report` after every epoch, in order, until it answers PAUSE or STOP; or an `end`, after
    which nothing more is reported of the candidate.

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

    @abstractmethod
    def ask(self) -> Job | None:
        """Return the next job; None if there is none before another report, or none at all (`is_done`)."""

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
        """Note that a candidate that runs ended other than by a decision."""

    @abstractmethod
    def end_draws(self) -> None:
        """Note that no further candidate can be drawn: only those that were drawn are brought to their end."""

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
    """The candidates that a scheduler may still draw, and the jobs that run.

    Attributes:
        remaining: Candidates that may still be drawn.
        num_drawn: Candidates that were drawn, which is the number of the next one.
        has_ended_draws: Whether no more are drawn, even if others are withdrawn.
        jobs: The jobs that run, by candidate.
        epochs: Epochs that each candidate was trained for.
        last_values: The values that each candidate reported last.
    """

    remaining: int
    num_drawn: int = 0
    has_ended_draws: bool = False
    jobs: dict[int, Job] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    last_values: dict[int, Values] = field(default_factory=dict)

    def draw(self) -> int:
        """Return the number of the next candidate."""
        self.remaining -= 1
        self.num_drawn += 1
        return self.num_drawn - 1

    def end_draws(self) -> None:
        """Let no more candidates be drawn."""
        self.remaining = 0
        self.has_ended_draws = True

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

    def end(self, candidate: int) -> Job:
        """Note that a candidate does not run any more and return its job.

        Raises:
            ValueError: It does not run.
        """
        job = self._job_of(candidate)
        del self.jobs[candidate]
        return job

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


def check_halving(max_epochs: int, grace_period: int, reduction_factor: int) -> None:
    """Raise if no rungs follow from the arguments.

    Raises:
        ConfigError: A number is too small, or the first rung is beyond a full training.
    """
    check_at_least("grace_period", grace_period, 1)
    check_at_least("reduction_factor", reduction_factor, 2)
    if grace_period > max_epochs:
        raise ConfigError(
            f"grace_period {grace_period}: must be at most the {max_epochs} epochs of a full training. "
            f"Set grace_period to {max_epochs} or less, or train longer."
        )
