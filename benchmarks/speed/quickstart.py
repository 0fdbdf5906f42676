"""The quickstart's training, with all that it writes, against its forward and backward passes and optimizer alone.

Both have the same network, loss, optimizer and number of steps; the bare loop repeats batches that are in memory.
Processor time is that of all threads of the process, and of loader workers that have ended.
"""

import contextlib
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from base import Callback
from base.base_loss import compute_loss
from benchmarks.speed.comparison import Comparison, alternate
from build import build_training
from config import load_config
from train import train

CONFIG = Path(__file__).resolve().parent.parent.parent / "config/people/quickstart.json"
EPOCHS = 8  # the first ones of the run: images are drawn as often as in all of it, in every second epoch
BAR = 1 / (1 - 0.12)  # 12 % of the time are spent on something else


class Clock(Callback):
    """Notes when the first epoch starts, after everything is built, and ends the run after the last one."""

    def on_epoch_start(self, trainer: Any) -> None:
        """Note the start of the first epoch."""
        if trainer.epoch == 0:
            self.started = now()

    def on_epoch_end(self, trainer: Any, metrics: dict[str, float]) -> None:
        """End the run."""
        if trainer.epoch == EPOCHS:
            trainer.request_stop("all epochs are measured")


def measure(rounds: int) -> list[Comparison]:
    """Return the rows of wall and processor time."""
    processor: dict[str, list[float]] = {"ours": [], "bare": []}

    def noted(name: str, started: tuple[float, float]) -> float:
        wall, busy = (end - start for end, start in zip(now(), started, strict=True))
        processor[name].append(busy)
        return wall

    with tempfile.TemporaryDirectory() as folder:

        def ours() -> float:
            clock = Clock()
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                train(load_config(str(CONFIG), [f"trainer.save_dir={folder}"]), [clock])
            return noted("ours", clock.started)

        values = alternate({"ours": ours, "bare": lambda: noted("bare", run_bare())}, rounds)
    ours_busy, bare_busy = (tuple(processor[name][-rounds:]) for name in ("ours", "bare"))
    other = "forward, backward, optimizer"
    return [
        Comparison("quickstart", "s", values["ours"], values["bare"], other, is_limit=True, bar=BAR),
        Comparison("quickstart, processor time", "s", ours_busy, bare_busy, other, is_limit=True),
    ]


def run_bare() -> tuple[float, float]:
    """Run the steps of the training on batches in memory; return when they started."""
    parts = build_training(load_config(str(CONFIG)))
    precision = parts.trainer.plan.precision  # type: ignore[attr-defined]
    batches = [(precision.place(inputs), precision.place(target)) for inputs, target, *_ in parts.train_loader]
    parts.train_loader.close()
    model = parts.model.train()
    started = now()
    for _ in range(EPOCHS):
        for inputs, target in batches:
            parts.optimizer.zero_grad(set_to_none=True)
            with precision.autocast():
                loss = compute_loss(parts.loss, model(inputs), target)
            loss.backward()  # type: ignore[no-untyped-call]
            parts.optimizer.step()
    return started


def now() -> tuple[float, float]:
    """Return the clock and the processor time of this process and of those it has waited for, in seconds."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime
