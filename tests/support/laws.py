"""Laws about how samples are divided, and about resuming, for one training of a grid: a cell.

A cell is a tiny training with one loss, group of metrics, norm, schedule and number of processes. The laws are those
that the docs claim: docs/losses.md (means over several batches), docs/training.md (steps) and docs/resume.md.
"""

import copy
import datetime
import io
import itertools
import json
import math
import os
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from base import BaseTrainer, Callback
from base.base_trainer import StopRequest
from base.callback import StepReport
from build import build_loader, build_training
from config import load_plugins
from train import check_config
from trainer.checkpoints.resume import Start, restore
from trainer.checkpoints.saving import pack
from trainer.runtime.devices import ALONE, World, joined_world
from trainer.trainer import Trainer
from utils.errors import Interrupted

load_plugins([Path(__file__).with_name("law_net.py")])
EPOCHS, BATCH_SIZE = 3, 6  # of 11 samples, two steps an epoch
KILLED_AFTER = 3  # steps: inside the second epoch
WEIGHTS = {"weight": [0.3, 3.0, 1.0]}


def _spec(name: str, **args: Any) -> dict[str, Any]:
    return {"type": name, "args": args}


LOSSES: dict[str, Any] = {
    "ce": "ce_loss",
    "ce, weighted": _spec("ce_loss", **WEIGHTS, label_smoothing=0.1),
    "ce, balanced": _spec("ce_loss", weight="balanced"),
    "ohem": _spec("ohem_loss", min_kept=20),
    "focal": _spec("focal_loss", weight="bounded"),
    "dice": "dice_loss",
    "jaccard": _spec("jaccard_loss", exclude_background=True),
    "tversky, count": _spec("tversky_loss", absent="count"),
    "lovasz": "lovasz_loss",
    "lovasz of the batch": _spec("lovasz_loss", per_image=False),
    "boundary": "boundary_loss",
    "sum": [_spec("ce_loss", **WEIGHTS), {**_spec("dice_loss", exclude_background=True), "weight": 0.5}, "nll_loss"],
    "bce": _spec("bce_loss", weight=[1.0, 4.0]),
    "focal, sigmoid": "focal_loss_with_sigmoid",
    "dice, sigmoid": "dice_loss_with_sigmoid",
    "jaccard, sigmoid": _spec("jaccard_loss_with_sigmoid", absent="count"),
    "tversky, sigmoid": "tversky_loss_with_sigmoid",
    "lovasz, sigmoid": "lovasz_loss_with_sigmoid",
    "torch": _spec("torch.nn.CrossEntropyLoss", label_smoothing=0.1),
}
OF_A_BATCH = {"ohem", "lovasz of the batch"}  # statistics of a batch: docs/losses.md
ONE_CHANNEL = {"bce", *(name for name in LOSSES if name.endswith("sigmoid"))}
METRICS: dict[str, list[Any]] = {
    "iou": ["miou", "miou_without_background", "class_iou", "fw_iou", "accuracy", "mean_accuracy"],
    "f1": [_spec("f1", exclude_background=True), "dice", "macro_f1", "precision", "recall", "balanced_accuracy"],
    "others": [_spec("boundary_iou", distance=0.1), _spec("top_k_accuracy", k=1), _spec("top_k_acc", k=2), "miou"],
}
NORMS = ("none", "batch", "group", "instance")
SCHEDULES: dict[str, Any] = {
    "none": None,
    "poly": "poly",
    "cosine": "CosineAnnealingLR",
    "one cycle": _spec("OneCycleLR", max_lr=0.1),
    "chain": [
        {"type": "ExponentialLR", "args": {"gamma": 0.8}, "moves": 1, "warmup": 2, "interval": "step"},
        {"type": "CosineAnnealingLR"},
    ],
    "plateau": _spec("ReduceLROnPlateau", patience=0, threshold=0.5),
}
PROCESSES = (1, 2)


class Cell(NamedTuple):
    """A training of the grid, by the names of its parts."""

    loss: str
    metrics: str
    norm: str
    schedule: str
    processes: int

    def __str__(self) -> str:
        return "/".join(map(str, self))


GRID: tuple[tuple[Any, ...], ...] = (tuple(LOSSES), tuple(METRICS), NORMS, tuple(SCHEDULES), PROCESSES)


def all_cells() -> list[Cell]:
    """Return every cell of the grid, such that neighbours differ in the number of processes alone."""
    return [Cell(*values) for values in itertools.product(*GRID)]


