"""Deletion of the checkpoints that a study does not need any more."""

from dataclasses import dataclass
from pathlib import Path

from search.schedulers.ranking import best_first
from search.strategies.multi_fidelity import candidate_folder
from search.study.driver import Recorder
from search.study.journal import Event
from search.study.state import StudyState

_SETTLING = ("ended", "done")


@dataclass
class CheckpointCleaner:
    """A watcher that deletes checkpoints of candidates that will not be resumed; curves and records remain.

    Attributes:
        recorder: Records the deletions.
        folder: Folder of the study.
        disk_mb: Delete only while all checkpoints together take more megabytes; None: at once.
        retain: Number of the best candidates whose checkpoints remain.
    """

    recorder: Recorder
    folder: Path
    disk_mb: int | None
    retain: int

    def watch(self, event: Event, state: StudyState) -> None:
        """Delete checkpoints after a job has ended."""
        if event.kind not in _SETTLING or "run" in event.data:
            return
        stored = {index: each for index, each in state.candidates.items() if each.bytes}
        total = sum(each.bytes for each in stored.values())
        best = best_first({index: each.tally.values for index, each in stored.items()})[: self.retain]
        for index, candidate in stored.items():
            if self.disk_mb is not None and total <= self.disk_mb * 2**20:
                return
            # A paused candidate is resumed from its checkpoint if it may still be promoted.
            may_resume = candidate.record.status == "paused" and self.recorder.strategy.may_resume(index)
            if index in best or index in state.jobs or may_resume:
                continue
            total -= candidate.bytes
            deleted = 0
            for path in (self.folder / candidate_folder(index)).glob("*.pth"):
                deleted += path.stat().st_size
                path.unlink(missing_ok=True)
            self.recorder.record(f"{candidate.stage}.deleted", index, bytes=deleted)
