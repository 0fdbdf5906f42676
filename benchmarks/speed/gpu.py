"""A step on a GPU with everything on, next to a bare loop over the same network; nothing without a GPU.

The networks are those of segmentation-models-pytorch, a U-Net over ResNet-50 and a DeepLabV3+ over ResNet-101, at
512x512 in bf16 and channels-last, compiled and not, deterministic and not. Ours is this project's Trainer over photos
in memory, with TensorBoard, metrics and checkpoints; the bare loop has one batch that is on the device already. The
device's busy time is that of its kernels, by torch's profiler, over one more epoch of ours.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from base import BaseDataLoader
from benchmarks.speed.comparison import Comparison, alternate
from benchmarks.speed.peers import silenced
from data_loader.common.options import AugmentationOptions, ImageOptions, LabelOptions, MaskLoaderOptions, PairOptions
from data_loader.segmentation.loader import SegmentationDataLoader
from logger.callbacks import MetricsFile, ProgressBar, TensorBoardLogger
from models.losses import CrossEntropyLoss
from models.metrics.confusion import MeanIoU
from trainer.checkpoints.saving import Checkpoints
from trainer.runtime.devices import RunPrecision, seed_run
from trainer.trainer import Trainer, TrainingPlan

PEOPLE = Path(__file__).resolve().parents[2] / "data/people/train_pairs.txt"
LARGEST_BATCH = 1024
GPU = torch.device("cuda")


@dataclass(frozen=True)
class Setting:
    """What is trained, and how.

    Attributes:
        kind: Network of segmentation-models-pytorch: `"Unet"`, `"DeepLabV3Plus"`.
        encoder: Its encoder.
        size: Side of the square images.
        batch_size: Images.
        steps: Of an epoch.
        is_compiled: Whether by torch.compile.
        is_deterministic: Whether equal runs end in the same bytes.
        device: A GPU, or the processor for trying this file out.
    """

    kind: str
    encoder: str
    size: int = 512
    batch_size: int = 16
    steps: int = 40
    is_compiled: bool = False
    is_deterministic: bool = True
    device: torch.device = GPU

    @property
    def name(self) -> str:
        """The setting in words."""
        options = ["compiled"] * self.is_compiled + ["deterministic"] * self.is_deterministic
        return ", ".join([f"step of {self.batch_size} images, {self.kind} {self.encoder} at {self.size}", *options])

    def network(self) -> nn.Module:
        """Build the network on the device."""
        import segmentation_models_pytorch as smp  # type: ignore[import-untyped]

        seed_run(0, self.device, deterministic=self.is_deterministic)
        build = getattr(smp, self.kind)
        model: nn.Module = build(self.encoder, encoder_weights=None, in_channels=3, classes=2)
        model = model.to(self.device).to(memory_format=torch.channels_last)
        if self.is_compiled:
            model.compile()
        return model

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of both loops."""
        return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def bare_epoch(setting: Setting) -> Callable[[], None]:
    """Return a function that makes the steps on one batch that is on the device."""
    model = setting.network().train()
    optimizer, criterion = setting.optimizer(model), CrossEntropyLoss(ignore_index=255)
    shape = (setting.batch_size, 3, setting.size, setting.size)
    inputs = torch.randn(shape, device=setting.device).to(memory_format=torch.channels_last)
    target = torch.randint(2, (shape[0], *shape[2:]), device=setting.device)

    def epoch() -> None:
        for _ in range(setting.steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(setting.device.type, dtype=torch.bfloat16):
                loss = criterion(model(inputs), target)
            loss.backward()
            optimizer.step()

    return epoch


def make_loader(setting: Setting, folder: Path) -> BaseDataLoader:
    """Return photos that are decoded in memory, as many as an epoch needs, with the workers that "auto" gives them."""
    lines = PEOPLE.read_text().splitlines()
    needed = setting.steps * setting.batch_size
    (folder / "pairs.txt").write_text("\n".join((lines * (needed // len(lines) + 1))[:needed]))
    return SegmentationDataLoader(
        PairOptions(str(folder / "pairs.txt"), data_root=str(PEOPLE.parent)),
        labels=LabelOptions(num_classes=2),
        images=ImageOptions(resize=setting.size),
        augmentation=AugmentationOptions(flip_hor=0.5),
        loading=MaskLoaderOptions(batch_size=setting.batch_size, n_workers="auto"),
    )


def our_epoch(setting: Setting, folder: Path) -> Callable[[], None]:
    """Return a function that trains an epoch with everything on, without validation."""
    model = setting.network()
    precision = RunPrecision(setting.device, torch.bfloat16, torch.channels_last)
    callbacks = [ProgressBar(show_bar=True), TensorBoardLogger(), MetricsFile(), Checkpoints(folder, {"name": "gpu"})]
    loader = make_loader(setting, folder)
    loader.feeds_accelerator = setting.device.type != "cpu"
    loader.prepare()
    trainer = Trainer(
        model,
        setting.optimizer(model),
        criterion=CrossEntropyLoss(ignore_index=255),
        train_loader=loader,
        metrics=[MeanIoU(2, ignore_index=255)],
        plan=TrainingPlan(epochs=10**6, precision=precision),
        callbacks=callbacks,
    )
    trainer.run_folder = folder
    trainer.notify("on_fit_start")
    return trainer.run_epoch


def step_milliseconds(setting: Setting, epoch: Callable[[], None]) -> float:
    """Return the wall-clock time of a step, until the device has done it."""
    wait_for(setting.device)
    started = time.perf_counter()
    epoch()
    wait_for(setting.device)
    return 1000 * (time.perf_counter() - started) / setting.steps


def busy_share(setting: Setting, epoch: Callable[[], None]) -> float:
    """Return the part of an epoch's time in which the device computes."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        milliseconds = step_milliseconds(setting, epoch) * setting.steps
    kernels = sum(event.self_device_time_total for event in profiler.key_averages())
    return float(kernels / 1000 / milliseconds)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def largest_batch(setting: Setting, make_epoch: Callable[[Setting], Callable[[], None]]) -> float:
    """Return the largest batch, in steps of an eighth of a power of two, of which two steps fit into the memory."""
    size, step = 8, 8
    fits = 0
    while size <= LARGEST_BATCH:
        with suppress(torch.cuda.OutOfMemoryError):
            make_epoch(replace(setting, batch_size=size, steps=2))()
            fits = size
        torch.cuda.empty_cache()
        if fits < size:
            break
        if size >= 16 * step:
            step *= 2
        size += step
    return float(fits)


def measure_setting(setting: Setting, rounds: int) -> list[Comparison]:
    """Return the row of a step, and on a GPU that of its busy time."""
    with tempfile.TemporaryDirectory() as name, silenced():
        epochs = {"ours": our_epoch(setting, Path(name)), "bare": bare_epoch(setting)}
        cases = {key: partial(step_milliseconds, setting, epoch) for key, epoch in epochs.items()}
        values = alternate(cases, rounds)
        rows = [Comparison(setting.name, "ms", values["ours"], values["bare"], "bare loop", True, 1.01)]
        if setting.device.type == "cuda":
            shares = tuple(busy_share(setting, epochs["ours"]) for _ in range(rounds))
            row: dict[str, Any] = {"is_limit": True, "bar": 0.97, "higher_is_better": True}
            rows.append(Comparison(setting.name, "busy", shares, (1.0,) * rounds, "all of the time", **row))
    return rows


def measure(rounds: int) -> list[Comparison]:
    """Return three rows for each setting: a step, the device's busy time, the largest batch."""
    if not torch.cuda.is_available():
        return []
    rows = []
    for kind, encoder in (("Unet", "resnet50"), ("DeepLabV3Plus", "resnet101")):
        for is_compiled in (False, True):
            for is_deterministic in (False, True):
                setting = Setting(kind, encoder, is_compiled=is_compiled, is_deterministic=is_deterministic)
                rows += measure_setting(setting, rounds)
        with tempfile.TemporaryDirectory() as name, silenced():
            setting = Setting(kind, encoder)
            ours = largest_batch(setting, partial(our_epoch, folder=Path(name)))
            bare = largest_batch(setting, bare_epoch)
        about: dict[str, Any] = {"is_limit": True, "bar": 1.0, "higher_is_better": True}
        rows.append(Comparison(f"largest batch, {kind} {encoder}", "images", (ours,), (bare,), "bare loop", **about))
    return rows