def covering_cells() -> list[Cell]:
    """Return few cells among which each pair of values of two parts occurs."""
    places = list(itertools.combinations(range(len(GRID)), 2))
    left = {(a, x, b, y): None for a, b in places for x in GRID[a] for y in GRID[b]}
    cells: list[Cell] = []
    chance = random.Random(0)
    while left:
        a, x, b, y = next(iter(left))
        row = {a: x, b: y}
        for place in (each for each in range(len(GRID)) if each not in row):
            values = chance.sample(GRID[place], len(GRID[place]))  # among equals another one each time
            gains = {
                value: sum(((p, row[p], place, value) if p < place else (place, value, p, row[p])) in left for p in row)
                for value in values
            }
            # Two processes cost four times as much.
            row[place] = max(values, key=lambda value, gains=gains: gains[value] - 1.5 * (value == PROCESSES[1]))
        cells.append(Cell(*(row[place] for place in range(len(GRID)))))
        for a, b in places:
            left.pop((a, row[a], b, row[b]), None)
    return cells


def config_of(cell: Cell) -> dict[str, Any]:
    """Return the config of a cell, a step of which is one batch."""
    is_binary = cell.loss in ONE_CHANNEL
    classes = 2 if is_binary else 3
    arguments = {"classes": classes, "batch_size": BATCH_SIZE}
    return {
        "name": "laws",
        "n_gpu": 0,
        "arch": {"type": "law_net.LawNet", "args": {"norm": cell.norm, **({"num_classes": 1} if is_binary else {})}},
        **{f"{part}_loader": _spec("law_net.LawLoader", **arguments) for part in ("train", "valid")},
        "optimizer": _spec("SGD", lr=0.05, momentum=0.9),
        "loss": LOSSES[cell.loss],
        "metrics": METRICS[cell.metrics],
        **({"lr_scheduler": SCHEDULES[cell.schedule]} if SCHEDULES[cell.schedule] else {}),
        "trainer": {"epochs": EPOCHS, "monitor": "min val_loss", "precision": "fp32"},
    }


class Remember(Callback):
    """Packs the state of a run after a step, and asks for a stop in the first validation if that is wanted."""

    def __init__(self, *, after_step: int | None = None, stops: bool = False) -> None:
        self.after_step, self.stops, self.content = after_step, stops, b""

    def on_step_end(self, trainer: BaseTrainer, report: StepReport) -> None:
        """Pack the state."""
        if trainer.global_step == self.after_step:
            self.content = packed(trainer)

    def on_validation_batch(self, trainer: BaseTrainer, inputs: Tensor, target: Tensor, logits: Tensor) -> None:
        """Ask for a stop."""
        if self.stops:
            trainer.stop_request = StopRequest.from_signal(15)

    def on_interrupt(self, trainer: BaseTrainer) -> None:
        """Pack the state."""
        self.content = packed(trainer)


def packed(trainer: BaseTrainer) -> bytes:
    """Return the content of a checkpoint of a trainer; a collective call."""
    file = io.BytesIO()
    torch.save(pack(trainer, {"name": "laws"}), file)
    return file.getvalue()


def unpacked(content: bytes) -> dict[str, Any]:
    """Return the content of a checkpoint."""
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    return state


def trainer_of(config: Mapping[str, Any], world: World, content: bytes = b"", *, accumulate: int = 1) -> Trainer:
    """Return the trainer of a config, in a saved state, with each step divided into this many batches."""
    config = copy.deepcopy(dict(config))
    config["trainer"]["accumulate"] = accumulate
    config["train_loader"]["args"]["batch_size"] //= accumulate
    parts = build_training(config, world)
    if content:
        restore(parts.trainer, Start(config, state=unpacked(content)))
    assert isinstance(parts.trainer, Trainer)
    return parts.trainer


@dataclass
class Outcome:
    """The result of a training.

    Attributes:
        history: Rows of the epochs.
        weights: Weights, running statistics and the optimizer's state, by name.
        content: The checkpoint of its end.
    """

    history: list[dict[str, float]]
    weights: dict[str, Tensor]
    content: bytes = field(repr=False)


def outcome_of(trainer: BaseTrainer, *callbacks: Callback) -> Outcome:
    """Train to the end; a collective call."""
    trainer.callbacks = list(callbacks)
    history = trainer.fit().history
    content = packed(trainer)
    state = unpacked(content)
    weights = {**state["state_dict"]}
    for number, values in state["optimizer"]["state"].items():
        weights |= {f"{name} of {number}": value for name, value in values.items() if isinstance(value, Tensor)}
    return Outcome(history, weights, content)


