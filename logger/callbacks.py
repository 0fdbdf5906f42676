"""The callbacks that show and record a run: progress bar and log, TensorBoard, `metrics.csv` and `metrics.jsonl`."""

import csv
import io
import json
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, distributed
from tqdm import tqdm

from base.callback import Callback, StepReport
from logger.test_report.worst_cases import draw_input
from utils.drawing import Image, panel, to_displayable, valid_pixels
from utils.durations import duration
from utils.errors import ConfigError, TrainingError
from utils.files import without_nan, write_text_atomically
from utils.images.palette import Palette
from utils.writing.text import cell

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from base.base_trainer import BaseTrainer, TrainResult

LOG = logging.getLogger(__name__)
# Of the progress bar.
SECONDS_BETWEEN_UPDATES = 0.2
SMOOTHING = 0.7  # weight of the earlier losses in the loss that the bar shows
BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt}{postfix}"
# Of TensorBoard.
NOT_RESULTS = {"epoch", "step", "lr"}
STEPS_BETWEEN_SCALARS = 50
TIMES_IMAGED = 20  # TensorBoard itself shows ten images of a tag and drops the rest
PANEL_HEIGHT = 224
# Level 6, the usual one, takes three times as long and saves a tenth of the bytes.
PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT)


@dataclass
class Speedometer:
    """Speed of training: sums over the steps; adding a step costs four additions.

    Attributes:
        steps: Steps so far.
        samples: Their samples in this process.
        seconds: Their time.
        data_seconds: The part of it that was spent waiting for data.
    """

    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0

    def add(self, report: StepReport) -> None:
        """Count one step."""
        self.steps += 1
        self.samples += report.samples
        self.seconds += report.step_seconds
        self.data_seconds += report.data_seconds

    def summary(self) -> str:
        """Return the speed as text: `84.1 samples/s, data 3%`."""
        if not self.seconds:
            return "0 samples/s, data 0%"
        is_distributed = distributed.is_available() and distributed.is_initialized()
        samples = self.samples * (distributed.get_world_size() if is_distributed else 1)  # of all processes
        return f"{samples / self.seconds:.3g} samples/s, data {self.data_seconds / self.seconds:.0%}"


class _Bar(tqdm):  # type: ignore[type-arg]
    monitor_interval = 0  # no monitoring thread: loader workers are forked from this process


