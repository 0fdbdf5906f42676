"""Doing the slow half of a loop in a thread of its own."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
_PATIENCE_SECONDS = 0.1  # how soon a waiting reader notices that nobody wants more


def read_ahead(items: Iterable[T], depth: int, *, keep_newest: bool = False) -> Generator[T]:
    """Iterate in a thread, so that decoding goes on while the network computes.

    Closing the generator stops the thread and waits for it. What iterating raises is raised here, after the items
    before it.

    Args:
        items: Iterated in the thread.
        depth: How many items may wait.
        keep_newest: Rather drop the oldest waiting item than let the reader wait: for a live picture.
    """
    waiting: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(maxsize=max(1, depth))
    is_wanted = threading.Event()
    is_wanted.set()
    reader = threading.Thread(target=_fill, args=(items, waiting, is_wanted, keep_newest), name="reader", daemon=True)
    reader.start()
    try:
        while (entry := waiting.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        is_wanted.clear()
        reader.join()


def _fill(
    items: Iterable[T],
    waiting: "queue.Queue[tuple[T] | BaseException | None]",
    is_wanted: threading.Event,
    keep_newest: bool,
) -> None:
    last: BaseException | None = None
    iterator = iter(items)
    try:
        for item in iterator:
            if keep_newest and waiting.full():
                _drop_oldest(waiting)
            _put(waiting, (item,), is_wanted)
            if not is_wanted.is_set():
                break
    except BaseException as error:  # handed over to whoever reads, whatever it is
        last = error
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
        _put(waiting, last, is_wanted)


def _drop_oldest(waiting: "queue.Queue[tuple[T] | BaseException | None]") -> None:
    try:
        waiting.get_nowait()
    except queue.Empty:
        return


def _put(
    waiting: "queue.Queue[tuple[T] | BaseException | None]",
    entry: "tuple[T] | BaseException | None",
    is_wanted: threading.Event,
) -> None:
    while is_wanted.is_set():
        try:
            waiting.put(entry, timeout=_PATIENCE_SECONDS)
        except queue.Full:
            continue
        return
