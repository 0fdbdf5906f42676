"""One step of a training with a real batch, after which everything is as before: what fails, and what it costs."""

import copy
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # those of any dimension have no public base
from torch.utils._pytree import tree_leaves

from base.base_data_loader import BaseDataLoader
from base.base_model import main_output
from base.base_trainer import BaseTrainer
from trainer.evaluation import FiniteCheck, MetricSet, RunningLoss, evaluate
from trainer.inspection.costs import WORKING_SHARE, LiveMemory
from trainer.inspection.step_faults import step_fault
from trainer.runtime.devices import unwrap
from trainer.trainer import Trainer
from utils.errors import Diverged, Finding
from utils.seeding import generator_state, restore_generator_state
from utils.weight_names import first_names

MOST_STEPS = 5  # that are timed
TIMING_SECONDS = 1.0  # no further step is timed after these


@dataclass(frozen=True)
class StepFacts:
    """The costs of a step of the optimizer, measured.

    Attributes:
        seconds: Of a step without loading its batches: the median of those after the first. A network that is to be
            compiled is timed without it.
        validation_seconds: Of one batch of the validation; None without one.
        peak_bytes: Memory on the device at the worst moment: weights, gradients, activations, the optimizer's state.
        weight_bytes: Of all weights and buffers, as a checkpoint holds them.
        optimizer_bytes: Of the optimizer's state after a step.
        weight_tensors: Number of weights and buffers.
        optimizer_tensors: Number of tensors in the optimizer's state.
        batch_bytes: Of one batch and its target.
        input_shape: (B, C, ...) of the batch.
        loss: Of the first step.
        early_seconds: As `seconds`, of a step in the epochs before `Trainer.epochs_before_trial`, which does less; None
            if there are none.
    """

    seconds: float
    validation_seconds: float | None
    peak_bytes: int
    weight_bytes: int
    optimizer_bytes: int
    weight_tensors: int
    optimizer_tensors: int
    batch_bytes: int
    input_shape: Sequence[int]
    loss: float
    early_seconds: float | None = None


@dataclass(frozen=True)
class Trial:
    """The outcome of a step that was tried: its costs if it worked, its fault if not, and warnings in both cases."""

    facts: StepFacts | None
    findings: Sequence[Finding]


def try_step(
    trainer: BaseTrainer,
    batch: Sequence[Any],
    valid_batch: Sequence[Any] | None = None,
    *,
    section: str = "train_loader",
    valid_section: str = "valid_loader",
) -> Trial:
    """Run a few steps of a training on one batch, as it would run them, and restore everything afterwards.

    Weights, buffers, modes, gradients, the optimizer's state, counts and generators are the same as before.

    Args:
        trainer: Of `build_training`, before it has started. One that is no `Trainer` has a loop of its own and is not
            tried: no costs, no findings.
        batch: Of the training loader: (inputs, target, ...), e.g. of `BaseDataLoader.example`.
        valid_batch: The same of the validation loader: then it is evaluated, too.
        section: JSON path of the training loader.
        valid_section: JSON path of the validation loader.

    Returns:
        The costs, or the fault that would stop the training, with the JSON path to change; and warnings.
    """
    if not isinstance(trainer, Trainer):
        return Trial(None, [])
    inputs, target, *_ = batch
    with unchanged(trainer), _uncompiled():
        epochs_done, trainer.epoch = trainer.epoch, trainer.epochs_before_trial
        trainer.model.train()
        trainer.plan.freezing.apply(unwrap(trainer.model), trainer.epoch + 1)
        findings = batch_norm_findings(unwrap(trainer.model), trainer.train_loader, section)
        try:
            facts, warnings = _measured(trainer, inputs, target)
            if epochs_done < trainer.epoch:
                facts = replace(facts, early_seconds=_time_early_step(trainer, inputs, target, epochs_done))
        except Exception as error:
            return Trial(None, [*findings, step_fault(trainer, (inputs, target), error, section)])
        findings += warnings
        if valid_batch is None or any(each.is_fault for each in findings):
            return Trial(facts if not any(each.is_fault for each in findings) else None, findings)
        try:
            return Trial(replace(facts, validation_seconds=_time_validation(trainer, valid_batch)), findings)
        except Exception as error:
            fault = step_fault(trainer, valid_batch[:2], error, valid_section, is_training=False)
            return Trial(None, [*findings, fault])


