"""How costs grow with the size of a task: a plot for each quantity, with the exponent.

    python benchmarks/growth.py [NAME ...] --output growth

Each point is the median of some measurements in a process of its own, in seconds of the processor or megabytes, with
one thread. The exponent is the slope of the upper half of the points on logarithmic axes, without the value at the
smallest size, which is a constant that all of them share: 1 is linear, 2 is quadratic.
"""

import argparse
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

REPEATS = 3
DECODED = 10_000  # pairs that loader workers share


def index_seconds(samples: int) -> list[float]:
    """Return the time of a loader's index of so many pairs."""
    from benchmarks.speed.loader import make_loader
    from benchmarks.speed.samples import many_pairs

    with TemporaryDirectory() as folder:
        pairs = many_pairs(Path(folder), samples)
        return [processor_seconds(lambda: make_loader(pairs)) for _ in range(REPEATS)]


def loader_megabytes(samples: int, workers: int = 0) -> list[float]:
    """Return the memory of a process with so many decoded pairs, its workers included; shared pages count once."""
    from benchmarks.speed.samples import many_pairs

    with TemporaryDirectory() as folder:
        pairs = many_pairs(Path(folder), samples)
        command = [sys.executable, "-m", "benchmarks.speed.samples", str(pairs), str(workers)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        return [float(done.stdout.split()[-1])]


def validation_seconds(classes: int) -> list[float]:
    """Return the time of the validation of some images of 512x512 with so many classes."""
    from benchmarks.speed.validation import compare

    return list(compare(classes, REPEATS)[1].ours)


def step_seconds(side: int) -> list[float]:
    """Return the time of a training step on two square images."""
    import torch

    from models.losses import CrossEntropyLoss
    from models.unet import UNet

    model, criterion = UNet(2, channels=[8, 16, 32, 64]).train(), CrossEntropyLoss(ignore_index=255)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    inputs, target = torch.randn(2, 3, side, side), torch.randint(2, (2, side, side))

    def step() -> None:
        optimizer.zero_grad()
        criterion(model(inputs), target).backward()
        optimizer.step()

    step()
    return [processor_seconds(step) for _ in range(REPEATS)]


def search_seconds(candidates: int) -> list[float]:
    """Return the time of a search whose candidates take no time, from the first draw to the last report."""
    from benchmarks.search_overhead import CONFIG
    from search.executors.serial import Serial
    from search.study.folders import create_study_folder
    from search.study.settings import build_study_parts
    from search.study.study import Study

    config = {**CONFIG, "search": {**CONFIG["search"], "num_samples": candidates}}
    with TemporaryDirectory() as folder:
        study_folder = create_study_folder(folder, "growth", config)
        parts = replace(build_study_parts(config), executor=Serial())
        study = Study(study_folder, parts, worker="benchmarks.search_overhead:worker")
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            return [processor_seconds(study.run)]


def processor_seconds(action: Callable[[], object]) -> float:
    """Return the processor time of an action."""
    gc.collect()
    started = time.process_time()
    action()
    return time.process_time() - started


@dataclass(frozen=True)
class Growth:
    """One plot.

    Attributes:
        title: What is measured.
        size: Name of the size.
        unit: Of the values.
        sizes: From small to large.
        measure: Size -> values.
    """

    title: str
    size: str
    unit: str
    sizes: tuple[int, ...]
    measure: Callable[[int], list[float]]


SAMPLES = (1_000, 3_000, 10_000, 30_000, 100_000)
GROWTHS = {
    "index": Growth("Index of a loader", "samples", "s", SAMPLES, index_seconds),
    "memory": Growth("Memory of decoded pairs of 64x64", "samples", "MB", SAMPLES, loader_megabytes),
    "classes": Growth("Validation at 512x512", "classes", "s", (2, 5, 21, 50, 150), validation_seconds),
    "pixels": Growth("Training step", "pixels per side", "s", (64, 128, 256, 512, 1024), step_seconds),
    "workers": Growth(
        f"Memory of {DECODED:,} decoded pairs of 64x64", "loader workers", "MB", (0, 1, 2, 3, 4),
        lambda workers: loader_megabytes(DECODED, workers),
    ),
    "candidates": Growth("Search", "candidates", "s", (10, 30, 100, 300, 1_000, 3_000, 10_000), search_seconds),
}  # fmt: skip


def exponent(sizes: list[int], values: list[float]) -> float | None:
    """Return the slope of the upper half of the points on logarithmic axes; None where the values do not grow."""
    grown = [(size, value - values[0]) for size, value in zip(sizes, values, strict=True) if size > sizes[0]]
    upper = [
        (math.log(size), math.log(value)) for size, value in grown[len(grown) // 2 - 1 :] if value > 0 and size > 0
    ]
    if len(upper) < 2:
        return None
    return float(statistics.linear_regression(*zip(*upper, strict=True)).slope)


def draw(growth: Growth, values: list[float], file: Path) -> None:
    """Write the plot of a growth as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(growth.sizes, values, marker="o")
    if 0 not in growth.sizes:
        axes.set_xscale("log")
        axes.set_yscale("log")
    else:
        axes.set_xticks(growth.sizes)
        axes.set_ylim(bottom=0)
    slope = exponent(list(growth.sizes), values)
    axes.set_title(growth.title if slope is None or 0 in growth.sizes else f"{growth.title}: exponent {slope:.2f}")
    axes.set_xlabel(growth.size)
    axes.set_ylabel(growth.unit)
    axes.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(file, dpi=120)


def measured_in_process(name: str, size: int) -> float:
    """Return the median of one point."""
    command = [sys.executable, __file__, name, "--size", str(size)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


def require_results_folder(folder: Path, names: list[str]) -> None:
    """End the program if numbers or plots would replace other files: plots are ours if our numbers are next to them."""
    from benchmarks.result_files import json_values, require_result_file

    numbers = folder / "growth.json"
    require_result_file(numbers, json_values("sizes", "values", "unit", "exponent"))
    for name in names if not numbers.exists() else ():
        require_result_file(folder / f"{name}.png", lambda _: False, ".png")


def main() -> None:
    """Measure, print a table and write plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(GROWTHS)}; default: all")
    parser.add_argument("--output", type=Path, help="folder for plots and growth.json")
    parser.add_argument("--size", type=int, help="measure one point in this process and print it")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(GROWTHS)):
        parser.error(f"{', '.join(unknown)}: there are {', '.join(GROWTHS)}.")
    if arguments.size is not None:
        print(statistics.median(GROWTHS[arguments.names[0]].measure(arguments.size)))
        return
    if arguments.output is not None:
        require_results_folder(arguments.output, arguments.names or list(GROWTHS))
    print("| what | sizes | values | exponent |\n| --- | --- | --- | --- |")
    results = {}
    for name in arguments.names or GROWTHS:
        growth = GROWTHS[name]
        values = [measured_in_process(name, size) for size in growth.sizes]
        slope = exponent(list(growth.sizes), values)
        results[name] = {"sizes": growth.sizes, "values": values, "unit": growth.unit, "exponent": slope}
        sizes, shown = " / ".join(f"{size:,}" for size in growth.sizes), " / ".join(f"{value:.3g}" for value in values)
        shown_slope = "-" if slope is None else f"{slope:.2f}"
        print(f"| {growth.title}, {growth.size} | {sizes} | {shown} {growth.unit} | {shown_slope} |", flush=True)
        if arguments.output is not None:
            arguments.output.mkdir(parents=True, exist_ok=True)
            draw(growth, values, arguments.output / f"{name}.png")
            (arguments.output / "growth.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
