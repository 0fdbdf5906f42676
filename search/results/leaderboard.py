"""The ranking of a study's candidates, its Pareto front, its winner and its costs."""

import math
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.results.grid import grid_winner, is_grid
from search.results.record import (
    CandidateRecord,
    Constraint,
    Objective,
    RetrainedRecord,
    Status,
    StudyRecord,
    Tally,
    leading_place,
    parse_constraints,
    parse_objectives,
)

# These count towards `num_samples`; each of the others was replaced by another draw.
COUNTED: frozenset[Status] = frozenset({"running", "paused", "stopped", "completed", "failed"})


@dataclass(frozen=True)
class LeaderboardRow:
    """A place in the ranking.

    Attributes:
        rank: From 1.
        candidate: The ranked candidate.
        is_on_front: No other is at least as good in every objective and better in one, nor violates constraints less.
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

    Candidates that keep the constraints precede the others, which are in the order of their violation. Otherwise the
    order is that of the first objective; with several objectives the Pareto front precedes the rest. Candidates of
    equal values are in the order of their draw.
    """
    objectives = parse_objectives(study.objectives)
    ranked = [candidate for candidate in study.candidates if is_ranked(candidate, objectives)]
    if not ranked:
        return []
    values = np.array([[goal.sign * each.objectives[goal.name] for goal in objectives] for each in ranked])
    violations = np.array([each.violation for each in ranked])
    # A violation dominates every larger one (Deb et al., 2002, VI-A), so only the smallest ones are on the front.
    is_least = violations == violations.min()
    on_front = np.zeros(len(ranked), dtype=bool)
    on_front[is_least] = first_front(values[is_least])
    keys = [-values[:, 0], *([~on_front] if len(objectives) > 1 else []), violations]  # the last is the most important
    order = np.lexsort(keys)
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


class ParetoFront:
    """The candidates that no other dominates, updated as candidates arrive; equal ones do not dominate each other.

    With two objectives a newcomer is found by bisection, as along the front one objective rises and the other falls;
    with another number it is compared with the whole front.

    Args:
        num_objectives: Number of objectives.
    """

    def __init__(self, num_objectives: int) -> None:
        self._num_objectives = num_objectives
        self._points: list[tuple[float, ...]] = []  # ascending, each once
        self._candidates: dict[tuple[float, ...], list[int]] = {}

    def add(self, candidate: int, values: tuple[float, ...]) -> list[int]:
        """Add a candidate and return those that are dominated by now: itself, or some that were on the front.

        Args:
            candidate: Number of the candidate.
            values: Of the objectives, the larger the better, finite.
        """
        if values in self._candidates:
            self._candidates[values].append(candidate)
            return []
        place = bisect_left(self._points, values)
        if self._num_objectives == 2:
            # Of the points that are at least as good by the first objective, the next one is the best by the second.
            if place < len(self._points) and self._points[place][1] >= values[1]:
                return [candidate]
            first = place
            while first and self._points[first - 1][1] <= values[1]:
                first -= 1
            beaten = self._points[first:place]
            del self._points[first:place]
            place = first
        else:
            points = np.array(self._points).reshape(-1, self._num_objectives)
            if (points >= values).all(axis=1).any():
                return [candidate]
            is_beaten = (points <= values).all(axis=1)
            beaten = [self._points[row] for row in np.flatnonzero(is_beaten)]
            self._points = [self._points[row] for row in np.flatnonzero(~is_beaten)]
            place = bisect_left(self._points, values)
        self._points.insert(place, values)
        self._candidates[values] = [candidate]
        return [each for point in beaten for each in self._candidates.pop(point)]


