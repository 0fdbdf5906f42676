"""The loop that every training shares: epochs, the best one, early stopping, callbacks, and its own state.

What happens inside an epoch is a subclass's; what happens around it (files, images, pruning) is a callback's.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from base.callback import Callback, StepReport
from utils.errors import CheckpointError, ConfigError, Interrupted
from utils.seeding import generator_state, restore_generator_state

Row = dict[str, float]


class Monitor:
    """Follows one value of the epoch's results.

    Args:
        rule: `"max val_miou"`, `"min val_loss"`, or `"off"`.

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
        """Note an epoch's results; whether it is the best so far (a NaN never is)."""
        if not self.name:
            return False
        if self._is_better(row[self.name]):
            self.best, self.stale_epochs = dict(row), 0
            return True
        self.stale_epochs += 1
        return False

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        best = self.best[self.name]
        return value < best if self.mode == "min" else value > best

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"best": self.best, "stale_epochs": self.stale_epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back a checkpoint's state."""
        self.best, self.stale_epochs = state["best"], state["stale_epochs"]


Interval = Literal["epoch", "step"]
_HORIZONS = ("total_steps", "T_max")  # what torch's schedulers call the length that they are laid out for


class LearningRateSchedule:
    """Steps one of torch's schedulers at the right moments.

    Args:
        scheduler: Any of torch's learning-rate schedulers.
        interval: Step after each `"step"` (optimizer update) or `"epoch"`.
        watched: The result that ReduceLROnPlateau looks at, e.g. `val_loss`.

    Raises:
        ConfigError: ReduceLROnPlateau without a result to watch, or per step.
    """

    def __init__(self, scheduler: LRScheduler, *, interval: Interval = "epoch", watched: str = "") -> None:
        self.scheduler = scheduler
        self.interval = interval
        self.watched = watched
        if isinstance(scheduler, ReduceLROnPlateau) and (not watched or self.interval == "step"):
            raise ConfigError(
                "lr_scheduler: ReduceLROnPlateau looks at the result of an epoch. It needs trainer.monitor and the "
                'interval "epoch". Set trainer.monitor, for example to "min val_loss".'
            )

    def after_step(self) -> None:
        """An optimizer step was made."""
        if self.interval == "step":
            self._move()

    def after_epoch(self, row: dict[str, float]) -> None:
        """An epoch ended with the results `row`."""
        if self.interval == "step":
            return
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(row[self.watched])
        else:
            self._move()

    def _move(self) -> None:
        with warnings.catch_warnings():
            # A run that goes on at the end of an epoch moves the schedule before this process made a step.
            warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before")
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's state, less what only its constructor can know (functions)."""
        state: dict[str, Any] = self.scheduler.state_dict()
        return {key: value for key, value in state.items() if not callable(value)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back a checkpoint's state.

        Raises:
            CheckpointError: It was laid out for another length of the run.
        """
        for name in _HORIZONS:
            planned, saved = getattr(self.scheduler, name, None), state.get(name)
            if planned != saved:
                raise CheckpointError(
                    f"The checkpoint's {type(self.scheduler).__name__} was laid out for {name} {saved}, the config's "
                    f"for {planned}. A schedule goes on only as it was begun. Keep trainer.epochs and the steps of an "
                    "epoch, or fine-tune: -c with --resume FILE."
                )
        self.scheduler.load_state_dict(state)


# In the place of a signal's number: the state is saved as for a signal, but the run ends well.
TIME_IS_OVER = 1000


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes:
        best: The history's row of the best epoch by the monitor; None where nothing is monitored.
        epochs: Epochs completed, those before a resume included.
        history: One row per epoch: epoch, step, lr, results; no wall-clock in it.
        checkpoint: The best checkpoint, else the last, where any was written.
        run_folder: Where everything of this run lies, where it wrote anything.
    """

    best: Row | None
    epochs: int
    history: list[Row]
    checkpoint: Path | None = None
    run_folder: Path | None = None


class BaseTrainer(ABC):
    """Runs epochs until they are done, a monitor has been stale for too long, or someone asks to stop.

    Args:
        model: The network, on its device; may be wrapped for several devices.
        optimizer: Steps the model's parameters.
        epochs: Epochs in all.
        monitor: `"max val_miou"`, `"min val_loss"` or `"off"`.
        early_stop: Epochs without a new best before the run ends.
        lr_scheduler: The schedule of the learning rate.
        callbacks: Called at each event, in this order.
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
        self.stop_signal: int | None = None
        self._generators: dict[str, Any] | None = None

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Training steps in one epoch."""

    @abstractmethod
    def train_epoch(self) -> Row:
        """Train from `self.batch` to the end of the epoch, calling `finish_step` after each step; the results."""

    def validate_epoch(self) -> Row:
        """Judge the model; results by their names without `val_`. Call `check_interrupt` now and then."""
        return {}

    def result_names(self) -> list[str]:
        """Names that the rows of the history will have, so that a wrong monitor is found before the first step."""
        return ["loss"]

    def loop_state(self) -> dict[str, Any]:
        """What of an unfinished epoch must survive, beside the position: running sums."""
        return {}

    def load_loop_state(self, state: dict[str, Any]) -> None:  # noqa: B027 - a trainer without running sums has none
        """Take back what `loop_state` gave."""

    @property
    def monitor_name(self) -> str:
        """The monitored result, empty where none is."""
        return self.monitor.name

    @property
    def best(self) -> Row | None:
        """The best epoch's row."""
        return self.monitor.best

    @property
    def is_finished(self) -> bool:
        """Whether no epoch is left to do."""
        is_stale = (
            bool(self.monitor.name) and self.early_stop is not None and (self.monitor.stale_epochs >= self.early_stop)
        )
        return self.epoch >= self.epochs or is_stale or self.stop_reason is not None

    def fit(self) -> TrainResult:
        """Train to the end and return what came of it.

        Raises:
            ConfigError: The monitor's name is not among the results.
            TrainingError: The loss is not finite, or memory ran out.
            Interrupted: A signal asked to stop; callbacks have saved the state.

        Where the time of the run is over, the state is saved, too, and the result is what there is.
        """
        self.monitor.check(self.result_names())
        try:
            self.notify("on_fit_start")
            try:
                while not self.is_finished:
                    self._run_epoch()
            except Interrupted as stop:
                if stop.signal_number != TIME_IS_OVER:
                    raise
                self.request_stop("max_time is over")
            result = TrainResult(self.best, self.epoch, self.history, self.checkpoint, self.run_folder)
            self.notify("on_fit_end", result)
        finally:
            self.notify("on_close")
        return result

    def _run_epoch(self) -> None:
        if self._generators is not None:
            restore_generator_state(self._generators)
            self._generators = None
        self.notify("on_epoch_start")
        row = {"epoch": self.epoch + 1, **self.train_epoch()}
        # A save during validation must hold the generators as the training left them: validation is done again.
        self._generators = generator_state()
        self.notify("on_validation_start")
        row |= {f"val_{name}": value for name, value in self.validate_epoch().items()}
        self._generators = None
        self._finish_epoch(row)
        self.check_interrupt()

    def _finish_epoch(self, row: Row) -> None:
        self.epoch, self.batch = self.epoch + 1, 0
        self.history.append(row)
        self.improved = self.monitor.update(row)
        if self.lr_scheduler is not None:
            self.lr_scheduler.after_epoch(row)
        self.notify("on_epoch_end", row)

    def finish_step(self, report: StepReport) -> None:
        """Count a training step, tell the callbacks, and stop here if a signal asked for it."""
        self.batch += 1
        self.global_step += 1
        if self.lr_scheduler is not None:
            self.lr_scheduler.after_step()
        for callback in self.callbacks:
            callback.on_step_end(self, report)
        self.check_interrupt()

    def check_interrupt(self) -> None:
        """Save and leave if a signal has asked for it.

        Raises:
            Interrupted: After every callback has saved what it must.
        """
        if self.stop_signal is not None and not self.is_finished:
            self.notify("on_interrupt")
            raise Interrupted(self.stop_signal)

    def request_stop(self, reason: str) -> None:
        """Let this epoch be the last one; for callbacks."""
        self.stop_reason = reason

    def notify(self, event: str, *arguments: Any) -> None:
        """Call one event of every callback."""
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights that a resumed run needs to end in the same bytes."""
        return {
            "epoch": self.epoch,
            "global_step": self.global_step,
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict() if self.lr_scheduler else None,
            "monitor": self.monitor.state_dict(),
            "history": self.history,
            "rng": self._generators or generator_state(),
            "loop": {"batch": self.batch, **self.loop_state()},
            "callbacks": {key: state for key, each in self._named_callbacks() if (state := each.state_dict())},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; call before `fit`."""
        self.epoch, self.global_step = state["epoch"], state["global_step"]
        self.batch = state["loop"]["batch"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lr_scheduler is not None and state["lr_scheduler"] is not None:
            self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        self.monitor.load_state_dict(state["monitor"])
        self.history = [dict(row) for row in state["history"]]
        self._generators = state["rng"]
        self.load_loop_state(state["loop"])
        for key, callback in self._named_callbacks():
            if key in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][key])

    def _named_callbacks(self) -> Iterator[tuple[str, Callback]]:
        """The callbacks by name of class: `Name`, and `Name-2` for the second of it."""
        seen: Counter[str] = Counter()
        for callback in self.callbacks:
            name = type(callback).__name__
            seen[name] += 1
            yield (name if seen[name] == 1 else f"{name}-{seen[name]}"), callback
