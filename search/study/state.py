"""The state of a study: everything that follows from the events of its journal, for any strategy."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from search.results.record import CandidateRecord, Constraint, Objective, RetrainedRecord, Status, Tally
from search.schedulers.base import Decision, Job
from search.space.drawn import Drawn
from search.study.journal import KINDS, RULES, Event
from search.study.timeline import Timeline
from utils.errors import SearchError


@dataclass
class CandidateState:
    """The present state of a candidate.

    Attributes:
        record: The part that is shown to the user.
        stage: The stage of the strategy that drew it.
        key: Text that is equal for candidates that would train the same.
        drawn: Its choices; None in a study of format 1, until the space has drawn it again.
        tally: Its objectives so far.
        values: Its objectives after each epoch, the larger the better.
        last_decision: The decision after its last epoch.
        losses: Times that a worker was lost which had started its job, since it last reported.
        bytes: Bytes of its checkpoints on disk.
        parent: Candidate with whose weights it begins; None: from the beginning.
    """

    record: CandidateRecord
    stage: str
    key: str
    drawn: Drawn | None
    tally: Tally
    values: list[tuple[float, ...]] = field(default_factory=list)
    last_decision: Decision = Decision.CONTINUE
    losses: int = 0
    bytes: int = 0
    parent: int | None = None

    def is_decided(self, job: Job) -> bool:
        """Return whether the last decision of a job was made, though its worker may not have saved its state."""
        return self.record.epochs > job.start and self.last_decision is not Decision.CONTINUE


@dataclass
class StudyState:
    """All candidates, their jobs, and the retrainings.

    Attributes:
        objectives: The objectives of the study.
        max_epochs: Epochs of a full training.
        constraints: Of the study.
        num_samples: Candidates to try, if the study has grown; 0 if not.
        candidates: By number.
        keys: First candidate of each key.
        jobs: Jobs that were given and are not done, by candidate, in the order in which they were given.
        held: Jobs of candidates whose earlier job is not done: it has yet to save the state that they begin with.
        retrained: Retrainings by the name of the run.
        sessions: [begin, end] of each process that worked on the study, in Unix seconds.
        epochs: Epochs trained in the search, over all candidates.
        bytes_deleted: Bytes of deleted checkpoints.
        withdrawn: Number of draws in a row that do not count.
        out_of_memory: Number of these in a row that ran out of memory.
        has_ended_draws: Whether nothing more can be drawn.
        reason_done: Reason for the end of the search; empty before it.
        is_done: Whether the winners were retrained and tested, too.
        options: Options of the newest session, see `session_options`; None if a version before these ran it.
        is_format_1: Whether the study was begun by a version whose journal had format 1.
        rules: Version of the rules that it was begun with, see `search.study.journal.RULES`.
        unknown: Number of events of each name that is not known.
        is_warm: Whether the results of another study were taken over.
        measured: Candidates whose latency was measured again at the end.
        obeyed: Names of the commands of the user that were carried out.
        timeline: When which candidate was in a worker.
        seconds: Seconds that processes have worked on the study.
    """

    objectives: Sequence[Objective]
    max_epochs: int
    constraints: Sequence[Constraint] = ()
    num_samples: int = 0
    candidates: dict[int, CandidateState] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)
    held: dict[int, Job] = field(default_factory=dict)
    retrained: dict[str, RetrainedRecord] = field(default_factory=dict)
    sessions: list[list[float]] = field(default_factory=list)
    epochs: int = 0
    bytes_deleted: int = 0
    withdrawn: int = 0
    out_of_memory: int = 0
    has_ended_draws: bool = False
    reason_done: str = ""
    is_done: bool = False
    options: dict[str, Any] | None = None
    is_format_1: bool = False
    rules: int = RULES
    unknown: Counter[str] = field(default_factory=Counter)
    is_warm: bool = False
    measured: set[int] = field(default_factory=set)
    obeyed: set[str] = field(default_factory=set)
    timeline: Timeline = field(default_factory=Timeline)
    seconds: float = 0.0
    _last_seconds: float = field(default=0.0, init=False)  # of the last event of a session

    def seconds_until(self, now: float) -> float:
        """Return the seconds that processes have worked on the study by a time of the present session."""
        return self.seconds + max(0.0, now - self._last_seconds)

    @property
    def next_number(self) -> int:
        """Number of the next candidate."""
        return len(self.candidates)

    def has_only_duplicates(self, count: int) -> bool:
        """Return whether the last draws, `count` of them, all equal earlier ones."""
        if self.withdrawn < count:
            return False
        last = range(self.next_number - count, self.next_number)
        return all(self.candidates[number].record.status == "duplicate" for number in last)

    def apply(self, event: Event) -> None:
        """Update the state by an event that is in the journal.

        Raises:
            LookupError, TypeError, ValueError: The event does not follow from those before it.
        """
        if event.version > 1 and event.kind in {*_APPLY, *KINDS}:
            raise SearchError(
                f"An event {event.name} has version {event.version}, and only 1 is known here. Continue the study with "
                "the version of this project that wrote it."
            )
        if "command_id" in event.data:
            self.obeyed.add(event.data["command_id"])
        if event.name == "study.begin":
            self._last_seconds = event.seconds
        elif self.sessions and event.name != "study.grown":  # it may precede the session that it is for
            # A killed session ends with its last event. A clock that is set back makes none shorter.
            self.seconds += max(0.0, event.seconds - self._last_seconds)
            self.sessions[-1][1] = max(self.sessions[-1][1], event.seconds)
            self._last_seconds = event.seconds
        if event.stage == "study":
            self._apply_to_study(event)
        elif "run" in event.data:
            self._apply_to_run(event)
        elif event.kind == "exhausted":
            self.has_ended_draws = True
        elif event.kind == "done":
            self.reason_done = event.data["reason"]
        elif event.kind == "drawn" and event.candidate is not None:
            self._add_candidate(event, event.candidate)
        elif event.kind in _APPLY and event.candidate is not None:
            _APPLY[event.kind](self, event, self.candidates[event.candidate])
        elif event.kind not in _OF_STRATEGIES:
            self.unknown[event.name] += 1
        self._note_time(event)

    def _note_time(self, event: Event) -> None:
        """Note the begin and the end of a job."""
        key, seconds = event.data.get("run", event.candidate), event.seconds
        if event.name == "study.begin":
            self.timeline.end_all(self.sessions[-2][1] if len(self.sessions) > 1 else seconds)
        elif key is None or event.stage == "study":
            return
        elif event.kind in ("ended", "lost"):
            self.timeline.end(key, seconds)
            if key in self.jobs:  # its next job, or the same again
                self.timeline.begin(key, seconds)
        elif event.kind == "job" and key not in self.held:
            self.timeline.begin(key, seconds)
        elif event.kind == "report":  # the first one of a job that continues from an earlier session
            self.timeline.begin(key, seconds - event.data["seconds"])

    def _apply_to_study(self, event: Event) -> None:
        if event.kind == "begin":
            self.is_format_1 = self.is_format_1 or event.version == 0
            self.options = event.data.get("options")
            self.is_done = False  # a session begins only if something is left to do
            self.sessions.append([event.seconds, event.seconds])
        elif event.kind == "done":
            self.is_done = True
        elif event.kind == "grown":
            self.is_done, self.reason_done, self.has_ended_draws = False, "", False
            self.num_samples = event.data["num_samples"]
        elif event.kind == "command":
            self.obeyed.add(event.data["id"])
        elif event.kind == "warm_started":
            self.is_warm = True
        elif event.kind == "created":
            self.rules = event.data.get("rules", 2)
        else:
            self.unknown[event.name] += 1

    def _apply_to_run(self, event: Event) -> None:
        """Update a retraining."""
        data = event.data
        if event.kind == "job":
            if event.candidate is None:
                raise ValueError("a retraining has no candidate")
            epochs = data.get("epochs", 0)  # of early versions unknown
            self.retrained[data["run"]] = RetrainedRecord(
                event.candidate, data["rank"], data["seed"], "running", folder=data["folder"], max_epochs=epochs
            )
            return
        run = self.retrained[data["run"]]
        if event.kind == "report" and data["epoch"] > len(run.reports):
            run.reports.append({**data["row"], "epoch_seconds": data["seconds"], "seconds_at": event.seconds})
        elif event.kind == "ended":
            run.status, run.reason = data["status"], data["reason"]
            run.test, run.onnx = data.get("test", run.test), data.get("onnx", run.onnx)
        elif event.kind == "tested":  # format 1
            run.test = data["metrics"]

    def _add_candidate(self, event: Event, number: int) -> None:
        data = event.data
        if number != self.next_number:
            raise ValueError(f"number {number} is not the next one")
        record = CandidateRecord(number, data["seed"], [(path, value) for path, value in data["drawn"]], "running")
        record.max_epochs = data.get("epochs")
        record.origin = data.get("origin", "enqueued" if data.get("is_enqueued") else "")
        drawn = Drawn.from_json(data["choices"]) if "choices" in data else None
        tally = self._tally({})
        self.candidates[number] = CandidateState(record, event.stage, data["key"], drawn, tally)
        self.keys.setdefault(data["key"], number)

    def tally_of(self, record: CandidateRecord, facts: Mapping[str, float]) -> Tally:
        """Return the objectives of a candidate if it had these facts."""
        tally = self._tally(facts)
        for row in record.reports:
            tally.add(row)
        return tally

    def _tally(self, facts: Mapping[str, float]) -> Tally:
        old = {"combines_epochs": self.is_format_1, "measured_decides": self.rules < 4}
        return Tally(self.objectives, facts, self.constraints, **old)

    def _apply_job(self, event: Event, state: CandidateState) -> None:
        number = state.record.index
        job = Job(number, event.data["start"], event.data["end"])
        if number in self.jobs:
            self.held[number] = job
        else:
            self.jobs[number] = job
            state.record.status = "running"

    def _apply_duplicate(self, event: Event, state: CandidateState) -> None:
        self.jobs.pop(state.record.index, None)  # format 1
        state.record.status, state.record.reason = "duplicate", f"the same as {event.data['of']}"
        self.withdrawn += 1

    def _apply_facts(self, event: Event, state: CandidateState) -> None:
        state.record.facts = event.data["facts"]
        state.tally = self._tally(event.data["facts"])

    def _apply_report(self, event: Event, state: CandidateState) -> None:
        data, record = event.data, state.record
        # The tally has the epoch already: the decision needed its values.
        record.reports.append({**data["row"], "epoch_seconds": data["seconds"], "seconds_at": event.seconds})
        record.folder = data.get("folder", record.folder)
        self._show_tally(state.record, state.tally)
        state.last_decision = Decision(data["decision"])
        # A report ends a row of losses and of draws that do not count.
        state.losses = 0
        self.epochs += 1
        self.withdrawn = self.out_of_memory = 0

    def _apply_ended(self, event: Event, state: CandidateState) -> None:
        """Update a candidate whose job is over, whether it was trained or not."""
        data, record, number = event.data, state.record, state.record.index
        self.jobs.pop(number, None)
        record.test = data.get("test", record.test)
        record.facts |= data.get("facts", {})
        state.bytes = data.get("bytes", state.bytes)
        record.is_deleted = record.is_deleted and not state.bytes
        record.reason = data.get("reason", "")
        if data["status"] == "ended":
            max_epochs = record.max_epochs or self.max_epochs
            is_complete = record.epochs >= max_epochs or state.last_decision is Decision.CONTINUE
            decided = "paused" if state.last_decision is Decision.PAUSE else "stopped"
            record.status = cast(Status, "completed" if is_complete else decided)
            if data.get("is_given_up"):  # by the user
                record.status = "stopped"
            if number in self.held:
                self.jobs[number] = self.held.pop(number)
                record.status = "running"
            return
        self.held.pop(number, None)
        record.status = cast(Status, data["status"])  # one of the statuses of a candidate
        if record.status != "failed":
            self.withdrawn += 1
            self.out_of_memory = self.out_of_memory + 1 if record.status == "out_of_memory" else 0

    def _apply_measured(self, event: Event, state: CandidateState) -> None:
        """Replace a latency in all that is shown; the scheduler's decisions by it remain."""
        record = state.record
        self.measured.add(record.index)
        record.facts = {**record.facts, "latency_ms": event.data["latency_ms"]}
        self._show_tally(record, self.tally_of(record, record.facts))

    def _apply_exploited(self, event: Event, state: CandidateState) -> None:
        """Give a candidate the facts and results of its parent, from whose weights it begins."""
        parent, epochs = self.candidates[event.data["parent"]], event.data["epoch"]
        state.parent, state.record.inherited = event.data["parent"], epochs
        state.record.facts = dict(parent.record.facts)
        state.tally = self._tally(state.record.facts)
        state.record.reports, state.values = parent.record.reports[:epochs], parent.values[:epochs]
        for row in state.record.reports:
            state.tally.add(row)
        self._show_tally(state.record, state.tally)

    @staticmethod
    def _show_tally(record: CandidateRecord, tally: Tally) -> None:
        record.objectives, record.best_epoch, record.violation = tally.as_written(), tally.best_epoch, tally.violation

    def _apply_finished(self, event: Event, state: CandidateState) -> None:
        """Format 1 writes this after the end of a job whose candidate ended by itself."""
        state.record.status = "completed"

    def _apply_lost(self, event: Event, state: CandidateState) -> None:
        state.losses += event.data["had_begun"]

    def _apply_pooled(self, event: Event, state: CandidateState) -> None:
        state.record.pooled = event.data["results"]

    def _apply_deleted(self, event: Event, state: CandidateState) -> None:
        state.bytes, state.record.is_deleted = 0, True
        self.bytes_deleted += event.data["bytes"]


_OF_STRATEGIES = (
    "enqueued",
    "paused",
    "resumed",
    "given_up",
    "dropped",
    "warm_started",
    "decoded",
    "untrained",
    "generation",
    "selected",
)  # kinds that a strategy itself applies
_APPLY = {
    "job": StudyState._apply_job,
    "duplicate": StudyState._apply_duplicate,
    "exploited": StudyState._apply_exploited,
    "facts": StudyState._apply_facts,
    "report": StudyState._apply_report,
    "ended": StudyState._apply_ended,
    "finished": StudyState._apply_finished,
    "lost": StudyState._apply_lost,
    "deleted": StudyState._apply_deleted,
    "pooled": StudyState._apply_pooled,
    "measured": StudyState._apply_measured,
}
