"""One candidate after the other, in this process."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from search.executors.base import (
    EpochReported,
    Executor,
    Handler,
    Task,
    TaskFinished,
    WorkerLost,
    WorkerStarted,
    outcome_of,
    silence,
)
from utils.errors import SearchError
from utils.registry import import_attribute


class Serial(Executor):
    """Runs each task in this process. A task that never reports again or crashes takes the search with it.

    Args:
        device: Device of the training, e.g. "0" or "cpu"; by default the config's `n_gpu`. Several, e.g. "0,1", if
            candidates take several GPUs.
    """

    in_this_process = True

    def __init__(self, *, device: str | None = None) -> None:
        self._device = device
        self._function: Any = None
        self._worker_context = ExitStack()
        self._waiting: Task | None = None
        self._logs = ""
        self._silence = ""  # why the present task was given up

    @property
    def devices(self) -> list[str] | None:
        """Devices by their numbers."""
        return None if self._device is None else [name.strip() for name in self._device.split(",")]

    def open(self, worker: str, folder: Path) -> None:
        """Import the worker; its output appears here, that of further processes of a task in the folder."""
        self._logs = str(folder)
        self._function = self._worker_context.enter_context(import_attribute(worker)())

    @property
    def idle(self) -> int:
        """One if no task waits."""
        return int(self._waiting is None)

    def start(self, task: Task) -> None:
        """Store the task for `wait`."""
        self.check_resources(task.resources)
        self._waiting = task

    def wait(self, handle: Handler, timeout: float) -> None:
        """Run the task to its end, ignoring the timeout; the handler is called from within it."""
        task, self._waiting = self._waiting, None
        if task is None:
            return
        raised: list[Exception] = []

        def report(message: dict[str, Any]) -> str:
            try:
                answer = handle(EpochReported(task.id, message))
            except Exception as error:
                raised.append(error)
                # The task reports an error of this kind in one line.
                raise SearchError("the search cannot continue") from error
            if self._silence:
                raise SearchError(self._silence)
            return answer

        handle(WorkerStarted(task.id))
        place = {"worker": 0, "device": self._device, "devices": self.devices, "threads": None, "logs": self._logs}
        outcome = outcome_of(self._function, task.as_message() | place, report)
        # The task may have caught an error that must end the search, and taken it for its failure.
        if raised:
            raise raised[0]
        reason, self._silence = self._silence, ""
        handle(WorkerLost(task.id, reason, "hung") if reason else TaskFinished(task.id, outcome))

    def abandon(self, task: str, silent_seconds: float | None = None) -> None:
        """End the task at the report that it is just sending."""
        self._silence = silence(silent_seconds)

    def close(self) -> None:
        """End the worker's context."""
        self._worker_context.close()
