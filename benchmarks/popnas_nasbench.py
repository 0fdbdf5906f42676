"""How good a cell POPNAS finds in the table NAS-Bench-201 with 100 trainings, next to samplers.

    pip install -r requirements-benchmarks.txt
    python benchmarks/popnas_nasbench.py data/nasbench201/cifar10.npz --repeats 50

Every search trains 100 of the 15,625 cells, each once: its result is the mean validation accuracy of three seeds after
200 epochs. Shown are the accuracy of the best cell, and the hypervolume of accuracy and training time as a share of
that of all cells (reference: 50 % and the largest time). A repeat is a seed; of each, all contenders search.

Each search is a line of the output file, and is not computed again: stop it whenever you like. After a change of the
code, delete the lines of the searches that it concerns. A contender is a sampler with its arguments,
'gp:{"initial": 20}', or POPNAS with those of the strategy: --contenders 'POPNAS:{"max_children": 10}'. A name with
", one objective" searches by the accuracy alone.

Other data sets of the benchmark, in the same form, need a reference of their own: cifar100.npz --least-accuracy 20.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are small; before numpy is imported

import numpy as np

from benchmarks.result_files import json_lines, require_result_file
from benchmarks.simulator import simulate
from benchmarks.two_objectives import TRAININGS, FrontTask, front_samplers
from config.objects import instantiate
from search.executors.base import Task
from search.registry import REGISTRY
from search.schedulers.halving import RandomSearch
from search.space.table_space import TableSpace
from search.strategies.base import Outcome, Strategy, StudyContext
from search.strategies.popnas.strategy import ESTIMATE
from search.study.driver import Recorder
from search.study.journal import Event, Journal
from search.study.settings import StudyParts, build_study_parts
from search.study.state import StudyState
from search.tables.table import ResultTable
from search.worker.estimating import estimated_cells

ORIGINAL = {"grammar": "nasbench201_blocks", "max_children": 90}
WHOLE = {"grammar": "nasbench201", "max_children": 20}
ALONE = ", one objective"
POPNAS: dict[str, dict[str, Any]] = {
    "POPNAS": WHOLE,
    f"POPNAS{ALONE}": {**WHOLE, "pnas_mode": True},
    "POPNAS, original grammar": ORIGINAL,
}
SAMPLERS = ("gp", f"gp{ALONE}", "Optuna TPESampler", f"Optuna TPESampler{ALONE}", "evolution", f"evolution{ALONE}")
CONTENDERS = (*POPNAS, *SAMPLERS, "random")
_COLUMNS = {
    "settings": {"arch.args.edges": "arch"},
    "split": {"arch": "([a-z0-9_]+)~"},
    "results": {"val_accuracy": "val_acc_200ep", "training_time": "train_time_s_200ep"},
    "seeds": ["val_acc_200ep"],
}


class _NoJournal(Journal):
    """A journal that is not stored: a simulated search is never continued."""

    def __init__(self) -> None:
        self.now = time.time

    def append(self, name: str, candidate: int | None = None, **data: Any) -> Event:
        return Event(name, candidate, json.loads(json.dumps(data)), self.now())


class TabulatedStudy:
    """POPNAS on the table without workers, files and clocks.

    Args:
        path: cifar10.npz.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: dict[bool, StudyParts] = {}
        self._tables: dict[bool, ResultTable] = {}

    def rows(self, args: Mapping[str, Any], seed: int) -> list[int]:
        """Return the rows of the table that a search trains, in order."""
        is_single = bool(args.get("pnas_mode"))
        if is_single not in self._parts:
            objectives = ["max val_accuracy", "min training_time"][: 1 if is_single else 2]
            executor = {"type": "table", "args": {"file": str(self._path), "columns": _COLUMNS}}
            given = {"objectives": objectives, "executor": executor, "num_samples": TRAININGS}
            self._parts[is_single] = build_study_parts(
                {"name": "nasbench201", "trainer": {"epochs": 1}, "search": given}
            )
            executor_of_table = self._parts[is_single].executor
            self._tables[is_single] = executor_of_table.read(self._parts[is_single].config)  # type: ignore[attr-defined]
        parts = self._parts[is_single]
        space = parts.space
        assert isinstance(space, TableSpace), "its executor is a table"
        parts = replace(parts, space=space.reseeded(seed))
        spec = {"search": {"strategy": {"type": "POPNAS", "args": dict(args)}}}
        strategy: Strategy = instantiate(spec, "search.strategy", REGISTRY, runtime={"parts": parts})
        state = StudyState(parts.objectives, 1)
        recorder = Recorder(_NoJournal(), state, strategy, [])
        with tempfile.TemporaryDirectory() as folder:
            strategy.bind(StudyContext(recorder.record, state, list, list, Path(folder)))
            strategy.start()
            while not strategy.is_done:
                for task in strategy.next(1):
                    _carry_out(task, strategy, state, space, self._tables[is_single])
        drawn = (each.drawn for each in state.candidates.values() if each.record.reports)
        return [space.row(each) for each in drawn if each is not None]


