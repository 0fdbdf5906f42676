"""The stages of a study: the search among candidates and the retraining of the best."""

import logging
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.executors.base import Task, WorkerLost
from search.results.record import require_results
from search.schedulers.base import Decision, Ending, Job, Need
from search.study.driver import Recorder, Stage
from search.study.journal import Kind
from search.study.settings import StudyParts
from utils.errors import SearchError

logger = logging.getLogger(__name__)

CANDIDATES = "candidates"
MOST_LOSSES = 3  # a worker that is lost so often at the same epoch is lost because of its task
MOST_WITHDRAWN = 1000  # draws in a row that do not count: the space has nothing to find


class Searching(Stage):
    """The stage that draws, trains and compares candidates.

    Args:
        recorder: Records the events.
        extras: Added to the content of every task.
        parts: The parts of the study.
        folder: Folder of the study.
    """

    def __init__(self, recorder: Recorder, extras: Mapping[str, Any], parts: StudyParts, folder: Path) -> None:
        super().__init__(recorder, extras)
        self.parts = parts
        self.scheduler = parts.scheduler
        self.folder = folder
        # Jobs that an earlier session or a lost worker left, which come before new ones.
        self._interrupted = deque(self.state.jobs.values())

    @property
    def is_done(self) -> bool:
        """Whether nothing runs and nothing more will."""
        return not self.running and not self._interrupted and self.scheduler.is_done

    @property
    def spent_budget(self) -> str:
        """The budget that is used up, in words; empty if none is."""
        epochs, minutes = self.parts.budget.epochs, self.parts.budget.max_time
        if epochs is not None and self.state.epochs >= epochs:
            return f"{epochs} epochs are spent"
        if minutes is not None and self.state.seconds >= 60 * minutes:
            return f"{minutes:g} minutes are over"
        return ""

    def next_task(self) -> Task | None:
        """Return the task of the next job whose candidate counts."""
        while not self.is_pausing and not self.spent_budget:
            if self._interrupted:
                job = self._interrupted.popleft()
            elif any(map(self._is_decided, self.state.jobs.values())):
                # Its worker has yet to save its state, from which the next job may begin.
                return None
            else:
                asked = self.scheduler.ask()
                if asked is None:
                    return None
                job = self.scheduler.admit(len(self.state.candidates)) if isinstance(asked, Need) else asked
                self.record(Kind.JOB, job.candidate, start=job.start, end=job.end)
            drawn = self.parts.space.draw(job.candidate)
            if job.candidate not in self.state.candidates:
                self.record(Kind.DRAW, job.candidate, seed=drawn.seed, drawn=drawn.drawn, key=drawn.key)
            first, num_drawn = self.state.keys[drawn.key], len(self.state.keys)
            if first != job.candidate:
                self._withdraw(Kind.DUPLICATE, job.candidate, of=first)
                if num_drawn >= self.parts.space.distinct() and not self.state.has_ended_draws:
                    self.scheduler.end_draws()
                    self.record(Kind.NO_MORE_DRAWS, reason=f"all {num_drawn} candidates of the space are drawn")
                continue
            record = self.state.candidates[job.candidate].record
            content = {
                "kind": "train",
                "config": drawn.config,
                "folder": str(self.folder / candidate_folder(job.candidate)),
                "reported": record.epochs,
                # Killed between a decision and the end of its job: only the missing epochs are trained again.
                "until": record.epochs if self._is_decided(job) else None,
                "limits": None if record.facts else self.parts.limits,  # checked once
            }
            return self.make_task(job.candidate, content)
        # With a spent budget the tasks that run are paused at their next report, too.
        self.is_pausing = True
        return None

    def _is_decided(self, job: Job) -> bool:
        """Return whether the last decision of a job was made, though its worker may not have saved its state."""
        state = self.state.candidates.get(job.candidate)
        return state is not None and state.record.epochs > job.start and state.last_decision is not Decision.CONTINUE

    def _withdraw(self, kind: Kind, candidate: int, **data: Any) -> None:
        self.scheduler.end(candidate, Ending.WITHDRAWN)
        self.record(kind, candidate, **data)
        if self.state.withdrawn >= MOST_WITHDRAWN:
            raise SearchError(
                f"{self.state.withdrawn} draws in a row did not count; the last one: "
                f"{self.state.candidates[candidate].record.reason}. Loosen search.limits, or mark more values."
            )

    def on_report(self, subject: int, message: dict[str, Any]) -> Decision:
        """Take the names of the results, a text for the log, the facts, or the results of an epoch."""
        if "epoch" not in message:
            if "names" in message:
                require_results(self.state.objectives, message["names"])
            elif "text" in message:
                logger.info("Candidate %d:\n%s", subject, message["text"])
            else:
                self.record(Kind.FACTS, subject, facts=message["facts"])
            return Decision.CONTINUE
        state, epoch, row = self.state.candidates[subject], message["epoch"], message["row"]
        if epoch <= state.record.epochs:
            # It is in the journal, and was trained again because the search was killed before the checkpoint.
            before = state.record.reports[epoch - 1]
            differing = [
                name
                for name, value in row.items()
                if before.get(name) != value and not (math.isnan(value) and math.isnan(before.get(name, 0.0)))
            ]
            if differing:
                logger.warning(
                    "Candidate %d: epoch %d was trained again after an interruption and differs in %s. Another number "
                    "of threads or another machine can cause that; the first results remain.",
                    subject,
                    epoch,
                    ", ".join(differing),
                )
            is_last = epoch == state.record.epochs and subject in self.state.jobs
            return state.last_decision if is_last else Decision.CONTINUE
        if epoch != state.record.epochs + 1:
            raise SearchError(
                f"Candidate {subject} reports epoch {epoch} after {state.record.epochs}: its run folder does not "
                "belong to the journal. Put back a copy of both, or start a new search."
            )
        # The scheduler is called before the event is written; a replay calls it in the same order.
        decision, rung, cutoff = self.scheduler.report(subject, epoch, state.tally.add(row))
        data = {"epoch": epoch, "row": row, "seconds": message["seconds"]}
        data |= {"decision": decision.value, "rung": rung, "cutoff": cutoff}
        if epoch == 1:
            data["folder"] = candidate_folder(subject)
        self.record(Kind.REPORT, subject, **data)
        if self.spent_budget:
            self.is_pausing = True
        return decision

    def on_finished(self, subject: int, outcome: dict[str, Any]) -> None:
        """Record that a job is done, or that its candidate failed or does not count."""
        status, job = outcome["status"], self.state.jobs[subject]
        if status == "interrupted":
            self._interrupted.append(job)
        elif status == "refused":
            self._withdraw(Kind.REFUSED, subject, reason=outcome["reason"], facts=outcome.get("facts", {}))
        elif status == "out_of_memory":
            self._withdraw(Kind.OUT_OF_MEMORY, subject, reason=outcome["reason"])
        elif status == "failed":
            self._fail(subject, outcome["reason"])
        elif not self._is_decided(job) and not outcome["is_finished"]:  # paused because a budget was spent
            self._interrupted.append(job)
        else:
            ended_by_itself = not self._is_decided(job)
            epochs = self.state.candidates[subject].record.epochs
            self.record(Kind.JOB_DONE, subject, epochs=epochs, bytes=outcome["bytes"])
            if ended_by_itself:
                self.scheduler.end(subject, Ending.FINISHED)
                self.record(Kind.FINISHED, subject)

    def on_lost(self, subject: int, message: WorkerLost) -> None:
        """Continue from the last checkpoint, unless the candidate is the cause."""
        if message.cause == "hung":
            self._fail(subject, message.reason)
            return
        # The machine may have killed it for lack of memory, or for another reason: only repeated losses count.
        self.record(Kind.LOST, subject, reason=message.reason, had_begun=message.had_started)
        if self.state.candidates[subject].losses >= MOST_LOSSES:
            self._fail(subject, f"{message.reason}, {MOST_LOSSES} times at the same epoch")
        else:
            self._interrupted.append(self.state.jobs[subject])

    def _fail(self, candidate: int, reason: str) -> None:
        self.scheduler.end(candidate, Ending.FAILED)
        self.record(Kind.FAILED, candidate, reason=reason)


