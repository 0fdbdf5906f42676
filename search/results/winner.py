"""Which candidate a study recommends."""

import math
import statistics

from search.results.leaderboard import leaderboard
from search.results.objectives import Objective, parse_objectives
from search.results.record import CandidateRecord, StudyRecord
from search.results.spread import best_results


def winner_of(study: StudyRecord) -> CandidateRecord | None:
    """The candidate that goes to `best/`; None where none has results.

    Where several were trained again, it is the one with the best mean over its seeds: the first of many candidates
    owes its place to luck, too, and that of a new training is another. It is the first of the leaderboard where none
    was trained again, and where there are several objectives, or one that no training changes.
    """
    rows = leaderboard(study)
    if not rows:
        return None
    objectives = parse_objectives(study.objectives)
    if len(objectives) > 1 or objectives[0].is_fact:
        return rows[0].candidate
    means = _retrained_means(study, objectives[0])
    # Of equal means, and of none, the first in the leaderboard.
    return max((row.candidate for row in rows), key=lambda each: means.get(each.index, -math.inf))


def _retrained_means(study: StudyRecord, goal: Objective) -> dict[int, float]:
    """Of each candidate that was trained again: the mean over its seeds, the larger the better."""
    values: dict[int, list[float]] = {}
    for run in study.retrained:
        value = best_results(run, [goal]).get(goal.name)
        if run.status == "completed" and value is not None:
            values.setdefault(run.candidate, []).append(goal.sign * value)
    return {candidate: statistics.fmean(each) for candidate, each in values.items()}
