"""The clock of the processes that share a study, and files that are replaced at once."""

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def awake_or_asleep() -> float:
    """Return seconds of a clock that only ever advances, also while the machine is suspended if the system can tell."""
    number = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if number is None else time.clock_gettime(number)


def _start_thread(function: Callable[[], None]) -> None:
    threading.Thread(target=function, daemon=True).start()


@dataclass(frozen=True)
class Timing:
    """Waiting times of a process that shares a study, and the functions that measure and pass time.

    Attributes:
        patience: Seconds without a sign of life after which another process is taken for dead.
        poll: Seconds between two looks at the files of others.
        clock: Returns seconds; only differences of one process count.
        sleep: Waits for so many seconds.
        start_thread: Runs a function next to the caller until it returns.
        make_lock: Makes a lock between such functions.
    """

    patience: float = 30.0
    poll: float = 0.1
    clock: Callable[[], float] = awake_or_asleep
    sleep: Callable[[float], None] = time.sleep
    start_thread: Callable[[Callable[[], None]], None] = _start_thread
    make_lock: Callable[[], AbstractContextManager[Any]] = threading.Lock

    @property
    def beat(self) -> float:
        """Seconds between two signs of life."""
        return self.patience / 10


def write_shared(path: Path, content: Any) -> None:
    """Replace a file of plain data as a whole; others read either the old or the new content.

    Without a wait for the disk: a power cut that destroys a file here destroys its process, too.

    Raises:
        OSError: The folder is gone or full.
    """
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.replace(temporary, path)


def read_shared(path: Path) -> Any:
    """Return the content of a file that another process replaces; None if it is not there, or not complete."""
    # Opened each time, at which a network file system asks its server; a look at the modification time might not.
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


class Watched:
    """A counter of another process: it is observed for how long it has not moved, by the clock of this process.

    Args:
        timing: Measures the time.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._value: Any = None
        self._since = timing.clock()

    def silence(self, value: Any) -> float:
        """Take the present value and return the seconds since it was first seen."""
        if value != self._value:
            self._value, self._since = value, self._timing.clock()
        return self._timing.clock() - self._since
