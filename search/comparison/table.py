"""Compared runs for other programs: a CSV file with a row per run, and one with a row per epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.cli.export import csv_text, reports_path
from search.comparison.groups import (
    FACT_COLUMNS,
    RunGroup,
    class_columns,
    differing_values,
    flat_config,
    shown_results,
)
from search.results.record import Objective
from utils.files import write_text_atomically


def export_runs(groups: Sequence[RunGroup], path: Path, metric: Objective) -> Path:
    """Write a file with a row per run, and one with a row per epoch next to it.

    Of the results, the first is the metric, then come those of whole data sets, then those of single classes. Columns
    `config.PATH` have the values at which configs differ. Strings and numbers are written unchanged, other values as
    JSON; a missing value is an empty cell.

    Args:
        groups: The groups of runs.
        metric: By which the runs are compared.
        path: The file of the runs; its folder exists.

    Returns:
        The file of the epochs: `x_reports.csv` for `x.csv`.

    Raises:
        OSError: A file cannot be written.
    """
    differing = [name for name, _ in differing_values([group.config for group in groups])]
    classes = [name for prefix in ("test_", "val_") for name, _ in class_columns(groups, prefix)]
    results = dict.fromkeys([*shown_results(groups, metric), *classes])  # the metric may be the result of a class
    runs: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    for group in groups:
        values = flat_config(group.config)
        for run in group.runs:
            who = {"group": group.name, "seed": run.seed, "folder": None if run.folder is None else str(run.folder)}
            facts = {name: run.facts.get(name) for name in FACT_COLUMNS}
            settings = {f"config.{name}": values.get(name) for name in differing}
            state = {"is_finished": int(run.is_finished), "is_failed": int(bool(run.failure))}
            found = {name: run.results.get(name) for name in results}
            runs.append({**who, **state, "best_epoch": run.best_epoch, **facts, **found, **settings})
            epochs += [{**who, **row} for row in run.reports]
    write_text_atomically(path, csv_text(runs))
    reports = reports_path(path)
    write_text_atomically(reports, csv_text(epochs))
    return reports
