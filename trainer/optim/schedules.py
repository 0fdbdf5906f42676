"""From the `lr_scheduler` section to the learning-rate schedule: one scheduler, a warm-up before it, or a chain."""

import copy
import inspect
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from base.schedule import LearningRateSchedule
from utils.errors import ConfigError

Spec = Mapping[str, Any] | str
Build = Callable[[str, Mapping[str, Any]], LRScheduler]
WARMUP_START = 0.001  # share of the learning rate that a warm-up starts with
PER_STEP = ("OneCycleLR", "poly", "PolyLR")  # schedulers that move per step unless the config says otherwise
LENGTHS = ("total_steps", "total_iters", "T_max", "epochs", "steps_per_epoch")  # arguments that state a length
_TRIED_MOVES = 2
_ONE_CYCLE_RATES = ("lr", "initial_lr", "max_lr", "min_lr")
logger = logging.getLogger(__name__)


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
    usual = "step" if parts[-1]["type"].rpartition(".")[2] in PER_STEP else "epoch"
    interval = _stated_once(parts, "interval", "intervals") or usual
    total = epochs * (steps_per_epoch if interval == "step" else 1)
    warmup = parts[0].get("warmup") or 0
    lengths = [part.get("moves") or 0 for part in parts[:-1]]
    left = total - warmup - sum(lengths)  # the last part takes the rest of the run
    if left < 1:
        raise ConfigError(
            f"lr_scheduler: warm-up and chained parts take {total - left} of the run's {total} moves (one per "
            f"{interval}). Something must be left for the last part. Make them shorter or train for longer."
        )
    rate = optimizer.defaults.get("lr")
    schedulers, outgrown = [], ""
    for path, part, moves in zip(paths, parts, [*lengths, left], strict=True):
        schedulers.append(build(path, {"max_lr": rate} | _default_arguments(part, moves, monitor)))
        stated = (part.get("args") or {}).get("max_lr", rate)
        if isinstance(schedulers[-1], OneCycleLR) and stated != rate:
            logger.warning(
                "optimizer.args.lr: %s has no effect, as OneCycleLR sets all rates from %s.args.max_lr, %s. Leave out "
                "max_lr: it then is the rate of the optimizer.",
                *(rate, path, stated),
            )
        outgrown = check_length(schedulers[-1], path, part.get("args") or {}, moves, interval)  # of the last part
        _try_moves(schedulers[-1], path, min(_TRIED_MOVES, moves))
    options: dict[str, Any] = {
        "interval": interval,
        "moves": total,
        "follows_run": _takes_length(schedulers[-1], parts[-1]),
        "outgrown": outgrown,
        "on_more_epochs": _stated_once(parts, "on_more_epochs", "values of on_more_epochs") or "refuse",
    }
    if warmup or len(schedulers) > 1:
        for each in schedulers:
            _scale_cycles(each, optimizer)
        return LearningRateSchedule(_in_sequence(schedulers, optimizer, warmup, lengths), **options)

    scheduler = schedulers[0]
    _scale_cycles(scheduler, optimizer)
    mode, _, watched = monitor.partition(" ")
    if isinstance(scheduler, ReduceLROnPlateau) and watched and scheduler.mode != mode:
        raise ConfigError(
            f'lr_scheduler.args.mode: "{scheduler.mode}" contradicts trainer.monitor, "{monitor}". Both follow '
            "the same result. Remove the mode."
        )
    return LearningRateSchedule(scheduler, watched=watched, **options)


def rate_of(optimizer: Optimizer) -> float:
    """Return the learning rate at present, without the factors of groups (`lr_scale`, `layer_decay`)."""
    group = max(optimizer.param_groups, key=lambda each: float(each.get("lr_scale", 1.0)))
    return float(group["lr"]) / (float(group.get("lr_scale", 1.0)) or 1.0)


def _scale_cycles(scheduler: LRScheduler, optimizer: Optimizer) -> None:
    """Give each group its share of the rates of a cycle, of which the scheduler has one for all; warn if it cannot."""
    groups = optimizer.param_groups
    scales = [group.get("lr_scale", 1.0) for group in groups]
    if isinstance(scheduler, OneCycleLR):
        for group, scale in zip(groups, scales, strict=True):
            for name in _ONE_CYCLE_RATES:
                group[name] = group[name] * scale
    elif isinstance(scheduler, CyclicLR):
        scheduler.base_lrs = [rate * scale for rate, scale in zip(scheduler.base_lrs, scales, strict=True)]
        scheduler.max_lrs = [rate * scale for rate, scale in zip(scheduler.max_lrs, scales, strict=True)]
        for group, rate in zip(groups, scheduler.base_lrs, strict=True):
            group["lr"] = group["initial_lr"] = rate
    elif getattr(scheduler, "eta_min", 0) and set(scales) != {1.0}:
        logger.warning(
            "lr_scheduler.args.eta_min: %s is the least rate of all groups, also of those with lr_scale or "
            "layer_decay: a lower rate rises to it. Leave it out, or use poly or OneCycleLR.",
            getattr(scheduler, "eta_min", 0),
        )


