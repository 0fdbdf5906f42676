"""The supervised trainer: batches in, loss out, one step of the optimizer."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from base.base_data_loader import BaseDataLoader
from base.base_loss import checked_loss, compute_loss, loss_terms
from base.base_metric import Metric, class_ids
from base.base_model import Output, main_output
from base.base_trainer import BaseTrainer, Row, TrainResult
from base.callback import Callback, StepReport
from base.schedule import LearningRateSchedule
from trainer.evaluation import FiniteCheck, MetricSet, RunningLoss, count_valid, evaluate, term_weights, weights_of_step
from trainer.optim.schedules import rate_of
from trainer.optim.weights import NOTHING_FROZEN, Freezing, WeightAverage
from trainer.runtime.devices import AGREE_EVERY_STEPS, ALONE, ON_CPU, RunPrecision, World, registered_anew, unwrap
from trainer.steps import Batch, BatchMover, endless_steps
from utils.errors import ConfigError, Diverged
from utils.files import write_atomically


@dataclass(frozen=True)
class TrainingPlan:
    """Settings of the loop: its length, the monitored result, and how a step is computed.

    Attributes:
        epochs: Number of epochs.
        len_epoch: Steps in an epoch; by default one pass through the loader.
        monitor: `"max val_miou"`, `"min val_loss"` or `"off"`.
        early_stop: Epochs without a new best after which the run ends.
        max_validation_batches: Validate on the first batches only; for trying things out.
        precision: Device, dtype and memory format.
        world: The processes that share the work.
        accumulate: Batches whose gradients make one step; the last step of a pass takes those that are left.
        clip_norm: Largest L2 norm of all gradients of a step together; larger ones are scaled down to it.
        clip_value: Largest absolute value of each number of a gradient; larger ones are cut off, before `clip_norm`.
        ema_decay: Decay of an average of the weights, which is evaluated instead of the weights; None: no average.
        freezing: Parts that are not trained.
    """

    epochs: int
    len_epoch: int | None = None
    monitor: str = "off"
    early_stop: int | None = None
    max_validation_batches: int | None = None
    precision: RunPrecision = ON_CPU
    world: World = ALONE
    accumulate: int = 1
    clip_norm: float | None = None
    clip_value: float | None = None
    ema_decay: float | None = None
    freezing: Freezing = NOTHING_FROZEN

    @classmethod
    def from_options(cls, options: Mapping[str, Any], **values: Any) -> "TrainingPlan":
        """Return the settings of a complete `trainer` section, with values that are not in it (`precision`, ...)."""
        names = ("epochs", "len_epoch", "monitor", "early_stop", "accumulate", "clip_norm", "clip_value")
        freezing = Freezing(tuple(options["freeze"]), options["unfreeze_epoch"])
        return cls(**{name: options[name] for name in names}, ema_decay=options["ema"], freezing=freezing, **values)

    @property
    def arithmetic(self) -> RunPrecision:
        """The old name of `precision`."""
        warnings.warn("TrainingPlan.arithmetic is now TrainingPlan.precision", DeprecationWarning, stacklevel=2)
        return self.precision

    def steps_per_epoch(self, loader_length: int) -> int:
        """Return the steps of the optimizer in an epoch: `len_epoch`, or one pass through `loader_length` batches."""
        return self.len_epoch or math.ceil(loader_length / self.accumulate)


class Trainer(BaseTrainer):
    """Trains a model on batches of (inputs, target).

    Override `forward` for another loss of a batch (`loss_of` is the configured one), and `train_step` to change the
    batch before it.

    Args:
        model: The network, on its device; may be wrapped by `trainer.runtime.devices.prepare_for_training`.
        optimizer: Updates the model's parameters.
        criterion: (output, target) -> (), a mean; it is counted by valid targets unless it is a `BaseLoss`, which
            reports its weight.
        train_loader: Yields (inputs, target, ...).
        valid_loader: The same for validation, without augmentation.
        metrics: Computed for training (on augmented batches, during the epoch) and validation.
        plan: Settings of the loop.
        lr_scheduler: The schedule of the learning rate.
        callbacks: Called at each event, in this order.

    Attributes:
        scaler: The loss scaler of fp16; for other types it does nothing.
        average: The moving average of the weights, None without one.
        mover: Moves the batches to the device.
        running_loss: Sums of the loss in the current epoch.
        targets_in_step: () float64 on the device, the targets that count in all batches and processes of the current
            step, if it accumulates several batches; None if a step is one batch.
        batch_targets: The targets of these batches, on the device; empty if a step is one batch.
        weights_in_step: (T,) float64, the weights of the T terms of the loss in all these batches; None until known.
        most_memory: A step needs surely less than so many times the memory of its batch.
    """

    most_memory = 500  # in all networks that are shipped, but for supernets

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        criterion: nn.Module,
        train_loader: BaseDataLoader,
        valid_loader: BaseDataLoader | None = None,
        metrics: Sequence[Metric] = (),
        plan: TrainingPlan,
        lr_scheduler: LearningRateSchedule | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        super().__init__(
            model,
            optimizer,
            epochs=plan.epochs,
            monitor=plan.monitor,
            early_stop=plan.early_stop,
            lr_scheduler=lr_scheduler,
            callbacks=callbacks,
        )
        self.plan = plan
        self.criterion = criterion
        self.train_loader = train_loader
        self.valid_loader = valid_loader
        self.ignore_index = train_loader.ignore_index
        self.is_main_process = plan.world.is_main
        device, is_fp16 = plan.precision.device, plan.precision.dtype is torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=is_fp16)
        if plan.freezing.patterns:
            plan.freezing.check(unwrap(model))
        self.average = None if plan.ema_decay is None else WeightAverage(unwrap(model), plan.ema_decay)
        self.mover = BatchMover(plan.precision)
        self.running_loss = RunningLoss(device)
        self.finite_check = FiniteCheck()
        self.metrics = MetricSet(metrics)
        # Separate counts: a checkpoint in the middle of validation still holds those of the training.
        self.validation_metrics = MetricSet(deepcopy(self.metrics.metrics))
        # Not an argument of `train_step`, which plug-ins override with (inputs, target).
        self.targets_in_step: Tensor | None = None
        self.batch_targets: list[Tensor] = []
        self.weights_in_step: Tensor | None = None
        self._steps = self._endless_steps()

    @property
    def steps_per_epoch(self) -> int:
        """Training steps in one epoch: `len_epoch`, or one pass through the loader."""
        return self.plan.steps_per_epoch(len(self.train_loader))

    def result_names(self) -> list[str]:
        """Return the loss and every metric, and the same with `val_` if there is a validation loader."""
        self.validation_metrics.reset()
        names = ["loss", *self.validation_metrics.compute()]
        return names + [f"val_{name}" for name in names] if self.valid_loader is not None else names

    def report_nan(self, name: str) -> None:
        """Refuse a monitored result that is NaN, unless only a few batches are tried out."""
        if self.plan.max_validation_batches is None:
            super().report_nan(name)

    def reason_for_nan(self, name: str) -> str:
        """Return why a result of the last epoch is NaN: the metric's reason."""
        is_validation = name.startswith("val_") and self.valid_loader is not None
        metrics = self.validation_metrics if is_validation else self.metrics
        data, short_name = "validation" if is_validation else "training", name.removeprefix("val_")
        reasons = [each.reason_for_nan(short_name) for each in metrics.metrics if short_name in each.compute()]
        if reasons:
            return f"in the {data} data {reasons[0]}"
        return f"in the {data} data no target counts, or the loss of a batch is NaN"

    def fit(self) -> TrainResult:
        """Train as the base class does, and stop the workers of the loaders at the end."""
        try:
            return super().fit()
        finally:
            # The old iterator holds the loader's: the next fit starts from its position anyway.
            self._steps = self._endless_steps()
            for loader in filter(None, (self.train_loader, self.valid_loader)):
                loader.close()

    def train_epoch(self) -> Row:
        """Train to the end of the epoch; return loss and metrics over its batches."""
        self.model.train()
        if callable(set_progress := getattr(unwrap(self.model), "set_progress", None)):
            set_progress(self.epoch / self.epochs)
        freezing = self.plan.freezing
        if freezing.patterns and freezing.apply(unwrap(self.model), self.epoch + 1):
            self.model = registered_anew(self.model)
        if self.batch == 0:  # else the sums come from the checkpoint that the epoch is resumed from
            self.metrics.reset()
            self.running_loss = RunningLoss(self.plan.precision.device)
        started = perf_counter()
        while self.batch < self.steps_per_epoch:
            asked = perf_counter()
            batches = self.next_batches(self._steps)
            waited = perf_counter() - asked
            loss = self.run_step(batches)
            ended = perf_counter()
            self.finish_step(StepReport(loss, sum(len(inputs) for inputs, _ in batches), waited, ended - started))
            started = ended
        world, process_counts = self.plan.world, self.metrics.counts()
        self.metrics.set_counts([world.sum(counts) for counts in process_counts])
        results = {"loss": self.running_loss.mean(world), **self.metrics.compute()}
        self.metrics.set_counts(process_counts)  # a checkpoint during the validation sums them again
        return {"step": self.global_step, "lr": rate_of(self.optimizer), **results}

    def next_batches(self, steps: Iterator[list[Batch]]) -> list[Batch]:
        """Return the batches of the next step, on the device; call it before anything of the step is changed."""
        with self.waiting():
            return next(steps)

    def run_step(self, batches: Sequence[Batch]) -> Tensor:
        """Make one step of the optimizer from one batch, or from the gradients of several.

        Args:
            batches: (inputs, target) each, of `next_batches`.

        Returns:
            () float, the loss of the step, on the device: the mean over all targets of its batches in this process.

        Raises:
            Diverged: A loss is not finite; no weight was changed and the batches are saved.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.add_gradients(batches, self.train_step)
        if not self.finite_check.all_finite():  # read here: the check ran while the device computed the gradients
            raise self.not_finite(batches)
        clip_norm, clip_value = self.plan.clip_norm, self.plan.clip_value
        if clip_norm is not None or clip_value is not None:
            self.scaler.unscale_(self.optimizer)
            weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
            if clip_value is not None:
                nn.utils.clip_grad_value_(weights, clip_value)
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(weights, clip_norm)
        self.scaler.step(self.optimizer)  # with fp16, a step whose gradients overflow is left out
        self.scaler.update()
        if self.average is not None:
            self.average.update(unwrap(self.model))
        return loss

    def add_gradients(
        self, batches: Sequence[Batch], train: Callable[[Tensor, Tensor], Tensor], *, is_shared: bool = True
    ) -> Tensor:
        """Run the forward and backward passes of the batches of a step, whose gradients add up.

        Args:
            batches: (inputs, target) each, of `next_batches`, or as the loader yields them.
            train: Runs those of one batch on the device, and returns its loss: `train_step`, or one like it.
            is_shared: Whether DistributedDataParallel averages the gradients over the processes.

        Returns:
            () float, the mean loss over all targets of the batches in this process, on the device.
        """
        place = self.plan.precision.place
        targets = [place(target) for _, target in batches]
        counts = None
        if self.plan.accumulate > 1:
            counts = torch.stack([count_valid(target, self.ignore_index) for target in targets])
            self.targets_in_step = self.plan.world.sum(counts.sum())
            self.batch_targets, self.weights_in_step = targets, None
        model, losses = self.model, []
        for number, ((inputs, _), target) in enumerate(zip(batches, targets, strict=True), start=1):
            # The processes average their gradients in the last backward pass of a step only.
            is_last = is_shared and number == len(batches)
            with nullcontext() if is_last or not isinstance(model, DistributedDataParallel) else model.no_sync():
                losses.append(train(place(inputs), target))
        if counts is None or len(losses) == 1:
            return losses[0]
        return (torch.stack(losses) * (counts / counts.sum().clamp(min=1)).to(losses[0].dtype)).sum()

    def train_step(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Run the forward and backward pass of one batch; the step of the optimizer follows in `run_step`.

        Args:
            inputs: (B, C, H, W) float on the device.
            target: (B, H, W) int64 on the device.

        Returns:
            () float, the loss of the batch, detached, on the device.

        Raises:
            ConfigError: The loss is no tensor of one number, or depends on no weight.
        """
        weight = count_valid(target, self.ignore_index)
        output, loss = self.backpropagate(inputs, target, weight)
        self.running_loss.add(loss, weight)
        self.metrics.update(main_output(output).detach(), class_ids(target, self.ignore_index))
        return loss.detach()

    def backpropagate(self, inputs: Tensor, target: Tensor, weight: Tensor) -> tuple[Output, Tensor]:
        """Run the forward and backward pass of one batch, and nothing else; return the model's output and the loss.

        Args:
            inputs: (B, C, H, W) float on the device.
            target: (B, H, W) int64 on the device.
            weight: () float64, the targets that count.

        Raises:
            ConfigError: The loss is no tensor of one number, or depends on no weight.
        """
        with self.plan.precision.autocast():
            output, result = self.forward(inputs, target)
        loss = checked_loss(result, f"{type(self).__name__}.forward")
        if not loss.requires_grad:
            raise ConfigError(
                f"loss: {type(self.criterion).__name__} returned a number that depends on no weight: nothing can be "
                "learned from it. Compute it from the output, without detach() and no_grad()."
            )
        world, total = self.plan.world, self.targets_in_step
        if total is None and world.size > 1:
            total = world.sum(weight)
        # The gradient of a step is that of the mean over all its targets, so each batch counts by its share of them.
        # DistributedDataParallel averages over the processes: times their number, its mean is the sum.
        share = loss if total is None else loss * (weight * world.size / total.clamp(min=1)).to(loss.dtype)
        self.finite_check.add(share)
        self.scaler.scale(share).backward()  # type: ignore[no-untyped-call]
        return output, loss

    @property
    def optimizers(self) -> list[Optimizer]:
        """Every optimizer that a step uses."""
        return [self.optimizer]

    @property
    def epochs_before_trial(self) -> int:
        """Epochs after which a step does all that any step does, to try one before the training."""
        return self.epoch

    def passes_of_step(self) -> Sequence[Callable[[], AbstractContextManager[None]]]:
        """Return what makes the context of each kind of forward and backward pass in a step, to predict its memory."""
        return [nullcontext]

    def forward(self, inputs: Tensor, target: Tensor) -> tuple[Output, Tensor]:
        """Return the model's output and the loss of a batch, under autocast; override it for another loss."""
        output = self.model(inputs)
        return output, self.loss_of(output, target)

    def loss_of(self, output: Output, target: Tensor) -> Tensor:
        """Return the configured loss of a batch, () float.

        If a step has several batches, of this process or of others, each term of the loss is scaled such that
        `train_step`, which counts batches by their valid targets, takes its mean over all of them by the term's weight.
        """
        world = self.plan.world
        if not self.batch_targets and world.size == 1:
            return compute_loss(self.criterion, output, target)
        terms = loss_terms(self.criterion, output, target)
        weights, valid = term_weights(terms, self.ignore_index), count_valid(target, self.ignore_index)
        if self.targets_in_step is None:  # one batch per process
            *totals, valid_total = world.sum(torch.stack([*weights, valid]))
            total = torch.stack(totals)
        else:
            if self.weights_in_step is None:
                # The other outputs are not there yet.
                sums = weights_of_step(self.criterion, output, target, self.batch_targets, self.ignore_index)
                self.weights_in_step = world.sum(sums)
            total, valid_total = self.weights_in_step, self.targets_in_step
        # Both products are of the same numbers where a term counts by valid targets: then the factor is exactly 1.
        divisor = total * valid
        factors: Tensor = weights * valid_total / divisor.where(divisor > 0, 1.0)
        values = torch.stack([term.value() for term in terms])
        return (values * factors.to(values.dtype)).sum()

    def validate_epoch(self) -> Row:
        """Return the loss and metrics over the validation loader; empty without one."""
        if self.valid_loader is None:
            return {}
        world = self.plan.world
        model = unwrap(self.model) if self.average is None else self.average.model
        # Each process has the norm statistics of its own batches; those of the main process are saved: evaluate them.
        world.copy_from_main(model.buffers())

        def after_batch(inputs: Tensor, target: Tensor, logits: Tensor) -> None:
            self.notify("on_validation_batch", inputs, target, logits)
            if world.size == 1:  # several processes may have different numbers of validation batches
                self.check_interrupt()

        return evaluate(
            model,
            self.awaited(self.mover.evaluated(self.valid_loader)),
            criterion=self.criterion,
            metrics=self.validation_metrics,
            precision=self.plan.precision,
            world=world,
            ignore_index=self.ignore_index,
            max_batches=self.plan.max_validation_batches,
            on_batch=after_batch,
        )

    @property
    def stops_alone(self) -> bool:
        """Whether this process may save and stop without agreement with others."""
        return self.plan.world.size == 1

    def awaited(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches of a loader; a signal may end the wait for each."""
        with self.waiting():
            batches = iter(loader)
        while True:
            with self.waiting():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def check_interrupt(self) -> None:
        """Save and stop if asked to; several processes first agree, every few steps and between epochs."""
        world = self.plan.world
        if world.size > 1:
            if self.batch % AGREE_EVERY_STEPS:
                return
            # The request itself travels only when there is one: gathering objects is slow.
            if world.largest(int(self.stop_request is not None)):
                requests = filter(None, world.gather(self.stop_request))
                # All processes leave in the same way: the normal end of a run goes before a signal.
                self.stop_request = max(
                    requests, key=lambda each: (each.signal_number is None, each.signal_number or 0)
                )
        super().check_interrupt()

    def loop_state(self) -> dict[str, Any]:
        """Return the sums of the epoch: of the loss by process, since the order of adding shows in the last bits."""
        sums = self.plan.world.gather(self.running_loss.sums.cpu())
        counts = [self.plan.world.sum(tensor).cpu() for tensor in self.metrics.counts()]
        return {"loss_sums": torch.stack(sums), "counts": counts}

    def load_loop_state(self, state: dict[str, Any]) -> None:
        """Restore the sums of the epoch; those that belong to no single process go to the main one."""
        world, device = self.plan.world, self.plan.precision.device
        sums = state["loss_sums"].reshape(-1, 2)
        self.running_loss = RunningLoss(device)
        if len(sums) == world.size:  # the same number of processes: each continues its own sums, to the last bit
            self.running_loss.sums = sums[world.rank].to(device)
        elif self.is_main_process:
            self.running_loss.sums = sums.sum(dim=0).to(device)
        self.metrics.reset()
        if self.is_main_process:
            self.metrics.set_counts([tensor.to(device) for tensor in state["counts"]])

    def state_dict(self) -> dict[str, Any]:
        """Return the base class's state, the scaler, the average and every process's generators; a collective call."""
        state = super().state_dict()
        state["rng"] = self.plan.world.gather(state["rng"])
        state["scaler"] = self.scaler.state_dict() or None
        state["ema"] = self.average.state_dict() if self.average else None
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint's state; with another number of processes the generators stay as they are."""
        generators = state["rng"][self.plan.world.rank] if len(state["rng"]) == self.plan.world.size else None
        super().load_state_dict({**state, "rng": generators})
        if self.scaler.is_enabled() and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None and state.get("ema"):
            self.average.load_state_dict(state["ema"])

    def not_finite(self, batches: Sequence[Batch]) -> Diverged:
        """Return the error for a loss that is NaN or infinite, and save its batches for `torch.load`."""
        saved, rate = self.save_batches(batches, "not-finite"), rate_of(self.optimizer)
        return Diverged(
            f"The loss is not finite at epoch {self.epoch + 1}, step {self.batch + 1}: training cannot continue from "
            f"it, and no weights were changed by it.{saved} Lower the learning rate (it is {rate:g}), set "
            "trainer.clip_norm, or look at the data; earlier checkpoints are good."
        )

    def save_batches(self, batches: Sequence[Batch], name: str) -> str:
        """Save the batches of the current step in the run folder; return a sentence that says where, if there is one.

        Args:
            batches: (inputs, target) each.
            name: Beginning of the file's name.
        """
        if self.run_folder is None:
            return ""
        rank, step = self.plan.world.rank, self.global_step + 1
        file = self.run_folder / f"{name}-step{step}{f'-process{rank}' if rank else ''}.pt"
        content = {"step": step, "batches": [(inputs.cpu(), target.cpu()) for inputs, target in batches]}
        write_atomically(file, lambda open_file: torch.save(content, open_file))
        return f" The batch is in {file} (torch.load)."

    def _endless_steps(self) -> Iterator[list[Batch]]:
        """Yield the batches of one step after another, from the current position on."""
        yield from endless_steps(self.train_loader, self.plan.accumulate, self.global_step, self.mover)
