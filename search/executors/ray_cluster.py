"""Workers on the machines of a Ray cluster; one that is lost has its work done elsewhere."""

import logging
import math
import os
import platform
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.executors.base import Begun, Ended, Executor, Handler, Happening, Lost, Told, Work
from search.executors.processes import Processes
from utils.errors import SearchError

logger = logging.getLogger(__name__)

_SECONDS_OF_HEARING = 5.0  # after which a host that has nothing to tell says so
_MOST_LOST_UNUSED = 5


@dataclass
class _Place:
    """Where a work can be done: a host somewhere in the cluster, or one that Ray has yet to find room for."""

    number: int
    host: Any
    is_up: bool = False
    work: Work | None = None
    has_begun: bool = False


class Host:
    """Lives on a machine of the cluster with one worker process, and carries the words between it and the search.

    The process is its own, so that a training has a main thread, which is where signals arrive, and an address space
    that can be limited.

    Args:
        root: The folder that the search was begun in, which relative paths of a config start from.
        worker: What the process does, see `Executor`.
        folder: Where it leaves what it prints, in a folder of the study.
        options: Arguments of `Processes`.
    """

    def __init__(self, root: str, worker: str, folder: str, options: dict[str, Any]) -> None:
        self._happened: queue.SimpleQueue[Happening | SearchError] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        for path in (root, str(Path(folder).parent)):
            if not Path(path).is_dir():
                self._happened.put(
                    SearchError(
                        f"search.executor: {platform.node()} of the cluster does not see {path}. Every machine needs "
                        "the code, the data and the study's folder under the same paths: mount them there, or leave "
                        "the machine out."
                    )
                )
                return
        os.chdir(root)
        Path(folder).mkdir(exist_ok=True)
        self._processes = Processes(1, **options)
        self._processes.open(worker, Path(folder))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                self._processes.wait(self._pass_on, _SECONDS_OF_HEARING)
        except SearchError as error:
            self._happened.put(error)

    def _pass_on(self, happening: Happening) -> str:
        self._happened.put(happening)
        return self._answers.get() if isinstance(happening, Told) else ""

    def start(self, work: Work) -> None:
        """Begin a work."""
        self._processes.start(work)

    def is_up(self) -> bool:
        """That it is."""
        return True

    def hear(self) -> Happening | SearchError | None:
        """What happened next; None where nothing did for a while."""
        try:
            return self._happened.get(timeout=_SECONDS_OF_HEARING)
        except queue.Empty:
            return None

    def answer(self, decision: str) -> None:
        """Answer what was told last."""
        self._answers.put(decision)

    def abandon(self, number: int) -> None:
        """Kill the process of a work."""
        self._processes.abandon(number)

    def interrupt(self) -> None:
        """Ask the training to save its state."""
        self._processes.interrupt()


