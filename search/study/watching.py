"""Watchers of a study's events while it runs: the terminal, TensorBoard, and a log of the draws."""

import logging
import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from search.cli.live import LiveTable, RungCount, RunningCandidate, Snapshot, seconds_left
from search.cli.tensorboard import TensorBoardRuns
from search.results.record import RungRecord
from search.schedulers.base import Decision
from search.study.journal import Event, Kind
from search.study.state import StudyState

logger = logging.getLogger("espalier")

TENSORBOARD = "tensorboard"
_TROUBLES = ("failed", "out_of_memory", "refused", "duplicate")
_ENDS = (Kind.JOB_DONE, Kind.FINISHED, Kind.FAILED)


class StudyWatcher(ABC):
    """Something that shows the events of a study."""

    @abstractmethod
    def watch(self, event: Event, state: StudyState) -> None:
        """Show an event that is in the journal, or the state after it."""

    def close(self) -> None:  # noqa: B027 - most have nothing to end
        """End the output; called even if the search fails."""


class DrawLog(StudyWatcher):
    """Prints every draw, and the reason if its candidate does not count: `--verbose`."""

    def watch(self, event: Event, state: StudyState) -> None:
        """Print a draw, its facts, or why it does not count."""
        if event.kind is Kind.DRAW:
            values = ", ".join(f"{path}={value}" for path, value in event.data["drawn"])
            logger.info("Candidate %s: %s", event.candidate, values or f"seed {event.data['seed']}")
        elif event.kind in (Kind.REFUSED, Kind.DUPLICATE, Kind.OUT_OF_MEMORY, Kind.FAILED):
            assert event.candidate is not None
            record = state.candidates[event.candidate].record
            logger.info("Candidate %s: %s (%s)", event.candidate, record.status, record.reason)
        elif event.kind is Kind.FACTS:
            facts = ", ".join(f"{name} {value:,}" for name, value in event.data["facts"].items())
            logger.info("Candidate %s: %s", event.candidate, facts)


@dataclass
class EventFiles(StudyWatcher):
    """Writes a TensorBoard run per candidate, and the table of HParams.

    Attributes:
        runs: The writer.
        begun: Candidates that it knows.
    """

    runs: TensorBoardRuns
    begun: set[int] = field(default_factory=set)

    def watch(self, event: Event, state: StudyState) -> None:
        """Write an epoch, or the end of a candidate."""
        if event.candidate is None or event.candidate not in state.candidates:
            return
        if event.kind is Kind.REPORT:
            if event.candidate not in self.begun:
                self.begun.add(event.candidate)
                self.runs.begin(event.candidate, state.candidates[event.candidate].record.drawn)
            self.runs.report(event.candidate, event.data["epoch"], event.data["row"])
        # A paused candidate may continue: its run is not finished.
        elif event.kind in _ENDS and state.candidates[event.candidate].last_decision is not Decision.PAUSE:
            self.runs.finish(event.candidate, failed=event.kind is Kind.FAILED)


