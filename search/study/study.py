"""A study from its first draw to its tested winner, gone on with after any interruption."""

import json
import logging
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.executors.base import Executor
from search.results.leaderboard import best_results, leaderboard, winner_of
from search.results.objectives import Objective
from search.results.record import RetrainedRecord, StudyRecord
from search.schedulers.base import Scheduler
from search.schedulers.ranking import best_first
from search.study import folder as study_folder
from search.study.driver import Driver
from search.study.journal import JOURNAL, Journal, Kind, read_events
from search.study.retraining import Garbage, Retraining, runs_of
from search.study.searching import CANDIDATES, DrawSource, Limits, Phase, Record, Searching, Watcher
from search.study.state import StudyState
from utils.errors import SearchError
from utils.files import write_text_atomically

logger = logging.getLogger(__name__)

BEST = "best"
_CHECKPOINT, _LAST, _IMAGES = "model_best.pth", "checkpoint-last.pth", "pictures"


@dataclass(frozen=True)
class Retrain:
    """What becomes of the best.

    Attributes:
        top: How many candidates are trained again; 0: the winner stays as the search trained it.
        seeds: Trainings of each.
        epochs: Of each training.
    """

    top: int = 0
    seeds: int = 1
    epochs: int = 1


@dataclass(frozen=True)
class Plan:
    """What a study consists of; the config, taken apart.

    Attributes:
        config: The space as it was asked for.
        space: Gives the candidates.
        scheduler: New: it has decided nothing yet.
        objectives: What is wanted.
        limits: Budgets, and what a candidate must keep to.
        retrain: What becomes of the best.
        max_epoch_time: Seconds without a word after which a worker hangs.
        disk_mb: That checkpoints may take; None: only those that may be needed are kept.
    """

    config: Mapping[str, Any]
    space: DrawSource
    scheduler: Scheduler
    objectives: tuple[Objective, ...]
    limits: Limits = field(default_factory=Limits)
    retrain: Retrain = field(default_factory=Retrain)
    max_epoch_time: float | None = None
    disk_mb: int | None = None


