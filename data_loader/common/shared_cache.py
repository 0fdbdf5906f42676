"""Decoded data that outlives its loader: for a process that trains many networks on the same images.

Nothing is kept unless someone asks for it: `with keeping(megabytes): ...`. A single training frees its memory.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Content = TypeVar("Content")


class Stamp(NamedTuple):
    """A file as it is now: another file, or other content, has another stamp.

    Attributes:
        device: Where the file lies.
        number: Of the file there; 0 where there is none.
        modified: Time of its last change, in nanoseconds.
        size: Bytes.
    """

    device: int
    number: int
    modified: int
    size: int


NO_FILE = Stamp(0, 0, 0, 0)


def stamp(path: str | Path) -> Stamp:
    """The stamp of a file; whoever then reads it says that it is missing."""
    try:
        status = os.stat(path)
    except OSError:
        return NO_FILE
    return Stamp(status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


class KeptData:
    """Shelves of decoded samples, each for one way of decoding; beyond a budget, those used longest ago are forgotten.

    Args:
        megabytes: Most memory to use.
    """

    def __init__(self, megabytes: float) -> None:
        self._budget = megabytes * 2**20
        self._shelves: OrderedDict[Hashable, tuple[Mapping[Hashable, Any], int]] = OrderedDict()

    @property
    def num_bytes(self) -> int:
        """Bytes that are kept now."""
        return sum(num_bytes for _, num_bytes in self._shelves.values())

    def find(self, shelf: Hashable) -> Mapping[Hashable, Any]:
        """What stands on a shelf; nothing where there is none of that name."""
        if shelf not in self._shelves:
            return {}
        self._shelves.move_to_end(shelf)
        return self._shelves[shelf][0]

    def keep(self, shelf: Hashable, content: Mapping[Hashable, Any], num_bytes: int) -> None:
        """Let a shelf hold this and nothing else; what is larger than the whole budget is not kept."""
        self._shelves.pop(shelf, None)
        if num_bytes > self._budget:
            return
        while self._shelves and self.num_bytes + num_bytes > self._budget:
            self._shelves.popitem(last=False)
        self._shelves[shelf] = (content, num_bytes)


_CURRENT: ContextVar[KeptData | None] = ContextVar("kept data", default=None)


def current() -> KeptData | None:
    """What is kept between the loaders of this process; None where nothing is."""
    return _CURRENT.get()


@contextmanager
def keeping(megabytes: float) -> Iterator[KeptData]:
    """Let loaders find what earlier ones decoded inside the block; at its end all of it is forgotten.

    Args:
        megabytes: Most memory to use.
    """
    kept = KeptData(megabytes)
    token = _CURRENT.set(kept)
    try:
        yield kept
    finally:
        _CURRENT.reset(token)


def read_once(
    path: str | Path, read: Callable[[Path], Content], size: Callable[[Content], int], *, how: Hashable = None
) -> Content:
    """What `read` makes of a file, kept where things are kept; nobody may write to it.

    Args:
        path: The file.
        read: Reads it.
        size: Bytes of what was read.
        how: What else decides what is read.
    """
    kept = current()
    if kept is None:
        return read(Path(path))
    shelf, name = (read.__module__, read.__qualname__, str(path), how), stamp(path)
    content: Content | None = kept.find(shelf).get(name)
    if content is None:
        content = read(Path(path))
        kept.keep(shelf, {name: content}, size(content))
    return content
