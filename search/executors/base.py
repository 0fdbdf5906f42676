"""What runs jobs: in this process, in worker processes, or on a cluster. The same study runs on each."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Report = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Work:
    """A job for a worker: plain data.

    Attributes:
        number: Of this work, never used again in the same process.
        task: What to do: the worker's function reads it.
    """

    number: int
    task: dict[str, Any] = field(compare=False)


@dataclass(frozen=True)
class Begun:
    """A worker has begun with its work: it has started up and loaded what it needs.

    Attributes:
        number: Of the work.
    """

    number: int


@dataclass(frozen=True)
class Told:
    """A worker tells something and waits for the answer, a `Decision`.

    Attributes:
        number: Of the work.
        message: Plain data, e.g. the results of an epoch.
    """

    number: int
    message: dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """A worker has returned what came of its work.

    Attributes:
        number: Of the work.
        outcome: Plain data.
    """

    number: int
    outcome: dict[str, Any]


@dataclass(frozen=True)
class Lost:
    """A worker is gone with its work undone; another one is in its place.

    Attributes:
        number: Of the work.
        reason: In words.
        cause: "died": killed or crashed; "hung": this side ended it.
        had_begun: Whether the worker had begun with it, so that the work may be to blame.
    """

    number: int
    reason: str
    cause: Literal["died", "hung"]
    had_begun: bool = True


Happening = Begun | Told | Ended | Lost
Handler = Callable[[Happening], str]  # the answer to a `Told`; "" for anything else


class Executor(ABC):
    """Runs works on workers.

    What a worker does is named, not handed over, for it is imported where the worker is: a context manager that lasts
    as long as the worker and gives `function(task, report) -> outcome`, with plain data throughout. The function tells
    by `report(message)`, which returns the decision. The task holds `worker`, `device` and `threads` beside what the
    work has. An outcome with `fresh_worker` has the process replaced by a new one.

    Attributes:
        in_this_process: Whether signals that are sent to the search reach the works, too.
    """

    in_this_process = False

    @abstractmethod
    def open(self, worker: str, folder: Path) -> None:
        """Start the workers.

        Args:
            worker: The context manager, "package.module:name".
            folder: Where workers leave what they print.

        Raises:
            SearchError: They cannot be started.
        """

    @property
    @abstractmethod
    def idle(self) -> int:
        """Works that could be begun at once."""

    @abstractmethod
    def start(self, work: Work) -> None:
        """Begin a work; only where one is idle."""

    @abstractmethod
    def wait(self, handle: Handler, timeout: float) -> None:
        """Let the handler hear of what happens, at least once or until the time is over.

        Args:
            handle: Called in this process, one happening after the other.
            timeout: Seconds to wait at most.
        """

    @abstractmethod
    def abandon(self, number: int) -> None:
        """End a work that hangs; its worker is replaced, and `Lost` is heard next."""

    @abstractmethod
    def interrupt(self) -> None:
        """Ask every worker to save the state of its work and return; its outcome says that it was interrupted."""

    @abstractmethod
    def close(self) -> None:
        """End the workers, at once."""
