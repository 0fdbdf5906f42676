"""The progress of a search: a table that is redrawn in a terminal, a line every half a minute in a log."""

import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TextIO

from search.cli.snapshot import RungCount, RunningCandidate, Snapshot, one_line, render
from search.results.beliefs import ORIGIN_WORDS, origin_counts
from search.results.importance import short_names
from search.results.progress import rung_correlation
from search.results.record import RetrainedRecord, RungRecord, leading_place, without_penalty
from search.samplers.base import Beliefs
from search.study.journal import Event
from search.study.state import StudyState
from utils.writing.text import in_one_line

if TYPE_CHECKING:
    from rich.live import Live

# rich is imported only if there is a terminal: its import takes time, and draws from Python's generator of numbers.
SECONDS_BETWEEN_TABLES = 0.5
SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_BELIEFS = 2.0
_MOST_BELIEVING = 0.02  # of the time of the search
_TROUBLES = {"failed": "failed", "out_of_memory": "out of memory", "refused": "refused", "duplicate": "drawn before"}
"""Status of candidates that count for nothing -> what the table calls it."""

logger = logging.getLogger("espalier")


def seconds_left(seconds: float, epochs: int, epochs_to_go: float) -> float | None:
    """Estimate the remaining time at the mean speed so far; None before the first epoch.

    Args:
        seconds: Duration of the epochs so far, with all workers at once.
        epochs: Done in that time.
        epochs_to_go: Expected number; NaN if it is unknown, and then the result is None.
    """
    if not epochs or math.isnan(epochs_to_go):
        return None
    return max(0.0, epochs_to_go) * seconds / epochs


@dataclass
class PacedBeliefs:
    """Asks a sampler for its beliefs when something has changed, and seldom enough to delay nothing.

    Attributes:
        ask: Returns it.
        clock: Monotonic time in seconds.
        last: The last answer.
        is_outdated: Whether something has changed since then.
    """

    ask: Callable[[], Beliefs] = Beliefs
    clock: Callable[[], float] = time.monotonic
    last: Beliefs = field(default_factory=Beliefs)
    is_outdated: bool = False
    _next: float = field(default=-math.inf, init=False)

    def present(self) -> Beliefs:
        """Return the last answer, after another question if it is time for that."""
        begin = self.clock()
        if self.is_outdated and begin >= self._next:
            self.is_outdated = False
            self.last = self.ask()
            end = self.clock()
            self._next = end + max(_SECONDS_BETWEEN_BELIEFS, (end - begin) / _MOST_BELIEVING)
        return self.last


@dataclass(eq=False)
class LiveTable:
    """Shows snapshots: in a terminal as a table in place, elsewhere as a line every half a minute.

    Attributes:
        stream: Standard error by default, so that results can be piped.
        clock: Monotonic time in seconds.
        width: Columns; by default those of the terminal.
    """

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic
    width: int | None = None
    _next: float = field(default=-math.inf, init=False)
    _live: "Live | None" = field(default=None, init=False)  # from the first table to `close`

    @property
    def is_due(self) -> bool:
        """Whether an update would be shown now, so that a snapshot is made only then."""
        return self.clock() >= self._next

    def update(self, snapshot: Snapshot, *, force: bool = False) -> None:
        """Show a snapshot, unless another was shown just now.

        Args:
            snapshot: The present state.
            force: Show it in any case, for example at the end.
        """
        if not force and not self.is_due:
            return
        is_terminal = self.stream.isatty()
        self._next = self.clock() + (SECONDS_BETWEEN_TABLES if is_terminal else SECONDS_BETWEEN_LINES)
        if not is_terminal:
            self.say(one_line(snapshot))
            return
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self.stream, force_terminal=True, width=self.width, highlight=False, markup=False)
            # Without a thread that refreshes: a candidate in this process may fork loader workers.
            self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
            self._live.start()
            console.show_cursor(True)  # a search that is killed must not leave a terminal without one
        self._live.update(render(snapshot), refresh=True)

    def say(self, text: str) -> None:
        """Write a permanent line, above the table in a terminal."""
        text = in_one_line(text)
        if self._live is not None:
            self._live.console.print(text)
        else:
            self.stream.write(f"{text}\n")
            self.stream.flush()

    def close(self) -> None:
        """Leave the last table on the screen; later output appears below it."""
        if self._live is not None:
            self._live.stop()
            self._live = None