def candidate_folder(candidate: int) -> str:
    """Return the run folder of a candidate, relative to that of the study."""
    return f"{CANDIDATES}/{candidate:05d}"


RETRAINED = "retrained"


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


def retrain_runs(parts: StudyParts, ranked: Sequence[int]) -> list[RetrainRun]:
    """Return the trainings of the best candidates, the best first.

    Their seeds are those that follow the candidate's, as its result may owe to that one.

    Args:
        parts: The parts of the study.
        ranked: Candidates, the best first.
    """
    runs: list[RetrainRun] = []
    if parts.retrain is None:
        return runs
    for rank, candidate in enumerate(ranked[: parts.retrain.top], start=1):
        config = parts.space.draw(candidate).config
        for number in range(parts.retrain.seeds):
            changed = {
                "name": f"{config['name']}_candidate{candidate}",
                "seed": config.get("seed", 0) + 1 + number,
                "trainer": {**config["trainer"], "epochs": parts.retrain_epochs},
            }
            runs.append(RetrainRun(f"candidate{candidate}_seed{number}", candidate, rank, config | changed))
    return runs


class Retraining(Stage):
    """The stage that trains each run in full; none is stopped early.

    Args:
        recorder: Records the events.
        extras: Added to the content of every task.
        runs: The trainings.
        folder: Folder of the study.
    """

    def __init__(self, recorder: Recorder, extras: Mapping[str, Any], runs: Sequence[RetrainRun], folder: Path) -> None:
        super().__init__(recorder, extras)
        self.folder = folder
        known = self.state.retrained
        # One that was interrupted continues from its last checkpoint.
        self._waiting = deque(run for run in runs if run.name not in known or known[run.name].status == "running")
        self._losses: Counter[str] = Counter()

    @property
    def is_done(self) -> bool:
        """Whether all were trained."""
        return not self.running and not self._waiting

    def next_task(self) -> Task | None:
        """Return the task of the best candidate that waits."""
        if not self._waiting or self.is_pausing:
            return None
        # The event is written once; a resumed run has it and continues from its checkpoint.
        run = self._waiting.popleft()
        folder = f"{RETRAINED}/{run.name}"
        if run.name not in self.state.retrained:
            seed, epochs = run.config["seed"], run.config["trainer"]["epochs"]
            data = {"run": run.name, "rank": run.rank, "seed": seed, "epochs": epochs, "folder": folder}
            self.record(Kind.RETRAIN, run.candidate, **data)
        reported = len(self.state.retrained[run.name].reports)
        content = {"kind": "retrain", "config": run.config, "folder": str(self.folder / folder), "reported": reported}
        return self.make_task(run, content)

    def on_report(self, subject: RetrainRun, message: dict[str, Any]) -> Decision:
        """Record a new epoch, and continue."""
        # An epoch that was trained again after a kill is in the journal already.
        if message.get("epoch", 0) > len(self.state.retrained[subject.name].reports):
            data = {key: message[key] for key in ("epoch", "row", "seconds")}
            self.record(Kind.RETRAIN_REPORT, subject.candidate, run=subject.name, **data)
        return Decision.CONTINUE

    def on_finished(self, subject: RetrainRun, outcome: dict[str, Any]) -> None:
        """Record the outcome; an interrupted run remains to be done."""
        has_ended = outcome["status"] == "ended"
        if outcome["status"] == "interrupted" or (has_ended and not outcome["is_finished"]):
            self._waiting.appendleft(subject)
            return
        if has_ended and outcome.get("test"):
            self.record(Kind.TESTED, subject.candidate, run=subject.name, metrics=outcome["test"])
        end = {"status": "completed", "reason": ""} if has_ended else {"status": "failed", "reason": outcome["reason"]}
        self.record(Kind.RETRAIN_DONE, subject.candidate, run=subject.name, **end)

    def on_lost(self, subject: RetrainRun, message: WorkerLost) -> None:
        """Continue from the last checkpoint, unless workers are lost again and again."""
        self._losses[subject.name] += message.had_started
        if message.cause == "hung" or self._losses[subject.name] >= MOST_LOSSES:
            end = {"status": "failed", "reason": message.reason}
            self.record(Kind.RETRAIN_DONE, subject.candidate, run=subject.name, **end)
        else:
            self._waiting.appendleft(subject)
