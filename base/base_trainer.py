"""The loop that every training shares: epochs, the best one, early stopping, callbacks, and its state.

A subclass decides what happens inside an epoch; a callback adds what happens around it (files, images, pruning).
"""

import logging
import math
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from base.base_data_loader import BaseDataLoader
from base.callback import Callback, StepReport
from base.schedule import LearningRateSchedule
from utils.errors import ConfigError, EspalierError, Interrupted, TrainingError, signal_name
from utils.seeding import generator_state, restore_generator_state

logger = logging.getLogger(__name__)

Row = dict[str, float]


class Monitor:
    """Follows one value of the epoch's results.

    Args:
        rule: `"max val_miou"`, `"min val_loss"`, or `"off"`.

    Attributes:
        mode: `max`, `min` or `off`.
        name: Name of the value, empty if nothing is monitored.
        best: The row of the best epoch.
        stale_epochs: Epochs since the best one.

    Raises:
        ConfigError: The rule is not of that form.
    """

    def __init__(self, rule: str) -> None:
        mode, _, name = rule.partition(" ")
        if rule != "off" and (mode not in ("min", "max") or not name.strip()):
            raise ConfigError(
                f'trainer.monitor: "{rule}" is not a rule. It is "min NAME", "max NAME" or "off". Write for example '
                '"max val_miou".'
            )
        self.mode = mode
        self.name = name.strip()
        self.best: Row | None = None
        self.stale_epochs = 0

    def check(self, known: list[str]) -> None:
        """Refuse a name that no epoch will report.

        Raises:
            ConfigError: The name is not among `known`.
        """
        if self.name and self.name not in known:
            raise ConfigError(
                f'trainer.monitor: "{self.name}" is not among the results of an epoch, which are {", ".join(known)}. '
                f'Write one of these after "{self.mode}".'
            )

    def update(self, row: Row) -> bool:
        """Record an epoch's results; return whether it is the best so far (a NaN never is)."""
        if not self.name:
            return False
        value, best = row[self.name], None if self.best is None else self.best[self.name]
        is_better = best is None or (value < best if self.mode == "min" else value > best)
        if is_better and not math.isnan(value):
            self.best, self.stale_epochs = dict(row), 0
            return True
        self.stale_epochs += 1
        return False


@dataclass(frozen=True)
class StopRequest:
    """A request to save the state and stop after the current step.

    Attributes:
        reason: Why, for the records of the run.
        signal_number: The signal that asked for it, e.g. 15 for SIGTERM; None if the run stops by itself, which then
            counts as its normal end.
    """

    reason: str
    signal_number: int | None = None

    @classmethod
    def from_signal(cls, number: int) -> "StopRequest":
        """Return the request of a signal."""
        return cls(signal_name(number), number)


class StopWaiting(BaseException):
    """Leaves the wait for a batch when a signal arrives; no code of a data set shall catch it."""


