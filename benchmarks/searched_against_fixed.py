"""A searched network beside a fixed one, trained for the same time with the same seeds: test results and weights.

    python benchmarks/searched_against_fixed.py saved/encdec_people/STUDY/best/config.json \
        config/search/encdec_people_fixed.json --seeds 0 1 2

Both train side by side, each in one process with one thread. First a few epochs of each tell what an epoch takes. The
fixed one then has the epochs of its file, the searched one as many as take the same time. A checkpoint is chosen by
validation, as always, and judged on the test data.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config import load_config

ROOT = Path(__file__).resolve().parents[1]
MEASURED_EPOCHS = 4
METRIC = "miou"


def side_by_side(commands: dict[str, list[str]]) -> None:
    """Run a command of each, one thread each, at the same time."""
    threads = os.environ | {"OMP_NUM_THREADS": "1"}
    begun = {
        name: subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=threads, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for name, command in commands.items()
    }
    for name, process in begun.items():
        _, words = process.communicate()
        if process.returncode:
            raise SystemExit(f"{name} ended with {process.returncode}:\n{words.decode()[-2000:]}")


def train_both(configs: dict[str, Path], epochs: dict[str, int], seed: int, save_dir: Path) -> dict[str, Path]:
    """Train each from a seed; their run folders."""
    same = [f"seed={seed}", f"trainer.save_dir={save_dir}", "trainer.tensorboard=false"]
    commands = {
        name: ["train.py", "-c", str(path), f"name={name}", f"trainer.epochs={epochs[name]}", *same]
        for name, path in configs.items()
    }
    side_by_side(commands)
    return {name: next((save_dir / name).iterdir()) for name in configs}


def epoch_seconds(run: Path) -> float:
    """The median of an epoch of a run, its validation included, its first epoch left out."""
    times = re.findall(r"Epoch .* ([\d.]+) s, ", (run / "info.log").read_text())
    return statistics.median([float(each) for each in times][1:])


def judge_both(runs: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Test results of each run's best checkpoint."""
    side_by_side({name: ["test.py", "--resume", str(run), "--json", str(run / "t.json")] for name, run in runs.items()})
    return {name: json.loads((run / "t.json").read_text()) for name, run in runs.items()}


def text(values: list[float]) -> str:
    """Mean, deviation and each value."""
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{deviation} ({', '.join(f'{value:.4f}' for value in values)})"


def main() -> None:
    """Measure, train, test and print a line of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searched", type=Path)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    configs = {"searched": arguments.searched, "fixed": arguments.fixed}
    with tempfile.TemporaryDirectory() as folder:
        probes = train_both(configs, dict.fromkeys(configs, MEASURED_EPOCHS), 0, Path(folder) / "probes")
        seconds = {name: epoch_seconds(run) for name, run in probes.items()}
        epochs = {"fixed": int(load_config(arguments.fixed)["trainer"]["epochs"])}
        epochs["searched"] = int(epochs["fixed"] * seconds["fixed"] / seconds["searched"])
        for name in configs:
            print(f"{name}: {seconds[name]:.2f} s an epoch, {epochs[name]} epochs", flush=True)
        scores: dict[str, list[float]] = {name: [] for name in configs}
        for seed in arguments.seeds:
            found = judge_both(train_both(configs, epochs, seed, Path(folder) / str(seed)))
            for name, result in found.items():
                scores[name].append(float(result["metrics"][METRIC]))
            print(f"seed {seed}: " + ", ".join(f"{name} {each[-1]:.4f}" for name, each in scores.items()), flush=True)
    for name, values in scores.items():
        print(f"{name}: test {METRIC} {text(values)}")


if __name__ == "__main__":
    main()
