"""A study as plain data, read from its journal: objectives, candidates, rungs, retrainings and sessions."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from utils.errors import SearchError

FACTS = ("params", "flops", "memory_mb", "latency_ms")


@dataclass(frozen=True)
class Objective:
    """One objective.

    Attributes:
        name: A result such as `val_miou`, or one of `FACTS`.
        sign: 1 if more is better, -1 if less is.
    """

    name: str
    sign: int

    @property
    def is_fact(self) -> bool:
        """Whether its value is known before training."""
        return self.name in FACTS

    def __str__(self) -> str:
        return f"{'max' if self.sign > 0 else 'min'} {self.name}"


def parse_objectives(texts: Sequence[str]) -> tuple[Objective, ...]:
    """Parse `["max val_miou", "min params"]`.

    Raises:
        SearchError: A text is not of this form, or a name is repeated.
    """
    objectives = []
    for text in texts:
        words = text.split()
        if len(words) != 2 or words[0] not in ("min", "max"):
            raise SearchError(
                f'search.objectives: "{text}" must be "min NAME" or "max NAME", NAME being a result such as val_miou '
                f"or one of {', '.join(FACTS)}. Write it so."
            )
        objectives.append(Objective(words[1], 1 if words[0] == "max" else -1))
    names = [objective.name for objective in objectives]
    if not names or len(set(names)) < len(names):
        raise SearchError(f"search.objectives: {list(texts)} must name one result or several different ones.")
    return tuple(objectives)


def require_results(objectives: Sequence[Objective], names: Iterable[str]) -> None:
    """Raise if an objective will have no value.

    Raises:
        SearchError: An objective is neither a fact nor among the results of these names.
    """
    known = list(names)
    for each in objectives:
        if not each.is_fact and each.name not in known:
            raise SearchError(
                f'search.objectives: "{each}" is not among the results ({", ".join(known)}). Name one of these, or one '
                f"of {', '.join(FACTS)}."
            )


class Tally:
    """The objectives of one candidate over its epochs so far: the best value of each result.

    Args:
        objectives: Of the search.
        facts: Known before training.

    Attributes:
        best_epoch: Of the first objective that is a result; None before the first report.
    """

    def __init__(self, objectives: Sequence[Objective], facts: Mapping[str, float]) -> None:
        self.objectives = objectives
        self.best_epoch: int | None = None
        self._best = {each.name: facts.get(each.name, math.nan) * each.sign for each in objectives if each.is_fact}

    def add(self, row: Mapping[str, float]) -> tuple[float, ...]:
        """Add an epoch's results and return `values`.

        Raises:
            SearchError: An objective is not among the results.
        """
        results = [each for each in self.objectives if not each.is_fact]
        require_results(results, row)
        for position, each in enumerate(results):
            value = row[each.name] * each.sign
            if value > self._best.get(each.name, -math.inf):  # False for NaN: a diverged epoch is never the best
                self._best[each.name] = value
                if position == 0:
                    self.best_epoch = int(row["epoch"])
        return self.values

    @property
    def values(self) -> tuple[float, ...]:
        """Each objective so far, the larger the better; NaN if it is unknown."""
        return tuple(self._best.get(each.name, math.nan) for each in self.objectives)

    def as_written(self) -> dict[str, float]:
        """Return the known objectives by name, in their original sign."""
        return {each.name: self._best[each.name] * each.sign for each in self.objectives if each.name in self._best}


Status = Literal[
    "running",  # in a worker now, or when the search was interrupted
    "paused",  # may be continued from its checkpoint
    "stopped",  # by the scheduler
    "completed",  # trained in full, or to its early stopping
    "failed",  # an error, a loss that is not finite, a worker that died or hung
    "out_of_memory",  # replaced by another draw
    "refused",  # before training: over a limit, or a network that cannot be built; replaced by another draw
    "duplicate",  # equal to an earlier one; replaced by another draw
]


@dataclass(frozen=True)
class Span:
    """One job in a worker.

    Attributes:
        worker: Number of the worker, from 0.
        begin: Unix time in seconds at which it was given.
        end: Unix time in seconds of its end, or of its last event while it runs.
    """

    worker: int
    begin: float
    end: float


@dataclass
class CandidateRecord:
    """One draw and its results.

    Attributes:
        index: Number of the draw.
        seed: Of its training.
        drawn: JSON path and value of each searched value, in the order of the file.
        status: Its state, see `Status`.
        reason: Why it was refused or failed, or which candidate it equals; empty otherwise.
        facts: Known before training: `params`, `flops`, `memory_mb`, `latency_ms`, as far as they were measured.
        reports: A row per epoch: `epoch`, the results by their names, `epoch_seconds`, and `seconds_at`, the Unix time
            in seconds at which it was reported, if it is known.
        objectives: Value of each objective, in its original sign, at its best epoch; empty before a report.
        best_epoch: Best epoch of the first objective; None before a report.
        folder: Run folder relative to the study's; None if nothing was trained.
        spans: Its jobs in the order in which they were given; empty if they are unknown.
    """

    index: int
    seed: int
    drawn: list[tuple[str, Any]]
    status: Status
    reason: str = ""
    facts: dict[str, float] = field(default_factory=dict)
    reports: list[dict[str, float]] = field(default_factory=list)
    objectives: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    folder: str | None = None
    spans: list[Span] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """Number of epochs trained."""
        return len(self.reports)

    @property
    def seconds(self) -> float:
        """Duration of its epochs in seconds."""
        return sum(row.get("epoch_seconds", 0.0) for row in self.reports)


@dataclass
class RungRecord:
    """One rung: the candidates that reached it, and those that were promoted.

    Attributes:
        bracket: From 0.
        epochs: At which it compares.
        values: First objective of each candidate there, in its original sign.
        promoted: Numbers of the candidates that were promoted.
    """

    bracket: int
    epochs: int
    values: dict[int, float]
    promoted: list[int]

    @property
    def promoted_values(self) -> list[float]:
        """First objective of each promoted candidate."""
        return [self.values[index] for index in self.promoted if index in self.values]


@dataclass
class RetrainedRecord:
    """One training of a winner or runner-up from the beginning.

    Attributes:
        candidate: Number of the candidate whose config is trained.
        rank: In the leaderboard, from 1.
        seed: Of this training.
        status: "running", "completed" or "failed".
        reports: A row per epoch.
        test: Results of the test by their names (`test_miou`), empty if not tested.
        folder: Relative to the study's.
        reason: Why it failed.
        max_epochs: Of this training; 0 if unknown.
        spans: Its jobs in the order in which they were given; empty if they are unknown.
    """

    candidate: int
    rank: int
    seed: int
    status: str
    reports: list[dict[str, float]] = field(default_factory=list)
    test: dict[str, float] = field(default_factory=dict)
    folder: str | None = None
    reason: str = ""
    max_epochs: int = 0
    spans: list[Span] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Duration of its epochs in seconds."""
        return sum(row.get("epoch_seconds", 0.0) for row in self.reports)


