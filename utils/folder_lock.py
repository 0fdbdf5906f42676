"""One process at a time works in a folder of ours."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import EspalierError

try:
    import fcntl
except ImportError:  # not on Windows, where nobody holds anybody up
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


@contextmanager
def held(folder: Path | None, error: Callable[[str], EspalierError]) -> Iterator[None]:
    """Hold a folder for a block; the system lets go of it however the process ends.

    Args:
        folder: The folder; None (of a process that writes nothing) holds nothing.
        error: Makes what is raised where another process holds it, of that process's number.
    """
    if folder is None or fcntl is None:
        yield
        return
    with open(folder / LOCK, "a+") as file:
        try:
            # Not flock: the loader's workers would inherit it and hold the folder for some seconds after a kill.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as held_up:
            file.seek(0)
            raise error(file.read().strip() or "(unknown)") from held_up
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
