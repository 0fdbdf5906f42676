"""TensorBoard files of a run: training and validation curves in one plot, images, histograms of the weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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


class TensorBoardLogger(Callback):
    """Writer of two sub-runs, `train` and `valid`, whose results have the same names and so share their plots.

    The horizontal axis is the step. A resumed run hides the points that the interrupted one wrote beyond the step from
    which it resumes.

    Args:
        images: Number of validation samples to draw, about twenty times in a run: of a segmentation input, truth and
            prediction, of a classification the input with its class and the predicted one.
        histograms: Write the distribution of every parameter, and of its gradient, after each epoch.
        class_names: Names of the classes under images of a classification; without them, the ids.
    """

    def __init__(self, images: int = 4, histograms: bool = False, class_names: Sequence[str] = ()) -> None:
        self.images = images
        self.histograms = histograms
        self.class_names = dict(enumerate(class_names))
        self._writers: dict[str, SummaryWriter] = {}
        self._speed = Speedometer()
        self._drawn: list[Image] = []

    def on_fit_start(self, trainer: "BaseTrainer") -> None:
        """Open the files in the main process of a run that has a folder.

        Raises:
            ConfigError: The package is not installed.
        """
        if not trainer.is_main_process or trainer.run_folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                f"trainer.tensorboard: true, and TensorBoard cannot be imported ({error}). It is a separate package. "
                "Run pip install tensorboard, or set trainer.tensorboard=false."
            ) from error
        self._speed, self._drawn = Speedometer(), []
        # TensorBoard hides earlier events from this step on.
        purge_step = trainer.global_step + 1 if trainer.global_step else None
        for name in ("train", "valid"):
            folder = Path(trainer.run_folder) / "tensorboard" / name
            self._writers[name] = SummaryWriter(str(folder), purge_step=purge_step)

    def on_step_end(self, trainer: "BaseTrainer", report: StepReport) -> None:
        """Measure the speed; write the loss of every fiftieth step."""
        if not self._writers:
            return
        self._speed.add(report)
        if trainer.global_step % STEPS_BETWEEN_SCALARS == 0:
            self._writers["train"].add_scalar("step/loss", float(report.loss), trainer.global_step)

    def on_validation_batch(self, trainer: "BaseTrainer", inputs: Tensor, target: Tensor, output: Tensor) -> None:
        """Draw the first samples, in about twenty epochs including the last one."""
        missing = self.images - len(self._drawn)
        period = max(1, trainer.epochs // TIMES_IMAGED)
        is_drawn = trainer.epoch % period == 0 or trainer.epoch + 1 == trainer.epochs
        if not self._writers or missing <= 0 or not is_drawn:
            return
        if target.dim() == 1 and output.dim() == 2 and inputs.dim() in (3, 4):
            names = self.class_names
            pairs = zip(inputs[:missing], target.tolist(), output.argmax(dim=1).tolist(), strict=False)
            for sample, truth, found in pairs:
                caption = f"{names.get(truth, str(truth))}, taken for {names.get(found, str(found))}"
                self._drawn.append(draw_input(sample.float().cpu().numpy(), caption))
        elif inputs.dim() == output.dim() == 4 and target.dim() == 3 and target.shape[1:] == inputs.shape[2:]:
            colors = class_colors(output.shape[1])
            for sample, truth, logits in zip(inputs[:missing], target, output, strict=False):
                shown = to_displayable(sample.float().cpu().numpy())
                masks = [overlay(shown, mask.cpu().numpy(), colors, 0.55) for mask in (truth, logits.argmax(dim=0))]
                self._drawn.append(panel([shown, *masks], ["input", "truth", "prediction"], PANEL_HEIGHT))

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """Write the epoch's row of the history, its speed, images and histograms."""
        if not self._writers:
            return
        step, train, valid = trainer.global_step, self._writers["train"], self._writers["valid"]
        for name, value in metrics.items():
            if name.startswith("val_"):
                valid.add_scalar(name.removeprefix("val_"), value, step)
            elif name not in NOT_RESULTS:
                train.add_scalar(name, value, step)
        seconds = self._speed.seconds or 1.0  # both rates are 0 without a step
        train.add_scalar("run/epoch", trainer.epoch, step)
        train.add_scalar("run/lr", metrics.get("lr", float("nan")), step)
        train.add_scalar("run/steps_per_second", self._speed.steps / seconds, step)
        train.add_scalar("run/data_share", self._speed.data_seconds / seconds, step)
        for number, image in enumerate(self._drawn):
            valid.add_image(f"validation/{number}", image, step, dataformats="HWC")
        for name, parameter in trainer.model.named_parameters() if self.histograms else ():
            # The prefixes of DataParallel and torch.compile: the tags are the same with and without them.
            plain_name = name.replace("module.", "").replace("_orig_mod.", "")
            for kind, tensor in (("parameters", parameter), ("gradients", parameter.grad)):
                values = None if tensor is None else tensor.detach().float()
                # TensorBoard refuses NaN and infinity.
                if values is not None and (finite := values[values.isfinite()]).numel():
                    train.add_histogram(f"{kind}/{plain_name}", finite.cpu(), step)
        for writer in self._writers.values():
            writer.flush()
        self._speed, self._drawn = Speedometer(), []

    def on_close(self, trainer: "BaseTrainer") -> None:
        """Write everything out and close the files, also after an error."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}
