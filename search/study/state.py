"""What is known of a study, event by event. Built from the journal, and kept up with it while a search runs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.results.objectives import Objective, Tally
from search.results.record import CandidateRecord, RetrainedRecord, RungRecord
from search.schedulers.base import Decision, Job, Scheduler
from search.study.journal import Event, Kind
from utils.errors import SearchError


@dataclass
class CandidateState:
    """A candidate as it stands.

    Attributes:
        record: What is shown of it.
        key: Equal to that of any other candidate which would train the same.
        tally: Its objectives so far.
        job: What it was asked to do and has not done yet.
        decisions: Answer to the report of each epoch.
        losses: Times that a worker was lost which had begun with it, since it last reported.
        bytes: That its checkpoints take on disk.
    """

    record: CandidateRecord
    key: str
    tally: Tally
    job: Job | None = None
    decisions: dict[int, Decision] = field(default_factory=dict)
    losses: int = 0
    bytes: int = 0

    @property
    def last_decision(self) -> Decision:
        """The answer to its last report."""
        return self.decisions[self.record.epochs] if self.decisions else Decision.CONTINUE


class StudyState:
    """All candidates, what was decided, and what was trained again.

    Args:
        scheduler: Knows the rungs; the calls are made by whoever applies the events.
        objectives: What is wanted.

    Attributes:
        candidates: By number.
        keys: First candidate of each key.
        retrained: By run.
        sessions: [begin, end] of each process that worked on it.
        epochs: Trained in the search, over all candidates.
        bytes_deleted: Of checkpoints.
        withdrawn: Draws that did not count, in a row.
        has_ended_draws: Whether the space has no more to give.
        reason_done: Why the search ended; empty while it has not.
        is_done: Whether winners were trained again and tested, too.
    """

    def __init__(self, scheduler: Scheduler, objectives: Sequence[Objective]) -> None:
        self.scheduler = scheduler
        self.objectives = tuple(objectives)
        self.candidates: dict[int, CandidateState] = {}
        self.keys: dict[str, int] = {}
        self.retrained: dict[str, RetrainedRecord] = {}
        self.sessions: list[list[float]] = []
        self.jobs: dict[int, Job] = {}
        self.epochs = 0
        self.bytes_deleted = 0
        self.withdrawn = 0
        self.has_ended_draws = False
        self.reason_done = ""
        self.is_done = False

    def replay(self, events: Iterable[Event]) -> None:
        """Apply a journal from its beginning, making the scheduler decide everything again.

        Raises:
            SearchError: The scheduler decides otherwise than it did.
        """
        for event in events:
            self._decide_again(event)
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Take note of an event that stands in the journal."""
        if self.sessions and event.kind is not Kind.BEGIN:
            self.sessions[-1][1] = event.seconds
        _EFFECTS[event.kind](self, event)

    def open_jobs(self) -> list[Job]:
        """Jobs that were handed out and are not done, in the order in which they were."""
        return list(self.jobs.values())

    def seconds(self) -> float:
        """Seconds that processes have worked on the study."""
        return sum(end - begin for begin, end in self.sessions)

    def records(self) -> list[CandidateRecord]:
        """Every candidate; one that was paused and will never go on is shown as stopped."""
        for state in self.candidates.values():
            if state.record.status == "paused" and not self.scheduler.may_resume(state.record.index):
                state.record.status = "stopped"
        return [state.record for state in self.candidates.values()]

    def rungs(self) -> list[RungRecord]:
        """The scheduler's rungs, with the first objective as it is written in the results."""
        sign = self.objectives[0].sign
        return [
            RungRecord(
                rung.bracket,
                rung.epochs,
                {candidate: values[0] * sign for candidate, values in rung.values.items()},
                list(rung.promoted),
            )
            for rung in self.scheduler.rungs()
        ]

    def _decide_again(self, event: Event) -> None:
        scheduler, candidate, data = self.scheduler, event.candidate, event.data
        if event.kind is Kind.JOB:
            job = scheduler.ask()
            if job != Job(candidate if candidate is not None else -1, data["start"], data["end"]):
                raise _disagreement(event, f"it now asks for {job}")
        elif event.kind is Kind.NO_MORE_DRAWS:
            scheduler.end_draws()
        elif candidate is None:
            return
        elif event.kind is Kind.REPORT:
            values = self.candidates[candidate].tally.add(data["row"])
            verdict = scheduler.report(candidate, data["epoch"], values)
            if verdict.decision != data["decision"]:
                raise _disagreement(event, f"it now decides to {verdict.decision}")
        elif event.kind in WITHDRAWALS:
            scheduler.withdraw(candidate)
        elif event.kind is Kind.FAILED:
            scheduler.fail(candidate)
        elif event.kind is Kind.FINISHED:
            scheduler.finish(candidate)

    # What each kind of event changes.

    def _begin(self, event: Event) -> None:
        self.sessions.append([event.seconds, event.seconds])

    def _nothing(self, event: Event) -> None:
        """Told for the reader of the journal."""

    def _job(self, event: Event) -> None:
        assert event.candidate is not None
        job = Job(event.candidate, event.data["start"], event.data["end"])
        self.jobs[event.candidate] = job
        if event.candidate in self.candidates:
            state = self.candidates[event.candidate]
            state.job, state.record.status = job, "running"

    def _draw(self, event: Event) -> None:
        assert event.candidate is not None
        drawn = [(path, value) for path, value in event.data["drawn"]]
        record = CandidateRecord(event.candidate, event.data["seed"], drawn, "running")
        state = CandidateState(record, event.data["key"], Tally(self.objectives, {}), self.jobs[event.candidate])
        self.candidates[event.candidate] = state
        self.keys.setdefault(state.key, event.candidate)

    def _facts(self, event: Event) -> None:
        state = self._of(event)
        state.record.facts = event.data["facts"]
        state.tally = Tally(self.objectives, event.data["facts"])

    def _report(self, event: Event) -> None:
        """The tally has heard of it already: whoever decided needed its values."""
        state, data = self._of(event), event.data
        state.record.reports.append({**data["row"], "epoch_seconds": data["seconds"]})
        state.record.folder = data.get("folder", state.record.folder)
        state.record.objectives, state.record.best_epoch = state.tally.as_written(), state.tally.best_epoch
        state.decisions[data["epoch"]] = Decision(data["decision"])
        state.losses = 0
        self.epochs += 1
        self.withdrawn = 0

    def _job_done(self, event: Event) -> None:
        state = self._of(event)
        self._close(state)
        state.bytes = event.data["bytes"]
        is_full = state.record.epochs >= self.scheduler.max_epochs
        if state.last_decision is Decision.PAUSE and not is_full:
            state.record.status = "paused"
        elif state.last_decision is Decision.STOP and not is_full:
            state.record.status = "stopped"
        else:
            state.record.status = "completed"

    def _finished(self, event: Event) -> None:
        self._of(event).record.status = "completed"

    def _failed(self, event: Event) -> None:
        state = self._of(event)
        self._close(state)
        state.record.status, state.record.reason = "failed", event.data["reason"]
        state.bytes = event.data.get("bytes", state.bytes)

    def _withdrawn(self, event: Event) -> None:
        state = self._of(event)
        self._close(state)
        self.withdrawn += 1
        if event.kind is Kind.DUPLICATE:
            state.record.status, state.record.reason = "duplicate", f"the same as {event.data['of']}"
            return
        state.record.facts |= event.data.get("facts", {})
        state.record.status = "refused" if event.kind is Kind.REFUSED else "out_of_memory"
        state.record.reason = event.data["reason"]

    def _lost(self, event: Event) -> None:
        self._of(event).losses += event.data["had_begun"]

    def _deleted(self, event: Event) -> None:
        self._of(event).bytes = 0
        self.bytes_deleted += event.data["bytes"]

    def _no_more_draws(self, event: Event) -> None:
        self.has_ended_draws = True

    def _search_done(self, event: Event) -> None:
        self.reason_done = event.data["reason"]

    def _retrain(self, event: Event) -> None:
        data = event.data
        assert event.candidate is not None
        self.retrained[data["run"]] = RetrainedRecord(
            event.candidate,
            data["rank"],
            data["seed"],
            "running",
            folder=data["folder"],
            max_epochs=data.get("epochs", self.scheduler.max_epochs),
        )

    def _retrain_report(self, event: Event) -> None:
        reports = self.retrained[event.data["run"]].reports
        if event.data["epoch"] > len(reports):
            reports.append({**event.data["row"], "epoch_seconds": event.data["seconds"]})

    def _retrain_done(self, event: Event) -> None:
        run = self.retrained[event.data["run"]]
        run.status, run.reason = event.data["status"], event.data["reason"]

    def _tested(self, event: Event) -> None:
        self.retrained[event.data["run"]].test = event.data["metrics"]

    def _done(self, event: Event) -> None:
        self.is_done = True

    def _of(self, event: Event) -> CandidateState:
        assert event.candidate is not None
        return self.candidates[event.candidate]

    def _close(self, state: CandidateState) -> None:
        state.job = None
        self.jobs.pop(state.record.index, None)


