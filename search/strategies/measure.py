"""The latency of the best candidates, measured again at the end with nothing of the study running next to it."""

from collections.abc import Mapping, Sequence
from typing import Any

from search.executors.base import Task
from search.schedulers.base import Decision
from search.space.cover import Check
from search.space.space import Space
from search.strategies.base import Loss, Outcome, Strategy
from search.study.folders import run_folder
from search.study.settings import StudyParts

STAGE = "measure"


class MeasureLatency(Strategy):
    """Measures the Pareto front, or with one objective the winner, one candidate after the other.

    It has nothing to do if neither an objective nor a constraint is a latency.

    Args:
        parts: The parts of the study.
        searching: The strategy that says which config a candidate has; None: as it was drawn.
    """

    stages = (STAGE,)

    def __init__(self, parts: StudyParts, *, searching: Strategy | None = None) -> None:
        self.parts = parts
        self.searching = searching
        self._is_running = False
        self._failed: set[int] = set()  # in this session

    def find_faults(self, space: Space, check: Check) -> list[str]:
        """Return none: it measures candidates that were trained."""
        return []

    def _waiting(self) -> list[int]:
        names = [goal.name for goal in self.parts.objectives] + [bound.name for bound in self.parts.constraints]
        if "latency_ms" not in names:
            return []
        measured = self.study.state.measured
        return [each for each in self.study.front() if each not in measured and each not in self._failed]

    @property
    def is_done(self) -> bool:
        """Whether each of them is measured."""
        return not self._is_running and not self._waiting()

    def next(self, idle: int) -> Sequence[Task]:
        """Return the task of one candidate, while none runs."""
        if self._is_running:
            return ()
        candidate = self._waiting()[0]
        state = self.study.state.candidates[candidate]
        assert state.drawn is not None, "set when it was drawn"
        self._is_running = True
        chosen = None if self.searching is None else self.searching.config_of(candidate)
        payload = {
            "config": {**(chosen or self.parts.space.config(state.drawn)), "seed": state.record.seed},
            "folder": str(run_folder(self.study.folder, state.record.folder or "candidates")),
            "limits": {**(self.parts.limits or {}), "wants_latency": True},
            "reported": state.record.epochs,
        }
        return [Task(f"{STAGE}/{candidate}", "measure", payload, candidate=candidate)]

    def reported(self, task: Task, message: Mapping[str, Any]) -> Decision:
        """Take no report."""
        return Decision.CONTINUE

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Record the latency; a candidate that cannot be measured retains the one that it has."""
        self._is_running = False
        assert task.candidate is not None, "each task of this strategy has a candidate"
        if "latency_ms" in outcome.facts:
            self.study.record(f"{STAGE}.measured", task.candidate, latency_ms=outcome.facts["latency_ms"])
        elif outcome.status != "interrupted":
            self._failed.add(task.candidate)

    def lost(self, task: Task, cause: Loss, reason: str, *, had_started: bool) -> None:
        """Measure no more."""
        self._is_running = False
        assert task.candidate is not None, "each task of this strategy has a candidate"
        self._failed.add(task.candidate)

    def winner(self) -> int | None:
        """Leave the choice to the other strategies."""
        return None
