"""Evaluate a checkpoint on any data of its config: `python test.py --resume saved/people_quickstart/20250101_120000`.

`test(config, state_dict)` is the whole command as a function; `main` finds the checkpoint and prints.
"""

# ruff: noqa: PT028 (test() is a command, not one of pytest's)
import argparse
import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import config as configuration
from build import build_loader, build_loss, build_metrics, build_model, read_data_spec, registry
from config import cli, variants
from config.checking.sections import LOADER_SECTIONS
from config.checking.splits import MERGED, SPLIT_SECTIONS, is_merged, loader_section
from config.loading.load import apply_override
from logger.console import setup_logging
from utils.errors import ConfigError
from utils.writing.outputs import TEST_RESULT, Originals, require_image_folder, require_output
from utils.writing.text import write_out

if TYPE_CHECKING:  # torch takes seconds to load: --help is answered without it
    from torch import Tensor, nn

    from base.base_data_loader import BaseDataLoader
    from logger.test_report.stored import StoredSamples
    from logger.test_report.worst_cases import WorstCases
    from models.inference.views import Views
    from models.metrics.confusion import ConfusionMatrix
    from trainer.runtime.devices import RunPrecision
    from trainer.steps import MovedBatches
    from utils.images.palette import Palette

# Arguments of loaders that may be left open and follow from the training data.
LEARNED_ARGUMENTS = ("classes", "mean", "std", "scale")


def test(
    config: Mapping[str, Any],
    state_dict: "Mapping[str, Tensor]",
    *,
    split: str = "test",
    devices: str | None = None,
    images: Path | None = None,
    worst: int = 8,
    views: "Views | None" = None,
    stored: "StoredSamples | None" = None,
    predictions: Path | None = None,
) -> dict[str, Any]:
    """Evaluate weights with the function that validates in training, so that the numbers are the same.

    Args:
        config: Describes the network, and the data, loss and metrics to evaluate it with; it is not changed.
        state_dict: The weights of the network.
        split: `test`, `valid` or `train`; never augmented.
        devices: E.g. `"0"` or `"cpu"`, the first one is used; by default the config's `n_gpu`.
        images: Folder for the images of the confusion matrix and the worst cases; None writes none.
        worst: Number of worst cases to write: those of the lowest mIoU, or least probability of the true class.
        views: Windows, flips and scales to average over; with windows, each image is evaluated at its own size.
        stored: Takes in the samples that the run folder stores, see `write_stored`.
        predictions: Folder for the predicted masks in the ids of the data set, next to a ZIP archive of them; the data
            may then be without labels, and there are no results. None writes none.

    Returns:
        Plain data: metrics (name -> value), per_class (class -> iou, precision, recall, f1, pixel_share; of a
        classification precision, recall, f1, support; without an ignored class), samples, split, confusion (K rows of K
        pixels or samples, rows the truth), worst (name and score; of a classification also truth, prediction,
        probability), pictures (files). With `stored` also the entries of `facts_of_test` and the `palette`.

    Raises:
        EspalierError: Anything that the user can repair.
    """
    from base.samples import task_of
    from logger.callbacks import with_bar
    from logger.test_report.predictions import PredictionFiles
    from models.inference.views import Views, with_views
    from models.metrics.confusion import ConfusionMatrix
    from trainer.evaluation import MetricSet, evaluate
    from utils.environment import resource_errors
    from utils.images.palette import Palette, of_loaders

    views = views or Views()
    parts = build_evaluation(config, state_dict, split, devices=devices, views=views, needs_labels=predictions is None)
    loader, spec, precision = parts.loader, parts.spec, parts.precision
    assert spec.num_classes is not None  # as `build_evaluation` found
    matrix = ConfusionMatrix(spec.num_classes, spec.ignore_index)
    classes = list(spec.class_names or map(str, range(spec.num_classes)))
    task = task_of(loader)
    palette = Palette.of(spec.num_classes, spec.class_names, of_loaders(parts.config, "palette"))
    cases = collect_worst(task, worst, classes, palette, spec.ignore_index)
    files = None
    if predictions is not None:
        files = PredictionFiles.of_loader(predictions, loader, variants.dataset_ids(parts.config, registry()))

    def take(sample: Any, inputs: "Tensor", logits: "Tensor") -> None:
        facts = cases.add(sample, inputs, logits)
        if stored is not None:
            stored.add(sample, inputs, logits, facts, ignore_index=spec.ignore_index)
        if files is not None:
            files.add(sample, logits)

    with resource_errors():
        metrics = evaluate(
            with_views(parts.model, views),
            with_bar(parts.batches(), f"Testing on {split}"),
            criterion=parts.criterion,
            metrics=MetricSet([*build_metrics(parts.config, spec), matrix]),
            precision=precision,
            ignore_index=spec.ignore_index,
            on_sample=take if images or stored or files or task == "classification" else None,
        )
    outcome: dict[str, Any] = {"metrics": metrics, "samples": loader.num_samples, "split": split}
    if files is not None:
        outcome["predictions"] = str(files.finish())
        if not matrix.counts.any():  # without labels there are no results
            return {**outcome, "metrics": {}, "per_class": {}, "confusion": [], "worst": [], "pictures": []}
    if stored is not None:
        outcome |= facts_of_test(parts, task, classes, stored.input_shape) | {"palette": palette.to_json()}
    return {**outcome, **detailed_results(matrix, cases, classes, task, images)}