WITHDRAWALS = (Kind.DUPLICATE, Kind.REFUSED, Kind.OUT_OF_MEMORY)
_EFFECTS: dict[Kind, Callable[[StudyState, Event], Any]] = {
    Kind.BEGIN: StudyState._begin,
    Kind.END: StudyState._nothing,
    Kind.JOB: StudyState._job,
    Kind.DRAW: StudyState._draw,
    Kind.FACTS: StudyState._facts,
    Kind.REPORT: StudyState._report,
    Kind.JOB_DONE: StudyState._job_done,
    Kind.FINISHED: StudyState._finished,
    Kind.FAILED: StudyState._failed,
    Kind.DUPLICATE: StudyState._withdrawn,
    Kind.REFUSED: StudyState._withdrawn,
    Kind.OUT_OF_MEMORY: StudyState._withdrawn,
    Kind.LOST: StudyState._lost,
    Kind.DELETED: StudyState._deleted,
    Kind.NO_MORE_DRAWS: StudyState._no_more_draws,
    Kind.SEARCH_DONE: StudyState._search_done,
    Kind.RETRAIN: StudyState._retrain,
    Kind.RETRAIN_REPORT: StudyState._retrain_report,
    Kind.RETRAIN_DONE: StudyState._retrain_done,
    Kind.TESTED: StudyState._tested,
    Kind.DONE: StudyState._done,
}


def _disagreement(event: Event, now: str) -> SearchError:
    return SearchError(
        f"The journal says {event.kind.value} {event.candidate} {event.data}, but {now}: the scheduler is another one "
        "or has other arguments. A study goes on as it was begun: undo the change, or start a new search."
    )
