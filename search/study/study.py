"""A study: from the first draw to the tested winner in `best/`, resumed after any interruption."""

import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from search.results.leaderboard import best_results, leaderboard, winner_of
from search.results.record import StudyRecord
from search.schedulers.ranking import best_first
from search.study.driver import Driver, Recorder, Watcher
from search.study.journal import JOURNAL, Journal, Kind, read_events
from search.study.settings import StudyParts
from search.study.stages import CheckpointCleaner, Retraining, Searching, candidate_folder, retrain_runs
from search.study.state import StudyState
from utils.errors import SearchError
from utils.files import folder_lock, write_json

BEST = "best"
_CHECKPOINT, _LAST, _IMAGES = "model_best.pth", "checkpoint-last.pth", "pictures"


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
            retain = max(1, parts.retrain.top if parts.retrain is not None else 0)
            cleaner = CheckpointCleaner(recorder, self.folder, parts.budget.disk_mb, retain=retain)
            recorder.watchers.append(cleaner.watch)
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
                winner = winner_of(self.record())
                assert winner is not None, "_retraining raises if there is none"
                self._write_best(winner.index)
                recorder.record(Kind.DONE, winner.index)
            finally:
                executor.close()
        return self.record()

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

    def _write_best(self, winner: int) -> None:
        """Write the winner as a config for `train.py`, with its best weights and results."""
        best = self.folder / BEST
        best.mkdir(exist_ok=True)
        record = self.state.candidates[winner].record
        trained_again = [each for each in self.state.retrained.values() if each.candidate == winner]
        # The training with the best validation; the first if all objectives are facts.
        runs = [run for run in trained_again if run.status == "completed" and run.reports]
        goal = next((each for each in self.parts.objectives if not each.is_fact), None)
        if goal is not None and runs:
            results = [best_results(run, self.parts.objectives).get(goal.name, math.nan) for run in runs]
            runs = [runs[best_first({index: (value * goal.sign,) for index, value in enumerate(results)})[0]]]
        run = runs[0] if runs else None
        config = self.parts.space.draw(winner).config
        if run is not None:
            trainer = {**config["trainer"], "epochs": self.parts.retrain_epochs}
            config = {**config, "seed": run.seed, "trainer": trainer}
        result = {
            "candidate": winner,
            "objectives": record.objectives,
            "facts": record.facts,
            "drawn": dict(record.drawn),
            "retrained": [
                {"seed": each.seed, "best": best_results(each, self.parts.objectives), "test": each.test}
                for each in trained_again
            ],
        }
        for name, content in (("config.json", config), ("result.json", result)):
            write_json(best / name, content)
        source = self.folder / (run.folder if run and run.folder else candidate_folder(winner))
        checkpoint = source / _CHECKPOINT if (source / _CHECKPOINT).exists() else source / _LAST
        if checkpoint.exists():
            new = best / f".{_CHECKPOINT}.new"  # a kill must not leave half of a file
            shutil.copyfile(checkpoint, new)
            new.replace(best / _CHECKPOINT)
        if (source / _IMAGES).is_dir():
            shutil.copytree(source / _IMAGES, best / _IMAGES, dirs_exist_ok=True)


def read(folder: Path, parts: StudyParts) -> StudyRecord:
    """Read a study from its journal, which a search may be writing to.

    Raises:
        SearchError: It is missing, damaged, or does not fit the parts.
    """
    study = Study(folder, parts, worker="")
    study.state.replay(read_events(folder / JOURNAL), folder / JOURNAL)
    return study.record()
