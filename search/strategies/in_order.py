"""Strategies one after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

from search.executors.base import Task
from search.results.record import RetrainedRecord
from search.samplers.base import Beliefs
from search.schedulers.base import Decision, Rung
from search.space.cover import Check
from search.space.space import Space
from search.strategies.base import Loss, Outcome, Strategy, StudyContext
from search.study.journal import Event


class InOrder(Strategy):
    """Strategies of which each begins when the one before it is done.

    Args:
        strategies: One or more, with different stages.
    """

    def __init__(self, strategies: Sequence[Strategy]) -> None:
        self.strategies = list(strategies)
        self.stages = tuple(stage for each in self.strategies for stage in each.stages)
        self._by_stage = {stage: (each,) for each in self.strategies for stage in each.stages}
        self._by_task: dict[str, Strategy] = {}

    def bind(self, study: StudyContext) -> None:
        """Connect each with the study."""
        super().bind(study)
        for each in self.strategies:
            each.bind(study)

    def _concerned(self, event: Event) -> Sequence[Strategy]:
        """Return the strategies that an event is for: all if it is one of the study."""
        return self.strategies if event.stage == "study" else self._by_stage.get(event.stage, ())

    def repeat(self, event: Event) -> None:
        """Repeat the calls that preceded an event."""
        for each in self._concerned(event):
            each.repeat(event)

    def apply(self, event: Event) -> None:
        """Let the strategy of its stage apply an event."""
        for each in self._concerned(event):
            each.apply(event)

    def start(self) -> None:
        """Begin a session."""
        for each in self.strategies:
            each.start()

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """Candidates that the first strategy tries."""
        return self.strategies[0].num_samples

    @property
    def retains_all(self) -> bool:  # type: ignore[override]
        """Whether one of them needs all checkpoints."""
        return any(each.retains_all for each in self.strategies)

    @property
    def result_is_retrained(self) -> bool:  # type: ignore[override]
        """Whether the result of the first one, which searches, is a retraining."""
        return self.strategies[0].result_is_retrained

    def describe(self, space: Space) -> str:
        """Return the descriptions of the strategies that search."""
        return " ".join(each.describe(space) for each in (self.strategies[0], *self.strategies[0].followers()))

    def find_faults(self, space: Space, check: Check) -> list[str]:
        """Return the faults of the candidates of the first, which searches, and those of the work that follows."""
        return [fault for each in self.strategies for fault in each.find_faults(space, check)]

    def grow(self, num_samples: int) -> None:
        """Let the first strategy try more candidates."""
        self.strategies[0].grow(num_samples)

    def obey(self, name: str, data: Mapping[str, Any]) -> None:
        """Let the strategy of a candidate carry out a command, or the first."""
        known = self.study.state.candidates.get(data.get("candidate", -1))
        owner = self.strategies[0] if known is None else self._by_stage.get(known.stage, self.strategies)[0]
        owner.obey(name, data)

    def require_command(self, name: str) -> None:
        """Let the first strategy refuse a command."""
        self.strategies[0].require_command(name)

    def next(self, idle: int) -> Sequence[Task]:
        """Return tasks of the first strategy that is not done."""
        for each in self.strategies:
            if each.is_done:
                continue
            tasks = each.next(idle)
            self.is_pausing, self.is_waiting = each.is_pausing, each.is_waiting
            if tasks or not each.is_done:
                self._by_task |= {task.id: each for task in tasks}
                return tasks
        return ()

    def reported(self, task: Task, message: Mapping[str, Any]) -> Decision:
        """Let the strategy of the task decide."""
        owner = self._by_task[task.id]
        decision = owner.reported(task, message)
        self.is_pausing = owner.is_pausing
        return decision

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Pass the outcome to the strategy of the task."""
        self._by_task.pop(task.id).ended(task, outcome)

    def lost(self, task: Task, cause: Loss, reason: str, *, had_started: bool) -> None:
        """Pass the loss to the strategy of the task."""
        self._by_task.pop(task.id).lost(task, cause, reason, had_started=had_started)

    @property
    def is_done(self) -> bool:
        """Whether each is done."""
        return all(each.is_done for each in self.strategies)

    def winner(self) -> int | None:
        """Return the winner of the last one that has one."""
        return next((found for each in self.strategies[::-1] if (found := each.winner()) is not None), None)

    def retrained(self) -> Mapping[str, RetrainedRecord]:
        """Return the retrainings of all."""
        return {name: run for each in self.strategies for name, run in each.retrained().items()}

    def may_resume(self, candidate: int) -> bool:
        """Return whether one of them may train a candidate again."""
        return any(each.may_resume(candidate) for each in self.strategies)

    def config_of(self, candidate: int) -> dict[str, Any] | None:
        """Return the config of a candidate's results, from the first strategy that says so."""
        return next((found for each in self.strategies if (found := each.config_of(candidate)) is not None), None)

    @property
    def title(self) -> str:
        """The title of the first strategy."""
        return self.strategies[0].title

    def rungs(self) -> Sequence[Rung]:
        """Return the rungs of all."""
        return [rung for each in self.strategies for rung in each.rungs()]

    def beliefs(self) -> Beliefs:
        """Return the beliefs of the first, which searches."""
        return self.strategies[0].beliefs()

    def sections(self) -> Sequence[Mapping[str, Any]]:
        """Return the sections of all."""
        return [section for each in self.strategies for section in each.sections()]