class RayCluster(Executor):
    """Runs each work on a machine of a Ray cluster that has room for it; the works wait where none has.

    The machines share the code, the data and the study's folder, under the same paths. A GPU of a share below 1 is
    used by several candidates.

    Args:
        workers: Candidates at a time.
        address: Of a running cluster, e.g. "10.0.0.1:6379", or "auto"; where not given, one is begun on this machine.
        cpus: Processors that a candidate has.
        gpus: GPUs that a candidate has, e.g. 0.5.
        resources: What else a candidate takes of a machine's resources, by the names that the cluster gives them.
        memory_limit_mb: Address space of a worker; a candidate that wants more has run out of memory.

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
    ) -> None:
        if cpus <= 0 or gpus < 0:
            raise SearchError(
                f"search.executor: cpus {cpus:g} must be above 0 and gpus {gpus:g} not below. Write 1 and 0, or 1 and "
                "0.5 for two candidates on a GPU."
            )
        self.workers = workers
        self._options: dict[str, Any] = {
            "devices": ["0" if gpus else "cpu"],  # Ray shows a worker nothing but its own
            "threads": max(1, math.floor(cpus)),
            "memory_limit_mb": memory_limit_mb,
        }
        Processes(workers, **self._options)  # checks what it shares with it
        self._address = address
        self._needs = {"num_cpus": cpus, "num_gpus": gpus, "resources": resources or {}}
        self._places: list[_Place] = []
        self._waiting: list[Work] = []
        self._withdrawn: list[Work] = []
        self._hearing: dict[Any, _Place] = {}  # by the answers that are awaited
        self._has_joined = False
        self._lost_unused = 0

    def open(self, worker: str, folder: Path) -> None:
        """Join the cluster and ask for room for every worker."""
        self._ray = ray = _import_ray()
        if not ray.is_initialized():
            self._has_joined = True
            try:
                ray.init(self._address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise SearchError(
                    f'search.executor: no cluster at address "{self._address}" ({str(error).splitlines()[0]}). Begin '
                    'one with "ray start --head" and write its address, or "auto" on one of its machines.'
                ) from None
        self._arguments = (str(Path.cwd()), worker, folder.resolve())
        self._make_host = ray.remote(Host).options(max_concurrency=4, **self._needs).remote
        self._places = [self._new_place(number) for number in range(self.workers)]

    def _new_place(self, number: int) -> _Place:
        """Ask Ray for a host, which comes up when there is room."""
        root, worker, folder = self._arguments
        place = _Place(number, self._make_host(root, worker, str(folder / f"ray-{number}"), self._options))
        self._hearing[place.host.is_up.remote()] = place
        return place

    @property
    def idle(self) -> int:
        """Hosts without work, with those that have yet to come up: what is begun in their place waits for one."""
        return self.workers - len(self._waiting) - sum(place.work is not None for place in self._places)

    def start(self, work: Work) -> None:
        """Send it to a host that is up, or keep it until one is."""
        self._waiting.append(work)
        self._hand_out()

    def _hand_out(self) -> None:
        free = [place for place in self._places if place.is_up and place.work is None]
        for place in free[: len(self._waiting)]:
            place.work, place.has_begun = self._waiting.pop(0), False
            place.host.start.remote(place.work)

    def wait(self, handle: Handler, timeout: float) -> None:
        """Hear the hosts that have something to tell."""
        while self._withdrawn:
            handle(Lost(self._withdrawn.pop(0).number, "no machine had room for it", "died", had_begun=False))
        known = list(self._hearing)
        ready, _ = self._ray.wait(known, num_returns=len(known), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(known, num_returns=1, timeout=timeout)
        for answer in ready:
            place = self._hearing.pop(answer)
            try:
                heard = self._ray.get(answer)
            except self._ray.exceptions.RayActorError as error:
                self._bury(place, str(error).splitlines()[0], handle)
                continue
            self._hear(place, heard, handle)
        self._hand_out()

    def _hear(self, place: _Place, heard: Happening | SearchError | bool | None, handle: Handler) -> None:
        if isinstance(heard, SearchError):
            raise heard
        place.is_up = True
        self._lost_unused = 0
        if isinstance(heard, Told):
            place.host.answer.remote(handle(heard))
        elif isinstance(heard, Begun):
            place.has_begun = True
            handle(heard)
        elif isinstance(heard, Ended | Lost):
            place.work = None
            handle(heard)
        self._hearing[place.host.hear.remote()] = place

    def _bury(self, place: _Place, reason: str, handle: Handler) -> None:
        """Ask for another host in the place of one that is gone, and say what became of its work."""
        self._lost_unused += not place.is_up
        if self._lost_unused > _MOST_LOST_UNUSED:
            raise SearchError(
                f"search.executor: {self._lost_unused} hosts in a row never came up: {reason}. Mend what Ray's log "
                "tells (ray status, ray logs), and go on with --resume auto."
            )
        logger.info("A worker of the cluster is gone (%s); another one is asked for.", reason)
        self._places[place.number] = self._new_place(place.number)
        if place.work is not None:
            handle(Lost(place.work.number, f"its host is gone: {reason}", "died", place.has_begun))

    def abandon(self, number: int) -> None:
        """Kill the process on its host."""
        for place in self._places:
            if place.work is not None and place.work.number == number:
                place.host.abandon.remote(number)

    def interrupt(self) -> None:
        """Have every training save its state, and take back what waits for a host."""
        self._withdrawn, self._waiting = self._waiting, []
        for place in self._places:
            if place.work is not None:
                place.host.interrupt.remote()

    def close(self) -> None:
        """End the hosts and with them their processes, and the cluster where it was begun here."""
        for place in self._places:
            self._ray.kill(place.host)
        self._places.clear()
        self._hearing.clear()
        if self._has_joined:
            self._ray.shutdown()


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise SearchError(
            f"search.executor: Ray cannot be imported ({error}). Run pip install ray, or write "
            '{"type": "processes", "args": {"workers": 2}} for workers on this machine.'
        ) from None
    return ray
