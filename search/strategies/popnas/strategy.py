"""POPNAS: cells grow block by block, and of each generation the predicted Pareto front is trained."""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from config.faults import Faults
from config.objects import instantiate
from search.executors.base import Task
from search.registry import REGISTRY
from search.results.leaderboard import is_ranked
from search.results.record import Objective
from search.schedulers.base import Decision, Job, Scheduler
from search.schedulers.generations import Generations
from search.space.cover import Check
from search.space.space import Space
from search.strategies.base import MOST_LOSSES, Loss, Outcome, Strategy
from search.strategies.multi_fidelity import MultiFidelity
from search.strategies.popnas.candidates import Cells, cells_of, network_of_request, operator_faults
from search.strategies.popnas.choice import allowed_cells, bounded_costs, choose, exact_facts
from search.strategies.popnas.estimates import Answer, FullResults, Request, Trained, read_answer, write_request
from search.strategies.popnas.generation import ChosenCell, Generation, unaudited
from search.strategies.popnas.options import GrowthOptions, PredictionOptions, growth_faults, network_faults
from search.strategies.popnas.predicted import AUDIT, GENERATIONS, generation_folder, stored_predictions
from search.strategies.popnas.sections import best_cell, cost_sections, generation_sections
from search.strategies.popnas.selection import ModelSelection, read_selection
from search.strategies.popnas.sizes import GenerationSize, cut_generations, generation_sizes, shrunk_growth
from search.study.journal import Event
from search.study.settings import StudyParts
from search.study.state import CandidateState
from utils.errors import EspalierError, SearchError
from utils.seeding import derive_seed

ESTIMATE = "estimate"  # kind of the tasks that predict
_GROWTH, _PREDICTION = GrowthOptions(), PredictionOptions()

logger = logging.getLogger("espalier")


