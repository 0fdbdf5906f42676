"""Signals become a wish to stop at the next step, where the state can be saved."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from base.base_trainer import BaseTrainer

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")


@contextmanager
def stop_at_next_step(trainer: BaseTrainer) -> Iterator[None]:
    """Within the block, SIGINT, SIGTERM and SIGUSR1 ask `trainer` to save and stop; a second SIGINT stops at once.

    Outside the main thread signals cannot be caught and the block changes nothing.
    """

    def ask(number: int, _frame: FrameType | None) -> None:
        if trainer.stop_signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        trainer.stop_signal = number

    numbers = [getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)]
    try:
        previous = {number: signal.signal(number, ask) for number in numbers}
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
