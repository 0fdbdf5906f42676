"""Actions around the loop that are no part of it: files, images, pruning by a search."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # only for the signatures: base_trainer imports this module
    from torch import Tensor

    from base.base_trainer import BaseTrainer, TrainResult


class StepReport(NamedTuple):
    """Measurements of one training step.

    Attributes:
        loss: () float, on the device; reading it waits for the device.
        samples: Samples in the batches of the step, of this process.
        data_seconds: Seconds for which the loop waited for the loader.
        step_seconds: Seconds from the end of the last step to the end of this one.
    """

    loss: "Tensor"
    samples: int
    data_seconds: float
    step_seconds: float


class Callback:
    """Reacts to the events of a training: override those that you need; each gets the trainer.

    Callbacks are called in the order of the list. `trainer.request_stop(reason)` ends the run after the epoch. State
    that a resumed run needs goes through `state_dict` and `load_state_dict`.
    """

    def on_fit_start(self, trainer: "BaseTrainer") -> None:
        """Run before the first step, after a checkpoint was restored."""

    def on_epoch_start(self, trainer: "BaseTrainer") -> None:
        """Run before the epoch `trainer.epoch + 1` starts or, after a resume inside it, continues."""

    def on_step_end(self, trainer: "BaseTrainer", report: StepReport) -> None:
        """Run after each training step; it must not wait for the device, since that would slow down every step."""

    def on_validation_start(self, trainer: "BaseTrainer") -> None:
        """Run after the last training step of an epoch."""

    def on_validation_batch(self, trainer: "BaseTrainer", inputs: "Tensor", target: "Tensor", output: "Tensor") -> None:
        """Run after each validation batch; `output` is the main output of the model."""

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """Run after validation; `metrics` is the epoch's row of the history."""

    def on_interrupt(self, trainer: "BaseTrainer") -> None:
        """Save everything that must not be lost, since the run is asked to stop."""

    def on_fit_end(self, trainer: "BaseTrainer", result: "TrainResult") -> None:
        """Run after the last epoch."""

    def on_close(self, trainer: "BaseTrainer") -> None:
        """Close files; it always runs, also after an error."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs: plain data and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
