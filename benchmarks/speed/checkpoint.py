"""Checkpoints of 106 and 311 MB: time until the training continues, and until the file is on the disk.

The limit is writing as many bytes and flushing them. The disk must be idle: its speed is in both values. Two epochs
that are the best so far and end one right after the other write four files: the second waits for those of the first.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from benchmarks.speed.comparison import Comparison, alternate
from trainer.checkpoints.saving import Checkpoints, pack
from trainer.trainer import Trainer, TrainingPlan
from utils.checkpoint_file import BEST, LAST, read_checkpoint

NETWORKS = ((256, 15), (512, 11))  # channels and layers: with AdamW's two moments 106 and 311 MB
DURABLE_BAR, BLOCKED_SECONDS = 1.3, 0.03


def measure(rounds: int) -> list[Comparison]:
    """Return the rows of each size."""
    rows = []
    # On the disk of the working directory: a temporary folder may lie in memory.
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for channels, layers in NETWORKS:
            rows += compare(make_trainer(channels, layers), Path(folder), rounds)
    return rows


def make_trainer(channels: int, layers: int) -> Trainer:
    """Return a trainer of equal convolutions whose optimizer has made a step, so that it has its moments."""
    model = nn.Sequential(*(nn.Conv2d(channels, channels, 3) for _ in range(layers)))
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    loader: Any = SimpleNamespace(ignore_index=None)
    return Trainer(model, optimizer, criterion=nn.CrossEntropyLoss(), train_loader=loader, plan=TrainingPlan(epochs=1))


def compare(trainer: Trainer, folder: Path, rounds: int) -> list[Comparison]:
    """Return the seconds of one size: for a durable file, those in which the step waits, and those of reading it."""
    checkpoints, file = Checkpoints(folder, {"name": "speed"}), folder / LAST
    blocked: list[float] = []
    blocked_twice: list[float] = []

    def save() -> float:
        started = time.perf_counter()
        checkpoints._save(trainer, [LAST])
        blocked.append(time.perf_counter() - started)
        checkpoints._wait()
        return time.perf_counter() - started

    def save_twice() -> float:
        started = time.perf_counter()
        for _ in range(2):
            checkpoints._save(trainer, [LAST, BEST])
        blocked_twice.append(time.perf_counter() - started)
        checkpoints._wait()
        return time.perf_counter() - started

    def write_four() -> None:
        for number in range(4):
            write_raw(folder / f"raw{number}", written)

    save()
    written = file.read_bytes()
    content = pack(trainer, {"name": "speed"})
    values = alternate(
        {
            "durable": save,
            "raw": timed(lambda: write_raw(folder / "raw", written)),
            "twice": save_twice,
            "raw files": timed(write_four),
            "torch.save": timed(lambda: torch.save(content, folder / "torch.pth")),
            "read": timed(lambda: read_checkpoint(file)),
            "torch.load": timed(lambda: torch.load(file, map_location="cpu", weights_only=True)),
        },
        rounds,
    )
    checkpoints.on_close(trainer)
    size, waits, waits_twice = f"{len(written) / 1e6:.0f} MB", tuple(blocked[-rounds:]), tuple(blocked_twice[-rounds:])
    raw, saving, loading = values["raw"], values["torch.save"], values["torch.load"]
    two_epochs, four_files = f"{size}: last and best of two epochs", "raw write and fsync of four files"
    bar = (BLOCKED_SECONDS,) * rounds
    return [
        Comparison(f"{size}: durable", "s", values["durable"], raw, "raw write and fsync", True, DURABLE_BAR),
        Comparison(f"{size}: step blocked", "s", waits, bar, "30 ms", is_limit=True, bar=1.0),
        Comparison(f"{size}: step blocked", "s", waits, saving, "torch.save, not flushed", is_limit=False),
        Comparison(f"{two_epochs}: durable", "s", values["twice"], values["raw files"], four_files, is_limit=True),
        Comparison(f"{two_epochs}: steps blocked", "s", waits_twice, values["raw files"], four_files, is_limit=True),
        Comparison(
            f"{size}: read and verified", "s", values["read"], loading, "torch.load, not verified", is_limit=True
        ),
    ]


def write_raw(path: Path, content: bytes) -> None:
    """Write bytes to the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """Return a function that runs another one and returns its seconds."""

    def measured() -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return measured