def batch_norm_findings(model: nn.Module, loader: BaseDataLoader, section: str) -> list[Finding]:
    """Return warnings for batch norms that train on a single sample, or because of which samples are left out.

    Args:
        model: In training mode; batch norms that are not, since they are frozen, do not count.
        loader: Of the training.
        section: Its JSON path.
    """
    norms = [name for name, part in model.named_modules() if isinstance(part, _BatchNorm) and part.training]
    norms = [name for name in norms if model.get_submodule(name).track_running_stats]
    batch_size, samples = loader.keys.batch_size, loader.num_samples
    if not norms:
        return []
    if min(batch_size, samples) == 1:
        return [
            Finding(
                "config",
                f"{section}.args.batch_size",
                f"{batch_size}: each of the {len(norms)} batch norms ({first_names(norms)}) takes its statistics from "
                "one sample, so that training and validation differ. Set batch_size to 2 or more, better 8; or use "
                "a network with group norm.",
                is_fault=False,
            )
        ]
    is_last_alone = samples % batch_size == 1 and not loader.drop_last and loader.is_training
    if is_last_alone:
        return [
            Finding(
                "config",
                f"{section}.args.batch_size",
                f"{batch_size}: of {samples} samples one is left over. A batch norm cannot train on it, so each epoch "
                "leaves out one sample, another one each time if the order is shuffled. Any other batch_size that "
                "leaves 0 or 2 and more uses all.",
                is_fault=False,
            )
        ]
    return []


@contextmanager
def unchanged(trainer: Trainer) -> Iterator[None]:
    """Restore everything of a trainer after a block that trains: nothing of it can be observed."""
    model, optimizers, average = unwrap(trainer.model), trainer.optimizers, trainer.average
    networks = [each for each in (model, trainer.criterion, average and average.model) if isinstance(each, nn.Module)]
    modules = [module for network in networks for module in network.modules()]
    # Modes, and what a forward pass may count in plain attributes.
    attributes_of = [(module, dict(vars(module))) for module in modules]
    buffers = [(module, dict(module.named_buffers(recurse=False))) for module in modules]
    weights = [weight for network in networks for weight in network.parameters()]
    learning = [(weight, weight.requires_grad, weight.grad) for weight in weights]
    # On the processor: the memory of a GPU is measured meanwhile.
    tensors = [*weights, *(buffer for network in networks for buffer in network.buffers())]
    contents = [(tensor, tensor.detach().to("cpu", copy=True)) for tensor in tensors]
    saved = [(each, copy.deepcopy(each.state_dict()), dict(vars(each))) for each in optimizers]
    attributes, scaler, generators = dict(vars(trainer)), trainer.scaler.state_dict(), generator_state()
    updates = 0 if average is None else average.updates
    trainer.metrics, trainer.validation_metrics = _copied(trainer.metrics), _copied(trainer.validation_metrics)
    trainer.running_loss, trainer.finite_check = RunningLoss(trainer.plan.precision.device), FiniteCheck()
    try:
        yield
    finally:
        vars(trainer).clear()
        vars(trainer).update(attributes)
        for optimizer, state, own in saved:
            optimizer.load_state_dict(state)
            for name in vars(optimizer).keys() - own.keys():  # a schedule counts the calls there
                delattr(optimizer, name)
        if scaler:
            trainer.scaler.load_state_dict(scaler)
        if average is not None:
            average.updates = updates
        for module, before in attributes_of:
            vars(module).clear()
            vars(module).update(before)
        for module, named in buffers:
            for name, buffer in named.items():
                setattr(module, name, buffer)  # a forward pass may have replaced the tensor, not only its content
        with torch.no_grad():
            for tensor, content in contents:
                tensor.copy_(content)
        for weight, is_learning, gradient in learning:
            weight.requires_grad_(is_learning)
            weight.grad = gradient
        restore_generator_state(generators)


def _uncompiled() -> AbstractContextManager[Any]:
    """Return the context in which networks that would be compiled, which takes minutes, run without it."""
    # Loading the compiler takes seconds, and only a network that is to be compiled loads it.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _copied(metrics: MetricSet) -> MetricSet:
    copied = MetricSet(copy.deepcopy(metrics.metrics))
    copied.reset()
    return copied


def _measured(trainer: Trainer, inputs: Tensor, target: Tensor) -> tuple[StepFacts, list[Finding]]:
    """Run the steps; return their costs, and what their gradients show."""
    device, accumulate = trainer.plan.precision.device, trainer.plan.accumulate
    model, batches = unwrap(trainer.model), [(inputs, target)] * accumulate
    if device.type != "cpu":
        _try_loss_on_processor(trainer, inputs, target)
    before_update: list[int] = []
    shapes: list[Sequence[int]] = []
    with LiveMemory() as memory:
        for part in (model, trainer.criterion):
            for tensor in (*part.parameters(), *part.buffers()) if isinstance(part, nn.Module) else ():
                memory.add(tensor)
        noting: list[Any] = [
            trainer.optimizer.register_step_pre_hook(lambda *_: before_update.append(memory.peak)),
            model.register_forward_hook(lambda _module, _inputs, output: shapes.append(main_output(output).shape)),
        ]
        started = perf_counter()
        try:
            loss = float(trainer.run_step(batches))
        finally:
            for each in noting:
                each.remove()
        first_seconds = perf_counter() - started
    findings = [*_gradient_findings(model), *_class_findings(model, shapes, trainer.train_loader.num_classes)]
    weights = list(model.state_dict().values())
    state = [each for each in tree_leaves(list(trainer.optimizer.state.values())) if isinstance(each, Tensor)]
    weight_bytes, optimizer_bytes = (sum(each.nbytes for each in tensors) for tensors in (weights, state))
    batch_bytes = inputs.nbytes + target.nbytes
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = _timed(lambda: trainer.run_step(batches), device) or first_seconds
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:  # as `trainer.inspection.costs` predicts it; the optimizer's state is made in the first step, and then there
        working = max(before_update, default=memory.peak) * (1 + WORKING_SHARE)
        average = weight_bytes if trainer.average is not None else 0
        peak = int(max(working + optimizer_bytes, memory.peak)) + average + (accumulate - 1) * batch_bytes
    facts = StepFacts(
        seconds=seconds,
        validation_seconds=None,
        peak_bytes=peak,
        weight_bytes=weight_bytes,
        optimizer_bytes=optimizer_bytes,
        weight_tensors=len(weights),
        optimizer_tensors=len(state),
        batch_bytes=batch_bytes,
        input_shape=tuple(inputs.shape),
        loss=loss,
    )
    return facts, findings


