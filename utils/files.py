"""Files: written so that a crash, a kill or a full disk never destroys the earlier content, JSON, folders, locks."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from utils.errors import EspalierError

LOCK = ".lock"


def temporary_path(path: Path) -> Path:
    """Return the path at which this process writes a file before it is moved to `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files of killed processes; call it only while no other process writes into `folder`."""
    for path in folder.glob(".*.*.tmp"):
        path.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write to a temporary file next to `path`, flush it to the disk, then replace `path`.

    Args:
        path: The file to create or replace; its folder exists.
        write: Receives the open file and writes the content; may seek and read.

    Raises:
        OSError: The disk is full or the folder cannot be written; `path` is unchanged and no temporary file remains.
    """
    temporary = temporary_path(path)
    try:
        with open(temporary, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text_atomically(path: Path, text: str) -> None:
    """`write_atomically` for UTF-8 text."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: Any) -> None:
    """Write plain data as indented JSON, atomically; NaN and infinity, which JSON does not have, become null."""
    write_text_atomically(path, json.dumps(without_nan(content), indent=2, allow_nan=False) + "\n")


def without_nan(value: Any) -> Any:
    """Return the same plain data with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """Return the plain data of a JSON file, None if the file is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def make_stamped_folder(parent: Path) -> Path | None:
    """Create `<parent>/<YYYYmmdd_HHMMSS>`, with a number appended if the folder of that second exists.

    Returns:
        The folder; None if a thousand of them exist.

    Raises:
        OSError: It cannot be created.
    """
    parent.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
    for number in range(1000):
        folder = parent / (f"{stamp}_{number}" if number else stamp)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    return None


def writing_problem(path: Path) -> str | None:
    """Return the reason if no file can be written at `path`, found without writing anything; else None.

    Args:
        path: The file; its folder need not exist yet.
    """
    if path.is_dir():
        return "it is a folder"
    folder = path.parent
    while not (folder.exists() or folder.is_symlink()) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is not a folder"
    if not os.access(folder, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        return "permission denied"
    return None


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def folder_lock(folder: Path | None, error: Callable[[str], EspalierError]) -> Iterator[None]:
    """Hold a folder for the length of a block; the operating system releases it however the process ends.

    Args:
        folder: The folder, which gets a file `.lock`; None (a process that writes nothing) locks nothing.
        error: Makes the error to raise from the id of the process that holds the folder.

    Raises:
        EspalierError: Another process holds the folder.
    """
    if folder is None:
        yield
        return
    lock = FileLock(folder / LOCK, timeout=0)
    holder = folder / f"{LOCK}-process"
    try:
        lock.acquire()
    except Timeout as held:
        raise error(holder.read_text().strip() if holder.is_file() else "(unknown)") from held
    except OSError:  # a file system without locks
        yield
        return
    try:
        holder.write_text(f"{os.getpid()}\n")
        yield
    finally:
        lock.release()
