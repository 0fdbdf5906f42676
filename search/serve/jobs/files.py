"""The files of a job, which its process, the service and a restarted service read: all that is known of a job.

`job.json` is written before anything is started. The process that runs the job holds the folder by a lock, which its
children inherit; so a job runs at most once, and is known to run for as long as one of them lives.
"""

import fcntl
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from utils.errors import SearchError, signal_name
from utils.files import LOCK, read_json_object, write_json
from utils.runs.locks import HOLDER, is_held

JOB, STARTED, TARGET, ENDED, LOG, STOP = "job.json", "started.json", "target.json", "ended.json", "log.txt", "stop"
CHILD = "child.json"  # the process of the command, which may outlive the one that watches it
_TAIL = 8192  # bytes in which the last line of an output is looked for
_MOST_REASON = 1000  # characters
# A command that one of these signals interrupts saves its state and exits with 128 and the number of the signal.
_SAVING = {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)}


@dataclass(frozen=True)
class JobRecord:
    """A job as it is ordered.

    Attributes:
        id: Unique; the jobs wait in the order of their ids.
        kind: "study" or "training".
        action: "start" or "resume".
        words: The command line.
        created: Unix time in seconds.
        parent: Folder below which the command makes the folder of its study or run.
        target: Folder of the study or run that is resumed; None: a new one.
        config: Id of the config; None for a resumed one.
        overrides: As on the command line.
        key: Of the request that ordered it, so that a second such request orders nothing; None: it had none.
    """

    id: str
    kind: str
    action: str
    words: list[str]
    created: float
    parent: str
    target: str | None = None
    config: str | None = None
    overrides: list[str] = field(default_factory=list)
    key: str | None = None


