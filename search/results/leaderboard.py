"""The ranking of a study's candidates, its Pareto front, its winner and its costs."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.results.record import CandidateRecord, Objective, RetrainedRecord, Status, StudyRecord, parse_objectives

# These count towards `num_samples`; each of the others was replaced by another draw.
COUNTED: frozenset[Status] = frozenset({"running", "paused", "stopped", "completed", "failed"})


@dataclass(frozen=True)
class LeaderboardRow:
    """A place in the ranking.

    Attributes:
        rank: From 1.
        candidate: The ranked candidate.
        is_on_front: No other is at least as good in every objective and better in one.
    """

    rank: int
    candidate: CandidateRecord
    is_on_front: bool


@dataclass(frozen=True)
class Ledger:
    """The costs of a study, and the savings of stopping candidates early.

    Attributes:
        counted: Candidates that count towards `num_samples`.
        epochs: Trained by all candidates, including those that do not count.
        seconds: Duration of these epochs.
        epochs_in_full: Epochs of training every counted candidate to its end; a failed or running candidate enters
            with the epochs that it has.
        epochs_saved: `epochs_in_full` less `epochs`; negative if the candidates that do not count cost more.
        share_saved: `epochs_saved` as a share of `epochs_in_full`; 0 for an empty study.
        seconds_saved: Of the epochs not trained, each at the mean duration of its candidate's epochs.
        retrained_epochs: Of winner and runners-up, in addition to the above.
        retrained_seconds: Duration of these.
        wall_seconds: Total duration of the study's sessions.
    """

    counted: int
    epochs: int
    seconds: float
    epochs_in_full: int
    epochs_saved: int
    share_saved: float
    seconds_saved: float
    retrained_epochs: int
    retrained_seconds: float
    wall_seconds: float


def counted_candidates(study: StudyRecord) -> list[CandidateRecord]:
    """Return the candidates that count towards `num_samples`, in the order of their draw."""
    return [candidate for candidate in study.candidates if candidate.status in COUNTED]


def is_ranked(candidate: CandidateRecord, objectives: Sequence[Objective]) -> bool:
    """Return whether a candidate has a finite value of each objective and did not fail."""
    values = candidate.objectives
    finite = all(math.isfinite(values.get(goal.name, math.nan)) for goal in objectives)
    return finite and candidate.status in COUNTED - {"failed"}


def leaderboard(study: StudyRecord) -> list[LeaderboardRow]:
    """Return the ranked candidates, best first.

    The order is that of the first objective; with several objectives the Pareto front precedes the rest. Candidates
    of equal values are in the order of their draw.
    """
    objectives = parse_objectives(study.objectives)
    ranked = [candidate for candidate in study.candidates if is_ranked(candidate, objectives)]
    if not ranked:
        return []
    values = np.array([[goal.sign * each.objectives[goal.name] for goal in objectives] for each in ranked])
    on_front = first_front(values)
    order = np.lexsort((-values[:, 0], ~on_front)) if len(objectives) > 1 else np.argsort(-values[:, 0], kind="stable")
    return [LeaderboardRow(rank, ranked[place], bool(on_front[place])) for rank, place in enumerate(order.tolist(), 1)]


def first_front(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points are dominated by no other; equal points do not dominate each other.

    Args:
        values: (N, M) float, one row per point, the larger the better, finite.

    Returns:
        (N,) bool.
    """
    # Sorted by the first objective, then the second, ...: no point is dominated by a later one. So each point is
    # compared with the front so far and not with all others, which takes below a second for ten thousand points.
    order = np.lexsort(-values.T[::-1])
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


def winner_of(study: StudyRecord) -> CandidateRecord | None:
    """Return the candidate that is recommended by the study and copied to `best/`; None if none has results.

    With one objective, the winner is the retrained candidate with the best mean over its seeds: the first place among
    many candidates is partly luck, and a new training is independent of it. The winner is the first of the leaderboard
    if none was retrained, or if there are several objectives, or one that training does not change.
    """
    rows = leaderboard(study)
    if not rows:
        return None
    objectives = parse_objectives(study.objectives)
    if len(objectives) > 1 or objectives[0].is_fact:
        return rows[0].candidate
    goal = objectives[0]
    values: dict[int, list[float]] = {}
    for run in study.retrained:
        value = best_results(run, objectives).get(goal.name)
        if run.status == "completed" and value is not None:
            values.setdefault(run.candidate, []).append(goal.sign * value)
    means = {index: statistics.fmean(each) for index, each in values.items()}
    # `max` returns the first of equal ones, so the leaderboard decides between equal means and if there are none.
    return max((row.candidate for row in rows), key=lambda each: means.get(each.index, -math.inf))


def best_results(run: RetrainedRecord, objectives: Sequence[Objective]) -> dict[str, float]:
    """Return the objectives that are results of a retraining, at its best epoch by the first of them."""
    results = [each for each in objectives if not each.is_fact]
    if not results:
        return {}
    first = results[0]
    rows = [row for row in run.reports if math.isfinite(row.get(first.name, math.nan))]
    best = max(rows, key=lambda row: first.sign * row[first.name], default={})
    return {each.name: best[each.name] for each in results if each.name in best}


def ledger(study: StudyRecord) -> Ledger:
    """Return the costs and savings of the study so far."""
    counted = counted_candidates(study)
    epochs = sum(candidate.epochs for candidate in study.candidates)
    epochs_in_full, seconds_saved = 0, 0.0
    for candidate in counted:
        # A candidate that failed would have failed in a full training, too: nothing is saved.
        is_saved = candidate.status in ("paused", "stopped", "completed")
        saved = max(0, study.max_epochs - candidate.epochs) if is_saved else 0
        epochs_in_full += candidate.epochs + saved
        if saved and candidate.epochs:
            seconds_saved += saved * candidate.seconds / candidate.epochs
    return Ledger(
        counted=len(counted),
        epochs=epochs,
        seconds=sum(candidate.seconds for candidate in study.candidates),
        epochs_in_full=epochs_in_full,
        epochs_saved=epochs_in_full - epochs,
        share_saved=(epochs_in_full - epochs) / epochs_in_full if epochs_in_full else 0.0,
        seconds_saved=seconds_saved,
        retrained_epochs=sum(len(run.reports) for run in study.retrained),
        retrained_seconds=sum(run.seconds for run in study.retrained),
        wall_seconds=sum(end - begin for begin, end in study.sessions),
    )
