"""What both parts of a study share: works are handed out, what workers tell is heard, all of it through the journal."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from search.executors.base import Ended, Lost, Told, Work
from search.journal import Event, Journal, Kind
from search.schedulers.base import Decision
from search.state import StudyState

Watcher = Callable[[Event, StudyState], None]
MOST_LOSSES = 3  # a worker that is lost so often at the same epoch is lost because of what it trains


class Record:
    """Writes an event to the journal, applies it to the state, and tells those who watch: always in this order.

    Args:
        journal: Open.
        state: As the journal has it.
        watchers: Show what happens.
    """

    def __init__(self, journal: Journal, state: StudyState, watchers: Sequence[Watcher] = ()) -> None:
        self.journal = journal
        self.state = state
        self.watchers = watchers

    def __call__(self, kind: Kind, candidate: int | None = None, **data: Any) -> None:
        """Let an event have happened."""
        event = self.journal.append(kind, candidate, **data)
        self.state.apply(event)
        for watch in self.watchers:
            watch(event, self.state)


class Phase(ABC):
    """A part of a study.

    Args:
        record: Notes what happens.

    Attributes:
        running: What each work in hand is about, by the work's number.
        is_pausing: Whether every work is to be saved and given back at its next report.
        extras: What every task is told beside its own, e.g. plug-ins.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.state = record.state
        self.running: dict[int, Any] = {}
        self.is_pausing = False
        self.extras: dict[str, Any] = {}
        self._numbers = itertools.count()

    @abstractmethod
    def next_work(self) -> Work | None:
        """The next work for an idle worker; None where there is none now."""

    @abstractmethod
    def told(self, subject: Any, message: dict[str, Any]) -> Decision:
        """What a worker tells; the answer."""

    @abstractmethod
    def ended(self, subject: Any, outcome: dict[str, Any]) -> None:
        """What a worker has returned."""

    @abstractmethod
    def lost(self, subject: Any, happening: Lost) -> None:
        """A worker is gone."""

    def hear(self, happening: Told | Ended | Lost) -> str:
        """Pass on what happens to a work."""
        if isinstance(happening, Told):
            decision = self.told(self.running[happening.number], happening.message)
            return (Decision.PAUSE if self.is_pausing and decision is Decision.CONTINUE else decision).value
        subject = self.running.pop(happening.number)
        if isinstance(happening, Ended):
            self.ended(subject, happening.outcome)
        else:
            self.lost(subject, happening)
        return ""

    def work(self, subject: Any, task: dict[str, Any]) -> Work:
        """A work with a number of its own."""
        number = next(self._numbers)
        self.running[number] = subject
        return Work(number, task | self.extras)
