"""From plain options of the `trainer` section to what a trainer is built with."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from base.schedule import LearningRateSchedule
from trainer.activations import recompute_activations
from trainer.cpu_convolutions import replace_convolutions
from trainer.distributed import World, synchronise_norms
from trainer.freezing import Freezing
from trainer.parameter_groups import Group, Rule, parameter_groups
from trainer.plan import TrainingPlan
from trainer.precision import Arithmetic, resolve_precision
from trainer.schedules import build_schedule
from trainer.update import Clipping
from utils.checkpoint_file import DISK_FULL
from utils.errors import EspalierError, OutOfMemory, TrainingError
from utils.keyed import derive_seed
from utils.memory import is_out_of_memory
from utils.seeding import seed_everything


def arithmetic(options: Mapping[str, Any], device: torch.device) -> Arithmetic:
    """Device, precision and memory format of a run."""
    memory_format = torch.channels_last if options["channels_last"] else torch.contiguous_format
    return Arithmetic(device, resolve_precision(options["precision"], device), memory_format)


def seed_run(seed: int, device: torch.device) -> None:
    """Seed what is drawn while building, and make a GPU repeat itself to the bit."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
    seed_everything(seed)


def seed_loop(seed: int, world: World) -> None:
    """Seed what is drawn in the loop (dropout), differently in each process."""
    seed_everything(derive_seed(seed, "loop", world.rank))


def plan(
    options: Mapping[str, Any], run_arithmetic: Arithmetic, world: World, max_validation_batches: int | None = None
) -> TrainingPlan:
    """How long, what to watch, and where."""
    return TrainingPlan(
        epochs=options["epochs"],
        len_epoch=options["len_epoch"],
        monitor=options["monitor"],
        early_stop=options["early_stop"],
        max_validation_batches=max_validation_batches,
        arithmetic=run_arithmetic,
        world=world,
        accumulate=options["accumulate"],
        clipping=Clipping(options["clip_norm"], options["clip_value"]),
        ema_decay=options["ema"],
        freezing=Freezing(tuple(options["freeze"]), options["unfreeze_epoch"]),
    )


def optimizer_groups(model: nn.Module, section: Mapping[str, Any] | str) -> list[Group]:
    """The parameters that the optimizer gets, in groups as the `optimizer` section wants them.

    Raises:
        ConfigError: A rule names nothing.
    """
    spec: Mapping[str, Any] = {} if isinstance(section, str) else section
    if not any(name in spec for name in ("decay_norm_and_bias", "groups", "layer_decay")):
        return [{"params": list(model.parameters())}]
    return parameter_groups(
        model,
        spec.get("args", {}).get("lr"),
        decay_norm_and_bias=spec.get("decay_norm_and_bias", True),
        rules=[Rule(**group) for group in spec.get("groups", [])],
        layer_decay=spec.get("layer_decay"),
    )


def equip(model: nn.Module, options: Mapping[str, Any], world: World, run_arithmetic: Arithmetic) -> nn.Module:
    """Give a network what its training needs beside its layers; it is changed in place where that is possible.

    Raises:
        ConfigError: A name is no part of the network.
    """
    if run_arithmetic.device.type == "cpu":
        model = replace_convolutions(model, in_bf16=run_arithmetic.dtype is torch.bfloat16)
    if options["sync_batch_norm"] and world.size > 1:
        model = synchronise_norms(model)
    if options["checkpoint_activations"]:
        recompute_activations(model, options["checkpoint_activations"])
    if options["compile"]:
        model.compile()
    return model


def schedule(
    section: Any,
    optimizer: Optimizer,
    build: Callable[[str, Mapping[str, Any]], Any],
    run_plan: TrainingPlan,
    loader_length: int,
) -> LearningRateSchedule | None:
    """The schedule of the `lr_scheduler` section; None where there is none."""
    if not section:
        return None
    steps = run_plan.steps_per_epoch(loader_length)
    return build_schedule(
        section, optimizer, build, epochs=run_plan.epochs, steps_per_epoch=steps, monitor=run_plan.monitor
    )


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn memory or disk that ran out into an error that says what to do.

    Raises:
        OutOfMemory: In the place of the error of whichever library found it.
        TrainingError: The disk is full.
    """
    try:
        yield
    except EspalierError:
        raise
    except Exception as error:
        text = str(error)
        if is_out_of_memory(error):
            raise OutOfMemory(
                f"Memory ran out ({text.splitlines()[0] if text else 'no more to be had'}). The network and a step of "
                "its training must fit into it. Lower batch_size (--bs) or the pictures' resize; earlier checkpoints "
                "are good."
            ) from error
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise TrainingError(
                f"The disk is full ({error}). A run writes its curves, records and checkpoints. Free some space and "
                "run the same command with --resume auto; earlier checkpoints are good."
            ) from error
        raise
