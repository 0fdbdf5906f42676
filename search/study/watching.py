"""Who hears of a study's events while it runs: the terminal, TensorBoard, a log of what is drawn."""

import logging
import math
import time
from collections import Counter
from pathlib import Path
from typing import Protocol

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


class Watching(Protocol):
    """Hears of events."""

    def watch(self, event: Event, state: StudyState) -> None:
        """An event stands in the journal."""

    def close(self) -> None:
        """The search ends, well or not."""


class DrawLog:
    """Prints every draw, and what became of those that do not count: `--verbose`."""

    def watch(self, event: Event, state: StudyState) -> None:
        """Print a draw, or why it does not count."""
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

    def close(self) -> None:
        """Nothing is left behind."""


class Terminal:
    """The live table.

    Args:
        name: Of the study.
        num_samples: Candidates to try.
        table: Where it is shown.
    """

    def __init__(self, name: str, num_samples: int, table: LiveTable) -> None:
        self._name = name
        self._num_samples = num_samples
        self._table = table
        self._begun: dict[str, float] = {}

    def watch(self, event: Event, state: StudyState) -> None:
        """Show how it stands now."""
        subject = event.data.get("run", str(event.candidate))
        if event.kind in (Kind.JOB, Kind.RETRAIN):
            self._begun[subject] = time.monotonic()
        if event.kind is Kind.FAILED:
            assert event.candidate is not None
            self._table.say(f"Candidate {event.candidate} failed: {state.candidates[event.candidate].record.reason}")
        is_last = event.kind in (Kind.SEARCH_DONE, Kind.DONE)
        if is_last or self._table.is_due:
            self._table.update(self.snapshot(state), force=is_last)

    def close(self) -> None:
        """Leave the table standing."""
        self._table.close()

    def snapshot(self, state: StudyState) -> Snapshot:
        """All that the table shows."""
        statuses: Counter[str] = Counter(each.record.status for each in state.candidates.values())
        trained = [each for each in state.candidates.values() if each.record.reports]
        resting = [each for each in trained if each.job is None]
        max_epochs = state.scheduler.max_epochs
        saved = sum(max_epochs - each.record.epochs for each in resting if each.record.status in ("stopped", "paused"))
        done = statuses["completed"] + statuses["stopped"] + statuses["failed"] + statuses["paused"]
        mean_epochs = sum(each.record.epochs for each in resting) / len(resting) if resting else math.nan
        to_go = (self._num_samples - done) * mean_epochs
        sign = state.objectives[0].sign
        best = max(trained, key=lambda each: _value(each.tally.values[0]), default=None)
        return Snapshot(
            name=self._name,
            objective=state.objectives[0].name,
            done=done,
            num_samples=self._num_samples,
            running=self._retrained(state) if state.reason_done else self._candidates(state),
            rungs=[_rung_count(rung, sign) for rung in state.rungs()],
            best=None if best is None else (best.record.index, best.tally.values[0] * sign),
            epochs=state.epochs,
            epochs_saved=saved,
            troubles={status: statuses[status] for status in _TROUBLES if statuses[status]},
            seconds=state.seconds(),
            seconds_left=None if state.reason_done else seconds_left(state.seconds(), state.epochs, to_go),
            trained_again=len([each for each in state.retrained.values() if each.status != "running"])
            if state.reason_done
            else None,
        )

    def _candidates(self, state: StudyState) -> list[RunningCandidate]:
        sign = state.objectives[0].sign
        return [
            RunningCandidate(
                number,
                state.candidates[number].record.epochs,
                job.end,
                state.candidates[number].tally.values[0] * sign if state.candidates[number].record.reports else None,
                self._seconds(str(number)),
            )
            for number, job in state.jobs.items()
            if number in state.candidates
        ]

    def _retrained(self, state: StudyState) -> list[RunningCandidate]:
        name = state.objectives[0].name
        return [
            RunningCandidate(
                f"again {run}",
                len(record.reports),
                record.max_epochs,
                record.reports[-1].get(name) if record.reports else None,
                self._seconds(run),
            )
            for run, record in state.retrained.items()
            if record.status == "running"
        ]

    def _seconds(self, subject: str) -> float:
        return time.monotonic() - self._begun.setdefault(subject, time.monotonic())


class EventFiles:
    """One TensorBoard run per candidate, and the table of HParams.

    Args:
        runs: Writes them.
    """

    def __init__(self, runs: TensorBoardRuns) -> None:
        self._runs = runs
        self._begun: set[int] = set()

    def watch(self, event: Event, state: StudyState) -> None:
        """Write an epoch, or the end of a candidate."""
        if event.candidate is None or event.candidate not in state.candidates:
            return
        if event.kind is Kind.REPORT:
            if event.candidate not in self._begun:
                self._begun.add(event.candidate)
                self._runs.begin(event.candidate, state.candidates[event.candidate].record.drawn)
            self._runs.report(event.candidate, event.data["epoch"], event.data["row"])
        elif event.kind in _ENDS and state.candidates[event.candidate].last_decision is not Decision.PAUSE:
            self._runs.finish(event.candidate, failed=event.kind is Kind.FAILED)

    def close(self) -> None:
        """Every file is closed already."""


def watchers_of(
    folder: Path, name: str, *, num_samples: int, objective: str, tensorboard: bool, verbose: bool
) -> list[Watching]:
    """Those that a search has.

    Args:
        folder: The study's.
        name: The study's.
        num_samples: Candidates to try.
        objective: First result that is wanted.
        tensorboard: Whether curves are written for TensorBoard.
        verbose: Whether every draw is printed.
    """
    watchers: list[Watching] = [Terminal(name, num_samples, LiveTable())]
    if tensorboard:
        watchers.append(EventFiles(TensorBoardRuns(folder / TENSORBOARD, [objective])))
    return [DrawLog(), *watchers] if verbose else watchers


def _value(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _rung_count(rung: RungRecord, sign: int) -> RungCount:
    values = [value for value in rung.values.values() if not math.isnan(value)]
    best = max(values, key=lambda value: value * sign, default=None)
    return RungCount(rung.bracket, rung.epochs, len(rung.values), len(rung.promoted), best)