class ProgressiveSearch(MultiFidelity):
    """A progressive search for a cell (Falanti et al. 2022, https://arxiv.org/abs/2212.06735).

    The empty cell is trained, then cells of one block, then, block by block, the cells that grow from those trained
    before: all of them are predicted, and the Pareto front of the predictions is trained, with a few in which rare
    operations and inputs occur. Within each generation the scheduler decides how long a cell trains.

    Differences from the paper: dominance is strict, so that equal predictions do not remove each other; the
    exploration counts both operations of a block; predictors are compared with trivial ones on the trained cells.

    A generation is written to the journal as data before it takes effect, so that a study continues without its
    predictors. With `search.num_samples`, further cells of the last generation are chosen until so many are trained.

    Args:
        parts: The parts of the study.
        growth: Which cells there are, and how many of them are trained.
        prediction: How cells that were not trained are compared.
        selection: Arguments of the model selection that follows; see `SelectionOptions`.

    Raises:
        ConfigError: The settings contradict each other, or those of the study.
    """

    wants_onnx = True

    def __init__(
        self,
        parts: StudyParts,
        *,
        growth: GrowthOptions = _GROWTH,
        prediction: PredictionOptions = _PREDICTION,
        selection: Annotated[
            dict[str, Any] | None, Field(description="The best cells in several shapes, trained longer; `null`: not.")
        ] = None,
    ) -> None:
        super().__init__(parts)
        faults = Faults(growth_faults(parts, growth))
        options = None if selection is None else read_selection(selection, parts, faults)
        with faults.collecting():
            self.cells: Cells = cells_of(parts, growth)
        if faults:
            raise faults.error()
        self.selection = options
        self.growth = growth
        self.prediction = prediction
        self.sampler = None
        self.scheduler: Scheduler = Generations(self._new_scheduler, parts.max_epochs)
        asked = parts.config.get("search", {}).get("num_samples")
        if asked is not None:
            self._generations_of_scheduler.most = asked
        self.generations: list[Generation] = []
        self._cell_of: dict[int, str] = {}  # by candidate
        self._request: Request | None = None  # which a worker has
        self._num_estimates = 0
        self._losses: Counter[str] = Counter()  # of workers that predicted, by generation

    @property
    def _generations_of_scheduler(self) -> Generations:
        assert isinstance(self.scheduler, Generations), "set in the constructor"
        return self.scheduler

    def _new_scheduler(self, num_samples: int) -> Scheduler:
        """Return the scheduler of a generation."""
        spec = {"search": {"scheduler": self.parts.config["search"].get("scheduler") or "RandomSearch"}}
        runtime = {"num_samples": num_samples, "max_epochs": self.parts.max_epochs}
        made: Scheduler = instantiate(spec, "search.scheduler", REGISTRY, runtime=runtime)
        return made

    @classmethod
    def shrunk_arguments(cls, args: Mapping[str, Any], epochs: int) -> dict[str, Any]:
        """Return the arguments for a search of two generations with a cell each, or more of the second one."""
        return shrunk_growth(args, epochs)

    def describe(self, space: Space) -> str:
        """Return in words which cells there are and how many are trained."""
        most = self._generations_of_scheduler.most
        if most is None:
            return f"{self.cells.describe()}, at most {self.num_samples:,} trainings."
        return f"{self.cells.describe()}, until {most:,} are trained in all."

    def find_faults(self, space: Space, check: Check) -> list[str]:
        """Return no faults of single cells: each operation is checked, and all must be possible.

        Raises:
            ConfigError: A network with some operation cannot be trained, or `num_samples` leaves no search.
        """
        faults = Faults(network_faults(self.parts.config))
        if self.parts.is_new and self.growth.grammar is None and self.growth.operators is None:
            faults.extend(operator_faults(self.parts.config))
        asked, warning = self._generations_of_scheduler.most, ""
        if asked is not None and self.parts.is_new:
            with faults.collecting():
                is_limited = bool(exact_facts(self.parts) and bounded_costs(self.parts))
                warning = cut_generations(asked, self._sizes, is_limited=is_limited)
        if not faults:
            for config in self.cells.covering():
                with faults.collecting():
                    check(config)
        if faults:
            raise faults.error()
        if warning:
            logger.warning("%s", warning)
        return []

    def apply(self, event: Event) -> None:
        """Note the generations and their cells, too."""
        super().apply(event)
        if event.stage != self.stage:
            return
        if event.kind == "generation":
            generation = Generation.from_json(event.data)
            self.generations.append(generation)
            if generation.cells:
                self._generations_of_scheduler.open(len(generation.cells))
        elif event.kind == "drawn" and event.candidate is not None:
            self._cell_of[event.candidate] = event.data["cell"]
            self.state.candidates[event.candidate].record.notes = self.generations[-1].notes_of_next()
            self.generations[-1].numbers.append(event.candidate)

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """Candidates to try: those that were asked for, or as many as the generations have at most."""
        most = self._generations_of_scheduler.most
        if most is not None:
            return most
        known = sum(len(each.cells) for each in self.generations)
        done = self._grown[-1].place if self.generations else (-1, 1)
        return known + sum(each.most for each in self._sizes if (each.blocks, each.round) > done)

    @cached_property
    def _sizes(self) -> list[GenerationSize]:
        num_first = len(self.cells.first(self.growth.max_first, self.parts.space.study_seed))
        return generation_sizes(self.growth, self.cells.grammar.steps, num_first)

    def _first_cells(self, allowed: Collection[str] | None = None) -> list[str]:
        """Return the cells of one block to train; if fewer may be trained, they are chosen like those of `max_first`.

        Args:
            allowed: Those that keep the limits; None: all.
        """
        most = self._generations_of_scheduler.most
        room = None if most is None else max(0, most - self._num_counted)
        bounds = [each for each in (self.growth.max_first, room) if each is not None]
        return self.cells.first(min(bounds, default=None), self.parts.space.study_seed, allowed)

    def grow(self, num_samples: int) -> None:
        """Choose further cells of the last generation, until so many are trained.

        Raises:
            SearchError: The study was begun without a number of candidates.
        """
        if self._generations_of_scheduler.most is None:
            raise SearchError(
                f"search.num_samples {num_samples}: it trains what its generations choose, and was begun without "
                "a number of cells. Start a new search with it, or with other arguments of POPNAS."
            )
        super().grow(num_samples)

    def obey(self, name: str, data: Mapping[str, Any]) -> None:
        """Pause, resume or give up a candidate.

        Raises:
            SearchError: A candidate is enqueued, or cannot change any more.
        """
        self.require_command(name)
        super().obey(name, data)

    def require_command(self, name: str) -> None:
        """Refuse to enqueue a candidate.

        Raises:
            SearchError: It is to be enqueued.
        """
        if name == "enqueue":
            raise SearchError("enqueue: POPNAS grows its cells itself. Train a cell of your own with train.py.")

    def next(self, idle: int) -> Sequence[Task]:
        """Return the tasks of the present generation; if it is over, begin the next one."""
        while True:
            tasks = super().next(idle)
            if tasks or self._request is not None or not self._may_begin_generation:
                return tasks
            if task := self._begin_generation():
                return [task]

    @property
    def _may_begin_generation(self) -> bool:
        is_over = not self._running and not self._ready and self.scheduler.is_done
        return is_over and not self.spent_budget and not self.is_pausing and self._has_more

    @property
    def _is_over(self) -> bool:
        if self._request is not None:
            return False
        return super()._is_over and (bool(self.spent_budget) or not self._has_more)

    @property
    def _has_more(self) -> bool:
        """Whether there is a next generation, or the predictions of the last one are yet to be compared."""
        return self._next_place is not None or self._has_to_audit

    @property
    def _has_to_audit(self) -> bool:
        last = next((each for each in reversed(self.generations) if each.cells or each.audit or each.is_audit), None)
        predicted = last is not None and not last.is_audit and any(each.estimates for each in last.cells)
        return predicted and not self._is_complete and self.prediction.predictor != "trivial"

    @property
    def _grown(self) -> list[Generation]:
        """The generations without the audit of the last one."""
        return [each for each in self.generations if not each.is_audit]

    @property
    def _next_place(self) -> tuple[int, int] | None:
        """Blocks and round of the next generation; None if the present one is the last."""
        most, generations = self._generations_of_scheduler.most, self._grown
        if not generations:
            return 0, 1
        last = generations[-1]
        if self._is_complete or (most is not None and self._num_counted >= most):
            return None
        if last.blocks == 0:
            # If not even the empty cell trains an epoch, data or training are at fault, and so it would be with all.
            empty = self.state.candidates[last.numbers[0]].record if last.numbers else None
            return None if empty is not None and empty.status == "failed" and not empty.reports else (1, 1)
        if last.blocks < self.cells.grammar.steps:
            return (last.blocks + 1, 1) if last.cells and self._parents(last.blocks + 1) else None
        # Nothing was left to choose, so that nothing will be.
        is_more = most is not None or last.round < self.growth.rounds
        return (last.blocks, last.round + 1) if is_more and last.cells else None

    @property
    def _num_counted(self) -> int:
        """Candidates that were drawn and not replaced."""
        replaced = ("refused", "out_of_memory", "duplicate")
        return sum(self.state.candidates[number].record.status not in replaced for number in self._cell_of)

    def _trained(self, blocks: int | None = None) -> list[Trained]:
        """Return the cells with results, those of a number of blocks only or all, by candidate."""
        found = []
        of_blocks = {number for each in self.generations if each.blocks == blocks for number in each.numbers}
        for number, cell in self._cell_of.items():
            record = self.state.candidates[number].record
            if (blocks is None or number in of_blocks) and is_ranked(record, self.parts.objectives):
                found.append(Trained(number, cell, {**record.facts, **record.objectives}, record.epochs))
        return found

    def _full_results(self) -> FullResults:
        observations, fidelities = self._observed.present()[0], self.scheduler.fidelities()
        return FullResults.of(self._trained(), observations, self.parts.objectives, fidelities)

    def _parents(self, blocks: int) -> list[str]:
        """Return the cells from which those of a number of blocks grow."""
        return [each.cell for each in self._trained(blocks - 1)]

    def _begin_generation(self) -> Task | None:
        """Record the next generation, or return the task that predicts it."""
        if self._next_place is None:
            last = self._grown[-1]
            return self._task_of_request(self._new_request(last.blocks, last.round, [], is_audit=True))
        blocks, number = self._next_place
        facts = exact_facts(self.parts)
        is_limited = facts and bounded_costs(self.parts)  # then the first cells are those that keep it
        if blocks == 0 or (blocks == 1 and number == 1 and not is_limited):
            cells = self._first_cells() if blocks else [self.cells.grammar.empty]
            chosen = [ChosenCell(each, "first" if blocks else "empty") for each in cells]
            self._record_generation(Generation(blocks, number, chosen, len(cells)))
            return None
        parents = self._parents(blocks) if blocks > 1 else [self.cells.grammar.empty]
        request = self._new_request(blocks, number, parents)
        needs_worker = self.prediction.predictor != "trivial" or facts
        if not len(request.expansion) or not needs_worker:
            self._end_request(request, request.trivial_answer())
            return None
        return self._task_of_request(request)

    def _new_request(self, blocks: int, number: int, parents: Sequence[str], *, is_audit: bool = False) -> Request:
        pending = unaudited(self.generations)
        return Request(
            blocks=blocks,
            round=number,
            expansion=self.cells.grammar.expand(parents, list(self._cell_of.values()) if parents else []),
            trained=self._full_results().trained,
            failed=[
                cell
                for number, cell in self._cell_of.items()
                if self.state.candidates[number].record.status == "failed"
            ],
            before=[cell for each in pending for cell in each.cells if cell.estimates],
            audited=[each.place for each in pending],
            objectives=self.parts.objectives,
            max_epochs=self.parts.max_epochs,
            seed=derive_seed(self.parts.space.study_seed, "predictors", blocks, number) >> 31,
            is_audit=is_audit,
        )

    def _folder_of(self, request: Request) -> Path:
        study = Path(self.study.folder).resolve()
        return study / GENERATIONS / AUDIT if request.is_audit else generation_folder(study, *request.place)

    def _task_of_request(self, request: Request) -> Task:
        """Return the task of a worker that predicts the cells of a request."""
        payload = write_request(self._folder_of(request), request, self.prediction)
        predicted = [name for each in unaudited(self.generations) for name in each.predicted]
        payload |= network_of_request(self.cells, self.parts, predicted if request.is_audit else ())
        self._request = request
        self._num_estimates += 1
        return Task(f"{self.stage}/{ESTIMATE}/{self._num_estimates}", ESTIMATE, payload)

    def _record_generation(self, generation: Generation) -> None:
        """Record a generation, with no more cells than may be trained."""
        most = self._generations_of_scheduler.most
        if most is not None:
            generation.cells = generation.cells[: max(0, most - self._num_counted)]
        self.study.record(f"{self.stage}.generation", **generation.to_json())

    def _end_request(self, request: Request, answer: Answer) -> None:
        """Choose the cells of a generation by their predictions."""
        place, audited = request.place, request.audited if answer.audit else ()
        if request.is_audit:
            found = Generation(*place, [], audit=answer.audit, audited=audited, seconds=answer.seconds, is_audit=True)
            self._record_generation(found)
            return
        if request.is_first:
            self._record_first(request, answer)
            return
        chosen = choose(request, answer, self.growth, self.parts, is_last=request.blocks == self.cells.grammar.steps)
        generation = Generation(
            *place,
            chosen,
            len(request.expansion),
            num_grown=request.expansion.num_grown,
            predictors=answer.predictors,
            audit=answer.audit,
            audited=audited,
            seconds=answer.seconds,
        )
        self._record_generation(generation)

    def _record_first(self, request: Request, answer: Answer) -> None:
        """Record the first cells of those that keep the limits, which follow from their costs alone."""
        allowed = allowed_cells(request, answer, self.parts)
        cells = self._first_cells(allowed)
        if not cells:
            logger.warning("No cell of one block keeps search.limits and search.constraints: nothing grows.")
        chosen = [ChosenCell(each, "first") for each in cells]
        self._record_generation(Generation(1, request.round, chosen, len(request.expansion), seconds=answer.seconds))

    def _draw_next(self) -> bool:
        """Draw the next cell of the generation; return whether there was one left."""
        cell = self.generations[-1].next_cell
        if cell is None:
            self._exhaust("all cells of the generation are drawn")
            return False
        number, form = self.state.next_number, self.cells.candidate(cell.cell)
        data = {"choices": form.drawn.as_json(), "drawn": form.label, "seed": self.parts.space.seed(number)}
        origin = "model" if cell.estimates else "random"
        self.study.record(f"{self.stage}.drawn", number, **data, key=form.key, origin=origin, cell=cell.cell)
        return True

    def followers(self) -> Sequence[Strategy]:
        """Return the model selection, if there is one."""
        if self.selection is None:
            return ()

        def trained() -> dict[int, str]:
            return {each.candidate: each.cell for each in self._trained()}

        return [ModelSelection(self.parts, self, self.cells, trained, self.selection)]

    def example_of_finalist(self) -> Mapping[str, Any] | None:
        """Return the config of the first network that is checked."""
        return next(self.cells.covering(), None)

    def config_of(self, candidate: int) -> dict[str, Any] | None:
        """Return the config with the cell of a candidate."""
        cell = self._cell_of.get(candidate)
        if cell is None:
            return None
        return {**self.cells.config(cell), "seed": self.state.candidates[candidate].record.seed}

    def _task_of(self, job: Job, state: CandidateState) -> Task:
        task = super()._task_of(job, state)
        task.payload["config"] = self.config_of(job.candidate)
        if task.payload["limits"] is None and not state.record.facts:
            task.payload["limits"] = {}  # none, but parameters and FLOPs of each cell are known then
        return task

    def reported(self, task: Task, message: Mapping[str, Any]) -> Decision:
        """Take a report of a training; that of a prediction only says that it goes on."""
        return Decision.CONTINUE if task.kind == ESTIMATE else super().reported(task, message)

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Record the end of a training, or choose by the predictions; without these, by the parents."""
        if task.kind != ESTIMATE:
            super().ended(task, outcome)
            return
        request, self._request = self._request, None
        assert request is not None, "its task was given"
        if outcome.status == "interrupted":
            return  # it is predicted again, with the same result
        reason = outcome.reason
        if outcome.status == "ended":
            try:
                self._end_request(request, read_answer(outcome.details, request))
                return
            except EspalierError as error:
                reason = str(error)
        self._end_without_predictors(request, reason)

    def _end_without_predictors(self, request: Request, reason: str) -> None:
        if request.is_audit:
            logger.warning("The last predictions are not compared with their results: %s", reason)
        else:
            logger.warning("Generation %d: predicted by the parents alone: %s", request.blocks, reason)
        self._end_request(request, request.trivial_answer(reason, self._folder_of(request)))

    def lost(self, task: Task, cause: Loss, reason: str, *, had_started: bool) -> None:
        """Continue from the last checkpoint, or predict again, unless workers are lost again and again."""
        if task.kind != ESTIMATE:
            super().lost(task, cause, reason, had_started=had_started)
            return
        request, self._request = self._request, None
        assert request is not None, "its task was given"
        place = f"{request.blocks}.{request.round}"
        self._losses[place] += had_started
        if cause == "hung" or self._losses[place] >= MOST_LOSSES:
            self._end_without_predictors(request, reason)

    @property
    def title(self) -> str:
        """The name of the strategy."""
        return "POPNAS"

    def sections(self) -> Sequence[Mapping[str, Any]]:
        """Return the best cell, the generations, their predictions against results, and the use of operations."""
        return list(self._sections())

    def _sections(self) -> Iterator[Mapping[str, Any]]:
        records = {number: each.record for number, each in self.state.candidates.items()}
        goals: tuple[Objective, ...] = self.parts.objectives
        of_places = {(blocks, number): each for blocks, number, each in stored_predictions(Path(self.study.folder))}
        predictions = {each.name: of_places[each.place] for each in self._grown if each.place in of_places}
        ranked: list[int] = []
        with suppress(SearchError):  # nothing has a result yet
            ranked = self.study.ranked()
        yield from best_cell(
            ranked, {number: str(each.notes.get("cell")) for number, each in records.items()}, self.parts.config
        )
        yield from generation_sections(self.generations, records, goals, self._full_results(), predictions)
        searched = [each for each in ranked if each in self._cell_of]  # not those of a model selection
        yield from cost_sections(searched, records, self._cell_of, goals)
