"""Workers on the machines of a Ray cluster; the task of one that is lost is done elsewhere."""

import logging
import math
import os
import platform
import queue
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search.executors.base import (
    EpochReported,
    Executor,
    Handler,
    Task,
    TaskFinished,
    WorkerLost,
    WorkerMessage,
    WorkerStarted,
    num_gpus_of,
)
from search.executors.ownership import take_over
from search.executors.processes import Processes
from utils.errors import SearchError
from utils.files import write_text_atomically

logger = logging.getLogger(__name__)

_SECONDS_WITHOUT_MESSAGE = 5.0  # after which a host answers that it has none
_SECONDS_BETWEEN_LOOKS = 2.0  # at the machines of the cluster
_MARK = ".seen-by-search"  # a file by which a host knows that it sees the folder of the search, not one of its own
_MOST_LOST_UNUSED = 5


class Host(Processes):
    """A Ray actor with one worker process; it relays the messages between the process and the search.

    A training needs a main thread, in which signals arrive, and an address space that can be limited: hence a process.

    Args:
        root: The folder that the search was started in, to which relative paths of a config refer.
        worker: The worker's context manager, see `Executor`.
        folder: Folder for the output of the worker, in a folder of the study; if this machine does not see that one,
            the output lies in its folder for temporary files.
        options: Arguments of `Processes`.
    """

    def __init__(self, root: str, worker: str, folder: str, options: dict[str, Any]) -> None:
        super().__init__(1, **options)
        self._messages: queue.SimpleQueue[WorkerMessage | SearchError] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._root, self._worker, self._logs = root, worker, Path(folder)
        self._checked: set[str] = set()
        self._is_open = False

    def _refuse(self, path: str) -> None:
        self._messages.put(
            SearchError(
                f"search.executor: {platform.node()} of the cluster does not see {path}. Every machine needs the code, "
                "the data, plug-ins and the folders of the runs under the same paths: mount them there, or leave the "
                "machine out."
            )
        )

    def start_checked(self, task: Task, paths: Sequence[str], runs: str, mark: str) -> None:
        """Start a task, and with the first one the process, if this machine sees everything that the task needs.

        Args:
            task: The task.
            paths: Files and folders that it reads, as far as the search sees them.
            runs: Folder that holds its run folder; "" if it has none.
            mark: Content of the file by which that one is known.
        """
        if os.path.isdir(self._root):
            os.chdir(self._root)  # to which relative paths refer
        for path in (self._root, *paths):
            if path not in self._checked and not os.path.exists(path):
                self._refuse(path)
                return
            self._checked.add(path)
        if runs and runs not in self._checked:
            try:
                is_same = (Path(runs) / _MARK).read_text() == mark
            except OSError:
                is_same = False
            if not is_same:
                self._refuse(runs)
                return
            self._checked.add(runs)
        if not self._is_open:
            self._is_open = True
            if self._logs.parent.is_dir():
                self._logs.mkdir(exist_ok=True)
            else:  # the study lies on the disk of the search, only the run folders on one that all machines see
                self._logs = Path(tempfile.mkdtemp(prefix="espalier-worker-"))
            self.open(self._worker, self._logs)
            threading.Thread(target=self._relay, daemon=True).start()
        self.start(task)

    def _relay(self) -> None:
        def put(message: WorkerMessage) -> str:
            self._messages.put(message)
            return self._answers.get() if isinstance(message, EpochReported) else ""

        try:
            while True:
                self.wait(put, _SECONDS_WITHOUT_MESSAGE)
        except SearchError as error:
            self._messages.put(error)

    # Ray starts an actor when there is room; its first answer says that it has.

    def is_up(self) -> bool:
        """Return True, as soon as the host is up."""
        return True

    def next_message(self) -> WorkerMessage | SearchError | None:
        """Return the next message; None if there is none for a while."""
        try:
            return self._messages.get(timeout=_SECONDS_WITHOUT_MESSAGE)
        except queue.Empty:
            return None

    def answer(self, decision: str) -> None:
        """Answer the last report."""
        self._answers.put(decision)


@dataclass
class _Place:
    """A place for a task: a host on some machine, or one that Ray has not found room for yet."""

    number: int
    host: Any
    is_up: bool = False
    task: Task | None = None
    has_started: bool = False