def winner_of(study: StudyRecord) -> CandidateRecord | None:
    """Return the candidate that is recommended by the study and copied to `best/`; None if none has results.

    With one objective, the winner is the retrained candidate with the best mean over its seeds: the first place among
    many candidates is partly luck, and a new training is independent of it. One with fewer seeds that have no result,
    since they failed, precedes: the mean of the others would say nothing of them. With constraints, the mean violation
    comes before the mean. The winner is the first of the leaderboard if none was retrained, or if there are several
    objectives, or one that training does not change; one whose checkpoints were deleted gives way to the next that
    violates the constraints as little. Of a grid study it is the best run of the best condition. A strategy may choose
    another one.
    """
    if study.winner is not None:
        return next(each for each in study.candidates if each.index == study.winner)
    if is_grid(study):
        return grid_winner(study)
    rows = leaderboard(study)
    if not rows:
        return None
    objectives = parse_objectives(study.objectives)
    values = {} if len(objectives) > 1 or objectives[0].is_cost else _values_over_seeds(study)
    if not any(filter(None, each) for each in values.values()):
        return _first_with_weights(study, rows)
    lost = lost_seeds(study)
    means = {
        index: (-lost[index], *(statistics.fmean(column) for column in zip(*known, strict=True)))
        for index, each in values.items()
        if (known := [value for value in each if value is not None])
    }
    # `max` returns the first of equal ones, so the leaderboard decides between equal means.
    return max((row.candidate for row in rows), key=lambda each: means.get(each.index, (-math.inf,)))


def _values_over_seeds(study: StudyRecord) -> dict[int, list[tuple[float, float] | None]]:
    """Return -violation and the objective, the larger the better, of each retraining that has ended, by candidate.

    None stands for one that failed, or whose objective is not finite.
    """
    objectives, constraints = parse_objectives(study.objectives), parse_constraints(study.constraints)
    goal, facts = objectives[leading_place(objectives)], {each.index: each.facts for each in study.candidates}
    values: dict[int, list[tuple[float, float] | None]] = {}
    for run in study.retrained:
        if run.status not in ("completed", "failed"):
            continue
        tally = retrained_tally(run, objectives, constraints, facts.get(run.candidate, {}))
        best = tally.as_written() if run.status == "completed" else {}
        value = (-tally.violation, goal.sign * best[goal.name]) if goal.name in best else None
        values.setdefault(run.candidate, []).append(value)
    return values


def lost_seeds(study: StudyRecord) -> dict[int, int]:
    """Return how many retrainings of each candidate have no result: they failed, or their objective is not finite.

    If no retraining has the objective, as all learn from the validation data, only those count that failed.
    """
    values = _values_over_seeds(study)
    if any(filter(None, each) for each in values.values()):
        return {index: each.count(None) for index, each in values.items()}
    failed = Counter(run.candidate for run in study.retrained if run.status == "failed")
    return {index: failed[index] for index in values}


def _first_with_weights(study: StudyRecord, rows: Sequence[LeaderboardRow]) -> CandidateRecord:
    """Return the first candidate that has weights, of those that violate as little as the first; that if none has."""
    first = rows[0].candidate
    retrained = {run.candidate for run in study.retrained if run.status == "completed"}
    alike = [row.candidate for row in rows if row.candidate.violation == first.violation]
    return next((each for each in alike if not each.is_deleted or each.index in retrained), first)


def retrained_tally(
    run: RetrainedRecord,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    facts: Mapping[str, float],
) -> Tally:
    """Return the objectives of a retraining, at its best epoch as that of a candidate.

    Args:
        run: The retraining.
        objectives: Of the study.
        constraints: Of the study.
        facts: Of the candidate.
    """
    tally = Tally(objectives, facts, constraints)
    names = [each.name for each in objectives if not each.is_fact]
    names += [each.name for each in constraints if not each.is_fact]
    for row in run.reports:
        tally.add({**dict.fromkeys(names, math.nan), **row})
    return tally


def best_results(
    run: RetrainedRecord,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
    facts: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Return the objectives that are results of a retraining, at its best epoch; see `retrained_tally`."""
    found = retrained_tally(run, objectives, constraints, facts or {}).as_written()
    return {each.name: found[each.name] for each in objectives if not each.is_fact and each.name in found}


def ledger(study: StudyRecord) -> Ledger:
    """Return the costs and savings of the study so far."""
    counted = counted_candidates(study)
    epochs = sum(len(candidate.own_reports) for candidate in study.candidates)
    epochs_in_full, seconds_saved = 0, 0.0
    for candidate in counted:
        # A candidate that failed would have failed in a full training, too: nothing is saved.
        is_saved = candidate.status in ("paused", "stopped", "completed")
        saved = max(0, (candidate.max_epochs or study.max_epochs) - candidate.epochs) if is_saved else 0
        num_own = len(candidate.own_reports)
        epochs_in_full += num_own + saved
        if saved and num_own:
            seconds_saved += saved * candidate.seconds / num_own
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
