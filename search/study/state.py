"""The state of a study: everything that follows from the events of its journal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from search.results.record import CandidateRecord, Objective, RetrainedRecord, RungRecord, Status, Tally
from search.schedulers.base import Decision, Ending, Job, Need, Scheduler
from search.study.journal import Event, Kind
from utils.errors import SearchError

_ENDINGS = {
    Kind.FINISHED: Ending.FINISHED,
    Kind.FAILED: Ending.FAILED,
    Kind.DUPLICATE: Ending.WITHDRAWN,
    Kind.REFUSED: Ending.WITHDRAWN,
    Kind.OUT_OF_MEMORY: Ending.WITHDRAWN,
}


@dataclass
class CandidateState:
    """The present state of a candidate.

    Attributes:
        record: The part that is shown to the user.
        key: Text that is equal for candidates that would train the same.
        tally: Its objectives so far.
        last_decision: The decision after its last epoch.
        losses: Times that a worker was lost which had started its job, since it last reported.
        bytes: Bytes of its checkpoints on disk.
    """

    record: CandidateRecord
    key: str
    tally: Tally
    last_decision: Decision = Decision.CONTINUE
    losses: int = 0
    bytes: int = 0


@dataclass
class StudyState:
    """All candidates, the decisions, and the retrainings.

    Attributes:
        scheduler: The scheduler; while a search runs, it is called before the event is applied.
        objectives: The objectives of the study.
        candidates: By number.
        keys: First candidate of each key.
        jobs: Jobs that were given and are not done, by candidate, in the order in which they were given.
        retrained: Retrainings by the name of the run.
        sessions: [begin, end] of each process that worked on the study, in Unix seconds.
        epochs: Epochs trained in the search, over all candidates.
        bytes_deleted: Bytes of deleted checkpoints.
        withdrawn: Number of draws in a row that do not count.
        has_ended_draws: Whether all candidates of the space are drawn.
        reason_done: Reason for the end of the search; empty before it.
        is_done: Whether the winners were retrained and tested, too.
    """

    scheduler: Scheduler
    objectives: Sequence[Objective]
    candidates: dict[int, CandidateState] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)
    retrained: dict[str, RetrainedRecord] = field(default_factory=dict)
    sessions: list[list[float]] = field(default_factory=list)
    epochs: int = 0
    bytes_deleted: int = 0
    withdrawn: int = 0
    has_ended_draws: bool = False
    reason_done: str = ""
    is_done: bool = False

    @property
    def seconds(self) -> float:
        """Seconds that processes have worked on the study."""
        return sum(end - begin for begin, end in self.sessions)

    def replay(self, events: Iterable[Event], journal: Path) -> None:
        """Apply a journal from its beginning, with every call of the scheduler repeated.

        Args:
            events: The events, checked one by one.
            journal: Their file, for messages.

        Raises:
            SearchError: An event does not follow from those before it, or the scheduler decides differently.
        """
        for number, event in enumerate(events, start=1):
            try:
                self._repeat_call(event)
                self.apply(event)
            except (LookupError, TypeError, ValueError) as error:
                raise SearchError(
                    f"{journal}: event {number}, {event.kind.value} of candidate {event.candidate}, does not follow "
                    f"from the events before it ({type(error).__name__}: {error}). The journal lacks events or was "
                    "changed. Put back a copy of it, or start a new search; the candidates' run folders next to it "
                    "are untouched."
                ) from error

    def _repeat_call(self, event: Event) -> None:
        """Repeat the call of the scheduler that the search made before it wrote an event, and compare the answers."""
        scheduler, candidate, data, difference = self.scheduler, event.candidate, event.data, ""
        if event.kind is Kind.NO_MORE_DRAWS:
            scheduler.end_draws()
        elif candidate is not None and event.kind is Kind.JOB:
            job = scheduler.ask()
            if isinstance(job, Need) and candidate not in self.candidates:
                job = scheduler.admit(candidate)
            if job != Job(candidate, data["start"], data["end"]):
                difference = f"asks for {job}"
        elif candidate is not None and event.kind is Kind.REPORT:
            # The tally is part of the state, but must have the epoch before the scheduler is called.
            values = self.candidates[candidate].tally.add(data["row"])
            decision = scheduler.report(candidate, data["epoch"], values).decision
            if decision != data["decision"]:
                difference = f"decides to {decision}"
        elif candidate is not None and event.kind in _ENDINGS:
            scheduler.end(candidate, _ENDINGS[event.kind])
        if difference:
            raise SearchError(
                f"The journal says {event.kind.value} {candidate} {data}, but it now {difference}: the scheduler "
                "is another one or has other arguments. A study is continued as it was begun: undo the change, or "
                "start a new search."
            )

    def apply(self, event: Event) -> None:
        """Update the state by an event that is in the journal."""
        data = event.data
        if self.sessions and event.kind is not Kind.BEGIN:  # a killed session ends with its last event
            self.sessions[-1][1] = event.seconds
        if event.kind is Kind.BEGIN:
            self.sessions.append([event.seconds, event.seconds])
        elif event.kind is Kind.NO_MORE_DRAWS:
            self.has_ended_draws = True
        elif event.kind is Kind.SEARCH_DONE:
            self.reason_done = data["reason"]
        elif event.kind is Kind.DONE:
            self.is_done = True
        elif event.kind is Kind.RETRAIN:
            assert event.candidate is not None
            # Journals of early versions have no `epochs`.
            max_epochs = data.get("epochs", self.scheduler.max_epochs)
            self.retrained[data["run"]] = RetrainedRecord(
                event.candidate, data["rank"], data["seed"], "running", folder=data["folder"], max_epochs=max_epochs
            )
        elif "run" in data:
            run = self.retrained[data["run"]]
            if event.kind is Kind.RETRAIN_REPORT and data["epoch"] > len(run.reports):
                run.reports.append({**data["row"], "epoch_seconds": data["seconds"]})
            elif event.kind is Kind.RETRAIN_DONE:
                run.status, run.reason = data["status"], data["reason"]
            elif event.kind is Kind.TESTED:
                run.test = data["metrics"]
        elif event.candidate is not None:
            self._apply_to_candidate(event, event.candidate)

    def _apply_to_candidate(self, event: Event, candidate: int) -> None:
        data = event.data
        if event.kind is Kind.JOB:  # of a new candidate before its draw
            self.jobs[candidate] = Job(candidate, data["start"], data["end"])
            if candidate in self.candidates:
                self.candidates[candidate].record.status = "running"
            return
        if event.kind is Kind.DRAW:
            drawn = [(path, value) for path, value in data["drawn"]]
            record = CandidateRecord(candidate, data["seed"], drawn, "running")
            self.candidates[candidate] = CandidateState(record, data["key"], Tally(self.objectives, {}))
            self.keys.setdefault(data["key"], candidate)
            return
        state = self.candidates[candidate]
        record = state.record
        if event.kind is Kind.FACTS:
            record.facts = data["facts"]
            state.tally = Tally(self.objectives, data["facts"])
        elif event.kind is Kind.REPORT:
            # The tally has the epoch already: the decision needed its values.
            record.reports.append({**data["row"], "epoch_seconds": data["seconds"]})
            record.folder = data.get("folder", record.folder)
            record.objectives, record.best_epoch = state.tally.as_written(), state.tally.best_epoch
            state.last_decision = Decision(data["decision"])
            # A report ends a row of losses and of draws that do not count.
            state.losses = 0
            self.epochs += 1
            self.withdrawn = 0
        elif event.kind is Kind.LOST:
            state.losses += data["had_begun"]
        elif event.kind is Kind.DELETED:
            state.bytes = 0
            self.bytes_deleted += data["bytes"]
        elif event.kind is Kind.FINISHED:
            record.status = "completed"
        else:
            self._end_job(event, state)

    def _end_job(self, event: Event, state: CandidateState) -> None:
        """Update a candidate whose job is done, whether it was trained or not."""
        data, record = event.data, state.record
        self.jobs.pop(record.index, None)
        state.bytes = data.get("bytes", state.bytes)
        record.reason = data.get("reason", "")
        if event.kind is Kind.JOB_DONE:
            record.status = "completed"
            if record.epochs < self.scheduler.max_epochs and state.last_decision is not Decision.CONTINUE:
                record.status = "paused" if state.last_decision is Decision.PAUSE else "stopped"
            return
        record.status = cast(Status, event.kind.value)  # one of the statuses that are named as their events
        if event.kind is not Kind.FAILED:
            self.withdrawn += 1
            record.facts |= data.get("facts", {})
        if event.kind is Kind.DUPLICATE:
            record.reason = f"the same as {data['of']}"

    def rungs(self) -> list[RungRecord]:
        """Return the scheduler's rungs, with the first objective as it is in the results."""
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
