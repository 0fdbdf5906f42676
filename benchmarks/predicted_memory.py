"""The memory of a training as `trainer/inspection/costs.py` predicts it from shapes, next to the memory that it takes.

    python benchmarks/predicted_memory.py

Each training runs three steps in a process of its own; measured is by how much its resident memory grows at most from
before the network is built, in a process that has trained before and has its data decoded. Seconds are those of the
processor that the prediction took. Linux only.
"""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from time import process_time
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

STEPS = 3
COMMON = ["trainer.tensorboard=false", f"trainer.len_epoch={STEPS}", "train_loader.args.n_workers=0"]
TRAININGS = (
    ("config/people/unet.json",),
    ("config/people/unet.json", "trainer.precision=fp32", "train_loader.args.batch_size=32"),
    ("config/people/unet.json", "trainer.ema=0.99", "trainer.accumulate=2", "train_loader.args.batch_size=8"),
    ("config/people/unet_mobilenetv2.json", "arch.args.weights=null"),
    ("config/people/encdec.json",),
    ("config/people/bisenet.json", "arch.args.weights=null"),
    ("config/people/icnet.json", "arch.args.weights=null"),
    ("config/people/pspnet.json", "arch.args.weights=null"),
    ("config/people/deeplabv3plus.json", "arch.args.weights=null", "train_loader.args.batch_size=8"),
    ("config/people/deeplabv3plus.json", "arch.args.weights=null", "optimizer.type=SGD", "arch.args.backbone=resnet50"),
)


def resolved(file: str, *overrides: str) -> dict[str, Any]:
    """A config of the list, shortened, on the images that come with the project."""
    from config import load_config

    config = load_config(ROOT / file, [*COMMON, *overrides])
    for split in ("train", "valid"):
        config[f"{split}_loader"]["args"]["pairs_file"] = str(ROOT / f"data/people/{split}_pairs.txt")
    config["optimizer"]["args"] = {"lr": 1e-4}
    return config


def small(config: dict[str, Any]) -> dict[str, Any]:
    """The same with a network, images and batches that take no memory to speak of."""
    changed = copy.deepcopy(config)
    changed["arch"] = {"type": "UNet", "args": {"channels": [4, 8]}}
    changed["train_loader"]["args"] |= {"resize": [64, 64], "batch_size": 2}
    return changed


def memory_of_process(name: str) -> float:
    """A line of this process's status in MB: `VmRSS` now, `VmHWM` at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def measured(config: dict[str, Any]) -> float:
    """MB by which the process grows at most while it builds and trains."""
    from build import build_loaders, build_training
    from data_loader.common.image_cache import share_decoded

    with share_decoded(4096):
        build_training(small(config), devices="cpu").trainer.train_epoch()  # loads what a worker has loaded long since
        for loader in filter(None, build_loaders(config)):
            loader.prepare()
            loader.example()
        before = memory_of_process("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # lets the high-water mark begin anew
        trainer = build_training(config, devices="cpu").trainer
        trainer.train_epoch()
    return memory_of_process("VmHWM") - before


def predicted(config: dict[str, Any]) -> tuple[float, float]:
    """MB, and the seconds that it took to know."""
    from search.worker.candidate import check_limits

    started = process_time()
    facts, refusal = check_limits(config, devices="cpu")
    assert not refusal, refusal
    return facts.memory_mb or float("nan"), process_time() - started


def main() -> None:
    """Print a table."""
    if len(sys.argv) > 1:
        print(measured(json.loads(sys.argv[1])))
        return
    print(f"{'predicted':>10} {'measured':>9} {'ratio':>6} {'seconds':>8}  training")
    for training in TRAININGS:
        config = resolved(*training)
        megabytes, seconds = predicted(config)
        command = [sys.executable, __file__, json.dumps(config)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        real = float(done.stdout)
        print(f"{megabytes:10.0f} {real:9.0f} {megabytes / real:6.2f} {seconds:8.1f}  {' '.join(training)}", flush=True)


if __name__ == "__main__":
    main()
