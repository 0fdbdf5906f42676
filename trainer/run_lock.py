"""One process at a time trains in a run's folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import CheckpointError

try:
    import fcntl
except ImportError:  # not on Windows, where nobody holds anybody up
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


@contextmanager
def held(folder: Path | None) -> Iterator[None]:
    """Hold a run's folder for a block; the system lets go of it however the process ends.

    Args:
        folder: The run's folder; None (of a process that writes nothing) holds nothing.

    Raises:
        CheckpointError: Another process trains there.
    """
    if folder is None or fcntl is None:
        yield
        return
    with open(folder / LOCK, "a+") as file:
        try:
            # Not flock: the loader's workers would inherit it and hold the folder for some seconds after a kill.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise CheckpointError(
                f"{folder}: process {file.read().strip() or '(unknown)'} is training there. A run goes on in one "
                "process at a time. Wait for its end, or start another run without --resume."
            ) from error
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
