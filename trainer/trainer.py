"""The supervised trainer: inputs in, loss out, one optimizer step a batch."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from base.base_data_loader import BaseDataLoader
from base.base_metric import Metric, MetricSet
from base.base_model import Output, main_output
from base.base_trainer import BaseTrainer, LearningRateSchedule, Row, TrainResult
from base.callback import Callback, StepReport
from trainer.evaluation import RunningLoss, count_valid, evaluate, hard_labels
from trainer.optim.parameter_groups import NOTHING_FROZEN, Freezing
from trainer.optim.weight_average import WeightAverage
from trainer.runtime.devices import ALONE, ON_CPU, RunPrecision, World, gradients_shared, rewrap, unwrap
from utils.errors import DataError, Diverged
from utils.files import write_atomically


@dataclass(frozen=True)
class Clipping:
    """Bounds of the gradients before each step of the optimizer.

    Attributes:
        norm: Largest L2 norm of all gradients together; larger ones are scaled down to it.
        value: Largest absolute value of each number; larger ones are cut off.
    """

    norm: float | None = None
    value: float | None = None

    def apply(self, parameters: list[nn.Parameter]) -> None:
        """Clip the gradients where they are."""
        if self.value is not None:
            nn.utils.clip_grad_value_(parameters, self.value)
        if self.norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.norm)

    def __bool__(self) -> bool:
        return self.norm is not None or self.value is not None


UNCLIPPED = Clipping()


class FiniteCheck:
    """Whether losses are finite, asked when they were computed and answered before the optimizer's step.

    On a GPU the answer travels while the backward pass runs: waiting for it is waiting for the forward pass alone.
    """

    def __init__(self) -> None:
        self._answers: list[tuple[Tensor, Any]] = []

    def ask(self, loss: Tensor) -> None:
        """Ask for a loss, () float, before its backward pass is begun."""
        answer, event = loss.detach().isfinite(), None
        if loss.is_cuda:
            answer = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(answer, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._answers.append((answer, event))

    def all_finite(self) -> bool:
        """Whether every loss asked for since the last call is finite."""
        answers, self._answers = self._answers, []
        for _, event in answers:
            if event is not None:
                event.synchronize()
        return all(bool(answer) for answer, _ in answers)


class Update:
    """Gathers gradients over one or several batches and steps the optimizer.

    Args:
        optimizer: Steps the weights.
        scaler: The loss scaler of fp16; None for other types.
        clipping: Bounds of the gradients.
    """

    def __init__(self, optimizer: Optimizer, scaler: "torch.amp.GradScaler | None", clipping: Clipping) -> None:
        self.optimizer = optimizer
        self.scaler = scaler
        self.clipping = clipping
        self._check = FiniteCheck()

    def begin(self) -> None:
        """Forget the gradients of the last step."""
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, () float."""
        self._check.ask(loss)
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    def is_finite(self) -> bool:
        """Whether every loss since the last call was finite; ask before `step`."""
        return self._check.all_finite()

    def step(self) -> None:
        """Clip and step; with fp16, steps whose gradients overflow are left out and the scale is lowered."""
        if self.clipping:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            self.clipping.apply([weight for group in self.optimizer.param_groups for weight in group["params"]])
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()


