"""What decides which candidate trains for how long. A scheduler knows nothing of networks, files or clocks.

It is a state machine: the same calls in the same order give the same answers. So a search goes on after a kill by
making the recorded calls again, and a simulation runs the very code that a search runs.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

Values = tuple[float, ...]  # one per objective, the larger the better; NaN is worse than any number


class Decision(StrEnum):
    """What a candidate does after an epoch."""

    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"


@dataclass(frozen=True)
class Job:
    """Training to be done.

    Attributes:
        candidate: Number of the draw; 0, 1, 2, ... in the order in which they are first asked for.
        start: Epochs that it was trained for already.
        end: Epoch after which it is paused or stopped at the latest.
    """

    candidate: int
    start: int
    end: int


class Verdict(NamedTuple):
    """A decision and what led to it.

    Attributes:
        decision: What the candidate does now.
        rung: Epochs of the rung that was reached; None between rungs.
        cutoff: First objective's value that was to be reached; None where nothing was compared.
    """

    decision: Decision
    rung: int | None = None
    cutoff: float | None = None


@dataclass(frozen=True)
class Rung:
    """One rung as it stands.

    Attributes:
        bracket: Which bracket it belongs to, from 0.
        epochs: Epochs at which it compares.
        values: What each candidate came to there.
        promoted: Candidates that went beyond it, in the order in which they did.
    """

    bracket: int
    epochs: int
    values: dict[int, Values]
    promoted: tuple[int, ...]


class Scheduler(ABC):
    """Hands out jobs and answers reports.

    For each job that it hands out it hears a `report` after every epoch, in order, until it answers PAUSE or STOP; or
    one of `finish`, `fail` and `withdraw`, after which the candidate is not heard of again.

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs after which a candidate has been trained in full.
    """

    def __init__(self, num_samples: int, max_epochs: int) -> None:
        self.num_samples = num_samples
        self.max_epochs = max_epochs

    @abstractmethod
    def ask(self) -> Job | None:
        """The next job; None where none can be given before something more is heard, or at all (`is_done`)."""

    @abstractmethod
    def report(self, candidate: int, epoch: int, values: Values) -> Verdict:
        """Take the values after an epoch and say how the candidate goes on.

        Args:
            candidate: That runs.
            epoch: From 1, one more than before.
            values: Of each objective, as good as they have been so far where an objective is a running best.
        """

    @abstractmethod
    def finish(self, candidate: int) -> None:
        """It cannot train any further (its own early stop): its last values stand for all later epochs."""

    @abstractmethod
    def fail(self, candidate: int) -> None:
        """It failed for good: it has had its turn and is worse than any other."""

    @abstractmethod
    def withdraw(self, candidate: int) -> None:
        """It does not count (refused, drawn before, out of memory): as if never drawn, another takes its place."""

    @abstractmethod
    def end_draws(self) -> None:
        """There are no further candidates to draw: what was begun is brought to its end."""

    @property
    @abstractmethod
    def is_done(self) -> bool:
        """Whether nothing runs and nothing will be handed out any more."""

    @abstractmethod
    def may_resume(self, candidate: int) -> bool:
        """Whether a paused candidate may be asked for again; its checkpoint is needed as long."""

    @abstractmethod
    def rungs(self) -> list[Rung]:
        """Every rung as it stands, brackets one after the other, the fewest epochs first."""
