"""Region losses with absent classes left out of the mean and counted: a config trained both ways, tested by seed.

    python benchmarks/absent_classes.py -c config/camvid/unet.json --seeds 0 1 2 --folder saved/absent_classes

Each training is a run of train.py in the folder. An interrupted measurement continues where it stopped, with the
same command: finished trainings are only read, an unfinished one is resumed from its last checkpoint. The checkpoint
that validation chose is evaluated on the test data. Overrides (path=value) follow at the end.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import load_config

ROOT = Path(__file__).resolve().parent.parent
WAYS = ("skip", "count")
REGION_LOSSES = ("dice_loss", "jaccard_loss", "tversky_loss")
METRICS = ("miou", "mean_accuracy")


def region_losses(config: dict[str, Any]) -> list[str]:
    """Return the JSON paths of the losses of a config that take `absent`.

    Raises:
        SystemExit: There are none.
    """
    losses = config["loss"] if isinstance(config["loss"], list) else [config["loss"]]
    names = [each if isinstance(each, str) else each["type"] for each in losses]
    paths = [f"loss.{number}" if isinstance(config["loss"], list) else "loss" for number in range(len(names))]
    found = [path for path, name in zip(paths, names, strict=True) if name.startswith(REGION_LOSSES)]
    if not found:
        raise SystemExit(f"The losses are {', '.join(names)}: none of them compares regions. Take another config.")
    return found


def run(*command: str) -> None:
    """Run one of the commands; its output is shown.

    Raises:
        SystemExit: It failed or was interrupted.
    """
    code = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    if code:
        raise SystemExit(code)


def test_results(arguments: argparse.Namespace, losses: list[str], way: str, seed: int) -> dict[str, float]:
    """Train one way from a seed, or the rest of it, and return the test results of the best checkpoint."""
    name = f"{way}_{seed}"
    result = arguments.folder / f"{name}.json"
    if not result.exists():
        settings = [f"name={name}", f"seed={seed}", f"trainer.save_dir={arguments.folder}", "trainer.tensorboard=false"]
        ways = [f"{path}.args.absent={way}" for path in losses]
        run("train.py", "-c", arguments.config, "--resume", "auto", *settings, *ways, *arguments.overrides)
        run_folder = max((arguments.folder / name).iterdir())
        unfinished = result.with_suffix(".part")
        run("test.py", "--resume", str(run_folder), "--json", str(unfinished))
        unfinished.rename(result)
    metrics: dict[str, float] = json.loads(result.read_text())["metrics"]
    return metrics


def main() -> None:
    """Train, test, and print a line of each training and of each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", default="config/camvid/unet.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=lambda text: Path(text).resolve(), default=ROOT / "saved/absent_classes")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    losses = region_losses(load_config(arguments.config, arguments.overrides))
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for seed in arguments.seeds:
        for way in WAYS:  # in turns: an interrupted measurement has pairs to compare
            found[way].append(test_results(arguments, losses, way, seed))
    for metric in METRICS:
        for way, results in found.items():
            values = [each.get(metric, float("nan")) for each in results]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            print(f"{way}: test {metric} {statistics.fmean(values):.4f}{spread}", end=" ")
            print(f"({', '.join(f'{value:.4f}' for value in values)})")
    classes = [name for name in found["skip"][0] if name.startswith("iou_")]
    for name in classes:
        means = [statistics.fmean(each[name] for each in found[way]) for way in WAYS]
        print(f"{name}: skip {means[0]:.4f}, count {means[1]:.4f}, difference {means[0] - means[1]:+.4f}")


if __name__ == "__main__":
    main()
