"""Checkpoints reach the disk while the training goes on."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from utils.checkpoint_file import commit_checkpoint, stage_checkpoint


class CheckpointWriter:
    """Serialises a checkpoint at once and leaves checksum and flushing, which wait for the disk, to a thread.

    At most one is under way: the next one waits for it. Nothing is in place before it is on the disk whole, so a kill
    in between leaves the checkpoint before.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def write(self, paths: Sequence[Path], content: dict[str, Any]) -> None:
        """Write `content` under each of `paths`, in this order; it may change as soon as this returns.

        Raises:
            CheckpointError: This one cannot be serialised to the disk, or the one before did not reach it.
        """
        self.wait()
        staged = stage_checkpoint(paths[-1], content)
        self._thread = self._thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending = self._thread.submit(commit_checkpoint, staged, list(paths))

    def wait(self) -> None:
        """Until everything is on the disk.

        Raises:
            CheckpointError: The last one did not reach the disk.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """`wait`, and end the thread."""
        try:
            self.wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
            self._thread = None
