"""From plain options of the `trainer` section to what a trainer is built with."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from base.schedule import Interval, LearningRateSchedule
from trainer.distributed import World
from trainer.precision import Arithmetic, resolve_precision
from trainer.trainer import TrainingPlan
from utils.checkpoint_file import DISK_FULL
from utils.errors import ConfigError, TrainingError
from utils.seeding import derive_seed, seed_everything


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
    )


def schedule_interval(spec: Mapping[str, Any] | str) -> Interval:
    """Whether a scheduler moves per step or per epoch: as said, else per epoch, and per step for OneCycleLR."""
    said: Interval | None = None if isinstance(spec, str) else spec.get("interval")
    return said or ("step" if _type_of(spec).endswith("OneCycleLR") else "epoch")


def schedule_defaults(spec: Mapping[str, Any] | str, training_plan: TrainingPlan, loader_length: int) -> dict[str, Any]:
    """What a scheduler is told where its arguments leave it open: its moves in the whole run, the monitor's mode."""
    steps = training_plan.len_epoch or loader_length
    moves = training_plan.epochs * (steps if schedule_interval(spec) == "step" else 1)
    arguments = spec.get("args", {}) if isinstance(spec, Mapping) else {}
    is_plateau = _type_of(spec).endswith("ReduceLROnPlateau")
    mode = {"mode": training_plan.monitor.partition(" ")[0]} if is_plateau and training_plan.monitor != "off" else {}
    return {"T_max": moves} | ({} if "epochs" in arguments else {"total_steps": moves}) | mode


def _type_of(spec: Mapping[str, Any] | str) -> str:
    return spec if isinstance(spec, str) else str(spec["type"])


def make_schedule(scheduler: Any, spec: Mapping[str, Any] | str, training_plan: TrainingPlan) -> LearningRateSchedule:
    """The schedule around one of torch's schedulers.

    Raises:
        ConfigError: ReduceLROnPlateau looks for the contrary of the monitor.
    """
    mode, _, watched = training_plan.monitor.partition(" ")
    if isinstance(scheduler, ReduceLROnPlateau) and watched and scheduler.mode != mode:
        raise ConfigError(
            f'lr_scheduler.args.mode: "{scheduler.mode}" is the contrary of trainer.monitor, '
            f'"{training_plan.monitor}". Both judge the same result. Remove the mode.'
        )
    return LearningRateSchedule(scheduler, interval=schedule_interval(spec), watched=watched)


def parameters_to_train(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that the optimizer gets."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn memory or disk that ran out into an error that says what to do.

    Raises:
        TrainingError: In the place of torch's own error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
            raise TrainingError(
                f"Memory ran out in training ({text.splitlines()[0] if text else 'no more to be had'}). A step must "
                "fit into it. Lower batch_size (--bs) or the pictures' resize; earlier checkpoints are good."
            ) from error
        raise
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise TrainingError(
            f"The disk is full ({error}). A run writes its curves, records and checkpoints. Free some space and run "
            "the same command with --resume auto; earlier checkpoints are good."
        ) from error