class RayCluster(Executor):
    """Runs each task on a machine of a Ray cluster that has room for it; tasks wait if none has.

    The machines share the code, the data and the folders of the runs, under the same paths. A GPU with a share below 1
    is used by several candidates; two or more are used by one, with a process for each.

    Args:
        workers: Candidates at a time.
        address: Address of a running cluster, e.g. "10.0.0.1:6379", or "auto"; by default one is started on this
            machine.
        cpus: Processors of a candidate.
        gpus: GPUs of a candidate, e.g. 0.5 or 2.
        resources: Other resources of a candidate, by the names that the cluster gives them.
        memory_limit_mb: Address space of a worker in MB; a candidate that needs more has run out of memory.
        wait_minutes: Minutes for which the cluster may have no machine that is large enough for a candidate.

    Raises:
        SearchError: An argument is out of its range.
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        address: str | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
        resources: dict[str, float] | None = None,
        memory_limit_mb: int | None = None,
        wait_minutes: float = 10.0,
    ) -> None:
        if cpus <= 0 or gpus < 0:
            raise SearchError(
                f"search.executor: cpus {cpus:g} must be above 0 and gpus {gpus:g} not below. Write 1 and 0, or 1 and "
                "0.5 for two candidates on a GPU."
            )
        if gpus > 1 and gpus != int(gpus):
            raise SearchError(
                f"search.executor: gpus {gpus:g} must be a whole number, or at most 1. A candidate has a share of one "
                "GPU, or several whole ones. Write 0.5, 1 or 2."
            )
        if wait_minutes <= 0:
            raise SearchError(
                f"search.executor: wait_minutes {wait_minutes:g} must be above 0. Write 10 for ten minutes in which a "
                "machine may join the cluster."
            )
        self.workers = workers
        self._num_gpus = max(1, int(gpus))
        self._options: dict[str, Any] = {
            # Ray shows a worker only its GPUs, and counts them from 0.
            "devices": [str(number) for number in range(self._num_gpus)] if gpus else ["cpu"],
            "threads": max(1, math.floor(cpus)),
            "memory_limit_mb": memory_limit_mb,
        }
        Processes(workers, **self._options)  # checks the arguments that they share
        self._address = address
        self._needs: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "resources": resources or {}}
        self._places: list[_Place] = []
        self._waiting: list[Task] = []
        self._withdrawn: list[Task] = []
        self._pending: dict[Any, _Place] = {}  # by Ray's reference of the next message
        self._has_joined = False
        self._num_lost_unused = 0
        self._wait_minutes = wait_minutes
        self._unmet_since: float | None = None  # seconds, since when no machine is large enough
        self._looked_at = -math.inf
        self._mark = uuid.uuid4().hex
        self._marked: set[str] = set()

    @property
    def devices(self) -> list[str]:
        """Devices of a candidate."""
        devices: list[str] = self._options["devices"]
        return devices

    def open(self, worker: str, folder: Path) -> None:
        """Join the cluster and ask for room for every worker."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise SearchError(
                f"search.executor: Ray cannot be imported ({error}). Run pip install ray, or write "
                '{"type": "processes", "args": {"workers": 2}} for workers on this machine.'
            ) from None
        self._ray = ray
        if not ray.is_initialized():
            self._has_joined = True
            try:
                # Without an address Ray would wait for the last cluster of this machine, also for a dead one.
                address = self._address or (None if os.environ.get("RAY_ADDRESS") else "local")
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise SearchError(
                    f'search.executor: no cluster at address "{self._address}" ({str(error).splitlines()[0]}). Start '
                    'one with "ray start --head" and write its address, or "auto" on one of its machines.'
                ) from None
        self._arguments = (str(Path.cwd()), worker, folder.resolve())
        self._make_host = ray.remote(Host).options(max_concurrency=4, **self._needs).remote
        self._places = [self._new_place(number) for number in range(self.workers)]

    def _new_place(self, number: int) -> _Place:
        """Ask Ray for a host, which comes up when there is room."""
        root, worker, folder = self._arguments
        place = _Place(number, self._make_host(root, worker, str(folder / f"ray-{number}"), self._options))
        self._pending[place.host.is_up.remote()] = place
        return place

    @property
    def idle(self) -> int:
        """Number of hosts without a task, with those that are not up yet: a task started for those waits."""
        return self.workers - len(self._waiting) - sum(place.task is not None for place in self._places)

    def start(self, task: Task) -> None:
        """Send the task to a host that is up, as soon as there is one."""
        self.check_resources(task.resources)
        if num_gpus_of(task.resources) < self._num_gpus:
            task = replace(task, resources={**task.resources, "gpus": self._num_gpus})
        self._waiting.append(task)
        self._send_waiting()

    def _send_waiting(self) -> None:
        # A task that is sent to a host before it is up could not be withdrawn.
        free = [place for place in self._places if place.is_up and place.task is None]
        for place in free[: len(self._waiting)]:
            place.task, place.has_started = self._waiting.pop(0), False
            task, runs = place.task, ""
            if "folder" in task.payload:
                run = Path(task.payload["folder"])
                runs = str(run.parent)
                if runs not in self._marked:
                    run.parent.mkdir(parents=True, exist_ok=True)
                    write_text_atomically(run.parent / _MARK, self._mark)
                    self._marked.add(runs)
                # Its last worker may still run, on a machine that cannot be reached.
                task = replace(task, payload={**task.payload, "token": take_over(run)})
            place.host.start_checked.remote(task, list(_paths_read(task)), runs, self._mark)

    def _require_large_enough_machine(self) -> None:
        """Raise an error if no machine of the cluster has been large enough for a candidate for too long.

        Raises:
            SearchError: It names the request and the largest machine.
        """
        now = time.monotonic()
        if any(place.is_up for place in self._places):
            self._unmet_since = None
            return
        if now - self._looked_at < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked_at = now
        needs = {"CPU": self._needs["num_cpus"], "GPU": self._needs["num_gpus"], **self._needs["resources"]}
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(each.get(name, 0) >= amount for name, amount in needs.items()) for each in machines):
            self._unmet_since = None
            return
        self._unmet_since = now if self._unmet_since is None else self._unmet_since
        if now - self._unmet_since < 60 * self._wait_minutes:
            return
        wanted = ", ".join(f"{name} {amount:g}" for name, amount in needs.items() if amount)
        found = "; ".join(", ".join(f"{name} {each.get(name, 0):g}" for name in needs) for each in machines) or "none"
        raise SearchError(
            f"search.executor: a candidate needs {wanted}, and for {self._wait_minutes:g} minutes no machine of the "
            f"cluster has had as much (the machines: {found}). Ask for less, or let a machine join the cluster, and "
            "continue with --resume auto: everything is saved."
        )

    def wait(self, handle: Handler, timeout: float) -> None:
        """Pass on one message of each host that has one."""
        while self._withdrawn:
            handle(WorkerLost(self._withdrawn.pop(0).id, "no machine had room for it", "died", had_started=False))
        # All that are ready, so that no busy host makes others wait; else the first that becomes ready.
        pending = list(self._pending)
        ready, _ = self._ray.wait(pending, num_returns=len(pending), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(pending, num_returns=1, timeout=timeout)
        for reference in ready:
            place = self._pending.pop(reference)
            try:
                message = self._ray.get(reference)
            except self._ray.exceptions.RayActorError as error:  # the machine or the actor is gone: ask for another
                reason = str(error).splitlines()[0]
                self._num_lost_unused += not place.is_up
                if self._num_lost_unused > _MOST_LOST_UNUSED:
                    raise SearchError(
                        f"search.executor: {self._num_lost_unused} hosts in a row never came up: {reason}. Correct "
                        "what Ray's log says (ray status, ray logs), and continue with --resume auto."
                    ) from error
                logger.info("A worker of the cluster is gone (%s); another one is asked for.", reason)
                self._places[place.number] = self._new_place(place.number)
                if place.task is not None:
                    handle(WorkerLost(place.task.id, f"its host is gone: {reason}", "died", place.has_started))
                continue
            if isinstance(message, SearchError):
                raise message
            place.is_up = True
            self._num_lost_unused = 0
            if isinstance(message, EpochReported):
                place.host.answer.remote(handle(message))
            elif isinstance(message, WorkerStarted):
                place.has_started = True
                handle(message)
            elif isinstance(message, TaskFinished | WorkerLost):
                place.task = None
                handle(message)
            self._pending[place.host.next_message.remote()] = place
        self._require_large_enough_machine()
        self._send_waiting()

    def abandon(self, task: str, silent_seconds: float | None = None) -> None:
        """Kill the process on its host."""
        for place in self._places:
            if place.task is not None and place.task.id == task:
                place.host.abandon.remote(task, silent_seconds)

    def interrupt(self) -> None:
        """Have every training save its state, and withdraw the tasks that wait for a host."""
        self._withdrawn, self._waiting = self._waiting, []
        for place in self._places:
            if place.task is not None:
                place.host.interrupt.remote()

    def close(self) -> None:
        """End the hosts and with them their processes, and the cluster if it was started here."""
        for place in self._places:
            self._ray.kill(place.host)
        self._places.clear()
        self._pending.clear()
        if self._has_joined:
            self._ray.shutdown()


def _paths_read(task: Task) -> Iterator[str]:
    """Yield the files and folders that a task reads and that exist here: plug-ins, and data of its loaders."""
    yield from task.payload.get("plugins", ())
    config = task.payload.get("config", {})
    sections = [value for name, value in config.items() if name.endswith("loader")]
    while sections:
        value = sections.pop()
        if isinstance(value, Mapping):
            sections += value.values()
        elif isinstance(value, list | tuple):
            sections += value
        elif isinstance(value, str) and value and os.path.exists(value):
            yield value
