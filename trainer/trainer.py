"""The supervised trainer: inputs in, loss out, one optimizer step a batch."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from base.base_data_loader import BaseDataLoader
from base.base_metric import Metric
from base.base_trainer import BaseTrainer
from base.callback import Callback, StepReport
from base.metric_set import MetricSet
from base.monitor import Row
from base.output import Output, main_output
from base.schedule import LearningRateSchedule
from trainer.distributed import ALONE, World
from trainer.evaluation import RunningLoss, count_valid, evaluate, hard_labels
from trainer.precision import ON_PROCESSOR, Arithmetic
from utils.errors import DataError, TrainingError

# Processes agree on whether to stop only every so many steps: the agreement makes them wait for one another.
AGREE_EVERY_STEPS = 8


@dataclass(frozen=True)
class TrainingPlan:
    """How long to train, what to watch, and where.

    Attributes:
        epochs: Epochs in all.
        len_epoch: Steps in an epoch; by default once through the loader.
        monitor: `"max val_miou"`, `"min val_loss"` or `"off"`.
        early_stop: Epochs without a new best before the run ends.
        max_validation_batches: Look at the first batches only; for trying things out.
        arithmetic: Device, precision and memory format.
        world: The processes that share the work.
    """

    epochs: int
    len_epoch: int | None = None
    monitor: str = "off"
    early_stop: int | None = None
    max_validation_batches: int | None = None
    arithmetic: Arithmetic = ON_PROCESSOR
    world: World = ALONE


class Trainer(BaseTrainer):
    """Trains a model on batches of (inputs, target).

    Override `forward` for another way from a batch to a loss, `train_step` for another way to change the batch or to
    step; everything around it stays.

    Args:
        model: The network, on its device; may be wrapped by `trainer.distributed.spread`.
        optimizer: Steps the model's parameters.
        criterion: (output, target) -> (), mean over valid targets.
        train_loader: Yields (inputs, target, ...).
        valid_loader: The same for validation, without augmentation.
        metrics: Computed for training (on augmented batches, as they went by) and validation.
        plan: How long, what to watch, where.
        lr_scheduler: The schedule of the learning rate.
        callbacks: Called at each event, in this order.
    """

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
        self.metrics = MetricSet(metrics)
        # Its own counts: a save in the middle of validation still holds those of the training.
        self._validation_metrics = MetricSet(deepcopy(self.metrics.metrics))
        self.ignore_index = train_loader.ignore_index
        self.is_main_process = plan.world.is_main
        self.scaler = plan.arithmetic.scaler()
        self._running_loss = RunningLoss(plan.arithmetic.device)
        self._batches = self._endless_batches()

    @property
    def steps_per_epoch(self) -> int:
        """Training steps in one epoch: `len_epoch`, or once through the loader."""
        return self.plan.len_epoch or len(self.train_loader)

    def result_names(self) -> list[str]:
        """The loss and every metric, and the same with `val_` where there is a validation loader."""
        self._validation_metrics.reset()
        names = ["loss", *self._validation_metrics.compute()]
        return names + [f"val_{name}" for name in names] if self.valid_loader is not None else names

    def train_epoch(self) -> Row:
        """Train to the end of the epoch; loss and metrics over its batches as they went by."""
        self.model.train()
        if self.batch == 0:
            self.metrics.reset()
            self._running_loss = RunningLoss(self.plan.arithmetic.device)
        started = perf_counter()
        while self.batch < self.steps_per_epoch:
            asked = perf_counter()
            inputs, target = self._next_batch()
            waited = perf_counter() - asked
            loss = self.train_step(self.plan.arithmetic.place(inputs), self.plan.arithmetic.place(target))
            ended = perf_counter()
            self.finish_step(StepReport(loss, len(inputs), waited, ended - started))
            started = ended
        return self._epoch_results()

    def train_step(self, inputs: Tensor, target: Tensor) -> Tensor:
        """One batch: forward, backward, optimizer step; the loss, detached, on the device.

        Raises:
            TrainingError: The loss is not finite (on the processor, where looking costs nothing; on other devices this
                is found when a checkpoint is due, and nothing not finite is ever saved).
        """
        with self.plan.arithmetic.autocast():
            output, loss = self.forward(inputs, target)
        if loss.device.type == "cpu" and not loss.isfinite():
            raise self.not_finite()
        weight = count_valid(target, self.ignore_index)
        self.optimizer.zero_grad(set_to_none=True)
        self._backward_and_step(self._share_of_all(loss, weight))
        self._running_loss.add(loss, weight)
        self.metrics.update(main_output(output).detach(), hard_labels(target))
        detached: Tensor = loss.detach()
        return detached

    def forward(self, inputs: Tensor, target: Tensor) -> tuple[Output, Tensor]:
        """The output of the model and the loss of a batch, under autocast; override it for another loss."""
        output = self.model(inputs)
        return output, self.criterion(output, target)

    def validate_epoch(self) -> Row:
        """The loss and metrics over the validation loader; empty without one."""
        if self.valid_loader is None:
            return {}
        return evaluate(
            self.model,
            self.valid_loader,
            criterion=self.criterion,
            metrics=self._validation_metrics,
            arithmetic=self.plan.arithmetic,
            world=self.plan.world,
            ignore_index=self.ignore_index,
            max_batches=self.plan.max_validation_batches,
            on_batch=self._after_validation_batch,
        )

    def check_interrupt(self) -> None:
        """As in the base class; several processes first agree, every few steps and between epochs."""
        if self.plan.world.size > 1:
            if self.batch % AGREE_EVERY_STEPS:
                return
            self.stop_signal = self.plan.world.largest(self.stop_signal or 0) or None
        super().check_interrupt()

    def loop_state(self) -> dict[str, Any]:
        """The running sums of the epoch, over all processes."""
        sums = self.plan.world.sum(self._running_loss.sums)
        counts = [self.plan.world.sum(tensor).cpu() for tensor in self.metrics.counts()]
        return {"loss_sums": sums.cpu(), "counts": counts}

    def load_loop_state(self, state: dict[str, Any]) -> None:
        """Take back the running sums; the main process holds them for all."""
        self.metrics.reset()
        if self.is_main_process:
            device = self.plan.arithmetic.device
            self._running_loss.sums = state["loss_sums"].to(device)
            self.metrics.set_counts([tensor.to(device) for tensor in state["counts"]])

    def state_dict(self) -> dict[str, Any]:
        """As in the base class, with the loss scaler of fp16 and every process's generators; a collective call."""
        state = super().state_dict()
        state["rng"] = self.plan.world.gather(state["rng"])
        state["scaler"] = self.scaler.state_dict() if self.scaler else None
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back a checkpoint's state; another number of processes keeps its own generators."""
        own = state["rng"][self.plan.world.rank] if len(state["rng"]) == self.plan.world.size else None
        super().load_state_dict({**state, "rng": own})
        if self.scaler is not None and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])

    def not_finite(self) -> TrainingError:
        """The error for a loss that is NaN or infinite."""
        rate = self.optimizer.param_groups[0]["lr"]
        return TrainingError(
            f"The loss is not finite at epoch {self.epoch + 1}, step {self.batch + 1}: training cannot go on from "
            f"it, and no weights were changed by it. Lower the learning rate (it is {float(rate):g}) or look at the "
            "data; earlier checkpoints are good."
        )

    def _endless_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches from the place where the run stands, through the loader again and again."""
        while True:
            self.train_loader.set_position(*divmod(self.global_step, len(self.train_loader)))
            for inputs, target, *_ in self.train_loader:
                yield inputs, target

    def _next_batch(self) -> tuple[Tensor, Tensor]:
        try:
            return next(self._batches)
        except (DataError, RuntimeError):
            # A signal to the whole process group ends the loader's workers too: leave as for the signal alone.
            self.check_interrupt()
            raise

    def _share_of_all(self, loss: Tensor, weight: Tensor) -> Tensor:
        """This process's part of the mean over all targets: DistributedDataParallel averages gradients by process."""
        world = self.plan.world
        return loss if world.size == 1 else loss * (weight * world.size / world.sum(weight).clamp(min=1)).to(loss.dtype)

    def _backward_and_step(self, loss: Tensor) -> None:
        if self.scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            return
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _after_validation_batch(self, inputs: Tensor, target: Tensor, logits: Tensor) -> None:
        for callback in self.callbacks:
            callback.on_validation_batch(self, inputs, target, logits)
        if self.plan.world.size == 1:
            self.check_interrupt()

    def _epoch_results(self) -> Row:
        world = self.plan.world
        own_counts = self.metrics.counts()
        self.metrics.set_counts([world.sum(counts) for counts in own_counts])
        results = {"loss": self._running_loss.mean(world), **self.metrics.compute()}
        self.metrics.set_counts(own_counts)
        rate = float(self.optimizer.param_groups[0]["lr"])
        return {"step": self.global_step, "lr": rate, **results}