def differences(found: Outcome, expected: Outcome, *, without: Sequence[str] = (), exact: bool = False) -> str:
    """Return the first difference of two results, empty if they are the same, or close to each other."""
    for row, other in zip(found.history, expected.history, strict=True):
        for name, value in other.items():
            if name in without or (math.isnan(value) and math.isnan(row[name])):
                continue
            if not (row[name] == value if exact else math.isclose(row[name], value, rel_tol=2e-4, abs_tol=1e-6)):
                return f"{name} of epoch {other['epoch']:g} is {row[name]:.9g}, not {value:.9g}"
    for name, value in expected.weights.items():
        other_value = found.weights[name]
        if not (torch.equal(other_value, value) if exact else torch.allclose(other_value, value, 1e-3, 1e-5)):
            return f"{name} differs by {(other_value - value).abs().max():.3g}"
    return ""


def broken_laws(cell: Cell, world: World = ALONE) -> list[str]:
    """Return the laws that a cell breaks, with what differs; a collective call of its processes."""
    config = config_of(cell)
    check_config(config)
    remember = Remember(after_step=KILLED_AFTER)
    straight = outcome_of(trainer_of(config, world), remember)
    broken = broken_by_resuming(config, world, straight, remember.content)
    # docs/training.md: batch norms see the batches of one process, one by one.
    if cell.loss not in OF_A_BATCH and cell.norm != "batch":
        reference = outcome_of(trainer_of(config, ALONE)) if world.size > 1 and world.is_main else straight
        named = {"two processes": straight}
        if not (
            cell.loss == "torch" and world.size > 1
        ):  # NaN if no label of a batch in a process counts: docs/losses.md
            named["two batches of 3 in a step"] = outcome_of(trainer_of(config, world, accumulate=2))
        broken += [f"{law}: {found}" for law, each in named.items() if (found := differences(each, reference))]
    return broken + (broken_by_validating(cell, config, straight) if world.is_main else [])


def broken_by_resuming(config: Mapping[str, Any], world: World, straight: Outcome, content: bytes) -> list[str]:
    """Return the laws that a run breaks which is killed after a state was saved, resumed, stopped and resumed again."""
    stop = Remember(stops=True)
    try:
        outcome_of(trainer_of(config, world, content), stop)
    except Interrupted:
        found = differences(outcome_of(trainer_of(config, world, stop.content)), straight, exact=True)
        return [f"killed, stopped in a validation, resumed: {found}"] if found else []
    return ["stopped in a validation: it continued"]


def broken_by_validating(cell: Cell, config: dict[str, Any], straight: Outcome) -> list[str]:
    """Return the laws that are broken by the saved state, validated by one process in batches of several sizes."""
    broken, trainer = [], trainer_of(config, ALONE, straight.content)
    for size in (1, 2, 5):
        config["valid_loader"]["args"]["batch_size"] = size
        trainer.valid_loader = build_loader(config, "valid")
        for name, value in trainer.validate_epoch().items():
            # torch's cross-entropy of a batch without any label that counts is NaN.
            if name == "loss" and (cell.loss in OF_A_BATCH or (size == 1 and cell.loss == "torch")):
                continue
            expected = straight.history[-1][f"val_{name}"]
            if not (math.isclose(value, expected, rel_tol=1e-6) or (math.isnan(value) and math.isnan(expected))):
                broken.append(f"validated in batches of {size}: {name} is {value:.9g}, not {expected:.9g}")
    return broken


def check_in_two_processes(cells: Iterable[Cell]) -> Iterator[tuple[Cell, list[str]]]:
    """Yield each cell of two processes with the laws that it breaks; forks, before torch has computed anything."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        os.environ |= {"RANK": str(int(child == 0)), "WORLD_SIZE": "2"}
        store = f"file://{folder}/store"
        limit = datetime.timedelta(seconds=60)
        dist.init_process_group("gloo", store, rank=int(child == 0), world_size=2, timeout=limit)
        with joined_world() as world:
            for cell in cells:
                broken = broken_laws(cell, world)
                if world.is_main:
                    yield cell, broken
        if child == 0:
            os._exit(0)
        if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            raise RuntimeError(f"The second process ended with {code}.")


if __name__ == "__main__":
    pairs = check_in_two_processes([cell for cell in covering_cells() if cell.processes == 2])
    Path(sys.argv[1]).write_text(json.dumps([[str(cell), broken] for cell, broken in pairs]))
