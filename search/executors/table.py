"""A table instead of trainings: simulated workers, whose epochs are rows of a file, in simulated time."""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.markers import find_markers
from search.executors.base import EpochReported, Executor, Handler, Task, TaskFinished, WorkerStarted, outcome_of
from search.results.record import parse_objectives
from search.schedulers.base import Decision
from search.space.outcomes import plain_json
from search.space.table_space import TableSpace
from search.tables.reading import Repeats, read_table
from search.tables.table import ResultTable, TableRun
from utils.errors import ConfigError, SearchError
from utils.registry import import_attribute

if TYPE_CHECKING:
    from search.study.journal import Event

_ESTIMATE = "estimate"  # kind of a task that trains nothing, and that no table has: it runs in this process
_LIMITS = {"max_params": "params", "max_flops": "flops", "max_memory_mb": "memory_mb", "max_latency_ms": "latency_ms"}


@dataclass(order=True)
class _Step:
    """The next epoch of a task; the earlier ends first, of equals that of the lower worker.

    A task without an epoch takes no time and comes first.
    """

    seconds: float
    has_epoch: bool
    worker: int
    task: Task = field(compare=False)
    epoch: int = field(compare=False)
    run: TableRun = field(compare=False)
    outcome: dict[str, Any] | None = field(compare=False, default=None)
    is_new: bool = field(compare=False, default=True)


