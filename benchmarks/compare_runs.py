"""A comparison of 20 runs: time and size of the page, its look in headless Chromium, and the notebook for its CSV.

    pip install -r requirements-benchmarks.txt
    apt-get install chromium                             or: playwright install chromium
    python benchmarks/compare_runs.py [--runs 20] [--screenshots FOLDER]

The runs are made without training: five configs, each with the same seeds, eight stored photos of data/people with
their masks, moved to be wrong. The command is run as a process of its own, from its start to its end. The notebook is
run for these, and for runs that are compared by mIoU without the background, of which some were killed in their first
epoch: the only one of a config, and a seed that another config has.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests"))

from benchmarks.search_report import look
from tests.support.run_samples import make_run

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = 5
SAMPLES = 8
SIDE = 320  # pixels of a stored image
NOTEBOOK = ROOT / "notebooks" / "compare.ipynb"


def main() -> None:
    """Make runs, compare them, open the page, run the notebook."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="number of runs (20)")
    parser.add_argument("--screenshots", type=Path, help="folder for images of the page, light and dark")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        make_runs(place / "runs", arguments.runs)
        page, table = place / "compare_runs.html", place / "runs.csv"
        command = [sys.executable, "-m", "search", "compare", str(place / "runs"), "--output", str(page), "--csv"]
        began, before = time.perf_counter(), os.times()
        subprocess.run([*command, str(table)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        processor = after.children_user + after.children_system - before.children_user - before.children_system
        print(
            f"{arguments.runs} runs: {time.perf_counter() - began:.1f} s, {processor:.1f} s of processor, "
            f"{page.stat().st_size / 1e6:.2f} MB"
        )
        print(look(page, arguments.screenshots))
        print(run_notebook(table, "test_miou"))
        broken, name = place / "broken.csv", "miou_without_background"
        make_broken_runs(place / "broken", name)
        command = [sys.executable, "-m", "search", "compare", str(place / "broken"), "--output", str(page), "--csv"]
        subprocess.run([*command, str(broken)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        print(run_notebook(broken, f"test_{name}"))


def make_runs(folder: Path, count: int) -> None:
    """Make run folders of several configs, each with the same seeds."""
    photos = sorted((ROOT / "data/people/images/test").glob("*.jpg"))[:SAMPLES]
    chance = np.random.default_rng(0)
    for number in range(count):
        config, seed = number % CONFIGS, number // CONFIGS
        pictures: dict[str, Any] = {}
        for place, photo in enumerate(photos):
            image, mask = cv2.imread(str(photo)), cv2.imread(str(ROOT / "data/people/masks" / f"{photo.stem}.png"), 0)
            assert image is not None, photo
            assert mask is not None, photo
            size = round(SIDE * image.shape[1] / image.shape[0]), SIDE
            truth = (cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 0).astype(np.uint8)
            noise = cv2.resize(chance.random((20, 14)), size) > 0.97 - 0.03 * config
            prediction = np.roll(truth, int(chance.integers(-9, 10)), axis=1) ^ noise.astype(np.uint8)
            pictures[f"{place:016x}"] = cv2.resize(image, size, interpolation=cv2.INTER_AREA), truth, prediction
        make_run(
            folder / f"{config}_{seed}",
            0.5 + 0.05 * config + 0.02 * float(chance.random()),
            seed,
            name=f"config {config}",
            lr=0.01 * (1 + config),
            facts={"labelled_megapixels": 1.0 + config},
            scores=chance.random(SAMPLES).tolist(),
            pictures=pictures,
        )


def make_broken_runs(folder: Path, metric: str) -> None:
    """Make runs of another metric: two seeds of a config, one of another whose second was killed, and a killed one."""
    for config, seeds, killed in (("a", 2, 0), ("b", 1, 1), ("c", 0, 1)):
        for seed in range(seeds + killed):
            is_done = seed < seeds
            make_run(
                folder / f"{config}{seed}",
                0.5 + 0.01 * seed,
                seed,
                name=config,
                lr={"a": 0.01, "b": 0.02, "c": 0.03}[config],
                is_tested=is_done,
                is_finished=is_done,
                metric=metric,
                epochs=2 if is_done else 0,
            )


def run_notebook(table: Path, metric: str) -> str:
    """Return a line about running the notebook on a table of runs; it must show the metric of the page."""
    try:
        import nbformat
        from nbclient import NotebookClient
    except ImportError:
        return "Notebook not run: the package nbclient is not installed (requirements-benchmarks.txt)."
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    os.environ |= {"RUNS_CSV": str(table), "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    began = time.perf_counter()
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    (cell,) = (cell for cell in notebook.cells if cell.id == "metric")
    assert metric in cell.outputs[0].data["text/plain"], f"the notebook shows another metric than {metric}"
    messages = [output.text.strip() for output in outputs if output.output_type == "stream"]
    return (
        f"{NOTEBOOK.name}: {len(outputs)} outputs, {pictures} of them plots, in {time.perf_counter() - began:.1f} s, "
        f"{len(messages)} messages {messages[:3] or ''}"
    )


if __name__ == "__main__":
    main()
