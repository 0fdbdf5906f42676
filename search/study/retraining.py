"""Winner and runners-up, trained again from the beginning and to the end, and tested."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.executors.base import Lost, Work
from search.schedulers.base import Decision
from search.schedulers.ranking import best_first
from search.study.journal import Event, Kind
from search.study.searching import MOST_LOSSES, Phase, Record
from search.study.state import CandidateState, StudyState

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


RETRAINED = "retrained"


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        candidate: Whose config it is.
        rank: From 1.
        number: Which of the seeds, from 0.
        config: What to train.
    """

    candidate: int
    rank: int
    number: int
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Of its folder, and in the journal."""
        return f"candidate{self.candidate}_seed{self.number}"


class Retraining(Phase):
    """Trains each run in full; none is stopped early.

    Args:
        record: Notes what happens.
        runs: What to train.
        folder: The study's.
    """

    def __init__(self, record: Record, runs: Sequence[Run], folder: Path) -> None:
        super().__init__(record)
        self.folder = folder
        known = self.state.retrained
        self._waiting = deque(run for run in runs if run.name not in known or known[run.name].status == "running")
        self._losses: dict[str, int] = {}

    @property
    def is_done(self) -> bool:
        """Whether all were trained."""
        return not self.running and not self._waiting

    def next_work(self) -> Work | None:
        """The best first."""
        if not self._waiting or self.is_pausing:
            return None
        run = self._waiting.popleft()
        folder = f"{RETRAINED}/{run.name}"
        if run.name not in self.state.retrained:
            self.record(
                Kind.RETRAIN,
                run.candidate,
                run=run.name,
                rank=run.rank,
                seed=run.config["seed"],
                epochs=run.config["trainer"]["epochs"],
                folder=folder,
            )
        reported = len(self.state.retrained[run.name].reports)
        task = {"kind": "retrain", "config": run.config, "folder": str(self.folder / folder), "reported": reported}
        return self.work(run, task)

    def told(self, subject: Run, message: dict[str, Any]) -> Decision:
        """Note an epoch, and let it go on."""
        if message.get("epoch", 0) > len(self.state.retrained[subject.name].reports):
            self.record(
                Kind.RETRAIN_REPORT,
                subject.candidate,
                run=subject.name,
                epoch=message["epoch"],
                row=message["row"],
                seconds=message["seconds"],
            )
        return Decision.CONTINUE

    def ended(self, subject: Run, outcome: dict[str, Any]) -> None:
        """Note what came of it; what was interrupted stays to be done."""
        status = outcome["status"]
        if status == "interrupted" or (status == "ended" and not outcome["is_finished"]):
            self._waiting.appendleft(subject)
        elif status == "ended":
            if outcome.get("test"):
                self.record(Kind.TESTED, subject.candidate, run=subject.name, metrics=outcome["test"])
            self._done(subject, "completed", "")
        else:
            self._done(subject, "failed", outcome["reason"])

    def lost(self, subject: Run, happening: Lost) -> None:
        """Go on from its last checkpoint, but not for ever."""
        self._losses[subject.name] = self._losses.get(subject.name, 0) + happening.had_begun
        if happening.cause == "hung" or self._losses[subject.name] >= MOST_LOSSES:
            self._done(subject, "failed", happening.reason)
        else:
            self._waiting.appendleft(subject)

    def _done(self, run: Run, status: str, reason: str) -> None:
        self.record(Kind.RETRAIN_DONE, run.candidate, run=run.name, status=status, reason=reason)


def runs_of(
    ranked: Sequence[int], config_of: Callable[[int], dict[str, Any]], *, top: int, seeds: int, epochs: int
) -> list[Run]:
    """The trainings of the best candidates, the best first.

    Args:
        ranked: Candidates, the best first.
        config_of: The config of a candidate.
        top: How many of them.
        seeds: Trainings of each, with the seeds after the candidate's own: that one may have been its luck.
        epochs: Of each training.
    """
    runs = []
    for rank, candidate in enumerate(ranked[:top], start=1):
        for number in range(seeds):
            config = config_of(candidate)
            config = {
                **config,
                "name": f"{config['name']}_candidate{candidate}",
                "seed": config.get("seed", 0) + 1 + number,
                "trainer": {**config["trainer"], "epochs": epochs},
            }
            runs.append(Run(candidate, rank, number, config))
    return runs
