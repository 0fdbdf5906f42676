"""Means and deviations: of values, over a candidate's classes, and over trainings that differ only in their seed."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from search.results.leaderboard import best_results, counted_candidates, is_ranked, lost_seeds
from search.results.record import CandidateRecord, RetrainedRecord, StudyRecord, parse_constraints, parse_objectives

CLASS_PREFIX = "val_iou_"


@dataclass(frozen=True)
class ValueSummary:
    """Statistics of the finite values of a sample.

    Attributes:
        count: Number of finite values; if it is 0, the other attributes are NaN.
        mean, median, maximum, minimum: Of the finite values.
        deviation: Of a sample (n - 1); 0 for a single value.
    """

    count: int
    mean: float
    median: float
    deviation: float
    maximum: float
    minimum: float

    def __str__(self) -> str:
        if not self.count:
            return "-"
        return f"{self.mean:.4f}" + (f" ± {self.deviation:.4f} ({self.count})" if self.count > 1 else "")


@dataclass(frozen=True)
class ClassSummary:
    """The IoU of a candidate's classes at its best epoch.

    Attributes:
        median: Over the classes.
        deviation: Of all classes (n), as they are not a sample.
        worst: Name of the class with the lowest IoU.
    """

    median: float
    deviation: float
    worst: str


@dataclass(frozen=True)
class SeedSummary:
    """Trainings that differ only in their seed.

    Attributes:
        label: Name of the group, for people.
        candidate: Number of its first candidate.
        results: Statistics of each result by its name.
    """

    label: str
    candidate: int
    results: dict[str, ValueSummary]


def summarize(values: Iterable[float]) -> ValueSummary:
    """Return the statistics of the finite ones among `values`."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ValueSummary(0, *[math.nan] * 5)
    return ValueSummary(
        count=len(finite),
        mean=statistics.fmean(finite),
        median=statistics.median(finite),
        deviation=statistics.stdev(finite) if len(finite) > 1 else 0.0,
        maximum=max(finite),
        minimum=min(finite),
    )


def class_summary(candidate: CandidateRecord) -> ClassSummary | None:
    """Return the statistics of the results `val_iou_<class>` at the best epoch; None if there are none."""
    row = next((row for row in reversed(candidate.reports) if row.get("epoch") == candidate.best_epoch), {})
    classes = {name.removeprefix(CLASS_PREFIX): value for name, value in row.items() if name.startswith(CLASS_PREFIX)}
    finite = {name: value for name, value in classes.items() if math.isfinite(value)}
    if not finite:
        return None
    values = finite.values()
    return ClassSummary(statistics.median(values), statistics.pstdev(values), min(finite, key=finite.__getitem__))


def repeated_candidates(study: StudyRecord) -> list[SeedSummary]:
    """Return the groups of candidates with equal drawn values and different seeds, the largest group first.

    All candidates of a file without markers are one group.
    """
    objectives = parse_objectives(study.objectives)
    groups: dict[str, list[CandidateRecord]] = {}
    for candidate in counted_candidates(study):
        if is_ranked(candidate, objectives):
            groups.setdefault(json.dumps(candidate.drawn), []).append(candidate)
    repeated = [group for group in groups.values() if len({candidate.seed for candidate in group}) > 1]
    return [
        SeedSummary(
            label="candidates " + ", ".join(str(candidate.index) for candidate in group),
            candidate=group[0].index,
            results=_summarize_columns([candidate.objectives for candidate in group]),
        )
        for group in sorted(repeated, key=len, reverse=True)
    ]


def retrained_summaries(study: StudyRecord) -> list[SeedSummary]:
    """Return the statistics of winner and runners-up over the seeds of their retraining, by rank.

    The results are the objectives at the best epoch and the test results. The label says how many seeds have no result,
    as `winner_of` counts them.
    """
    lost = lost_seeds(study)
    by_rank: dict[int, list[RetrainedRecord]] = {}
    for run in study.retrained:
        if run.status in ("completed", "failed"):
            by_rank.setdefault(run.rank, []).append(run)
    summaries = []
    for rank, runs in sorted(by_rank.items()):
        number, completed = runs[0].candidate, [run for run in runs if run.status == "completed"]
        missing = f", {lost[number]} of {len(runs)} seeds without a result" if lost[number] else ""
        results = _summarize_columns([retrained_results(study, run) | run.test for run in completed])
        if completed:
            summaries.append(SeedSummary(f"rank {rank}, candidate {number}{missing}", number, results))
    return summaries


def retrained_results(study: StudyRecord, run: RetrainedRecord) -> dict[str, float]:
    """Return the objectives of a retraining at its best epoch, by the constraints of the study, too."""
    facts = next((each.facts for each in study.candidates if each.index == run.candidate), {})
    return best_results(run, parse_objectives(study.objectives), parse_constraints(study.constraints), facts)


def retrained_result(study: StudyRecord, winner: CandidateRecord) -> SeedSummary | None:
    """Return the statistics of the winner's retrainings; None unless these, and not the candidate, are the result."""
    if not study.result_is_retrained:
        return None
    return next((each for each in retrained_summaries(study) if each.candidate == winner.index), None)


def _summarize_columns(rows: Sequence[Mapping[str, float]]) -> dict[str, ValueSummary]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: summarize(row.get(name, math.nan) for row in rows) for name in names}
