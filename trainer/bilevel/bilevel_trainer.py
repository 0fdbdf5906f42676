"""The trainer of a supernet: a step of the weights, then a step of the architecture, on two halves of the data."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # those of any dimension have no public base
from torch.optim import Adam, Optimizer

from base.base_data_loader import BaseDataLoader
from base.base_metric import Metric
from base.base_trainer import Row, TrainResult
from base.callback import Callback
from base.halves import split_halves
from base.schedule import LearningRateSchedule
from trainer.bilevel.architecture import (
    ArchitectureFile,
    ArchitectureOptions,
    Entry,
    Supernet,
    architecture_notes,
    entropy_share,
    entry_of,
    epochs_unchanged,
    require_supernet,
)
from trainer.evaluation import count_valid
from trainer.optim.schedules import rate_of
from trainer.optim.weights import Freezing
from trainer.runtime.devices import registered_anew, unwrap
from trainer.steps import Batch, endless_steps
from trainer.trainer import Trainer, TrainingPlan
from utils.architecture.course import default_learning_epoch
from utils.architecture.decoding import entropy_shares
from utils.drawing import Image
from utils.errors import CheckpointError, ConfigError, Diverged

logger = logging.getLogger(__name__)


class BilevelTrainer(Trainer):
    """Trains the weights of a supernet on one half of the training data and its architecture on the other.

    It approximates a bilevel optimization to first order (arXiv:1806.09055, section 2.3; arXiv:1901.02985, section
    3.3). A step updates the weights by the configured optimizer on a batch of the first half, as `Trainer` does. From
    `architecture_from_epoch` on, it then updates alpha and beta by Adam on a batch of the second half, with the loss of
    the config and the new weights. That changes nothing else: weights, their average and the running statistics of
    batch norms see the first half only.

    Args:
        model: A supernet, see `Supernet`; may be wrapped for devices.
        optimizer: Updates the weights; the architecture parameters are taken out of it.
        criterion: As for `Trainer`.
        train_loader: The whole training data, which is divided by `split_halves`.
        valid_loader: As for `Trainer`.
        metrics: As for `Trainer`.
        plan: Settings of the loop; `accumulate` holds for both halves.
        lr_scheduler: The schedule of the weights' learning rate.
        callbacks: Called at each event, in this order, after the one that writes architecture.json.
        architecture: How the architecture learns.

    Attributes:
        train_loader: The first half.
        architecture_loader: The second half, which is read in pass after pass whatever the epoch.
        architecture_optimizer: Updates alpha and beta.
        architecture_steps: Steps of it so far.
        architectures: The architecture after each epoch.

    Raises:
        ConfigError: The network has no architecture, or an option does not fit the training.
    """

    most_memory = 5_000  # that of Auto-DeepLab needs 1,700 times that of a batch, the public code 5,000 times

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
        architecture: ArchitectureOptions = ArchitectureOptions(),  # noqa: B008 - frozen
    ) -> None:
        network = unwrap(model)
        learned = require_supernet(network).architecture_parameters()
        _check_freezing(network, learned, plan.freezing)
        first, second = split_halves(train_loader)
        for parameter in learned:  # only an architecture step computes their gradients
            parameter.requires_grad_(False)
        _take_out(optimizer, learned)
        super().__init__(
            registered_anew(model, finds_unused=getattr(network, "samples_paths", None)),
            optimizer,
            criterion=criterion,
            train_loader=first,
            valid_loader=valid_loader,
            metrics=metrics,
            plan=plan,
            lr_scheduler=lr_scheduler,
            callbacks=[ArchitectureFile(), *callbacks],
        )
        self.options = architecture
        self.first_epoch = first_learning_epoch(architecture, plan.epochs)
        self.architecture_loader = second
        self.architecture_optimizer = Adam(
            learned,
            lr=architecture.architecture_lr,
            betas=(architecture.architecture_betas[0], architecture.architecture_betas[1]),
            weight_decay=architecture.architecture_weight_decay,
        )
        self.architecture_steps = 0
        self.architectures: list[Entry] = []
        self._architecture_batches: Iterator[list[Batch]] | None = None

    @classmethod
    def step_loader(cls, loader: BaseDataLoader) -> BaseDataLoader:
        """Return the first half of the training data, whose batches are the steps of an epoch."""
        return split_halves(loader)[0]

    @property
    def network(self) -> Supernet:
        """The supernet without its wrappers."""
        return require_supernet(unwrap(self.model))

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizers of weights and architecture."""
        return [self.optimizer, self.architecture_optimizer]

    @property
    def learns_architecture(self) -> bool:
        """Whether the steps of the current epoch update the architecture, too."""
        return self.epoch + 1 >= self.first_epoch

    @property
    def is_stable(self) -> bool:
        """Whether the genotype has been the same for `stable_epochs`."""
        wanted, done = self.options.stable_epochs, self.architectures[: self.epoch]
        return wanted is not None and epochs_unchanged(done, self.first_epoch) >= wanted

    @property
    def stale_epochs(self) -> int:
        """Epochs without a new best in which the architecture learned: `early_stop` must not end a run before."""
        return min(super().stale_epochs, max(0, self.epoch - self.first_epoch + 1))

    @property
    def is_finished(self) -> bool:
        """Whether no epoch is left to do, or the genotype is stable."""
        return super().is_finished or self.is_stable

    def result_names(self) -> list[str]:
        """Return those of `Trainer`, the entropies of alpha and beta, and whether the genotype has changed."""
        return [*super().result_names(), "alpha_entropy", "beta_entropy", "genotype_changed"]

    def fit(self) -> TrainResult:
        """Train as `Trainer` does; also close the loader of the second half at the end."""
        try:
            result = super().fit()
            if self.is_stable:
                logger.info("The run has ended: the genotype was the same for %d epochs.", self.options.stable_epochs)
            if not self.architecture_steps:
                logger.warning(
                    "The run has ended after epoch %d, and its architecture learns from epoch %d on: alpha and beta "
                    "are as they began, and their genotype is random. Continue it with --resume auto, or set "
                    "trainer.args.architecture_from_epoch lower.",
                    self.epoch,
                    self.first_epoch,
                )
            return result
        finally:
            self._architecture_batches = None
            self.architecture_loader.close()

    def train_epoch(self) -> Row:
        """Train to the end of the epoch; return its results, with entropies as shares of the largest possible."""
        row = super().train_epoch()
        # A resumed validation comes here once more: the entry replaces the one of before.
        entry = entry_of(self.network, self.epoch + 1, self.architecture_steps)
        self.architectures = [*self.architectures[: self.epoch], entry]
        last, *before = [entry["genotype"] for entry in reversed(self.architectures[-2:])]
        alpha, beta = entropy_shares(*self.network.architecture())
        return row | {"alpha_entropy": alpha, "beta_entropy": beta, "genotype_changed": float([last] != before)}

    def epoch_notes(self) -> Mapping[str, str | Image]:
        """Return alpha and beta of the last epoch as heat maps, and the decoded genotype."""
        return architecture_notes(self.architectures[-1]) if self.architectures else {}

    def run_step(self, batches: Sequence[Batch]) -> Tensor:
        """Make a step of the weights and, from `architecture_from_epoch` on, one of the architecture.

        Args:
            batches: (inputs, target) each, of the first half.

        Returns:
            () float, the loss of the step of the weights, on the device.

        Raises:
            Diverged: A loss is not finite; the batches are saved.
        """
        # Both are loaded first: an interruption while a loader is awaited must leave the state before the step.
        others = self.next_batches(self._endless_architecture_steps()) if self.learns_architecture else None
        loss = super().run_step(batches)
        if others is not None:
            self.run_architecture_step(others)
        return loss

    def run_architecture_step(self, batches: Sequence[Batch]) -> Tensor:
        """Make one step of alpha and beta; nothing else changes.

        Args:
            batches: (inputs, target) each, of the second half.

        Returns:
            () float, the loss of the step, without the entropy, on the device.

        Raises:
            Diverged: A loss is not finite; alpha and beta were not changed and the batches are saved.
        """
        self.architecture_optimizer.zero_grad(set_to_none=True)
        with self.only_architecture():
            loss = self.add_gradients(batches, self.architecture_pass, is_shared=False)
            if not self.finite_check.all_finite():
                raise self.architecture_not_finite(batches)
            world = self.plan.world
            for parameter in self.network.architecture_parameters():
                if parameter.grad is not None and world.size > 1:
                    parameter.grad = world.sum(parameter.grad) / world.size
            weight = self.entropy_weight()
            if weight:  # once for all batches and processes
                entropy = entropy_share(self.network.alpha, self.network.beta)
                self.scaler.scale(weight * entropy).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.architecture_optimizer)
        self.scaler.update()
        self.architecture_steps += 1
        return loss

    def architecture_pass(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Run the forward and backward pass of a batch of an architecture step; return its loss, detached.

        Args:
            inputs: (B, C, H, W) float on the device.
            target: (B, H, W) int64 on the device.
        """
        return self.backpropagate(inputs, target, count_valid(target, self.ignore_index))[1].detach()

    @contextmanager
    def only_architecture(self) -> Iterator[None]:
        """Let a block compute the gradients of alpha and beta alone, without updating the statistics of norms."""
        model = unwrap(self.model)
        learned = self.network.architecture_parameters()
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.training]
        norms = [norm for norm in norms if norm.track_running_stats]
        own = getattr(model, "only_architecture", None)
        context: AbstractContextManager[Any] = own() if callable(own) else nullcontext()
        try:
            for weight in weights:
                weight.requires_grad_(False)
            for parameter in learned:
                parameter.requires_grad_(True)
            for norm in norms:
                norm.track_running_stats = False  # in training mode it then only takes those of the batch
            with context:
                yield
        finally:
            for norm in norms:
                norm.track_running_stats = True
            for parameter in learned:
                parameter.requires_grad_(False)
            for weight in weights:
                weight.requires_grad_(True)

    @property
    def epochs_before_trial(self) -> int:
        """Epochs after which the steps update the architecture, too."""
        return max(self.epoch, self.first_epoch - 1)

    def passes_of_step(self) -> Sequence[Callable[[], AbstractContextManager[None]]]:
        """Return what makes the contexts of a pass for the weights and of one for the architecture."""
        return [nullcontext, self.only_architecture]

    def entropy_weight(self) -> float:
        """Return the factor of the entropy in the current epoch."""
        if self.options.entropy_growth == "constant":
            return self.options.entropy_weight
        epochs = self.epochs - self.first_epoch + 1
        return self.options.entropy_weight * (self.epoch + 2 - self.first_epoch) / epochs

    def architecture_not_finite(self, batches: Sequence[Batch]) -> Diverged:
        """Return the error for a loss of an architecture step that is NaN or infinite, and save its batches."""
        saved = self.save_batches(batches, "not-finite-architecture")
        rates = (self.options.architecture_lr, rate_of(self.optimizer))
        return Diverged(
            f"The loss of the architecture is not finite at epoch {self.epoch + 1}, step {self.batch + 1}: training "
            f"cannot continue from it, and alpha and beta were not changed by it.{saved} Lower the learning rate of "
            f"the weights (it is {rates[1]:g}) or trainer.args.architecture_lr (it is {rates[0]:g}), set "
            "trainer.clip_norm, or look at the data; earlier checkpoints are good."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of `Trainer`, and that of the architecture's optimizer, loader and records."""
        own = {
            "optimizer": self.architecture_optimizer.state_dict(),
            "steps": self.architecture_steps,
            "epochs": self.architectures,
        }
        return {**super().state_dict(), "architecture": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint's state.

        Raises:
            CheckpointError: It is of another kind of trainer.
        """
        if "architecture" not in state:
            raise CheckpointError(
                "The checkpoint was not saved by BilevelTrainer: it has no state of an architecture. Continue with the "
                "trainer.type that it was saved with, or start new from its weights: -c FILE --resume CHECKPOINT."
            )
        super().load_state_dict(state)
        own = state["architecture"]
        self.architecture_optimizer.load_state_dict(own["optimizer"])
        self.architecture_steps = own["steps"]
        self.architectures = [dict(entry) for entry in own["epochs"]]

    def _endless_architecture_steps(self) -> Iterator[list[Batch]]:
        """Return the one iterator over the batches of the second half, at the position of the next step."""
        if self._architecture_batches is None:
            self._architecture_batches = endless_steps(
                self.architecture_loader, self.plan.accumulate, self.architecture_steps, self.mover
            )
        return self._architecture_batches


def first_learning_epoch(options: ArchitectureOptions, epochs: int) -> int:
    """Return the epoch, counted from 1, from which the architecture learns.

    Raises:
        ConfigError: The training has no such epoch.
    """
    stated = options.architecture_from_epoch
    if stated is not None and stated > epochs:
        raise ConfigError(
            f"trainer.args.architecture_from_epoch: {stated}, but trainer.epochs is {epochs}: the architecture would "
            f"never learn. Set it to {epochs} or less, or leave it out: then it learns in the second half of the run."
        )
    return default_learning_epoch(epochs) if stated is None else stated


def _check_freezing(network: nn.Module, learned: Sequence[nn.Parameter], freezing: Freezing) -> None:
    """Refuse to freeze an architecture parameter, which has a time of its own to learn."""
    ids = {id(parameter) for parameter in learned}
    for name, parameter in network.named_parameters():
        if id(parameter) in ids and freezing.is_named(name):
            raise ConfigError(
                f"trainer.freeze: {list(freezing.patterns)} names {name}, a parameter of the architecture, which "
                "trainer.args.architecture_from_epoch rules. Name parts without it."
            )


def _take_out(optimizer: Optimizer, learned: Sequence[nn.Parameter]) -> None:
    """Take parameters out of the groups of an optimizer that has made no step; a group may be left empty."""
    ids = {id(parameter) for parameter in learned}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in ids]
    if not any(group["params"] for group in optimizer.param_groups):
        raise ConfigError("arch: all parameters belong to the architecture, and there are no weights to train.")
