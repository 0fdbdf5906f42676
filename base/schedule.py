"""When the learning rate moves: one call per step and one per epoch, and exactly one of them acts."""

import warnings
from typing import Any, Literal

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from utils.errors import CheckpointError, ConfigError

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
