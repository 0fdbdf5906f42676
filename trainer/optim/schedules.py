"""From the `lr_scheduler` section to what moves the learning rate: one scheduler, a warm-up before it, or a chain."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler, OneCycleLR, PolynomialLR, ReduceLROnPlateau, SequentialLR

from base.base_trainer import Interval, LearningRateSchedule
from utils.errors import ConfigError

Spec = Mapping[str, Any] | str
Build = Callable[[str, Mapping[str, Any]], LRScheduler]
WARMUP_START = 0.001  # share of the learning rate that a warm-up begins with
PER_STEP = ("OneCycleLR", "poly", "PolyLR")
_ONE_CYCLE_RATES = ("lr", "initial_lr", "max_lr", "min_lr")


class PolyLR(PolynomialLR):
    """The learning rate falls as (1 - t / T)^power to zero (arXiv:1506.04579, section 3.3), step by step.

    Args:
        optimizer: Whose learning rate moves.
        total_iters: T, the moves of the whole run where not given.
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
    """Build the schedule of a run.

    Args:
        section: The `lr_scheduler` section, valid: a class, or a list of them of which all but the last say for how
            many `moves` they act.
        optimizer: Whose learning rate moves.
        build: Builds the scheduler at a JSON path, given what it is told where its arguments leave it open.
        epochs: Epochs in all.
        steps_per_epoch: Steps of the optimizer in an epoch.
        monitor: As `trainer.monitor`.

    Raises:
        ConfigError: The parts do not go together, or not into the run.
    """
    parts: list[Spec] = [section] if isinstance(section, Mapping | str) else list(section)
    paths = ["lr_scheduler"] if isinstance(section, Mapping | str) else [f"lr_scheduler.{n}" for n in range(len(parts))]
    interval = _interval(parts)
    total = epochs * (steps_per_epoch if interval == "step" else 1)
    warmup = _extra(parts[0], "warmup") or 0
    lengths = [_extra(part, "moves") or 0 for part in parts[:-1]]
    left = total - warmup - sum(lengths)
    if left < 1:
        raise ConfigError(
            f"lr_scheduler: warm-up and chained parts take {total - left} of the run's {total} moves (one per "
            f"{interval}). Something must be left for the last part. Make them shorter or train for longer."
        )
    schedulers = [
        build(path, _defaults(part, moves, monitor))
        for path, part, moves in zip(paths, parts, [*lengths, left], strict=True)
    ]
    if warmup or len(schedulers) > 1:
        _refuse_in_chains(schedulers)
        ends = [sum(lengths[: count + 1]) + warmup for count in range(len(lengths))]
        if warmup:
            schedulers.insert(0, LinearLR(optimizer, start_factor=WARMUP_START, total_iters=warmup))
            ends.insert(0, warmup)
        return LearningRateSchedule(SequentialLR(optimizer, schedulers, ends), interval=interval)
    _scale_one_cycle(schedulers[0], optimizer)
    return _alone(schedulers[0], interval, monitor)


def _alone(scheduler: LRScheduler, interval: Interval, monitor: str) -> LearningRateSchedule:
    mode, _, watched = monitor.partition(" ")
    if isinstance(scheduler, ReduceLROnPlateau) and watched and scheduler.mode != mode:
        raise ConfigError(
            f'lr_scheduler.args.mode: "{scheduler.mode}" is the contrary of trainer.monitor, "{monitor}". Both judge '
            "the same result. Remove the mode."
        )
    return LearningRateSchedule(scheduler, interval=interval, watched=watched)


def _type(spec: Spec) -> str:
    return spec if isinstance(spec, str) else str(spec["type"])


def _extra(spec: Spec, name: str) -> Any:
    return None if isinstance(spec, str) else spec.get(name)


def _interval(parts: Sequence[Spec]) -> Interval:
    """Whether the schedule moves per step or per epoch: as said, else per epoch, and per step for some classes."""
    said: list[Interval] = [interval for part in parts if (interval := _extra(part, "interval")) is not None]
    if len(set(said)) > 1:
        raise ConfigError(
            f"lr_scheduler: the parts of a chain say the intervals {' and '.join(said)}. A chain has one. Say it once."
        )
    usual: Interval = "step" if _type(parts[-1]).rpartition(".")[2] in PER_STEP else "epoch"
    return said[0] if said else usual


def _defaults(spec: Spec, moves: int, monitor: str) -> dict[str, Any]:
    """What a scheduler is told where its arguments leave it open: its moves, the mode of the monitor."""
    name = _type(spec).rpartition(".")[2]
    arguments = (_extra(spec, "args") or {}) if isinstance(spec, Mapping) else {}
    defaults: dict[str, Any] = {"T_max": moves} | ({} if "epochs" in arguments else {"total_steps": moves})
    if name in ("poly", "PolyLR", "PolynomialLR", "LinearLR"):
        defaults["total_iters"] = moves
    if name == "ReduceLROnPlateau" and monitor != "off":
        defaults["mode"] = monitor.partition(" ")[0]
    return defaults


def _refuse_in_chains(schedulers: Sequence[LRScheduler]) -> None:
    for scheduler in schedulers:
        if isinstance(scheduler, OneCycleLR | ReduceLROnPlateau):
            why = "it warms up by itself (pct_start)" if isinstance(scheduler, OneCycleLR) else "its moves have no plan"
            raise ConfigError(
                f"lr_scheduler: {type(scheduler).__name__} cannot stand in a chain or behind a warm-up: {why}. Use it "
                "alone, or another scheduler."
            )


def _scale_one_cycle(scheduler: LRScheduler, optimizer: Optimizer) -> None:
    """Give groups with a learning rate of their own their share of the cycle, which knows one `max_lr` for all."""
    if not isinstance(scheduler, OneCycleLR):
        return
    for group in optimizer.param_groups:
        for name in _ONE_CYCLE_RATES:
            group[name] = group[name] * group.get("lr_scale", 1.0)
