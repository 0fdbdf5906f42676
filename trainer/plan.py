"""What a training is to do, as plain values: how long, what to watch, where, and with which of the craft."""

from dataclasses import dataclass

from trainer.distributed import ALONE, World
from trainer.freezing import NOTHING_FROZEN, Freezing
from trainer.precision import ON_PROCESSOR, Arithmetic
from trainer.update import UNCLIPPED, Clipping


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
    arithmetic: Arithmetic = ON_PROCESSOR
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
