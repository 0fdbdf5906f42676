"""The process of a job: `python -m search.serve.jobs.supervisor FOLDER` runs the command of a job and records its end.

It belongs to no service: it holds the job by a lock, watches for a wish to stop it, and outlives the service.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from search.serve.jobs.files import (
    LOG,
    STARTED,
    STOP,
    TARGET,
    JobRecord,
    claim,
    is_begun,
    read_job,
    write_end,
)
from utils.files import write_json
from utils.runs.locks import HOLDER, holder_of

_SECONDS = 0.25  # between two looks


def supervise(folder: Path, note: Callable[[], None] | None = None) -> bool:
    """Run a job to its end.

    Args:
        folder: Of the job.
        note: Called when it is known whether this process runs the job.

    Returns:
        False if another process runs it, or has run it.
    """
    job, held = read_job(folder), claim(folder)
    if job is None or held is None or is_begun(folder):
        if held is not None:
            os.close(held)
        return False
    if (folder / STOP).exists():
        write_end(folder)
        os.close(held)
        return True
    write_json(folder / STARTED, {"seconds": time.time(), "process": os.getpid()})
    if note is not None:
        note()
    with open(folder / LOG, "ab") as log:
        try:
            # The child inherits the lock: should this process be killed, the job is known to run nevertheless.
            child = subprocess.Popen(
                job.words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, pass_fds=(held,)
            )
        except OSError as error:
            write_end(folder, reason=f"{job.words[0]}: cannot be started ({error.strerror}). Correct the installation.")
            os.close(held)
            return True
    write_end(folder, exit_code=_watch(folder, job, child))
    os.close(held)
    return True


def _watch(folder: Path, job: JobRecord, child: "subprocess.Popen[bytes]") -> int:
    """Wait for the end of a command, obey a wish to stop it, and note the folder that it works in."""
    began, is_stopping, target = time.time(), False, job.target
    while True:
        code: int | None = None
        with suppress(subprocess.TimeoutExpired):
            code = child.wait(_SECONDS)
        if target is None:
            target = _folder_of(Path(job.parent), child.pid, began)
            if target is not None:
                write_json(folder / TARGET, {"folder": target})
        if code is not None:
            return code
        if not is_stopping and (folder / STOP).exists():
            is_stopping = True
            child.send_signal(signal.SIGTERM)


def _folder_of(parent: Path, process: int, began: float) -> str | None:
    """Return the folder below a parent that a process holds, or was the last to hold; None if there is none."""
    for lock in parent.glob(f"*/{HOLDER}"):
        with suppress(OSError):
            if lock.stat().st_mtime >= began - 1 and holder_of(lock.parent) == process:
                return str(lock.parent)
    return None


def main() -> int:
    """Run the job in the folder on the command line in a process that is nobody's child; return when it holds the job.

    The lock is taken after the fork: where processes have numbers of their own, as in a container, the system lists no
    lock of a process that is gone.
    """
    folder = Path(sys.argv[1])
    begun, note = os.pipe()
    if os.fork():
        os.close(note)
        os.read(begun, 1)  # returns when the other end is closed
        return 0
    os.close(begun)
    # When the machine shuts down, the job gets the time to save its state, and its end is recorded.
    signal.signal(signal.SIGTERM, lambda _number, _frame: (folder / STOP).touch())
    supervise(folder, lambda: os.close(note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
