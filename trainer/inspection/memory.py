"""The memory that a training may take, next to the memory that it needs, both before its first step."""

import copy
import inspect
import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from base.base_data_loader import BaseDataLoader
from base.base_trainer import BaseTrainer
from base.inspection.failures import size_text
from base.samples import task_of
from trainer.inspection.costs import TrainingStep, optimizer_copies, predict_memory
from trainer.inspection.trial import batch_norm_findings
from trainer.runtime.devices import unwrap
from trainer.trainer import Trainer
from utils.environment import known_memory
from utils.errors import Finding, OutOfMemory

CROWDED = 0.8  # share of the free disk or memory above which a warning says so
HOPELESS = 1.5  # a forecast so many times the memory that there is: no error of the forecast explains it
_UNKNOWN = 2**62  # bytes: nothing is refused for want of memory that nobody knows
logger = logging.getLogger(__name__)


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process may still take on a device; a great number if the system does not say."""
    if device.type != "cuda":
        known = known_memory()
        return _UNKNOWN if known is None else known
    free, _ = torch.cuda.mem_get_info(device)
    # What torch holds without using it is free for this process, too.
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def batch_shapes(loader: BaseDataLoader, num_devices: int = 1) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the shapes of inputs and targets of a loader of images without loading any; None if they are not known.

    Args:
        loader: Of this process.
        num_devices: Devices of this process, which share a batch.
    """
    size, channels = getattr(loader.preprocessing, "size", None), loader.in_channels
    if not isinstance(size, tuple) or len(size) != 2 or channels is None:
        return None
    count = -(-min(loader.keys.batch_size, loader.num_samples) // (loader.keys.world_size * num_devices))
    return (count, channels, *size), (count, *(size if task_of(loader) == "segmentation" else ()))


def training_step(
    trainer: Trainer,
    input_shape: Sequence[int],
    target_shape: Sequence[int],
    target_dtype: torch.dtype = torch.int64,
) -> TrainingStep:
    """Return the step of a trainer for `predict_memory`; the trainer is not changed by it.

    Args:
        trainer: Of `build_training`.
        input_shape: (B, C, ...) of a batch.
        target_shape: Of its target.
        target_dtype: Integer, or floating for a mixed target.
    """
    kind, settings = type(trainer.optimizer), trainer.optimizer.defaults
    taken = inspect.signature(kind).parameters  # AdamW has settings that it does not take
    arguments = {name: value for name, value in settings.items() if name in taken}
    return TrainingStep(
        unwrap(trainer.model),
        lambda _: _without_content(trainer.criterion),
        input_shape,
        target_shape,
        target_dtype,
        trainer.plan.precision,
        optimizer_copies=optimizer_copies(lambda weights: kind(weights, **arguments)),
        has_average=trainer.average is not None,
        accumulate=trainer.plan.accumulate,
    )


def _without_content(criterion: nn.Module) -> nn.Module:
    """Return a copy of a loss whose tensors, such as class weights, are made anew: fake ones if that is the mode."""
    tensors = [each for part in criterion.modules() for each in vars(part).values() if isinstance(each, torch.Tensor)]
    tensors += [*criterion.parameters(), *criterion.buffers()]
    return copy.deepcopy(criterion, {id(each): torch.empty_like(each) for each in tensors})


def step_memory_findings(
    trainer: Trainer,
    section: str = "train_loader",
    valid_section: str = "valid_loader",
    *,
    only_if_large: bool = False,
) -> list[Finding]:
    """Return a fault if a step cannot fit into memory, a warning if it may not, before any batch is loaded.

    Args:
        trainer: Of `build_training`.
        section: JSON path of its training loader.
        valid_section: JSON path of its validation loader.
        only_if_large: Predict the memory only if the batch is large for this machine; it takes some seconds.
    """
    model, plan = trainer.model, trainer.plan
    num_devices = len(model.device_ids) if isinstance(model, nn.DataParallel) else 1
    loaders = [(trainer.train_loader, section, plan.accumulate)]
    loaders += [] if trainer.valid_loader is None else [(trainer.valid_loader, valid_section, 1)]
    findings = [found for each in loaders for found in _batch_findings(*each)]
    shapes, room = batch_shapes(trainer.train_loader, num_devices), free_memory(plan.precision.device)
    if findings or shapes is None:
        return findings
    if only_if_large and _num_bytes(*shapes) * plan.accumulate * trainer.most_memory < room:
        return findings
    needed = predict_largest_pass(trainer, *shapes)
    there = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
    place = f"{section}.args.batch_size"
    return [] if needed is None else memory_findings(needed, room + there, shapes[0], place=place)


def predict_largest_pass(trainer: Trainer, input_shape: Sequence[int], target_shape: Sequence[int]) -> int | None:
    """Return the bytes of a training step at the worst moment, in that of its passes that needs most.

    Args:
        trainer: Of `build_training`; it is not changed.
        input_shape: (B, C, ...) of a batch.
        target_shape: Of its target.

    Returns:
        None if the network cannot be followed through shapes.
    """
    passes, trained, predicted = trainer.passes_of_step(), [], []
    for enter in passes:
        with enter():  # it decides which weights have gradients
            weights = unwrap(trainer.model).parameters()
            trained.append(sum(weight.nbytes for weight in weights if weight.requires_grad))
    for enter, own in zip(passes, trained, strict=True):
        with enter():
            step = training_step(trainer, input_shape, target_shape)
            held = (sum(trained) - own) * (1 + step.optimizer_copies)
            predicted.append(predict_memory(replace(step, held_bytes=held)))
    return max((each for each in predicted if each is not None), default=None)


def _batch_findings(loader: BaseDataLoader, section: str, accumulate: int) -> list[Finding]:
    """Return a fault if the batches of a step alone, before any layer computes, take more memory than there is."""
    shapes, free = batch_shapes(loader), free_memory(torch.device("cpu"))
    if shapes is None or (taken := _num_bytes(*shapes) * accumulate) <= free:
        return []
    message = (
        f"{shapes[0][0]}: inputs of {size_text(shapes[0])} and their targets alone take {size_in_words(taken)}, and "
        f"{size_in_words(free)} are free: they cannot fit. Lower batch_size or resize."
    )
    return [Finding("config", f"{section}.args.batch_size", message)]


def _num_bytes(input_shape: Sequence[int], target_shape: Sequence[int]) -> int:
    return math.prod(input_shape) * torch.float32.itemsize + math.prod(target_shape) * torch.int64.itemsize


def memory_findings(needed: float, available: float, shape: Sequence[int], *, place: str) -> list[Finding]:
    """Return a fault if memory is far too small for a training step, a warning if it is scarce, else nothing.

    Args:
        needed: Bytes at the worst moment.
        available: Bytes that there are.
        shape: (B, C, ...) of a batch.
        place: JSON path of the batch size.
    """
    if needed <= CROWDED * available:
        return []
    compared = f"{shape[0]}: a step with inputs of {size_text(shape)} needs about {size_in_words(needed)}, and "
    compared += f"{size_in_words(available)} are free"
    repair = "Lower batch_size (trainer.accumulate makes up for it) or resize, or use a smaller network"
    if needed > HOPELESS * available:
        return [Finding("config", place, f"{compared}: it cannot fit. {repair}.")]
    return [Finding("config", place, f"{compared}: it may not fit. {repair}.", is_fault=False)]


def require_room_for_step(trainer: BaseTrainer, *sections: str) -> None:
    """Refuse a training whose steps cannot fit into memory; warn if they may not, or if a batch norm sees one sample.

    Args:
        trainer: Of `build_training`; one of another kind than `Trainer` passes.
        sections: JSON paths of its training and validation loaders, if they have other names than these.

    Raises:
        OutOfMemory: The batch alone, or all that a step computes from it, is far too large.
    """
    if not isinstance(trainer, Trainer):
        return
    findings = step_memory_findings(trainer, *sections, only_if_large=True)
    findings += batch_norm_findings(
        unwrap(trainer.model), trainer.train_loader, sections[0] if sections else "train_loader"
    )
    for finding in findings:
        if finding.is_fault:
            raise OutOfMemory(f"{finding.place}: {finding.message}")
        logger.warning("%s: %s", finding.place, finding.message)


def size_in_words(num_bytes: float) -> str:
    """Return a number of bytes as text: 512 B, 3.4 MB, 1.2 GB; of 1000 each."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            break
        num_bytes /= 1000
    return f"{num_bytes:.0f} {unit}" if num_bytes >= 100 or unit == "B" else f"{num_bytes:.1f} {unit}"
