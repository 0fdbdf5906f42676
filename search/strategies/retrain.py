"""Retraining of the best candidates from the beginning, and their test."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from config.checking.splits import is_merged
from config.faults import Faults
from search.executors.base import Task
from search.results.record import RetrainedRecord
from search.schedulers.base import Decision
from search.space.cover import Check, changed_faults
from search.space.space import Space
from search.strategies.base import MOST_LOSSES, Loss, Outcome, Strategy
from search.study.folders import RETRAINED, run_folder
from search.study.settings import StudyParts

logger = logging.getLogger("espalier")

_NOT_EXPORTED = {"reason": "its worker exported nothing"}


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


def _kind_of(name: str) -> str:
    """Return the part of the name of a retraining that says how it is trained; see `StudyParts.retrain_kind`."""
    found = re.fullmatch(r"candidate\d+_seed\d+(.*?)(_\d+_epochs)?", name)
    return found.group(1) if found is not None else ""


class Retrain(Strategy):
    """Trains the best candidates in full, each with several seeds; none is stopped early.

    The seeds are those that follow the candidate's, as its result may owe to that one.

    Args:
        parts: The parts of the study.
        stage: Name of the stage.
        searching: The strategy that says which candidates are trained again, and with which config; None: the best by
            the leaderboard, as they were drawn.
    """

    def __init__(self, parts: StudyParts, *, stage: str = "retrain", searching: Strategy | None = None) -> None:
        self.parts = parts
        self.searching = searching
        self.stage = stage
        self.stages = (stage,)
        self._running: dict[str, RetrainRun] = {}  # by task
        self._losses: Counter[str] = Counter()
        self._num_tasks = 0

    def runs(self) -> list[RetrainRun]:
        """Return the trainings of the best candidates so far, the best first."""
        runs: list[RetrainRun] = []
        options = self.parts.retrain
        if options is None or options.top == 0:
            return runs
        finalists = self.study.ranked() if self.searching is None else self.searching.finalists()
        for rank, candidate in enumerate(finalists[: options.top], start=1):
            state = self.study.state.candidates[candidate]
            assert state.drawn is not None, "set when it was drawn"
            chosen = None if self.searching is None else self.searching.config_of(candidate)
            config, seed = chosen or self.parts.space.config(state.drawn), state.record.seed
            for number in range(options.seeds):
                changed = self.parts.retrained_config(config, seed + 1 + number)
                changed["name"] = f"{config['name']}_candidate{candidate}"
                name = f"candidate{candidate}_seed{number}{self.parts.retrain_kind}"
                epochs, known = changed["trainer"]["epochs"], self.study.state.retrained.get(name)
                if known is not None and known.max_epochs not in (0, epochs):  # of a session with other options
                    name = f"{name}_{epochs}_epochs"
                runs.append(RetrainRun(name, candidate, rank, changed))
        return runs

    def retrained(self) -> dict[str, RetrainedRecord]:
        """Return the retrainings that were done as those of the present options are, without an export not wanted."""
        state, options = self.study.state, self.parts.retrain
        same = {name: run for name, run in state.retrained.items() if _kind_of(name) == self.parts.retrain_kind}
        if state.options is None:  # of an earlier version, which may have had others than the config says
            return same
        if options is None or options.top == 0:
            return {}
        epochs = {run.candidate: options.epochs or self._epochs_of(run.candidate) for run in same.values()}
        same = {name: run for name, run in same.items() if run.max_epochs in (0, epochs[run.candidate])}
        if any(run.status == "running" for run in same.values()):
            present = {run.name for run in self.runs()}  # one that was interrupted may be none of the best any more
            same = {name: run for name, run in same.items() if run.status != "running" or name in present}
        return same if self._wants_onnx else {name: replace(run, onnx={}) for name, run in same.items()}

    def _epochs_of(self, candidate: int) -> int:
        """Return the epochs of the config of a candidate."""
        drawn = self.study.state.candidates[candidate].drawn
        assert drawn is not None, "set when it was drawn"
        chosen = None if self.searching is None else self.searching.config_of(candidate)
        return int((chosen or self.parts.space.config(drawn))["trainer"]["epochs"])

    @property
    def _wants_onnx(self) -> bool:
        """Whether each leaves its network as ONNX, too."""
        asked = None if self.parts.retrain is None else self.parts.retrain.onnx
        return self.searching is not None and self.searching.wants_onnx if asked is None else asked

    def find_faults(self, space: Space, check: Check) -> list[str]:
        """Return no faults of single candidates: the changes of a retraining must suit all.

        Raises:
            ConfigError: With it, none can be trained.
        """
        if self.parts.retrain is None or self.parts.retrain.top == 0:
            return []
        example = None if self.searching is None else self.searching.example_of_finalist()
        config = next(space.covering()).config if example is None else example
        faults = Faults()
        with faults.collecting():
            changed = self.parts.retrained_config(config, config.get("seed", 0))
            for message in changed_faults(config, changed, check):
                faults.add("search.retrain", message)
        if faults:
            raise faults.error()
        return []

    @property
    def is_done(self) -> bool:
        """Whether all were trained."""
        return not self._running and not self._waiting()

    def _waiting(self) -> list[RetrainRun]:
        """Return the runs to be done; one that was interrupted continues from its last checkpoint."""
        known, running = self.study.state.retrained, {run.name for run in self._running.values()}
        return [
            run
            for run in self.runs()
            if run.name not in running
            and (run.name not in known or known[run.name].status == "running" or self._lacks_onnx(known[run.name]))
        ]

    def _lacks_onnx(self, run: RetrainedRecord) -> bool:
        """Whether the network of a completed run was not exported, as an earlier session did not want that."""
        return self._wants_onnx and run.status == "completed" and not run.onnx

    def next(self, idle: int) -> Sequence[Task]:
        """Return the tasks of the best candidates that wait."""
        tasks = []
        for run in self._waiting()[:idle]:
            # The event is written once; a resumed run has it and continues from its checkpoint.
            folder = f"{RETRAINED}/{run.name}"
            if run.name not in self.study.state.retrained:
                seed, epochs = run.config["seed"], run.config["trainer"]["epochs"]
                data = {"run": run.name, "rank": run.rank, "seed": seed, "epochs": epochs, "folder": folder}
                self.study.record(f"{self.stage}.job", run.candidate, **data)
            self._num_tasks += 1
            known = self.study.state.retrained[run.name]
            payload = {
                "config": run.config,
                "folder": str(run_folder(self.study.folder, folder)),
                "reported": len(known.reports),
                "onnx": self._wants_onnx,
                "only_export": self._lacks_onnx(known),
                # Without validation no epoch is better than the last one.
                **({} if is_merged(run.config) else self.parts.rules),
            }
            name = f"{self.stage}/{run.name}/{self._num_tasks}"
            task = Task(name, "retrain", payload, candidate=run.candidate, resources=self.parts.resources)
            self._running[task.id] = run
            tasks.append(task)
        return tasks

    def reported(self, task: Task, message: Mapping[str, Any]) -> Decision:
        """Record a new epoch, and continue."""
        run = self._running[task.id]
        # An epoch that was trained again after a kill is in the journal already.
        if message.get("epoch", 0) > len(self.study.state.retrained[run.name].reports):
            data = {key: message[key] for key in ("epoch", "row", "seconds")}
            self.study.record(f"{self.stage}.report", run.candidate, run=run.name, **data)
            del self._losses[run.name]
        return Decision.CONTINUE

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Record the outcome; an interrupted run remains to be done."""
        run = self._running.pop(task.id)
        if outcome.status == "ended" and outcome.details.get("is_finished"):
            onnx = dict(outcome.details.get("onnx", {})) or (_NOT_EXPORTED if self._wants_onnx else {})
            # One that is only exported is not tested again.
            test = dict(outcome.details.get("test", self.study.state.retrained[run.name].test))
            self._complete(run, test, onnx)
        elif outcome.status not in ("ended", "interrupted"):
            self._fail(run, outcome.reason)

    def lost(self, task: Task, cause: Loss, reason: str, *, had_started: bool) -> None:
        """Continue from the last checkpoint, unless workers are lost again and again."""
        run = self._running.pop(task.id)
        self._losses[run.name] += had_started
        if cause == "hung" or self._losses[run.name] >= MOST_LOSSES:
            self._fail(run, reason)

    def _fail(self, run: RetrainRun, reason: str) -> None:
        """Record that a run failed, or only its export, if it was completed in an earlier session."""
        known = self.study.state.retrained[run.name]
        if known.status == "completed":
            self._complete(run, known.test, {"reason": reason})
        else:
            self._end(run, "failed", reason)

    def _complete(self, run: RetrainRun, test: Mapping[str, float], onnx: Mapping[str, Any]) -> None:
        """Record the test of a run and the comparison of its export, or the reason why there is none."""
        if "reason" in onnx:
            logger.warning("%s: its network is not exported: %s", run.name, onnx["reason"])
        more: dict[str, Any] = {"onnx": onnx} if self._wants_onnx else {}
        self._end(run, "completed", test=test, **more)

    def _end(self, run: RetrainRun, status: str, reason: str = "", **data: Any) -> None:
        name = f"{self.stage}.ended"
        self.study.record(name, run.candidate, run=run.name, status=status, reason=reason, **data)

    def winner(self) -> int | None:
        """Return the best of those that are trained again, see `winner_of`; None if none was.

        The leaderboard may rank others higher, for a strategy has its own order of those that are trained again.
        """
        known = self.retrained()
        if not known:
            return None
        best = next(iter(self.study.front()), None)
        candidates = [run.candidate for run in self.runs() if run.name in known]
        return candidates[0] if candidates and best not in candidates else best