@dataclass
class Terminal:
    """Shows the live table while a study runs.

    Attributes:
        name: Name of the study.
        num_samples: Candidates to try.
        rungs: Returns the rungs of the study.
        table: The table.
        started: Monotonic time at which each candidate or run started, in seconds.
        most_done: The most candidates that were done at a time.
        beliefs: Returns the beliefs of the sampler, see `Study.beliefs`.
        retrained: Returns the retrainings, see `Strategy.retrained`.
    """

    name: str
    num_samples: int
    rungs: Callable[[], Sequence[RungRecord]] = tuple
    table: LiveTable = field(default_factory=LiveTable)
    started: dict[str, float] = field(default_factory=dict)
    most_done: int = 0
    beliefs: PacedBeliefs = field(default_factory=PacedBeliefs)
    retrained: Callable[[], Mapping[str, RetrainedRecord]] = dict

    def watch(self, event: Event, state: StudyState) -> None:
        """Show the state if the table is due, and every failure."""
        self.num_samples = state.num_samples or self.num_samples
        if event.kind == "job":
            self.started[event.data.get("run", str(event.candidate))] = time.monotonic()
        if event.kind == "ended" and event.data["status"] == "failed":
            run = event.data.get("run")
            name = f"Candidate {event.candidate}" if run is None else f"The retraining {run}"
            self.table.say(f"{name} failed: {event.data.get('reason')}")
        if event.kind == "decoded":
            strides = " ".join(map(str, event.data["genotype"]["strides"]))
            self.table.say(f"Candidate {event.candidate} decoded after epoch {event.data['epoch']}: strides {strides}")
        if event.kind == "untrained":
            self.table.say(
                f"Candidate {event.candidate} is not decoded: after epoch {event.data['epoch']} its architecture has "
                "not learned, and its genotype is random"
            )
        if event.kind == "generation" and event.data.get("is_audit"):
            self.table.say("The predictions of the last generation are compared with its results")
        elif event.kind == "generation":
            count, expanded = len(event.data["cells"]), event.data.get("num_expanded", 0)
            self.table.say(f"Generation of {event.data['blocks']} blocks: {count} of {expanded:,} cells are trained")
        if event.kind == "selected":
            self.num_samples += len(event.data["networks"])
            self.table.say(f"Model selection: {len(event.data['networks'])} networks of the best cells are trained")
        if event.kind in ("report", "ended") and "run" not in event.data:
            self.beliefs.is_outdated = True
        is_last = event.kind == "done"
        if is_last or self.table.is_due:
            self.table.update(self.snapshot(state), force=is_last)

    def snapshot(self, state: StudyState) -> Snapshot:
        """Return the content of the table."""
        statuses: Counter[str] = Counter(each.record.status for each in state.candidates.values())
        trained = {index: each for index, each in state.candidates.items() if each.record.reports}
        idle = [each for index, each in trained.items() if index not in state.jobs]
        max_epochs, place = state.max_epochs, leading_place(state.objectives)
        goal = state.objectives[place]
        saved = sum(max_epochs - each.record.epochs for each in idle if each.record.status in ("stopped", "paused"))
        # Not one that continues another one: it takes its place.
        begun = Counter(each.record.status for each in state.candidates.values() if not each.record.inherited)
        done = begun["completed"] + begun["stopped"] + begun["failed"] + begun["paused"]
        # One that was promoted runs again: what was reached stays shown, so that the bar never goes back.
        self.most_done = max(self.most_done, done)
        # Expected epochs: those to come train as long as the mean of those that are done.
        mean_epochs = sum(each.record.epochs for each in idle) / len(idle) if idle else math.nan
        to_go = (self.num_samples - done) * mean_epochs
        ranked = {index: each for index, each in trained.items() if each.record.status not in _TROUBLES}
        ranks = {index: value for index, each in ranked.items() if math.isfinite(value := each.tally.values[place])}
        best = max(ranks, key=ranks.__getitem__, default=None)
        retrained = self.retrained()
        # The search is over, that of another strategy which follows included.
        is_retraining = bool(state.reason_done) and (bool(retrained) or not state.jobs)
        again = Counter(each.status for each in retrained.values())
        troubles = [f"{statuses[status]} {text}" for status, text in _TROUBLES.items() if statuses[status]]
        troubles += [f"{again['failed']} not trained again"] if again["failed"] else []
        rungs, all_rungs = [], self.rungs()
        for number, rung in enumerate(all_rungs):
            # Also at a rung that it had reached before it failed.
            values = [value for index, value in rung.values.items() if index in ranked and math.isfinite(value)]
            leading = max(values, key=lambda value: value * goal.sign, default=None)
            count = RungCount(rung.bracket, rung.epochs, len(rung.values), len(rung.promoted), leading)
            if number + 1 < len(all_rungs) and all_rungs[number + 1].bracket == rung.bracket:
                correlation, is_unbiased = rung_correlation(rung, all_rungs[number + 1])
                count = replace(count, correlation=correlation, is_unbiased=is_unbiased, decides=rung.decides)
            rungs.append(count)
        beliefs = self.beliefs.last if is_retraining else self.beliefs.present()
        running = self._retraining(state, retrained) if is_retraining else self._running(state, beliefs)
        predicted = [(each.predicted.mean * goal.sign, each) for each in running if each.predicted is not None]
        names = short_names(list(beliefs.importances))
        return Snapshot(
            name=self.name,
            objective=goal.name,
            done=self.most_done,
            num_samples=max(self.num_samples, self.most_done),
            running=running,
            rungs=rungs,
            best=None if best is None else (best, _value_of(state, best)),
            is_feasible=best is None or math.isfinite(without_penalty(ranks[best])),
            epochs=state.epochs,
            epochs_saved=saved,
            troubles=", ".join(troubles),
            seconds=state.seconds,
            seconds_left=None if is_retraining else seconds_left(state.seconds, state.epochs, to_go),
            origins=origin_counts(each.record for each in state.candidates.values()),
            importances={names[path]: share for path, share in beliefs.importances.items()},
            promising=max(predicted, key=lambda item: item[0])[1] if predicted else None,
            trained_again=again["completed"] if is_retraining else None,
        )

    def _running(self, state: StudyState, beliefs: Beliefs) -> list[RunningCandidate]:
        """Return the candidates that run."""
        running, now = [], time.monotonic()
        for number, job in state.jobs.items():
            if number in state.candidates:  # a new one has no draw yet
                candidate = state.candidates[number]
                value = _value_of(state, number) if candidate.record.reports else None
                seconds = now - self.started.setdefault(str(number), now)
                predicted = beliefs.predictions.get(number)
                running.append(RunningCandidate(number, candidate.record.epochs, job.end, value, seconds, predicted))
        return running

    def _retraining(self, state: StudyState, retrained: Mapping[str, RetrainedRecord]) -> list[RunningCandidate]:
        """Return the retrainings that run."""
        running, now = [], time.monotonic()
        goal = state.objectives[leading_place(state.objectives)]
        for run, record in retrained.items():
            if record.status == "running":
                value = record.reports[-1].get(goal.name) if record.reports else None
                seconds = now - self.started.setdefault(run, now)
                running.append(RunningCandidate(f"again {run}", len(record.reports), record.max_epochs, value, seconds))
        return running


