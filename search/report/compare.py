"""`write_comparison`: runs and studies side by side as one HTML file that loads nothing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.comparison.groups import (
    RunGroup,
    choose_metric,
    class_columns,
    differing_values,
    group_runs,
    shown_results,
)
from search.comparison.notes import notes_of
from search.comparison.pictures import MOST_RUNS, sample_pictures, score_rows, shown_split, tested_runs
from search.comparison.runs import ComparedRun
from search.comparison.studies import study_names
from search.report.axes import numbers_axis, results_axis, seconds_axis, significant
from search.report.figures import Figure
from search.report.page import write_page
from search.report.run_figures import (
    FACT_TITLES,
    MOST_CLASSES,
    class_figure,
    color_of,
    column_figures,
    curve_figures,
)
from search.results.grid import DIFFERENCE_COLUMNS, difference_rows
from search.results.leaderboard import ledger
from search.results.progress import Improvement, best_so_far
from search.results.record import Objective, StudyRecord, leading_place, parse_objectives
from search.results.spread import CONFIDENCE, INTERVAL_RULE
from search.results.summaries import retrained_summaries

_MOST_DIFFERENCES = 200


def write_comparison(
    runs: Sequence[ComparedRun],
    studies: Sequence[StudyRecord],
    path: Path,
    *,
    metric: str | None = None,
    images: int = 6,
    split: str | None = None,
) -> None:
    """Write a page that compares runs, and the studies that they are of.

    Args:
        runs: The runs, those of the studies included; differences are those from the group of the first one.
        studies: Records of studies; several are compared by the first objective of the first of them, too.
        path: The HTML file to create or replace; its folder exists.
        metric: A result such as `miou`; None: that which chose the best epochs.
        images: Maximum number of samples with predictions.
        split: `test` or `valid`: data of these samples; None: see `shown_split`.

    Raises:
        ConfigError: No run has this metric.
        SearchError: An objective is malformed.
        OSError: The file cannot be written.
    """
    groups = group_runs(runs)
    between = _studies_part(studies) if len(studies) > 1 else {}
    goal = choose_metric(groups, metric) if groups or not between else between["goal"]
    split = split or shown_split(groups)
    pictures = sample_pictures(groups, split, images)
    prefix = "test_" if class_columns(groups, "test_") else "val_"
    figures = column_figures(groups, goal) | curve_figures(groups, goal)
    classes = class_figure(groups, prefix)
    write_page(
        path,
        "compare.html",
        figures | ({} if classes is None else {"classes": classes}) | between.pop("figures", {}),
        groups=groups,
        metric=goal,
        result_columns=shown_results(groups, goal),
        facts={
            name: title
            for name, title in FACT_TITLES.items()
            if any(name in run.facts for group in groups for run in group.runs)
        },
        pairs=[DIFFERENCE_COLUMNS, *_difference_table(groups, shown_results(groups, goal))],
        differences=[
            (path, [_as_json(value) for value in values])
            for path, values in differing_values([group.config for group in groups])[:_MOST_DIFFERENCES]
        ],
        class_rows=_class_rows(groups, prefix),
        classes_left_out=max(0, len(class_columns(groups, prefix)) - MOST_CLASSES),
        class_data="test" if prefix == "test_" else "validation",
        confidence=CONFIDENCE,
        interval_rule=INTERVAL_RULE,
        pictures=pictures,
        scores=score_rows(groups, split),
        split=split,
        left_out=max(0, len(tested_runs(groups, split)) - MOST_RUNS),
        notes=notes_of(groups, split, goal),
        color_of=color_of,
        studies=studies,
        between=between,
    )


def _studies_part(studies: Sequence[StudyRecord]) -> dict[str, Any]:
    """Return the figures and tables that compare studies by the first objective of the first of them."""
    goals = parse_objectives(studies[0].objectives)
    goal = goals[leading_place(goals)]
    names = study_names(studies)
    courses = [best_so_far(study, goal) for study in studies]
    return {
        "figures": _progress(names, courses, goal),
        "goal": goal,
        "names": names,
        "rows": comparison_rows(studies, courses, goal),
        "differences": space_differences([study.config for study in studies])[:_MOST_DIFFERENCES],
    }


def _difference_table(groups: Sequence[RunGroup], results: Sequence[str]) -> list[list[Any]]:
    """Return the rows of the paired differences of each result from the first group."""
    names = [group.name for group in groups]
    found = {result: {group.name: group.spread(result) for group in groups} for result in results}
    return [row for result in results for row in difference_rows(result, found[result], names)]


def _class_rows(groups: Sequence[RunGroup], prefix: str) -> list[tuple[str, list[tuple[float | None, float | None]]]]:
    """Return each class with mean and difference from the first group, for each group; None if it is unknown."""
    rows = []
    for name, label in class_columns(groups, prefix):
        spreads = [group.spread(name) for group in groups]
        cells: list[tuple[float | None, float | None]] = []
        for spread in spreads:
            pairs = spread.minus(spreads[0])
            cells.append((spread.mean if spread.values else None, pairs.mean if pairs.values else None))
        rows.append((label, cells))
    return rows


def comparison_rows(
    studies: Sequence[StudyRecord], courses: Sequence[Sequence[Improvement]], goal: Objective
) -> list[dict[str, Any]]:
    """Return the results and costs of each study.

    Returns:
        For each study `state`, `scheduler`, `candidates`, `epochs`, `seconds`, the `best` result and its `difference`
        from that of the first study, `common` (epochs until it had reached the best result of the weakest study), and
        `retrained` (statistics of its first retrained candidate over its seeds); None for an unknown value.
    """
    bests = [course[-1].value if course else None for course in courses]
    known = [goal.sign * best for best in bests if best is not None]
    weakest = min(known, default=0.0)
    rows = []
    for study, course, best in zip(studies, courses, bests, strict=True):
        costs, first = ledger(study), next(iter(retrained_summaries(study)), None)
        rows.append(
            {
                "state": "done" if study.is_done else "unfinished",
                "scheduler": study.scheduler,
                "candidates": costs.counted,
                "epochs": costs.epochs,
                "seconds": costs.wall_seconds,
                "best": best,
                "difference": None if best is None or bests[0] is None else best - bests[0],
                "common": next((each.epochs for each in course if goal.sign * each.value >= weakest), None),
                "retrained": {} if first is None else first.results,
            }
        )
    return rows


def space_differences(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str | None]]]:
    """Return the JSON paths at which configs differ, with the value of each as JSON; None if it has none."""
    return [(path, [_as_json(value) for value in values]) for path, values in differing_values(configs)]


def _as_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _progress(names: Sequence[str], courses: Sequence[Sequence[Improvement]], goal: Objective) -> dict[str, Figure]:
    """Return the best result so far of each study by epochs, and by time if that is known of all."""
    known = [(place, course) for place, course in enumerate(courses) if course]
    if not known:
        return {}
    y = results_axis(goal, [each.value for _, course in known for each in course])

    def figure(x: Figure, places: Sequence[Sequence[float]]) -> Figure:
        layers = []
        for (number, course), column in zip(known, places, strict=True):
            line: Figure = {
                "kind": "lines",
                "name": names[number],
                "color": color_of(number),
                "step": "hv",
            }
            values = [significant(each.value) for each in course]
            layers.append(line | {"items": [[None, [significant(each) for each in column], values]]})
        return {"height": 380, "x": x, "y": y, "layers": layers}

    epochs = [[float(each.epochs) for each in course] for _, course in known]
    longest = max(column[-1] for column in epochs)
    axis = numbers_axis("epochs of all candidates", [0, longest], is_log=False, margin=0.01, is_whole=True)
    figures = {"progress-epochs": figure(axis, epochs)}
    times = [[each.seconds for each in course if each.seconds is not None] for _, course in known]
    if all(len(column) == len(course) for column, (_, course) in zip(times, known, strict=True)):
        axis, unit = seconds_axis("time of the search", [column[-1] for column in times])
        figures["progress-time"] = figure(axis, [[seconds / unit for seconds in column] for column in times])
    return figures
