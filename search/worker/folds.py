"""The folds of one data set: the training of a candidate in all of them, and validation results of several together."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from build import build_metrics
from search.space.grid_space import with_fold
from search.study.folders import fold_folder
from search.worker.callbacks import CONTINUE, Report
from test import build_evaluation
from trainer.checkpoints.resume import weights_of
from trainer.evaluation import MetricSet, evaluate
from utils.checkpoint_file import read_saved
from utils.environment import resource_errors

PAUSE = "pause"
Train = Callable[[Mapping[str, Any], Report], dict[str, Any]]


def pooled_results(folders: Sequence[str], devices: str | None = None) -> dict[str, float]:
    """Return the metrics of several trainings, each evaluated on its validation data, from the sums of their counts.

    A metric is computed from counts, so that it is the same as that of one evaluation of all the data. A loss is not.

    Args:
        folders: Run folders, of which the best checkpoint is evaluated; all have the same metrics.
        devices: As on the command line, e.g. `"0"` or `"cpu"`.

    Returns:
        The results under the names that they have in a training: `val_miou`.

    Raises:
        EspalierError: A checkpoint is missing, or its data cannot be read.
    """
    counts: list[Any] = []
    metrics = MetricSet([])
    for folder in folders:
        content = read_saved(Path(folder))[1]
        parts = build_evaluation(content["config"], weights_of(content), "valid", devices=devices)
        metrics = MetricSet(build_metrics(parts.config, parts.spec))
        with resource_errors():
            evaluate(
                parts.model,
                parts.batches(),
                criterion=parts.criterion,
                metrics=metrics,
                precision=parts.precision,
                ignore_index=parts.spec.ignore_index,
            )
        new = [each.cpu() for each in metrics.counts()]
        counts = [before + more for before, more in zip(counts, new, strict=True)] if counts else new
    metrics.set_counts(counts)
    return {f"val_{name}": float(value) for name, value in metrics.compute().items()}


@dataclass
class _FoldReports:
    """Takes the reports of a fold, and lets it pause at an epoch.

    Attributes:
        search: Reports to the search and returns its decision.
        until: Epoch at which the fold pauses.
        epochs: Results by epoch.
        seconds: Of these epochs.
        is_first: Whether it reports the names of the results.
        is_halted: Whether the search wants its worker back.
    """

    search: Report
    until: int
    is_first: bool
    epochs: dict[int, Mapping[str, float]] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    is_halted: bool = False

    def __call__(self, message: dict[str, Any]) -> str:
        """Note a report, and return the decision on the fold."""
        if "epoch" not in message:
            return self.search(message) if self.is_first else CONTINUE
        epoch = message["epoch"]
        self.epochs[epoch], self.seconds[epoch] = message["row"], message["seconds"]
        is_known = math.isnan(message["seconds"])  # of an earlier session
        if not is_known and self.search({"is_at_work": True}) != CONTINUE:
            self.is_halted = True
        return PAUSE if self.is_halted or epoch >= self.until else CONTINUE


def train_in_folds(task: Mapping[str, Any], report: Report, train: Train) -> dict[str, Any]:
    """Train a candidate in each fold of its training data, and report the means of the results.

    The folds are trained one after the other up to the next epoch at which candidates are compared; then the epochs
    until there are reported. Each fold has a run folder of its own and continues from there. If a fold stops early, the
    candidate ends at that epoch.

    Args:
        task: As for `run_task`, with `folds`: `of` (their number), `seed` (of the partition) and `ends` (epochs at
            which the candidate may be paused or stopped, the last of its job at the end).
        report: Reports to the search and returns its decision.
        train: Trains one of them and returns its outcome.

    Returns:
        The outcome of the first fold that did not end well; otherwise `status` "ended" with `is_finished`.
    """
    chosen, epochs, reported = task["folds"], task["config"]["trainer"]["epochs"], task["reported"]
    ends = chosen["ends"] if task.get("until") is None else [task["until"]]
    for end in ends:
        until, folds = end, []
        for number in range(chosen["of"]):
            fold = _FoldReports(report, until, number == 0)
            outcome = train(_task_of_fold(task, number, reported, until), fold)
            if outcome["status"] != "ended" or fold.is_halted:
                return outcome | {"is_finished": False}
            folds.append(fold)
            if outcome["is_finished"]:
                until = min(until, max(fold.epochs, default=reported))
        for epoch in range(reported + 1, until + 1):
            if report(_mean_report(epoch, folds)) != CONTINUE:
                return {"status": "ended", "is_finished": False}
        reported = max(reported, until)
        if until < end or end >= epochs:
            return {"status": "ended", "is_finished": task.get("until") is None}
    return {"status": "ended", "is_finished": False}


def _task_of_fold(task: Mapping[str, Any], number: int, reported: int, until: int) -> dict[str, Any]:
    """Return the task of one fold."""
    of, seed = task["folds"]["of"], task["folds"]["seed"]
    changed = {
        "config": with_fold(task["config"], number, of, seed),
        "folder": str(fold_folder(Path(task["folder"]), number)),
        "reported": reported,
        "until": until,
        "folds": None,
    }
    return {**task, **changed}


def _mean_report(epoch: int, folds: Sequence[_FoldReports]) -> dict[str, Any]:
    """Return the report of an epoch: the means of the results that all folds have, and the sum of their seconds.

    Those of folds that an earlier session trained are not known, and left out.
    """
    rows = [fold.epochs[epoch] for fold in folds]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    row = {name: statistics.fmean(row[name] for row in rows) for name in names}
    seconds = [each for fold in folds if not math.isnan(each := fold.seconds[epoch])]
    return {"epoch": epoch, "row": {**row, "epoch": epoch}, "seconds": sum(seconds) if seconds else math.nan}
