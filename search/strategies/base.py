"""The contract of a strategy: it decides which work is done in which order."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from search.executors.base import Task
from search.schedulers.base import Decision
from search.study.journal import Event

Loss = Literal["died", "hung"]  # the worker was killed or crashed; the search ended it since it was silent


@dataclass(frozen=True)
class Outcome:
    """The end of a task, as its worker returned it.

    Attributes:
        status: "ended", "interrupted" (its state is saved), "refused" (before any work), "out_of_memory" or "failed".
        values: Results by name, e.g. of a test.
        artefacts: Files that it left, by name, relative to its run folder.
        facts: Costs by name, known before training.
        reason: Why it failed or was refused.
        details: Everything else that the worker returned.
    """

    status: str
    values: Mapping[str, float] = field(default_factory=dict)
    artefacts: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> "Outcome":
        """Return the outcome that a worker returned as plain data."""
        known = {key: message[key] for key in ("status", "values", "artefacts", "facts", "reason") if key in message}
        return cls(**known, details={key: value for key, value in message.items() if key not in known})


class Recording(Protocol):
    """Writes an event to the journal, and then has the strategy apply it."""

    def __call__(self, name: str, candidate: int | None = None, **data: Any) -> Event: ...


class Strategy(ABC):
    """A state machine over tasks whose only memory is the journal.

    While a study runs, a method that decides something first records it: `self.record("search.job", candidate, ...)`
    writes the event to the journal and calls `apply`, which alone changes the state. When a study is continued,
    `repeat` and `apply` are called with each event of the journal instead. Events are named "stage.name"; a strategy
    receives those of its own stages.

    Attributes:
        stages: Names of its stages, by which its events begin.
        record: Records an event; set by `bind`.
        folder: Folder of the study; set by `bind`.
    """

    stages: tuple[str, ...] = ()
    record: Recording
    folder: Path

    def bind(self, record: Recording, folder: Path) -> None:
        """Connect the strategy with its study, before anything else is called."""
        self.record, self.folder = record, folder

    def repeat(self, event: Event) -> None:  # noqa: B027
        """Repeat the calls that preceded an event of the journal, e.g. those of a scheduler, without a decision.

        Raises:
            SearchError: They are answered otherwise than when the event was written.
        """

    @abstractmethod
    def apply(self, event: Event) -> None:
        """Update the state by an event that is in the journal."""

    @abstractmethod
    def next(self, idle: int) -> Sequence[Task]:
        """Return tasks for idle workers, at most `idle`; none if there are none now."""

    @abstractmethod
    def reported(self, task: Task, message: Mapping[str, Any]) -> Decision:
        """Take the report of a worker and decide how its task continues."""

    @abstractmethod
    def ended(self, task: Task, outcome: Outcome) -> None:
        """Take the end of a task, whatever its status."""

    @abstractmethod
    def lost(self, task: Task, cause: Loss, reason: str, *, had_started: bool) -> None:
        """Take the loss of a worker.

        Args:
            task: Its task.
            cause: Whether the worker died or was ended for its silence.
            reason: The same in words.
            had_started: Whether it had started the task, which may therefore be the cause.
        """

    @property
    @abstractmethod
    def is_done(self) -> bool:
        """Whether nothing runs and nothing more will."""

    @abstractmethod
    def winner(self) -> int | None:
        """Return the number of the winning candidate; None if there is none."""

    def sections(self) -> Sequence[Mapping[str, Any]]:
        """Return additional sections of the report: `title`, and `text` or `table` (rows of cells, the first a head)."""
        return ()
