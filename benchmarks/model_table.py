"""What each network of config/people costs: parameters, FLOPs, milliseconds per photo of 320x320, as Markdown.

    python benchmarks/model_table.py [saved]

With a folder of runs (or checkpoints) also the test mIoU: for each config that of its newest run below the folder.
Milliseconds are the median of many single photos in evaluation mode, in fp32: in torch with channels-last, and of the
exported file in onnxruntime with as many threads, in turn.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import onnxruntime
import torch

from base import BaseModel
from build import build_model
from config import DataSpec, load_config
from config.variants import without_pretrained_weights
from models.export.files import to_bytes
from models.export.tracing import trace
from test import test as judge
from utils.checkpoint_file import BEST, read_saved

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
    model = build_model(without_pretrained_weights(config), DataSpec(num_classes=2, in_channels=3))
    if not isinstance(model, BaseModel):
        raise TypeError(f"{type(model).__name__} is no BaseModel: its FLOPs cannot be counted. Leave its config out.")
    return model.to(memory_format=torch.channels_last).eval()


def runner_in_torch(model: BaseModel) -> Callable[[], object]:
    """One photo through the network itself."""
    photo = torch.rand(1, 3, *SIZE).to(memory_format=torch.channels_last)
    return lambda: model(photo)


def runner_in_onnx(model: BaseModel) -> Callable[[], object]:
    """One photo through the exported file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    content = to_bytes(trace(model, 3, SIZE), {}, "onnx")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    photo = {session.get_inputs()[0].name: torch.rand(1, 3, *SIZE).numpy()}
    return lambda: session.run(None, photo)


@torch.inference_mode()
def milliseconds(runners: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median time of one photo through each, in turn."""
    seconds: list[list[float]] = [[] for _ in runners]
    for _ in range(WARM_UP + rounds):
        for run, times in zip(runners, seconds, strict=True):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
    return [1000 * statistics.median(times[WARM_UP:]) for times in seconds]


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
    titles = ["config", "network", "parameters", "FLOPs", "ms per photo", "in onnxruntime", "test mIoU"]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for name, config in configs():
        model = network_of(config)
        counts = f"{model.parameter_count() / 1e6:.2f} M | {model.flops(SIZE) / 1e9:.2f} G"
        kind = config["arch"]["type"]
        times = milliseconds([runner_in_torch(model), runner_in_onnx(model)], arguments.rounds)
        timed = " | ".join(f"{each:.1f}" for each in times)
        print(f"| {name} | {kind} | {counts} | {timed} | {test_miou(arguments.folder, config['name'])} |", flush=True)


if __name__ == "__main__":
    main()
