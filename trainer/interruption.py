"""Signals become a wish to stop at the next step, where the state can be saved."""

from contextlib import AbstractContextManager

from base.base_trainer import BaseTrainer
from utils import signals

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")


def stop_at_next_step(trainer: BaseTrainer) -> AbstractContextManager[None]:
    """Within the block, SIGINT, SIGTERM and SIGUSR1 ask `trainer` to save and stop; a second SIGINT stops at once.

    Outside the main thread signals cannot be caught and the block changes nothing.
    """

    def ask(number: int) -> None:
        trainer.stop_signal = number

    return signals.noted(STOP_SIGNALS, lambda: trainer.stop_signal is not None, ask)
