"""Why a step of a training fails, in the words of the config: its stages are repeated one by one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from base.base_loss import compute_loss
from base.base_metric import class_ids
from base.base_model import main_output
from base.base_trainer import BaseTrainer
from base.inspection.failures import NetworkFault, explain_failure, failing_part, first_line, size_text
from trainer.inspection.loss_faults import explain_loss_failure
from trainer.runtime.devices import unwrap
from trainer.trainer import Trainer
from utils.environment import is_out_of_memory
from utils.errors import ConfigError, DataError, Diverged, EspalierError, Finding, fault_of

# Errors of torch about shapes, types and values. Others are mistakes in the code of a plug-in, whose traceback helps.
_OF_TORCH = (RuntimeError, ValueError, IndexError)


def step_fault(
    trainer: Trainer, batch: Sequence[Any], error: Exception, section: str, *, is_training: bool = True
) -> Finding:
    """Return why a step, or the evaluation of a batch, failed: the network, the loss, memory, or what follows them.

    Args:
        trainer: Its weights may change, and its generators.
        batch: (inputs, target, ...) as the loader yields it.
        error: Raised by the step.
        section: JSON path of the loader.
        is_training: False if the batch was evaluated.
    """
    inputs, target = batch[0], batch[1]
    if isinstance(error, Diverged):
        message = (
            "the loss of the first batch is not finite. Lower the learning rate, set trainer.precision to fp32, or "
            "look at the data."
        )
        return Finding("config", "loss", message)
    if isinstance(error, DataError):
        return fault_of(error, section)
    if isinstance(error, EspalierError) and not is_out_of_memory(error):
        is_loss = str(error).startswith("loss")
        found = None if is_loss else failing_stage(trainer, inputs, target, section, is_training=is_training)
        return found or Finding("config", "loss" if is_loss else "arch", str(error))
    if is_out_of_memory(error):
        message = (
            f"{inputs.shape[0]}: memory ran out in a step with inputs of {size_text(inputs.shape)} "
            f"({first_line(error)}). Network, batch and gradients must fit into it. Lower batch_size or resize."
        )
        return Finding("config", f"{section}.args.batch_size", message)
    found = failing_stage(trainer, inputs, target, section, is_training=is_training)
    if found is not None:
        return found
    name = type(trainer.optimizer).__name__
    if type(trainer) is not Trainer:
        name = f"{type(trainer).__name__} with {name}"
    message = f"{name} cannot make a step: {first_line(error)}. Network and loss work. Use another optimizer."
    return Finding("config", "optimizer", message)


def failing_stage(
    trainer: Trainer, inputs: Tensor, target: Tensor, section: str, *, is_training: bool = True
) -> Finding | None:
    """Run network, loss, backward pass and metrics one by one; return the fault of the one that fails, if any does."""
    model, precision = unwrap(trainer.model), trainer.plan.precision
    model.train(is_training)
    trainer.plan.freezing.apply(model, trainer.epoch + 1)
    placed = precision.place(target)
    with precision.autocast(), failing_part(model) as running:
        try:
            output = model.forward(precision.place(inputs))
        except Exception as error:
            part = running[-1] if running else ""
            return _finding(explain_failure(error, model, tuple(inputs.shape), part), section)
    metric = None
    try:
        with precision.autocast():
            loss = compute_loss(trainer.criterion, output, placed)
        torch.autograd.backward(loss)
        for metric in trainer.metrics.metrics:
            metric.update(main_output(output).detach(), class_ids(placed, trainer.ignore_index))
    except Exception as error:
        if isinstance(error, EspalierError) and not is_out_of_memory(error):  # it says what is wrong by itself
            return Finding("config", "loss" if metric is None else "metrics", str(error))
        ignored = trainer.ignore_index
        fault = explain_loss_failure(error, model, trainer.criterion, output, target, ignore_index=ignored)
        if metric is not None and fault.place == "loss":  # shapes and labels are right: it is the metric itself
            text = f"{type(metric).__name__} cannot count an output of {size_text(main_output(output).shape)}"
            fault = NetworkFault("metrics", f"{text}: {first_line(error)}. Correct it, or name another metric.")
        return _finding(fault, section)
    return None


@contextmanager
def explained_steps(trainer: BaseTrainer, section: str) -> Iterator[None]:
    """Turn an error of torch in the steps of a training into one that names what to change in the config.

    The stages of a step are repeated with the first batch; an error that none of them shows stays as it is.

    Args:
        trainer: Not used after an error.
        section: JSON path of its training loader.

    Raises:
        ConfigError: Instead of the error of torch.
    """
    try:
        yield
    except _OF_TORCH as error:
        # Of several processes, the others do not take part in the repetition.
        if not isinstance(trainer, Trainer) or trainer.plan.world.size > 1 or is_out_of_memory(error):
            raise
        try:
            inputs, target, *_ = trainer.train_loader.example()
        except Exception:  # the data set raised it
            raise error from None
        found = failing_stage(trainer, inputs, target, section)
        if found is None:
            raise
        raise ConfigError(f"{found.place}: {found.message}") from error


def _finding(fault: NetworkFault, section: str) -> Finding:
    """Return a fault with the path of the loader's section before the arguments that are its own."""
    place = f"{section}.args.{fault.place}" if fault.place in ("batch_size", "resize") else fault.place
    return Finding("config", place, fault.message)