@dataclass(frozen=True)
class TrainingPlan:
    """How long to train, what to watch, and where.

    Attributes:
        epochs: Epochs in all.
        len_epoch: Steps in an epoch; by default once through the loader.
        monitor: `"max val_miou"`, `"min val_loss"` or `"off"`.
        early_stop: Epochs without a new best before the run ends.
        max_validation_batches: Look at the first batches only; for trying things out.
        precision: Device, precision and memory format.
        world: The processes that share the work.
        accumulate: Batches whose gradients make one step; the last step of a pass takes those that are left.
        clipping: Bounds of the gradients of a step.
        ema_decay: Decay of an average of the weights, which is judged and saved in their place; None: no average.
        freezing: Parts that do not learn.
    """

    epochs: int
    len_epoch: int | None = None
    monitor: str = "off"
    early_stop: int | None = None
    max_validation_batches: int | None = None
    precision: RunPrecision = ON_CPU
    world: World = ALONE
    accumulate: int = 1
    clipping: Clipping = UNCLIPPED
    ema_decay: float | None = None
    freezing: Freezing = NOTHING_FROZEN

    def steps_per_pass(self, loader_length: int) -> int:
        """Steps of the optimizer in one pass through a loader of so many batches."""
        return -(-loader_length // self.accumulate)

    def steps_per_epoch(self, loader_length: int) -> int:
        """Steps of the optimizer in an epoch: `len_epoch`, or one pass."""
        return self.len_epoch or self.steps_per_pass(loader_length)


def keep_batches(folder: Path, step: int, rank: int, batches: Sequence[tuple[Tensor, Tensor]]) -> Path:
    """Write the batches of a step: `torch.load(file)["batches"]` is a list of (inputs, target).

    Args:
        folder: The run's folder.
        step: The step of the run, from 1.
        rank: Number of this process.
        batches: Inputs (B, C, H, W) float and target (B, H, W) int64, as the network got them.
    """
    file = folder / f"not-finite-step{step}{f'-process{rank}' if rank else ''}.pt"
    content = {"step": step, "batches": [(inputs.cpu(), target.cpu()) for inputs, target in batches]}
    write_atomically(file, lambda open_file: torch.save(content, open_file))
    return file


# Processes agree on whether to stop only every so many steps: the agreement makes them wait for one another.
AGREE_EVERY_STEPS = 8


class Trainer(BaseTrainer):
    """Trains a model on batches of (inputs, target).

    Override `forward` for another way from a batch to a loss, `train_step` for another way to change the batch or to
    step; everything around it stays.

    Args:
        model: The network, on its device; may be wrapped by `trainer.runtime.devices.wrap_for_devices`.
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
        self.scaler = plan.precision.scaler() if plan.precision.dtype is torch.float16 else None
        plan.freezing.check(unwrap(model))
        self.average = None if plan.ema_decay is None else WeightAverage(unwrap(model), plan.ema_decay)
        self._update = Update(optimizer, self.scaler, plan.clipping)
        self._total_weight: Tensor | None = None
        self._running_loss = RunningLoss(plan.precision.device)
        self._batches = self._endless_batches()
        self._is_begun = False

    @property
    def steps_per_epoch(self) -> int:
        """Training steps in one epoch: `len_epoch`, or once through the loader."""
        return self.plan.steps_per_epoch(len(self.train_loader))

    @property
    def _steps_per_pass(self) -> int:
        return self.plan.steps_per_pass(len(self.train_loader))

    def result_names(self) -> list[str]:
        """The loss and every metric, and the same with `val_` where there is a validation loader."""
        self._validation_metrics.reset()
        names = ["loss", *self._validation_metrics.compute()]
        return names + [f"val_{name}" for name in names] if self.valid_loader is not None else names

    def fit(self) -> TrainResult:
        """As in the base class; the loaders' workers end with it."""
        try:
            return super().fit()
        finally:
            self._batches = self._endless_batches()
            for loader in filter(None, (self.train_loader, self.valid_loader)):
                loader.close()

    def train_epoch(self) -> Row:
        """Train to the end of the epoch; loss and metrics over its batches as they went by."""
        self._begin_to_learn()
        if self.batch == 0:
            self.metrics.reset()
            self._running_loss = RunningLoss(self.plan.precision.device)
        started = perf_counter()
        while self.batch < self.steps_per_epoch:
            asked = perf_counter()
            batches = self._next_batches()
            waited = perf_counter() - asked
            loss = self._step(batches)
            ended = perf_counter()
            self.finish_step(StepReport(loss, sum(len(inputs) for inputs, _ in batches), waited, ended - started))
            started = ended
        return self._epoch_results()

    def train_step(self, inputs: Tensor, target: Tensor) -> Tensor:
        """One batch: forward and backward pass; the loss, detached, on the device.

        The optimizer steps after it, or after several of them where gradients are accumulated.
        """
        with self.plan.precision.autocast():
            output, loss = self.forward(inputs, target)
        weight = count_valid(target, self.ignore_index)
        self._update.backward(self._share_of_all(loss, weight))
        self._running_loss.add(loss, weight)
        self.metrics.update(main_output(output).detach(), hard_labels(target))
        detached: Tensor = loss.detach()
        return detached

    def _step(self, batches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """One step of the optimizer, over one batch or several; the mean of their losses.

        Raises:
            Diverged: A loss is not finite; no weight was changed and the batches are saved.
        """
        self._update.begin()
        self._weigh(batches)
        losses = []
        for number, (inputs, target) in enumerate(batches, start=1):
            with gradients_shared(self.model, number == len(batches)):
                losses.append(self.train_step(self.plan.precision.place(inputs), self.plan.precision.place(target)))
        if not self._update.is_finite():
            raise self.not_finite(batches)
        self._update.step()
        if self.average is not None:
            self.average.update(unwrap(self.model))
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def forward(self, inputs: Tensor, target: Tensor) -> tuple[Output, Tensor]:
        """The output of the model and the loss of a batch, under autocast; override it for another loss."""
        output = self.model(inputs)
        return output, self.criterion(output, target)

    def validate_epoch(self) -> Row:
        """The loss and metrics over the validation loader; empty without one."""
        if self.valid_loader is None:
            return {}
        if self.average is not None:  # norm statistics are each process's own: those that are saved are judged
            self.plan.world.copy_from_main(self.average.model.buffers())
        return evaluate(
            self.model if self.average is None else self.average.model,
            self.valid_loader,
            criterion=self.criterion,
            metrics=self._validation_metrics,
            precision=self.plan.precision,
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
        """The running sums of the epoch: of the loss by process, since the order of adding shows in the last bits."""
        sums = self.plan.world.gather(self._running_loss.sums.cpu())
        counts = [self.plan.world.sum(tensor).cpu() for tensor in self.metrics.counts()]
        return {"loss_sums": torch.stack(sums), "counts": counts}

    def load_loop_state(self, state: dict[str, Any]) -> None:
        """Take back the running sums; the main process holds what belongs to no single one."""
        world, device = self.plan.world, self.plan.precision.device
        sums = state["loss_sums"].reshape(-1, 2)
        self._running_loss = RunningLoss(device)
        if len(sums) == world.size:
            self._running_loss.sums = sums[world.rank].to(device)
        elif self.is_main_process:
            self._running_loss.sums = sums.sum(dim=0).to(device)
        self.metrics.reset()
        if self.is_main_process:
            self.metrics.set_counts([tensor.to(device) for tensor in state["counts"]])

    def state_dict(self) -> dict[str, Any]:
        """As in the base class, with the loss scaler of fp16 and every process's generators; a collective call."""
        state = super().state_dict()
        state["rng"] = self.plan.world.gather(state["rng"])
        state["scaler"] = self.scaler.state_dict() if self.scaler else None
        state["ema"] = self.average.state_dict() if self.average else None
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back a checkpoint's state; another number of processes keeps its own generators."""
        own = state["rng"][self.plan.world.rank] if len(state["rng"]) == self.plan.world.size else None
        super().load_state_dict({**state, "rng": own})
        if self.scaler is not None and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None and state.get("ema"):
            self.average.load_state_dict(state["ema"])

    def not_finite(self, batches: Sequence[tuple[Tensor, Tensor]]) -> Diverged:
        """The error for a loss that is NaN or infinite; keeps its batches for a look at them."""
        rate = float(self.optimizer.param_groups[0]["lr"])
        where = f"epoch {self.epoch + 1}, step {self.batch + 1}"
        kept = ""
        if self.run_folder is not None:
            file = keep_batches(self.run_folder, self.global_step + 1, self.plan.world.rank, batches)
            kept = f" The batch is in {file} (torch.load)."
        return Diverged(
            f"The loss is not finite at {where}: training cannot go on from it, and no weights were changed by it."
            f"{kept} Lower the learning rate (it is {rate:g}), set trainer.clip_norm, or look at the data; earlier "
            "checkpoints are good."
        )

    def _begin_to_learn(self) -> None:
        """Training mode, but for what is frozen in this epoch."""
        freezing, epoch = self.plan.freezing, self.epoch + 1
        self.model.train()
        freezing.apply(unwrap(self.model), epoch)
        if freezing.patterns and (epoch == freezing.until_epoch or not self._is_begun):
            self.model = rewrap(self.model)
        self._is_begun = True

    def _endless_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches from the place where the run stands, through the loader again and again."""
        while True:
            epoch, step = divmod(self.global_step, self._steps_per_pass)
            self.train_loader.set_position(epoch, step * self.plan.accumulate)
            for inputs, target, *_ in self.train_loader:
                yield inputs, target

    def _next_batches(self) -> list[tuple[Tensor, Tensor]]:
        """The batches of the next step: fewer than `accumulate` at the end of a pass through the loader."""
        accumulate = self.plan.accumulate
        left = len(self.train_loader) - self.global_step % self._steps_per_pass * accumulate
        try:
            return [next(self._batches) for _ in range(min(accumulate, left))]
        except (DataError, RuntimeError):
            # A signal to the whole process group ends the loader's workers too: leave as for the signal alone.
            self.check_interrupt()
            raise

    def _weigh(self, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Count the targets of a step before its first backward pass, where each batch is only a part of them."""
        if self.plan.accumulate == 1:
            return
        total = sum(count_valid(target, self.ignore_index) for _, target in batches)
        self._total_weight = self.plan.world.sum(self.plan.precision.place(torch.as_tensor(total)))

    def _share_of_all(self, loss: Tensor, weight: Tensor) -> Tensor:
        """A batch's part of the mean over all targets of a step, in all its batches and processes.

        DistributedDataParallel averages the gradients of the processes, so that each counts for as many as there are.
        """
        world = self.plan.world
        if self._total_weight is None and world.size == 1:
            return loss
        total = world.sum(weight) if self._total_weight is None else self._total_weight
        return loss * (weight * world.size / total.clamp(min=1)).to(loss.dtype)

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
