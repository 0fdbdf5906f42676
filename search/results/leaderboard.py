"""Who came out best, and what it cost: the order of a study's candidates, its Pareto front and its ledger."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.results.objectives import Objective, parse_objectives
from search.results.record import CandidateRecord, Status, StudyRecord

# These have a place among `num_samples`; for the others another candidate was drawn.
COUNTED: frozenset[Status] = frozenset({"running", "paused", "stopped", "completed", "failed"})
# What the scheduler may have spared: a failed one would have failed in a full training too.
_SPARED: frozenset[Status] = frozenset({"paused", "stopped", "completed"})


@dataclass(frozen=True)
class Row:
    """A place in the ranking.

    Attributes:
        rank: From 1.
        candidate: Whose it is.
        is_on_front: No other is at least as good in every objective and better in one.
    """

    rank: int
    candidate: CandidateRecord
    is_on_front: bool


@dataclass(frozen=True)
class Ledger:
    """What a study cost, and what stopping early spared.

    Attributes:
        counted: Candidates with a place among `num_samples`.
        epochs: Trained by all candidates, also by those that do not count.
        seconds: That these epochs took.
        epochs_in_full: That training every counted candidate to its end would have taken; one that failed, or still
            runs, is taken as it is.
        seconds_saved: Of the epochs that were spared, each at the mean of its candidate's own epochs.
        retrained_epochs: Of winner and runners-up, beside the above.
        retrained_seconds: That these took.
        wall_seconds: In which a process worked on the study.
    """

    counted: int
    epochs: int
    seconds: float
    epochs_in_full: int
    seconds_saved: float
    retrained_epochs: int
    retrained_seconds: float
    wall_seconds: float

    @property
    def epochs_saved(self) -> int:
        """Against training every counted candidate in full; less than none where those that do not count cost more."""
        return self.epochs_in_full - self.epochs

    @property
    def share_saved(self) -> float:
        """Of the epochs in full, 0 to 1."""
        return self.epochs_saved / self.epochs_in_full if self.epochs_in_full else 0.0


def counted(study: StudyRecord) -> list[CandidateRecord]:
    """The candidates with a place among `num_samples`, in the order of their draw."""
    return [candidate for candidate in study.candidates if candidate.status in COUNTED]


def is_judged(candidate: CandidateRecord, targets: Sequence[Objective]) -> bool:
    """Whether it has a finite value of each objective and did not fail."""
    values = candidate.objectives
    finite = all(math.isfinite(values.get(goal.name, math.nan)) for goal in targets)
    return finite and candidate.status in COUNTED - {"failed"}


def leaderboard(study: StudyRecord) -> list[Row]:
    """The judged candidates, best first.

    By the first objective; with several, those that no other dominates come before the rest. Equal values stand in
    the order of their draw.
    """
    targets = parse_objectives(study.objectives)
    judged = [candidate for candidate in study.candidates if is_judged(candidate, targets)]
    if not judged:
        return []
    values = np.array([[goal.sign * each.objectives[goal.name] for goal in targets] for each in judged])
    on_front = first_front(values)
    order = np.lexsort((-values[:, 0], ~on_front)) if len(targets) > 1 else np.argsort(-values[:, 0], kind="stable")
    return [Row(rank, judged[place], bool(on_front[place])) for rank, place in enumerate(order.tolist(), 1)]


def first_front(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points no other dominates; equal points do not dominate each other.

    Compared is with the front alone, not with all that stand before, so that ten thousand points take no second.

    Args:
        values: (N, M) float, one row per point, the larger the better, finite.

    Returns:
        (N,) bool.
    """
    order = np.lexsort(-values.T[::-1])  # by the first objective, then the second: a later one dominates no earlier one
    front = np.empty_like(values)
    size = 0
    on_front = np.zeros(len(values), dtype=bool)
    for place in order:
        point = values[place]
        at_least = (front[:size] >= point).all(axis=1)
        if not (at_least & (front[:size] > point).any(axis=1)).any():
            front[size] = point
            size += 1
            on_front[place] = True
    return on_front


def ledger(study: StudyRecord) -> Ledger:
    """What the study cost and saved so far."""
    epochs_in_full, seconds_saved = 0, 0.0
    for candidate in counted(study):
        spared = max(0, study.max_epochs - candidate.epochs) if candidate.status in _SPARED else 0
        epochs_in_full += candidate.epochs + spared
        if spared and candidate.epochs:
            seconds_saved += spared * candidate.seconds / candidate.epochs
    return Ledger(
        counted=len(counted(study)),
        epochs=sum(candidate.epochs for candidate in study.candidates),
        seconds=sum(candidate.seconds for candidate in study.candidates),
        epochs_in_full=epochs_in_full,
        seconds_saved=seconds_saved,
        retrained_epochs=sum(len(run.reports) for run in study.retrained),
        retrained_seconds=sum(row.get("epoch_seconds", 0.0) for run in study.retrained for row in run.reports),
        wall_seconds=sum(end - begin for begin, end in study.sessions),
    )
