"""Multi-fidelity search: a sampler draws candidates, a scheduler decides how long each of them trains."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.executors.base import Task
from search.results.record import require_results, without_measured
from search.samplers.base import Beliefs, Suggestion
from search.samplers.enqueued import KnownFirst
from search.samplers.random import RandomSampler
from search.schedulers.base import Decision, Ending, Job, Need, Rung
from search.space.drawn import Drawn
from search.strategies.base import MOST_LOSSES, NO_MORE, Loss, Outcome, Strategy, StudyContext
from search.strategies.budget import BudgetUse
from search.strategies.observed import ObservedCandidates
from search.study.folders import CANDIDATES, run_folder
from search.study.journal import Event
from search.study.settings import StudyParts
from search.study.state import CandidateState
from utils.errors import ConfigError, SearchError

logger = logging.getLogger("espalier")

MOST_WITHDRAWN = 1000  # draws in a row that do not count: the space has nothing to find
MOST_OUT_OF_MEMORY = 30  # the same for candidates that run out of memory, each of which takes time


class MultiFidelity(Strategy):
    """The search of a sampler and a scheduler.

    A candidate that fails, at any time, is a result. One that is refused or out of memory before its first decision is
    replaced by another draw.

    Args:
        parts: The parts of the study.
        stage: Name of the stage.
    """

    trains_in_folds = True

    def __init__(self, parts: StudyParts, *, stage: str = "search") -> None:
        self.parts = parts
        self.scheduler = parts.scheduler
        self.sampler = parts.sampler
        self.stage = stage
        self.stages = (stage,)
        self._running: set[int] = set()  # candidates
        self._ready: list[Job] = []  # jobs that were given and wait for a worker, which come before new ones
        self._enqueued: list[Drawn] = []  # by the user: they are drawn next
        self._paused, self._given_up = set[int](), set[int]()  # candidates, by the user
        self._unadmitted: int | None = None  # a candidate that was drawn for a scheduler that has yet to admit it
        self._is_complete = False  # its end is in the journal, and was no spent budget; until the study grows
        self._has_to_say_done = True
        self._num_proposed = 0  # candidates of the sampler
        self._num_tasks = 0

    def bind(self, study: StudyContext) -> None:
        """Connect the strategy with its study."""
        super().bind(study)
        self.state = study.state
        self._budget = BudgetUse(self.parts.budget, study.state)
        self._observed = ObservedCandidates(study.state, self.parts.objectives, self.parts.constraints)

    def repeat(self, event: Event) -> None:
        """Repeat the call of the scheduler that preceded an event, and compare the answers."""
        if event.name == "study.begin" and event.version == 0:
            self._follow_rules(1)
        elif event.name == "study.created":
            self._follow_rules(event.data.get("rules", 2))
        elif event.name == "study.grown":
            self.scheduler.grow(event.data["num_samples"])
        elif event.stage == self.stage and event.kind == "exhausted":
            self.scheduler.end_draws()
        elif event.stage == self.stage and event.candidate is not None:
            difference = self._repeat_for_candidate(event, event.candidate)
            if difference:
                raise SearchError(
                    f"The journal says {event.name} {event.candidate} {event.data}, but it now {difference}: the "
                    "scheduler is another one or has other arguments. A study is continued as it was begun: undo the "
                    "change, or start a new search."
                )

    def _follow_rules(self, version: int) -> None:
        """Decide by the rules that a study was begun with."""
        self.scheduler.follow_format(version)
        if version < 3:
            self._draw_at_random_by_default()

    def _draw_at_random_by_default(self) -> None:
        """Draw at random if the config names no sampler."""
        sampler, space = self.parts.sampler, self.parts.space
        if sampler is not None and self.parts.config.get("search", {}).get("sampler") is None:
            at_random = RandomSampler(space)
            self.sampler = KnownFirst(space, at_random, sampler.first) if isinstance(sampler, KnownFirst) else at_random

    def _repeat_for_candidate(self, event: Event, candidate: int) -> str:
        """Repeat a call for a candidate, and return a difference in words; empty if there is none."""
        scheduler, data = self.scheduler, event.data
        if event.kind == "job":
            asked = scheduler.ask()
            job = scheduler.admit(candidate) if isinstance(asked, Need) else asked
            return "" if job == Job(candidate, data["start"], data["end"]) else f"asks for {job}"
        if event.kind == "report":
            # The tally is part of the state, but must have the epoch before the scheduler is called.
            values = self._add_to_tally(self.state.candidates[candidate], data["row"])
            decision = scheduler.report(candidate, data["epoch"], values).decision
            return "" if decision == data["decision"] else f"decides to {decision}"
        if event.kind == "ended" and (event.version > 0 or data["status"] != "ended"):
            self._end_in_scheduler(candidate, data["status"])
        elif event.kind == "finished" or (event.kind == "duplicate" and candidate in self.state.jobs):  # format 1
            scheduler.end(candidate, Ending.FINISHED if event.kind == "finished" else Ending.WITHDRAWN)
        return ""

    def apply(self, event: Event) -> None:
        """Note the draws that wait for the scheduler or a worker."""
        if event.name == "study.grown":
            self._has_to_say_done, self._is_complete = True, False
        elif event.name == "study.warm_started":
            self._observed.transfer(event.data["observations"])
        elif event.stage != self.stage:
            return
        elif event.kind == "enqueued":
            self._enqueued.append(Drawn.from_json(event.data["choices"]))
        elif event.kind == "dropped":
            self._enqueued.clear()
        elif event.kind == "done":
            self._has_to_say_done, self._is_complete = False, event.data.get("reason") == NO_MORE
        elif event.candidate is not None:
            self._observed.note_change(event.candidate)
            self._apply_to_candidate(event, event.candidate)

    def _apply_to_candidate(self, event: Event, candidate: int) -> None:
        if event.kind == "drawn":
            self._unadmitted = candidate
            self._num_proposed += not event.data.get("is_enqueued", False)
            state = self.state.candidates[candidate]
            if state.drawn is None:
                self._draw_again(state)
            if self._enqueued and state.drawn == self._enqueued[0]:
                del self._enqueued[0]
        elif event.kind in ("duplicate", "job") and candidate == self._unadmitted:
            self._unadmitted = None
        elif event.kind == "paused":
            self._paused.add(candidate)
        elif event.kind == "resumed":
            self._paused.discard(candidate)
        elif event.kind == "given_up":
            self._given_up.add(candidate)
            self._paused.discard(candidate)  # nobody has to resume it before it ends

    def _draw_again(self, state: CandidateState) -> None:
        """Find the choices of a candidate of format 1, which follow from its number."""
        drawn = self.parts.space.random(state.record.index)
        if [list(item) for item in self.parts.space.label(drawn)] != [list(item) for item in state.record.drawn]:
            raise ValueError("the space draws another one")
        state.drawn = drawn

    def start(self) -> None:
        """Take up the jobs that an earlier session left."""
        self._ready = [job for each, job in self.state.jobs.items() if self.state.candidates[each].stage == self.stage]
        self._has_to_say_done = self._has_to_say_done or not self.state.reason_done

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """Candidates that the scheduler tries."""
        return self.scheduler.num_samples

    def grow(self, num_samples: int) -> None:
        """Let the scheduler try more candidates."""
        self.scheduler.grow(num_samples)

    def obey(self, name: str, data: Mapping[str, Any]) -> None:
        """Draw a candidate of the user next, or pause, resume or give up one candidate."""
        if name == "enqueue":
            drawn = self.parts.space.read(data["choices"])
            self.study.record(f"{self.stage}.enqueued", choices=drawn.as_json())
            return
        candidate = data["candidate"]
        status = self.state.candidates[candidate].record.status
        if status not in ("running", "paused"):
            raise SearchError(f"{name}: candidate {candidate} is {status}. Only one that is not at its end can change.")
        kinds = {"pause": "paused", "resume": "resumed", "stop": "given_up"}
        if name not in kinds:
            super().obey(name, data)
        self.study.record(f"{self.stage}.{kinds[name]}", candidate)

    @property
    def is_waiting(self) -> bool:  # type: ignore[override]
        """Whether only candidates are left that the user has paused."""
        return not self._running and bool(self._ready) and not any(map(self._may_start, self._ready))

    @property
    def is_done(self) -> bool:
        """Whether nothing runs and nothing more will."""
        return self._is_over and not self._has_to_say_done

    @property
    def _is_over(self) -> bool:
        has_ended = not self._ready and not self._enqueued and self.scheduler.is_done
        return not self._running and (bool(self.spent_budget) or has_ended)

    @property
    def spent_budget(self) -> str:
        """The budget that is used up, in words; empty if none is."""
        return self._budget.spent

    def next(self, idle: int) -> Sequence[Task]:
        """Return the tasks of the next jobs."""
        tasks: list[Task] = []
        while len(tasks) < idle and not self.is_pausing and not self.spent_budget:
            job = self._next_job()
            if job is None:
                break
            if job.candidate in self._given_up:
                self._end(job.candidate, "ended", is_given_up=True)
            else:
                self._has_to_say_done = True
                self._running.add(job.candidate)
                tasks.append(self._task_of(job, self.state.candidates[job.candidate]))
        # With a spent budget the tasks that run are paused at their next report, too.
        self.is_pausing = self.is_pausing or bool(self.spent_budget)
        if not tasks and self._is_over and self._has_to_say_done:
            reason = self.spent_budget or NO_MORE
            self.study.record(f"{self.stage}.done", reason=reason)
        return tasks

    def _next_job(self) -> Job | None:
        """Return a job that waits, else a new one."""
        for place, job in enumerate(self._ready):
            if self._may_start(job):
                return self._ready.pop(place)
        while (asked := self.scheduler.ask()) is not None:
            if isinstance(asked, Need):
                number = self._draw(asked)
                if number is None:
                    continue  # ask again, for a promotion
                asked = self.scheduler.admit(number)
            self.study.record(f"{self.stage}.job", asked.candidate, start=asked.start, end=asked.end)
            # Its worker may have yet to save the state from which the job begins.
            if asked.candidate in self.state.held:
                continue
            if self._may_start(asked):
                return asked
            self._ready.append(asked)
        if self._enqueued and not self._running and not self._ready and self.scheduler.is_done:
            num_samples = self.num_samples + len(self._enqueued)  # all candidates were drawn before
            try:
                self.grow(num_samples)
            except ConfigError as error:
                logger.warning("%d candidates that were enqueued are not tried: %s", len(self._enqueued), error)
                self.study.record(f"{self.stage}.dropped", reason=str(error))
                return None
            self.study.record("study.grown", num_samples=num_samples)
            return self._next_job()
        return None

    def _may_start(self, job: Job) -> bool:
        """Return whether a job whose candidate has saved its state can be given to a worker."""
        return job.candidate not in self._paused

    def _draw(self, need: Need) -> int | None:
        """Return the number of a new candidate that is equal to no earlier one; None if there is none."""
        state = self.state
        while True:
            if self._unadmitted is None and not self._draw_next():
                return None
            number = self._unadmitted
            assert number is not None, "set when it was drawn"
            first = state.keys[state.candidates[number].key]
            if first == number:
                return number
            self.study.record(f"{self.stage}.duplicate", number, of=first)
            if not state.has_only_duplicates(MOST_WITHDRAWN):
                self._check_withdrawn(number)

    def _draw_next(self) -> bool:
        """Draw a candidate; return whether there was one left."""
        state, space = self.state, self.parts.space
        number, is_enqueued = state.next_number, bool(self._enqueued)
        is_after_duplicate = number > 0 and state.candidates[number - 1].record.status == "duplicate"
        if is_after_duplicate and not is_enqueued and len(state.keys) >= space.distinct():
            self._exhaust(f"all {len(state.keys)} candidates of the space are drawn")
            return False
        if is_after_duplicate and not is_enqueued and state.has_only_duplicates(MOST_WITHDRAWN):
            # The few that are left of a space would take ever more draws.
            self._exhaust(f"{MOST_WITHDRAWN} draws in a row were equal to earlier ones")
            return False
        proposed = Suggestion(self._enqueued[0], "enqueued") if is_enqueued else self._suggest()
        if proposed is None:
            self._exhaust("the sampler has no more to propose")
            return False
        drawn, seed = space.nearest(proposed.drawn), space.seed(number)
        key = space.key(drawn) if space.has_markers else f"seed {seed}"
        data = {"choices": drawn.as_json(), "drawn": space.label(drawn), "seed": seed, "key": key}
        if self.sampler is not None or is_enqueued:  # else they are the conditions of a grid
            data["origin"] = proposed.origin
        data |= {"is_enqueued": True} if is_enqueued else {}
        self.study.record(f"{self.stage}.drawn", number, **data)
        return True

    def _suggest(self) -> Suggestion | None:
        """Return the choices that the sampler proposes next."""
        if self.sampler is None:
            return Suggestion(self.parts.space.random(self._num_proposed))
        observations, running = self._observed.present()
        return self.sampler.propose(self._num_proposed, observations, running)

    def beliefs(self) -> Beliefs:
        """Return the beliefs of the sampler, by the results that it would be given for its next proposal."""
        if self.sampler is None:
            return Beliefs()
        return self.sampler.beliefs(self._observed.present()[0])

    def _exhaust(self, reason: str) -> None:
        self.scheduler.end_draws()
        self.study.record(f"{self.stage}.exhausted", reason=reason)

    def _task_of(self, job: Job, state: CandidateState) -> Task:
        record = state.record
        assert state.drawn is not None, "set when it was drawn"
        self._num_tasks += 1
        payload = {
            "config": {**self.parts.space.config(state.drawn), "seed": record.seed},
            "folder": str(run_folder(self.study.folder, candidate_folder(job.candidate))),
            "reported": record.epochs,
            # Killed between a decision and the end of its job: only the missing epochs are trained again.
            "until": record.epochs if state.is_decided(job) else None,
            "limits": None if record.facts else self.parts.limits,  # checked once
            **self.parts.folds_of(record.epochs, job.end),
            **self.parts.rules,
        }
        name = f"{self.stage}/{job.candidate}/{self._num_tasks}"
        return Task(name, "train", payload, candidate=job.candidate, resources=self.parts.resources)

    def reported(self, task: Task, message: Mapping[str, Any]) -> Decision:
        """Take the names of the results, a text for the log, a sign of life, the facts, or the results of an epoch."""
        candidate = _candidate_of(task)
        if "epoch" not in message:
            if "names" in message:
                require_results(self.parts.objectives, message["names"], self.parts.constraints)
            elif "text" in message:
                logger.info("Candidate %d:\n%s", candidate, message["text"])
            elif "facts" in message:
                self.study.record(f"{self.stage}.facts", candidate, facts=message["facts"])
            if "is_at_work" not in message:
                return Decision.CONTINUE
            self._budget.note_sign_of_life()
            is_halted = self.spent_budget or candidate in self._paused | self._given_up
            return Decision.PAUSE if is_halted else Decision.CONTINUE
        state, epoch, row = self.state.candidates[candidate], message["epoch"], message["row"]
        if epoch <= state.record.epochs:
            return self._reported_again(candidate, state, epoch, row)
        if state.is_decided(self.state.jobs[candidate]):
            return state.last_decision  # its run folder is ahead of a journal that was cut, or lost its last events
        if epoch != state.record.epochs + 1:
            raise SearchError(
                f"Candidate {candidate} reports epoch {epoch} after {state.record.epochs}: its run folder does not "
                "belong to the journal. Put back a copy of both, or start a new search."
            )
        # The scheduler is called before the event is written; a replay calls it in the same order.
        decision, rung, cutoff = self.scheduler.report(candidate, epoch, self._add_to_tally(state, row))
        data = {"epoch": epoch, "row": row, "seconds": message["seconds"]}
        data |= {"decision": decision.value, "rung": rung, "cutoff": cutoff}
        if state.record.folder is None:
            data["folder"] = candidate_folder(candidate)
        self.study.record(f"{self.stage}.report", candidate, **data)
        if self.spent_budget:
            self.is_pausing = True
        if decision is Decision.CONTINUE and candidate in self._paused | self._given_up:
            return Decision.PAUSE  # of the worker: the job remains
        return decision

    def _add_to_tally(self, state: CandidateState, row: Mapping[str, float]) -> tuple[float, ...]:
        values = state.tally.add(row)
        state.values.append(
            tuple(
                state.record.facts.get(each.name, math.nan) * each.sign if each.is_fact else row[each.name] * each.sign
                for each in self.parts.objectives
            )
        )
        return values

    def _reported_again(self, candidate: int, state: CandidateState, epoch: int, row: Mapping[str, float]) -> Decision:
        """Take an epoch that is in the journal, and was trained again after a kill before the checkpoint."""
        before = state.record.reports[epoch - 1]
        differing = [
            name
            for name, value in without_measured(row).items()
            if before.get(name) != value and not (math.isnan(value) and math.isnan(before.get(name, 0.0)))
        ]
        if differing:
            logger.warning(
                "Candidate %d: epoch %d was trained again after an interruption and differs in %s. Another number "
                "of threads or another machine can cause that; the first results remain.",
                candidate,
                epoch,
                ", ".join(differing),
            )
        is_last = epoch == state.record.epochs and candidate in self.state.jobs
        return state.last_decision if is_last else Decision.CONTINUE

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Record that a job is over, or that its candidate failed or does not count."""
        candidate = _candidate_of(task)
        self._running.discard(candidate)
        state, job = self.state.candidates[candidate], self.state.jobs[candidate]
        is_decided, is_finished = state.is_decided(job), bool(outcome.details.get("is_finished"))
        if outcome.status == "ended":
            data = self._data_of_end(state, outcome)
            if is_decided or is_finished:
                self._end(candidate, "ended", **data)
            elif candidate in self._given_up:
                self._end(candidate, "ended", is_given_up=True, **data)
            else:  # it was paused because a budget is spent, or by the user
                self._ready.append(job)
        elif outcome.status == "interrupted":
            self._ready.append(job)
        elif outcome.status in ("refused", "out_of_memory") and not is_decided:
            self._end(candidate, outcome.status, reason=outcome.reason, facts=dict(outcome.facts))
            self._check_withdrawn(candidate)
        else:
            prefix = "out of memory: " if outcome.status == "out_of_memory" else ""
            self._end(candidate, "failed", reason=prefix + outcome.reason)

    def _data_of_end(self, state: CandidateState, outcome: Outcome) -> dict[str, Any]:
        """Return the recorded data of a job that ended well."""
        return {"epochs": state.record.epochs, "bytes": outcome.details.get("bytes", 0)}

    def lost(self, task: Task, cause: Loss, reason: str, *, had_started: bool) -> None:
        """Continue from the last checkpoint, unless the candidate is the cause."""
        candidate = _candidate_of(task)
        self._running.discard(candidate)
        if cause == "hung":
            self._end(candidate, "failed", reason=reason)
            return
        # The machine may have killed it for lack of memory, or for another reason: only repeated losses count.
        self.study.record(f"{self.stage}.lost", candidate, reason=reason, had_begun=had_started)
        if self.state.candidates[candidate].losses >= MOST_LOSSES:
            self._end(candidate, "failed", reason=f"{reason}, {MOST_LOSSES} times at the same epoch")
        else:
            self._ready.append(self.state.jobs[candidate])

    def _end(self, candidate: int, status: str, **data: Any) -> None:
        """Record that a job is over; a job that was held back follows."""
        self._end_in_scheduler(candidate, status)
        held = self.state.held.get(candidate)
        self.study.record(f"{self.stage}.ended", candidate, status=status, **data)
        if held is not None and status == "ended":
            self._ready.append(held)

    def _end_in_scheduler(self, candidate: int, status: str) -> None:
        """Tell the scheduler of the end of a job, unless its own decision was the end."""
        if status == "ended" and self.state.candidates[candidate].is_decided(self.state.jobs[candidate]):
            return
        endings = {"ended": Ending.FINISHED, "failed": Ending.FAILED}
        self.scheduler.end(candidate, endings.get(status, Ending.WITHDRAWN))

    def _check_withdrawn(self, candidate: int) -> None:
        """Raise if nothing in the space seems to count."""
        state, reason = self.state, self.state.candidates[candidate].record.reason.rstrip(".")
        if state.out_of_memory >= MOST_OUT_OF_MEMORY:
            raise SearchError(
                f"{state.out_of_memory} candidates in a row ran out of memory; the last one: {reason}. Set "
                "search.limits.max_memory_mb, which refuses such candidates before their training, use a smaller "
                "batch, or fewer workers at a time."
            )
        if state.withdrawn >= MOST_WITHDRAWN:
            raise SearchError(
                f"{state.withdrawn} draws in a row did not count; the last one: {reason}. Loosen search.limits, or "
                "mark more values."
            )

    def may_resume(self, candidate: int) -> bool:
        """Return whether the scheduler may ask for a paused candidate again."""
        return self.scheduler.may_resume(candidate)

    @property
    def title(self) -> str:
        """The name of the scheduler."""
        return type(self.scheduler).__name__

    def rungs(self) -> Sequence[Rung]:
        """Return the rungs of the scheduler."""
        return self.scheduler.rungs()

    def winner(self) -> int | None:
        """Return the candidate that the study recommends."""
        return next(iter(self.study.front()), None)


def candidate_folder(candidate: int) -> str:
    """Return the run folder of a candidate, relative to that of the study."""
    return f"{CANDIDATES}/{candidate:05d}"


def _candidate_of(task: Task) -> int:
    assert task.candidate is not None, "each task of this strategy has a candidate"
    return task.candidate
