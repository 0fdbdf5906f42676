"""A process of several that fails ends the others: none is left waiting in a collective call."""

import itertools
import json
import logging
import multiprocessing
import os
import sys
import threading
from dataclasses import asdict, dataclass
from typing import Any

import torch.distributed as dist

from utils.errors import EspalierError, Interrupted, TrainingError

POLL_SECONDS = 0.5  # between two looks at the other processes
_SECONDS_TO_LEAVE = 2.0  # for the main thread, whose collective call may fail by itself
_RUNS = itertools.count()  # of this process; every process of a run has joined as many
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProcessFailure:
    """The error that ended a process.

    Attributes:
        rank: Number of the process.
        message: Of its error.
        exit_code: With which it ends.
    """

    rank: int
    message: str
    exit_code: int

    def text(self) -> str:
        """Return the failure as a message of another process."""
        return f"Process {self.rank} has ended with an error, and the others end with it: {self.message}"


class FailureWatch:
    """A thread that looks for the failure of another process of the run, and ends this one then.

    A collective call that waits for a process that is gone may wait for ever, and no signal interrupts it. So the
    thread ends the whole process if the main thread does not leave the call by itself.

    Args:
        store: A client of the processes' store (`torch.distributed.TCPStore`) that nothing else uses.
        rank: Number of this process.
    """

    def __init__(self, store: Any, rank: int) -> None:
        self._store = store
        self._rank = rank
        # The store outlives a run, and processes that torchrun starts again.
        self._key = f"espalier/failure/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_RUNS)}"
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="failures of other processes")
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._is_over.set()
        self._thread.join()

    def found(self) -> ProcessFailure | None:
        """Return the failure of another process; None if there is none, or the store is gone."""
        try:
            if not self._store.check([self._key]):
                return None
            failure = ProcessFailure(**json.loads(self._store.get(self._key)))
        except (RuntimeError, ValueError, TypeError):  # the process that has the store is gone
            return None
        return None if failure.rank == self._rank else failure

    def explained(self, error: BaseException) -> BaseException:
        """Announce the error that ends this process, and return it, or an error with the failure that caused it."""
        self.stop()
        if isinstance(error, RuntimeError):  # mostly the connection to a process that has just failed
            cause = self.found()
            if cause is not None:
                return TrainingError(cause.text())
        if not isinstance(error, Interrupted):  # all processes stop at a signal
            code = error.exit_code if isinstance(error, EspalierError) else 1
            failure = ProcessFailure(self._rank, str(error) or type(error).__name__, code)
            try:
                if not self._store.check([self._key]):
                    self._store.set(self._key, json.dumps(asdict(failure)))
            except RuntimeError:
                logger.debug("The error of this process was not announced: the store is gone.")
        return error

    def _watch(self) -> None:
        failure = None
        while failure is None:
            if self._is_over.wait(POLL_SECONDS):
                return
            failure = self.found()
        if self._is_over.wait(_SECONDS_TO_LEAVE):
            return
        logger.error("%s", failure.text())
        for worker in multiprocessing.active_children():
            worker.kill()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(failure.exit_code or 1)


def watch_failures(rank: int, size: int) -> FailureWatch | None:
    """Watch the other processes of a run that torchrun started; None if their store cannot be reached."""
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(host, port, size, is_master=False, wait_for_workers=False)  # type: ignore[attr-defined]
    except (KeyError, ValueError, RuntimeError):
        logger.debug("The store of the processes cannot be reached: their failures are not watched.")
        return None
    return FailureWatch(store, rank)


def leave_world(error: BaseException | None = None) -> None:
    """Leave the group of processes; with NCCL not after an error, since leaving it would wait for the others."""
    if dist.is_initialized() and (
        error is None or isinstance(error, Interrupted) or dist.get_backend() != dist.Backend.NCCL
    ):
        dist.destroy_process_group()
