"""Judge a checkpoint on any data of its config: `python test.py --resume saved/people_quickstart/20250101_120000`.

`test(config, state_dict)` is the whole command as a function; `main` finds the checkpoint, and reports.
"""

# ruff: noqa: PT028 (test() is a command, not one of pytest's)
import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import build as assemble
import config as configuration
from config import cli
from config.loading.load import apply_override, parse_override
from config.variants import for_judging, window_size, with_input_size, without_pretrained_weights
from logger.console import setup_logging
from train import registry
from utils.errors import ConfigError

if TYPE_CHECKING:  # torch takes seconds to load: --help is answered without it
    from torch import Tensor

    from logger.test_report.worst_cases import WorstCases
    from models.inference.views import Views


COUNTED = {"segmentation": "pixels", "classification": "samples"}


def test(
    config: Mapping[str, Any],
    state_dict: "Mapping[str, Tensor]",
    *,
    split: str = "test",
    devices: str | None = None,
    images: Path | None = None,
    worst: int = 8,
    views: "Views | None" = None,
) -> dict[str, Any]:
    """Judge weights by the very function that validates in training, so that the numbers are the same.

    Args:
        config: What the network is, and the data, loss and metrics to judge it by.
        state_dict: Its weights.
        split: `test`, `valid` or `train`; never augmented.
        devices: E.g. `"0"` or `"cpu"`, the first one is used; the config's `n_gpu` where not given.
        images: Folder for the confusion matrix and the worst cases; None draws none.
        worst: How many samples to draw: those of the lowest mIoU.
        views: Windows, flips and scales to look at each image with; with windows, images have their own size.

    Returns:
        Plain data: metrics (name -> value), per_class (class -> iou, precision, recall, f1, pixel_share; of a
        classification precision, recall, f1, support), samples, split, confusion (K rows of K pixels or samples, rows
        the truth), worst (name and score; of a classification also truth, prediction, probability), images (files).

    Raises:
        EspalierError: Anything that is the user's to mend.
    """
    from base.base_metric import MetricSet
    from logger.progress import with_bar
    from logger.test_report.report import write_images
    from models.inference.views import Views, with_views
    from models.metrics.segmentation import ConfusionMatrix
    from trainer import evaluation
    from trainer.checkpoints import resume as judging
    from trainer.runtime import distributed, setup

    names, config = registry(), without_pretrained_weights(config)
    _check(config, split, names)
    if views is not None and views.window is not None:
        config = with_input_size(config, None, names, batch_size=1)
    device = distributed.choose_devices(config.get("n_gpu"), devices)[0]
    precision = setup.precision(configuration.trainer_options(config), device)
    setup.seed_run(config.get("seed", 0), device)
    loader = assemble.build_loader(config, split, names, as_evaluation=True)
    if loader is None:
        raise _no_data(config, split)
    values = assemble.task_values(config, loader)
    num_classes, ignore_index = _num_classes(values), values.get("ignore_index")
    model = assemble.build_model(config, names, values)
    judging.load_all_weights(model, state_dict)
    matrix = ConfusionMatrix(num_classes, ignore_index)
    classes = list(values.get("class_names") or map(str, range(num_classes)))
    task = getattr(loader, "task", "segmentation")
    cases = _worst_cases(task, worst, classes, ignore_index)
    with setup.user_errors():
        metrics = evaluation.evaluate(
            with_views(model.to(device, memory_format=precision.memory_format), views or Views()),
            with_bar(loader, f"Testing on {split}"),
            criterion=assemble.build_criterion(config, names, values, model).to(device),
            metrics=MetricSet([*assemble.build_metrics(config, names, values), matrix]),
            precision=precision,
            ignore_index=ignore_index,
            on_sample=cases.add if images or task == "classification" else None,
        )
    counts, counted = matrix.counts.cpu(), COUNTED[task]
    files = write_images(images, counts.numpy(), classes, cases, counted=counted) if images else []
    return {
        "metrics": metrics,
        "per_class": _per_class(counts, classes, task),
        "samples": loader.num_samples,
        "split": split,
        "confusion": counts.tolist(),
        "worst": cases.ranking(),
        "pictures": [str(file) for file in files],
    }


def _check(config: Mapping[str, Any], split: str, names: Mapping[str, Any]) -> None:
    """Refuse a config that is faulty or has no data for the split; of training data there need be none."""
    configuration.refuse_markers(config)
    section = assemble.loader_section(config, split)
    if section is None:
        raise _no_data(config, split)
    has_training_data = assemble.loader_section(config, "train") is not None
    configuration.validate(config if has_training_data else {**config, "train_loader": config[section]}, names)


