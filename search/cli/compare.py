"""`python -m search compare RUN|STUDY ...`: trained runs side by side, of train.py and of studies."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from config import cli
from search.cli.study_commands import read_study
from search.comparison.groups import RunGroup, choose_metric, group_runs
from search.comparison.pictures import shown_split
from search.comparison.runs import CONFIG, SPLITS, ComparedRun, is_run_folder, read_run
from search.comparison.studies import runs_of_study, study_names
from search.results.record import Objective, StudyRecord
from search.study.folders import find_studies
from utils.errors import EspalierError, SearchError
from utils.writing.outputs import PAGE, RUNS, require_output, writing
from utils.writing.text import in_one_line, write_out

COMPARE = "compare"
Predict = Callable[[Path, str], None]
"""Evaluates the run in a folder on a split, and stores the records of that in the folder."""


def compare_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    made = argparse.ArgumentParser(
        prog=f"python -m search {COMPARE}",
        description="Compare trained runs as one HTML page that needs no network: results, costs, curves, predictions.",
    )
    made.add_argument(
        "folder", metavar="FOLDER", nargs="+", type=Path, help="a run, a study, or a folder with some anywhere below it"
    )
    made.add_argument("--output", type=Path, metavar="FILE.html", default=Path("compare.html"))
    made.add_argument("--csv", type=Path, metavar="FILE.csv", help="a row per run; a second file of curves")
    made.add_argument("--metric", metavar="NAME", help="by default that which chose the best epochs")
    made.add_argument(
        "--images", type=cli.positive_int, default=6, metavar="N", help="number of samples with predictions (6)"
    )
    made.add_argument(
        "--predict", action="store_true", help="evaluate the runs that have no stored predictions, as test.py does"
    )
    made.add_argument(
        "--split", choices=SPLITS, help="data of the predictions; by default that of which more runs have some"
    )
    cli.add_run_arguments(made)
    return made


def run_compare(arguments: argparse.Namespace, predict: Predict) -> None:
    """Compare the runs of some folders.

    Args:
        arguments: Of `compare_parser`.
        predict: Evaluates a run.

    Raises:
        ConfigError: An output cannot be written, or no run has the metric.
        SearchError: There is no run in a folder, or a damaged one.
    """
    from search.cli.export import reports_path
    from search.comparison.table import export_runs
    from search.report import write_comparison  # jinja2 is needed only here

    require_output(arguments.output, "--output", PAGE)
    for path in () if arguments.csv is None else (arguments.csv, reports_path(arguments.csv)):
        require_output(path, "--csv", RUNS)
    runs, studies = collect_runs(arguments.folder, arguments.plugin)
    split = arguments.split or shown_split(group_runs(runs))
    if arguments.predict:
        runs = [_with_predictions(run, predict, split) for run in runs]
    groups = group_runs(runs)
    goal = choose_metric(groups, arguments.metric)  # raises before anything is written
    with writing(arguments.output, "--output"):
        write_comparison(runs, studies, arguments.output, metric=arguments.metric, images=arguments.images, split=split)
    write_out(f"{comparison_text(groups, goal)}\nPage:  {in_one_line(arguments.output)}\n")
    if arguments.csv is not None:
        with writing(arguments.csv, "--csv"):
            reports = export_runs(groups, arguments.csv, goal)
        text = f"Written:  {arguments.csv}, a row per run, and {reports}, a row per epoch"
        write_out(f"{in_one_line(text)}\n")


def collect_runs(folders: Sequence[Path], plugins: Sequence[str]) -> tuple[list[ComparedRun], list[StudyRecord]]:
    """Return the runs in some folders, those of studies included, each once; and the studies.

    Raises:
        SearchError: There is no run in a folder, or a damaged one.
    """
    places: dict[Path, tuple[Path, bool]] = {}
    for asked in folders:
        below = _runs_below(asked)
        if not below:
            raise SearchError(
                f"{asked}: there is no run and no study in it or below it. Name a folder that train.py or a search "
                "wrote."
            )
        for folder, is_study in below:
            places.setdefault(folder.resolve(), (folder, is_study))
    studies = [read_study(folder, plugins) for folder, is_study in places.values() if is_study]
    names = iter(study_names(studies))
    waiting = iter(studies)
    runs: list[ComparedRun] = []
    for folder, is_study in places.values():
        runs += runs_of_study(next(waiting), next(names)) if is_study else [read_run(folder)]
    if not any(run.results for run in runs):
        raise SearchError("No run has results yet. Wait for the end of an epoch, or name other folders.")
    return runs, studies


def _runs_below(parent: Path) -> list[tuple[Path, bool]]:
    """Return each run and study in a folder, and whether it is a study, in the order of their names."""
    studies = find_studies(parent)
    if studies == [parent]:
        return [(parent, True)]
    if is_run_folder(parent):
        return [(parent, False)]
    inside = set(studies)
    runs = sorted({path.parent for path in parent.glob(f"*/**/{CONFIG}") if is_run_folder(path.parent)})
    alone = [run for run in runs if inside.isdisjoint(run.parents)]
    return sorted([*((study, True) for study in studies), *((run, False) for run in alone)])


def _with_predictions(run: ComparedRun, predict: Predict, split: str) -> ComparedRun:
    """Return a run with the records of its test on a split, which is done now if there are none."""
    if run.folder is None or split in run.tests:
        return run
    try:
        predict(run.folder, split)
    except EspalierError as error:
        text = f"Not predicted: {run.folder}: {' '.join(str(error).split())}"
        sys.stderr.write(f"{in_one_line(text)}\n")
        return run
    now = read_run(run.folder)
    tested = {name: value for name, value in now.results.items() if name not in run.results}
    return replace(run, tests=now.tests, results={**run.results, **tested}, facts={**now.facts, **run.facts})


def comparison_text(groups: Sequence[RunGroup], goal: Objective) -> str:
    """Return a line per group: the mean of the metric, its deviation, and the difference from the first group."""
    first, names = groups[0].spread(goal.name), [in_one_line(group.name) for group in groups]
    width, lines = max(map(len, names)), [in_one_line(f"By {goal}:")]
    for name, group in zip(names, groups, strict=True):
        spread = group.spread(goal.name)
        text = f"{spread.mean:.4f}" if spread.values else "no result"
        if spread.deviation is not None:
            text += f" ± {spread.deviation:.4f} ({len(spread.values)} seeds)"
        pairs = spread.minus(first)
        if group is not groups[0] and pairs.values:
            text += f"  {pairs.mean:+.4f}"
            interval = pairs.interval()
            text += f" ({interval[0]:+.4f} to {interval[1]:+.4f})" if interval else ""
        lines.append(f"  {name:{width}}  {text}")
    return "\n".join(lines)
