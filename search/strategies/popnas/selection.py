"""Model selection: the best cells in networks of several shapes, each trained for longer, before the winner is."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from config.checking.sections import Strict, check_section
from config.faults import Faults, show
from config.loading.load import apply_changes, deep_merge
from config.objects import instantiate
from search.executors.base import Task
from search.registry import REGISTRY
from search.results.leaderboard import first_front, is_ranked
from search.schedulers.base import Decision, Job, Rung, Scheduler
from search.schedulers.generations import Generations
from search.space.cover import Check, changed_faults
from search.space.drawn import Drawn
from search.space.space import Space
from search.space.table_space import TableSpace
from search.strategies.base import MOST_LOSSES, Loss, Outcome, Strategy
from search.strategies.multi_fidelity import MultiFidelity
from search.strategies.popnas.candidates import Cells
from search.strategies.popnas.choice import LIMITED_COSTS, is_allowed
from search.strategies.popnas.options import ARGUMENTS, CELL
from search.study.journal import Event
from search.study.settings import StudyParts, check_changes
from search.study.state import CandidateState
from utils.architecture.cells.network import MacroOptions

STAGE = "selection"
SHAPES = "shapes"  # kind of the tasks that find the parameters of networks
SHAPE = ("motifs", "normal_cells", "filters")
_WIDTHS = (0.85, 1.0, 1.5, 1.75, 2.0)  # of the searched one, as in the paper's implementation
_NUM_MORE = {"motifs": 1, "normal_cells": 2}  # than in the searched network, by default

logger = logging.getLogger("espalier")


def _shape_of(costs: Mapping[str, Any]) -> dict[str, int]:
    return {name: costs[name] for name in SHAPE}


class SelectionOptions(Strict):
    """Which networks of the best cells are compared by a longer training."""

    top: int = Field(5, ge=1, description="Cells with the best results.")
    on_front: bool = Field(False, description="Only cells that no other one dominates in all objectives.")
    epochs: int | None = Field(None, ge=1, description="Epochs of each training; null: trainer.epochs.")
    params: tuple[int, int] | None = Field(
        None, description="[least, most] weights of further shapes of a cell; null: the searched shape alone."
    )
    motifs: list[int] | None = Field(None, min_length=1, description="Motifs M; null: as searched, and one more.")
    normal_cells: list[int] | None = Field(None, min_length=1, description="Normal cells N; null: up to two more.")
    filters: list[int] | None = Field(None, min_length=1, description="Filters F; null: 0.85 to 2 times the searched.")
    changes: dict[str, Any] = Field({}, description="Values that only these trainings have, by JSON path.")

    @field_validator("params", mode="before")
    @classmethod
    def check_params(cls, params: Any) -> Any:
        """Take whole numbers that are written as 2.5e6, and refuse an empty range."""
        if not isinstance(params, list | tuple):
            return params
        whole = [int(each) if isinstance(each, float) and each.is_integer() else each for each in params]
        if len(whole) == 2 and all(isinstance(each, int) for each in whole) and not 0 < whole[0] <= whole[1]:
            raise ValueError(f"{show(whole)}: must be [least, most], from 1. Write for example [200000, 400000].")
        return tuple(whole)


@dataclass(frozen=True)
class SelectedShape:
    """A network of the model selection.

    Attributes:
        cell: Its canonical text.
        of: Candidate of the search that has this cell.
        shape: Its motifs, normal cells and filters; empty if they are not known.
        is_searched: Whether it is the shape of the search.
        params: Its weights; None if they are not known.
    """

    cell: str
    of: int
    shape: Mapping[str, int]
    is_searched: bool
    params: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as the journal holds it."""
        return {**vars(self), "shape": dict(self.shape)}

    @property
    def key(self) -> str:
        """Text that is equal for equal networks."""
        return " ".join([STAGE, self.cell, *(f"{name} {value}" for name, value in self.shape.items())])


