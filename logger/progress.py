"""The bar of an epoch, and a line when it is over."""

import logging
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch.distributed
from tqdm import tqdm

from base.callback import Callback, StepReport
from utils.durations import duration

if TYPE_CHECKING:
    from torch import Tensor

    from base.base_trainer import BaseTrainer, TrainResult


class Speedometer:
    """Sums over training steps; adding one costs three additions."""

    def __init__(self) -> None:
        self.steps = 0
        self.samples = 0
        self.seconds = 0.0
        self.data_seconds = 0.0
        is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._processes = torch.distributed.get_world_size() if is_distributed else 1

    def add(self, report: StepReport) -> None:
        """Count one step."""
        self.steps += 1
        self.samples += report.samples
        self.seconds += report.step_seconds
        self.data_seconds += report.data_seconds

    @property
    def samples_per_second(self) -> float:
        """Training samples per second, of all processes; 0 before the first step."""
        return self._processes * self.samples / self.seconds if self.seconds else 0.0

    @property
    def steps_per_second(self) -> float:
        """Training steps per second; 0 before the first step."""
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def data_share(self) -> float:
        """Share of the time spent waiting for the loader, 0..1."""
        return self.data_seconds / self.seconds if self.seconds else 0.0

    def summary(self) -> str:
        """`84.1 samples/s, data 3%`."""
        return f"{self.samples_per_second:.3g} samples/s, data {self.data_share:.0%}"


LOG = logging.getLogger(__name__)
SECONDS_BETWEEN_UPDATES = 0.2
SMOOTHING = 0.7
BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt}{postfix}"


class _Bar(tqdm):  # type: ignore[type-arg]
    monitor_interval = 0  # no thread of its own: loaders fork


class ProgressBar(Callback):
    """A bar on a terminal, and everywhere one line of the log per epoch.

    The bar shows the loss (smoothed), the speed, the share of time spent waiting for data and the time left of the
    whole run. The loss is read from the device at most five times a second.

    Args:
        show_bar: Draw the bar; by default where standard error is a terminal.
    """

    def __init__(self, *, show_bar: bool | None = None) -> None:
        self.show_bar = show_bar
        self._bar: _Bar | None = None
        self._next_update = 0.0
        self._loss: float | None = None
        self._epoch_began = self._validation_began = 0.0
        self._run_speed = self._epoch_speed = Speedometer()
        self._validation_seconds: list[float] = []
        self._validation_batches = 0

    def on_fit_start(self, trainer: "BaseTrainer") -> None:
        """Begin to measure."""
        self._run_speed = Speedometer()
        self._validation_seconds = []

    def on_epoch_start(self, trainer: "BaseTrainer") -> None:
        """Open the bar, at the batch where the epoch goes on."""
        self._epoch_began = time.perf_counter()
        self._epoch_speed = Speedometer()
        self._validation_batches = 0
        shown = sys.stderr.isatty() if self.show_bar is None else self.show_bar
        if trainer.is_main_process and shown:
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
        """Measure; now and then redraw."""
        self._epoch_speed.add(report)
        self._run_speed.add(report)
        if self._bar is None or time.perf_counter() < self._next_update:
            return
        loss = float(report.loss)
        self._loss = loss if self._loss is None else SMOOTHING * self._loss + (1 - SMOOTHING) * loss
        left = duration(self._seconds_left(trainer))
        self._bar.n = trainer.batch
        self._redraw(f"loss {self._loss:.4f}, {self._epoch_speed.summary()}, {left} left")

    def on_validation_start(self, trainer: "BaseTrainer") -> None:
        """Say that the steps are done."""
        self._validation_began = time.perf_counter()
        if self._bar is not None:
            self._bar.n = trainer.batch
            self._redraw("validating")

    def on_validation_batch(self, trainer: "BaseTrainer", inputs: "Tensor", target: "Tensor", output: "Tensor") -> None:
        """Show that it goes on."""
        self._validation_batches += 1
        if self._bar is not None and time.perf_counter() >= self._next_update:
            self._redraw(f"validating, batch {self._validation_batches}")

    def on_epoch_end(self, trainer: "BaseTrainer", metrics: dict[str, float]) -> None:
        """Close the bar and write the epoch's line."""
        now = time.perf_counter()
        self._validation_seconds.append(now - self._validation_began)
        self._close_bar()
        if trainer.is_main_process:
            LOG.info("%s", self._epoch_line(trainer, metrics, now - self._epoch_began))

    def on_interrupt(self, trainer: "BaseTrainer") -> None:
        """Clear the bar away."""
        self._close_bar()

    def on_fit_end(self, trainer: "BaseTrainer", result: "TrainResult") -> None:
        """Say what came of it."""
        name, best = trainer.monitor_name, result.best
        if trainer.is_main_process and best is not None and name:
            LOG.info("Best: %s %.4f, epoch %d", name, best[name], int(best["epoch"]))

    def on_close(self, trainer: "BaseTrainer") -> None:
        """Clear the bar away, also after an error."""
        self._close_bar()

    def _epoch_line(self, trainer: "BaseTrainer", row: dict[str, float], seconds: float) -> str:
        names = dict.fromkeys(name for name in ("loss", "val_loss", trainer.monitor_name) if name in row)
        values = "  ".join(f"{name} {row[name]:.4f}" for name in names)
        is_best = trainer.best is not None and trainer.best.get("epoch") == row.get("epoch")
        mark = " (best)" if trainer.monitor_name and is_best else ""
        width = len(str(trainer.epochs))
        speed = self._epoch_speed.summary()
        return f"Epoch {trainer.epoch:{width}d}/{trainer.epochs}  {values}{mark}  {seconds:.1f} s, {speed}"

    def _seconds_left(self, trainer: "BaseTrainer") -> float:
        """Time left of the run: the steps at the speed so far, and a validation after each epoch."""
        epochs_left = trainer.epochs - trainer.epoch
        steps_left = epochs_left * trainer.steps_per_epoch - trainer.batch
        validations = self._validation_seconds
        each_validation = sum(validations) / len(validations) if validations else 0.0
        return steps_left * self._run_speed.seconds / self._run_speed.steps + epochs_left * each_validation

    def _redraw(self, text: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=True)
        self._next_update = time.perf_counter() + SECONDS_BETWEEN_UPDATES

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def with_bar(batches: Iterable[Any], description: str) -> Iterable[Any]:
    """The same batches, with a bar where standard error is a terminal."""
    return _Bar(batches, desc=description, file=sys.stderr, disable=None, leave=False, dynamic_ncols=True)