def _carry_out(task: Task, strategy: Strategy, state: StudyState, space: TableSpace, table: ResultTable) -> None:
    """Carry out a task as a worker does."""
    if task.kind == ESTIMATE:
        strategy.ended(task, Outcome("ended", details=estimated_cells(task.payload, lambda _: "continue")))
        return
    assert task.candidate is not None, "it is a training"
    drawn = state.candidates[task.candidate].drawn
    assert drawn is not None, "set when it was drawn"
    strategy.reported(task, {"epoch": 1, "row": table.run(space.row(drawn)).row(1), "seconds": 1.0})
    strategy.ended(task, Outcome("ended", details={"is_finished": True}))


class NasbenchTask(FrontTask):
    """The table with one or two objectives.

    Args:
        path: cifar10.npz.
        least_accuracy: Of the reference point.
    """

    def __init__(self, path: Path, least_accuracy: float) -> None:
        super().__init__(path, least_accuracy)
        self._study = TabulatedStudy(path)

    def rows(self, contender: str, seed: int) -> list[int]:
        """Return the rows that a search trains, in order."""
        name, _, args = contender.partition(":")
        if name.startswith("POPNAS"):
            return self._study.rows({**(WHOLE if args else POPNAS[name]), **json.loads(args or "{}")}, seed)
        objectives = ["max accuracy", "min seconds"][: 1 if contender.endswith(ALONE) else 2]
        (make,) = front_samplers([contender.removesuffix(ALONE)], len(objectives)).values()
        sampler = make(self.space.reseeded(seed), self.table)
        found = simulate(RandomSearch(TRAININGS, 1), self.table, sampler=sampler, objectives=objectives)
        return [epoch.setting for epoch in found.trace]

    def measured(self, contender: str, seed: int) -> dict[str, Any]:
        """Return the result of a search as plain data."""
        began = time.process_time()
        rows = self.rows(contender, seed)
        accuracy = self.table.results["accuracy"][rows, 0, 0]
        return {
            "contender": contender,
            "seed": seed,
            "trainings": len(rows),
            "best": float(accuracy.max()),
            "best_at": int(accuracy.argmax()) + 1,
            "share": self.share(rows),
            "seconds": round(time.process_time() - began, 2),
        }


def print_table(lines: Sequence[Mapping[str, Any]]) -> None:
    """Print a row per contender: medians, means with their 95 % interval, and least values."""
    print(
        f"\n{'':28} repeats  best: median  mean  (interval)     least    volume: mean (interval)      least    s each"
    )
    for name in dict.fromkeys(str(line["contender"]) for line in lines):
        runs = [line for line in lines if line["contender"] == name]
        best, shares = [run["best"] for run in runs], [run["share"] for run in runs]
        (low, high), (least, most) = interval(best), interval(shares)
        print(
            f"{name:28} {len(runs):7d}  {statistics.median(best):12.3f} {statistics.fmean(best):7.3f} "
            f"({low:.3f}-{high:.3f}) {min(best):6.2f}   {statistics.fmean(shares):10.4f} ({least:.4f}-{most:.4f}) "
            f"{min(shares):8.3f} {statistics.fmean(run['seconds'] for run in runs):8.1f}"
        )


def interval(values: Sequence[float], repeats: int = 2000) -> tuple[float, float]:
    """Return the 95 % interval of the mean, by bootstrap."""
    drawn = np.random.default_rng(0).integers(len(values), size=(repeats, len(values)))
    low, high = np.quantile(np.asarray(values)[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Compute the runs that the file lacks, then print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="cifar10.npz")
    parser.add_argument("--contenders", nargs="*", default=CONTENDERS, metavar="NAME[:ARGS]")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--least-accuracy", type=float, default=50.0, help="in percent, of the reference point")
    parser.add_argument("--output", type=Path, default=Path("popnas_nasbench.jsonl"))
    parser.add_argument("--only-print", action="store_true", help="compute nothing")
    options = parser.parse_args()
    require_result_file(options.output, json_lines("contender", "seed", "trainings", "best"), ".jsonl")
    text = options.output.read_text(encoding="utf-8") if options.output.exists() else ""
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    known = {(line["contender"], line["seed"]) for line in lines}
    task = None if options.only_print else NasbenchTask(options.table, options.least_accuracy)
    for seed, contender in itertools.product(range(options.repeats), options.contenders):
        if task is not None and (contender, seed) not in known:
            lines.append(task.measured(contender, seed))
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(lines[-1]) + "\n")
    print_table(lines)


if __name__ == "__main__":
    main()
