"""The stage in which winner and runners-up are trained again, in full, and tested; and the deletion of checkpoints."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.executors.base import Task, WorkerLost
from search.schedulers.base import Decision
from search.schedulers.ranking import best_first
from search.study.driver import Recorder, Stage
from search.study.journal import Event, Kind
from search.study.searching import MOST_LOSSES, candidate_folder
from search.study.settings import StudyParts
from search.study.state import StudyState

RETRAINED = "retrained"
_SETTLING = (Kind.JOB_DONE, Kind.FINISHED, Kind.FAILED, Kind.OUT_OF_MEMORY, Kind.SEARCH_DONE)


@dataclass(frozen=True)
class RetrainRun:
    """A training of one of the best candidates from the beginning.

    Attributes:
        name: Name of its folder, and in the journal.
        candidate: Number of the candidate.
        rank: Its rank, from 1.
        config: The config to train.
    """

    name: str
    candidate: int
    rank: int
    config: dict[str, Any]


def retrain_runs(parts: StudyParts, ranked: Sequence[int]) -> list[RetrainRun]:
    """Return the trainings of the best candidates, the best first.

    Their seeds are those that follow the candidate's, as its result may owe to that one.

    Args:
        parts: The parts of the study.
        ranked: Candidates, the best first.
    """
    runs: list[RetrainRun] = []
    if parts.retrain is None:
        return runs
    for rank, candidate in enumerate(ranked[: parts.retrain.top], start=1):
        config = parts.space.draw(candidate).config
        for number in range(parts.retrain.seeds):
            changed = {
                "name": f"{config['name']}_candidate{candidate}",
                "seed": config.get("seed", 0) + 1 + number,
                "trainer": {**config["trainer"], "epochs": parts.retrain_epochs},
            }
            runs.append(RetrainRun(f"candidate{candidate}_seed{number}", candidate, rank, config | changed))
    return runs


class Retraining(Stage):
    """The stage that trains each run in full; none is stopped early.

    Args:
        recorder: Records the events.
        extras: Added to the content of every task.
        runs: The trainings.
        folder: Folder of the study.
    """

    def __init__(self, recorder: Recorder, extras: Mapping[str, Any], runs: Sequence[RetrainRun], folder: Path) -> None:
        super().__init__(recorder, extras)
        self.folder = folder
        known = self.state.retrained
        self._waiting = deque(run for run in runs if run.name not in known or known[run.name].status == "running")
        self._losses: Counter[str] = Counter()

    @property
    def is_done(self) -> bool:
        """Whether all were trained."""
        return not self.running and not self._waiting

    def next_task(self) -> Task | None:
        """Return the task of the best candidate that waits."""
        if not self._waiting or self.is_pausing:
            return None
        # The event is written once; a resumed run has it and continues from its checkpoint.
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
        content = {"kind": "retrain", "config": run.config, "folder": str(self.folder / folder), "reported": reported}
        return self.make_task(run, content)

    def on_report(self, subject: RetrainRun, message: dict[str, Any]) -> Decision:
        """Record a new epoch, and continue."""
        # An epoch that was trained again after a kill is in the journal already.
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

    def on_finished(self, subject: RetrainRun, outcome: dict[str, Any]) -> None:
        """Record the outcome; an interrupted run remains to be done."""
        status = outcome["status"]
        if status == "interrupted" or (status == "ended" and not outcome["is_finished"]):
            self._waiting.appendleft(subject)
        elif status == "ended":
            if outcome.get("test"):
                self.record(Kind.TESTED, subject.candidate, run=subject.name, metrics=outcome["test"])
            self._end(subject, "completed", "")
        else:
            self._end(subject, "failed", outcome["reason"])

    def on_lost(self, subject: RetrainRun, message: WorkerLost) -> None:
        """Continue from the last checkpoint, unless workers are lost again and again."""
        self._losses[subject.name] += message.had_started
        if message.cause == "hung" or self._losses[subject.name] >= MOST_LOSSES:
            self._end(subject, "failed", message.reason)
        else:
            self._waiting.appendleft(subject)

    def _end(self, run: RetrainRun, status: str, reason: str) -> None:
        self.record(Kind.RETRAIN_DONE, run.candidate, run=run.name, status=status, reason=reason)


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
        if event.kind not in _SETTLING:
            return
        stored = {index: each for index, each in state.candidates.items() if each.bytes}
        total = sum(each.bytes for each in stored.values())
        best = best_first({index: each.tally.values for index, each in stored.items()})[: self.retain]
        for index, candidate in stored.items():
            if self.disk_mb is not None and total <= self.disk_mb * 2**20:
                return
            # A paused candidate is resumed from its checkpoint if it may still be promoted.
            may_resume = candidate.record.status == "paused" and state.scheduler.may_resume(index)
            if index in best or candidate.job is not None or may_resume:
                continue
            total -= candidate.bytes
            deleted = 0
            for path in (self.folder / candidate_folder(index)).glob("*.pth"):
                deleted += path.stat().st_size
                path.unlink(missing_ok=True)
            self.recorder.record(Kind.DELETED, index, bytes=deleted)
