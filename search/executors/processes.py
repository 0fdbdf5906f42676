"""Warm worker processes on this machine: each retains torch, its device and the decoded data between candidates."""

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Literal, NamedTuple

from search.executors.base import (
    EpochReported,
    Executor,
    Handler,
    Task,
    TaskFinished,
    WorkerLost,
    WorkerStarted,
    failure,
    num_gpus_of,
    outcome_of,
    silence,
)
from utils.environment import SHARE_OF_PROCESSORS, available_processors
from utils.errors import SearchError
from utils.registry import import_attribute

logger = logging.getLogger(__name__)

_SECONDS_TO_END = 5.0
_MOST_NEVER_STARTED = 5


class _WorkerSettings(NamedTuple):
    """Arguments of a worker process."""

    worker: str
    number: int
    device: str | None
    threads: int | None
    memory_limit_mb: int | None
    log: str
    root: str


class _Worker:
    """A process and its present task."""

    def __init__(self, settings: _WorkerSettings) -> None:
        self.settings = settings
        self.task: Task | None = None
        self.has_ever_started = False  # any task
        self.has_started = False  # the present task
        self.cause: Literal["died", "hung"] = "died"
        self.silent_seconds: float | None = None  # of one that hangs
        # A forked process would inherit locks and threads of this one.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, settings), name="search worker")
        self.process.start()
        theirs.close()

    def send(self, message: Any) -> None:
        """Send a task or an answer; a process that is gone is noticed by its sentinel."""
        try:
            self.connection.send(message)
        except OSError:
            logger.debug("Worker %d is gone.", self.settings.number)

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def ending(self) -> str:
        """Return in words how the process ended."""
        if self.cause == "hung":
            return silence(self.silent_seconds)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = " (often by the system, for lack of memory)" if name == "SIGKILL" else ""
            return f"its worker was ended by {name}{hint}"
        return f"its worker ended with exit code {code}; {self.settings.log} says why"


