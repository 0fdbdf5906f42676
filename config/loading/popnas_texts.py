"""The small languages in a run of POPNASv3: operators, optimizers and schedules as texts."""

import math
import re
from collections.abc import Mapping
from typing import Any

from config.checking.sections import Strict
from config.faults import Faults, show, unknown_name
from config.loading.popnas_sections import OptimizerTexts, TrainingHyperparameters
from utils.architecture.cells.operators import read_operator
from utils.errors import ConfigError

Tree = dict[str, Any]
Inert = dict[str, str]
"""Old key -> why it does not act, or how it acts otherwise."""

OPTIMIZER = "training_hyperparameters.optimizer"
_OPTIMIZERS: Mapping[str, tuple[str, Mapping[str, float]]] = {  # with the terms of each and their defaults
    "adamw": ("AdamW", {}),
    "adam": ("Adam", {}),
    "sgdw": ("SGDW", {"momentum": 0.0}),
    "sgd": ("SGD", {"momentum": 0.0}),
    "radam": ("RAdam", {"alpha": 0.0}),
}
_SCHEDULES: Mapping[str, Mapping[str, float]] = {
    "cdr": {"period": 3.0, "t_mul": 2.0, "m_mul": 1.0, "alpha": 0.0},
    "cd": {"alpha": 0.0},
}
_RANGES = {"momentum": (0, 0.9999), "alpha": (0, 1), "period": (1, 10_000), "t_mul": (1, 100), "m_mul": (0, 100)}
_PER_STEP = ("AdamW", "SGDW")  # there, their decay is not multiplied by the learning rate
_OF_NORM = ("Adam", "SGD")  # there, their decay is the factor of a squared norm in the loss
_SPELLINGS = (
    (r"(\S+?):(\d+)(?:dr)? conv", r"\1 conv:\2dr"),
    (r"(\S+?):(\d+)z? zconv", r"\1 zconv:\2"),
    (r"(\d+)k-(\d+)h-(\d+)b cvt", r"\1-\2-\3 cvt"),
    (r"(\d+)k-(\d+)h scvt", r"\1-\2 scvt"),
    (r"(\d+)r SE", r"\1 SE"),
)
"""Operators as runs spell them, and as `read_operator` reads them."""


def read_operators(texts: list[str], dims: int, faults: Faults) -> list[str]:
    """Return operators in our spelling; those that are none are added to the faults."""
    found = []
    for number, text in enumerate(texts):
        spelled = " ".join(text.split())
        for pattern, replacement in _SPELLINGS:
            spelled = re.sub(f"^{pattern}$", replacement, spelled)
        if dims == 1:  # a square of one dimension
            spelled = re.sub(r"(\d+)x\1(?!\d)", r"\1", spelled)
        try:
            found.append(read_operator(spelled, dims).text)
        except ConfigError:
            with faults.collecting():  # the message shows the text of the file
                read_operator(text, dims, f"search_space.operators.{number}")
    return found


def optimizer_of(training: TrainingHyperparameters, faults: Faults, inert: Inert) -> Tree:
    """Return the `optimizer` section.

    The decay of AdamW and SGDW is, there, a fraction per step that follows the schedule; here it is multiplied by the
    learning rate, so it is divided by the rate at the beginning. That of RAdam is a fraction times the learning rate in
    both. That of Adam and SGD is, there, the factor of the squared norm, whose gradient is twice the weight; here it is
    the factor of the weight in the gradient, so it is doubled.
    """
    name, terms = _terms(training.optimizer.type, "type", {key: each for key, (_, each) in _OPTIMIZERS.items()}, faults)
    kind = _OPTIMIZERS[name][0]
    decay = training.weight_decay or 0.0
    if kind in _PER_STEP:
        decay /= training.learning_rate
    elif kind in _OF_NORM:
        decay *= 2
    args: Tree = {"lr": training.learning_rate, "weight_decay": float(f"{decay:.6g}")}
    if kind == "RAdam":
        args["decoupled_weight_decay"] = True
    if terms.pop("alpha", 0.0):
        inert[f"{OPTIMIZER}.type"] = "the alpha of radam is left out: the lowest learning rate is that of the scheduler"
    section: Tree = {"type": kind, "args": args | terms}
    if training.optimizer.lookahead is not None:
        section["lookahead"] = training.optimizer.lookahead.model_dump()
    return section


