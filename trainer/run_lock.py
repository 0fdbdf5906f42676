"""One process at a time trains in a run's folder."""

from contextlib import AbstractContextManager
from pathlib import Path

from utils import folder_lock
from utils.errors import CheckpointError


def held(folder: Path | None) -> AbstractContextManager[None]:
    """Hold a run's folder for a block.

    Args:
        folder: The run's folder; None (of a process that writes nothing) holds nothing.

    Raises:
        CheckpointError: Another process trains there.
    """
    return folder_lock.held(
        folder,
        lambda process: CheckpointError(
            f"{folder}: process {process} is training there. A run goes on in one process at a time. Wait for its end, "
            "or start another run without --resume."
        ),
    )