class ProgressBar(Callback):
    """Progress bar of an epoch if there is a terminal, and one line of the log per epoch.

    The bar shows the smoothed loss, the speed, the fraction of time spent waiting for data, and the time left of the
    whole run. The loss is read from the device at most five times a second.

    Args:
        show_bar: Draw the bar; None draws it if standard error is a terminal.
    """

    def __init__(self, *, show_bar: bool | None = None) -> None:
        self.show_bar = show_bar
        self._bar: _Bar | None = None
        self._next_update = 0.0
        self._loss: float | None = None
        self._epoch_start = self._validation_start = 0.0
        self._run_speed = self._epoch_speed = Speedometer()
        self._validation_seconds: list[float] = []
        self._validation_batches = 0

    def on_epoch_start(self, trainer: "BaseTrainer") -> None:
        """Open the bar at the batch from which the epoch continues."""
        self._epoch_start = time.perf_counter()
        self._epoch_speed = Speedometer()
        self._validation_batches = 0
        if trainer.is_main_process and (sys.stderr.isatty() if self.show_bar is None else self.show_bar):
            self._bar = _Bar(
                total=trainer.steps_per_epoch,
                initial=trainer.batch,
                desc=f"Epoch {trainer.epoch + 1}/{trainer.epochs}",
                bar_format=BAR_FORMAT,
                file=sys.stderr,
                leave=False,
                dynamic_ncols=True,
            )

    def on_step_end(self, trainer: "BaseTrainer", report: StepReport) -> None:
        """Measure the speed, and redraw the bar if it is time to."""
        self._epoch_speed.add(report)
        self._run_speed.add(report)
        # Reading the loss waits for the device: not in every step.
        if self._bar is None or time.perf_counter() < self._next_update:
            return
        loss = float(report.loss)
        self._loss = loss if self._loss is None else SMOOTHING * self._loss + (1 - SMOOTHING) * loss
        # Time left: the other steps at the average speed, and a validation after each epoch.
        epochs_left = trainer.epochs - trainer.epoch
        seconds_per_step = self._run_speed.seconds / self._run_speed.steps
        seconds_left = (epochs_left * trainer.steps_per_epoch - trainer.batch) * seconds_per_step
        if self._validation_seconds:
            seconds_left += epochs_left * sum(self._validation_seconds) / len(self._validation_seconds)
        text = f"loss {self._loss:.4f}, {self._epoch_speed.summary()}, {duration(seconds_left)} left"
        self._redraw(trainer.batch, text)

    def on_validation_start(self, trainer: "BaseTrainer") -> None:
        """Show that the steps of the epoch are done."""
        self._validation_start = time.perf_counter()
        self._redraw(trainer.batch, "validating")

    def on_validation_batch(self, trainer: "BaseTrainer", inputs: Tensor, target: Tensor, output: Tensor) -> None:
        """Show the number of batches so far."""
        self._validation_batches += 1
        if time.perf_counter() >= self._next_update:
            self._redraw(trainer.batch, f"validating, batch {self._validation_batches}")

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """Close the bar and log the epoch's losses, monitored metric, time and speed."""
        now = time.perf_counter()
        self._validation_seconds.append(now - self._validation_start)
        self.on_close(trainer)
        if not trainer.is_main_process:
            return
        names = dict.fromkeys(name for name in ("loss", "val_loss", trainer.monitor.name) if name in metrics)
        values = "  ".join(f"{name} {metrics[name]:.4f}" for name in names)
        is_best = trainer.best is not None and trainer.best.get("epoch") == metrics.get("epoch")
        mark = " (best)" if trainer.monitor.name and is_best else ""
        number = f"{trainer.epoch:{len(str(trainer.epochs))}d}/{trainer.epochs}"
        speed = self._epoch_speed.summary()
        LOG.info("Epoch %s  %s%s  %.1f s, %s", number, values, mark, now - self._epoch_start, speed)

    def on_fit_end(self, trainer: "BaseTrainer", result: "TrainResult") -> None:
        """Log the best epoch."""
        name, best = trainer.monitor.name, result.best
        if trainer.is_main_process and best is not None and name:
            LOG.info("Best: %s %.4f, epoch %d", name, best[name], int(best["epoch"]))

    def on_close(self, trainer: "BaseTrainer") -> None:
        """Remove the bar, also after an error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _redraw(self, batch: int, text: str) -> None:
        if self._bar is not None:
            self._bar.n = batch
            self._bar.set_postfix_str(text, refresh=True)
            self._next_update = time.perf_counter() + SECONDS_BETWEEN_UPDATES


def with_bar(batches: Iterable[Any], description: str) -> Iterable[Any]:
    """Return the same batches, which draw a bar as they are iterated over if standard error is a terminal."""
    return _Bar(batches, desc=description, file=sys.stderr, disable=None, leave=False, dynamic_ncols=True)


def content_area(pixels: NDArray[np.floating[Any]], ignored: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns of an image inside its padding.

    Rows and columns of the padding have one value and no label that counts, and lie at the border.

    Args:
        pixels: (C, H, W), the input of the network.
        ignored: (H, W), True for labels that do not count.
    """
    areas = []
    for axis in (0, 1):
        along = 1 - axis
        first = pixels.take([0], axis=1 + along)
        is_padding = ignored.all(axis=along) & (pixels == first).all(axis=(0, 1 + along))
        inside = np.flatnonzero(~is_padding)
        areas.append(slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(None))
    return areas[0], areas[1]


def draw_masks(
    pixels: NDArray[np.floating[Any]], labels: Sequence[NDArray[Any]], palette: Palette, ignore_index: int | None
) -> Image:
    """Draw an input with its true and its predicted mask side by side, without its padding.

    Args:
        pixels: (C, H, W), the input of the network.
        labels: (H, W) integers each, truth and prediction.
        palette: Colours of the classes.
        ignore_index: Label that does not count.
    """
    counted = valid_pixels(labels[0], len(palette.colors), ignore_index)
    area = content_area(pixels, ~counted)
    shown = np.ascontiguousarray(to_displayable(pixels)[area])
    masks = [mask[area] for mask in labels]
    overlays = [palette.overlay(shown, mask, 0.55, ignore_index) for mask in masks]
    drawn = panel([shown, *overlays], ["input", "truth", "prediction"], PANEL_HEIGHT)
    return palette.with_legend(drawn, palette.present(*masks))