def read_selection(given: Mapping[str, Any], parts: StudyParts, faults: Faults) -> SelectionOptions | None:
    """Return the options of a model selection; None if they are wrong, each reason in `faults`."""
    place = f"{ARGUMENTS}.selection"
    options = check_section(SelectionOptions, dict(given), place, faults)
    if options is None:
        return None
    if isinstance(parts.space, TableSpace):
        faults.add(place, "a table is searched, and nothing is trained. Remove it.")
    set_here = [CELL, *(f"arch.args.{name}" for name in SHAPE)]
    check_changes(options.changes, f"{place}.changes", faults, set_here)
    least = {"motifs": 1, "normal_cells": 0, "filters": 1}
    for name in SHAPE:
        values = getattr(options, name)
        if values is not None and options.params is None:
            faults.add(f"{place}.{name}", f"{show(values)}, and no params says which shapes to train. Add that range.")
        elif values is not None and min(values) < least[name]:
            faults.add(f"{place}.{name}", f"{show(values)}: each must be {least[name]} or more. Write larger ones.")
    return options


class ModelSelection(MultiFidelity):
    """The best cells of a search in networks of several shapes, trained longer and compared by validation data.

    Of each cell, the searched shape is trained and, for each number of motifs and normal cells, the widest network
    whose weights lie in a range. The scheduler compares all networks that were chosen together.

    Args:
        parts: The parts of the study.
        searching: The search.
        cells: Its cells.
        trained: Returns the candidates of the search with results, and their cells.
        options: Which networks.

    Raises:
        ConfigError: Settings contradict each other.
    """

    def __init__(
        self,
        parts: StudyParts,
        searching: Strategy,
        cells: Cells,
        trained: Callable[[], Mapping[int, str]],
        options: SelectionOptions,
    ) -> None:
        super().__init__(parts, stage=STAGE)
        self.searching, self.cells, self.options = searching, cells, options
        self._trained = trained
        self.sampler = None
        arch = parts.config.get("arch")
        args = arch.get("args") if isinstance(arch, Mapping) else None
        given = args if isinstance(args, Mapping) else {}
        searched = {name: given.get(name, getattr(MacroOptions(), name)) for name in SHAPE}
        self.searched_shape: dict[str, int] = {name: value for name, value in searched.items() if type(value) is int}
        self.max_epochs: int = options.epochs or parts.max_epochs
        self.scheduler: Scheduler = Generations(self._new_scheduler, self.max_epochs)
        self._new_scheduler(1)  # to check it
        self._chosen: list[SelectedShape] = []
        self._numbers: list[int] = []  # of the candidates, in the order of those chosen
        self._covered: set[int] = set()  # candidates of the search whose shapes are chosen
        self._asked: list[int] | None = None  # candidates of whose shapes a worker finds the costs
        self._losses: Counter[str] = Counter()

    def _new_scheduler(self, num_samples: int) -> Scheduler:
        spec = {"search": {"scheduler": self.parts.config["search"].get("scheduler") or "RandomSearch"}}
        runtime = {"num_samples": num_samples, "max_epochs": self.max_epochs}
        made: Scheduler = instantiate(spec, "search.scheduler", REGISTRY, runtime=runtime)
        return made

    @property
    def grid(self) -> dict[str, list[int]]:
        """The motifs, normal cells and filters of further shapes; none without a range of parameters."""
        if self.options.params is None or len(self.searched_shape) < len(SHAPE):
            return {}
        searched = self.searched_shape
        grid = {
            name: [searched[name] + more for more in range(num_more + 1)] for name, num_more in _NUM_MORE.items()
        } | {"filters": sorted({max(1, round(width * searched["filters"])) for width in _WIDTHS})}
        given = {name: getattr(self.options, name) for name in SHAPE}
        return {name: grid[name] if given[name] is None else sorted(set(given[name])) for name in SHAPE}

    def describe(self, space: Space) -> str:
        """Return in words how many networks are trained."""
        grid = self.grid
        most = self.options.top * (1 + len(grid["motifs"]) * len(grid["normal_cells"]) if grid else 1)
        return f"Then at most {most} networks of the best {self.options.top} cells, {self.max_epochs} epochs each."

    def find_faults(self, space: Space, check: Check) -> list[str]:
        """Return no faults of single networks: the changes of the selection must suit all.

        Raises:
            ConfigError: With it, none can be trained.
        """
        config = next(self.cells.covering(), None)
        faults = Faults(self._range_faults() if self.parts.is_new else ())
        if config is not None:
            with faults.collecting():
                for message in changed_faults(config, self._changed(config), check):
                    faults.add(f"{ARGUMENTS}.selection", message)
        if faults:
            raise faults.error()
        return []

    def _range_faults(self) -> Iterator[str]:
        """Yield the constraints that no network with as many weights as are asked for can keep."""
        asked = list(self.options.params or ())
        for each in self.parts.constraints if asked else ():
            if each.name == "params" and all(each.violation({"params": float(weights)}) for weights in asked):
                yield (
                    f"{ARGUMENTS}.selection.params: {show(asked)}, and search.constraints has {show(str(each))}: no "
                    "further shape can keep both. Change one of them."
                )

    def _changed(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config of a cell with the changes of the selection."""
        changed = apply_changes(config, self.options.changes)
        if self.options.epochs is not None:
            changed["trainer"] = {**changed["trainer"], "epochs": self.options.epochs}
        return changed

    def repeat(self, event: Event) -> None:
        """Repeat the calls of the scheduler; it does not grow, as only the search does."""
        if event.name != "study.grown":
            super().repeat(event)

    def apply(self, event: Event) -> None:
        """Note the networks, too."""
        super().apply(event)
        if event.stage != self.stage:
            return
        if event.kind == "selected":
            found = [SelectedShape(**each) for each in event.data["networks"]]
            self._covered.update(event.data["candidates"])
            self._chosen += found
            if found:
                assert isinstance(self.scheduler, Generations), "set in the constructor"
                self.scheduler.open(len(found))
        elif event.kind == "drawn" and event.candidate is not None:
            each = self._chosen[len(self._numbers)]
            record = self.state.candidates[event.candidate].record
            weights = {} if each.params is None else {"weights": each.params}
            record.notes = {"cell": each.cell, "chosen for": STAGE, **weights}
            self._numbers.append(event.candidate)

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """Networks that were chosen so far."""
        return len(self._chosen)

    def next(self, idle: int) -> Sequence[Task]:
        """Return the tasks of the networks that were chosen; before, choose them."""
        while True:
            was_complete = self._is_complete
            tasks = super().next(idle)
            if self._is_complete and not was_complete and (broken := self._broken_constraints):
                logger.warning("%s", broken)
            is_busy = self._running or self._ready or not self.scheduler.is_done or self._asked is not None
            wanted = [] if is_busy or self.spent_budget or self.is_pausing else self._wanted()
            if tasks or not wanted:
                return tasks
            if self.grid:
                return [self._ask(wanted)]
            self._select(wanted, [])

    @property
    def _broken_constraints(self) -> str:
        """In words that no network keeps the constraints, though the best one is the result; else empty."""
        best = next(iter(self._ordered(self._numbers)), None)
        if best is None or not self.state.candidates[best].record.violation:
            return ""
        bounds = ", ".join(map(str, self.parts.constraints))
        return f"Selection: no network keeps search.constraints ({bounds}); the best is the one that misses them least."

    @property
    def _is_over(self) -> bool:
        if self._asked is not None:
            return False
        return super()._is_over and (bool(self.spent_budget) or not self._wanted())

    def _wanted(self) -> list[int]:
        """Return the best candidates of the search whose networks are not chosen yet, the best first.

        None if the selection is over: a latency that is measured after it changes the results, but does not reopen it.
        """
        if self._is_complete:
            return []
        found = self._ordered(list(self._trained()))
        if self.options.on_front and found:
            goals = self.parts.objectives
            records = [self.state.candidates[number].record for number in found]
            # As on the leaderboard, a violation dominates every larger one; the first has the least.
            records = [each for each in records if each.violation == records[0].violation]
            values = [[goal.sign * {**each.facts, **each.objectives}[goal.name] for goal in goals] for each in records]
            is_on_front = first_front(np.array(values))
            found = [each.index for each, is_best in zip(records, is_on_front, strict=True) if is_best]
        return [number for number in found[: self.options.top] if number not in self._covered]

    def _ordered(self, candidates: Sequence[int]) -> list[int]:
        """Return candidates with results by violation of the constraints, score, and number, the best first."""
        goal = self.parts.objectives[0]
        records = [self.state.candidates[number].record for number in candidates]
        ranked = [each for each in records if is_ranked(each, self.parts.objectives)]
        order = sorted(ranked, key=lambda each: (each.violation, -goal.sign * each.objectives[goal.name], each.index))
        return [each.index for each in order]

    def _ask(self, wanted: list[int]) -> Task:
        """Return the task that finds the weights of all shapes of cells."""
        self._asked = wanted
        self._num_tasks += 1
        cells = self._trained()
        payload = {
            "config": self._changed(self.cells.config(self.cells.grammar.empty)),
            "cells": [cells[number] for number in wanted],
            "grid": self.grid,
            "searched": self.searched_shape,
            "input_size": (self.parts.limits or {}).get("input_size"),
        }
        return Task(f"{self.stage}/{SHAPES}/{self._num_tasks}", SHAPES, payload)

    def _select(self, candidates: Sequence[int], costs: Sequence[Mapping[str, Any]]) -> None:
        """Record the networks of some cells.

        Args:
            candidates: Of the search.
            costs: Of each network a mapping with `cell` (its place among the candidates), motifs, normal_cells,
                filters, `params`, `flops`, and `network`, equal for equal networks.
        """
        cells = self._trained()
        networks: list[SelectedShape] = []
        for place, number in enumerate(candidates):
            known = [each for each in costs if each["cell"] == place]
            searched = next((each for each in known if _shape_of(each) == self.searched_shape), None)
            params = None if searched is None else searched["params"]
            networks.append(SelectedShape(cells[number], number, self.searched_shape, is_searched=True, params=params))
            seen = {None if searched is None else searched["network"]}
            for each in self._widest(known):
                if each["network"] not in seen:
                    seen.add(each["network"])
                    shape = _shape_of(each)
                    networks.append(
                        SelectedShape(cells[number], number, shape, is_searched=False, params=each["params"])
                    )
        if costs and self.options.params is not None and all(each.is_searched for each in networks):
            least, most = self.options.params
            bounds = " and keeps search.constraints" if self.parts.constraints else ""
            logger.warning(
                "Selection: no further shape of the best cells has %s to %s weights%s: only the searched shapes are "
                "trained.", f"{least:,}", f"{most:,}", bounds,
            )  # fmt: skip
        data = {"candidates": list(candidates), "networks": [each.to_json() for each in networks]}
        self.study.record(f"{self.stage}.selected", **data)

    def _widest(self, costs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return for each number of motifs and normal cells the widest network of a cell that keeps all bounds."""
        if self.options.params is None:
            return []
        least, most = self.options.params
        names = [name for name in LIMITED_COSTS.values() if all(name in each for each in costs)]
        columns = {name: np.array([each[name] for each in costs], dtype=float) for name in names}
        # The range takes the place of the limit of parameters; a constraint holds for the result of the study.
        kept = is_allowed(len(costs), columns, self.parts, limited=("flops",))
        found: dict[tuple[int, int], Mapping[str, Any]] = {}
        for each in sorted((costs[place] for place in np.flatnonzero(kept).tolist()), key=lambda each: each["filters"]):
            if least <= each["params"] <= most and each["filters"] in self.grid["filters"]:
                found[each["motifs"], each["normal_cells"]] = each
        return [
            found[place]
            for place in sorted(found)
            if place[0] in self.grid["motifs"] and place[1] in self.grid["normal_cells"]
        ]

    def _draw_next(self) -> bool:
        """Draw the next network; return whether there was one left."""
        if len(self._numbers) >= len(self._chosen):
            self._exhaust("all networks are drawn")
            return False
        each, number = self._chosen[len(self._numbers)], self.state.next_number
        label = [(CELL, each.cell), *((f"arch.args.{name}", value) for name, value in each.shape.items())]
        data = {"choices": Drawn().as_json(), "drawn": label, "seed": self.parts.space.seed(number)}
        self.study.record(f"{self.stage}.drawn", number, **data, key=each.key, origin="model", epochs=self.max_epochs)
        return True

    def config_of(self, candidate: int) -> dict[str, Any] | None:
        """Return the config of a network of the selection, or of a candidate of the search."""
        if candidate not in self._numbers:
            return self.searching.config_of(candidate)
        each = self._chosen[self._numbers.index(candidate)]
        # A network that is none of ours may not have the arguments: those that it was searched with are left out.
        changed = {name: value for name, value in each.shape.items() if value != self.searched_shape.get(name)}
        config: dict[str, Any] = deep_merge(self._changed(self.cells.config(each.cell)), {"arch": {"args": changed}})
        return {**config, "seed": self.state.candidates[candidate].record.seed}

    def _task_of(self, job: Job, state: CandidateState) -> Task:
        task = super()._task_of(job, state)
        task.payload["config"] = self.config_of(job.candidate)
        if "folds" in task.payload:  # its epochs are others than those of the search
            compared = {each for each in self.scheduler.fidelities() if state.record.epochs < each < job.end}
            task.payload["folds"] = {**task.payload["folds"], "ends": sorted({*compared, job.end})}
        if task.payload["limits"] is not None and self.options.params is not None:  # which takes the place of the limit
            task.payload["limits"] = {**task.payload["limits"], "max_params": None}
        return task

    def reported(self, task: Task, message: Mapping[str, Any]) -> Decision:
        """Take a report of a training."""
        return Decision.CONTINUE if task.kind == SHAPES else super().reported(task, message)

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Record the end of a training, or choose by the weights of the networks; without these, the searched ones."""
        if task.kind != SHAPES:
            super().ended(task, outcome)
            return
        wanted, self._asked = self._asked, None
        assert wanted is not None, "its task was given"
        if outcome.status == "interrupted":
            return  # it is asked for again, with the same result
        costs = outcome.details.get("costs", []) if outcome.status == "ended" else []
        if not costs:
            reason = outcome.reason or "the weights of the network do not follow from its cell"
            logger.warning("Selection: only the searched shapes of the best cells are trained: %s", reason)
        self._select(wanted, costs)

    def lost(self, task: Task, cause: Loss, reason: str, *, had_started: bool) -> None:
        """Continue from the last checkpoint, or ask again, unless workers are lost again and again."""
        if task.kind != SHAPES:
            super().lost(task, cause, reason, had_started=had_started)
            return
        wanted, self._asked = self._asked, None
        assert wanted is not None, "its task was given"
        self._losses[SHAPES] += had_started
        if cause == "hung" or self._losses[SHAPES] >= MOST_LOSSES:
            logger.warning("Selection: only the searched shapes of the best cells are trained: %s", reason)
            self._select(wanted, [])

    def finalists(self) -> Sequence[int]:
        """Return the networks of the selection, the best first; those of the search if none has results."""
        return self._ordered(self._numbers) or self.searching.finalists()

    def rungs(self) -> Sequence[Rung]:
        """Return the rungs of the selection, their brackets numbered after those of the search."""
        first = 1 + max((rung.bracket for rung in self.searching.rungs()), default=-1)
        return [replace(rung, bracket=first + rung.bracket) for rung in self.scheduler.rungs()]

    def winner(self) -> int | None:
        """Leave the choice to the other strategies."""
        return None

    def example_of_finalist(self) -> Mapping[str, Any] | None:
        """Return the config of the first network that is checked."""
        example = self.searching.example_of_finalist()
        return None if example is None else self._changed(example)

    @property
    def wants_onnx(self) -> bool:  # type: ignore[override]
        """As the search does."""
        return self.searching.wants_onnx

    def sections(self) -> Sequence[Mapping[str, Any]]:
        """Return a row for each network, the best first."""
        if not self._chosen:
            return ()
        goals = self.parts.objectives
        place_of = {number: place for place, number in enumerate(self._numbers)}
        ranked = self._ordered(self._numbers)
        head = ["candidate", "of candidate", *SHAPE, "params", "status", "epochs", *(goal.name for goal in goals)]
        rows: list[list[Any]] = [[*head, "cell"]]
        for number in [*ranked, *(each for each in self._numbers if each not in ranked)]:
            each, record = self._chosen[place_of[number]], self.state.candidates[number].record
            known = {**record.facts, **record.objectives}
            values = [value if math.isfinite(value := known.get(goal.name, math.nan)) else None for goal in goals]
            params = record.facts.get("params", each.params)
            row = [number, each.of, *(each.shape.get(name) for name in SHAPE), params, record.status, record.epochs]
            rows.append([*row, *values, each.cell])
        text = (
            f"Networks of the best {len(self._covered)} cells of the search, of {self.max_epochs} epochs, by the "
            "results of validation data. The candidate of the search that has the same cell is named, too. "
            f"{self._broken_constraints}"
        ).rstrip()
        return [{"title": "Model selection", "text": text, "table": rows}]
