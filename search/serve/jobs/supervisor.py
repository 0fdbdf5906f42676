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
    CHILD,
    LOG,
    STARTED,
    STOP,
    TARGET,
    JobRecord,
    claim,
    is_begun,
    process_entry,
    read_job,
    write_end,
)
from utils.errors import EspalierError
from utils.files import write_json
from utils.runs.locks import HOLDER, holder_of
from utils.writing.text import in_one_line

_SECONDS = 0.25  # between two looks
_SECONDS_TO_RETRY = 2.0  # after a record could not be written
TRY_AGAIN = os.EX_TEMPFAIL
"""Exit code: the disk is full or the job cannot be locked; it was not started, and can be later."""


def supervise(folder: Path, note: Callable[[], None] | None = None) -> bool:
    """Run a job to its end.

    Args:
        folder: Of the job.
        note: Called when it is known whether this process runs the job.

    Returns:
        False if another process runs it, or has run it.

    Raises:
        OSError: Its start cannot be recorded, as on a full disk; it was not started.
        SearchError: It cannot be locked.
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
    with open(folder / LOG, "ab") as log:
        write_json(folder / STARTED, {"seconds": time.time(), **process_entry(os.getpid())})
        if note is not None:
            note()
        try:
            # The child inherits the lock: should this process be killed, the job is known to run nevertheless.
            child = subprocess.Popen(
                job.words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, pass_fds=(held,)
            )
        except OSError as error:
            reason = f"{job.words[0]}: cannot be started ({error.strerror}). Correct the installation."
            _until_written(folder, lambda: write_end(folder, reason=reason))
            os.close(held)
            return True
    with suppress(OSError):  # a full disk: it is read if this process is killed
        write_json(folder / CHILD, process_entry(child.pid))
    _watch(folder, job, child)
    os.close(held)
    return True


def _until_written(folder: Path, write: Callable[[], None]) -> None:
    """Write a record, again and again while the disk is full, until the folder of the job is removed."""
    while folder.exists():
        with suppress(OSError):
            write()
            return
        time.sleep(_SECONDS_TO_RETRY)


def _watch(folder: Path, job: JobRecord, child: "subprocess.Popen[bytes]") -> None:
    """Wait for the end of a command and record it, obey a wish to stop it, and note the folder that it works in."""
    began, is_stopping, target = time.time(), False, job.target
    found: str | None = None
    while True:
        code: int | None = None
        with suppress(subprocess.TimeoutExpired):
            code = child.wait(_SECONDS)
        if target is None:
            found = _folder_of(Path(job.parent), child.pid, began)
            with suppress(OSError):  # a full disk: it is written at the next look
                if found is not None:
                    write_json(folder / TARGET, {"folder": found})
                    target = found
        if code is not None:
            break
        if not is_stopping and (folder / STOP).exists():
            is_stopping = True
            child.send_signal(signal.SIGTERM)
    if target is None and found is not None:
        content = {"folder": found}
        _until_written(folder, lambda: write_json(folder / TARGET, content))
    _until_written(folder, lambda: write_end(folder, exit_code=code))


def _folder_of(parent: Path, process: int, began: float) -> str | None:
    """Return the folder below a parent that a process holds, or was the last to hold; None if there is none."""
    for lock in parent.glob(f"*/{HOLDER}"):
        with suppress(OSError):
            if lock.stat().st_mtime >= began - 1 and holder_of(lock.parent) == process:
                return str(lock.parent)
    return None


def _leave_stop(folder: Path) -> None:
    with suppress(OSError):  # a full disk
        (folder / STOP).touch()


def main() -> int:
    """Run the job in the folder on the command line in a process that is nobody's child; return when it holds the job.

    The lock is taken after the fork: where processes have numbers of their own, as in a container, the system lists no
    lock of a process that is gone.
    """
    folder = Path(sys.argv[1])
    begun, note = os.pipe()
    if os.fork():
        os.close(note)
        return TRY_AGAIN if os.read(begun, 1) else 0  # returns when the other end is closed
    os.close(begun)
    # When the machine shuts down, the job gets the time to save its state, and its end is recorded.
    signal.signal(signal.SIGTERM, lambda _number, _frame: _leave_stop(folder))
    is_noted = False

    def close_note() -> None:
        nonlocal is_noted
        is_noted = True
        os.close(note)

    try:
        supervise(folder, close_note)
    except (OSError, EspalierError) as error:
        sys.stderr.write(f"error: {in_one_line(error)}\n")
        if not is_noted:
            os.write(note, b"!")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
