"""From the `lr_scheduler` section to the learning-rate schedule: one scheduler, a warm-up before it, or a chain."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler, OneCycleLR, PolynomialLR, ReduceLROnPlateau, SequentialLR

from base.base_trainer import Interval, LearningRateSchedule
from utils.errors import ConfigError

Spec = Mapping[str, Any] | str
Build = Callable[[str, Mapping[str, Any]], LRScheduler]
WARMUP_START = 0.001  # share of the learning rate that a warm-up starts with
PER_STEP = ("OneCycleLR", "poly", "PolyLR")  # schedulers that move per step unless the config says otherwise
_ONE_CYCLE_RATES = ("lr", "initial_lr", "max_lr", "min_lr")


class PolyLR(PolynomialLR):
    """The learning rate falls as (1 - t / T)^power to zero (arXiv:1506.04579, section 3.3), step by step.

    Args:
        optimizer: The optimizer whose learning rate moves.
        total_iters: T; by default the moves of the whole run.
        power: 1 is a straight line.
    """

    def __init__(self, optimizer: Optimizer, total_iters: int, power: float = 0.9) -> None:
        super().__init__(optimizer, total_iters=total_iters, power=power)


def combine_schedulers(
    section: Spec | Sequence[Spec],
    optimizer: Optimizer,
    build: Build,
    *,
    epochs: int,
    steps_per_epoch: int,
    monitor: str = "off",
) -> LearningRateSchedule:
    """Build the schedulers of a run and combine them into its schedule.

    Args:
        section: The `lr_scheduler` section, valid: a class, or a list of classes of which all but the last state their
            number of `moves`.
        optimizer: The optimizer whose learning rate moves.
        build: Builds the scheduler at a JSON path, given values for the arguments that the config omits.
        epochs: Number of epochs.
        steps_per_epoch: Steps of the optimizer in an epoch.
        monitor: As `trainer.monitor`.

    Raises:
        ConfigError: The parts do not fit together, or not into the run.
    """
    if isinstance(section, Mapping | str):
        specs, paths = [section], ["lr_scheduler"]
    else:
        specs, paths = list(section), [f"lr_scheduler.{number}" for number in range(len(section))]
    parts: list[Mapping[str, Any]] = [{"type": spec} if isinstance(spec, str) else spec for spec in specs]
    interval = _interval(parts)
    total = epochs * (steps_per_epoch if interval == "step" else 1)
    warmup = parts[0].get("warmup") or 0
    lengths = [part.get("moves") or 0 for part in parts[:-1]]
    left = total - warmup - sum(lengths)  # the last part takes the rest of the run
    if left < 1:
        raise ConfigError(
            f"lr_scheduler: warm-up and chained parts take {total - left} of the run's {total} moves (one per "
            f"{interval}). Something must be left for the last part. Make them shorter or train for longer."
        )
    schedulers = [
        build(path, _default_arguments(part, moves, monitor))
        for path, part, moves in zip(paths, parts, [*lengths, left], strict=True)
    ]
    if warmup or len(schedulers) > 1:
        for each in schedulers:
            if isinstance(each, OneCycleLR | ReduceLROnPlateau):
                why = "it warms up by itself (pct_start)" if isinstance(each, OneCycleLR) else "its moves have no plan"
                raise ConfigError(
                    f"lr_scheduler: {type(each).__name__} cannot be part of a chain or follow a warm-up: {why}. Use it "
                    "alone, or another scheduler."
                )
        ends = [sum(lengths[: count + 1]) + warmup for count in range(len(lengths))]
        if warmup:
            schedulers.insert(0, LinearLR(optimizer, start_factor=WARMUP_START, total_iters=warmup))
            ends.insert(0, warmup)
        return LearningRateSchedule(SequentialLR(optimizer, schedulers, ends), interval=interval)

    scheduler = schedulers[0]
    if isinstance(scheduler, OneCycleLR):  # it has one `max_lr` for all groups: each gets its share of the cycle
        for group in optimizer.param_groups:
            for name in _ONE_CYCLE_RATES:
                group[name] = group[name] * group.get("lr_scale", 1.0)
    mode, _, watched = monitor.partition(" ")
    if isinstance(scheduler, ReduceLROnPlateau) and watched and scheduler.mode != mode:
        raise ConfigError(
            f'lr_scheduler.args.mode: "{scheduler.mode}" contradicts trainer.monitor, "{monitor}". Both follow '
            "the same result. Remove the mode."
        )
    return LearningRateSchedule(scheduler, interval=interval, watched=watched)


def _interval(parts: Sequence[Mapping[str, Any]]) -> Interval:
    """Return whether the schedule moves per step or per epoch: as stated, else per step for some classes."""
    stated: list[Interval] = [part["interval"] for part in parts if part.get("interval") is not None]
    if len(set(stated)) > 1:
        raise ConfigError(
            f"lr_scheduler: the parts of a chain say the intervals {' and '.join(stated)}. A chain has one. "
            "Say it once."
        )
    usual: Interval = "step" if parts[-1]["type"].rpartition(".")[2] in PER_STEP else "epoch"
    return stated[0] if stated else usual


def _default_arguments(part: Mapping[str, Any], moves: int, monitor: str) -> dict[str, Any]:
    """Return a scheduler's arguments that follow from the run: its number of moves, the mode of the monitor."""
    name = part["type"].rpartition(".")[2]
    # Only the arguments that the scheduler's signature has are passed on.
    defaults: dict[str, Any] = {"T_max": moves}
    if "epochs" not in (part.get("args") or {}):
        defaults["total_steps"] = moves
    if name in ("poly", "PolyLR", "PolynomialLR", "LinearLR"):
        defaults["total_iters"] = moves
    if name == "ReduceLROnPlateau" and monitor != "off":
        defaults["mode"] = monitor.partition(" ")[0]
    return defaults