@dataclass
class Terminal(StudyWatcher):
    """Shows the live table.

    Attributes:
        name: Name of the study.
        num_samples: Candidates to try.
        table: The table.
        started: Monotonic time at which each candidate or run started, in seconds.
    """

    name: str
    num_samples: int
    table: LiveTable
    started: dict[str, float] = field(default_factory=dict)

    def watch(self, event: Event, state: StudyState) -> None:
        """Show the state if the table is due, and every failure."""
        if event.kind in (Kind.JOB, Kind.RETRAIN):
            self.started[event.data.get("run", str(event.candidate))] = time.monotonic()
        if event.kind is Kind.FAILED:
            assert event.candidate is not None
            self.table.say(f"Candidate {event.candidate} failed: {state.candidates[event.candidate].record.reason}")
        is_last = event.kind in (Kind.SEARCH_DONE, Kind.DONE)
        if is_last or self.table.is_due:
            self.table.update(self.snapshot(state), force=is_last)

    def close(self) -> None:
        """Leave the last table on the screen."""
        self.table.close()

    def snapshot(self, state: StudyState) -> Snapshot:
        """Return the content of the table."""
        statuses: Counter[str] = Counter(each.record.status for each in state.candidates.values())
        trained = [each for each in state.candidates.values() if each.record.reports]
        idle = [each for each in trained if each.job is None]
        max_epochs, sign = state.scheduler.max_epochs, state.objectives[0].sign
        saved = sum(max_epochs - each.record.epochs for each in idle if each.record.status in ("stopped", "paused"))
        done = statuses["completed"] + statuses["stopped"] + statuses["failed"] + statuses["paused"]
        # Expected epochs: those to come train as long as the mean of those that are done.
        mean_epochs = sum(each.record.epochs for each in idle) / len(idle) if idle else math.nan
        to_go = (self.num_samples - done) * mean_epochs
        ranks = {index: each.tally.values[0] for index, each in state.candidates.items() if each.record.reports}
        best = max(ranks, key=lambda index: -math.inf if math.isnan(ranks[index]) else ranks[index], default=None)
        is_retraining = bool(state.reason_done)
        return Snapshot(
            name=self.name,
            objective=state.objectives[0].name,
            done=done,
            num_samples=self.num_samples,
            running=self._running_retrainings(state) if is_retraining else self._running_candidates(state),
            rungs=[_rung_count(rung, sign) for rung in state.rungs()],
            best=None if best is None else (best, ranks[best] * sign),
            epochs=state.epochs,
            epochs_saved=saved,
            troubles={status: statuses[status] for status in _TROUBLES if statuses[status]},
            seconds=state.seconds,
            seconds_left=None if is_retraining else seconds_left(state.seconds, state.epochs, to_go),
            trained_again=sum(each.status != "running" for each in state.retrained.values()) if is_retraining else None,
        )

    def _running_candidates(self, state: StudyState) -> list[RunningCandidate]:
        sign, now = state.objectives[0].sign, time.monotonic()
        running = []
        for number, job in state.jobs.items():
            if number in state.candidates:  # a new one has no draw yet
                candidate = state.candidates[number]
                value = candidate.tally.values[0] * sign if candidate.record.reports else None
                seconds = now - self.started.setdefault(str(number), now)
                running.append(RunningCandidate(number, candidate.record.epochs, job.end, value, seconds))
        return running

    def _running_retrainings(self, state: StudyState) -> list[RunningCandidate]:
        name, now = state.objectives[0].name, time.monotonic()
        running = []
        for run, record in state.retrained.items():
            if record.status == "running":
                value = record.reports[-1].get(name) if record.reports else None
                seconds = now - self.started.setdefault(run, now)
                running.append(RunningCandidate(f"again {run}", len(record.reports), record.max_epochs, value, seconds))
        return running


def _rung_count(rung: RungRecord, sign: int) -> RungCount:
    values = [value for value in rung.values.values() if not math.isnan(value)]
    best = max(values, key=lambda value: value * sign, default=None)
    return RungCount(rung.bracket, rung.epochs, len(rung.values), len(rung.promoted), best)


def watchers_of(
    folder: Path, name: str, *, num_samples: int, objective: str, tensorboard: bool, verbose: bool
) -> list[StudyWatcher]:
    """Return the watchers of a search.

    Args:
        folder: Folder of the study.
        name: Name of the study.
        num_samples: Candidates to try.
        objective: Name of the first objective.
        tensorboard: Whether curves are written for TensorBoard.
        verbose: Whether every draw is printed.
    """
    watchers: list[StudyWatcher] = [DrawLog()] if verbose else []
    watchers.append(Terminal(name, num_samples, LiveTable()))
    if tensorboard:
        watchers.append(EventFiles(TensorBoardRuns(folder / TENSORBOARD, [objective])))
    return watchers