def schedule_of(training: TrainingHyperparameters, faults: Faults, inert: Inert) -> Tree | None:
    """Return the `lr_scheduler` section; None if the learning rate does not change."""
    texts: OptimizerTexts = training.optimizer
    warmup = {"warmup": texts.warmup} if texts.warmup else {}
    if texts.scheduler is None:
        # A constant that warms up: factor 1 for one move.
        constant = {"type": "ConstantLR", "args": {"factor": 1.0, "total_iters": 1}, "interval": "epoch"}
        return constant | warmup if warmup else None
    name, terms = _terms(texts.scheduler, "scheduler", _SCHEDULES, faults)
    lowest = {"eta_min": float(f"{terms['alpha'] * training.learning_rate:.6g}")}
    if name == "cd":
        return {"type": "CosineAnnealingLR", "args": lowest, "interval": "epoch" if warmup else "step"} | warmup
    period, growth = round(terms["period"]), round(terms["t_mul"])
    path = f"{OPTIMIZER}.scheduler"
    reasons = [
        f"the {key} {value:g} is read as {whole}, for cycles are whole epochs"
        for key, value, whole in (("period", terms["period"], period), ("t_mul", terms["t_mul"], growth))
        if value != whole
    ]
    if terms["m_mul"] != 1.0:
        reasons.append(f"the m_mul {terms['m_mul']:g} is left out: every cycle begins with the full learning rate")
    if reasons:
        inert[path] = "; ".join(reasons)
    args = {"T_0": period, "T_mult": growth, **lowest}
    return {"type": "CosineAnnealingWarmRestarts", "args": args, "interval": "epoch"} | warmup


def _terms(
    text: str, key: str, known: Mapping[str, Mapping[str, float]], faults: Faults
) -> tuple[str, dict[str, float]]:
    """Read `name: 0.9 momentum, 0 alpha`; everything wrong in it is added to the faults.

    Returns:
        The name, in small letters, and all its terms, those that are not in the text by default.
    """
    name, _, rest = text.partition(":")
    name, path = name.strip().lower(), f"{OPTIMIZER}.{key}"
    if name not in known:
        faults.add(path, unknown_name("name", text, known))
        name = next(iter(known))
        return name, dict(known[name])
    terms = dict(known[name])
    for part in filter(None, (each.strip() for each in rest.split(","))):
        match = re.fullmatch(r"([-+.\deE]+)\s+(\w+)", part)
        try:
            number = float(match.group(1)) if match else None
        except ValueError:
            number = None
        if match is None or number is None or not 0 <= number < math.inf:
            example = ", ".join(f"{value:g} {term}" for term, value in known[name].items())
            repair = f'Write "{name}: {example}".' if example else f'Write "{name}".'
            faults.add(path, f"{show(part)} must be a number from 0 and the name of a term. {repair}")
        elif match.group(2) not in terms:
            faults.add(path, unknown_name("term", match.group(2), terms))
        elif not _RANGES[match.group(2)][0] <= number <= _RANGES[match.group(2)][1]:
            least, most = _RANGES[match.group(2)]
            faults.add(path, f"{show(part)}: {match.group(2)} must be from {least:g} to {most:g}. Set it so.")
        else:
            terms[match.group(2)] = number
    return name, terms


def options_of(section: Strict, names: Mapping[str, str]) -> Tree:
    """Return those values of a section that its file states, under our names."""
    return {new: getattr(section, old) for old, new in names.items() if old in section.model_fields_set}
