"""Compared runs for other programs: a CSV file with a row per run, and one with a row per epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.cli.export import csv_text, reports_path
from search.comparison.groups import FACT_COLUMNS, RunGroup, differing_values, flat_config
from utils.files import write_text_atomically


def export_runs(groups: Sequence[RunGroup], path: Path) -> Path:
    """Write a file with a row per run, and one with a row per epoch next to it.

    Columns `config.PATH` have the values at which configs differ. Strings and numbers are written unchanged, other
    values as JSON; a missing value is an empty cell.

    Args:
        groups: The groups of runs.
        path: The file of the runs; its folder exists.

    Returns:
        The file of the epochs: `x_reports.csv` for `x.csv`.

    Raises:
        OSError: A file cannot be written.
    """
    differing = [name for name, _ in differing_values([group.config for group in groups])]
    runs: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    for group in groups:
        values = flat_config(group.config)
        for run in group.runs:
            who = {"group": group.name, "seed": run.seed, "folder": None if run.folder is None else str(run.folder)}
            facts = {name: run.facts.get(name) for name in FACT_COLUMNS}
            settings = {f"config.{name}": values.get(name) for name in differing}
            state = {"is_finished": int(run.is_finished), "best_epoch": run.best_epoch}
            runs.append({**who, **state, **facts, **run.results, **settings})
            epochs += [{**who, **row} for row in run.reports]
    write_text_atomically(path, csv_text(runs))
    reports = reports_path(path)
    write_text_atomically(reports, csv_text(epochs))
    return reports
