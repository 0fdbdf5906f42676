"""A member of a shared study: it runs the tasks that the leader gives it on workers of its own."""

import logging
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from search.executors.base import EpochReported, Executor, Task, TaskFinished, WorkerMessage, WorkerStarted
from search.joining.lease import End, LeaseView, LeaseWatcher
from search.joining.mailbox import Attempt, MemberBox, MemberState, Orders, read_orders
from search.joining.timing import Timing
from search.schedulers.base import Decision
from utils.environment import record_signals
from utils.errors import Interrupted, SearchError, signal_name

logger = logging.getLogger("espalier")

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_SECONDS_TO_SAVE = 60.0


class LeftStudy(Interrupted):
    """A signal asked a process to leave a shared study, and its tasks were saved.

    Args:
        signal_number: The signal that arrived.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.args = (
            f"Interrupted by {signal_name(signal_number)}; what this process had is saved, and the others continue "
            "with it. Run the same command to take part again.",
        )


@dataclass
class _Progress:
    """Facts on a task of a member that it does not publish.

    Attributes:
        withdrawn: Seconds at which the task was withdrawn; None if the leader wants it.
        is_abandoned: Whether its worker was ended.
    """

    withdrawn: float | None = None
    is_abandoned: bool = False


@dataclass
class Member:
    """A process that hosts workers for a shared study.

    Without a leader its tasks go on until they have something to report; then they wait for the next leader, which has
    them saved and given back.

    Attributes:
        study: Folder of the study.
        worker: The worker's context manager; see `Executor`.
        make_executor: Makes the executor of the workers.
        make_name: Makes a name that no member has had.
        supervise: Called with the leadership, again and again; makes another process lead if nobody does.
        timing: Its clock.
    """

    study: Path
    worker: str
    make_executor: Callable[[], Executor]
    make_name: Callable[[], str]
    supervise: Callable[[LeaseView], None]
    timing: Timing
    _signals: list[int] = field(default_factory=list, init=False)  # received ones

    def run(self) -> End:
        """Take part until the study ends, and return how.

        Raises:
            LeftStudy: A signal asked to stop; all tasks are saved and given back.
            SearchError: The study cannot be continued, or workers cannot be started.
        """
        watcher = LeaseWatcher(self.study, self.timing)
        with record_signals(STOP_SIGNALS, lambda: bool(self._signals), self._signals.append):
            while not self._signals:
                view = _Membership(self, watcher, self._signals).run()
                if view.end == "failed":
                    raise SearchError(view.message)
                if view.end is not None and not self._signals:
                    return view.end
        raise LeftStudy(self._signals[-1])


class _Membership:
    """A member under one name, until it leaves or is expelled.

    Args:
        member: Its settings.
        watcher: Observes the leadership.
        signals: Signals that were received.
    """

    def __init__(self, member: Member, watcher: LeaseWatcher, signals: list[int]) -> None:
        self._member, self._watcher, self._signals = member, watcher, signals
        self._timing = member.timing
        self._name = member.make_name()
        self._executor = member.make_executor()
        self._state = MemberState(host=platform.node())
        self._progress: dict[str, _Progress] = {}
        self._is_expelled = False
        self._view = LeaseView(0, is_free=False)
        self._looked: float | None = None
        self._published: dict[str, Any] = {}

    def run(self) -> LeaseView:
        """Run tasks until the study ends, a signal comes, or this member is expelled; return the leadership then."""
        member = self._member
        logs = member.study / "workers" / self._name
        logs.mkdir(parents=True, exist_ok=True)
        self._executor.open(member.worker, logs)
        self._box = MemberBox(member.study, self._name, self._timing)
        try:
            while not self._is_leaving:
                orders = self._follow()
                if orders is not None:
                    self._start_tasks(orders)
                self._executor.wait(self._handle, self._timing.poll)
            if not self._is_expelled:
                self._save_all()
        finally:
            self._executor.close()
            self._box.leave()
        return self._view

    @property
    def _is_leaving(self) -> bool:
        return bool(self._signals) or self._is_expelled or self._view.end in ("done", "stopped", "failed")

    def _follow(self) -> Orders | None:
        """Look for a leader and follow its orders, apart from new tasks; return them, None without any."""
        now = self._timing.clock()
        if self._looked is None or now - self._looked >= self._timing.beat:
            self._looked, self._view = now, self._watcher.look()
            self._member.supervise(self._view)
        generation = max(self._view.generation, self._state.generation)
        orders = read_orders(self._member.study, generation, self._name)
        if orders is None:
            return None
        self._is_expelled |= orders.is_expelled
        self._state.generation = generation
        unwanted = [name for name in self._state.attempts if name not in orders.tasks]
        for name in unwanted:
            if self._state.attempts[name].ending:
                del self._state.attempts[name], self._progress[name]
        newly = [name for name in unwanted if name in self._progress and self._progress[name].withdrawn is None]
        for name in newly:
            self._progress[name].withdrawn = now
        if newly:  # all that run: only a new leader withdraws another one's tasks
            self._executor.interrupt()
        for name, progress in self._progress.items():
            is_late = progress.withdrawn is not None and now - progress.withdrawn > _SECONDS_TO_SAVE
            is_running = not self._state.attempts[name].ending
            if is_running and not progress.is_abandoned and (name in orders.abandoned or is_late):
                progress.is_abandoned = True
                self._executor.abandon(name, orders.abandoned.get(name))
        self._publish()
        return orders

    def _start_tasks(self, orders: Orders) -> None:
        """Start the tasks that are new."""
        for name, task in orders.tasks.items():
            if name in self._state.attempts or not self._executor.idle:
                continue
            self._state.attempts[name], self._progress[name] = Attempt(), _Progress()
            # Published before it starts: the tasks that a dead member may have begun can be read.
            self._publish()
            self._executor.start(Task(name, **task))
        self._publish()

    def _handle(self, message: WorkerMessage) -> str:
        """Publish a message of a worker, and wait for the answer if it is a report."""
        attempt = self._state.attempts[message.task]
        if isinstance(message, WorkerStarted):
            attempt.is_started = True
        elif isinstance(message, EpochReported):
            attempt.num_reports += 1
            attempt.report = message.message
            self._publish()
            return self._answer(message.task, attempt)
        elif isinstance(message, TaskFinished):
            attempt.ending, attempt.outcome = "finished", message.outcome
        else:
            cause = {"reason": message.reason, "cause": message.cause, "had_started": message.had_started}
            attempt.ending, attempt.outcome = "lost", cause
        self._publish()
        return ""

    def _answer(self, name: str, attempt: Attempt) -> str:
        """Return the leader's answer to the last report; PAUSE if the task is to be saved without one."""
        while True:
            orders = self._follow()
            if self._is_expelled:  # another worker may have its run folder by now
                self._executor.abandon(name)
            if self._is_leaving or self._progress[name].withdrawn is not None:
                return Decision.PAUSE.value
            number, answer = (orders.answers.get(name) if orders is not None else None) or (0, "")
            if number == attempt.num_reports:
                return answer
            self._timing.sleep(self._timing.poll)

    def _save_all(self) -> None:
        """Have every task saved; those that take too long are ended, and their epoch is trained again."""
        self._executor.interrupt()
        until = self._timing.clock() + _SECONDS_TO_SAVE
        while any(not each.ending for each in self._state.attempts.values()) and self._timing.clock() < until:
            self._executor.wait(self._handle, self._timing.poll)

    def _publish(self) -> None:
        """Publish the state, if it has changed."""
        self._state.idle = self._executor.idle
        state = asdict(self._state)
        if state != self._published:
            self._published = state
            self._box.publish(state)
