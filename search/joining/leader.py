"""The executor of the process that leads a shared study: its workers are those of the members."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from search.executors.base import EpochReported, Executor, Handler, Task, TaskFinished, WorkerLost, WorkerStarted
from search.joining.lease import Lease
from search.joining.mailbox import (
    Attempt,
    MemberState,
    Orders,
    list_members,
    members_folder,
    orders_folder,
    plain_task,
    read_orders,
    write_orders,
)
from search.joining.timing import Timing, Watched, read_shared, write_shared

logger = logging.getLogger("espalier")

_ATTEMPTS_OF_A_LEADER = 10**6  # a token is the generation times this, and the number of the attempt
_MEMBERS_AT_FULL_RATE = 10  # with more of them, the leader looks less often: a server has so many requests at most
_EXPELLED = "expelled.json"


@dataclass
class _Order:
    """A task that a member has.

    Attributes:
        task: The task, by the name that the search gave it.
        is_started: Whether the search knows that it has started.
        num_answered: Number of reports that were answered.
        abandoned: Seconds at which the search gave it up; None if it has not.
    """

    task: Task
    is_started: bool = False
    num_answered: int = 0
    abandoned: float | None = None


@dataclass
class _Member:
    """A member, as the leader knows it.

    Attributes:
        name: Its name.
        watched: Its counter.
        state: Its last published state.
        given: Its tasks, by the name of the attempt.
        orders: The last orders to it.
    """

    name: str
    watched: Watched
    state: MemberState = field(default_factory=MemberState)
    given: dict[str, _Order] = field(default_factory=dict)
    orders: Orders = field(default_factory=Orders)

    @property
    def free(self) -> int:
        """Number of workers for which it has no task."""
        return self.state.idle - len(self.given.keys() - self.state.attempts.keys())


class JoinedMembers(Executor):
    """Runs each task on one of the processes that joined the study.

    A leader that follows another one waits until every member has given back its tasks: their state is saved, or the
    member is taken for dead. The tasks are then given anew, and epochs trained but not reported are reported.

    Args:
        study: Folder of the study.
        lease: The leadership of this process.
        timing: Its clock.
        on_look: Called at each look at the members, between two events of the study.
    """

    def __init__(self, study: Path, lease: Lease, timing: Timing, on_look: Callable[[], None] = lambda: None) -> None:
        self._study = study
        self._lease = lease
        self._timing = timing
        self._on_look = on_look
        self._members: dict[str, _Member] = {}
        self._expelled: set[str] = set()
        self._unsettled: set[str] = set()  # members of an earlier leader that may still work for it
        self._waiting: list[Task] = []
        self._withdrawn: list[Task] = []
        self._num_attempts = 0

    def open(self, worker: str, folder: Path) -> None:
        """Give orders to the members that are there; each starts workers of its own."""
        members_folder(self._study).mkdir(parents=True, exist_ok=True)
        for generation in range(self._lease.generation):
            self._expelled |= set(read_shared(orders_folder(self._study, generation) / _EXPELLED) or ())
        orders_folder(self._study, self._lease.generation).mkdir(parents=True, exist_ok=True)
        self._unsettled = set(list_members(self._study)) - self._expelled
        self._find_members()

    @property
    def idle(self) -> int:
        """Number of workers without a task, and at least one if nothing runs: its task waits for a member."""
        free = 0 if self._unsettled else sum(max(0, member.free) for member in self._usable())
        is_anything_given = bool(self._waiting or any(member.given for member in self._members.values()))
        return max(free - len(self._waiting), 0 if is_anything_given else 1)

    def start(self, task: Task) -> None:
        """Give the task to the member with most room, as soon as there is one."""
        self._waiting.append(task)
        self._place_waiting()

    def wait(self, handle: Handler, timeout: float) -> None:
        """Look at the files of the members until one has a message.

        Raises:
            LeaseLost: Another process leads by now.
        """
        while self._withdrawn:
            handle(WorkerLost(self._withdrawn.pop().id, "the process that leads the study left", "died", False))
        until = self._timing.clock() + timeout
        while True:
            self._lease.check()
            self._find_members()
            num_messages = sum(self._look_at(member, handle) for member in list(self._members.values()))
            self._place_waiting()
            self._on_look()
            if num_messages or self._timing.clock() >= until:
                return
            self._timing.sleep(self._timing.poll * max(1.0, len(self._members) / _MEMBERS_AT_FULL_RATE))

    def abandon(self, task: str, silent_seconds: float | None = None) -> None:
        """Have the member end the worker; a member that does not answer is taken for dead itself."""
        for member in self._members.values():
            for name, order in member.given.items():
                if order.task.id == task and order.abandoned is None:
                    order.abandoned = self._timing.clock()
                    member.orders.abandoned[name] = silent_seconds
                    self._tell(member)

    def interrupt(self) -> None:
        """Leave the tasks where they are: the next leader has them given back and goes on."""
        for member in self._members.values():
            self._withdrawn += [order.task for order in member.given.values()]
            member.given.clear()
        self._withdrawn += self._waiting
        self._waiting = []

    def close(self) -> None:
        """Forget the members; they see how the leadership ended."""
        self._members.clear()

    def _usable(self) -> list[_Member]:
        """Return the members that follow this leader."""
        return [each for each in self._members.values() if each.state.generation == self._lease.generation]

    def _find_members(self) -> None:
        """Greet members that are new."""
        for name in list_members(self._study):
            if name not in self._members and name not in self._expelled:
                member = self._members[name] = _Member(name, Watched(self._timing))
                member.orders = read_orders(self._study, self._lease.generation, name) or Orders()
                self._tell(member)

    def _tell(self, member: _Member) -> None:
        write_orders(self._study, self._lease.generation, member.name, member.orders)

    def _look_at(self, member: _Member, handle: Handler) -> int:
        """Pass on the messages of a member and return their number."""
        folder = members_folder(self._study) / member.name
        beat, content = (read_shared(folder / name) for name in ("beat.json", "state.json"))
        silence = member.watched.silence(beat)
        if beat is None and not folder.exists():
            return self._lose(member, f"the process {member.name} left the study", handle, may_be_cause=False)
        if silence > self._timing.patience:
            return self._expel(member, f"the process {member.name} gave no sign of life for {silence:.0f} s", handle)
        if content is None:
            return 0
        member.state = MemberState.from_plain(content)
        if member.state.generation != self._lease.generation:
            return 0
        if not member.state.attempts.keys() - member.given.keys():
            self._unsettled.discard(member.name)
        num_messages = 0
        for name, attempt in member.state.attempts.items():
            if name in member.given:
                num_messages += self._pass_on(member, name, attempt, handle)
        hung = [each for each in member.given.values() if each.abandoned is not None]
        if any(self._timing.clock() - (each.abandoned or 0.0) > self._timing.patience for each in hung):
            return num_messages + self._expel(member, f"the process {member.name} cannot end its worker", handle)
        return num_messages

    def _pass_on(self, member: _Member, name: str, attempt: Attempt, handle: Handler) -> int:
        """Pass on the new messages of a task and return their number."""
        order, num_messages = member.given[name], 0
        task = order.task.id
        if attempt.is_started and not order.is_started:
            order.is_started = True
            num_messages += 1
            handle(WorkerStarted(task))
        if attempt.num_reports > order.num_answered:
            # The study writes the report to its journal before it answers, and the answer is published after that.
            answer = handle(EpochReported(task, attempt.report))
            order.num_answered = attempt.num_reports
            member.orders.answers[name] = (attempt.num_reports, answer)
            num_messages += 1
            self._tell(member)
        if attempt.ending:
            del member.given[name]
            for kept in (member.orders.tasks, member.orders.answers):
                kept.pop(name, None)
            num_messages += 1
            if attempt.ending == "finished":
                handle(TaskFinished(task, attempt.outcome))
            else:
                handle(WorkerLost(task, **attempt.outcome))
            self._tell(member)
        return num_messages

    def _place_waiting(self) -> None:
        """Give tasks that wait to members with room."""
        while self._waiting and not self._unsettled:
            member = max(self._usable(), key=lambda each: each.free, default=None)
            if member is None or member.free < 1:
                return
            task = self._waiting.pop(0)
            self._num_attempts += 1
            name = f"{self._lease.generation}-{self._num_attempts}"
            member.given[name] = _Order(task)
            token = self._lease.generation * _ATTEMPTS_OF_A_LEADER + self._num_attempts
            member.orders.tasks[name] = plain_task(task, token)
            self._tell(member)

    def _expel(self, member: _Member, reason: str, handle: Handler) -> int:
        """Take a member for dead: if it only slept, it ends its workers when it wakes up."""
        logger.warning("%s: its tasks are done elsewhere.", reason)
        self._expelled.add(member.name)
        write_shared(orders_folder(self._study, self._lease.generation) / _EXPELLED, sorted(self._expelled))
        member.orders = Orders(is_expelled=True)
        self._tell(member)
        return self._lose(member, reason, handle, may_be_cause=True)

    def _lose(self, member: _Member, reason: str, handle: Handler, *, may_be_cause: bool) -> int:
        """Report the tasks of a member as lost and return their number."""
        del self._members[member.name]
        self._unsettled.discard(member.name)
        for order in member.given.values():
            cause: Literal["died", "hung"] = "died" if order.abandoned is None else "hung"
            handle(WorkerLost(order.task.id, reason, cause, order.is_started and may_be_cause))
        return len(member.given)
