"""A run in TensorBoard: curves of training and validation in one plot, images, histograms of the weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from base.callback import Callback, StepReport
from logger.progress import Speedometer
from logger.test_report.worst_cases import draw_input
from utils.drawing import Image, class_colors, overlay, panel, to_displayable
from utils.errors import ConfigError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from base.base_trainer import BaseTrainer

NOT_RESULTS = {"epoch", "step", "lr"}
STEPS_BETWEEN_SCALARS = 50
TIMES_IMAGED = 20  # TensorBoard itself shows ten images of a tag and drops the rest
PANEL_HEIGHT = 224


class ImagedSample(NamedTuple):
    """A validation sample to draw.

    Attributes:
        image: (C, H, W) float, the network's input.
        truth: (H, W) integer labels.
        prediction: (H, W) integer labels.
        num_classes: K.
    """

    image: NDArray[np.float32]
    truth: NDArray[Any]
    prediction: NDArray[Any]
    num_classes: int

    def draw(self, ignore_index: int | None) -> Image:
        """The input, and truth and prediction laid over it, side by side."""
        shown, colors = to_displayable(self.image), class_colors(self.num_classes)
        masks = [overlay(shown, mask, colors, 0.55, ignore_index) for mask in (self.truth, self.prediction)]
        return panel([shown, *masks], ["input", "truth", "prediction"], PANEL_HEIGHT)


class ClassifiedSample(NamedTuple):
    """A validation sample of a classification to draw.

    Attributes:
        inputs: (C, H, W) or (V, T) float, the network's input.
        truth: Name of its class.
        prediction: Name of the class that it was taken for.
    """

    inputs: NDArray[np.float32]
    truth: str
    prediction: str

    def draw(self, ignore_index: int | None) -> Image:
        """The input under both names."""
        return draw_input(self.inputs, f"{self.truth}, taken for {self.prediction}")


class TensorBoardLogger(Callback):
    """Writes two sub-runs, `train` and `valid`, whose results share their names and so their plots.

    The horizontal axis is the step. A resumed run hides what the interrupted one wrote beyond the point of resuming.

    Args:
        images: Validation samples to draw as input, truth and prediction, some twenty times in a run.
        histograms: Draw the distribution of every parameter, and of its gradient, after each epoch.
        folder: Where to write; by default `tensorboard` in the run's folder.
        ignore_index: Label that is not judged.
    """

    def __init__(
        self,
        images: int = 4,
        histograms: bool = False,
        *,
        folder: str | Path | None = None,
        ignore_index: int | None = None,
    ) -> None:
        self.images = images
        self.histograms = histograms
        self.folder = None if folder is None else Path(folder)
        self.ignore_index = ignore_index
        self._writers: dict[str, SummaryWriter] = {}
        self._speed = Speedometer()
        self._samples: list[ImagedSample | ClassifiedSample] = []

    def on_fit_start(self, trainer: "BaseTrainer") -> None:
        """Open the files.

        Raises:
            ConfigError: The package is not installed.
        """
        folder = self._target_folder(trainer)
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                f"trainer.tensorboard: true, and TensorBoard cannot be imported ({error}). It is a package of its own. "
                "Run pip install tensorboard, or set trainer.tensorboard=false."
            ) from error
        purge_step = trainer.global_step + 1 if trainer.global_step else None
        for name in ("train", "valid"):
            self._writers[name] = SummaryWriter(str(folder / name), purge_step=purge_step)

    def on_epoch_start(self, trainer: "BaseTrainer") -> None:
        """Measure this epoch anew."""
        self._speed = Speedometer()

    def on_step_end(self, trainer: "BaseTrainer", report: StepReport) -> None:
        """Measure; every fiftieth step write the loss."""
        if not self._writers:
            return
        self._speed.add(report)
        if trainer.global_step % STEPS_BETWEEN_SCALARS == 0:
            self._writers["train"].add_scalar("step/loss", float(report.loss), trainer.global_step)

    def on_validation_start(self, trainer: "BaseTrainer") -> None:
        """Forget the images of the last time."""
        self._samples = []

    def on_validation_batch(self, trainer: "BaseTrainer", inputs: Tensor, target: Tensor, output: Tensor) -> None:
        """Keep the first samples, where this epoch is to be imaged and there is something to image."""
        missing = self.images - len(self._samples)
        if not self._writers or missing <= 0 or not _is_imaged(trainer):
            return
        if target.dim() == 1 and output.dim() == 2 and inputs.dim() in (3, 4):
            self._samples += _classified(trainer, inputs[:missing], target, output)
            return
        if inputs.dim() != 4 or output.dim() != 4 or target.dim() != 3 or target.shape[1:] != inputs.shape[2:]:
            return
        for image, truth, logits in zip(inputs[:missing], target, output, strict=False):
            masks = (truth.cpu().numpy(), logits.argmax(dim=0).cpu().numpy())
            self._samples.append(ImagedSample(image.float().cpu().numpy(), *masks, len(logits)))

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """Write the epoch."""
        if not self._writers:
            return
        step, train, valid = trainer.global_step, self._writers["train"], self._writers["valid"]
        for name, value in metrics.items():
            if name.startswith("val_"):
                valid.add_scalar(name.removeprefix("val_"), value, step)
            elif name not in NOT_RESULTS:
                train.add_scalar(name, value, step)
        train.add_scalar("run/epoch", trainer.epoch, step)
        train.add_scalar("run/lr", metrics.get("lr", float("nan")), step)
        train.add_scalar("run/steps_per_second", self._speed.steps_per_second, step)
        train.add_scalar("run/data_share", self._speed.data_share, step)
        for number, sample in enumerate(self._samples):
            valid.add_image(f"validation/{number}", sample.draw(self.ignore_index), step, dataformats="HWC")
        if self.histograms:
            _write_histograms(train, trainer.model, step)
        self._flush()

    def on_interrupt(self, trainer: "BaseTrainer") -> None:
        """Lose nothing."""
        self._flush()

    def on_close(self, trainer: "BaseTrainer") -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _target_folder(self, trainer: "BaseTrainer") -> Path | None:
        """Where to write; None in processes that do not, and in runs without a folder."""
        if not trainer.is_main_process:
            return None
        if self.folder is None and trainer.run_folder is not None:
            return Path(trainer.run_folder) / "tensorboard"
        return self.folder

    def _flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()


def _classified(trainer: "BaseTrainer", inputs: Tensor, target: Tensor, output: Tensor) -> list[ClassifiedSample]:
    """Samples of a classification with the names of their classes, or their numbers where names are not known."""
    names = dict(enumerate(getattr(getattr(trainer, "train_loader", None), "class_names", ())))
    pairs = zip(inputs, target.tolist(), output.argmax(dim=1).tolist(), strict=False)
    return [
        ClassifiedSample(each.float().cpu().numpy(), names.get(truth, str(truth)), names.get(found, str(found)))
        for each, truth, found in pairs
    ]


def _is_imaged(trainer: "BaseTrainer") -> bool:
    """Whether the epoch being validated is one of the some twenty that are drawn; the last one is."""
    period = max(1, trainer.epochs // TIMES_IMAGED)
    return trainer.epoch % period == 0 or trainer.epoch + 1 == trainer.epochs


def _write_histograms(writer: "SummaryWriter", model: torch.nn.Module, step: int) -> None:
    """The finite values of every parameter and gradient."""
    for name, parameter in model.named_parameters():
        plain_name = name.replace("module.", "").replace("_orig_mod.", "")
        for kind, tensor in (("parameters", parameter), ("gradients", parameter.grad)):
            values = None if tensor is None else tensor.detach().float()
            if values is not None and (finite := values[values.isfinite()]).numel():
                writer.add_histogram(f"{kind}/{plain_name}", finite.cpu(), step)
