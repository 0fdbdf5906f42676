"""The progress bar of an epoch, and a line of the log when it ends."""

import logging
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import distributed
from tqdm import tqdm

from base.callback import Callback, StepReport
from utils.durations import duration

if TYPE_CHECKING:
    from torch import Tensor

    from base.base_trainer import BaseTrainer, TrainResult

LOG = logging.getLogger(__name__)
SECONDS_BETWEEN_UPDATES = 0.2
SMOOTHING = 0.7  # weight of the earlier losses in the loss that the bar shows
BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt}{postfix}"


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

    def rates(self) -> tuple[float, float, float]:
        """Return samples per second of all processes, steps per second, and the fraction of time spent on data."""
        if not self.seconds:
            return 0.0, 0.0, 0.0
        is_distributed = distributed.is_available() and distributed.is_initialized()
        samples = self.samples * (distributed.get_world_size() if is_distributed else 1)
        return samples / self.seconds, self.steps / self.seconds, self.data_seconds / self.seconds

    def summary(self) -> str:
        """Return the speed as text: `84.1 samples/s, data 3%`."""
        samples_per_second, _, data_fraction = self.rates()
        return f"{samples_per_second:.3g} samples/s, data {data_fraction:.0%}"


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

    def on_validation_batch(self, trainer: "BaseTrainer", inputs: "Tensor", target: "Tensor", output: "Tensor") -> None:
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
