"""A run that ends in time, with its state saved."""

import logging
from contextlib import AbstractContextManager
from time import monotonic

from base.base_trainer import TIME_IS_OVER, BaseTrainer
from base.callback import Callback, StepReport
from utils import signals

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")


def stop_at_next_step(trainer: BaseTrainer) -> AbstractContextManager[None]:
    """Within the block, SIGINT, SIGTERM and SIGUSR1 ask `trainer` to save and stop; a second SIGINT stops at once.

    Outside the main thread signals cannot be caught and the block changes nothing.
    """

    def ask(number: int) -> None:
        trainer.stop_signal = number

    return signals.noted(STOP_SIGNALS, lambda: trainer.stop_signal is not None, ask)


logger = logging.getLogger(__name__)


class TimeLimit(Callback):
    """Saves and ends a run after so many minutes of this process, at the next step; `--resume auto` goes on with it.

    Args:
        minutes: How long this process may train; a resumed run has as long again.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self._ends_at = float("inf")

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """The time begins."""
        self._ends_at = monotonic() + 60 * self.minutes

    def on_step_end(self, trainer: BaseTrainer, report: StepReport) -> None:
        """Ask to stop where the time is over, unless a signal already does."""
        if monotonic() >= self._ends_at and trainer.stop_signal is None:
            logger.info("The %g minutes of trainer.max_time are over: saving. --resume auto goes on.", self.minutes)
            trainer.stop_signal = TIME_IS_OVER
