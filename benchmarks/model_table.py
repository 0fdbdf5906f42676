"""What each network of config/people costs: parameters, FLOPs and milliseconds per photo of 320x320, as Markdown.

    python benchmarks/model_table.py [saved]

With a folder of runs (or checkpoints) also the test mIoU: for each config that of its newest run below the folder.
Milliseconds are the median of many single photos in evaluation mode, in fp32 and channels-last.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from base import BaseModel
from config import load_config
from config.assemble import build_model
from config.saved import without_pretrained_weights
from test import test as judge
from train import catalogue
from utils.saved_runs import BEST, read_saved

FOLDER = Path(__file__).resolve().parent.parent / "config/people"
SIZE = (320, 320)
WARM_UP = 5


def configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of each config with a network of its own."""
    for path in sorted(FOLDER.glob("*.json")):
        if path.stem != "quickstart":
            yield path.stem, load_config(path)


def network_of(config: dict[str, Any]) -> BaseModel:
    """The network for photos of people, from scratch."""
    model = build_model(without_pretrained_weights(config), catalogue(), {"num_classes": 2, "in_channels": 3})
    if not isinstance(model, BaseModel):
        raise TypeError(f"{type(model).__name__} is no BaseModel: its FLOPs cannot be counted. Leave its config out.")
    return model.to(memory_format=torch.channels_last).eval()


@torch.inference_mode()
def milliseconds(model: BaseModel, rounds: int) -> float:
    """Median time of one photo."""
    photo = torch.rand(1, 3, *SIZE).to(memory_format=torch.channels_last)
    seconds = []
    for _ in range(WARM_UP + rounds):
        started = time.perf_counter()
        model(photo)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[WARM_UP:])


def test_miou(folder: Path | None, name: str) -> str:
    """The test mIoU of the newest run of a config below a folder: as `test.py` left it there, else found out now."""
    runs = sorted(folder.glob(f"**/{name}/*/{BEST}")) if folder else []
    if not runs:
        return ""
    record = runs[-1].parent / "result.json"
    known = json.loads(record.read_text()).get("test", {}) if record.is_file() else {}
    if known.get("test_miou") is not None:
        return f"{known['test_miou']:.4f}"
    content = read_saved(runs[-1].parent)[1]
    return f"{judge(content['config'], content['state_dict'])['metrics']['miou']:.4f}"


def main() -> None:
    """Print the table, a row as soon as it is known."""
    options = argparse.ArgumentParser(description="Parameters, FLOPs and time of the networks in config/people.")
    options.add_argument("folder", type=Path, nargs="?", help="runs whose test mIoU to add, e.g. saved")
    options.add_argument("--rounds", type=int, default=50, help="photos to time")
    arguments = options.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| config | network | parameters | FLOPs at 320x320 | ms per photo | test mIoU |\n|---|---|---|---|---|---|")
    for name, config in configs():
        model = network_of(config)
        counts = f"{model.parameter_count() / 1e6:.2f} M | {model.flops(SIZE) / 1e9:.2f} G"
        kind = config["arch"]["type"]
        timed = f"{milliseconds(model, arguments.rounds):.1f}"
        print(f"| {name} | {kind} | {counts} | {timed} | {test_miou(arguments.folder, config['name'])} |", flush=True)


if __name__ == "__main__":
    main()
