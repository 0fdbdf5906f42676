"""A study: from the first draw to the tested winner in `best/`, resumed after any interruption."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from search.results.leaderboard import leaderboard
from search.results.record import StudyRecord
from search.study.best import write_best
from search.study.cleaner import CheckpointCleaner
from search.study.driver import Driver, Recorder, Watcher
from search.study.journal import JOURNAL, Event, Journal, Kind, read_events
from search.study.settings import StudyParts
from search.study.stages import Retraining, Searching, candidate_folder, retrain_runs
from search.study.state import CandidateState, StudyState
from utils.errors import SearchError
from utils.files import folder_lock


@dataclass
class Study:
    """A search in a folder; it continues from the journal that is there.

    Attributes:
        folder: Folder of the study.
        parts: The parts of the study.
        worker: The worker's context manager, "package.module:name"; see `Executor`.
        environment: Versions and command, for the journal.
        extras: Added to the content of every task, e.g. plug-ins.
        watchers: Called with each event after it is in the journal.
    """

    folder: Path
    parts: StudyParts
    _: KW_ONLY
    worker: str
    environment: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    watchers: Sequence[Watcher] = ()

    def __post_init__(self) -> None:
        self.state = StudyState(self.parts.scheduler, self.parts.objectives)

    def run(self) -> StudyRecord:
        """Search, train the best again, and write the winner to `best/`.

        Raises:
            Interrupted: A signal asked to stop; all is saved.
            SearchError: Another search uses the folder, the journal is damaged or does not fit, or no candidate could
                be trained.
        """

        def in_use(process: str) -> SearchError:
            return SearchError(
                f"{self.folder}: process {process} is searching there. A study is continued by one search at a time. "
                "Wait for its end, or start another one without --resume."
            )

        parts, executor = self.parts, self.parts.executor
        with folder_lock(self.folder, in_use), closing(Journal(self.folder / JOURNAL)) as journal:
            self.state.replay(read_events(journal.path), journal.path)
            recorder = Recorder(journal, self.state, list(self.watchers))
            searching = Searching(recorder, self.extras, parts, self.folder)
            is_searched = searching.is_done or bool(searching.spent_budget)
            # A study that is done may be resumed with a larger budget, or for more retrainings.
            if self.state.is_done and is_searched and self._retraining(recorder).is_done:
                return self.record()
            recorder.record(Kind.BEGIN, environment=self.environment)
            recorder.watchers.append(self._clean(recorder))
            # Workers are started only now: a study that is done needs none.
            logs = self.folder / "workers"
            logs.mkdir(exist_ok=True)
            executor.open(self.worker, logs)
            try:
                driver = Driver(executor, parts.max_epoch_time)
                driver.run(searching)
                if not self.state.reason_done or self.state.is_done:  # not if only the retraining was interrupted
                    reason = searching.spent_budget or "the scheduler has no more to do"
                    recorder.record(Kind.SEARCH_DONE, reason=reason)
                driver.run(self._retraining(recorder))
                # It has results: `_retraining` raises if there are none.
                winner = write_best(
                    self.record(), lambda index: parts.space.draw(index).config, retrain_epochs=parts.retrain_epochs
                )
                recorder.record(Kind.DONE, winner)
            finally:
                executor.close()
        return self.record()

    def _clean(self, recorder: Recorder) -> Watcher:
        """Return a watcher that deletes checkpoints when jobs end."""
        parts, state = self.parts, self.state
        cleaner = CheckpointCleaner(
            lambda index: self.folder / candidate_folder(index),
            parts.scheduler.may_resume,
            lambda index, num_bytes: recorder.record(Kind.DELETED, index, bytes=num_bytes),
            num_objectives=len(parts.objectives),
            disk_mb=parts.budget.disk_mb,
            retain=max(1, parts.retrain.top if parts.retrain is not None else 0),
        )

        def note_end(each: CandidateState) -> None:
            cleaner.ended(each.record.index, each.record.status, each.bytes, each.tally.values)

        for index, each in state.candidates.items():
            if index not in state.jobs:
                note_end(each)

        def watch(event: Event, state: StudyState) -> None:
            if event.candidate is not None and event.kind is Kind.JOB:
                cleaner.began(event.candidate)
            elif event.candidate is not None and event.kind in (Kind.JOB_DONE, Kind.FAILED, Kind.OUT_OF_MEMORY):
                note_end(state.candidates[event.candidate])
                cleaner.clean()
            elif event.kind in (Kind.FINISHED, Kind.SEARCH_DONE):
                cleaner.clean(thoroughly=event.kind is Kind.SEARCH_DONE)

        return watch

    def record(self) -> StudyRecord:
        """Return the present state of the study, as it is shown to the user."""
        parts, state = self.parts, self.state
        for each in state.candidates.values():  # one that was paused and will never be resumed is stopped
            if each.record.status == "paused" and not parts.scheduler.may_resume(each.record.index):
                each.record.status = "stopped"
        study = StudyRecord(
            name=str(parts.config["name"]),
            folder=str(self.folder),
            config=dict(parts.config),
            scheduler=type(parts.scheduler).__name__,
            objectives=[str(objective) for objective in parts.objectives],
            max_epochs=parts.scheduler.max_epochs,
            candidates=[each.record for each in state.candidates.values()],
            rungs=state.rungs(),
            retrained=list(state.retrained.values()),
            sessions=[(begin, end) for begin, end in state.sessions],
            is_done=state.is_done,
            bytes_deleted=state.bytes_deleted,
        )
        ranks = {row.candidate.index: row.rank for row in leaderboard(study)}
        for run in study.retrained:  # a resumed study may have found better ones since
            run.rank = ranks.get(run.candidate, run.rank)
        return study

    def _retraining(self, recorder: Recorder) -> Retraining:
        """Return the stage that trains the best candidates so far again.

        Raises:
            SearchError: No candidate could be trained, or none has a finite objective.
        """
        ranked = [row.candidate.index for row in leaderboard(self.record())]
        records = [each.record for each in self.state.candidates.values()]
        if not ranked and any(each.reports and each.status != "failed" for each in records):
            names = " and ".join(each.name for each in self.parts.objectives)
            raise SearchError(
                f"{self.folder}: no candidate has a finite value of {names}, by which the best one is chosen. Name "
                "other search.objectives, or correct the data."
            )
        if not ranked:
            reasons = [each.reason for each in records if each.reason]
            last = f"; the last reason: {reasons[-1].rstrip('.')}" if reasons else ""
            raise SearchError(
                f"{self.folder}: none of {len(records)} candidates could be trained{last}. Try one "
                "with train.py, or look into its folder."
            )
        return Retraining(recorder, self.extras, retrain_runs(self.parts, ranked), self.folder)


def read(folder: Path, parts: StudyParts) -> StudyRecord:
    """Read a study from its journal, which a search may be writing to.

    Raises:
        SearchError: It is missing, damaged, or does not fit the parts.
    """
    study = Study(folder, parts, worker="")
    study.state.replay(read_events(folder / JOURNAL), folder / JOURNAL)
    return study.record()
