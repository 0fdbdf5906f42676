"""What happens around the loop without being part of it: files, images, pruning by a search."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # for the signatures only: the loop imports its callbacks' contract, not the other way round
    from torch import Tensor

    from base.base_trainer import BaseTrainer, TrainResult


class StepReport(NamedTuple):
    """What one training step did.

    Attributes:
        loss: () float, on the device; reading it waits for the device.
        samples: Samples in the batch, of this process.
        data_seconds: Time the loop waited for the loader.
        step_seconds: Time from the end of the last step to the end of this one.
    """

    loss: "Tensor"
    samples: int
    data_seconds: float
    step_seconds: float


class Callback:
    """Override the events you need; each gets the trainer. Called in the order of the list.

    Raising `StopTraining` via `trainer.request_stop(reason)` ends the run after the epoch. State that a resumed run
    needs goes through `state_dict` / `load_state_dict` (plain data and tensors only).
    """

    def on_fit_start(self, trainer: "BaseTrainer") -> None:
        """Before the first step, after a checkpoint was restored."""

    def on_epoch_start(self, trainer: "BaseTrainer") -> None:
        """Before the epoch `trainer.epoch + 1` begins or, after a resume in mid-epoch, goes on."""

    def on_step_end(self, trainer: "BaseTrainer", report: StepReport) -> None:
        """After each training step; on the hot path, so no host-device wait here."""

    def on_validation_start(self, trainer: "BaseTrainer") -> None:
        """After the last training step of an epoch."""

    def on_validation_batch(self, trainer: "BaseTrainer", inputs: "Tensor", target: "Tensor", output: "Tensor") -> None:
        """After each validation batch; `output` is the main output of the model."""

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """After validation; `metrics` is the epoch's row of the history."""

    def on_interrupt(self, trainer: "BaseTrainer") -> None:
        """A signal asked to stop: save what must not be lost."""

    def on_fit_end(self, trainer: "BaseTrainer", result: "TrainResult") -> None:
        """After the last epoch."""

    def on_close(self, trainer: "BaseTrainer") -> None:
        """Always, also after an error: close files."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; plain data and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
