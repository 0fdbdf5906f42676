"""Validation results of several trainings together, such as those of the folds of one data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from build import build_metrics
from test import build_evaluation
from trainer.checkpoints.resume import weights_of
from trainer.evaluation import MetricSet, evaluate
from utils.checkpoint_file import read_saved
from utils.environment import resource_errors


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
                parts.loader,
                criterion=parts.criterion,
                metrics=metrics,
                precision=parts.precision,
                ignore_index=parts.spec.ignore_index,
            )
        new = [each.cpu() for each in metrics.counts()]
        counts = [before + more for before, more in zip(counts, new, strict=True)] if counts else new
    metrics.set_counts(counts)
    return {f"val_{name}": float(value) for name, value in metrics.compute().items()}
