"""How good a setting each scheduler finds for the price of nine full trainings, on tabulated learning curves.

    pip install -r requirements-benchmarks.txt
    python benchmarks/search_simulation.py data/learning_curves

Each table has the validation loss of 1,000 optimizer settings before training and after each of 50 epochs. An epoch
costs 1, whoever trains it; what stands before training is free and not shown. So nine full trainings are 450 epochs,
and a search is broken off there. Each repeat draws the settings in another order, the same for all contenders. All have
rungs from 2 epochs on and four simulated workers; random search has one. The chosen setting is the one whose last
validation loss that the search saw is the least, however long it was trained. Quoted is its rank among the 1,000 by
their loss after 50 epochs (1 is the best; those that diverged are last): the median over the repeats, by validation and
test loss for each table, then by validation loss over all tables. Peers that are not installed are left out.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from benchmarks.peer_schedulers import OptunaHalving, SyneTuneASHA, is_installed
from benchmarks.simulator import simulate
from search.schedulers.asha import ASHA
from search.schedulers.base import Scheduler
from search.schedulers.halving import Hyperband, RandomSearch, SuccessiveHalving
from search.schedulers.rungs import rung_epochs

EPOCHS, FULL_RUNS, GRACE = 50, 9, 2
BUDGET = EPOCHS * FULL_RUNS
STEEP = [(2, 6), (6, 4), (18, 2)]
ENDLESS = 1000


@dataclass(frozen=True)
class Contender:
    """A row of the table.

    Attributes:
        name: As printed.
        make: A scheduler in its first state.
        workers: Simulated.
        budget: Epochs.
    """

    name: str
    make: Callable[[], Scheduler]
    workers: int = 4
    budget: int = BUDGET


@dataclass(frozen=True)
class Table:
    """A task.

    Attributes:
        curves: Negative validation loss (S, 50) after each epoch, NaN where it diverged.
        ranks: Of each setting (S,) by its last validation loss, and by its last test loss.
    """

    curves: NDArray[np.float64]
    ranks: tuple[NDArray[np.int64], NDArray[np.int64]]


def read(path: Path) -> Table:
    """Read a table."""
    data = np.load(path)
    valid, test = data["valid"].astype(float), data["test"].astype(float)
    return Table(-valid[:, 1:], (ranks_of(valid[:, -1]), ranks_of(test[:, -1])))


def ranks_of(losses: NDArray[np.float64]) -> NDArray[np.int64]:
    """1 for the least; NaN last."""
    ranks = np.empty(len(losses), dtype=np.int64)
    ranks[np.argsort(losses, kind="stable")] = np.arange(1, len(losses) + 1)
    return ranks


def halving_cost(size: int, factor: int) -> int:
    """Epochs of a bracket of synchronous halving by one factor."""
    return plan_cost(size, [(epochs, factor) for epochs in rung_epochs(EPOCHS, GRACE, factor)[:-1]])


def plan_cost(size: int, rungs: list[tuple[int, int]]) -> int:
    """Epochs of a bracket of synchronous halving whose rungs have their own epochs and factors."""
    levels = [0, *(epochs for epochs, _ in rungs), EPOCHS]
    counts = [max(1, size // math.prod(factor for _, factor in rungs[:index])) for index in range(len(levels) - 1)]
    return sum(count * (end - start) for count, start, end in zip(counts, levels, levels[1:], strict=False))


def largest(cost: Callable[[int], int]) -> int:
    """How many settings can be begun with within the budget."""
    return max(size for size in range(1, ENDLESS) if cost(size) <= BUDGET)


def contenders() -> list[Contender]:
    """Everything that is compared."""
    floor = partial(SuccessiveHalving, 81, EPOCHS, grace_period=GRACE)
    steep = largest(partial(plan_cost, rungs=STEEP))
    rows = [
        Contender("random search", partial(RandomSearch, ENDLESS, EPOCHS), workers=1),
        Contender("SuccessiveHalving, factor 3, 81 settings for 474 epochs", floor, budget=halving_cost(81, 3)),
        Contender(
            f"SuccessiveHalving, one in 6, 4 and 2, {steep} settings",
            partial(SuccessiveHalving, steep, EPOCHS, rungs=STEEP),
        ),
    ]
    for factor in (3, 5):
        rungs: dict[str, Any] = {"grace_period": GRACE, "reduction_factor": factor}
        size = largest(partial(halving_cost, factor=factor))
        made: dict[str, Callable[[], Scheduler]] = {
            f"SuccessiveHalving, factor {factor}, {size} settings": partial(SuccessiveHalving, size, EPOCHS, **rungs),
            f"Hyperband, factor {factor}": partial(Hyperband, ENDLESS, EPOCHS, **rungs),
            f"ASHA promote, factor {factor}": partial(ASHA, ENDLESS, EPOCHS, mode="promote", **rungs),
            f"ASHA stop, factor {factor}": partial(ASHA, ENDLESS, EPOCHS, mode="stop", **rungs),
        }
        if is_installed("optuna"):
            made[f"Optuna SuccessiveHalvingPruner, factor {factor}"] = partial(OptunaHalving, ENDLESS, EPOCHS, **rungs)
        if is_installed("syne_tune"):
            made[f"Syne Tune ASHA, factor {factor}"] = partial(SyneTuneASHA, ENDLESS, EPOCHS, **rungs)
        rows += [Contender(name, make) for name, make in made.items()]
    return rows


def main() -> None:
    """Print a row per contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the tables (.npz)")
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    paths = sorted(options.folder.glob("*.npz"))
    if not paths:
        sys.exit(f"{options.folder}: holds no .npz. Give the folder of the tables.")
    tables = [read(path) for path in paths]
    for number, path in enumerate(paths, 1):
        print(f"table {number}: {path.stem}")
    for package in ("optuna", "syne_tune"):
        if not is_installed(package):
            print(f"{package} is not installed: left out")
    columns = [f"{split} {number}" for number in range(1, len(paths) + 1) for split in ("valid", "test")]
    print(
        f"{'median rank by the final loss':58}" + "".join(f"{column:>9}" for column in columns) + "    valid   epochs"
    )
    for contender in contenders():
        print_row(contender, tables, options.repeats)


def print_row(contender: Contender, tables: list[Table], repeats: int) -> None:
    """Run a contender and print its ranks: of each table, then over all of them, the epochs and the seconds."""
    begun, medians, everything, epochs = time.perf_counter(), [], [], []
    for table in tables:
        chosen = []
        for seed in range(repeats):
            found = simulate(
                contender.make(), table.curves, seed=seed, workers=contender.workers, budget=contender.budget
            )
            assert found.setting is not None
            chosen.append(found.setting)
            epochs.append(found.epochs)
        medians += [float(np.median(ranks[chosen])) for ranks in table.ranks]
        everything += table.ranks[0][chosen].tolist()
    figures = "".join(f"{median:9.1f}" for median in [*medians, statistics.median(everything)])
    print(f"{contender.name:58}{figures}{max(epochs):9d}  {time.perf_counter() - begun:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
