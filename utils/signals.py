"""Signals as a wish: noted for a block, acted upon where it suits."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def noted(names: Sequence[str], has_come: Callable[[], bool], note: Callable[[int], None]) -> Iterator[None]:
    """Note signals for a block in the place of what they do; a second SIGINT ends at once.

    Outside the main thread signals cannot be caught and the block changes nothing.

    Args:
        names: Such as `SIGTERM`; those that the system does not have are left out.
        has_come: Whether one was noted before.
        note: Takes the number of one.
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
