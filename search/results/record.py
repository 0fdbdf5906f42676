"""A study as it can be shown: what was drawn, what came of it, what was decided. Plain data, read from the journal."""

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal[
    "running",  # in a worker now, or when the search was interrupted
    "paused",  # may go on from its checkpoint
    "stopped",  # by the scheduler
    "completed",  # trained in full, or to its own early stop
    "failed",  # an error, a loss that is not finite, a worker that died or hung
    "out_of_memory",  # another was drawn in its place
    "refused",  # before training: a limit, or a network that cannot be built; another was drawn
    "duplicate",  # the same as an earlier one; another was drawn
]


@dataclass
class CandidateRecord:
    """One draw and what came of it.

    Attributes:
        index: Number of the draw.
        seed: Of its training.
        drawn: JSON path and value of each searched value, in the order of the file.
        status: Where it stands.
        reason: Why it was refused or failed, or which one it equals; empty otherwise.
        facts: What was known before training: `params`, `flops`, `memory_mb`, `latency_ms`, where judged.
        reports: A row per epoch: `epoch`, the results by their names, `epoch_seconds`.
        objectives: Value of each objective, as written (not turned round), at its best epoch; empty before a report.
        best_epoch: Of the first objective; None before a report.
        folder: Run folder relative to the study's; None where nothing was trained.
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
        """Epochs that it was trained for."""
        return len(self.reports)

    @property
    def seconds(self) -> float:
        """Seconds that its epochs took."""
        return sum(row.get("epoch_seconds", 0.0) for row in self.reports)


@dataclass
class RungRecord:
    """One rung: who reached it with what, and who went on.

    Attributes:
        bracket: From 0.
        epochs: At which it compares.
        values: First objective of each candidate there, as written in the results.
        promoted: Candidates that went beyond.
    """

    bracket: int
    epochs: int
    values: dict[int, float]
    promoted: list[int]


@dataclass
class RetrainedRecord:
    """One training of a winner or runner-up from the beginning.

    Attributes:
        candidate: Whose config it is.
        rank: In the leaderboard, from 1.
        seed: Of this training.
        status: "running", "completed" or "failed".
        reports: A row per epoch.
        test: Results of the test by their names (`test_miou`), empty where not tested.
        folder: Relative to the study's.
        reason: Why it failed.
        max_epochs: Of this training; 0 where that is not known.
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


@dataclass
class StudyRecord:
    """A whole study.

    Attributes:
        name: Of the config.
        folder: The study's folder.
        config: The space as it was asked for (resolved, with its markers).
        scheduler: Name of its class.
        objectives: As written: `["max val_miou", "min params"]`.
        max_epochs: Of a full training.
        candidates: In the order in which they were drawn.
        rungs: As the scheduler has them.
        retrained: Winner and runners-up, where they were trained again.
        sessions: (begin, end) of each process that worked on it, in Unix seconds.
        is_done: Whether it came to its end.
        bytes_deleted: Of checkpoints that could no longer be used.
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
