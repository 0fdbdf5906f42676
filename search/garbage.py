"""Checkpoints that can no longer be used, and the space that they take."""

from pathlib import Path

from search.journal import Event, Kind
from search.phase import Record
from search.schedulers.ranking import best_first
from search.state import CandidateState, StudyState

_SETTLING = (Kind.JOB_DONE, Kind.FINISHED, Kind.FAILED, Kind.OUT_OF_MEMORY, Kind.SEARCH_DONE)


class Garbage:
    """Deletes checkpoints of candidates that will not go on; curves and records stay.

    Args:
        record: Notes what was deleted.
        folder: Of the candidates' run folders.
        disk_mb: Delete only while all checkpoints together take more; None: at once.
        keep: How many of the best keep theirs.
    """

    def __init__(self, record: Record, folder: Path, disk_mb: int | None, *, keep: int) -> None:
        self._record = record
        self._folder = folder
        self._allowed = None if disk_mb is None else disk_mb * 2**20
        self._keep = keep

    def watch(self, event: Event, state: StudyState) -> None:
        """Look after the disk when a candidate has come to rest."""
        if event.kind not in _SETTLING:
            return
        stored = {index: each for index, each in state.candidates.items() if each.bytes}
        total = sum(each.bytes for each in stored.values())
        kept = set(best_first({index: each.tally.values for index, each in stored.items()})[: self._keep])
        for index, candidate in stored.items():
            if self._allowed is not None and total <= self._allowed:
                return
            if index not in kept and not _is_needed(candidate, state):
                total -= candidate.bytes
                self._delete(candidate)

    def _delete(self, candidate: CandidateState) -> None:
        folder = self._folder / f"{candidate.record.index:05d}"
        deleted = 0
        for path in folder.glob("*.pth"):
            deleted += path.stat().st_size
            path.unlink(missing_ok=True)
        self._record(Kind.DELETED, candidate.record.index, bytes=deleted)


def _is_needed(candidate: CandidateState, state: StudyState) -> bool:
    return candidate.job is not None or (
        candidate.record.status == "paused" and state.scheduler.may_resume(candidate.record.index)
    )
