"""Whether a process holds a folder, found without taking its lock: taking it would refuse a process that begins."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from utils.errors import EspalierError
from utils.files import LOCK, folder_lock

HOLDER = f"{LOCK}-process"
"""File next to the lock: the process that holds it or was the last to hold it."""

_TABLE = Path("/proc/locks")  # of Linux: https://www.kernel.org/doc/html/latest/filesystems/locking.html


def is_held(folder: Path, table: str | None = None) -> bool:
    """Return whether a process of this machine holds a folder by `folder_lock`.

    Args:
        folder: The folder.
        table: Content of `lock_table`, if many folders are looked at; None reads it.
    """
    table = lock_table() if table is None else table
    return bool(_processes_in(table, folder)) if table else _is_refused(folder)


def process_to_stop(folder: Path) -> int | None:
    """Return the process of this machine that holds a folder; None if none does, or the system does not say so."""
    holder = holder_of(folder)
    return holder if holder is not None and str(holder) in _processes_in(lock_table(), folder) else None


def _processes_in(table: str, folder: Path) -> list[str]:
    """Return the processes that hold the lock of a folder by the table of locks."""
    try:
        found = os.stat(folder / LOCK)
    except OSError:
        return []
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    holder, processes = holder_of(folder), []
    for line in table.splitlines():
        words = line.split()
        if len(words) < 8 or words[1] != "FLOCK":
            continue
        # Some file systems show another device here: then the process decides.
        if words[5] == place or (words[5].endswith(f":{found.st_ino}") and words[4] == str(holder)):
            processes.append(words[4])
    return processes


def lock_table() -> str:
    """Return the locks of all processes as the system lists them; empty if it does not."""
    try:
        return _TABLE.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def holder_of(folder: Path) -> int | None:
    """Return the process that holds a folder or was the last to hold it; None if it is not known."""
    with suppress(OSError, ValueError):
        return int((folder / HOLDER).read_text(encoding="ascii"))
    return None


def _is_refused(folder: Path) -> bool:
    """Try to hold a folder for an instant."""
    refused: Callable[[str], EspalierError] = EspalierError
    try:
        with folder_lock(folder if (folder / LOCK).exists() else None, refused):
            return False
    except EspalierError:
        return True