def _timed(run: Callable[[], Any], device: torch.device) -> float:
    """Return the median seconds of some calls; of the first one alone if it is slow, 0 if none of them ends."""
    times: list[float] = []
    while len(times) < MOST_STEPS and sum(times) < TIMING_SECONDS:
        started = perf_counter()
        try:
            run()
        except Diverged:  # the same batch many times at the first learning rate says nothing about the training
            break
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(perf_counter() - started)
    return statistics.median(times) if times else 0.0


def _time_early_step(trainer: Trainer, inputs: Tensor, target: Tensor, epochs_done: int) -> float | None:
    """Return the median seconds of a step after fewer epochs; None if none of them ends."""
    epoch, trainer.epoch = trainer.epoch, epochs_done
    trainer.plan.freezing.apply(unwrap(trainer.model), epochs_done + 1)
    seconds = _timed(
        lambda: trainer.run_step([(inputs, target)] * trainer.plan.accumulate), trainer.plan.precision.device
    )
    trainer.epoch = epoch
    return seconds or None


def _time_validation(trainer: Trainer, batch: Sequence[Any]) -> float:
    """Return the seconds in which a batch is evaluated, without loading it."""
    model = unwrap(trainer.model) if trainer.average is None else trainer.average.model

    def run() -> None:
        evaluate(
            model,
            [batch],
            criterion=trainer.criterion,
            metrics=trainer.validation_metrics,
            precision=trainer.plan.precision,
            ignore_index=trainer.ignore_index,
        )

    run()
    return _timed(run, trainer.plan.precision.device)


def _gradient_findings(model: nn.Module) -> list[Finding]:
    """Return a fault if no weight has a gradient after a step, and a warning for those that have none."""
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    without = [name for name, weight in learning.items() if weight.grad is None]
    if learning and len(without) == len(learning):
        message = (
            f"none of the {len(learning)} weights of {type(model).__name__} gets a gradient from the loss: nothing is "
            "learned. Compute the output from the weights, without detach() and no_grad()."
        )
        return [Finding("config", "arch", message)]
    if without:
        message = (
            f"{len(without)} of {len(learning)} weights of {type(model).__name__} get no gradient: "
            f"{first_names(without)}. They stay as they are. Remove them, freeze them, or use them in the output."
        )
        return [Finding("config", "arch", message, is_fault=False)]
    gradients = [weight.grad for weight in learning.values() if weight.grad is not None]
    if gradients and not any(bool(each.any()) for each in gradients):
        message = (
            "every gradient of the first step is 0: nothing is learned from this batch. Look at its labels (all "
            "ignored?), the loss, and the first layers' activations."
        )
        return [Finding("config", "loss", message, is_fault=False)]
    return []


def _class_findings(model: nn.Module, shapes: Sequence[Sequence[int]], num_classes: int | None) -> list[Finding]:
    """Return a warning if a network tells more classes apart than the data has."""
    channels = shapes[0][1] if shapes and len(shapes[0]) > 1 else None
    if num_classes is None or channels is None or channels <= num_classes:
        return []
    message = (
        f"{channels}: {type(model).__name__} gives logits of {channels} classes, and the data has {num_classes}. The "
        "others are never right. Build it for the classes of the data."
    )
    return [Finding("config", "arch.args.num_classes", message, is_fault=False)]


def _try_loss_on_processor(trainer: Trainer, inputs: Tensor, target: Tensor) -> None:
    """Compute the loss once on the processor: a wrong label there is an error, on a GPU the end of the process."""
    precision = trainer.plan.precision
    with torch.no_grad(), precision.autocast():
        output = trainer.model(precision.place(inputs))
    on_processor = [each.float().cpu() for each in ([output] if isinstance(output, Tensor) else output)]
    with torch.no_grad():
        loss = copy.deepcopy(trainer.criterion).cpu()
        loss(on_processor[0] if isinstance(output, Tensor) else on_processor, target)
