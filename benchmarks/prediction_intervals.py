"""How often the intervals that a search shows hold: `python benchmarks/prediction_intervals.py --tables FOLDER`.

The default search runs over each table of learning curves. At every few proposals the sampler is asked what it expects
of the candidates that run or may be continued, as the live table asks it. Each interval is compared with the value that
the table has after a full training, the best epoch of it. An interval should hold in 80 % of the cases; the width is
that of the interval as a share of the range of the better half of the table.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.search_contenders import described
from benchmarks.search_tasks import Task, read_tasks
from benchmarks.simulator import simulate
from search.samplers.base import Observation, PredictedValue, Sampler, Suggestion
from search.space.drawn import Drawn

_PAUSE = 7  # proposals between two questions


@dataclass
class Outcome:
    """A prediction next to the value after a full training.

    Attributes:
        holds: Whether the interval held the value.
        error: Of the mean, in widths of the interval.
        width: Of the interval, as a share of the range of the better half of the table.
    """

    holds: bool
    error: float
    width: float


def outcomes(task: Task, seed: int, search: str) -> list[Outcome]:
    """Return the predictions of a simulated search."""
    scheduler, sampler = described(search).make(task, seed)
    asked = _AskedSampler(sampler)
    result = simulate(scheduler, task.table, sampler=asked, seed=seed, budget=task.budget, is_best_so_far=True)
    (curves,) = (values.mean(axis=2) for values in task.table.results.values())
    reached = np.fmax.accumulate(curves, axis=1)[:, -1]
    finite = reached[np.isfinite(reached)]
    span = float(finite.max() - np.median(finite))
    found = []
    for candidate, each in asked.predictions:
        value, width = reached[result.settings[candidate]], max(each.high - each.low, 1e-12)
        if np.isfinite(value):
            found.append(
                Outcome(bool(each.low <= value <= each.high), float((value - each.mean) / width), width / span)
            )
    return found


class _AskedSampler(Sampler):
    """A sampler that is asked for its predictions before some proposals."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__(sampler.space)
        self.sampler = sampler
        self.predictions: list[tuple[int, PredictedValue]] = []

    def suggest(
        self, number: int, observations: Sequence[Observation], running: Sequence[Drawn], rng: np.random.Generator
    ) -> Drawn | Suggestion | None:
        if number % _PAUSE == 0:
            self.predictions += self.sampler.beliefs(observations).predictions.items()
        return self.sampler.suggest(number, observations, running, rng)


def table_row(name: str, found: list[Outcome]) -> str:
    """Return a row of the table."""
    share = 100 * statistics.fmean(each.holds for each in found)
    error = statistics.median(each.error for each in found)
    width = statistics.median(each.width for each in found)
    return f"| {name} | {len(found)} | {share:.0f} % | {error:+.2f} | {width:.2f} |"


def main() -> None:
    """Print a row for each table, and one for all of them."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tables", type=Path, required=True, help="folder of the .npz files")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options.add_argument("--search", default="default+auto", help="as in benchmarks/search_simulation.py")
    arguments = options.parse_args()
    print("| table | predictions | held | median error in widths | median width |\n|---|---|---|---|---|")
    everything, shares = [], []
    for task in read_tasks(arguments.tables):
        found = [each for seed in arguments.seeds for each in outcomes(task, seed, arguments.search)]
        everything += found
        shares.append(statistics.fmean(each.holds for each in found))
        print(table_row(task.name, found), flush=True)
    print(table_row("all", everything))
    print(f"\nmean of the tables: {100 * statistics.fmean(shares):.0f} %")


if __name__ == "__main__":
    main()
