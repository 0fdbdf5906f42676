"""The runs of a study that are compared: each condition and seed of a grid, the result of any other search."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.comparison.groups import FACT_COLUMNS
from search.comparison.runs import CONFIG, ComparedRun, damaged_record, is_run_folder, read_run
from search.results.grid import conditions_of, is_grid, spreads
from search.results.leaderboard import winner_of
from search.results.record import (
    CandidateRecord,
    Objective,
    RetrainedRecord,
    StudyRecord,
    leading_objective,
    parse_objectives,
)
from utils.files import read_json_object

_FAILED = ("failed", "out_of_memory", "refused")


def study_names(studies: Sequence[StudyRecord]) -> list[str]:
    """Return a name for each study, with its folder or a number behind it if several have the same."""
    names = [study.name for study in studies]
    for suffix in (
        [Path(study.folder).name for study in studies],
        [str(number) for number in range(1, len(names) + 1)],
    ):
        counts = Counter(names)
        names = [f"{name} {end}" if counts[name] > 1 else name for name, end in zip(names, suffix, strict=True)]
    return names


def runs_of_studies(studies: Sequence[StudyRecord]) -> list[ComparedRun]:
    """Return the runs of several studies, each study under another name; see `runs_of_study`."""
    return [
        run for study, name in zip(studies, study_names(studies), strict=True) for run in runs_of_study(study, name)
    ]


def runs_of_study(study: StudyRecord, name: str) -> list[ComparedRun]:
    """Return the runs of a study.

    They are the trainings of the winner from the beginning, one per seed, or the winner itself if there are none; of a
    grid study each whole seed of each condition, with its results over all folds.

    Args:
        study: The record.
        name: Of the runs.
    """
    runs = _grid_runs(study) if is_grid(study) else _winner_runs(study)
    return [replace(run, name=name, condition=run.condition or name) for run in runs]


def _grid_runs(study: StudyRecord) -> list[ComparedRun]:
    goal = parse_objectives(study.objectives)[0]
    found = [spreads(study.candidates, prefix) for prefix in ("val_", "test_")]
    groups: dict[tuple[str, int], list[CandidateRecord]] = {}
    for candidate in study.candidates:
        place = dict(candidate.drawn)
        groups.setdefault((place["condition"], place["seed"]), []).append(candidate)
    num_folds = max((dict(each.drawn).get("fold", 0) + 1 for each in study.candidates), default=1)
    order = {name: number for number, name in enumerate(conditions_of(study))}
    runs = []
    for (condition, seed), folds in sorted(groups.items(), key=lambda item: (order[item[0][0]], item[0][1])):
        results = {
            name: by_condition[condition].values[seed]
            for each in found
            for name, by_condition in each.items()
            if condition in by_condition and seed in by_condition[condition].values
        }
        run = _run_of(study, folds[0], goal)
        seconds = math.fsum(each.seconds for each in folds)
        classes = {name: value for name, value in run.results.items() if name not in results and num_folds == 1}
        runs.append(
            replace(
                run,
                seed=seed,
                condition=condition,
                results={**classes, **results} if results else {},
                facts=run.facts | ({"seconds": seconds} if seconds else {}),
                is_finished=all(each.status == "completed" for each in folds),
                failure=next((each.reason or each.status for each in folds if each.status in _FAILED), ""),
                folds=max(len(folds), num_folds),
            )
        )
    return runs


def _winner_runs(study: StudyRecord) -> list[ComparedRun]:
    winner, goal = winner_of(study), _curve_goal(study)
    if winner is None:
        return []
    retrained = [each for each in study.retrained if each.candidate == winner.index and each.status == "completed"]
    runs = [_run_of(study, each, goal) for each in retrained]
    runs = runs or [_run_of(study, winner, goal)]
    facts = {name: value for name, value in winner.facts.items() if name in ("params", "flops")}
    if study.result_is_retrained:  # the candidate is another network
        facts = {}
    return [replace(run, facts=facts | run.facts) for run in runs]


def _curve_goal(study: StudyRecord) -> Objective | None:
    return leading_objective(parse_objectives(study.objectives))


def _run_of(study: StudyRecord, record: CandidateRecord | RetrainedRecord, goal: Objective | None) -> ComparedRun:
    """Return a training of a study, with the files of its run folder if it is there."""
    folder = Path(study.folder) / record.folder if record.folder else None
    if folder is not None and is_run_folder(folder):
        run = read_run(folder)
    else:
        # A condition that is a search has the config of its winner; of another study it is next to the best weights,
        # also if the folder of the candidate is deleted.
        places = [folder] if folder is not None else []
        places += [] if is_grid(study) else [Path(study.folder) / "best"]
        found = (read_json_object(place / CONFIG, damaged_record) for place in places)
        config = next((each for each in found if each), study.config)
        run = ComparedRun(study.name, None, config, record.seed)
    reports = [_results_of(row) for row in record.reports] or run.reports
    row = _best_row(record, reports, goal)
    results = {**run.results, **{name: value for name, value in row.items() if name.startswith("val_")}, **record.test}
    facts: dict[str, float] = dict(getattr(record, "facts", {}))
    facts = {name: value for name, value in facts.items() if name in FACT_COLUMNS} | run.facts
    facts |= {"seconds": record.seconds} if record.seconds else {}
    return replace(
        run,
        seed=record.seed,
        reports=reports,
        monitor=goal or run.monitor,
        best_epoch=int(row["epoch"]) if "epoch" in row else run.best_epoch,
        results={name: value for name, value in results.items() if math.isfinite(value)},
        facts=facts | ({"epochs": len(reports)} if reports else {}),
        is_finished=record.status not in ("running", "paused"),
    )


def _results_of(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in ("seconds_at", "epoch_seconds")}


def _best_row(
    record: CandidateRecord | RetrainedRecord, reports: Sequence[dict[str, float]], goal: Objective | None
) -> Mapping[str, Any]:
    epoch = getattr(record, "best_epoch", None)
    if epoch is not None:
        return next((row for row in reports if row.get("epoch") == epoch), {})
    if goal is None:
        return {}
    known = [row for row in reports if math.isfinite(row.get(goal.name, math.nan))]
    return max(known, key=lambda row: goal.sign * row[goal.name], default={})