def add_image(writer: "SummaryWriter", tag: str, image: Image, step: int) -> None:
    """Write an image as `SummaryWriter.add_image` does, in a quarter of the time and 1.1 times the bytes.

    That one has no argument for the level of compression.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary

    _, png = cv2.imencode(".png", image[..., ::-1], PNG_OPTIONS)
    shown = Summary.Image(
        height=image.shape[0], width=image.shape[1], colorspace=image.shape[2], encoded_image_string=png.tobytes()
    )
    file_writer: Any = writer.file_writer
    file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=shown)]), step)


def write_panels(writer: "SummaryWriter", images: Sequence[Future[Image]], step: int) -> None:
    """Write the validation images of a step when they are drawn."""
    for number, image in enumerate(images):
        add_image(writer, f"validation/{number}", image.result(), step)
    writer.flush()


def _not_importable(reason: str) -> ConfigError:
    return ConfigError(
        f"trainer.tensorboard: true, and TensorBoard cannot be imported ({reason}). It is a separate package. Run pip "
        "install tensorboard, or set trainer.tensorboard=false."
    )


class TensorBoardLogger(Callback):
    """Writer of two sub-runs, `train` and `valid`, whose results have the same names and so share their plots.

    Images are drawn and compressed by a thread, while the training continues; the run waits for it at its end.

    The horizontal axis is the step. A resumed run hides the points that the interrupted one wrote beyond the step from
    which it resumes. TensorBoard is imported, which takes most of a second, when the first point is written.

    Args:
        images: Number of validation samples to draw, about twenty times in a run: of a segmentation input, truth and
            prediction, of a classification the input with its class and the predicted one.
        histograms: Write the distribution of every parameter, and of its gradient, after each epoch.
        class_names: Names of the classes under images and in legends; without them, the ids.
        colors: `#rrggbb` for each class; without them, colours that are far apart.
        ignore_index: Label of masks that does not count.
    """

    def __init__(
        self,
        images: int = 4,
        histograms: bool = False,
        class_names: Sequence[str] = (),
        *,
        colors: Sequence[str] = (),
        ignore_index: int | None = None,
    ) -> None:
        self.images = images
        self.histograms = histograms
        self.colors, self.ignore_index = colors, ignore_index
        self.class_names = dict(enumerate(class_names))
        self._folder: Path | None = None  # None: nothing is written
        self._purge_step: int | None = None
        self._writers: dict[str, SummaryWriter] = {}  # by sub-run, opened with its first point
        self._speed = Speedometer()
        self._thread: ThreadPoolExecutor | None = None
        self._drawn: list[Future[Image]] = []
        self._pending: Future[None] | None = None

    def on_fit_start(self, trainer: "BaseTrainer") -> None:
        """Prepare to write in the main process of a run that has a folder.

        Raises:
            ConfigError: The package is not installed.
        """
        if not trainer.is_main_process or trainer.run_folder is None:
            return
        if find_spec("tensorboard") is None:
            raise _not_importable("there is no such package")
        self._speed, self._drawn = Speedometer(), []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="panels")
        # TensorBoard hides earlier events from this step on.
        self._purge_step = trainer.global_step + 1 if trainer.global_step else None
        self._folder = Path(trainer.run_folder) / "tensorboard"

    def _is_open(self) -> bool:
        """Return whether there are files to write to, which are opened with the first point.

        A package that is damaged ends no training: a warning says so, and nothing is written.
        """
        if self._folder is None or self._writers:
            return bool(self._writers)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            LOG.warning("%s Nothing is written for TensorBoard in this run.", _not_importable(str(error)))
            self._folder = None
            return False
        for name in ("train", "valid"):
            self._writers[name] = SummaryWriter(str(self._folder / name), purge_step=self._purge_step)
        return True

    def on_step_end(self, trainer: "BaseTrainer", report: StepReport) -> None:
        """Measure the speed; write the loss of every fiftieth step."""
        if self._folder is None:
            return
        self._speed.add(report)
        if trainer.global_step % STEPS_BETWEEN_SCALARS == 0 and self._is_open():
            self._writers["train"].add_scalar("step/loss", float(report.loss), trainer.global_step)

    def on_validation_batch(self, trainer: "BaseTrainer", inputs: Tensor, target: Tensor, output: Tensor) -> None:
        """Draw the first samples, in about twenty epochs including the last one."""
        missing = self.images - len(self._drawn)
        period = max(1, trainer.epochs // TIMES_IMAGED)
        is_drawn = trainer.epoch % period == 0 or trainer.epoch + 1 == trainer.epochs
        if self._thread is None or missing <= 0 or not is_drawn:
            return
        # Copies: the loader and the network may use the memory of a batch again before the thread has drawn it.
        samples = [sample.float().cpu().numpy().copy() for sample in inputs[:missing]]
        if target.dim() == 1 and output.dim() == 2 and inputs.dim() in (3, 4):
            names = self.class_names
            for sample, truth, found in zip(samples, target.tolist(), output.argmax(dim=1).tolist(), strict=False):
                caption = f"{names.get(truth, str(truth))}, taken for {names.get(found, str(found))}"
                self._drawn.append(self._thread.submit(draw_input, sample, caption))
        elif inputs.dim() == output.dim() == 4 and target.dim() == 3 and target.shape[1:] == inputs.shape[2:]:
            palette = Palette.of(output.shape[1], list(self.class_names.values()), self.colors)
            for sample, truth, logits in zip(samples, target, output, strict=False):
                labels = [mask.cpu().numpy().copy() for mask in (truth, logits.argmax(dim=0))]
                self._drawn.append(self._thread.submit(draw_masks, sample, labels, palette, self.ignore_index))

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """Write the epoch's row of the history, its speed, images and histograms."""
        if not self._is_open():
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
        for name, note in trainer.epoch_notes().items():
            if isinstance(note, str):
                train.add_text(name, note, step)
            else:
                add_image(train, name, note, step)
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
        self._wait()
        if self._thread is not None and self._drawn:
            self._pending = self._thread.submit(write_panels, valid, self._drawn, step)
        self._speed, self._drawn = Speedometer(), []

    def on_fit_end(self, trainer: "BaseTrainer", result: "TrainResult") -> None:
        """Wait until the last images are written."""
        self._wait()

    def _wait(self) -> None:
        """Wait until the images of the epoch before are written; a training does not end because they are not."""
        pending, self._pending = self._pending, None
        error = None if pending is None else pending.exception()
        if error is not None:
            LOG.warning("TensorBoard: the validation images of an epoch were not written (%s).", error)

    def on_close(self, trainer: "BaseTrainer") -> None:
        """Write everything out and close the files, also after an error."""
        self._wait()
        if self._thread is not None:
            self._thread.shutdown()
        self._thread = None
        for writer in self._writers.values():
            writer.close()
        self._writers, self._folder = {}, None