class TableExecutor(Executor):
    """Takes the results of candidates from a table; nothing is trained, and nobody waits.

    Messages come in the order of simulated time, which begins at 0 and continues where the journal ends.

    Args:
        file: CSV or .npz.
        columns: The names of its columns, see `TableColumns`.
        workers: Simulated workers.
        repeats: "mean" of the trainings of a configuration, or "draw": one of them, by the seed of the candidate.

    Raises:
        ConfigError: There are no workers.
    """

    def __init__(
        self, file: str, *, columns: dict[str, Any] | None = None, workers: int = 1, repeats: Repeats = "mean"
    ) -> None:
        if workers < 1:
            raise ConfigError(f"workers {workers}: must be at least 1. Set workers to 1 or more.")
        self.file = file
        self._columns = columns
        self._repeats: Repeats = repeats
        self._idle = list(range(workers))
        self._seconds = 0.0
        self._steps: list[_Step] = []
        self._begun: dict[int, tuple[int, float]] = {}  # worker and time of candidates that an earlier session left
        self._is_interrupted = False
        self._rows: dict[str, int] = {}
        self._table: ResultTable | None = None
        self._space: TableSpace | None = None
        self._worker = ""
        self._worker_context = ExitStack()
        self._function: Any = None  # of the worker, for estimates; loaded when there is the first one
        self._estimates: list[Task] = []

    def read(self, config: Mapping[str, Any]) -> ResultTable:
        """Read the table for the space of a config.

        Raises:
            ConfigError: The columns do not fit the file.
            DataError: The file is missing or damaged.
        """
        marked = find_markers({key: value for key, value in config.items() if key != "search"})
        self._table = read_table(self.file, self._columns, repeats=self._repeats, marked=marked)
        return self._table

    def bind(self, space: TableSpace) -> None:
        """Take the space of the table that was read."""
        self._space = space

    def now(self) -> float:
        """Return the simulated time in seconds."""
        return self._seconds

    def continue_after(self, events: "Iterable[Event]") -> None:
        """Continue the clock of a journal, and the epochs that were being trained when it ended."""
        begun: dict[int, tuple[int, float]] = {}
        for event in events:
            if event.name == "study.created":
                continue  # in real time
            self._seconds = max(self._seconds, event.seconds)
            number = event.candidate
            if number is None or event.stage == "study":
                continue
            if event.kind == "job" and number not in begun:
                taken = {worker for worker, _ in begun.values()}
                begun[number] = (next(each for each in range(len(taken) + 1) if each not in taken), event.seconds)
            elif event.kind == "report" and number in begun:
                begun[number] = (begun[number][0], event.seconds)
            elif event.kind in ("ended", "lost"):
                begun.pop(number, None)
        self._begun = begun

    def open(self, worker: str, folder: Path) -> None:
        """Prepare to find the row of each config; there is no worker to start."""
        assert self._space is not None, "bound when the parts of the study were built"
        self._worker = worker
        self._rows = {_key(self._space.config(drawn)): row for row, drawn in enumerate(self._space.listed)}

    @property
    def idle(self) -> int:
        """Number of simulated workers without a task."""
        return len(self._idle) - len(self._estimates)

    def start(self, task: Task) -> None:
        """Begin with the next epoch of a task."""
        payload = task.payload
        if task.kind == _ESTIMATE:
            self._estimates.append(task)
            return
        if task.begins_from is not None or task.kind not in ("train", "measure"):
            raise SearchError(
                f'search.executor: a table has no weights, and "{task.kind}" of candidate {task.candidate} trains '
                "other than from the beginning. Search it with MultiFidelity or POPNAS, and without retrain."
            )
        row = self._rows.get(_key(payload["config"]))
        if row is None or self._table is None:
            raise SearchError(
                f"search.executor: {self.file} has no row for candidate {task.candidate}. It is another table than "
                "that which the study was begun with. Put it back, or start a new search."
            )
        run = self._table.run(row, payload["config"]["seed"])
        worker, begun = self._begun.pop(task.candidate or 0, (None, self._seconds))
        worker = worker if worker in self._idle else min(self._idle)
        self._idle.remove(worker)
        epoch, outcome = payload["reported"] + 1, self._outcome_at_once(task, run)
        seconds = self._seconds if outcome else max(self._seconds, begun + run.seconds[epoch - 1])
        heapq.heappush(self._steps, _Step(seconds, outcome is None, worker, task, epoch, run, outcome))

    def _outcome_at_once(self, task: Task, run: TableRun) -> dict[str, Any] | None:
        """Return the outcome of a task that trains no epoch; None if it does."""
        payload, facts = task.payload, dict(run.facts)
        if task.kind == "measure":
            return {"status": "ended", "is_finished": True, "facts": facts}
        if refusal := self._refusal(payload.get("limits"), run):
            return {"status": "refused", "reason": refusal, "facts": facts}
        if not run.epochs:
            return {"status": "failed", "reason": "the table has no results of it"}
        is_decided = payload.get("until") is not None
        if is_decided or payload["reported"] >= run.epochs:
            return {"status": "ended", "is_finished": not is_decided}
        return None

    def wait(self, handle: Handler, timeout: float) -> None:
        """Pass on the messages of the epoch that ends next, without waiting."""
        if self._estimates:
            self._estimate(self._estimates.pop(), handle)
            return
        if not self._steps:
            return
        step = heapq.heappop(self._steps)
        outcome = {"status": "interrupted"} if self._is_interrupted else step.outcome or self._train(step, handle)
        if outcome is not None:
            self._idle.append(step.worker)
            handle(TaskFinished(step.task.id, outcome))
            return
        step.epoch, step.is_new = step.epoch + 1, False
        step.seconds = self._seconds + step.run.seconds[step.epoch - 1]
        heapq.heappush(self._steps, step)

    def _estimate(self, task: Task, handle: Handler) -> None:
        """Run a task that predicts results, which takes no simulated time."""
        if self._function is None:
            self._function = self._worker_context.enter_context(import_attribute(self._worker)())
        handle(WorkerStarted(task.id))
        outcome = outcome_of(self._function, task.as_message(), lambda message: handle(EpochReported(task.id, message)))
        handle(TaskFinished(task.id, outcome))

    def _train(self, step: _Step, handle: Handler) -> dict[str, Any] | None:
        """Report an epoch; return the outcome of the task, None if it continues."""
        task, run, payload = step.task, step.run, step.task.payload
        if step.is_new:
            handle(WorkerStarted(task.id))
            if payload.get("limits") is not None:
                handle(EpochReported(task.id, {"facts": dict(run.facts)}))
            if not payload["reported"]:
                handle(EpochReported(task.id, {"names": list(run.results)}))
        self._seconds = step.seconds
        row = run.row(step.epoch)
        goals = [each.name for each in parse_objectives(payload["objectives"]) if not each.is_fact]
        diverged = next((name for name in goals if math.isnan(row[name])), None)
        if diverged is not None:
            return {"status": "failed", "reason": f"{diverged} is not a number in epoch {step.epoch} of the table"}
        message = {"epoch": step.epoch, "row": row, "seconds": run.seconds[step.epoch - 1]}
        is_stopped = handle(EpochReported(task.id, message)) != Decision.CONTINUE
        if is_stopped or step.epoch == run.epochs:
            return {"status": "ended", "is_finished": not is_stopped}
        return None

    @staticmethod
    def _refusal(limits: Mapping[str, Any] | None, run: TableRun) -> str:
        """Return which fact is above its limit, in words; empty if none is."""
        for key, fact in _LIMITS.items() if limits is not None else ():
            bound = (limits or {}).get(key)
            if bound is not None and run.facts.get(fact, math.nan) > bound:
                return f"{fact} {run.facts[fact]:g} is above search.limits.{key} {bound:g}"
        return ""

    def abandon(self, task: str, silent_seconds: float | None = None) -> None:
        """Do nothing: no simulated worker is ever silent."""

    def interrupt(self) -> None:
        """Give all tasks back; their epochs continue in the next session."""
        self._is_interrupted = True

    def close(self) -> None:
        """Forget the tasks."""
        self._steps.clear()
        self._worker_context.close()
        self._function = None


def _key(config: Mapping[str, Any]) -> str:
    return plain_json({key: value for key, value in config.items() if key != "seed"})


def facts_needed(limits: Mapping[str, Any] | None) -> Sequence[str]:
    """Return the facts that limits bound."""
    return [fact for key, fact in _LIMITS.items() if limits is not None and limits.get(key) is not None]


def is_tabulated(config: Mapping[str, Any]) -> bool:
    """Return whether the config of a study takes its results from a table, so that there are no weights."""
    search = config.get("search", {})
    section = search.get("executor") if isinstance(search, Mapping) else None
    name = section.get("type") if isinstance(section, Mapping) else section
    return name == "table"