class StopTraining(Exception):
    """Leaves the loop after the state was saved, for a stop request that is no signal."""


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training.

    Attributes:
        best: The history's row of the best epoch by the monitor; None if nothing is monitored.
        epochs: Epochs completed, those before a resume included.
        history: One row per epoch: epoch, step, lr, results; no wall-clock time in it.
        checkpoint: The best checkpoint, else the last, if any was written.
        run_folder: The folder of the run, if it wrote anything.
    """

    best: Row | None
    epochs: int
    history: list[Row]
    checkpoint: Path | None = None
    run_folder: Path | None = None


class BaseTrainer(ABC):
    """Runs epochs until all are done, the monitor has been stale for too long, or a stop is requested.

    Args:
        model: The network, on its device; may be wrapped for several devices.
        optimizer: Updates the model's parameters.
        epochs: Number of epochs.
        monitor: `"max val_miou"`, `"min val_loss"` or `"off"`.
        early_stop: Epochs without a new best after which the run ends.
        lr_scheduler: The schedule of the learning rate.
        callbacks: Called at each event, in this order.

    Attributes:
        epoch: Epochs completed.
        batch: Steps completed in the current epoch.
        global_step: Steps completed in the run.
        history: The results of each epoch.
        improved: Whether the last epoch is the best so far.
        run_folder: The folder of the run, if it has one.
        checkpoint: The best checkpoint, else the last, if any was written.
        stop_reason: Why no further epoch starts, if it was requested.
        stop_request: A request to save and stop at the next safe point.
        is_waiting: Whether the loop waits for a batch, and a signal may end the wait.
        saved_generators: The state of the random generators that a checkpoint must hold instead of the current one, and
            that the next epoch starts with: from a loaded checkpoint until then, and during validation, which draws
            random numbers and is repeated after a resume.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        epochs: int,
        monitor: str = "off",
        early_stop: int | None = None,
        lr_scheduler: LearningRateSchedule | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.epochs = epochs
        self.monitor = Monitor(monitor)
        self.early_stop = early_stop
        self.lr_scheduler = lr_scheduler
        self.callbacks = list(callbacks)
        self.epoch = 0
        self.batch = 0
        self.global_step = 0
        self.history: list[Row] = []
        self.improved = False
        self.run_folder: Path | None = None
        self.checkpoint: Path | None = None
        self.is_main_process = True
        self.stop_reason: str | None = None
        self.stop_request: StopRequest | None = None
        self.is_waiting = False
        self.saved_generators: dict[str, Any] | None = None

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Training steps in one epoch."""

    @abstractmethod
    def train_epoch(self) -> Row:
        """Train from `self.batch` to the end of the epoch, call `finish_step` after each step; return the results."""

    def validate_epoch(self) -> Row:
        """Evaluate the model; return results by their names without `val_`. Call `check_interrupt` now and then."""
        return {}

    def result_names(self) -> list[str]:
        """Return the names that the rows of the history will have, to find a wrong monitor before the first step."""
        return ["loss"]

    def loop_state(self) -> dict[str, Any]:
        """Return what an unfinished epoch must not lose, apart from its position: running sums."""
        return {}

    def load_loop_state(self, state: dict[str, Any]) -> None:  # noqa: B027 - a trainer without running sums has none
        """Restore the result of `loop_state`."""

    @classmethod
    def step_loader(cls, loader: BaseDataLoader) -> BaseDataLoader:
        """Return the loader whose batches are the steps of an epoch, of that of all training data: it, or a part."""
        return loader

    def epoch_notes(self) -> Mapping[str, str | NDArray[np.uint8]]:
        """Return what the logs show of the last epoch next to its results: Markdown, or images (h, w, 3) RGB."""
        return {}

    @property
    def best(self) -> Row | None:
        """The best epoch's row."""
        return self.monitor.best

    @property
    def stale_epochs(self) -> int:
        """Epochs without a new best, as `early_stop` counts them."""
        return self.monitor.stale_epochs

    @property
    def is_finished(self) -> bool:
        """Whether no epoch is left to do."""
        is_stale = bool(self.monitor.name) and self.early_stop is not None and self.stale_epochs >= self.early_stop
        return self.epoch >= self.epochs or is_stale or self.stop_reason is not None

    @property
    def stop_signal(self) -> int | None:
        """The old name of the signal in `stop_request`."""
        return None if self.stop_request is None else self.stop_request.signal_number

    @stop_signal.setter
    def stop_signal(self, number: int | None) -> None:
        warnings.warn(
            "trainer.stop_signal = N is now trainer.stop_request = StopRequest.from_signal(N) of base.base_trainer",
            DeprecationWarning,
            stacklevel=2,
        )
        self.stop_request = None if number is None else StopRequest.from_signal(number)

    def fit(self) -> TrainResult:
        """Train to the end and return the outcome.

        A run that a stop request without a signal ends (its time is over) saves its state and returns its results so
        far.

        Raises:
            ConfigError: The monitor's name is not among the results.
            TrainingError: The loss is not finite, the monitored result is NaN, or memory ran out.
            Interrupted: A signal asked to stop; callbacks have saved the state.
        """
        self.monitor.check(self.result_names())
        try:
            self.notify("on_fit_start")
            try:
                try:
                    while not self.is_finished:
                        self.run_epoch()
                except StopWaiting:
                    self.check_interrupt()
            except StopTraining as stop:
                self.request_stop(str(stop))
            result = TrainResult(self.best, self.epoch, self.history, self.checkpoint, self.run_folder)
            self.notify("on_fit_end", result)
        finally:
            self.close_callbacks()
        return result

    def run_epoch(self) -> None:
        """Train and validate one epoch, or the rest of one after a resume, and record its results."""
        if self.saved_generators is not None:
            restore_generator_state(self.saved_generators)
            self.saved_generators = None
        self.notify("on_epoch_start")
        row = {"epoch": self.epoch + 1, **self.train_epoch()}
        self.saved_generators = generator_state()  # a checkpoint during the validation repeats it from here
        self.notify("on_validation_start")
        row |= {f"val_{name}": value for name, value in self.validate_epoch().items()}
        self.saved_generators = None

        # The epoch counts as done before the callbacks see it: a checkpoint that they write continues with the next.
        self.epoch, self.batch = self.epoch + 1, 0
        self.history.append(row)
        self.improved = self.monitor.update(row)
        if self.lr_scheduler is not None:
            self.lr_scheduler.after("epoch", row)
        self.notify("on_epoch_end", row)
        if self.monitor.name and math.isnan(row[self.monitor.name]):
            self.report_nan(self.monitor.name)
        self.check_interrupt()

    def report_nan(self, name: str) -> None:
        """Refuse to continue with a monitored result that is NaN.

        The epoch has been saved: with another monitor, a resumed run continues after it.

        Raises:
            TrainingError: It names the result, the reason, and the best epoch before, if there is one.
        """
        best = "No epoch can be" if self.best is None else f"Epoch {self.best['epoch']} is"
        raise TrainingError(
            f"trainer.monitor: {name} is NaN in epoch {self.epoch}: {self.reason_for_nan(name)}. {best} the best by "
            "it. Correct the data, or follow another result."
        )

    def reason_for_nan(self, name: str) -> str:
        """Return why a result of the last epoch is NaN, as a clause for a message."""
        return "its computation gave no number"

    def finish_step(self, report: StepReport) -> None:
        """Count a training step, notify the callbacks, and stop here if it was requested."""
        # Before the callbacks: a checkpoint that they write continues with the next step, at its learning rate.
        self.batch += 1
        self.global_step += 1
        if self.lr_scheduler is not None:
            self.lr_scheduler.after("step")
        self.notify("on_step_end", report)
        self.check_interrupt()

    def check_interrupt(self) -> None:
        """Save and leave the loop if a stop was requested.

        Raises:
            Interrupted: A signal asked for it; every callback has saved its state.
            StopTraining: The run stops by itself; `fit` catches it.
        """
        if self.stop_request is None or self.is_finished:  # a finished run needs no interruption
            return
        self.notify("on_interrupt")
        if self.stop_request.signal_number is not None:
            raise Interrupted(self.stop_request.signal_number)
        raise StopTraining(self.stop_request.reason)

    @property
    def stops_alone(self) -> bool:
        """Whether this process may save and stop without agreement with others."""
        return True

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a signal end a block that waits for a batch, and save the state of the last step if the loader fails.

        Nothing of a step may be changed before the block, nor in it. Several processes must save together: there a
        signal waits for the batch.

        Raises:
            StopWaiting: A signal arrived; `fit` saves the state.
        """
        if not self.stops_alone:
            yield
            return
        self.is_waiting = True
        try:
            if self.stop_request is not None:  # it came after the last check, and before a signal could end the wait
                self.leave_waiting()
            yield
        except (EspalierError, RuntimeError) as error:
            self.is_waiting = False
            self.check_interrupt()
            if isinstance(error, EspalierError):
                self.save_before_end()
            raise
        finally:
            self.is_waiting = False

    def leave_waiting(self) -> None:
        """End the wait for a batch, if there is one; the handler of a signal calls it, which has set `stop_request`.

        Raises:
            StopWaiting: There is one.
        """
        if self.is_waiting and not self.is_finished:
            self.is_waiting = False  # once only
            raise StopWaiting

    def save_before_end(self) -> None:
        """Save the state of the last step, since an error is about to end the run."""
        if not self.global_step:
            return
        try:
            self.notify("on_interrupt")
        except EspalierError as error:
            logger.warning("The state of step %d was not saved: %s", self.global_step, error)
        else:
            logger.warning("The state of step %d is saved: --resume auto continues with it.", self.global_step)

    def request_stop(self, reason: str) -> None:
        """Let this epoch be the last one; for callbacks."""
        self.stop_reason = reason

    def notify(self, event: str, *arguments: Any) -> None:
        """Call one event of every callback that overrides it."""
        for callback in self.callbacks:
            handler = getattr(callback, event)
            # Most callbacks override few events: in each step, only the others cost time.
            if getattr(handler, "__func__", handler) is not getattr(Callback, event):
                handler(self, *arguments)

    def close_callbacks(self) -> None:
        """Call `on_close` of every callback, also after the error of one; the first error is raised at the end."""
        errors = []
        for callback in self.callbacks:
            try:
                callback.on_close(self)
            except Exception as error:  # a full disk, or any error of a plug-in
                errors.append(error)
        if errors:
            raise errors[0]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the weights that a resumed run needs to end in the same bytes."""
        return {
            "epoch": self.epoch,
            "global_step": self.global_step,
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict() if self.lr_scheduler else None,
            "monitor": {"best": self.monitor.best, "stale_epochs": self.monitor.stale_epochs},
            "history": self.history,
            "rng": self.saved_generators or generator_state(),
            "callbacks": {key: state for key, each in self._named_callbacks() if (state := each.state_dict())},
            "loop": {"batch": self.batch, **self.loop_state()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`; call it before `fit`."""
        self.epoch, self.global_step = state["epoch"], state["global_step"]
        self.batch = state["loop"]["batch"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lr_scheduler is not None and state["lr_scheduler"] is not None:
            epochs_left = max(0, self.epochs - self.epoch)
            steps_left = max(0, epochs_left * self.steps_per_epoch - self.batch)
            moves = {"moves_left": steps_left, "moves_due": self.epoch * self.steps_per_epoch + self.batch}
            if self.lr_scheduler.interval == "epoch":
                moves = {"moves_left": epochs_left, "moves_due": self.epoch}
            self.lr_scheduler.load_state_dict(state["lr_scheduler"], **moves)
        monitored = state["monitor"]
        self.monitor.best, self.monitor.stale_epochs = monitored["best"], monitored["stale_epochs"]
        self.history = [dict(row) for row in state["history"]]
        self.saved_generators = state["rng"]
        self.load_loop_state(state["loop"])
        for key, callback in self._named_callbacks():
            if key in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][key])

    def _named_callbacks(self) -> Iterator[tuple[str, Callback]]:
        """Yield the callbacks by name of class: `Name`, and `Name-2` for the second of it."""
        seen: Counter[str] = Counter()
        for callback in self.callbacks:
            name = type(callback).__name__
            seen[name] += 1
            yield (name if seen[name] == 1 else f"{name}-{seen[name]}"), callback
