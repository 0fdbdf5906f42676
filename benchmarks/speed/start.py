"""Seconds from the command to its first result, next to the import of torch alone: one photo, and a training's step.

The bars are 0.8 s more than that import for the photo, and 1.2 s for the first step, so the other side of each row is
the import and that allowance. Processor time is that of the process without its loader workers.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.speed.comparison import Comparison, alternate

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "config" / "people" / "quickstart.json"
# Seconds in addition to the import of torch.
OF_A_PHOTO, OF_A_STEP = 0.8, 1.2
END = "import os, sys, time; print('end', time.monotonic(), time.process_time(), flush=True); os._exit(0)"
IMPORT = f"import torch; {END}"
INFERENCE = f"""
import inference, sys
inference.main(inference.parser().parse_args(sys.argv[1:]))
{END}
"""
TRAINING = f"""
import sys, train
from base.callback import Callback
from config import load_config

class End(Callback):
    def on_step_end(self, trainer, report):
        {END}

train.train(load_config(sys.argv[1], sys.argv[2:]), [End()])
"""


def measure(rounds: int) -> list[Comparison]:
    """Compare a photo through `inference.py` and the first step of the quickstart with the import of torch."""
    with tempfile.TemporaryDirectory() as folder:
        place = [f"trainer.save_dir={folder}"]
        short = [*place, "trainer.epochs=1", "trainer.tensorboard=false", "train_loader.args.samples=16"]
        command = [sys.executable, str(ROOT / "train.py"), "-c", str(QUICKSTART), *short]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        checkpoint = next(Path(folder).rglob("model_best.pth"))
        photo = next((ROOT / "data" / "people" / "images" / "test").glob("*.jpg"))
        arguments = ["--resume", str(checkpoint), "--source", str(photo), "--output", f"{folder}/out.png"]
        programs = {
            "torch": partial(seconds, IMPORT, []),
            "one photo": partial(seconds, INFERENCE, arguments),
            "train.py to its first step": partial(seconds, TRAINING, [str(QUICKSTART), *place]),
        }
        processor: dict[str, list[float]] = {name: [] for name in programs}
        wall = alternate({name: partial(noted, run, processor[name]) for name, run in programs.items()}, rounds)
    of_processor = {name: tuple(values[1:]) for name, values in processor.items()}  # the first round does not count
    rows = []
    for name, allowance in (("one photo", OF_A_PHOTO), ("train.py to its first step", OF_A_STEP)):
        for kind, values in (("", wall), (", processor time", of_processor)):
            limit = tuple(value + allowance for value in values["torch"])
            alone = statistics.median(values["torch"])
            other = f"import of torch ({alone:.2f} s) and {allowance} s"
            rows.append(Comparison(f"{name}{kind}", "s", values[name], limit, other, is_limit=True, bar=1.0))
    return rows


def noted(run: Callable[[], tuple[float, float]], processor: list[float]) -> float:
    """Return the seconds of a run by the clock, and append those of its processor to a list."""
    clock, of_processor = run()
    processor.append(of_processor)
    return clock


def seconds(program: str, arguments: list[str]) -> tuple[float, float]:
    """Return the seconds from the start of a program to its end, by the clock and of the processor."""
    command = [sys.executable, "-c", f"import time; print('begin', time.monotonic(), flush=True)\n{program}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    begin = next(float(line[1]) for line in lines if line[:1] == ["begin"])
    clock, processor = next((float(line[1]), float(line[2])) for line in lines if line[:1] == ["end"])
    return clock - begin, processor
