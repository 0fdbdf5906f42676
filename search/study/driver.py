"""The loop of a study: it feeds workers with the tasks of a strategy, ends those that hang, and stops at a signal."""

import gc
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from search.executors.base import (
    EpochReported,
    Executor,
    Task,
    TaskFinished,
    WorkerMessage,
    WorkerStarted,
    own_class_error,
)
from search.schedulers.base import Decision
from search.strategies.base import Outcome, Strategy
from search.study.journal import Event, Journal, JournalDamage
from search.study.state import StudyState
from utils.environment import record_signals
from utils.errors import DiskFull, EspalierError, Interrupted, SearchError

Watcher = Callable[[Event, StudyState], None]
_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_TICK = 0.5  # seconds between two looks at clock and signals
_SECONDS_TO_SAVE = 60.0  # for the workers if the search is interrupted


@dataclass
class Recorder:
    """Records events: each is written to the journal, applied to state and strategy, and passed to watchers.

    Attributes:
        journal: An open journal.
        state: The state that follows from it.
        strategy: The strategy of the study.
        watchers: Called with each event and the state after it.
    """

    journal: Journal
    state: StudyState
    strategy: Strategy
    watchers: list[Watcher]
    _command: str | None = field(default=None, init=False)  # id of the one that is carried out

    def record(self, name: str, candidate: int | None = None, **data: Any) -> Event:
        """Record an event."""
        if self._command is not None:
            data["command_id"] = self._command
        # First on disk: if a kill interrupts the rest, it follows when the journal is read again.
        event = self.journal.append(name, candidate, **data)
        self.state.apply(event)
        self.strategy.apply(event)
        for watch in self.watchers:
            watch(event, self.state)
        return event

    @contextmanager
    def obeying(self, command: str) -> Iterator[None]:
        """Note the id of a command of the user in each event meanwhile, so that after a kill it is not obeyed again."""
        self._command = command
        try:
            yield
        finally:
            self._command = None


