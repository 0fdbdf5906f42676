"""Files: written so that a crash, a kill or a full disk never destroys the earlier content, JSON, folders, locks.

Files of data: the kinds of images that are read, hidden files, which are not data, and limits on what is decoded. These
are checked before anything is decoded, because a small file may unpack to a huge one.
"""

import errno
import json
import math
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from utils.errors import DataError, EspalierError

LOCK = ".lock"

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

IMAGE_MB = 512
"""Largest decoded image or mask: about 179 megapixels in colours of 8 bits."""

FILE_MB = 1024
"""Largest decoded file of many samples."""

_MB = 2**20
UNREAD_SUFFIXES = frozenset(
    {
        *(".gif", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".jpe", ".svg", ".psd", ".ico"),
        *(".tga", ".pcx", ".pbm", ".pnm", ".exr", ".hdr", ".dds", ".icns", ".apng", ".mpo"),
        # Raw photos of cameras.
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    }
)
"""Kinds of images that are not read."""


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading.

    Nothing else has an end that can be relied on: a pipe would be waited for, and a device may fill the memory.

    Raises:
        OSError: There is no such file, it cannot be read, or it is a folder, a pipe or a device.
        ValueError: There can be no such name.
    """
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe or a device, and a regular file is needed", str(path))
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # means nothing for a regular file


def read_regular_text(path: str | Path, encoding: str = "utf-8-sig") -> str:
    """Return the text of a regular file; by default a byte order mark at its beginning is left out.

    Raises:
        OSError: As `open_regular`.
        ValueError: It is no text in that encoding, or there can be no such name.
    """
    with TextIOWrapper(open_regular(path), encoding=encoding) as file:
        return file.read()


def temporary_path(path: Path) -> Path:
    """Return the path at which this process writes a file before it is moved to `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files of killed processes; call it only while no other process writes into `folder`."""
    for path in folder.glob(".*.*.tmp"):
        path.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write to a temporary file next to `path`, flush it to the disk, then replace `path`.

    The target of a link is replaced, not the link. A device or a pipe, as /dev/stdout, is written into.

    Args:
        path: The file to create or replace; its folder exists.
        write: Receives the open file and writes the content; may seek and read.

    Raises:
        OSError: The disk is full or the folder cannot be written; `path` is unchanged and no temporary file remains.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        content = BytesIO()
        write(content)
        path.write_bytes(content.getvalue())
        return
    with _replacement(path) as temporary, open(temporary, "w+b") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def copy_atomically(source: Path, path: Path) -> None:
    """Copy a file to a temporary one next to `path`, flush it to the disk, then replace `path`.

    Raises:
        OSError: The disk is full or the folder cannot be written; `path` is unchanged and no temporary file remains.
    """
    with _replacement(path) as temporary:
        shutil.copyfile(source, temporary)  # in the system, without a detour through this process
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())


@contextmanager
def _replacement(path: Path) -> Iterator[Path]:
    """Yield a temporary file next to `path`, which replaces it after the block; after an error it is removed."""
    temporary = temporary_path(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text_atomically(path: Path, text: str) -> None:
    """`write_atomically` for UTF-8 text; what UTF-8 cannot store is escaped, as by `utils.writing.text.storable`."""
    write_atomically(path, lambda file: file.write(text.encode(errors="backslashreplace")))


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


def read_json_object(path: Path, error: Callable[[str], EspalierError]) -> dict[str, Any]:
    """Return the object that a JSON file holds, an empty one if the file is missing.

    Args:
        path: The file.
        error: Makes the error to raise from file and reason.

    Raises:
        EspalierError: The file is damaged, or holds something else.
    """
    try:
        content = json.loads(read_regular_text(path, "utf-8"))
    except FileNotFoundError:
        return {}
    except RecursionError:
        raise error(f"{path}: cannot be read (it is nested too deep)") from None
    except (OSError, ValueError) as reason:
        raise error(f"{path}: cannot be read ({reason})") from None
    if not isinstance(content, dict):
        raise error(f"{path}: holds a {type(content).__name__}, not an object")
    return content


def now_in_utc() -> str:
    """Return the time of the clock in UTC, as 2026-11-30T06:15:00.123456+00:00."""
    return datetime.now(UTC).isoformat()


def make_stamped_folder(parent: Path) -> Path | None:
    """Create `<parent>/<YYYYmmdd_HHMMSS>`, the time in UTC, with a number appended if the folder of that second exists.

    Returns:
        The folder; None if a thousand of them exist.

    Raises:
        OSError: It cannot be created.
    """
    parent.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
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
        with suppress(OSError):  # a full disk: it is only a note for messages
            holder.write_text(f"{os.getpid()}\n")
        yield
    finally:
        lock.release()


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is one that a system, an archive or a notebook creates, not the user."""
    return name.startswith(".") or name == "__MACOSX"


def files_below(folder: str | Path) -> list[Path]:
    """Return all files of a folder and the folders below it, sorted, without hidden ones."""
    found = []
    for directory, below, names in os.walk(folder):
        below[:] = [name for name in below if not is_hidden(name)]
        found += [Path(directory, name) for name in names if not is_hidden(name)]
    return sorted(found)


def describe_left_out(files: Iterable[Path], suffixes: frozenset[str] = IMAGE_SUFFIXES) -> str:
    """Return number and kinds of the images that are not read, as "2 .gif, 1 .heic"; empty if there are none.

    Args:
        files: Files of any kind.
        suffixes: Kinds that are read.
    """
    kinds = Counter(path.suffix.lower() for path in files)
    left_out = sorted(kind for kind in kinds if kind in UNREAD_SUFFIXES - suffixes)
    return ", ".join(f"{kinds[kind]} {kind}" for kind in left_out)


def require_decoded_size(path: str | Path, found: str, num_bytes: int, limit_mb: int | None, *, of_many: bool) -> None:
    """Raise an error if a file would take more memory than it may.

    Args:
        path: The file.
        found: Its content, for the message, as "13500x13500 pixels".
        num_bytes: Memory that reading it takes.
        limit_mb: The option `max_decoded_mb`; None: the default.
        of_many: The file holds many samples, not one image.

    Raises:
        DataError: It is larger than the limit.
    """
    default = FILE_MB if of_many else IMAGE_MB
    limit = default if limit_mb is None else limit_mb
    if num_bytes > limit * _MB:
        repair, megabytes = "Split the file" if of_many else "Scale it down", -(-num_bytes // _MB)
        raise DataError(
            f"{path} holds {found}, which take {megabytes} MB when they are decoded; the limit is {limit} MB "
            f"(max_decoded_mb). {repair}, or set max_decoded_mb of the loader, or --max-decoded-mb of inference.py, "
            "higher."
        )
