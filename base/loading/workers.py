"""Loader workers of PyTorch's DataLoader: they start, send batches, and may die, hang, or have no shared memory.

The names that begin with an underscore are those of torch: its iterator has no public way to the processes that it
started, nor to their end.
"""

import errno
import gc
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from utils.errors import LoaderFailed

POLL_SECONDS = 5.0  # between two looks at the workers while a batch is awaited, as in torch
REMARK_AFTER = 60.0  # seconds without a batch after which the log says so
SHARED_MEMORY = "/dev/shm"
_SECONDS_TO_END = 2.0  # for a worker, before it is killed
# Beginning or parts of the text of a plain RuntimeError of torch.
_DIED = "DataLoader worker (pid"
_NO_FILES = ("too many open files", "received 0 items of ancdata")
_NO_SHARED_MEMORY = ("shared memory", "unable to resize file", "unable to write to file", "unable to mmap")
logger = logging.getLogger(__name__)


def start_worker(worker_id: int) -> None:
    """Prepare a loader worker: it uses one thread and ignores signals, because the main process stops it."""
    for name in ("SIGINT", "SIGUSR1", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        parent = os.getppid()

        def obey_parent_only() -> None:
            # A SIGTERM to the whole process group must not end the workers of a run that is about to save its state.
            while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
                pass
            os._exit(0)

        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=obey_parent_only, daemon=True).start()
    # Collecting garbage writes to the objects that it looks through, and so would copy the pages that processes share.
    gc.freeze()
    torch.set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)


class PolledIterator(_MultiProcessingDataLoaderIter):
    """The batches of loader workers: torch's iterator, which looks at the workers every few seconds of any wait.

    It waits for a batch, and at the start of an iteration for each worker to leave the one before: a worker may have
    died in between, or still load a batch of an iteration that was broken off. torch has no public way to either wait;
    its own has one limit, after which nothing can be awaited any more.

    Args:
        loader: A loader with loader workers.
        limit: Seconds without a message of any worker after which a wait is an error; None: never.
    """

    def __init__(self, loader: Any, limit: float | None) -> None:
        self.limit = limit
        super().__init__(loader)

    def _get_data(self) -> Any:
        """Return the next message of any worker.

        Raises:
            LoaderFailed: A worker died, none has sent a message in time, or there is no memory or file to receive it.
        """
        # Counted in looks, not by the clock: a process that was stopped for a while has waited for nothing.
        waited, has_remarked = 0.0, False
        while True:
            seconds = POLL_SECONDS if self.limit is None else min(POLL_SECONDS, self.limit)
            try:
                has_come, message = self._try_get_data(seconds)  # type: ignore[no-untyped-call]
            except (RuntimeError, EOFError, OSError) as error:
                failure = _explained(error, self._workers)
                if failure is None:
                    raise
                raise failure from error
            if has_come:
                return message
            waited += seconds
            thread = getattr(self, "_pin_memory_thread", None)
            if thread is not None and not thread.is_alive():
                raise LoaderFailed(
                    "The thread that copies batches to page-locked memory has ended. Memory ran out, mostly. Set "
                    "pin_memory of the loader to false."
                )
            if self.limit is not None and waited >= self.limit:
                raise LoaderFailed(
                    f"The {len(self._workers)} loader workers sent no batch for {waited:g} seconds "
                    f"(trainer.loader_timeout is {self.limit:g}). They hang, or their files are very slow: mostly a "
                    "network mount that does not answer. Look at the disk with the data, or set "
                    "trainer.loader_timeout to more seconds, or to null to wait for ever."
                )
            if waited >= REMARK_AFTER and not has_remarked:
                has_remarked = True
                logger.warning("No loader worker has sent a batch for %g seconds; still waiting.", waited)


def _explained(error: Exception, workers: Sequence[BaseProcess]) -> LoaderFailed | None:
    """Return the error that names the repair; None if it is of another kind."""
    if isinstance(error, RuntimeError) and not str(error).startswith(_DIED):
        return shortage(error, len(workers))
    return shortage(error, len(workers)) or death(workers)