@dataclass
class StudyRecord:
    """A whole study.

    Attributes:
        name: Of the config.
        folder: The study's folder.
        config: The space: the resolved config with its markers.
        scheduler: Name of its class.
        objectives: As in the config: `["max val_miou", "min params"]`.
        max_epochs: Of a full training.
        candidates: In the order of their draw.
        rungs: In the order of the scheduler.
        retrained: Trainings of winner and runners-up from the beginning.
        sessions: (begin, end) of each process that worked on it, in Unix seconds.
        is_done: Whether it is complete.
        bytes_deleted: Total size of the checkpoints that were deleted since they could no longer be used.
        plugins: Files with the user's classes, as on the command line.
        sections: Additional sections of the report, from the strategy: each has a `title`, and a `text` or a `table`
            (rows of cells, the first the names of the columns).
    """

    name: str
    folder: str
    config: dict[str, Any]
    scheduler: str
    objectives: list[str]
    max_epochs: int
    candidates: list[CandidateRecord] = field(default_factory=list)
    rungs: list[RungRecord] = field(default_factory=list)
    retrained: list[RetrainedRecord] = field(default_factory=list)
    sessions: list[tuple[float, float]] = field(default_factory=list)
    is_done: bool = False
    bytes_deleted: int = 0
    plugins: list[str] = field(default_factory=list)
    sections: list[Mapping[str, Any]] = field(default_factory=list)
