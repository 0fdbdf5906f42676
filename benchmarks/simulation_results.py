"""The file of simulated searches, a line each, and the figures that follow from it."""

import csv
import fnmatch
import io
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Key(NamedTuple):
    """What a simulated search follows from, together with the code."""

    contender: str
    task: str
    workers: int
    seed: int


@dataclass(frozen=True)
class Result:
    """A simulated search.

    Attributes:
        contender: Its name.
        task: Name of the table.
        workers: Simulated ones.
        seed: Of the order of random draws, or of the peer.
        rank: Of the setting whose last value that the search saw is the best, by its final value.
        regret: Of the same setting; infinity if it diverges after all.
        best_rank: Of the setting with the best value of all that the search saw.
        best_regret: Of the same setting.
        value: The best of all values that it saw; with several objectives, the share of the hypervolume.
        epochs: That it trained.
        seconds: Simulated, until the last worker was done.
        draws: Candidates that it began to train.
        compute: Seconds of the processor for all its decisions.
        steps: The improvements of the best value: pairs of simulated time and value.
    """

    contender: str
    task: str
    workers: int
    seed: int
    rank: int
    regret: float
    best_rank: int
    best_regret: float
    value: float
    epochs: int
    seconds: float
    draws: int
    compute: float
    steps: tuple[tuple[float, float], ...] = ()

    @property
    def key(self) -> Key:
        """What it follows from."""
        return Key(self.contender, self.task, self.workers, self.seed)

    def reached(self, value: float) -> float:
        """The simulated time at which it had seen a value as good as this; infinity: never."""
        return next((seconds for seconds, seen in self.steps if seen >= value), math.inf)


COLUMNS = [field.name for field in fields(Result)]
_END = "|"  # of a line that was written to its end


class ResultFile:
    """Results in a CSV file to which lines are only appended, so that a measurement is continued after a kill.

    Several processes may append to it. Of two lines with one key the first counts; a line that was cut off is computed
    again.

    Args:
        path: Of the file; made with its first line.

    Attributes:
        results: By key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: dict[Key, Result] = {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        self._is_cut = bool(text) and not text.endswith("\n")
        for row in csv.DictReader(text.splitlines()):
            if set(row) == set(COLUMNS) and None not in row.values() and row["steps"].endswith(_END):
                result = _result_of(row)
                self.results.setdefault(result.key, result)

    def add(self, result: Result) -> None:
        """Append a result."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self.path.exists() or self.path.stat().st_size == 0:
            writer.writerow(COLUMNS)
        steps = ";".join(f"{seconds!r}:{value!r}" for seconds, value in result.steps)
        writer.writerow([*(getattr(result, name) for name in COLUMNS[:-1]), f"{steps}{_END}"])
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("\n" if self._is_cut else "") + text.getvalue())
        self._is_cut = False
        self.results[result.key] = result


def _result_of(row: Mapping[str, str]) -> Result:
    pairs = [pair.split(":") for pair in row["steps"].removesuffix(_END).split(";") if pair]
    return Result(
        row["contender"],
        row["task"],
        int(row["workers"]),
        int(row["seed"]),
        int(row["rank"]),
        float(row["regret"]),
        int(row["best_rank"]),
        float(row["best_regret"]),
        float(row["value"]),
        int(row["epochs"]),
        float(row["seconds"]),
        int(row["draws"]),
        float(row["compute"]),
        tuple((float(seconds), float(value)) for seconds, value in pairs),
    )


Group = Mapping[str, Sequence[Result]]
"""Results of one contender and one number of workers, by task."""


def grouped(results: Iterable[Result], tasks: Sequence[str], workers: int) -> dict[str, dict[str, list[Result]]]:
    """Results by contender and task, ordered by seed."""
    groups: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in sorted(results, key=lambda each: each.seed):
        if result.task in tasks and result.workers == workers:
            groups[result.contender][result.task].append(result)
    return groups


