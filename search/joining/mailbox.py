"""The files by which the leader of a shared study and its members exchange messages.

Each file is written by one process only, as a whole, and holds the present state, not past changes: a member says
which tasks it has and how far they are, the leader which tasks a member is to have and how it answers. Whoever reads a
file twice, or misses one of its versions, does nothing wrong.

    joined/members/<member>/state.json    written by the member
    joined/members/<member>/beat.json     a counter that moves while the member lives
    joined/orders/<generation>/<member>.json    written by the leader of that generation
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from search.executors.base import Task
from search.joining.lease import JOINED
from search.joining.timing import Timing, read_shared, write_shared

_LEFT = ".left"


@dataclass
class Attempt:
    """A task on a member, as the member publishes it.

    Attributes:
        is_started: Whether its worker has started it.
        num_reports: Number of its reports.
        report: The last of them, which waits for an answer or has one.
        ending: "finished" or "lost"; empty while it runs.
        outcome: The worker's return value, or `reason`, `cause` and `had_started` of a loss.
    """

    is_started: bool = False
    num_reports: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    ending: str = ""
    outcome: dict[str, Any] = field(default_factory=dict)


@dataclass
class MemberState:
    """The published state of a member.

    Attributes:
        host: Name of its machine.
        generation: Generation of the leader whose orders it follows; it will follow no earlier one.
        idle: Number of tasks that it could start.
        attempts: Its tasks, by the name of the attempt.
    """

    host: str = ""
    generation: int = 0
    idle: int = 0
    attempts: dict[str, Attempt] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> "MemberState":
        """Return the state that was read from a file."""
        attempts = {name: Attempt(**each) for name, each in content["attempts"].items()}
        return cls(content["host"], content["generation"], content["idle"], attempts)


@dataclass
class Orders:
    """The leader's orders to a member.

    Attributes:
        tasks: The tasks that it is to have, by the name of the attempt; any other is saved and given back.
        answers: Number of the report and the answer, by the name of the attempt.
        abandoned: Attempts whose worker hangs and is to be ended, with the seconds for which it reported nothing.
        is_expelled: The member gave no sign of life and is taken for dead: it ends its workers at once.
    """

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    abandoned: dict[str, float | None] = field(default_factory=dict)
    is_expelled: bool = False


def members_folder(study: Path) -> Path:
    """Return the folder with a folder of each member."""
    return study / JOINED / "members"


def list_members(study: Path) -> list[str]:
    """Return the names of the members, dead ones among them."""
    try:
        return sorted(name for name in os.listdir(members_folder(study)) if not name.endswith(_LEFT))
    except OSError:
        return []


def orders_folder(study: Path, generation: int) -> Path:
    """Return the folder of a leader's orders."""
    return study / JOINED / "orders" / f"{generation:06d}"


def read_orders(study: Path, generation: int, member: str) -> Orders | None:
    """Return the orders of a leader for a member; None if it has not written any."""
    content = read_shared(orders_folder(study, generation) / f"{member}.json")
    return None if content is None else Orders(**content)


def write_orders(study: Path, generation: int, member: str, orders: Orders) -> None:
    """Replace the orders for a member."""
    write_shared(orders_folder(study, generation) / f"{member}.json", asdict(orders))


def plain_task(task: Task, token: int) -> dict[str, Any]:
    """Return a task as plain data.

    Args:
        task: The task.
        token: Number of the attempt, higher than that of any earlier one: only the highest may write.
    """
    return {
        "kind": task.kind,
        "payload": {**task.payload, "token": token},
        "candidate": task.candidate,
        "begins_from": task.begins_from,
        "resources": dict(task.resources),
    }


class MemberBox:
    """The files of a member, for itself.

    Args:
        study: Folder of the study.
        name: Name of the member, which no other has had.
        timing: Its clock.
    """

    def __init__(self, study: Path, name: str, timing: Timing) -> None:
        self.folder = members_folder(study) / name
        self._timing = timing
        self._has_left = False
        self.folder.mkdir(parents=True)
        timing.start_thread(self._beat)

    def publish(self, state: Mapping[str, Any]) -> None:
        """Replace the state: a `MemberState` as plain data."""
        write_shared(self.folder / "state.json", state)

    def leave(self) -> None:
        """Remove the files: the member has nothing that runs any more."""
        self._has_left = True
        left = self.folder.with_name(f"{self.folder.name}{_LEFT}")
        try:
            self.folder.rename(left)  # at once, so that nobody sees half of it
        except OSError:
            return
        shutil.rmtree(left, ignore_errors=True)

    def _beat(self) -> None:
        count = 0
        while not self._has_left:
            count += 1
            try:
                write_shared(self.folder / "beat.json", count)
            except OSError:  # left meanwhile, or the share is full or absent, which may pass
                if self._has_left:
                    return
            self._timing.sleep(self._timing.beat)
