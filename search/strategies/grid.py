"""Grid studies: every condition with every seed, and in every fold, trained in full and tested once."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from search.executors.base import Task
from search.results.grid import best_run, grid_sections
from search.results.labelling import labelling_sections
from search.schedulers.base import Decision, Job
from search.space.grid_space import GridSpace
from search.strategies.base import MOST_LOSSES, Loss, Outcome
from search.strategies.multi_fidelity import MultiFidelity, candidate_folder
from search.study.folders import CONFIG, run_folder
from search.study.journal import Event
from search.study.settings import StudyParts
from search.study.state import CandidateState
from utils.errors import ConfigError, SearchError
from utils.files import read_json_object

POOL = "pool"

logger = logging.getLogger("espalier")


class Grid(MultiFidelity):
    """A grid study: its candidates are those of a `GridSpace`, and no result changes them.

    A candidate that fails, is refused or runs out of memory is a result, and no other takes its place. At its end it is
    tested once with its best checkpoint by validation; of a condition with markers, which is a search, the winner
    counts. When all folds of a condition and seed are trained, their validation results are computed once more from the
    counts of all folds.

    Args:
        parts: The parts of the study.
        stage: Name of the stage.

    Raises:
        ConfigError: The study has no conditions.
    """

    retains_all = True
    trains_in_folds = False

    def __init__(self, parts: StudyParts, *, stage: str = "grid") -> None:
        if not isinstance(parts.space, GridSpace):
            raise ConfigError(
                "search.strategy: Grid trains the conditions of search.study, which is missing. Add it, and remove "
                "search.strategy."
            )
        super().__init__(parts, stage=stage)
        self.space = parts.space
        self._pooled: set[int] = set()  # last folds whose results were pooled
        self._pooling: dict[str, int] = {}  # the same that are in a worker, by task
        self._pool_losses: Counter[int] = Counter()

    def apply(self, event: Event) -> None:
        """Note the pooled results, too."""
        super().apply(event)
        if event.stage == self.stage and event.kind == "pooled" and event.candidate is not None:
            self._pooled.add(event.candidate)

    def grow(self, num_samples: int) -> None:
        """Train with more seeds.

        Raises:
            ConfigError: A seed would be incomplete.
        """
        per_seed = self.space.candidates_per_seed
        if num_samples % per_seed:
            raise ConfigError(
                f"{num_samples} trainings: a seed of this grid study has {per_seed}, and a study has whole seeds. Add "
                f"{per_seed} or a multiple of it."
            )
        super().grow(num_samples)

    @property
    def _is_over(self) -> bool:
        return super()._is_over and not self._pooling and (bool(self.spent_budget) or not self._unpooled())

    def next(self, idle: int) -> Sequence[Task]:
        """Return the tasks of the next candidates; results of folds are pooled as soon as all are there."""
        pools = [self._pool_task(last) for last in self._unpooled()[:idle] if not self.is_pausing]
        return [*pools, *super().next(idle - len(pools))]

    def _unpooled(self) -> list[int]:
        """Return the last folds whose results can be pooled now."""
        folds = self.space.folds
        if folds is None:
            return []
        known, candidates = self._pooled | set(self._pooling.values()), self.state.candidates
        lasts = [number for number in range(folds - 1, len(candidates), folds) if number not in known]
        return [
            last
            for last in lasts
            if all(candidates[each].record.status == "completed" for each in self._fold_group(last))
        ]

    def _fold_group(self, last: int) -> range:
        return range(last + 1 - (self.space.folds or 1), last + 1)

    def _pool_task(self, last: int) -> Task:
        self._num_tasks += 1
        folders = [str(run_folder(self.study.folder, candidate_folder(each))) for each in self._fold_group(last)]
        task = Task(f"{self.stage}/{POOL}{last}/{self._num_tasks}", POOL, {"folders": folders}, candidate=last)
        self._pooling[task.id] = last
        return task

    def _task_of(self, job: Job, state: CandidateState) -> Task:
        task = super()._task_of(job, state)
        task.payload["until"] = None
        assert state.drawn is not None, "set when it was drawn"
        # Trained as a winner is trained again: to its own end, and then tested.
        return replace(task, kind="search" if self.space.is_search(state.drawn) else "retrain")

    def config_of(self, candidate: int) -> dict[str, Any] | None:
        """Return the config of the winner of a candidate that is a search."""
        state = self.state.candidates[candidate]
        if state.drawn is None or not self.space.is_search(state.drawn):
            return None
        return read_json_object(self.study.folder / candidate_folder(candidate) / CONFIG, _damaged)

    def reported(self, task: Task, message: Mapping[str, Any]) -> Decision:
        """Record a report, and continue: a candidate ends by itself."""
        if task.kind == POOL:
            return Decision.CONTINUE
        decision = super().reported(task, message)
        return Decision.CONTINUE if decision is Decision.STOP else decision

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Record the end of a candidate, or the results of pooled folds."""
        if task.kind == POOL:
            last = self._pooling.pop(task.id)
            if outcome.status == "ended":
                self._record_pooled(last, outcome.values)
            elif outcome.status != "interrupted":
                self._record_pooled(last, {}, outcome.reason)
            return
        candidate = task.candidate
        assert candidate is not None, "each other task has one"
        if outcome.status in ("refused", "out_of_memory"):
            if outcome.facts:
                self.study.record(f"{self.stage}.facts", candidate, facts=dict(outcome.facts))
            prefix = "out of memory: " if outcome.status == "out_of_memory" else "refused: "
            outcome = replace(outcome, status="failed", reason=prefix + outcome.reason)
        elif outcome.status == "ended" and not outcome.details.get("is_finished") and candidate not in self._given_up:
            outcome = replace(outcome, status="interrupted")  # paused, perhaps at its last epoch: it is not tested yet
        super().ended(task, outcome)

    def _data_of_end(self, state: CandidateState, outcome: Outcome) -> dict[str, Any]:
        found = {"test": outcome.details.get("test"), "facts": outcome.facts}
        return super()._data_of_end(state, outcome) | {name: dict(values) for name, values in found.items() if values}

    def lost(self, task: Task, cause: Loss, reason: str, *, had_started: bool) -> None:
        """Continue from the last checkpoint, unless the candidate is the cause."""
        if task.kind != POOL:
            super().lost(task, cause, reason, had_started=had_started)
            return
        last = self._pooling.pop(task.id)
        self._pool_losses[last] += had_started
        if cause == "hung" or self._pool_losses[last] >= MOST_LOSSES:
            self._record_pooled(last, {}, reason)

    def _record_pooled(self, last: int, results: Mapping[str, float], reason: str = "") -> None:
        if reason:
            logger.warning("The results of the folds up to candidate %d are not pooled: %s", last, reason)
        self.study.record(f"{self.stage}.pooled", last, results=dict(results), reason=reason)

    def winner(self) -> int | None:
        """Return the best run of the best condition."""
        records = [each.record for each in self.state.candidates.values()]
        found = best_run(records, self.space.conditions, self.parts.objectives[0])
        return None if found is None else found.index

    @property
    def title(self) -> str:
        """The name of the strategy: no scheduler stops anything."""
        return "Grid"

    def sections(self) -> Sequence[Mapping[str, Any]]:
        """Return the tables of the conditions and of their differences, and the comparison of their labels."""
        records, goal = [each.record for each in self.state.candidates.values()], self.parts.objectives[0]
        tables = grid_sections(records, self.space.conditions, goal)
        return [*labelling_sections(records, self.space.configs, goal), *tables]


def _damaged(reason: str) -> SearchError:
    return SearchError(f"{reason}. It is the winner of a search. Put back a copy.")
