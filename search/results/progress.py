"""The course of a study: reports in the order of their time, best result so far, hypervolume, rank correlation."""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from search.results.hypervolume import hypervolume, scaled
from search.results.leaderboard import COUNTED, first_front, leaderboard
from search.results.record import (
    CandidateRecord,
    Objective,
    RungRecord,
    StudyRecord,
    Tally,
    parse_constraints,
    parse_objectives,
)
from search.schedulers.ranking import FEWEST_PAIRS, spearman

_MOST_VOLUMES = 60  # places of a course at which the hypervolume is computed


@dataclass(frozen=True)
class Report:
    """An epoch of a candidate.

    Attributes:
        candidate: The candidate.
        row: Its results.
        seconds: Time that the search had worked before it was reported, without pauses between sessions; None if
            unknown.
    """

    candidate: CandidateRecord
    row: dict[str, float]
    seconds: float | None


@dataclass(frozen=True)
class Improvement:
    """The best result from one report of a study on.

    Attributes:
        epochs: Total epochs of all candidates until then, from 1.
        seconds: As in `Report`.
        value: The result, in its original sign.
        candidate: Number of the candidate; None at the end of the study, which repeats the last value.
    """

    epochs: int
    seconds: float | None
    value: float
    candidate: int | None


@dataclass(frozen=True)
class RankCorrelation:
    """The agreement of the results after few epochs with those after more.

    Attributes:
        epochs: The lower and the higher number of epochs.
        value: Spearman's rank correlation, -1 to 1; NaN for fewer than 3 candidates, or if all results are equal.
        count: Number of candidates that have both.
        is_unbiased: Whether all of these continued without a decision, so that no selection lowers the correlation.
    """

    epochs: tuple[int, int]
    value: float
    count: int
    is_unbiased: bool = False


def working_time(study: StudyRecord) -> Callable[[float], float]:
    """Return a function from a Unix time to the seconds that the study had worked by then, without its pauses."""
    begins = [begin for begin, _ in study.sessions]
    before = [0.0]
    for begin, end in study.sessions:
        before.append(before[-1] + end - begin)

    def worked(seconds: float) -> float:
        session = bisect_right(begins, seconds) - 1
        if session < 0:
            return 0.0
        begin, end = study.sessions[session]
        return before[session] + min(seconds, end) - begin

    return worked


def reports_in_order(study: StudyRecord) -> list[Report]:
    """Return every report of a study in the order of its time; in the order of the draws if a time is unknown."""
    pairs = [(candidate, row) for candidate in study.candidates for row in candidate.own_reports]
    if not all("seconds_at" in row for _, row in pairs):
        return [Report(candidate, row, None) for candidate, row in pairs]
    pairs.sort(key=lambda pair: pair[1]["seconds_at"])
    worked = working_time(study)
    return [Report(candidate, row, worked(row["seconds_at"]) if study.sessions else None) for candidate, row in pairs]


def best_so_far(study: StudyRecord, goal: Objective) -> list[Improvement]:
    """Return each improvement of a result, and the end of the study; empty without a finite value.

    A candidate that failed is never the best, even with the epochs before its failure, and neither is an epoch that
    violates the constraints.
    """
    constraints = parse_constraints(study.constraints)
    found: list[Improvement] = []
    reports = reports_in_order(study)
    for epochs, report in enumerate(reports, 1):
        value = report.row.get(goal.name, math.nan)
        if report.candidate.status not in COUNTED - {"failed"} or not math.isfinite(value):
            continue
        known = {**report.candidate.facts, **report.row}
        is_better = not found or goal.sign * (value - found[-1].value) > 0
        if is_better and not any(each.violation(known) for each in constraints):
            found.append(Improvement(epochs, report.seconds, value, report.candidate.index))
    if found:
        found.append(Improvement(len(reports), reports[-1].seconds, found[-1].value, None))
    return found


def reference_point(study: StudyRecord) -> dict[str, float]:
    """Return the worst value of each objective among the ranked candidates that keep the constraints."""
    rows = [row.candidate.objectives for row in leaderboard(study) if not row.candidate.violation]
    goals = parse_objectives(study.objectives)
    return {goal.name: goal.sign * min(goal.sign * row[goal.name] for row in rows) for goal in goals} if rows else {}