def replay(events: Iterable[Event], state: StudyState, strategy: Strategy, journal: Path) -> None:
    """Apply a journal from its beginning, with the calls of the strategy repeated.

    Args:
        events: The events, checked one by one.
        state: The state of a study without events.
        strategy: Its strategy, which has decided nothing yet.
        journal: Their file, for messages.

    Raises:
        SearchError: An event does not follow from those before it, or the strategy decides differently.
    """
    with _without_garbage_collection():
        for number, event in enumerate(events, start=1):
            try:
                strategy.repeat(event)
                state.apply(event)
                strategy.apply(event)
            except (LookupError, TypeError, ValueError) as error:
                raise JournalDamage(
                    journal,
                    number - 1,
                    f"event {number}, {event.name} of candidate {event.candidate}, does not follow from the events "
                    f"before it: {type(error).__name__}: {error}",
                ) from error


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Look for no reference cycles meanwhile: all that a replay makes remains, and looking is a sixth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass
class Driver:
    """Runs a strategy on an executor.

    Attributes:
        executor: An open executor.
        strategy: The strategy.
        extras: Added to the payload of every task, e.g. plug-ins.
        max_epoch_time: Seconds without a message after which a worker hangs; None: never.
        look: Called about twice a second, and at each report of a task in this process, e.g. to obey commands of the
            user.
        is_paused: Whether the user has paused the study: no task is started, and those that run are given back.
        running: The tasks that run, by name.
    """

    executor: Executor
    strategy: Strategy
    extras: dict[str, Any] = field(default_factory=dict)
    max_epoch_time: float | None = None
    look: Callable[[], None] = lambda: None
    is_paused: bool = False
    running: dict[str, Task] = field(default_factory=dict, init=False)
    _is_stopping: bool = field(default=False, init=False)
    _disk_full: str = field(default="", init=False)  # the reason of a task that ended with it
    _last_message: dict[str, float] = field(default_factory=dict, init=False)  # seconds, by task
    _signals: list[int] = field(default_factory=list, init=False)  # received ones

    def run(self) -> None:
        """Run the strategy to its end.

        Raises:
            Interrupted: A signal asked to stop; every worker has saved its state.
            DiskFull: A worker could not write; the others have saved their state if they could.
            SearchError: The study cannot be continued, or a strategy or scheduler has raised an error.
        """
        try:
            self._run()
        except EspalierError:
            raise
        except Exception as error:  # of a class of the user's own
            raise own_class_error(f"search.strategy: {type(self.strategy).__name__} cannot continue", error) from error

    def _run(self) -> None:
        with record_signals(_STOP_SIGNALS, lambda: bool(self._signals), self._signals.append):
            while not self._signals and not self._disk_full:
                self.look()
                if self._is_stopping:
                    break
                if not self.is_paused:
                    self._start_tasks()
                    if not self.running and self.strategy.is_done:
                        break
                if self.running:
                    self.executor.wait(self._handle, _TICK)
                    self._abandon_silent()
                elif self.is_paused or self.strategy.is_waiting:
                    time.sleep(_TICK)
                else:
                    raise SearchError(
                        f"search.strategy: {type(self.strategy).__name__} gives no task, though none runs and it is "
                        "not done. A strategy gives a task, waits for one, or is done: correct its `next`."
                    )
            if not self._signals and not self._disk_full:
                return
            # Workers that take too long to save are ended, and their epoch is trained again.
            self._is_stopping = True
            self.executor.interrupt()
            deadline = time.monotonic() + _SECONDS_TO_SAVE
            while self.running and time.monotonic() < deadline:
                self.executor.wait(self._handle, _TICK)
            if self._disk_full:
                raise DiskFull(
                    f"{self._disk_full.rstrip('.')}. That is no fault of a candidate: the study has stopped, and "
                    "nothing that was reported is lost. Free some space, and continue with --resume auto."
                )
            raise Interrupted(self._signals[-1])

    def stop(self) -> None:
        """Stop as if by a signal: every worker saves its state."""
        self._is_stopping = True
        self._signals.append(signal.SIGTERM)

    def _start_tasks(self) -> None:
        while (idle := self.executor.idle) > 0:
            tasks = self.strategy.next(idle)
            for task in tasks:
                task.payload.update(self.extras)
                self.running[task.id] = task
                self.executor.start(task)
            if not tasks:
                return

    def _handle(self, message: WorkerMessage) -> str:
        """Pass a message of a worker to the strategy, and return the answer."""
        if isinstance(message, WorkerStarted):
            self._last_message[message.task] = time.monotonic()
            return ""
        if isinstance(message, EpochReported):
            if self.executor.in_this_process:  # the loop waits for the end of the task
                self.look()
                self._abandon_silent()
                if message.task not in self._last_message:  # it reports too late
                    return Decision.STOP.value
            decision = self.strategy.reported(self.running[message.task], message.message)
            self._last_message[message.task] = time.monotonic()  # without the time that the decision took
            is_pausing = self._is_stopping or self.is_paused or self.strategy.is_pausing
            return (Decision.PAUSE if is_pausing and decision is Decision.CONTINUE else decision).value
        self._last_message.pop(message.task, None)
        task = self.running.pop(message.task)
        if isinstance(message, TaskFinished):
            if self.executor.in_this_process and "signal" in message.outcome:  # the training has caught it
                self._signals.append(message.outcome["signal"])
            outcome = Outcome.from_message(message.outcome)
            if outcome.details.get("is_disk_full"):  # the task is to be done when there is space again
                who = task.id if task.candidate is None else f"candidate {task.candidate}"
                self._disk_full = self._disk_full or f"{who}: {outcome.reason}"
                outcome = replace(outcome, status="interrupted")
            self.strategy.ended(task, outcome)
        else:
            self.strategy.lost(task, message.cause, message.reason, had_started=message.had_started)
        return ""

    def _abandon_silent(self) -> None:
        """End the workers that have not sent a message for too long."""
        if self.max_epoch_time is None:
            return
        silent_since = time.monotonic() - self.max_epoch_time
        for task in [each for each, last in self._last_message.items() if last < silent_since]:
            del self._last_message[task]
            self.executor.abandon(task, self.max_epoch_time)