def _try_moves(scheduler: LRScheduler, path: str, moves: int) -> None:
    """Make the first moves on a copy: some values are refused only there, such as a step_size of 0.

    Raises:
        ConfigError: The scheduler cannot move.
    """
    if isinstance(scheduler, ReduceLROnPlateau):  # it follows results, which there are none of
        return
    weights = [weight for group in scheduler.optimizer.param_groups for weight in group["params"]]
    tried = copy.deepcopy(scheduler, {id(weight): weight for weight in weights})  # which are not copied
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer has made no step
        try:
            for _ in range(moves):
                tried.step()
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: {type(scheduler).__name__} cannot make its first moves: {type(error).__name__}: {error}. "
                f"Correct {path}.args."
            ) from error


def _in_sequence(
    schedulers: Sequence[LRScheduler], optimizer: Optimizer, warmup: int, lengths: Sequence[int]
) -> SequentialLR:
    """Return a warm-up of so many moves (0: none) and schedulers one after another; the last has no length."""
    for each in schedulers:
        if isinstance(each, OneCycleLR | ReduceLROnPlateau):
            why = "it warms up by itself (pct_start)" if isinstance(each, OneCycleLR) else "its moves have no plan"
            raise ConfigError(
                f"lr_scheduler: {type(each).__name__} cannot be part of a chain or follow a warm-up: {why}. Use it "
                "alone, or another scheduler."
            )
    ends = [warmup + sum(lengths[: count + 1]) for count in range(len(lengths))]
    if not warmup:
        return SequentialLR(optimizer, list(schedulers), ends)
    rise = LinearLR(optimizer, start_factor=WARMUP_START, total_iters=warmup)
    return SequentialLR(optimizer, [rise, *schedulers], [warmup, *ends])


def check_length(scheduler: LRScheduler, path: str, arguments: Mapping[str, Any], moves: int, interval: str) -> str:
    """Compare the length that a scheduler was built for with the moves that it makes; warn if its curve is cut.

    Args:
        scheduler: Built from the JSON.
        path: Its JSON path.
        arguments: Its `args` in the JSON.
        moves: Moves that it makes, in the run or as a part of a chain.
        interval: The time between two moves, for messages.

    Returns:
        JSON path and value of a length after which the learning rate rises again; empty if there is none.

    Raises:
        ConfigError: The learning rate of some moves is 0, or there is none for them.
    """
    if isinstance(scheduler, CosineAnnealingWarmRestarts):
        _check_cycles(scheduler, path, moves, interval)
    is_cycle, is_cosine = isinstance(scheduler, OneCycleLR), isinstance(scheduler, CosineAnnealingLR)
    ends_at_zero = isinstance(scheduler, PolynomialLR) or (isinstance(scheduler, LinearLR) and not scheduler.end_factor)
    if not (is_cycle or is_cosine or ends_at_zero or isinstance(scheduler, LinearLR)):
        return ""  # its curve does not depend on a length, or has a plain continuation
    name = next(name for name in LENGTHS if hasattr(scheduler, name))
    length = int(getattr(scheduler, name))
    stated = [each for each in LENGTHS if arguments.get(each) is not None] or [name]
    here = (
        f"{path}.args.{stated[0]}: {type(scheduler).__name__} is built for {length} moves and makes {moves} in this "
        f"run (one per {interval})"
    )
    repair = f"Leave out {' and '.join(stated)}: it then follows the run"
    if length > moves:
        logger.warning("%s, so that its curve is cut off. %s.", here, repair)
    elif length < moves and (is_cycle or ends_at_zero):
        fate = "there is no learning rate for the others" if is_cycle else "the learning rate of the others would be 0"
        raise ConfigError(f"{here}: {fate}. {repair}; or train for fewer epochs.")
    elif length < moves and is_cosine:
        logger.warning("%s: the learning rate rises again in the others. %s.", here, repair)
        return f"{path}.args.{stated[0]} {length}"
    return ""


def _check_cycles(scheduler: CosineAnnealingWarmRestarts, path: str, moves: int, interval: str) -> None:
    """Warn if the last move is inside a cycle, at a high learning rate."""
    end = cycle = scheduler.T_0
    while end < moves:
        cycle *= scheduler.T_mult
        end += cycle
    if end > moves:
        logger.warning(
            "%s.args.T_0: the cycle in which the run ends, after %d moves (one per %s), would end after %d. The last "
            "steps have a high learning rate. Change the length of the run, T_0 or T_mult.",
            *(path, moves, interval, end),
        )


def _takes_length(scheduler: LRScheduler, part: Mapping[str, Any]) -> bool:
    """Return whether a scheduler was built for the length of the run: it takes one, and the JSON states none."""
    arguments, accepted = part.get("args") or {}, inspect.signature(type(scheduler)).parameters
    return any(name in accepted and arguments.get(name) is None for name in _default_arguments(part, 1, "off"))


def _stated_once(parts: Sequence[Mapping[str, Any]], key: str, plural: str) -> Any:
    """Return the value of a key that holds for the whole schedule, None if no part states it."""
    stated = [part[key] for part in parts if part.get(key) is not None]
    if len(set(stated)) > 1:
        raise ConfigError(
            f"lr_scheduler: the parts of a chain say the {plural} {' and '.join(stated)}. A chain has one. Say it once."
        )
    return stated[0] if stated else None


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
