"""bf16 with channels-last beside fp32: the same config trained in both, its steps timed in turn, its test mIoU by seed.

    python benchmarks/precision.py -c config/people/unet_mobilenetv2.json --seeds 0 1 2 --rounds 5 trainer.epochs=12

In each round both train an epoch of the first 320 samples; a step's time leaves out what it waited for its data. Then
both are trained in full from each seed and judged on the test data. With no seeds only the steps are timed; with
`--rounds 0` only the scores are found.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from base import BaseTrainer, Callback
from base.callback import StepReport
from config import load_config
from test import test as judge
from train import train
from trainer.checkpoints.resume import weights_of
from utils.checkpoint_file import read_checkpoint

KINDS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32", "channels_last": False},
    "bf16": {"precision": "bf16", "channels_last": True},
}
SAMPLES = 320
WARM_UP = 3


class Stopwatch(Callback):
    """Notes what each step took without its data."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_end(self, trainer: BaseTrainer, report: StepReport) -> None:
        """Note it."""
        del trainer
        self.seconds.append(report.step_seconds - report.data_seconds)


def config_of(arguments: argparse.Namespace, kind: str, save_dir: str, seed: int) -> dict[str, Any]:
    """The config in one of the precisions, printing nothing."""
    config = load_config(arguments.config, arguments.overrides)
    config["trainer"] |= KINDS[kind] | {"save_dir": save_dir, "verbosity": 0, "tensorboard": False, "pictures": 0}
    return config | {"seed": seed}


def step_milliseconds(arguments: argparse.Namespace, save_dir: str) -> dict[str, float]:
    """Median time of a step in each precision."""
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(arguments.rounds):
        for kind in sorted(KINDS, reverse=bool(number % 2)):
            config, watch = config_of(arguments, kind, save_dir, number), Stopwatch()
            config["trainer"]["epochs"] = 1
            config["train_loader"]["args"]["samples"] = SAMPLES
            train(config, [watch], max_validation_batches=1)
            seconds[kind] += watch.seconds[WARM_UP:]
    return {kind: 1000 * statistics.median(each) for kind, each in seconds.items()}


def score(arguments: argparse.Namespace, kind: str, save_dir: str, seed: int) -> float:
    """Test mIoU of a full training."""
    result = train(config_of(arguments, kind, save_dir, seed))
    assert result.checkpoint is not None
    content = read_checkpoint(result.checkpoint)
    return float(judge(content["config"], weights_of(content))["metrics"]["miou"])


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as save_dir:
        if arguments.rounds:
            times = step_milliseconds(arguments, save_dir)
            print(", ".join(f"{kind} {each:.1f} ms" for kind, each in times.items()), end=" a step: ")
            print(f"{times['fp32'] / times['bf16']:.2f} times as fast", flush=True)
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for seed in arguments.seeds:
            for kind, scores in found.items():
                scores.append(score(arguments, kind, save_dir, seed))
                print(f"seed {seed}, {kind}: test mIoU {scores[-1]:.4f}", flush=True)
        if arguments.seeds:
            means = {kind: statistics.mean(scores) for kind, scores in found.items()}
            print(", ".join(f"{kind} {mean:.4f}" for kind, mean in means.items()), end=" on average: ")
            print(f"{means['bf16'] - means['fp32']:+.4f}")


if __name__ == "__main__":
    main()
