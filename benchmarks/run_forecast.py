"""Forecast of a run from one step of it, next to the run: seconds per epoch, size of a checkpoint, memory.

    python benchmarks/run_forecast.py

`trainer/inspection` forecasts what `train.py --check` shows; here the same training then runs two epochs with their
validations in a process of its own, and the second is timed. Memory is the growth of the process from before the
network is built, as in `predicted_memory.py`. One thread; Linux only.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MEGABYTE = 2**20
TRAININGS = (
    ("config/people/unet.json",),
    ("config/people/unet_mobilenetv2.json", "arch.args.weights=null"),
    ("config/people/encdec.json", "trainer.ema=0.99", "trainer.accumulate=2", "train_loader.args.batch_size=8"),
    ("config/people/bisenet.json", "arch.args.weights=null", "train_loader.args.batch_size=6"),
)


def foreseen(config: dict[str, Any]) -> dict[str, float]:
    """Build the training, try a step, forecast the run."""
    from build import build_training
    from trainer.inspection.costs import predict_memory
    from trainer.inspection.forecast import forecast_run
    from trainer.inspection.memory import training_step
    from trainer.inspection.trial import try_step
    from trainer.trainer import Trainer

    parts = build_training(config, devices="cpu")
    assert isinstance(parts.trainer, Trainer)
    assert parts.valid_loader is not None
    batch, valid_batch = parts.train_loader.example(), parts.valid_loader.example()
    started = perf_counter()
    parts.train_loader.example()
    loading = perf_counter() - started
    started = perf_counter()
    parts.valid_loader.example()
    valid_loading = perf_counter() - started
    trial = try_step(parts.trainer, batch, valid_batch)
    assert trial.facts is not None, trial.findings
    found = forecast_run(
        parts.trainer, trial.facts, save_dir=Path.cwd(), load_seconds=loading, valid_load_seconds=valid_loading
    )
    shapes = predict_memory(training_step(parts.trainer, batch[0].shape, batch[1].shape))
    memory = {"MB": found.memory_bytes / MEGABYTE, "MB from shapes": (shapes or 0) / MEGABYTE}
    return {"seconds": found.epoch_seconds, "checkpoint MB": found.checkpoint_bytes / MEGABYTE, **memory}


def measured(config: dict[str, Any]) -> dict[str, float]:
    """Train two epochs."""
    import train
    from base import Callback
    from benchmarks.predicted_memory import memory_of_process, small
    from build import build_loaders, build_training
    from data_loader.common.image_cache import share_decoded

    class Clock(Callback):
        """Notes the time of each beginning of an epoch."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def on_epoch_start(self, trainer: Any) -> None:
            self.times.append(perf_counter())

        def on_fit_end(self, trainer: Any, result: Any) -> None:
            self.times.append(perf_counter())

    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch, share_decoded(4096):
        build_training(small(config), devices="cpu").trainer.train_epoch()
        for loader in filter(None, build_loaders(config)):
            loader.prepare()
            loader.example()
        before = memory_of_process("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        result = train.train(config, [clock], run_folder=Path(scratch) / "run", devices="cpu")
        assert result.checkpoint is not None
        size = result.checkpoint.stat().st_size
        growth = memory_of_process("VmHWM") - before
    return {"seconds": clock.times[-1] - clock.times[-2], "checkpoint MB": size / MEGABYTE, "MB": growth}


def main() -> None:
    """Print a table."""
    from benchmarks.predicted_memory import resolved

    if len(sys.argv) > 1:
        run = {"foreseen": foreseen, "measured": measured}[sys.argv[1]]
        print(json.dumps(run(json.loads(sys.argv[2]))))
        return
    print(f"{'':>16} {'forecast':>9} {'measured':>9} {'ratio':>6}")
    for training in TRAININGS:
        print(" ".join(training))
        config = resolved(*training)
        config["trainer"] |= {"epochs": 2, "len_epoch": None}
        config["lr_scheduler"] = None
        results = []
        for name in ("foreseen", "measured"):
            command = [sys.executable, __file__, name, json.dumps(config)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            results.append(json.loads(done.stdout.splitlines()[-1]))
        forecast, truth = results
        truth["MB from shapes"] = truth["MB"]
        for name, value in forecast.items():
            print(f"{name:>16} {value:9.1f} {truth[name]:9.1f} {value / truth[name]:6.2f}", flush=True)


if __name__ == "__main__":
    main()