def _views(arguments: argparse.Namespace, config: Mapping[str, Any]) -> "Views":
    """The views of the command line; as many windows at once as the loader has images."""
    from models.inference.views import Views

    options, section = cli.views_of(arguments), assemble.loader_section(config, arguments.split)
    if arguments.window is None or section is None:
        return Views(**options)
    batch_size = configuration.class_and_arguments(config, section, registry())[1].get("batch_size", 1)
    window = window_size(config, section, arguments.window, registry())
    return Views(window=window, windows_at_once=batch_size, **options)


def _num_classes(values: Mapping[str, Any]) -> int:
    if values.get("num_classes") is None:
        raise ConfigError(
            "the number of classes is not known. A test counts which class was taken for which. Let the loader have "
            "the attribute num_classes, or set arch.args.num_classes."
        )
    return int(values["num_classes"])


def _no_data(config: Mapping[str, Any], split: str) -> ConfigError:
    there = [name for name in assemble.SPLIT_SECTIONS if name != split and assemble.loader_section(config, name)]
    return ConfigError(
        f"--split {split}: the config has no data for it, only for {' and '.join(there) or 'none'}. A test needs a "
        f"loader. Add {assemble.SPLIT_SECTIONS[split]}, or choose another --split."
    )


def _worst_cases(task: str, worst: int, classes: list[str], ignore_index: int | None) -> "WorstCases":
    """Return an empty collection of the worst samples of a task."""
    from logger.test_report.worst_cases import WorstClassified, WorstSegmented
    from models.metrics.confusion import confusion_counts, iou_per_class

    def mean_iou(logits: "Tensor", target: "Tensor") -> float:
        counts = confusion_counts(logits[None], target[None].to(logits.device), len(classes))
        return float(iou_per_class(counts).nanmean())

    if task == "classification":
        return WorstClassified(worst, classes)
    return WorstSegmented(worst, len(classes), ignore_index, mean_iou)


def _per_class(counts: "Tensor", classes: list[str], task: str = "segmentation") -> dict[str, dict[str, float]]:
    """Class -> what the table shows of it."""
    from models.metrics import confusion

    columns = {
        "precision": confusion.precision_per_class(counts),
        "recall": confusion.recall_per_class(counts),
        "f1": confusion.dice_per_class(counts),
    }
    if task == "classification":
        columns["support"] = counts.sum(dim=1)
    else:
        columns = {"iou": confusion.iou_per_class(counts), **columns}
        columns["pixel_share"] = counts.sum(dim=1).double() / counts.sum()
    rows = zip(classes, *(values.tolist() for values in columns.values()), strict=True)
    return {label: dict(zip(columns, values, strict=True)) for label, *values in rows}


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(description="Judge a checkpoint on any data of its config.")
    made.add_argument("overrides", nargs="*", metavar="path=value", help="change any value of the config")
    made.add_argument("--resume", required=True, metavar="FILE|FOLDER|best|last", help="checkpoint or run folder")
    made.add_argument("-c", "--config", metavar="FILE", help="other data, loss or metrics than the checkpoint's own")
    made.add_argument("--split", choices=tuple(assemble.SPLIT_SECTIONS), default="test", help="the data to judge by")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    made.add_argument("--output", type=Path, metavar="FOLDER", help="for images; by default beside the checkpoint")
    made.add_argument("--worst", type=cli.positive_int, default=8, metavar="K", help="how many worst cases to draw")
    cli.add_view_arguments(made)
    cli.add_run_arguments(made)
    return made


def main(arguments: argparse.Namespace) -> None:
    """Run the command line."""
    from logger.test_report.report import record_in_run, report_text, require_writable_results, write_result
    from trainer.checkpoints.resume import EARLIER_RUN, find_checkpoint, weights_of

    close_logging = setup_logging(None)
    try:
        configuration.load_plugins(arguments.plugin)
        file, overrides, split = arguments.config, arguments.overrides, arguments.split
        asked = configuration.load_config(file, overrides) if file is not None else None
        path, content = find_checkpoint(arguments.resume, asked)
        config = for_judging(content.get("config"), asked)
        for override in overrides:
            apply_override(config, parse_override(override))
        config = {key: value for key, value in config.items() if value is not None}
        folder = arguments.output or path.parent / "pictures" / split
        require_writable_results(folder, arguments.json)
        views = _views(arguments, config)
        options = {"views": views, "devices": arguments.devices, "images": folder, "worst": arguments.worst}
        result = test(config, weights_of(content), split=split, **options)
        result = {"checkpoint": str(path), "epoch": content.get("epoch"), **result}
        if arguments.json:
            write_result(arguments.json, result)
        is_own_data = not overrides and views.is_plain and (file is None or arguments.resume in EARLIER_RUN)
        if is_own_data and split == "test":
            record_in_run(path.parent, result)
        sys.stdout.write(report_text(result))
    finally:
        close_logging()


if __name__ == "__main__":
    sys.exit(cli.run_command(main, parser()))
