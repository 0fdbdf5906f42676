"""Signals as requests: recorded during a block, obeyed at the next safe point."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def noted(names: Sequence[str], has_come: Callable[[], bool], note: Callable[[int], None]) -> Iterator[None]:
    """Record signals during a block instead of obeying them; a second SIGINT ends at once.

    Outside the main thread signals cannot be caught and the block changes nothing.

    Args:
        names: Such as `SIGTERM`; signals that the system does not have are left out.
        has_come: Returns whether a signal was recorded before.
        note: Receives the number of the signal.
    """

    def ask(number: int, _frame: object) -> None:
        if has_come() and number == signal.SIGINT:
            raise KeyboardInterrupt
        note(number)

    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
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
