"""`write_comparison`: several studies side by side as one HTML file."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config.markers import is_marker
from search.report.axes import numbers_axis, results_axis, seconds_axis, significant
from search.report.figures import Figure
from search.report.page import write_page
from search.results.leaderboard import ledger
from search.results.progress import Improvement, best_so_far
from search.results.record import Objective, StudyRecord, parse_objectives
from search.results.summaries import retrained_summaries

_COLORS = 8  # --series-0 to --series-7
_MOST_DIFFERENCES = 200


def write_comparison(studies: Sequence[StudyRecord], path: Path) -> None:
    """Write a page that compares studies by the first objective of the first of them.

    Args:
        studies: Their records.
        path: The HTML file to create or replace; its folder exists.

    Raises:
        SearchError: An objective is malformed.
        OSError: The file cannot be written.
    """
    goals = parse_objectives(studies[0].objectives)
    goal = next((each for each in goals if not each.is_fact), goals[0])
    names = study_names(studies)
    courses = [best_so_far(study, goal) for study in studies]
    write_page(
        path,
        "compare.html",
        _progress(names, courses, goal),
        goal=goal,
        names=names,
        rows=comparison_rows(studies, courses, goal),
        differences=space_differences([study.config for study in studies])[:_MOST_DIFFERENCES],
        studies=studies,
    )


def study_names(studies: Sequence[StudyRecord]) -> list[str]:
    """Return a name for each study, with its folder or a number behind it where several have the same."""
    names = [study.name for study in studies]
    for suffix in (
        [Path(study.folder).name for study in studies],
        [str(number) for number in range(1, len(names) + 1)],
    ):
        counts = Counter(names)
        names = [f"{name} {end}" if counts[name] > 1 else name for name, end in zip(names, suffix, strict=True)]
    return names


def comparison_rows(
    studies: Sequence[StudyRecord], courses: Sequence[Sequence[Improvement]], goal: Objective
) -> list[dict[str, Any]]:
    """Return the results and costs of each study.

    Returns:
        For each study `state`, `scheduler`, `candidates`, `epochs`, `seconds`, the `best` result and its `difference`
        from that of the first study, `common` (epochs until it had reached the best result of the weakest study), and
        `retrained` (statistics of its first retrained candidate over its seeds); None for what is unknown.
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
    """Return the JSON paths at which configs differ, with the value of each as JSON; None where it has none."""
    flat = [_flat(config) for config in configs]
    paths = dict.fromkeys(path for each in flat for path in each)
    rows = [(path, [each.get(path) for each in flat]) for path in paths]
    return [(path, values) for path, values in rows if len(set(values)) > 1]


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Return each value that is no object by its path, a marker and a list as one."""
    if not isinstance(value, Mapping) or (path and (not value or is_marker(value))):
        return {path: json.dumps(value, ensure_ascii=False)}
    found: dict[str, str] = {}
    for key, item in value.items():
        found |= _flat(item, f"{path}.{key}" if path else str(key))
    return found


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
                "color": f"--series-{number % _COLORS}",
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
