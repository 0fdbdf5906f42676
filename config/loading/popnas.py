"""A run of POPNASv3 (https://arxiv.org/abs/2212.06735) as a search of this project.

Every key acts, or one warning names it with the reason. Sections of this project may stand next to those of the run and
are laid over the sections that these become.
"""

import logging
from collections.abc import Mapping
from typing import Any

from config.checking.sections import TopLevel, check_section
from config.checking.splits import MERGED
from config.faults import Faults, show
from config.loading.popnas_data import loaders_of
from config.loading.popnas_sections import Dataset, Others, PopnasRun
from config.loading.popnas_texts import Inert, Tree, optimizer_of, options_of, read_operators, schedule_of
from utils.errors import ConfigError

logger = logging.getLogger(__name__)

RUN_SECTIONS = frozenset(PopnasRun.model_fields)
TELLING = RUN_SECTIONS - {"dataset", "others"}
"""Sections that no other dialect has."""

SEGMENTATION, SERIES = "image_segmentation", "time_series_classification"
METRICS = {"accuracy": "accuracy", "f1_score": "f1", "mean_iou": "miou"}
OBJECTIVES = {"time": "min training_time", "params": "min params", "inference_time": "min latency_ms"}
MEMBERS = (2, 20)
"""Fewest and most graph networks that predict together."""
FINAL_EPOCHS = 200
"""Of the winner: there, the best cells of a run are trained so long by the next program."""

ARCHITECTURE = {
    "filters": "filters",
    "motifs": "motifs",
    "normal_cells_per_motif": "normal_cells",
    "block_join_operator": "block_join",
    "lookback_reshape": "lookback_reshape",
    "concat_only_unused_blocks": "concat_only_unused",
    "residual_cells": "residual",
    "se_cell_output": "se_output",
    "multi_output": "multi_output",
    "activation_function": "activation",
}
REGULARIZATION = {"drop_path": "drop_path", "softmax_dropout": "dropout"}
STRATEGY = {
    "search_space.blocks": "blocks",
    "search_space.lookback_depth": "lookbacks",
    "search_space.operators": "operators",
    "search_strategy.max_children": "max_children",
    "search_strategy.max_exploration_children": "max_exploration",
    "others.pnas_mode": "pnas_mode",
    "others.accuracy_predictor_ensemble_units": "members",
}
_PLACES = {  # where the keys of a section are now, for those who would override them
    "search_space": "search.strategy.args",
    "search_strategy": "search.strategy.args and search.objectives",
    "training_hyperparameters": "trainer, optimizer, lr_scheduler, loss and arch.args",
    "architecture_hyperparameters": "arch.args",
    "dataset": "the sections of the loaders",
    "others": "search.strategy.args and trainer",
}


def is_run(content: Mapping[str, Any]) -> bool:
    """Return whether the content of a file is a run of POPNASv3."""
    return not TELLING.isdisjoint(content)


def translate_run(content: Mapping[str, Any], file: str) -> tuple[Tree, Tree]:
    """Return a run as a configuration of a search, and warn once of the keys that do not act.

    The second part are sections of this project that stood next to those of the run, to be laid over it.

    Args:
        content: The run, and sections of this project that change its translation.
        file: Named in messages.

    Raises:
        ConfigError: A key is unknown or missing, or a value wrong: all of them.
    """
    ours = {key: value for key, value in content.items() if key in TopLevel.model_fields or key in ("$schema", "$defs")}
    faults = Faults()
    theirs = {key: value for key, value in content.items() if key not in ours}
    run = check_section(PopnasRun, theirs, "", faults)
    inert: Inert = {}
    translated = {} if run is None else _translated(run, faults, inert)
    if faults:
        raise Faults(f"{file}: {fault}" for fault in faults).error()
    reasons = "".join(f" {key}: {reason}." for key, reason in inert.items())
    keys = f" Keys that do not act, or act otherwise:{reasons}" if reasons else ""
    logger.warning(f"{file}: a run of POPNASv3 is read as a search, see docs/popnas_runs.md.{keys}")
    return translated, ours


def refuse_run_keys(config: Mapping[str, Any], override: str) -> None:
    """Raise if an override names a section of a run, which is translated before.

    Raises:
        ConfigError: It does; the message says where its keys are.
    """
    for section in RUN_SECTIONS & config.keys():
        raise ConfigError(
            f"override {show(override)}: {section} is a section of POPNASv3, and overrides change what it is read as. "
            f"Its keys are now in {_PLACES[section]}; docs/popnas_runs.md has the name of each."
        )