@dataclass(frozen=True)
class EvaluationParts:
    """What an evaluation needs, on its device; `config` is that of the test, with everything that it needs."""

    config: dict[str, Any]
    loader: "BaseDataLoader"
    spec: configuration.DataSpec
    model: "nn.Module"
    criterion: "nn.Module"
    precision: "RunPrecision"

    def batches(self) -> "BaseDataLoader | MovedBatches":
        """Return the batches of the loader, on the device."""
        from trainer.steps import BatchMover

        return BatchMover(self.precision).evaluated(self.loader)


def build_evaluation(
    config: Mapping[str, Any],
    state_dict: "Mapping[str, Tensor]",
    split: str,
    *,
    devices: str | None = None,
    views: "Views | None" = None,
    needs_labels: bool = True,
) -> EvaluationParts:
    """Build what evaluates weights as the validation of their training did.

    Args:
        config: Describes the network, and the data, loss and metrics to evaluate it with; it is not changed.
        state_dict: The weights of the network.
        split: `test`, `valid` or `train`; never augmented.
        devices: E.g. `"0"` or `"cpu"`, the first one is used; by default the config's `n_gpu`.
        views: Those of each image; with windows it is loaded at its own size.
        needs_labels: Refuse data of which no label counts.

    Raises:
        EspalierError: Anything that the user can repair.
    """
    import torch

    from base.samples import task_of
    from models.inference.views import require_masks
    from trainer.checkpoints.resume import load_all_weights
    from trainer.runtime.cpu_convolutions import replace_convolutions
    from trainer.runtime.devices import RunPrecision, choose_devices, seed_run

    config = variants.without_pretrained_weights(config)
    check_split(config, split)
    options = views.options() if views is not None else []
    require_masks(options, variants.stated_task(config, loader_section(config, split), registry()))
    if views is not None and views.window is not None:
        config = variants.with_input_size(config, None, registry(), batch_size=1)
    device = choose_devices(config.get("n_gpu"), devices)[0]
    precision = RunPrecision.from_options(device, configuration.trainer_options(config))
    seed_run(config.get("seed", 0), device)
    loader = build_loader(config, split, as_evaluation=True)
    if loader is None:
        raise ConfigError(
            f"--split {split}: data_loader holds no samples out for validation. Set its validation_split before "
            "training, or write --split train."
        )
    if options:
        require_masks(options, task_of(loader))
    loader.loader_timeout = configuration.trainer_options(config)["loader_timeout"]
    loader.feeds_accelerator = device.type != "cpu"
    if needs_labels:
        loader.require_counted_targets(loader_section(config, split) or split)
    spec = read_data_spec(config, loader)
    if spec.num_classes is None:
        raise ConfigError(
            "the number of classes is not known. A test counts which class was taken for which. Let the loader have "
            "the attribute num_classes, or set arch.args.num_classes."
        )
    model = build_model(config, spec)
    load_all_weights(model, state_dict)
    if device.type == "cpu":  # the same convolutions as in the validation of the training
        model = replace_convolutions(model, in_bf16=precision.dtype is torch.bfloat16)
    criterion = build_loss(config, spec, model).to(device)
    model = model.to(device, memory_format=precision.memory_format)  # type: ignore[call-overload]
    return EvaluationParts(config, loader, spec, model, criterion, precision)


