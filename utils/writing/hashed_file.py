"""A file that is hashed and written by two threads while another one produces its bytes."""

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

# Smaller pieces are collected: handing one to the two threads takes about as long as hashing this many bytes.
_PIECE = 1 << 16
# The disk starts to work after this many bytes, not only when the file is flushed.
_BYTES_AHEAD = 1 << 23


class HashedFile:
    """A new binary file and its SHA-256, for writers that only append, as `torch.save` does.

    Both threads work outside Python's lock, as the checksums of the archive do. `benchmarks/speed/checkpoint.py`
    measures the result.

    Args:
        path: Replaced if it exists.
        lasting: Address -> bytes of memory that does not change before `close`. Pieces in it are not copied, and the
            writer does not wait for them.
    """

    def __init__(self, path: Path, lasting: Mapping[int, int]) -> None:
        self._lasting = lasting
        self._file = open(path, "wb")  # noqa: SIM115 - closed by `__exit__`
        self._digest = hashlib.sha256()
        # One thread each, so that the order of the pieces is kept.
        self._hashing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hash")
        self._writing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write")
        self._collected = bytearray()
        self._tasks: list[Future[None]] = []
        self._end_of_started = 0

    def __enter__(self) -> "HashedFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._hashing.shutdown()
        self._writing.shutdown()
        self._file.close()

    def write(self, piece: Any) -> int:
        """Append bytes, a buffer of any kind; return their number.

        An error of the disk is raised by `finish`, or here if the piece is not in lasting memory.
        """
        view = memoryview(piece).cast("B")
        if len(self._collected) >= _PIECE:
            self._send()
        if len(view) < _PIECE:
            self._collected += view
            return len(view)
        tasks = self._send(view)
        if self._lasting.get(np.frombuffer(view, np.uint8).ctypes.data, 0) < len(view):
            for task in tasks:
                task.result()
        return len(view)

    def flush(self) -> None:
        """Do nothing: `finish` flushes."""

    def finish(self, amend: Callable[[bytes], bytes], trailer: Callable[[str], bytes]) -> None:
        """Write everything to the disk, and wait until it is there.

        Args:
            amend: Gets the last pieces, at most some 100 KB, and returns the bytes to write instead of them.
            trailer: Gets the SHA-256 of all bytes, in hexadecimal digits, and returns the bytes to be appended.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        self._collected = bytearray(amend(bytes(self._collected)))
        self._send()
        for task in self._tasks:
            task.result()
        self._file.write(trailer(self._digest.hexdigest()))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _send(self, *views: memoryview) -> list[Future[None]]:
        """Give the collected pieces, and others behind them, to both threads; return the two tasks."""
        pieces: list[bytes | memoryview] = [bytes(self._collected), *views]
        self._collected.clear()
        tasks = [self._hashing.submit(self._hash, pieces), self._writing.submit(self._append, pieces)]
        self._tasks += tasks
        return tasks

    def _hash(self, pieces: list[bytes | memoryview]) -> None:
        for piece in pieces:
            self._digest.update(piece)

    def _append(self, pieces: list[bytes | memoryview]) -> None:
        for piece in pieces:
            self._file.write(piece)
        start, end = self._end_of_started, self._file.tell()
        if end - start >= _BYTES_AHEAD and hasattr(os, "posix_fadvise"):
            # Linux starts to write these pages; only pages that are on the disk already would leave the memory.
            os.posix_fadvise(self._file.fileno(), start, end - start, os.POSIX_FADV_DONTNEED)
            self._end_of_started = end