def _translated(run: PopnasRun, faults: Faults, inert: Inert) -> Tree:
    data, training, network = run.dataset, run.training_hyperparameters, run.architecture_hyperparameters
    is_segmentation, dims = data.type == SEGMENTATION, 1 if data.type == SERIES else 2
    count = {} if data.classes_count is None else {"num_classes": data.classes_count}
    args = options_of(network, ARCHITECTURE) | options_of(training, REGULARIZATION)
    if args.get("activation") == "silu":  # the name that Keras gave it later
        args["activation"] = "swish"
    loss: Tree = {"label_smoothing": training.label_smoothing} if training.label_smoothing else {}
    loss |= {"weight": "balanced"} if data.balance_class_losses else {}
    score = METRICS[run.search_strategy.score_metric]
    metrics = ["miou", "class_iou", "accuracy"] if is_segmentation else ["accuracy", "f1"]
    trainer = {"epochs": training.epochs, "monitor": f"max val_{score}"}
    if "use_mixed_precision" in run.others.model_fields_set:
        trainer["precision"] = "auto" if run.others.use_mixed_precision else "fp32"
    config: Tree = {
        "arch": {
            "type": "CellNetSegmenter" if is_segmentation else "CellNet",
            "args": {"stem": "none", **args, **count},  # cells read the input itself, there
        },
        **loaders_of(data, faults, inert),
        "optimizer": optimizer_of(training, faults, inert),
        "loss": {"type": "ce_loss", "args": loss} if loss else "ce_loss",
        "metrics": metrics if score in metrics else [*metrics, score],
        "trainer": trainer,
        "search": _search(run, dims, score, faults, inert),
    }
    if schedule := schedule_of(training, faults, inert):
        config["lr_scheduler"] = schedule
    if run.others.train_strategy in ("CPU", "GPU"):
        config["n_gpu"] = int(run.others.train_strategy == "GPU")
    _note_machine(run.others, data, inert)
    return config


def _search(run: PopnasRun, dims: int, score: str, faults: Faults, inert: Inert) -> Tree:
    """Return the `search` section."""
    args: Tree = {} if run.others.pnas_mode else {"max_best": 0}  # there, the front alone is trained
    for path, name in STRATEGY.items():
        section, _, key = path.partition(".")
        args |= options_of(getattr(run, section), {key: name})
    if args.get("pnas_mode") and args.pop("max_exploration", 0):
        inert["search_strategy.max_exploration_children"] = "nothing is explored in pnas_mode"
    if "members" in args:
        args["members"] = _members(args["members"], inert)
    if args.get("operators") is not None:
        args["operators"] = read_operators(args["operators"], dims, faults)
    further = run.search_strategy.additional_pareto_objectives
    if not further and not run.others.pnas_mode:
        faults.add(
            "search_strategy.additional_pareto_objectives",
            f"[], and a front needs a second objective. Name one of {', '.join(OBJECTIVES)}, or set others.pnas_mode.",
        )
    folds: Tree = {"folds": run.dataset.folds} if run.dataset.folds > 1 else {}
    return {
        "strategy": {"type": "POPNAS", "args": args},
        "objectives": [f"max val_{score}", *dict.fromkeys(OBJECTIVES[each] for each in further)],
        **folds,
        "retrain": {"top": 1, "epochs": FINAL_EPOCHS, "seeds": 1, "train_on": MERGED},
    }


def _members(units: int, inert: Inert) -> int:
    """Return as many graph networks as are asked for and possible."""
    least, most = MEMBERS
    members = min(max(units, least), most)
    if members != units:
        inert["others.accuracy_predictor_ensemble_units"] = f"{units} is read as {members}, from {least} to {most}"
    return members


def _note_machine(others: Others, data: Dataset, inert: Inert) -> None:
    """Note the keys about the machine that nothing follows from."""
    if others.predictions_batch_size is not None:
        inert["others.predictions_batch_size"] = "predictions are made in batches of a size that fits"
    if others.enable_XLA_compilation:
        inert["others.enable_XLA_compilation"] = "XLA is not PyTorch's; trainer.compile compiles networks"
    if others.train_strategy == "TPU":
        inert["others.train_strategy"] = "TPUs are not supported; trained on a GPU if there is one"
    if others.train_strategy == "multi-GPU":
        devices = '{"type": "processes", "args": {"workers": 2, "devices": ["0", "1"]}}'
        inert["others.train_strategy"] = f"name the GPUs, each of which then trains cells: search.executor = {devices}"
    if "save_children_weights" in others.model_fields_set:
        inert["others.save_children_weights"] = (
            "each training has checkpoints, from which it is continued; search.budget.disk_mb limits them"
        )
    if others.save_children_models:
        inert["others.save_children_models"] = "export.py writes the ONNX file of any checkpoint"
    if data.inference_batch_size not in (None, 1):
        inert["dataset.inference_batch_size"] = "the latency is that of a single input"