def hypervolumes(study: StudyRecord) -> list[tuple[int, float]]:
    """Return total epochs and hypervolume of the front so far, at up to 60 places of a study's course.

    The volume is a share of that of the box between `reference_point` and the best value of each objective: 1 would be
    a single candidate that is the best in everything.
    """
    goals, constraints = parse_objectives(study.objectives), parse_constraints(study.constraints)
    rows = [row for row in leaderboard(study) if not row.candidate.violation]
    if len(goals) < 2 or not rows:
        return []
    signs = np.array([goal.sign for goal in goals])
    values = np.array([[row.candidate.objectives[goal.name] for goal in goals] for row in rows]) * signs
    reference = signs * list(reference_point(study).values())
    ideal = values.max(axis=0)
    ranked = {row.candidate.index for row in rows}
    reports = reports_in_order(study)
    # Of very many candidates at fewer places, since each takes a comparison of all of them.
    most = max(10, min(_MOST_VOLUMES, 60_000 // len(rows)))
    places = {round(place) for place in np.linspace(1, len(reports), min(len(reports), most))}
    tallies: dict[int, Tally] = {}
    found = []
    for epochs, report in enumerate(reports, 1):
        index = report.candidate.index
        if index in ranked:
            tallies.setdefault(index, Tally(goals, report.candidate.facts, constraints)).add(report.row)
        if epochs in places:
            present = np.array([tally.values for tally in tallies.values()]).reshape(-1, len(goals))
            present = present[np.isfinite(present).all(axis=1)]  # one that violates constraints is below the reference
            if len(goals) > 2:  # two need no front
                present = present[first_front(present)]
            found.append((epochs, hypervolume(scaled(present, reference, ideal))))
    return found


def rung_correlation(rung: RungRecord, above: RungRecord) -> tuple[float, bool]:
    """Return the rank correlation of a rung with the next one, and whether no selection lowers it.

    It is that of the candidates that continued without a decision, or of all that reached both if these are too few.
    """
    both = {
        index
        for index in rung.values.keys() & above.values.keys()
        if math.isfinite(rung.values[index]) and math.isfinite(above.values[index])
    }
    passed = rung.passed & both
    is_unbiased = len(passed) >= FEWEST_PAIRS
    chosen = sorted(passed if is_unbiased else both)
    columns = (np.array([each.values[index] for index in chosen]) for each in (rung, above))
    return spearman(*columns), is_unbiased


def rank_correlations(study: StudyRecord, goal: Objective) -> list[RankCorrelation]:
    """Return the rank correlation of a result between each two numbers of epochs at which the study compares.

    The result is the best so far, as a scheduler compares it. The candidates that have both are those that were
    promoted, of similar results, and so correlate less than all would. If enough of them continued past the lower rung
    without a decision, only they are taken, up to the rung that comes next.
    """
    levels = sorted({rung.epochs for rung in study.rungs} | {study.max_epochs}) if study.rungs else []
    bests: dict[int, dict[int, float]] = {level: {} for level in levels}  # by candidate
    for candidate in study.candidates:
        best = -math.inf
        for epoch, row in enumerate(candidate.reports, 1):
            best = max(best, goal.sign * row.get(goal.name, math.nan))  # a NaN is never the larger one
            if epoch in bests and math.isfinite(best):
                bests[epoch][candidate.index] = best
    passed_of = {rung.epochs: rung.passed for rung in study.rungs if rung.bracket == 0}
    found = []
    for low, high in combinations(levels, 2):
        common = bests[low].keys() & bests[high].keys()
        passed = passed_of.get(low, frozenset()) & common
        is_unbiased = len(passed) >= FEWEST_PAIRS and levels.index(high) == levels.index(low) + 1
        chosen = passed if is_unbiased else common
        pairs = np.array([(bests[low][index], bests[high][index]) for index in sorted(chosen)]).reshape(-1, 2)
        found.append(RankCorrelation((low, high), spearman(pairs[:, 0], pairs[:, 1]), len(pairs), is_unbiased))
    return found
