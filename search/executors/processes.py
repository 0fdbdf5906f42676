"""Warm worker processes on this machine: each keeps torch, its device and the decoded data between candidates."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, NamedTuple

from search.executors.base import Begun, Ended, Executor, Handler, Lost, Told, Work
from utils.errors import SearchError
from utils.hardware import available_processors
from utils.registry import import_attribute

logger = logging.getLogger(__name__)

_SECONDS_TO_END = 5.0
_MOST_STILLBORN = 5


class _Settings(NamedTuple):
    """What a worker process is started with."""

    does: str
    number: int
    device: str | None
    threads: int | None
    memory_limit_mb: int | None
    log: str
    root: str


class _Worker:
    """One process and what it does."""

    def __init__(self, settings: _Settings) -> None:
        self.settings = settings
        self.work: Work | None = None
        self.has_begun = False  # with any work
        self.is_working = False  # on the present one
        self.cause: Literal["died", "hung"] = "died"
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, settings), name="search worker")
        self.process.start()
        theirs.close()

    def send(self, message: Any) -> None:
        """Hand over a task or an answer; one that is gone is noticed by its sentinel."""
        try:
            self.connection.send(message)
        except OSError:
            logger.debug("Worker %d is gone.", self.settings.number)

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.connection.close()


class Processes(Executor):
    """Runs each work in one of several processes, which live as long as the search.

    Args:
        workers: Processes.
        devices: GPUs that they take in turn, e.g. ["0", "1"], or ["cpu"]; fewer devices than workers are shared. Where
            not given, each config's `n_gpu` counts.
        threads: CPU threads of each; the processors of this machine are shared out where not given.
        memory_limit_mb: Address space of each; a candidate that wants more has run out of memory.

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
            raise SearchError("search.executor: memory_limit_mb is not to be had on this system. Leave it out.")
        self.workers = workers
        self._devices = devices
        self._threads = threads or max(1, available_processors() // workers)
        self._memory_limit_mb = memory_limit_mb
        self._pool: list[_Worker] = []
        self._stillborn = 0

    def open(self, worker: str, folder: Path) -> None:
        """Start the processes; they load what they need side by side."""
        for number in range(self.workers):
            device = self._devices[number % len(self._devices)] if self._devices else None
            log = str(folder / f"worker-{number}.log")
            self._pool.append(
                _Worker(_Settings(worker, number, device, self._threads, self._memory_limit_mb, log, os.getcwd()))
            )

    @property
    def idle(self) -> int:
        """Processes without work."""
        return sum(worker.work is None for worker in self._pool)

    def start(self, work: Work) -> None:
        """Send it to the first process without work."""
        worker = next(worker for worker in self._pool if worker.work is None)
        worker.work, worker.is_working = work, False
        settings = worker.settings
        worker.send(work.task | {"worker": settings.number, "device": settings.device, "threads": settings.threads})

    def wait(self, handle: Handler, timeout: float) -> None:
        """Hear the processes that have something to tell, in the order of their numbers."""
        ready = wait([source for each in self._pool for source in (each.connection, each.process.sentinel)], timeout)
        for worker in list(self._pool):
            if worker.connection in ready or worker.process.sentinel in ready:
                self._hear(worker, handle)

    def _hear(self, worker: _Worker, handle: Handler) -> None:
        content: dict[str, Any]
        try:
            if not worker.connection.poll():
                raise EOFError
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker, handle)
            return
        assert worker.work is not None
        number = worker.work.number
        if kind == "begun":
            worker.has_begun = worker.is_working = True
            self._stillborn = 0
            handle(Begun(number))
            return
        if kind == "told":
            worker.send(handle(Told(number, content)))
            return
        worker.work = None
        if content.get("fresh_worker"):
            self._replace(worker)
        handle(Ended(number, content))

    def _bury(self, worker: _Worker, handle: Handler) -> None:
        """Put another process in the place of one that is gone, and say what became of its work."""
        worker.process.join(_SECONDS_TO_END)  # it may take a moment between closing its pipe and its end
        work, code = worker.work, worker.process.exitcode
        self._stillborn += not worker.has_begun
        if self._stillborn > _MOST_STILLBORN:
            raise SearchError(
                f"{self._stillborn} workers in a row never began: {_ending(code, worker.settings.log)}. A worker "
                "imports what it needs and waits for work. Mend what its log tells, and go on with --resume auto."
            )
        self._replace(worker)
        if work is not None:
            handle(Lost(work.number, _ending(code, worker.settings.log), worker.cause, worker.is_working))

    def _replace(self, worker: _Worker) -> None:
        worker.stop()
        self._pool[self._pool.index(worker)] = _Worker(worker.settings)

    def abandon(self, number: int) -> None:
        """Kill the process."""
        for worker in self._pool:
            if worker.work is not None and worker.work.number == number:
                worker.cause = "hung"
                worker.process.kill()

    def interrupt(self) -> None:
        """Send SIGTERM, at which a training saves its state."""
        for worker in self._pool:
            if worker.work is not None:
                worker.process.terminate()

    def close(self) -> None:
        """Let processes without work end by themselves, and kill the others."""
        for worker in self._pool:
            if worker.work is None:
                worker.send(None)
                worker.process.join(_SECONDS_TO_END)
            worker.stop()
        self._pool.clear()


def _ending(code: int | None, log: str) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " (often by the system, for want of memory)" if name == "SIGKILL" else ""
        return f"its worker was ended by {name}{hint}"
    return f"its worker ended with exit code {code}; {log} says why"


def _serve(connection: Connection, settings: _Settings) -> None:
    """The life of a worker process: one task after the other until None comes, or the search is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the search, which then asks its workers
    _print_into(settings.log)
    os.chdir(settings.root)  # a new process begins where this one was begun
    if settings.memory_limit_mb is not None:
        import resource

        limit = settings.memory_limit_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # before anything loads torch
    with import_attribute(settings.does)() as function:
        while True:
            try:
                task = connection.recv()
            except EOFError:
                return
            if task is None:
                return
            connection.send(("begun", {}))
            outcome = function(task, lambda message: _ask(connection, message))
            connection.send(("ended", outcome))


def _ask(connection: Connection, message: dict[str, Any]) -> str:
    connection.send(("told", message))
    answer: str = connection.recv()
    return answer


def _end_with_parent() -> None:
    """A worker whose search was killed must not go on writing into a run folder that a resumed search uses."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _print_into(log: str) -> None:
    """Send what this process prints, its last words in a crash too, to a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
