"""The step of two checkouts in alternating pairs: the ratio of their times, with its interval.

    git worktree add ../old COMMIT
    python benchmarks/step_pairs.py ../old . --pairs 15

Each measurement is a process that trains a very small network with everything that is logged by default, so that what
surrounds the step weighs as much as it can, and takes the median step without its wait for data. The two of a pair
follow each other, in changing order. Printed: the median over the pairs of new / old, and its 95 % interval by
bootstrap over the pairs. The machine should be idle.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WARM_UP_STEPS = {"small": 100, "shipped": 10}
RESAMPLES = 10_000
COMMON = ("trainer.verbosity=0", "train_loader.args.n_workers=0", "valid_loader.args.n_workers=0")
OVERRIDES = {
    "small": (
        *COMMON, "trainer.precision=fp32", "train_loader.args.batch_size=2", "train_loader.args.resize=[32,32]",
        "valid_loader.args.samples=2", "valid_loader.args.resize=[32,32]", "arch.args.channels=[4,8]",
    ),
    "shipped": COMMON,
}  # fmt: skip


def measure(network: str, epochs: int) -> float:
    """Return the median microseconds of a step in the checkout that is on the path."""
    import torch

    from base import BaseTrainer, Callback
    from base.callback import StepReport
    from config import load_config
    from train import train

    seconds: list[float] = []

    class Stopwatch(Callback):
        def on_step_end(self, trainer: BaseTrainer, report: StepReport) -> None:
            seconds.append(report.step_seconds - report.data_seconds)

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = [f"trainer.epochs={epochs}", f"trainer.save_dir={folder}"]
        train(load_config("config/people/quickstart.json", [*OVERRIDES[network], *place]), [Stopwatch()])
    first = WARM_UP_STEPS[network]
    if len(seconds) <= first:
        raise SystemExit(f"{len(seconds)} steps are fewer than the {first} that warm up: set --epochs higher.")
    return 1e6 * statistics.median(seconds[first:])


def measure_in(checkout: Path, network: str, epochs: int) -> float:
    """Return the result of `measure` in a process of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), str(checkout), ".", "--measure", "--network", network]
    command += ["--epochs", str(epochs)]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{checkout}: the measurement ended with {done.returncode}.\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def interval(ratios: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median, by bootstrap."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES)]


def main() -> None:
    """Measure, and print each pair and the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="a checkout")
    parser.add_argument("new", type=Path, help="another one")
    parser.add_argument("--pairs", type=int, default=15, metavar="N")
    parser.add_argument("--epochs", type=int, default=14, metavar="N", help="length of each measurement")
    parser.add_argument("--network", choices=list(OVERRIDES), default="small", help="shipped: the quickstart as it is")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        # A script's folder comes before PYTHONPATH, and its modules may hide those of the checkout.
        sys.path[0] = str(arguments.old.resolve())
        print(measure(arguments.network, arguments.epochs))
        return
    checkouts = {"old": arguments.old.resolve(), "new": arguments.new.resolve()}
    ratios: list[float] = []
    print(f"{'pair':>4}{'old us':>10}{'new us':>10}{'new / old':>11}")
    for number in range(arguments.pairs):
        order = list(checkouts) if number % 2 == 0 else list(checkouts)[::-1]
        found = {name: measure_in(checkouts[name], arguments.network, arguments.epochs) for name in order}
        ratios.append(found["new"] / found["old"])
        print(f"{number + 1:>4}{found['old']:>10.0f}{found['new']:>10.0f}{ratios[-1]:>11.4f}", flush=True)
    low, high = interval(ratios)
    print(f"median {statistics.median(ratios):.4f}, 95 % interval {low:.4f} to {high:.4f}, {len(ratios)} pairs")


if __name__ == "__main__":
    main()
