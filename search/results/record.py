"""A study as plain data, read from its journal: candidates, rungs, retrainings and sessions."""

from dataclasses import dataclass, field
from typing import Any, Literal

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
        reports: A row per epoch: `epoch`, the results by their names, `epoch_seconds`.
        objectives: Value of each objective, in its original sign, at its best epoch; empty before a report.
        best_epoch: Best epoch of the first objective; None before a report.
        folder: Run folder relative to the study's; None if nothing was trained.
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