class Study:
    """Runs a plan in a folder.

    Args:
        folder: The study's; what its journal tells is gone on with.
        plan: What to do.
        worker: What the workers do, "package.module:name"; see `Executor`.
        environment: Versions and command, for the journal.
        extras: What every task is told beside its own, e.g. plug-ins.
        watchers: Hear of every event after it stands in the journal.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        *,
        worker: str,
        environment: Mapping[str, Any] | None = None,
        extras: Mapping[str, Any] | None = None,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.worker = worker
        self.environment = dict(environment or {})
        self.extras = dict(extras or {})
        self.watchers = list(watchers)
        self.state = StudyState(plan.scheduler, plan.objectives)

    def run(self, executor: Executor) -> StudyRecord:
        """Search, train the best again, and leave the winner in `best/`.

        Raises:
            Interrupted: A signal asked to stop; all is saved.
            SearchError: Another search works in the folder, the journal is damaged or does not fit, or no candidate
                could be trained.
        """
        with study_folder.held(self.folder):
            journal = Journal(self.folder / JOURNAL)
            try:
                self.state.replay(journal.events())
                self._work(Record(journal, self.state, self.watchers), executor)
            finally:
                journal.close()
        return self.shown()

    def shown(self) -> StudyRecord:
        """The study as it stands."""
        return shown(self.folder, self.plan, self.state)

    def _work(self, record: Record, executor: Executor) -> None:
        searching = Searching(record, self.plan.space, self.folder, self.plan.limits)
        is_searched = searching.is_done or searching.budget_spent
        if self.state.is_done and is_searched and self._retraining(record).is_done:
            return
        record(Kind.BEGIN, environment=self.environment)
        garbage = Garbage(record, self.folder / CANDIDATES, self.plan.disk_mb, keep=max(1, self.plan.retrain.top))
        record.watchers = [*self.watchers, garbage.watch]
        logs = self.folder / "workers"
        logs.mkdir(exist_ok=True)
        executor.open(self.worker, logs)
        try:
            driver = Driver(executor, self.plan.max_epoch_time)
            self._run(driver, searching)
            if not self.state.reason_done or self.state.is_done:
                record(Kind.SEARCH_DONE, reason=searching.budget_spent or "the scheduler has no more to do")
            self._run(driver, self._retraining(record))
            winner = winner_of(self.shown())
            assert winner is not None, "there is a leaderboard"
            self._write_best(winner.index)
            record(Kind.DONE, winner.index)
        finally:
            executor.close()

    def _run(self, driver: Driver, phase: Phase) -> None:
        phase.extras = self.extras
        driver.run(phase)

    def _ranked(self) -> list[int]:
        """The judged candidates, the best first."""
        ranked = [row.candidate.index for row in leaderboard(self.shown())]
        if not ranked:
            reasons = [each.record.reason for each in self.state.candidates.values() if each.record.reason]
            last = f"; the last reason: {reasons[-1]}" if reasons else ""
            raise SearchError(
                f"{self.folder}: none of {len(self.state.candidates)} candidates could be trained{last}. Try one "
                "with train.py, or look into its folder."
            )
        return ranked

    def _config_of(self, candidate: int) -> dict[str, Any]:
        return self.plan.space.draw(candidate).config

    def _retraining(self, record: Record) -> Retraining:
        """What is yet to be done with the best so far: more of them may have been asked for, or more seeds."""
        plan = self.plan.retrain
        runs = runs_of(self._ranked(), self._config_of, top=plan.top, seeds=plan.seeds, epochs=plan.epochs)
        return Retraining(record, runs, self.folder)

    def _write_best(self, winner: int) -> None:
        """The winner as a config for `train.py`, its best weights, and what came of it."""
        best = self.folder / BEST
        best.mkdir(exist_ok=True)
        record = self.state.candidates[winner].record
        run = _best_run(self.state.retrained.values(), winner, self.plan.objectives)
        source = self.folder / (run.folder if run and run.folder else f"{CANDIDATES}/{winner:05d}")
        config = self._config_of(winner)
        if run is not None:
            config = {**config, "seed": run.seed, "trainer": {**config["trainer"], "epochs": self.plan.retrain.epochs}}
        content = {
            "candidate": winner,
            "objectives": record.objectives,
            "facts": record.facts,
            "drawn": dict(record.drawn),
            "retrained": [
                {"seed": each.seed, "best": best_results(each, self.plan.objectives), "test": each.test}
                for each in self.state.retrained.values()
                if each.candidate == winner
            ],
        }
        for name, value in (("config.json", config), ("result.json", content)):
            write_text_atomically(best / name, json.dumps(value, indent=2) + "\n")
        checkpoint = source / _CHECKPOINT if (source / _CHECKPOINT).exists() else source / _LAST
        if checkpoint.exists():
            beside = best / f".{_CHECKPOINT}.new"
            shutil.copyfile(checkpoint, beside)
            beside.replace(best / _CHECKPOINT)
        if (source / _IMAGES).is_dir():
            shutil.copytree(source / _IMAGES, best / _IMAGES, dirs_exist_ok=True)


def shown(folder: Path, plan: Plan, state: StudyState) -> StudyRecord:
    """A state as what is shown of it."""
    study = StudyRecord(
        name=str(plan.config["name"]),
        folder=str(folder),
        config=dict(plan.config),
        scheduler=type(plan.scheduler).__name__,
        objectives=[str(objective) for objective in plan.objectives],
        max_epochs=plan.scheduler.max_epochs,
        candidates=state.records(),
        rungs=state.rungs(),
        retrained=list(state.retrained.values()),
        sessions=[(begin, end) for begin, end in state.sessions],
        is_done=state.is_done,
        bytes_deleted=state.bytes_deleted,
    )
    ranks = {row.candidate.index: row.rank for row in leaderboard(study)}
    for run in study.retrained:  # a study that went on may have found better ones since
        run.rank = ranks.get(run.candidate, run.rank)
    return study


def read(folder: Path, plan: Plan) -> StudyRecord:
    """A study from its journal, which a search may be writing to.

    Raises:
        SearchError: It is missing, damaged, or not of this plan.
    """
    state = StudyState(plan.scheduler, plan.objectives)
    state.replay(read_events(folder / JOURNAL))
    return shown(folder, plan, state)


def _best_run(runs: Iterable[RetrainedRecord], winner: int, objectives: Sequence[Objective]) -> RetrainedRecord | None:
    """The winner's training with the best validation; the first where only facts are wanted."""
    own = [run for run in runs if run.candidate == winner and run.status == "completed" and run.reports]
    wanted = next((each for each in objectives if not each.is_fact), None)
    if wanted is None:
        return own[0] if own else None
    results = {index: best_results(run, objectives).get(wanted.name, math.nan) for index, run in enumerate(own)}
    order = best_first({index: (value * wanted.sign,) for index, value in results.items()})
    return own[order[0]] if order else None
