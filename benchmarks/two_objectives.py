"""Searches of NAS-Bench-201 for cells that are accurate and train fast: the hypervolume after 100 trainings."""

import fnmatch
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peer_schedulers import is_installed
from benchmarks.search_contenders import learning_samplers, our_sampler
from benchmarks.simulation_results import Result
from benchmarks.simulator import simulate
from search.results.hypervolume import hypervolume, scaled
from search.samplers.base import Observation, Sampler, Suggestion
from search.schedulers.halving import RandomSearch
from search.space.drawn import Drawn
from search.space.table_space import TableSpace
from search.tables.table import ResultTable
from utils.errors import ConfigError

TRAININGS = 100
_SHOWN = (25, 50, 75, 100)
_MOST_KNOWN = 100  # proposals in a row that were trained before; then a random one that was not
_OPTUNA = ("NSGAIISampler", "TPESampler", "GPSampler")

MakeSampler = Callable[[TableSpace, ResultTable], Sampler]


class FrontTask:
    """The cells of NAS-Bench-201 with two objectives: mean validation accuracy after 200 epochs, and training time.

    A candidate is six choices of one of five operations, and costs one training.

    Args:
        path: cifar10.npz, or another data set of the benchmark in the same form.
        least_accuracy: In percent, of the reference point, whose time is the largest of all.
    """

    name = "nasbench201"

    def __init__(self, path: Path, least_accuracy: float = 50.0) -> None:
        data = np.load(path)
        cells = [str(cell).strip("|").replace("|+|", "|").split("|") for cell in data["arch"]]
        settings: dict[str, list[Any]] = {
            f"edge{edge}": [cell[edge].rpartition("~")[0] for cell in cells] for edge in range(6)
        }
        accuracy = np.nanmean(data["val_acc_200ep"].astype(float), axis=1)
        seconds = data["train_time_s_200ep"].astype(float)
        self.table = ResultTable.of(
            {"accuracy": accuracy[:, None], "seconds": seconds[:, None]}, settings=settings, seconds=1.0
        )
        self.space = TableSpace({}, self.table.settings)
        points = np.stack([accuracy, -seconds], axis=1)
        reference = np.array([least_accuracy, -seconds.max()])
        self._points = scaled(points, reference, points.max(axis=0))
        self._full = hypervolume(self._points)

    def search(self, name: str, make: MakeSampler, seed: int) -> Result:
        """Train 100 cells one after the other."""
        began = time.process_time()
        sampler = make(self.space.reseeded(seed), self.table)
        found = simulate(
            RandomSearch(TRAININGS, 1), self.table, sampler=sampler, objectives=["max accuracy", "min seconds"]
        )
        rows = [epoch.setting for epoch in found.trace]
        shares = [(float(count), self.share(rows[:count])) for count in _SHOWN]
        nothing = -1  # ranks and regrets are those of one objective
        compute = round(time.process_time() - began, 3)
        return Result(
            name, self.name, 1, seed, nothing, math.nan, nothing, math.nan, shares[-1][1], found.epochs, found.seconds,
            len(found.settings), compute, tuple(shares),
        )  # fmt: skip

    def share(self, rows: Sequence[int]) -> float:
        """The hypervolume of some cells as a share of that of all."""
        trained: NDArray[np.float64] = self._points[list(rows)]
        return hypervolume(trained) / self._full

    def print_table(self, results: Sequence[Result]) -> None:
        """Print the mean share of the hypervolume after 25, 50, 75 and 100 trainings."""
        print(f"\n{self.name}, accuracy and time: share of the hypervolume{'':8}" + "".join(f"{n:8d}" for n in _SHOWN))
        names = dict.fromkeys(result.contender for result in results if result.task == self.name)
        for name in names:
            runs = [result for result in results if (result.contender, result.task) == (name, self.name)]
            means = [statistics.fmean(run.steps[place][1] for run in runs) for place in range(len(_SHOWN))]
            least = min(run.value for run in runs)
            print(
                f"{name:42}{len(runs):8d} repeats  "
                + "".join(f"{mean:8.3f}" for mean in means)
                + f"   least {least:.3f}"
            )


class OptunaFront(Sampler):
    """A sampler of Optuna for several objectives. A proposal that was trained before is told its results again.

    Args:
        space: Of the table.
        table: The results that are told.
        name: Of the sampler.
        num_objectives: 2, or 1: the accuracy alone.
    """

    def __init__(self, space: TableSpace, table: ResultTable, name: str, num_objectives: int = 2) -> None:
        super().__init__(space)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._rows = {row: number for number, row in enumerate(zip(*table.settings.values(), strict=True))}
        self._listed = space.listed
        self._settings = table.settings
        results = ("accuracy", "seconds")[:num_objectives]
        self._values = np.stack([table.results[result][:, 0, 0] for result in results], axis=1)
        self._space = {
            path: optuna.distributions.CategoricalDistribution(sorted(set(column)))
            for path, column in table.settings.items()
        }
        self._study = optuna.create_study(
            directions=["maximize", "minimize"][:num_objectives],
            sampler=getattr(optuna.samplers, name)(seed=space.study_seed),
        )
        self._trained: set[int] = set()

    def suggest(
        self, number: int, observations: Sequence[Observation], running: Sequence[Drawn], rng: np.random.Generator
    ) -> Suggestion:
        """Tell what was trained, and ask until a cell is new."""
        for attempt in itertools.count():
            if attempt == _MOST_KNOWN:
                new = next(row for row in rng.permutation(len(self._listed)) if row not in self._trained)
                self._study.enqueue_trial({path: self._settings[path][new] for path in self._space})
            trial = self._study.ask(self._space)
            row = self._rows[tuple(trial.params[path] for path in self._space)]
            self._study.tell(trial, self._values[row].tolist())  # nothing runs next to it, so its result is next
            if row not in self._trained:
                self._trained.add(row)
                break
        return Suggestion(self._listed[row], "model")


def front_samplers(patterns: Sequence[str], num_objectives: int = 2) -> dict[str, MakeSampler]:
    """Return what makes samplers, by name.

    Args:
        patterns: As in a shell; or a registered sampler of ours as `NAME[:ARGS]`, with arguments as JSON; empty: all.
        num_objectives: 2, or 1: the accuracy alone.
    """
    ours = partial(_our_sampler, num_objectives)
    known: dict[str, MakeSampler] = {name: partial(ours, name) for name in ("random", *learning_samplers())}
    if is_installed("optuna"):
        known |= {f"Optuna {name}": partial(_optuna_sampler, num_objectives, name) for name in _OPTUNA}
    chosen: dict[str, MakeSampler] = {}
    for pattern in patterns or ["*"]:
        found = {name: make for name, make in known.items() if fnmatch.fnmatchcase(name, pattern)}
        chosen |= found or {pattern: partial(ours, pattern)}
    return chosen


def _our_sampler(num_objectives: int, name: str, space: TableSpace, table: ResultTable) -> Sampler:
    kind, _, args = name.partition(":")
    spec = {"type": kind, "args": json.loads(args) if args else {}}
    try:
        return our_sampler(spec, space, RandomSearch(TRAININGS, 1), num_objectives)
    except ConfigError as error:
        raise SystemExit(str(error)) from None


def _optuna_sampler(num_objectives: int, name: str, space: TableSpace, table: ResultTable) -> Sampler:
    return OptunaFront(space, table, name, num_objectives)