def _value_of(state: StudyState, candidate: int) -> float:
    """Return the first objective that is a result, of a candidate, in its original sign; NaN if it is unknown."""
    place, each = leading_place(state.objectives), state.candidates[candidate]
    goal, value = state.objectives[place], without_penalty(each.tally.values[place])
    # The values of one that violates constraints say only how much.
    return each.record.objectives.get(goal.name, math.nan) if math.isnan(value) else value * goal.sign


def log_draws(event: Event, state: StudyState) -> None:
    """Print a draw, its facts, or the reason if its candidate does not count: a watcher for `--verbose`."""
    if event.candidate is None or "run" in event.data:
        return
    if event.kind == "drawn":
        values = ", ".join(f"{path}={value}" for path, value in event.data["drawn"])
        origin = ORIGIN_WORDS.get(event.data.get("origin", ""))
        name = f"{event.candidate} ({origin})" if origin else event.candidate
        logger.info("Candidate %s: %s", name, in_one_line(values or f"seed {event.data['seed']}"))
    elif event.kind == "duplicate" or (event.kind == "ended" and event.data["status"] != "ended"):
        record = state.candidates[event.candidate].record
        logger.info("Candidate %s: %s (%s)", event.candidate, record.status, in_one_line(record.reason))
    elif event.kind == "facts":
        facts = ", ".join(f"{name} {value:,}" for name, value in event.data["facts"].items())
        logger.info("Candidate %s: %s", event.candidate, in_one_line(facts))