class Processes(Executor):
    """Runs each task in one of several processes, which live as long as the search.

    Args:
        workers: Number of processes.
        devices: GPUs that they take in turn, e.g. ["0", "1"], or ["cpu"]; fewer devices than workers are shared. By
            default each config's `n_gpu` counts. If a task takes several, the first process has the first ones, the
            second one the next.
        threads: CPU threads of each; by default the processors of this machine are divided among them.
        memory_limit_mb: Address space of each in MB; a candidate that needs more has run out of memory.

    Raises:
        SearchError: An argument is out of its range.
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        devices: list[str] | None = None,
        threads: int | None = None,
        memory_limit_mb: int | None = None,
    ) -> None:
        if workers < 1:
            raise SearchError(f"search.executor: workers {workers} must be 1 or more. Write 1 for a single process.")
        if memory_limit_mb is not None and not hasattr(signal, "SIGKILL"):
            raise SearchError("search.executor: memory_limit_mb is not available on this system. Leave it out.")
        self.workers = workers
        self._devices = devices
        self._threads = threads or max(1, available_processors() // workers)
        self._memory_limit_mb = memory_limit_mb
        self._pool: list[_Worker] = []
        self._num_never_started = 0

    def open(self, worker: str, folder: Path) -> None:
        """Start the processes; they load at the same time."""
        for number in range(self.workers):
            device = self._devices[number % len(self._devices)] if self._devices else None
            log = str(folder / f"worker-{number}.log")
            settings = _WorkerSettings(worker, number, device, self._threads, self._memory_limit_mb, log, os.getcwd())
            self._pool.append(_Worker(settings))

    @property
    def devices(self) -> list[str] | None:
        """Devices of all processes."""
        return self._devices

    @property
    def idle(self) -> int:
        """Number of processes without a task."""
        return sum(worker.task is None for worker in self._pool)

    def start(self, task: Task) -> None:
        """Send the task to the first process without one."""
        self.check_resources(task.resources)
        worker = next(worker for worker in self._pool if worker.task is None)
        worker.task, worker.has_started = task, False
        settings, devices, count = worker.settings, None, num_gpus_of(task.resources)
        if self._devices and count > 1:
            first = settings.number * count
            devices = [self._devices[(first + index) % len(self._devices)] for index in range(count)]
        place = {"worker": settings.number, "device": settings.device, "devices": devices, "threads": settings.threads}
        worker.send(task.as_message() | place | {"logs": str(Path(settings.log).parent)})

    def wait(self, handle: Handler, timeout: float) -> None:
        """Pass on one message of each process that has one, in the order of their numbers."""
        ready = wait([source for each in self._pool for source in (each.connection, each.process.sentinel)], timeout)
        for worker in list(self._pool):
            if worker.connection not in ready and worker.process.sentinel not in ready:
                continue
            message: tuple[str, dict[str, Any]] | None = None
            with suppress(EOFError, OSError):
                if worker.connection.poll():
                    content_bytes = worker.connection.recv_bytes()
                    try:
                        message = pickle.loads(content_bytes)
                    except Exception as error:  # it holds something that only the worker knows
                        message = ("finished", failure(error))
            if message is None:  # the process is gone; it may take a moment between closing its pipe and its end
                worker.process.join(_SECONDS_TO_END)
                ending = worker.ending()  # before it is killed to be sure
                self._num_never_started += not worker.has_ever_started
                if self._num_never_started > _MOST_NEVER_STARTED:
                    raise SearchError(
                        f"{self._num_never_started} workers in a row never started: {ending}. A worker imports what it "
                        "needs and waits for a task. Correct what its log names, and continue with --resume auto."
                    )
                self._replace(worker)
                if worker.task is not None:
                    handle(WorkerLost(worker.task.id, ending, worker.cause, worker.has_started))
                continue
            kind, content = message
            assert worker.task is not None
            task = worker.task.id
            if kind == "started":
                worker.has_ever_started = worker.has_started = True
                self._num_never_started = 0
                handle(WorkerStarted(task))
            elif kind == "reported":
                worker.send(handle(EpochReported(task, content)))
            else:
                worker.task = None
                if content.get("fresh_worker"):
                    self._replace(worker)
                handle(TaskFinished(task, content))

    def _replace(self, worker: _Worker) -> None:
        worker.stop()  # frees its device before the next one needs it
        self._pool[self._pool.index(worker)] = _Worker(worker.settings)

    def abandon(self, task: str, silent_seconds: float | None = None) -> None:
        """Kill the process."""
        for worker in self._pool:
            if worker.task is not None and worker.task.id == task:
                worker.cause, worker.silent_seconds = "hung", silent_seconds
                worker.process.kill()

    def interrupt(self) -> None:
        """Send SIGTERM, at which a training saves its state."""
        for worker in self._pool:
            if worker.task is not None:  # an idle one has no handler and would die
                worker.process.terminate()

    def close(self) -> None:
        """Let processes without a task end by themselves, and kill the others."""
        for worker in self._pool:
            if worker.task is None:
                worker.send(None)
                worker.process.join(_SECONDS_TO_END)
            worker.stop()
        self._pool.clear()


def _serve(connection: Connection, settings: _WorkerSettings) -> None:
    """Run one task after the other in a worker process until None is received or the search is gone."""
    for name in ("SIGINT", "SIGHUP"):  # Ctrl-C, or a closed terminal, reaches the search, which then asks its workers
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    log = os.open(settings.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):  # also the last output of a crash
        os.dup2(log, stream.fileno())
    os.close(log)
    os.chdir(settings.root)  # a new process begins in the folder of its parent's start
    if settings.memory_limit_mb is not None:
        import resource

        limit = settings.memory_limit_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # before anything loads torch
    os.environ[SHARE_OF_PROCESSORS] = str(settings.threads)

    def report(message: dict[str, Any]) -> str:
        connection.send(("reported", message))
        answer: str = connection.recv()
        return answer

    with import_attribute(settings.worker)() as function:
        while True:
            try:
                task = connection.recv()
            except EOFError:
                return
            if task is None:
                return
            connection.send(("started", {}))
            outcome = outcome_of(function, task, report)
            try:
                message = ForkingPickler.dumps(("finished", outcome))
            except Exception as error:  # an outcome that is no plain data
                message = ForkingPickler.dumps(("finished", failure(error)))
            connection.send_bytes(message)


def _end_with_parent() -> None:
    """End this process with the search: a resumed search will write into the same run folders."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
