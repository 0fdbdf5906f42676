"""Executors start and feed workers: in this process, in worker processes, or on a cluster. A study runs on each."""

import logging
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from utils.errors import SearchError

if TYPE_CHECKING:
    from search.study.journal import Event

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A job for a worker, as plain data.

    Attributes:
        id: Name of the task, unique within a session of the study: `search/12/3`.
        kind: Action of the worker's function: "train", "retrain", "measure" or "pool".
        payload: The rest of the task as the worker's function reads it.
        candidate: Number of the candidate that it works on; None if it has none.
        begins_from: Run folder whose newest checkpoint the task begins with; None: from the beginning, or from the
            checkpoint of its own folder.
        resources: Resources that it takes other than one worker: `{"gpus": 2}` runs it as two processes, with a GPU
            each, or on the processor of a machine without GPUs.
    """

    id: str
    kind: str
    payload: dict[str, Any] = field(compare=False)
    candidate: int | None = None
    begins_from: str | None = None
    resources: Mapping[str, float] = field(default_factory=dict, compare=False)

    def as_message(self) -> dict[str, Any]:
        """Return the task as the worker's function takes it."""
        return {
            "id": self.id,
            "kind": self.kind,
            **self.payload,
            "begins_from": self.begins_from,
            "resources": dict(self.resources),
        }


@dataclass(frozen=True)
class WorkerStarted:
    """A worker has finished loading and started its task.

    Attributes:
        task: Name of the task.
    """

    task: str


@dataclass(frozen=True)
class EpochReported:
    """A worker reports an epoch, or something else of its task, and waits for the answer: a `Decision`.

    Attributes:
        task: Name of the task.
        message: Plain data, e.g. the results of an epoch.
    """

    task: str
    message: dict[str, Any]


@dataclass(frozen=True)
class TaskFinished:
    """A worker has returned from its task.

    Attributes:
        task: Name of the task.
        outcome: Plain data.
    """

    task: str
    outcome: dict[str, Any]


@dataclass(frozen=True)
class WorkerLost:
    """A worker has ended before its task; another one replaces it.

    Attributes:
        task: Name of the task.
        reason: The reason in words.
        cause: "died": it was killed or crashed; "hung": the search ended it.
        had_started: Whether the worker had started the task, so that the task may be the cause.
    """

    task: str
    reason: str
    cause: Literal["died", "hung"]
    had_started: bool = True


WorkerMessage = WorkerStarted | EpochReported | TaskFinished | WorkerLost
Handler = Callable[[WorkerMessage], str]  # returns the answer to an `EpochReported`, "" to any other message


class Executor(ABC):
    """Runs tasks on workers.

    The worker's function is named, not passed, for it is imported in the worker: a context manager that lasts as long
    as the worker and gives `function(task, report) -> outcome`, with plain data throughout. The function calls
    `report(message)`, which returns the decision. The executor adds to a task `worker` (its number), `device`,
    `devices` (of a task that takes several GPUs), `threads` and `logs` (folder). After an outcome with `fresh_worker`
    the process is replaced by a new one. Any exception of the function becomes an outcome with the status "failed".

    Attributes:
        in_this_process: Whether signals that are sent to the search reach the tasks, too.
    """

    in_this_process = False

    def check_resources(self, resources: Mapping[str, float]) -> None:
        """Refuse tasks that no worker has the devices for; call it before `open`.

        Args:
            resources: Those of a task.

        Raises:
            SearchError: There is no such resource, or not as much of it.
        """
        unknown = [name for name in resources if name != "gpus"]
        if unknown:
            raise SearchError(
                f'search.resources: "{unknown[0]}" is no resource of a task. It is "gpus". Write e.g. {{"gpus": 2}}, '
                "and what a cluster has in addition in the args of search.executor."
            )
        if not float(resources.get("gpus", 1)).is_integer():
            raise SearchError(
                f"search.resources: gpus {resources['gpus']:g} must be a whole number: a process has a GPU each. Write "
                "e.g. 2; a share of a GPU is an argument of the executor ray."
            )
        num_gpus = num_gpus_of(resources)
        devices = self.devices
        if num_gpus > 1 and devices is not None and "cpu" not in devices and len(devices) < num_gpus:
            raise SearchError(
                f"search.resources: gpus {num_gpus}, and the executor has {len(devices)} for a candidate "
                f"({', '.join(devices) or 'none'}). Each of its processes needs one. Name more of them in "
                "search.executor, or write a lower number."
            )

    @property
    def devices(self) -> list[str] | None:
        """Devices that the executor was given, from which a task takes its own; None: those that the machine has."""
        return None

    def now(self) -> float:
        """Return the time of an event in seconds: Unix time, or a simulated one."""
        return time.time()

    def continue_after(self, events: "Iterable[Event]") -> None:  # noqa: B027
        """Take note of the events so far, before `open`; only an executor with a clock of its own reads them.

        Args:
            events: Those of the journal.
        """

    @abstractmethod
    def open(self, worker: str, folder: Path) -> None:
        """Start the workers.

        Args:
            worker: The context manager, "package.module:name".
            folder: Folder for the output of the workers.

        Raises:
            SearchError: They cannot be started.
        """

    @property
    @abstractmethod
    def idle(self) -> int:
        """Number of tasks that could be started at once."""

    @abstractmethod
    def start(self, task: Task) -> None:
        """Start a task; only if a worker is idle."""

    @abstractmethod
    def wait(self, handle: Handler, timeout: float) -> None:
        """Pass messages of the workers to the handler, at least one unless the time is over.

        Args:
            handle: Called in this process, one message after the other.
            timeout: Seconds to wait at most.
        """

    @abstractmethod
    def close(self) -> None:
        """End the workers, at once."""

    def abandon(self, task: str, silent_seconds: float | None = None) -> None:  # noqa: B027
        """End a task that hangs; its worker is replaced, and `WorkerLost` is the next message of the task.

        An executor whose tasks run within `wait` is only asked at a report, with which the task then ends.

        Args:
            task: Name of the task.
            silent_seconds: Seconds for which it reported nothing, for the reason.
        """

    def interrupt(self) -> None:  # noqa: B027
        """Ask every worker to save the state of its task and return an outcome with the status "interrupted".

        It does nothing in an executor whose tasks run within `wait`.
        """


def num_gpus_of(resources: Mapping[str, float]) -> int:
    """Return the number of processes, with a GPU each, that a task runs as."""
    return max(1, int(resources.get("gpus", 1)))


def silence(seconds: float | None) -> str:
    """Return in words why the search ended a worker."""
    span = "too long" if seconds is None else f"{seconds:g} s"
    return f"it reported nothing for {span} and was ended"


def outcome_of(
    function: Callable[[dict[str, Any], Callable[[dict[str, Any]], str]], dict[str, Any]],
    task: dict[str, Any],
    report: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    """Run a worker's function; an error that it did not catch is an outcome, too, and never the end of the worker."""
    try:
        return function(task, report)
    except Exception as error:
        logger.exception("A task failed.")
        return failure(error)


def own_class_error(subject: str, error: BaseException) -> SearchError:
    """Return the error of a search whose sampler, scheduler or strategy has raised one, probably of the user's own."""
    return SearchError(
        f"{subject}: {failure(error)['reason'].rstrip('.')}. If that is a file of your own, correct it, and continue "
        "with --resume auto: everything that was reported is saved."
    )


def failure(error: BaseException) -> dict[str, Any]:
    """Return the outcome of a task whose function raised an error; its worker is replaced."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}{place}" + (f": {lines[0]}" if lines else "")
    return {"status": "failed", "reason": reason, "fresh_worker": True}