@dataclass(frozen=True)
class JobState:
    """The state of a job.

    Attributes:
        name: "waiting", "running", "done", "stopped", "failed", "cancelled" or "lost".
        started: Unix time in seconds; None: it was not.
        ended: Unix time in seconds; None: it has not, or it is lost.
        exit_code: Of the command; None if it has not ended, or by a signal.
        signal: Name of the signal that ended it.
        reason: Why it failed or is lost.
    """

    name: str
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    signal: str | None = None
    reason: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens."""
        return self.name not in ("waiting", "running")


def damaged_job(reason: str) -> SearchError:
    """Return the error of a file of a job that cannot be read."""
    return SearchError(f"{reason}. It is a file of a job of the service. Remove the job's folder.")


def write_job(folder: Path, job: JobRecord) -> None:
    """Create the folder of a job with its record in it.

    Raises:
        OSError: It cannot be written; there is no job then.
    """
    folder.mkdir(parents=True)
    write_json(folder / JOB, asdict(job))


def read_job(folder: Path) -> JobRecord | None:
    """Read the record of a job; None if the folder has none, as when its writer was killed.

    Raises:
        SearchError: It is damaged.
    """
    content = read_json_object(folder / JOB, damaged_job)
    if not content:
        return None
    try:
        return JobRecord(**content)
    except TypeError as error:
        raise damaged_job(f"{folder / JOB}: cannot be read ({error})") from None


def read_state(folder: Path, table: str | None = None) -> JobState:
    """Return the state of a job.

    Args:
        folder: Of the job.
        table: See `utils.runs.locks.is_held`.

    Raises:
        SearchError: A file is damaged.
    """
    is_running = is_held(folder, table)  # first: a job that ends meanwhile has written its end
    started = read_json_object(folder / STARTED, damaged_job).get("seconds")
    ended = read_json_object(folder / ENDED, damaged_job)
    if ended:
        return _end(folder, started, ended)
    if is_running and started is not None:
        return JobState("running", started)
    if started is None:
        return JobState("waiting")
    # The table may be older than the start, and does not list locks inherited by a child from a process that is gone.
    held = None
    with suppress(SearchError):  # it cannot be locked: whether it runs is not known
        held = claim(folder)
    if held is None:
        return JobState("running", started)
    os.close(held)
    ended = read_json_object(folder / ENDED, damaged_job)
    if ended:
        return _end(folder, started, ended)
    reason = f"The process that watched it was killed, or the machine went down. {last_line(folder / LOG)}"
    return JobState("lost", started, reason=reason.strip())


def _end(folder: Path, started: float | None, ended: Mapping[str, Any]) -> JobState:
    """Return the state of a job that has ended."""
    code, seconds = ended.get("exit_code"), ended.get("seconds")
    if code is None:
        return JobState("failed" if ended.get("reason") else "cancelled", started, seconds, reason=ended.get("reason"))
    by_signal = signal_name(-code) if code < 0 else None
    exit_code = None if code < 0 else code
    if code == 0:
        return JobState("done", started, seconds, exit_code)
    if code in _SAVING or (code == -signal.SIGTERM and (folder / STOP).exists()):
        return JobState("stopped", started, seconds, exit_code, by_signal)
    return JobState("failed", started, seconds, exit_code, by_signal, reason=last_line(folder / LOG))


def claim(folder: Path) -> int | None:
    """Hold the folder of a job until this process and all children that inherit the result have ended.

    Returns:
        The open file of the lock; None if another process holds it.

    Raises:
        SearchError: It cannot be locked, as on a file system without locks, or on a full disk.
    """
    opened: int | None = None
    try:
        opened = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if opened is not None:
            os.close(opened)
        if isinstance(error, BlockingIOError):
            return None
        raise SearchError(
            f"{folder}: cannot be locked ({error.strerror}). A job needs free space and a file system with locks. "
            "Free some space, or name a folder on another disk: --folder."
        ) from error
    with suppress(OSError):  # a full disk: it is only a note
        (folder / HOLDER).write_text(f"{os.getpid()}\n", encoding="ascii")
    return opened


def is_begun(folder: Path) -> bool:
    """Return whether a job was started or is over; to be asked by the process that holds it."""
    return (folder / STARTED).exists() or (folder / ENDED).exists()


def write_end(folder: Path, *, exit_code: int | None = None, reason: str | None = None) -> None:
    """Write the end of a job.

    Args:
        folder: Of the job.
        exit_code: Of its command, negative: the number of a signal; None: it was not started.
        reason: Why it could not be started; None: it was cancelled.
    """
    write_json(folder / ENDED, {"exit_code": exit_code, "seconds": time.time(), "reason": reason})


def request_stop(folder: Path) -> None:
    """Stop a job with its state saved, or cancel it if it waits; a job that is over is not changed.

    Raises:
        SearchError: The disk is full, or the folder cannot be written.
    """
    try:
        (folder / STOP).touch()
    except OSError as error:
        raise SearchError(
            f"{folder / STOP}: cannot be written ({error.strerror}). It stops the job. Free some space."
        ) from error
    held = claim(folder)
    if held is None:  # its process looks for the file
        _stop_unwatched(folder)
        return
    try:
        if not is_begun(folder):
            write_end(folder)
    finally:
        os.close(held)


def process_entry(process: int) -> dict[str, Any]:
    """Return the number of a process and the time of its start, which tell it from a later one of the same number."""
    return {"process": process, "begun": _start_of(process)}


def _start_of(process: object) -> str | None:
    """Return the time of the start of a process, in the system's unit; None if it has ended, or is not known.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    """
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
        state, *fields = text.rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state == "Z" else fields[18]


def _lives(entry: Mapping[str, Any]) -> bool:
    """Return whether the process of a `process_entry` has not ended."""
    return entry.get("begun") is not None and _start_of(entry.get("process")) == entry["begun"]


def _stop_unwatched(folder: Path) -> None:
    """Interrupt the command of a job if the process that watches it was killed."""
    watching = read_json_object(folder / STARTED, damaged_job)
    child = read_json_object(folder / CHILD, damaged_job)
    if watching.get("begun") is not None and not _lives(watching) and _lives(child):
        with suppress(ProcessLookupError):  # it has ended since
            os.kill(child["process"], signal.SIGTERM)


def last_line(path: Path) -> str:
    """Return the last line of an output that is not empty; empty if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            lines = file.read().decode("utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    found = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return found[-_MOST_REASON:]


def read_target(folder: Path) -> str | None:
    """Return the folder of the study or run of a job that was started; None if it is not known yet."""
    found = read_json_object(folder / TARGET, damaged_job).get("folder")
    return found if isinstance(found, str) else None