class MetricsFile(Callback):
    """Writer of the whole history after each epoch, so that the files always agree with the checkpoint."""

    def on_fit_start(self, trainer: "BaseTrainer") -> None:
        """Cut the files of a resumed run back to the restored history."""
        if trainer.history:
            self.on_epoch_end(trainer, trainer.history[-1])

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """Write both files anew; numbers are exact.

        Raises:
            TrainingError: A file cannot be written.
        """
        if not trainer.is_main_process or trainer.run_folder is None:
            return
        # The union of all columns, in the order of first appearance. `repr` writes the shortest number that is read
        # back as the same float. JSON does not have NaN and infinity: they are null.
        columns = list(dict.fromkeys(name for row in trainer.history for name in row))
        table, lines = io.StringIO(), ""
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(map(cell, columns))
        for row in trainer.history:
            writer.writerow([repr(row[name]) if name in row else "" for name in columns])
            lines += f"{json.dumps(without_nan(row), allow_nan=False)}\n"
        for name, text in (("metrics.csv", table.getvalue()), ("metrics.jsonl", lines)):
            path = Path(trainer.run_folder) / name
            try:
                write_text_atomically(path, text)
            except OSError as error:
                raise TrainingError(
                    f"{path}: not written ({error.strerror}). The run folder must be writable during the run. "
                    "Free some space or correct the permissions, then run the same command with --resume auto."
                ) from error
