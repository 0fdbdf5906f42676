"""The processes that share one task: the worker starts them, relays the reports of the main one, and ends them."""

import logging
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.executors.base import EpochReported, Task, TaskFinished, WorkerLost, WorkerMessage
from search.executors.processes import Processes
from search.worker.callbacks import Report
from utils.environment import available_processors, record_signals
from utils.errors import Interrupted

logger = logging.getLogger(__name__)

RANK = "rank"  # kind of the task of one process
_WORKER = "search.worker.runner:worker"
_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
_TICK = 0.5  # seconds between two looks at signals
_SECONDS_FOR_REASONS = 2.0  # for the other processes to end after the first failure
_NEVER = float("inf")


def num_processes(task: Mapping[str, Any]) -> int:
    """Return the number of processes that a task is trained with."""
    return max(1, int(task.get("resources", {}).get("gpus", 1)))


class Ranks:
    """The processes of this worker, which are retained from one task to the next of the same size."""

    def __init__(self) -> None:
        self._pool: Processes | None = None
        self._settings: Any = None

    def train(self, task: Mapping[str, Any], report: Report) -> dict[str, Any]:
        """Train a task with several processes.

        Args:
            task: As for `train_here`, with the worker's `devices`, `threads`, `logs` and number.
            report: Reports to the search and returns its decision.

        Returns:
            The outcome of all processes; if one failed, its reason.

        Raises:
            Interrupted: A signal asked to stop, and all of them have saved the state.
            SearchError: They cannot be started.
        """
        size, number = num_processes(task), task.get("worker") or 0
        pool = self._ready(size, number, task)
        signals: list[int] = []
        outcomes: dict[int, dict[str, Any]] = {}
        lost: dict[int, str] = {}

        def handle(message: WorkerMessage) -> str:
            if isinstance(message, EpochReported):
                return report(message.message)
            if isinstance(message, TaskFinished):
                outcomes[int(message.task)] = message.outcome
            elif isinstance(message, WorkerLost):
                lost[int(message.task)] = message.reason
            return ""

        is_whole = False
        try:
            with (
                tempfile.TemporaryDirectory() as scratch,
                record_signals(_STOP_SIGNALS, lambda: bool(signals), signals.append),
            ):
                content = {key: value for key, value in task.items() if key not in ("id", "kind")}
                shared = {"size": size, "first_device": number * size, "rendezvous": f"{scratch}/rendezvous"}
                for rank in range(size):
                    pool.start(Task(str(rank), RANK, content | shared | {"rank": rank}))
                has_asked, deadline = False, _NEVER
                while len(outcomes) + len(lost) < size and time.monotonic() < deadline:
                    if signals and not has_asked:
                        has_asked = True
                        pool.interrupt()
                    pool.wait(handle, _TICK)
                    if deadline == _NEVER and (lost or any(map(_has_failed, outcomes.values()))):
                        deadline = time.monotonic() + _SECONDS_FOR_REASONS  # the others wait for it in vain
            is_whole = not lost and len(outcomes) == size and not any(map(_has_failed, outcomes.values()))
        finally:
            if not is_whole:
                self.close()
        is_interrupted = any(each["status"] == "interrupted" for each in outcomes.values())
        if signals and (is_interrupted or not is_whole):  # one that is not ready to save continues from its checkpoint
            raise Interrupted(signals[0])
        return outcome_of_all(outcomes, lost, size)

    def _ready(self, size: int, number: int, task: Mapping[str, Any]) -> Processes:
        """Return the processes for a task: those of the last one, or new ones."""
        devices = task.get("devices")
        threads = max(1, (task.get("threads") or available_processors()) // size)
        settings = (size, devices, threads)
        if self._pool is None or self._settings != settings:
            self.close()
            logs = Path(task.get("logs") or task["folder"]) / f"worker-{number}-processes"
            logs.mkdir(parents=True, exist_ok=True)
            self._pool, self._settings = Processes(size, devices=devices, threads=threads), settings
            self._pool.open(_WORKER, logs)
        return self._pool

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None


def _has_failed(outcome: Mapping[str, Any]) -> bool:
    return outcome["status"] not in ("ended", "interrupted")


def outcome_of_all(outcomes: Mapping[int, dict[str, Any]], lost: Mapping[int, str], size: int) -> dict[str, Any]:
    """Return the outcome of a task from those of its processes: the first cause if it failed.

    A process whose partner is gone fails, too, with an error about a connection.
    """
    for rank, reason in lost.items():
        return {"status": "failed", "reason": f"process {rank} of {size} is lost: {reason}"}
    failed = sorted((each["at"], rank) for rank, each in outcomes.items() if _has_failed(each))
    if not failed:
        interrupted = [each for each in outcomes.values() if each["status"] == "interrupted"]
        if interrupted:
            raise Interrupted(interrupted[0].get("signal", signal.SIGTERM))
        return {key: value for key, value in outcomes[0].items() if key != "at"}
    rank = failed[0][1]
    outcome = {key: value for key, value in outcomes[rank].items() if key != "at"}
    return outcome | {"reason": f"process {rank} of {size}: {outcome['reason']}"}
