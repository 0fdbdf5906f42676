"""Worker processes of a loader: how many, what they leave to the main process, and how their death is noticed."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch

from base.data.index_sampler import Failure
from utils.hardware import available_processors


@runtime_checkable
class Packed(Protocol):
    """What a worker sends where the batch itself would be costly or impossible to send."""

    def unpack(self) -> Any:
        """The batch, made in the main process."""


class GuardedCollate:
    """Makes a batch of samples unless one of them is a failure, which then takes the batch's place.

    Args:
        collate_fn: List of samples -> batch.
    """

    def __init__(self, collate_fn: Callable[[list[Any]], Any]) -> None:
        self.collate_fn = collate_fn

    def __call__(self, samples: list[Any]) -> Any:
        """The batch, or the first failure."""
        for sample in samples:
            if isinstance(sample, Failure):
                return sample
        return self.collate_fn(samples)


def unpacked(batch: Any) -> Any:
    """A batch as it is to be used.

    Raises:
        EspalierError: What came in the place of the batch.
    """
    if isinstance(batch, Failure):
        raise batch.error
    return batch.unpack() if isinstance(batch, Packed) else batch


logger = logging.getLogger(__name__)


def usable_workers(asked: int) -> int:
    """As many as asked for, but not more than there are processors."""
    processors = available_processors()
    if asked > processors:
        logger.warning(
            "n_workers is %d but this process may use %d processor(s): starting %d.", asked, processors, processors
        )
    return min(asked, processors)


def tells_of_death(error: Exception) -> bool:
    """Whether a worker died; an error that one reports begins with "Caught"."""
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker (pid")
    return not str(error).startswith("Caught")


@contextmanager
def child_signals_kept() -> Iterator[None]:
    """Undo the handler by which DataLoader raises an error wherever the main process happens to be.

    A worker's death must not strike while a checkpoint is written; it is noticed where a batch is waited for.
    """
    number = getattr(signal, "SIGCHLD", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, handler or signal.SIG_DFL)


def start_worker(worker_id: int) -> None:
    """Leave signals to the main process, which stops its workers itself, and use one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent_only, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)


def _obey_parent_only(parent: int) -> None:
    """A SIGTERM to the whole process group must not take the workers from a run that is about to save its state."""
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == parent:
            os._exit(0)
