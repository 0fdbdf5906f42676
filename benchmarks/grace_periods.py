"""Where ASHA should begin to compare: a first rung that is found by the results, against every fixed one.

    python benchmarks/grace_periods.py data/learning_curves

Nine full trainings, random draws, the same order of them for all. Quoted is the rank of the chosen setting by its final
value: the median over the repeats, averaged over the tables of a kind, and the mean regret. Then, for each table, the
rank of the setting of ASHA that is best (by its mean logarithmic rank) on all other tables. At last kinds of curves
that are simulated: ties, divergence, curves that cross late, and noise.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_tasks import FULL_RUNS, LCBENCH, REAL, read_tasks
from benchmarks.simulator import simulate
from search.schedulers.asha import ASHA

GRACE: tuple[Any, ...] = ("auto", 1, 2, 3, 9)
Curves = NDArray[np.float64]


def simulated(epochs: int = 50, num_settings: int = 1000) -> dict[str, Curves]:
    """Return curves (S, E) of kinds that are hard to stop early, the larger the better."""
    rng = np.random.default_rng(0)
    final = rng.normal(size=(num_settings, 1))
    rate, time = rng.uniform(0.05, 1.0, size=(num_settings, 1)), np.arange(1, epochs + 1)
    curves = final - 3 * np.exp(-rate * time)
    late = -final * np.exp(-time / 12) + final * (1 - np.exp(-time / 12))  # the order at the beginning is reversed
    diverged = curves.copy()
    diverged[np.arange(epochs) >= rng.integers(0, 3 * epochs, size=(num_settings, 1))] = np.nan
    return {
        "smooth": curves,
        "ties": np.where(time < 6 / rate, -3.0, curves),  # they predict one class only at first
        "diverging": diverged,
        "crossing late": late,
        "noisy": curves + rng.normal(scale=1.0, size=curves.shape) * np.exp(-time / 10),
        "noise only": rng.normal(size=curves.shape),
    }


def searches(repeats: int, curves: Curves, workers: int, args: dict[str, Any]) -> tuple[float, float, float]:
    """Return the median rank, the mean regret and the mean logarithmic rank of some searches."""
    final = np.where(np.isnan(curves[:, -1]), -np.inf, curves[:, -1])
    ranks = 1 + (final[None] > final[:, None]).sum(axis=1)
    found = []
    for seed in range(repeats):
        scheduler = ASHA(len(curves), curves.shape[1], **args)
        chosen = simulate(scheduler, curves, seed=seed, workers=workers, budget=FULL_RUNS * curves.shape[1]).setting
        found.append(int(final.argmin()) if chosen is None else chosen)  # None: all have diverged
    regrets = final.max() - final[found]
    return float(np.median(ranks[found])), float(regrets[np.isfinite(regrets)].mean()), np.log(ranks[found]).mean()


def settings(modes: Sequence[str], factors: Sequence[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a name and arguments of ASHA."""
    for mode, factor, grace in product(modes, factors, GRACE):
        args = {"mode": mode, "reduction_factor": factor, "grace_period": grace}
        yield f"{mode}, factor {factor}, grace {grace}", args


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the tables (.npz)")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--modes", nargs="+", default=["promote", "stop"])
    parser.add_argument("--factors", nargs="+", type=int, default=[3, 2, 4])
    options = parser.parse_args()
    tables = {each.name: (each.kind, each.table.results["value"]) for each in read_tasks(options.folder)}
    for workers in (1, 4):
        print(f"\n{workers} workers{'':22}{REAL:>12}{'worst':>7}{LCBENCH:>12}{'worst':>7}{'regret':>8}")
        found = {}
        for name, args in settings(options.modes, options.factors):
            found[name] = {key: searches(options.repeats, each, workers, args) for key, (_, each) in tables.items()}
            of_kind = [[found[name][key] for key in tables if tables[key][0] == kind] for kind in (REAL, LCBENCH)]
            (real, _, _), (lcbench, regrets, _) = (np.array(each).T for each in of_kind)
            worst = f"{np.mean(real):12.1f}{max(real):7.1f}{np.mean(lcbench):12.1f}{max(lcbench):7.1f}"
            print(f"{name:31}{worst}{np.mean(regrets):8.2f}", flush=True)
        for key in tables:
            scores = {name: np.mean([row[other][2] for other in tables if other != key]) for name, row in found.items()}
            best = min(scores, key=scores.__getitem__)
            print(f"left out: {key:34} chosen: {best:30} rank {found[best][key][0]:5.1f}")
    kinds = simulated()
    print(f"\nfour workers, factor 3{'':8}" + "".join(f"{kind:>15}" for kind in kinds))
    for mode, grace in product(options.modes, GRACE):
        arguments: dict[str, Any] = {"mode": mode, "grace_period": grace}
        ranks = [searches(options.repeats, curves, 4, arguments)[0] for curves in kinds.values()]
        print(f"{mode + ', grace ' + str(grace):30}" + "".join(f"{rank:15.1f}" for rank in ranks), flush=True)


if __name__ == "__main__":
    main()