def evaluate_checkpoint(
    path: Path,
    content: Mapping[str, Any],
    split: str,
    *,
    devices: str | None = None,
    images: Path | None = None,
    worst: int = 8,
    views: "Views | None" = None,
    is_stored: bool = True,
    predictions: Path | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint on data of its config.

    Args:
        path: The file of the checkpoint.
        content: Of the checkpoint; its `config` names the data.
        split: As in `test`, as are devices, images, worst, views and predictions.
        devices: The first one is used.
        images: Folder for images.
        worst: Number of worst cases to write.
        views: Windows, flips and scales.
        is_stored: Whether the folder of the checkpoint gets the records from which runs are compared.
        predictions: Folder for predicted masks.

    Returns:
        The result of `test`, with `checkpoint` and `epoch`.

    Raises:
        EspalierError: Anything that the user can repair.
    """
    from logger.test_report.stored import StoredSamples, write_stored
    from trainer.checkpoints.resume import weights_of

    stored = StoredSamples() if is_stored else None
    weights = weights_of(content)
    found = test(
        content["config"],
        weights,
        split=split,
        devices=devices,
        images=images,
        worst=worst,
        views=views,
        stored=stored,
        predictions=predictions,
    )
    result = {"checkpoint": str(path), "epoch": content.get("epoch"), **found}
    if stored is not None and result["metrics"]:
        write_stored(path.parent, result, stored)
    return result


def facts_of_test(
    parts: EvaluationParts, task: str, classes: Sequence[str], input_shape: Sequence[int] | None
) -> dict[str, Any]:
    """Return the facts of a test that a comparison of runs needs.

    Args:
        parts: Of the evaluation.
        task: `segmentation` or `classification`.
        classes: Names of the classes.
        input_shape: (C, H, W) or (V, T) of the network's input; None if it is not known.

    Returns:
        problem, classes, ignore_index, facts (params; flops of a sample, if they can be counted; input_size), data
        (number and digest of the samples, see `data_identity`).
    """
    from base.base_model import BaseModel

    facts: dict[str, Any] = {"params": sum(weight.numel() for weight in parts.model.parameters())}
    if input_shape is not None:
        facts["input_size"] = list(input_shape[1:])
        if isinstance(parts.model, BaseModel):
            facts["flops"] = parts.model.flops(input_shape[1:])
    return {
        "problem": task,
        "classes": list(classes),
        "ignore_index": parts.spec.ignore_index,
        "facts": facts,
        "data": parts.loader.identity(),
    }


def detailed_results(
    matrix: "ConfusionMatrix", cases: "WorstCases", classes: Sequence[str], problem: str, images: Path | None
) -> dict[str, Any]:
    """Return the results by class and the worst cases as plain data, and draw both if a folder is given."""
    from logger.test_report.report import write_images

    counts, counted = matrix.counts.cpu(), "samples" if problem == "classification" else "pixels"
    ignored = matrix.ignored_class
    files = write_images(images, counts.numpy(), classes, cases, counted=counted, ignored=ignored) if images else []
    return {
        "per_class": results_per_class(counts, list(classes), problem, matrix.ignore_index),
        "confusion": counts.tolist(),
        "worst": cases.ranking(),
        "pictures": [str(file) for file in files],
    }


def for_evaluation(saved: Mapping[str, Any] | None, asked: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the network of a checkpoint with the data, loss and metrics that are asked for.

    Args:
        saved: The checkpoint's configuration; None if it holds none.
        asked: Another configuration, which replaces all but `arch`. If it names a loader, it names all.

    Raises:
        ConfigError: Neither is there, its loader names other classes than the checkpoint, or the checkpoint's config
            asks for more than it may, see `config.foreign`.
    """
    from base.samples import require_same_classes

    if saved is None and asked is None:
        raise ConfigError(
            "the checkpoint holds no configuration. The network and its data must be known. Write -c FILE."
        )
    saved, merged = saved or {}, copy.deepcopy(dict(saved or {}))
    if asked is not None:
        # Loaders of two files would not fit together: one "data_loader", or one for each split.
        if any(section in asked for section in LOADER_SECTIONS):
            merged = {key: value for key, value in merged.items() if key not in LOADER_SECTIONS}
        merged |= copy.deepcopy(dict(asked))
        # Loaders of the same kind get the values that follow from the training data, if they do not have them.
        source = saved.get("train_loader") or saved.get("data_loader")
        source = source if isinstance(source, Mapping) else {}
        settled = {name: value for name in LEARNED_ARGUMENTS if (value := source.get("args", {}).get(name)) is not None}
        for section in LOADER_SECTIONS:
            spec = merged.get(section)
            if source and isinstance(spec, Mapping) and spec.get("type") == source.get("type"):
                args = spec.get("args", {})
                names, known = args.get("classes"), settled.get("classes")
                if names and known:
                    require_same_classes(names, f"{section}.args.classes", known, "the checkpoint")
                given = {name: value for name, value in args.items() if value is not None}
                merged[section] = {**spec, "args": {**args, **settled, **given}}
        counts = next(
            (item["class_counts"] for item in variants.nested_objects(saved.get("loss")) if item.get("class_counts")),
            None,
        )
        for item in variants.nested_objects(merged.get("loss")):
            if isinstance(item.get("weight"), str) and item.get("class_counts") is None and counts is not None:
                item["class_counts"] = list(counts)
    if "arch" in saved:  # the weights of the checkpoint fit no other network
        merged["arch"] = copy.deepcopy(saved["arch"])
    from_file = {key: section for key, section in merged.items() if key == "arch" or key not in (asked or {})}
    return merged | configuration.narrowed(from_file, asked=asked)


def check_split(config: Mapping[str, Any], split: str) -> None:
    """Refuse a config that is faulty, or that has no data for a split; training data is not needed.

    Raises:
        ConfigError: Every fault with its JSON path.
    """
    configuration.refuse_markers(config)
    section = loader_section(config, split)
    if section is None:
        others = [name for name in SPLIT_SECTIONS if name != split and loader_section(config, name)]
        raise ConfigError(
            f"--split {split}: the config has no data for it, only for {' and '.join(others) or 'none'}. A test needs "
            f"a loader. Add {SPLIT_SECTIONS[split]}, or choose another --split."
        )
    if split == "valid" and is_merged(config):
        raise ConfigError(
            f"--split valid: the run was trained on it (trainer.train_on {MERGED}). Its results would be those of "
            "training data. Write --split test, or train for a part of that."
        )
    # The rules of a config ask for training data, which a test does not need: its data is checked twice instead.
    has_training_data = loader_section(config, "train") is not None
    configuration.validate(config if has_training_data else {**config, "train_loader": config[section]}, registry())


def collect_worst(
    problem: str, count: int, classes: list[str], palette: "Palette", ignore_index: int | None
) -> "WorstCases":
    """Return an empty collection of the worst samples of a data set."""
    from logger.test_report.worst_cases import WorstClassified, WorstSegmented
    from models.metrics.confusion import MeanIoU

    def mean_iou(logits: "Tensor", target: "Tensor") -> float:
        metric = MeanIoU(len(classes), ignore_index)
        metric.update(logits[None], target[None].to(logits.device))
        return metric.compute()["miou"]

    if problem == "classification":
        return WorstClassified(count, classes, ignore_index)
    return WorstSegmented(count, palette, ignore_index, mean_iou)


def results_per_class(
    counts: "Tensor", classes: list[str], problem: str = "segmentation", ignore_index: int | None = None
) -> dict[str, dict[str, float]]:
    """Return the columns of the report's table for each class that is not ignored.

    Args:
        counts: (K, K) int64, the confusion matrix; rows are the truth.
        classes: Names of the classes.
        problem: `segmentation` or `classification`.
        ignore_index: The label that was not counted.
    """
    from models.metrics.confusion import class_measures, ignored_class

    measures, ignored = class_measures(counts), ignored_class(ignore_index, len(classes))
    columns = {name: measures[name] for name in ("iou", "precision", "recall", "f1")}
    if problem == "classification":
        del columns["iou"]
        columns["support"] = counts.sum(dim=1)
    else:
        columns["pixel_share"] = counts.sum(dim=1).double() / counts.sum()
    rows = enumerate(zip(classes, *(values.tolist() for values in columns.values()), strict=True))
    return {label: dict(zip(columns, values, strict=True)) for index, (label, *values) in rows if index != ignored}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = argparse.ArgumentParser(description="Evaluate a checkpoint on any data of its config.")
    options.add_argument("overrides", nargs="*", metavar="path=value", help="change any value of the config")
    network = options.add_mutually_exclusive_group(required=True)
    network.add_argument("--resume", metavar="FILE|FOLDER|best|last", help="checkpoint or run folder")
    network.add_argument("--model", metavar="FILE", help=argparse.SUPPRESS)  # of inference.py: answered with the reason
    options.add_argument("-c", "--config", metavar="FILE", help="other data, loss or metrics than the checkpoint's")
    options.add_argument("--split", choices=tuple(SPLIT_SECTIONS), default="test", help="the data to evaluate on")
    options.add_argument("--json", type=Path, metavar="FILE", help="also write the result to this file")
    options.add_argument("--output", type=Path, metavar="FOLDER", help="for images; default: next to the checkpoint")
    options.add_argument(
        "--export-predictions", type=Path, metavar="FOLDER", help="write masks in the ids of the data set, and a .zip"
    )
    options.add_argument("--worst", type=cli.positive_int, default=8, metavar="K", help="number of worst cases to draw")
    cli.add_view_arguments(options)
    cli.add_run_arguments(options)
    return options


def main(arguments: argparse.Namespace) -> None:
    """Run the command line."""
    from data_loader.originals import named_files
    from logger.test_report.report import record_in_run, report_text, write_result
    from models.export.files import refuse_exported
    from models.inference.views import Views, require_masks
    from trainer.checkpoints.resume import EARLIER_RUN, RECORDS, differences_from_run, find_checkpoint

    close_logging = setup_logging(None)
    try:
        refuse_exported(arguments.model or arguments.resume)
        configuration.load_plugins(arguments.plugin)
        file, overrides, split = arguments.config, arguments.overrides, arguments.split
        asked = configuration.load_config(file, overrides) if file is not None else None
        path, content = find_checkpoint(arguments.resume, asked)
        config = for_evaluation(content.get("config"), asked)
        for override in overrides:
            apply_override(config, override)
        config = {key: value for key, value in config.items() if value is not None}
        folder = arguments.output or path.parent / "pictures" / split
        originals = Originals([path, *(Path(each) for each in (file, *arguments.plugin) if each), *named_files(config)])
        require_image_folder(folder, "--output", originals)
        if arguments.json:
            require_output(arguments.json, "--json", TEST_RESULT, originals)

        view_options, section = cli.views_of(arguments), loader_section(config, split)
        if arguments.window is not None and section is not None:
            require_masks(["--window"], variants.stated_task(config, section, registry()))
            view_options |= variants.window_options(config, section, arguments.window, registry())
        views = Views(**view_options)
        # Only results on the data that the run was configured with belong into its folder.
        is_own = asked is None or (arguments.resume in EARLIER_RUN and not differences_from_run(path.parent, asked))
        is_own_data = is_own and not overrides and views.is_plain
        result = evaluate_checkpoint(
            path,
            {**content, "config": config},
            split,
            devices=arguments.devices,
            images=folder,
            worst=arguments.worst,
            views=views,
            is_stored=is_own_data and (path.parent / RECORDS[0]).is_file(),
            predictions=arguments.export_predictions,
        )
        if arguments.json:
            write_result(arguments.json, result)
        if is_own_data and split == "test" and result["metrics"]:
            record_in_run(path.parent, result)
        write_out(report_text(result))
    finally:
        close_logging()


if __name__ == "__main__":
    sys.exit(cli.run_command(main, parser()))