def death(workers: Sequence[BaseProcess]) -> LoaderFailed:
    """Return the error for loader workers of which at least one has ended; it names the cause by its exit code."""
    for worker in workers:
        worker.join(0.1)  # the end of one that was just killed may not be known yet
    codes = [worker.exitcode for worker in workers if worker.exitcode is not None]
    code, count = next((each for each in codes if each), 0), len(workers)
    name = signal.Signals(-code).name if code < 0 and -code in set(signal.Signals) else f"exit code {code}"
    fewer = f"Use fewer n_workers (it is {count}; 0 needs none)"
    if name == "SIGBUS":
        return LoaderFailed(f"A loader worker died of a bus error (SIGBUS): {_shared_memory_rule(count)}")
    if name == "SIGKILL":
        return LoaderFailed(
            "A loader worker was killed (SIGKILL), mostly by the system because memory ran out. Each worker needs "
            f"memory for the batches that it prepares. {fewer} or a smaller batch_size."
        )
    return LoaderFailed(
        f"A loader worker died ({name}): a library, or the code of the data set, has ended it. Set n_workers to 0 to "
        "see where it fails, and look for a damaged file among the samples."
    )


def shortage(error: Exception, count: int) -> LoaderFailed | None:
    """Return the error for shared memory or open files that ran out, of `count` workers; None if it is another."""
    text, number = str(error).lower(), getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE) or any(words in text for words in _NO_FILES):
        return LoaderFailed(
            f"No more files can be opened (ulimit -n), and {count} loader workers send each batch through one. Raise "
            "the limit (ulimit -n 65536), or use fewer n_workers; 0 needs none."
        )
    if any(words in text for words in _NO_SHARED_MEMORY):
        return LoaderFailed(f"A loader worker cannot send a batch: {_shared_memory_rule(count)}")
    return None


def not_started(error: OSError, count: int) -> LoaderFailed:
    """Return the error for loader workers that the system does not start."""
    return shortage(error, count) or LoaderFailed(
        f"{count} loader workers cannot be started ({os.strerror(error.errno or 0)}). Each is a process. Use fewer "
        "n_workers (0 needs none), or raise the limits on processes and memory (ulimit -u)."
    )


def _shared_memory_rule(count: int) -> str:
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
        size = f" ({usage.total / 1e6:.0f} MB, {usage.free / 1e6:.0f} MB free)"
    except OSError:
        size = ""
    return (
        f"shared memory{size} is too small. Loader workers send batches through {SHARED_MEMORY}. Enlarge it (docker "
        f"run --shm-size=8g, or --ipc=host), use fewer n_workers (it is {count}; 0 needs none), or a smaller "
        "batch_size."
    )


def sendable(make: Callable[[], Any]) -> Any:
    """Return the batch that `make` returns, with its tensors in shared memory if this is a loader worker.

    The thread that sends a batch would drop it, and the main process wait for ever, if there is no room.

    Raises:
        LoaderFailed: There is not enough shared memory, or no file can be opened.
    """
    worker = get_worker_info()
    if worker is None:
        return make()
    try:
        batch = make()
        _share(batch)
    except (RuntimeError, OSError) as error:
        raise shortage(error, worker.num_workers) or error from None
    return batch


def _share(value: Any) -> None:
    if isinstance(value, Tensor):
        if value.device.type == "cpu" and value.layout == torch.strided:
            value.share_memory_()  # type: ignore[no-untyped-call]
    elif isinstance(value, Mapping):
        for item in value.values():
            _share(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _share(item)
    elif is_dataclass(value):
        for field in fields(value):
            _share(getattr(value, field.name))


@contextmanager
def ended_in_time(workers: list[BaseProcess]) -> Iterator[None]:
    """Kill the loader workers that still run some seconds after a block began to stop them."""

    def kill() -> None:
        for worker in workers:
            if worker.pid is not None and worker.exitcode is None:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

    timer = threading.Timer(_SECONDS_TO_END, kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
