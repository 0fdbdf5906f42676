"""The loop of a search: it feeds workers with the tasks of a stage, ends those that hang, and stops at a signal."""

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from search.executors.base import (
    EpochReported,
    Executor,
    Task,
    TaskFinished,
    WorkerLost,
    WorkerMessage,
    WorkerStarted,
)
from search.schedulers.base import Decision
from search.study.journal import Event, Journal, Kind
from search.study.state import StudyState
from utils.environment import record_signals
from utils.errors import Interrupted

Watcher = Callable[[Event, StudyState], None]
_STOP_SIGNALS = ("SIGINT", "SIGTERM")
_TICK = 0.5  # seconds between two looks at clock and signals
_SECONDS_TO_SAVE = 60.0  # for the workers if the search is interrupted


@dataclass
class Recorder:
    """Records events: each is written to the journal, applied to the state, and passed to watchers, in this order.

    Attributes:
        journal: An open journal.
        state: The state that follows from it.
        watchers: Called with each event and the state after it.
    """

    journal: Journal
    state: StudyState
    watchers: list[Watcher]

    def record(self, kind: Kind, candidate: int | None = None, **data: Any) -> None:
        """Record an event."""
        # First on disk: if a kill interrupts the rest, it follows when the journal is read again.
        event = self.journal.append(kind, candidate, **data)
        self.state.apply(event)
        for watch in self.watchers:
            watch(event, self.state)


class Stage(ABC):
    """A part of a study that gives tasks to workers.

    Args:
        recorder: Records the events.
        extras: Added to the content of every task, e.g. plug-ins.

    Attributes:
        running: The subject of each task that runs, by the task's name.
        is_pausing: Whether every task is to be saved and given back at its next report.
    """

    def __init__(self, recorder: Recorder, extras: Mapping[str, Any]) -> None:
        self.record = recorder.record
        self.state = recorder.state
        self.running: dict[str, Any] = {}
        self.is_pausing = False
        self._extras = dict(extras)
        self._numbers = itertools.count()

    @abstractmethod
    def next_task(self) -> Task | None:
        """Return the next task for an idle worker; None if there is none now."""

    @abstractmethod
    def on_report(self, subject: Any, message: dict[str, Any]) -> Decision:
        """Take a report of a worker and decide how it continues."""

    @abstractmethod
    def on_finished(self, subject: Any, outcome: dict[str, Any]) -> None:
        """Take the outcome of a task."""

    @abstractmethod
    def on_lost(self, subject: Any, message: WorkerLost) -> None:
        """Handle the loss of a worker."""

    def make_task(self, subject: Any, content: dict[str, Any]) -> Task:
        """Return a task with a new name, which runs from now on."""
        name = str(next(self._numbers))
        self.running[name] = subject
        kind = content.pop("kind")
        return Task(name, kind, content | self._extras)


@dataclass
class Driver:
    """Runs stages on an executor.

    Attributes:
        executor: An open executor.
        max_epoch_time: Seconds without a message after which a worker hangs; None: never.
    """

    executor: Executor
    max_epoch_time: float | None = None
    _last_message: dict[str, float] = field(default_factory=dict, init=False)  # seconds, by task
    _signals: list[int] = field(default_factory=list, init=False)  # received ones

    def run(self, stage: Stage) -> None:
        """Run a stage to its end, or until its budget is spent.

        Raises:
            Interrupted: A signal asked to stop; every worker has saved its state.
            SearchError: The stage cannot be continued.
        """
        self._last_message.clear()

        def handle(message: WorkerMessage) -> str:
            """Pass a message of a worker to the stage, and return the answer."""
            if isinstance(message, WorkerStarted):
                self._last_message[message.task] = time.monotonic()
                return ""
            if isinstance(message, EpochReported):
                decision = stage.on_report(stage.running[message.task], message.message)
                self._last_message[message.task] = time.monotonic()  # without the time that the decision took
                return (Decision.PAUSE if stage.is_pausing and decision is Decision.CONTINUE else decision).value
            self._last_message.pop(message.task, None)
            subject = stage.running.pop(message.task)
            if isinstance(message, TaskFinished):
                if self.executor.in_this_process and "signal" in message.outcome:  # the training has caught it
                    self._signals.append(message.outcome["signal"])
                stage.on_finished(subject, message.outcome)
            else:
                stage.on_lost(subject, message)
            return ""

        with record_signals(_STOP_SIGNALS, lambda: bool(self._signals), self._signals.append):
            while not self._signals:
                while self.executor.idle and (task := stage.next_task()) is not None:
                    self.executor.start(task)
                if not stage.running:  # and there is no next task: the stage is done, or its budget is spent
                    break
                self.executor.wait(handle, _TICK)
                if self.max_epoch_time is not None:
                    silent_since = time.monotonic() - self.max_epoch_time
                    for name in [each for each, last in self._last_message.items() if last < silent_since]:
                        del self._last_message[name]
                        self.executor.abandon(name)
            if not self._signals:
                return
            # Workers that take too long to save are ended, and their epoch is trained again.
            stage.is_pausing = True
            self.executor.interrupt()
            deadline = time.monotonic() + _SECONDS_TO_SAVE
            while stage.running and time.monotonic() < deadline:
                self.executor.wait(handle, _TICK)
            raise Interrupted(self._signals[-1])
