"""Means and deviations: of what a rung saw, of a candidate's classes, of trainings that differ in their seed alone."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from search.results.leaderboard import counted, is_judged
from search.results.objectives import Objective, parse_objectives
from search.results.record import CandidateRecord, RetrainedRecord, RungRecord, StudyRecord

CLASS_PREFIX = "val_iou_"


@dataclass(frozen=True)
class Spread:
    """Finite values in a few numbers.

    Attributes:
        count: How many there are; the others are NaN where there is none.
        deviation: Of a sample (n - 1); 0 where there is only one.
    """

    count: int
    mean: float
    median: float
    deviation: float
    maximum: float
    minimum: float

    def text(self, digits: int = 4) -> str:
        """`0.7312 ± 0.0041 (3)`; one value stands alone."""
        if not self.count:
            return "-"
        return f"{self.mean:.{digits}f}" + (f" ± {self.deviation:.{digits}f} ({self.count})" if self.count > 1 else "")


@dataclass(frozen=True)
class RungSpread:
    """What a rung saw.

    Attributes:
        rung: Which one.
        spread: Of the first objective of all that reached it.
        kept: Of those that went beyond.
    """

    rung: RungRecord
    spread: Spread
    kept: Spread


@dataclass(frozen=True)
class ClassSpread:
    """How evenly a candidate does its classes, at its best epoch.

    Attributes:
        count: Classes with a result there.
        deviation: Of all classes (n), as they are no sample.
        worst: Name of the class with the least IoU.
    """

    count: int
    median: float
    deviation: float
    worst: str


@dataclass(frozen=True)
class Repeats:
    """Trainings that differ in their seed alone.

    Attributes:
        label: What was repeated.
        candidate: The first of those that were.
        seeds: Of each training.
        spreads: Of each result by its name.
    """

    label: str
    candidate: int
    seeds: tuple[int, ...]
    spreads: dict[str, Spread]


def spread(values: Iterable[float]) -> Spread:
    """The numbers of the finite ones among `values`."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Spread(0, *[math.nan] * 5)
    deviation = statistics.stdev(finite) if len(finite) > 1 else 0.0
    return Spread(len(finite), statistics.fmean(finite), statistics.median(finite), deviation, max(finite), min(finite))


def rung_spreads(study: StudyRecord) -> list[RungSpread]:
    """A row per rung, in the order of the study."""
    return [
        RungSpread(
            rung,
            spread(rung.values.values()),
            spread(rung.values[index] for index in rung.promoted if index in rung.values),
        )
        for rung in study.rungs
    ]


def class_spread(candidate: CandidateRecord) -> ClassSpread | None:
    """How evenly its classes do (results named `val_iou_<class>`); None where they are not among the results."""
    row = row_of_epoch(candidate.reports, candidate.best_epoch)
    classes = {name.removeprefix(CLASS_PREFIX): value for name, value in row.items() if name.startswith(CLASS_PREFIX)}
    finite = {name: value for name, value in classes.items() if math.isfinite(value)}
    if not finite:
        return None
    values = list(finite.values())
    worst = min(finite, key=finite.__getitem__)
    return ClassSpread(len(values), statistics.median(values), statistics.pstdev(values), worst)


def repeats(study: StudyRecord) -> list[Repeats]:
    """Candidates of the same drawn values and other seeds, the largest group first; a file without markers is one."""
    targets = parse_objectives(study.objectives)
    groups: dict[str, list[CandidateRecord]] = {}
    for candidate in counted(study):
        if is_judged(candidate, targets):
            groups.setdefault(json.dumps(candidate.drawn), []).append(candidate)
    several = [group for group in groups.values() if len({candidate.seed for candidate in group}) > 1]
    return [
        Repeats(
            "candidates " + ", ".join(str(candidate.index) for candidate in group),
            group[0].index,
            tuple(candidate.seed for candidate in group),
            _spreads([candidate.objectives for candidate in group]),
        )
        for group in sorted(several, key=len, reverse=True)
    ]


def retrained_spreads(study: StudyRecord) -> list[Repeats]:
    """Winner and runners-up over the seeds of their retraining: objectives at the best epoch, and tests."""
    objectives = parse_objectives(study.objectives)
    by_rank: dict[int, list[RetrainedRecord]] = {}
    for run in study.retrained:
        if run.status == "completed":
            by_rank.setdefault(run.rank, []).append(run)
    return [
        Repeats(
            f"rank {rank}, candidate {runs[0].candidate}",
            runs[0].candidate,
            tuple(run.seed for run in runs),
            _spreads([best_results(run, objectives) | run.test for run in runs]),
        )
        for rank, runs in sorted(by_rank.items())
    ]


def best_results(run: RetrainedRecord, objectives: Sequence[Objective]) -> dict[str, float]:
    """Those objectives that are among a retraining's results, at its best epoch by the first of them."""
    targets = [each for each in objectives if not each.is_fact]
    if not targets:
        return {}
    first = targets[0]
    rows = [row for row in run.reports if math.isfinite(row.get(first.name, math.nan))]
    best = max(rows, key=lambda row: first.sign * row[first.name], default={})
    return {each.name: best[each.name] for each in targets if each.name in best}


def row_of_epoch(reports: Sequence[Mapping[str, float]], epoch: int | None) -> Mapping[str, float]:
    """The report of an epoch; empty where there is none."""
    return next((row for row in reversed(reports) if row.get("epoch") == epoch), {}) if epoch is not None else {}


def _spreads(rows: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: spread(row.get(name, math.nan) for row in rows) for name in names}
