"""The search itself: candidates are drawn, trained as far as the scheduler wants, and compared."""

import itertools
import logging
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from search.executors.base import Ended, Lost, Told, Work
from search.results.objectives import require_results
from search.schedulers.base import Decision, Job
from search.study.journal import Event, Journal, Kind
from search.study.state import StudyState
from utils.errors import SearchError

Watcher = Callable[[Event, StudyState], None]
MOST_LOSSES = 3  # a worker that is lost so often at the same epoch is lost because of what it trains


class Record:
    """Writes an event to the journal, applies it to the state, and tells those who watch: always in this order.

    Args:
        journal: Open.
        state: As the journal has it.
        watchers: Show what happens.
    """

    def __init__(self, journal: Journal, state: StudyState, watchers: Sequence[Watcher] = ()) -> None:
        self.journal = journal
        self.state = state
        self.watchers = watchers

    def __call__(self, kind: Kind, candidate: int | None = None, **data: Any) -> None:
        """Let an event have happened."""
        event = self.journal.append(kind, candidate, **data)
        self.state.apply(event)
        for watch in self.watchers:
            watch(event, self.state)


class Phase(ABC):
    """A part of a study.

    Args:
        record: Notes what happens.

    Attributes:
        running: What each work in hand is about, by the work's number.
        is_pausing: Whether every work is to be saved and given back at its next report.
        extras: What every task is told beside its own, e.g. plug-ins.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.state = record.state
        self.running: dict[int, Any] = {}
        self.is_pausing = False
        self.extras: dict[str, Any] = {}
        self._numbers = itertools.count()

    @abstractmethod
    def next_work(self) -> Work | None:
        """The next work for an idle worker; None where there is none now."""

    @abstractmethod
    def told(self, subject: Any, message: dict[str, Any]) -> Decision:
        """What a worker tells; the answer."""

    @abstractmethod
    def ended(self, subject: Any, outcome: dict[str, Any]) -> None:
        """What a worker has returned."""

    @abstractmethod
    def lost(self, subject: Any, happening: Lost) -> None:
        """A worker is gone."""

    def hear(self, happening: Told | Ended | Lost) -> str:
        """Pass on what happens to a work."""
        if isinstance(happening, Told):
            decision = self.told(self.running[happening.number], happening.message)
            return (Decision.PAUSE if self.is_pausing and decision is Decision.CONTINUE else decision).value
        subject = self.running.pop(happening.number)
        if isinstance(happening, Ended):
            self.ended(subject, happening.outcome)
        else:
            self.lost(subject, happening)
        return ""

    def work(self, subject: Any, task: dict[str, Any]) -> Work:
        """A work with a number of its own."""
        number = next(self._numbers)
        self.running[number] = subject
        return Work(number, task | self.extras)


logger = logging.getLogger(__name__)

MOST_WITHDRAWN = 1000  # draws in a row that do not count: there is nothing to be found
CANDIDATES = "candidates"


class Draw(Protocol):
    """A candidate as the space gives it."""

    @property
    def seed(self) -> int:
        """Of its training."""

    @property
    def config(self) -> dict[str, Any]:
        """What to train."""

    @property
    def drawn(self) -> list[tuple[str, Any]]:
        """JSON path and value of what was drawn."""

    @property
    def key(self) -> str:
        """The same for candidates that would train the same."""


class DrawSource(Protocol):
    """A space."""

    def draw(self, index: int) -> Draw:
        """The candidate of that number, the same at each call."""

    def distinct(self) -> float:
        """How many different candidates there are; infinite where repeats are wanted."""


@dataclass(frozen=True)
class Limits:
    """When a search ends before its scheduler is done, and what a candidate must keep to.

    Attributes:
        epochs: To train in all; None: as many as the scheduler wants.
        minutes: Of all processes that work on the study.
        judge: Limits of a network, and what must be known of it, as a worker's function takes them.
    """

    epochs: int | None = None
    minutes: float | None = None
    judge: dict[str, Any] | None = None


class Searching(Phase):
    """Draws, trains and compares candidates.

    Args:
        record: Notes what happens.
        space: Gives the candidates.
        folder: The study's.
        limits: Of the study and its candidates.
    """

    def __init__(self, record: Record, space: DrawSource, folder: Path, limits: Limits) -> None:
        super().__init__(record)
        self.scheduler = self.state.scheduler
        self.space = space
        self.folder = folder
        self.limits = limits
        self._again = deque(self.state.open_jobs())

    @property
    def is_done(self) -> bool:
        """Whether nothing runs and nothing more will."""
        return not self.running and not self._again and self.scheduler.is_done

    @property
    def budget_spent(self) -> str:
        """Which budget is used up; empty where none is."""
        if self.limits.epochs is not None and self.state.epochs >= self.limits.epochs:
            return f"{self.limits.epochs} epochs are spent"
        if self.limits.minutes is not None and self.state.seconds() >= 60 * self.limits.minutes:
            return f"{self.limits.minutes:g} minutes are over"
        return ""

    def next_work(self) -> Work | None:
        """An interrupted job before a new one."""
        while not self.is_pausing and not self.budget_spent:
            job = self._again.popleft() if self._again else self._new_job()
            if job is None:
                return None
            work = self._begin(job)
            if work is not None:
                return work
        self.is_pausing = True
        return None

    def _new_job(self) -> Job | None:
        """What the scheduler wants next, but not before every candidate that was answered has saved its state.

        It may want the next job of that very candidate, which begins from there.
        """
        if any(map(self._is_answered, self.state.jobs.values())):
            return None
        job = self.scheduler.ask()
        if job is not None:
            self.record(Kind.JOB, job.candidate, start=job.start, end=job.end)
        return job

    def _begin(self, job: Job) -> Work | None:
        """The work of a job; None where its candidate turns out not to count."""
        draw = self.space.draw(job.candidate)
        if job.candidate not in self.state.candidates:
            self.record(Kind.DRAW, job.candidate, seed=draw.seed, drawn=draw.drawn, key=draw.key)
        first = self.state.keys[draw.key]
        if first != job.candidate:
            self._withdraw(Kind.DUPLICATE, job.candidate, of=first)
            if len(self.state.keys) >= self.space.distinct() and not self.state.has_ended_draws:
                self.scheduler.end_draws()
                self.record(Kind.NO_MORE_DRAWS, reason=f"all {len(self.state.keys)} candidates of the space are drawn")
            return None
        state = self.state.candidates[job.candidate]
        task = {
            "kind": "train",
            "config": draw.config,
            "folder": str(self.folder / _folder_of(job.candidate)),
            "reported": state.record.epochs,
            # Killed between a decision and the end of its job: what is missing is trained again, and nothing more.
            "until": state.record.epochs if self._is_answered(job) else None,
            "limits": None if state.record.facts else self.limits.judge,
        }
        return self.work(job.candidate, task)

    def _withdraw(self, kind: Kind, candidate: int, **data: Any) -> None:
        self.scheduler.withdraw(candidate)
        self.record(kind, candidate, **data)
        if self.state.withdrawn >= MOST_WITHDRAWN:
            raise SearchError(
                f"{self.state.withdrawn} draws in a row did not count; the last one: "
                f"{self.state.candidates[candidate].record.reason}. Loosen search.limits, or mark more values."
            )

    def told(self, subject: int, message: dict[str, Any]) -> Decision:
        """Facts, words for the log, the names of the results to come, or the results of an epoch."""
        if "names" in message:
            require_results(self.state.objectives, message["names"])
            return Decision.CONTINUE
        if "text" in message:
            logger.info("Candidate %d:\n%s", subject, message["text"])
            return Decision.CONTINUE
        if "facts" in message:
            self.record(Kind.FACTS, subject, facts=message["facts"])
            return Decision.CONTINUE
        return self._report(subject, message)

    def _report(self, candidate: int, message: dict[str, Any]) -> Decision:
        state = self.state.candidates[candidate]
        row, epoch = message["row"], message["epoch"]
        if epoch <= state.record.epochs:
            self._compare(candidate, epoch, row)
            # Between the journal and the checkpoint it was killed: the last epoch is trained again.
            return (
                state.decisions[epoch] if epoch == state.record.epochs and state.job is not None else Decision.CONTINUE
            )
        if epoch != state.record.epochs + 1:
            raise SearchError(
                f"Candidate {candidate} reports epoch {epoch} after {state.record.epochs}: its run folder is not the "
                "one that the journal tells of. Put back a copy of both, or start a new search."
            )
        values = state.tally.add(row)
        verdict = self.scheduler.report(candidate, epoch, values)
        self.record(
            Kind.REPORT,
            candidate,
            epoch=epoch,
            row=row,
            seconds=message["seconds"],
            decision=verdict.decision.value,
            rung=verdict.rung,
            cutoff=verdict.cutoff,
            **({"folder": _folder_of(candidate)} if epoch == 1 else {}),
        )
        if self.budget_spent:
            self.is_pausing = True
        return verdict.decision

    def _compare(self, candidate: int, epoch: int, row: dict[str, float]) -> None:
        """An epoch that was trained again must have come out as before."""
        before = self.state.candidates[candidate].record.reports[epoch - 1]
        differing = [name for name, value in row.items() if not _same(before.get(name), value)]
        if differing:
            logger.warning(
                "Candidate %d: epoch %d was trained again after an interruption and differs in %s. Another number of "
                "threads or another machine does that; the first results stand.",
                candidate,
                epoch,
                ", ".join(differing),
            )

    def ended(self, subject: int, outcome: dict[str, Any]) -> None:
        """A job is done, or its candidate will not go on."""
        status = outcome["status"]
        if status == "interrupted":
            self._again.append(self.state.jobs[subject])
        elif status == "refused":
            self._withdraw(Kind.REFUSED, subject, reason=outcome["reason"], facts=outcome.get("facts", {}))
        elif status == "out_of_memory":
            self._withdraw(Kind.OUT_OF_MEMORY, subject, reason=outcome["reason"])
        elif status == "failed":
            self._fail(subject, outcome["reason"])
        else:
            self._trained(subject, outcome)

    def _trained(self, candidate: int, outcome: dict[str, Any]) -> None:
        state = self.state.candidates[candidate]
        job = self.state.jobs[candidate]
        is_answered = self._is_answered(job)
        if not is_answered and not outcome["is_finished"]:  # a budget was spent in the midst of it
            self._again.append(job)
            return
        self.record(Kind.JOB_DONE, candidate, epochs=state.record.epochs, bytes=outcome["bytes"])
        if not is_answered:
            self.scheduler.finish(candidate)
            self.record(Kind.FINISHED, candidate)

    def _is_answered(self, job: Job) -> bool:
        """Whether a job has come to its decision, though its worker may not be done with it."""
        state = self.state.candidates.get(job.candidate)
        return state is not None and state.record.epochs > job.start and state.last_decision is not Decision.CONTINUE

    def lost(self, subject: int, happening: Lost) -> None:
        """Go on from the last checkpoint, unless it is the candidate's own doing."""
        if happening.cause == "hung":
            self._fail(subject, happening.reason)
            return
        self.record(Kind.LOST, subject, reason=happening.reason, had_begun=happening.had_begun)
        if self.state.candidates[subject].losses >= MOST_LOSSES:
            self._fail(subject, f"{happening.reason}, {MOST_LOSSES} times at the same epoch")
        else:
            self._again.append(self.state.jobs[subject])

    def _fail(self, candidate: int, reason: str) -> None:
        self.scheduler.fail(candidate)
        self.record(Kind.FAILED, candidate, reason=reason)


def _folder_of(candidate: int) -> str:
    """Of its run, relative to the study's."""
    return f"{CANDIDATES}/{candidate:05d}"


def _same(before: float | None, now: float) -> bool:
    return before == now or (before is not None and math.isnan(before) and math.isnan(now))