@dataclass(frozen=True)
class Figures:
    """A row of a table.

    Attributes:
        repeats: The least of all tasks.
        rank: Median over all runs.
        best_rank: The same with the choice by the best value that the search saw.
        worst: The largest median of a task.
        regret: Mean over all tasks of the means over their runs.
        share: Median of the time until the reference's accuracy is reached, as a share of the reference's whole run on
            the same task with the same seed; NaN without reference.
        never: Runs that do not reach it, of those that have a reference.
        compared: Those with a reference.
        worse: Tasks on which its mean regret is above that of the random twin.
        surely_worse: Those of them on which the mean difference on the same seeds is more than two standard errors.
        compute: Seconds of the processor per candidate.
    """

    repeats: int
    rank: float
    best_rank: float
    worst: float
    regret: float
    share: float
    never: int
    compared: int
    worse: tuple[str, ...]
    surely_worse: tuple[str, ...]
    compute: float


def figures_of(own: Group, reference: Group, twin: Group, worst_regrets: Mapping[str, float]) -> Figures:
    """The figures of a contender.

    Args:
        own: Its results.
        reference: Those of the search whose accuracy is to be reached.
        twin: Those of random drawing under the same scheduler; empty: not compared.
        worst_regrets: By task, the regret of a choice that diverges after all.
    """
    runs = [result for results in own.values() for result in results]
    ends = {(result.task, result.seed): result for results in reference.values() for result in results}
    shares = [
        result.reached(end.value) / end.seconds for result in runs if (end := ends.get((result.task, result.seed)))
    ]
    worse, surely = [], []
    for task, results in own.items():
        others = {result.seed: result for result in twin.get(task, ())}
        differences = [
            _regret(result, worst_regrets) - _regret(others[result.seed], worst_regrets)
            for result in results
            if result.seed in others
        ]
        if differences and (mean := statistics.fmean(differences)) > 0:
            worse.append(task)
            if len(differences) > 1 and mean > 2 * statistics.stdev(differences) / math.sqrt(len(differences)):
                surely.append(task)
    return Figures(
        min(map(len, own.values())),
        statistics.median(result.rank for result in runs),
        statistics.median(result.best_rank for result in runs),
        max(statistics.median(result.rank for result in results) for results in own.values()),
        statistics.fmean(
            statistics.fmean(_regret(result, worst_regrets) for result in results) for results in own.values()
        ),
        statistics.median(shares) if shares else math.nan,
        sum(map(math.isinf, shares)),
        len(shares),
        tuple(worse),
        tuple(surely),
        statistics.fmean(result.compute / max(1, result.draws) for result in runs),
    )


def _regret(result: Result, worst_regrets: Mapping[str, float]) -> float:
    return min(result.regret, worst_regrets.get(result.task, math.inf))


def median_ranks(results: Iterable[Result], pattern: str) -> dict[str, dict[str, float]]:
    """Median rank over all runs by contender and task, of the contenders whose names match a pattern."""
    ranks: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        if fnmatch.fnmatchcase(result.contender, pattern):
            ranks[result.contender][result.task].append(result.rank)
    return {
        name: {task: float(np.median(values)) for task, values in by_task.items()} for name, by_task in ranks.items()
    }


class Chosen(NamedTuple):
    """A setting that was chosen without looking at a table, and how it does there.

    Attributes:
        setting: Chosen on all other tables.
        figure: Its figure on this one.
        best: The least figure of any setting on this one: what a choice by this table itself would have had.
    """

    setting: str
    figure: float
    best: float


def leave_one_out(figures: Mapping[str, Mapping[str, float]]) -> dict[str, Chosen]:
    """Choose a setting for each table by all the others.

    The chosen one has the least mean logarithm of its figures on the others: a rank of 2 instead of 4 counts as much
    as one of 20 instead of 40.

    Args:
        figures: By setting and table, above 0, the lower the better. Settings that lack a table are left out.

    Returns:
        By table.
    """
    tables = sorted({table for by_table in figures.values() for table in by_table})
    complete = {name: by_table for name, by_table in figures.items() if set(by_table) == set(tables)}
    chosen = {}
    for table in tables if complete else ():

        def mean_of_others(name: str, left_out: str = table) -> float:
            return sum(math.log(figure) for other, figure in complete[name].items() if other != left_out)

        name = min(sorted(complete), key=mean_of_others)
        chosen[table] = Chosen(name, complete[name][table], min(each[table] for each in complete.values()))
    return chosen
