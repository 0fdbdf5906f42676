"""The step of the trainer, with everything on, next to a bare PyTorch loop and to Lightning.

Each contender trains the same U-Net over the same loader with a running loss and a confusion matrix's mIoU reported
at the end of the epoch (the bare loop: the loss alone); ours and Lightning's with TensorBoard, progress bar and
checkpoints on. Counted is the processor time of an epoch on one thread, divided by its steps; Lightning's without its
start. Lightning is left out where it is not installed (requirements-benchmarks.txt).
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from base import BaseDataLoader
from benchmarks.speed.comparison import Comparison, alternate
from benchmarks.speed.peers import lightning_epochs, lightning_module, silenced
from data_loader.common.options import AugmentationOptions, ImageOptions, LabelOptions, MaskLoaderOptions, PairOptions
from data_loader.segmentation.loader import SegmentationDataLoader
from logger.callbacks import MetricsFile, ProgressBar, TensorBoardLogger
from models.losses import CrossEntropyLoss
from models.metrics.confusion import MeanIoU
from models.unet import UNet
from trainer.checkpoints.saving import Checkpoints
from trainer.runtime.devices import RunPrecision
from trainer.trainer import Trainer, TrainingPlan


@dataclass(frozen=True)
class Network:
    """A network and its batches.

    Attributes:
        channels: Of the U-Net's levels.
        size: Width and height of an image.
        batch_size: Images.
        bar: The largest ratio to the bare loop that is aimed at.
    """

    channels: tuple[int, ...]
    size: tuple[int, int]
    batch_size: int
    bar: float | None

    @property
    def name(self) -> str:
        """What a step computes, in words."""
        width, height = self.size
        return f"step of {self.batch_size} images {width}x{height}, U-Net {', '.join(map(str, self.channels))}"


# On two cores with AVX-512 their steps take 12.6, 3.4 and 2.4 ms.
NETWORKS = (
    Network((16, 32, 64, 128), (96, 64), 4, 1.02),
    Network((8, 16, 32), (64, 48), 2, 1.04),
    Network((4, 8), (32, 32), 2, None),
)
TIMES_IN_LIST = 2
# Batches come in channels-last and all contenders leave them so; only then do all compute the same.
AS_IT_COMES = RunPrecision(torch.device("cpu"), memory_format=torch.channels_last)
PEOPLE = Path(__file__).resolve().parents[2] / "data/people/train_pairs.txt"


def make_loader(folder: Path, network: Network) -> BaseDataLoader:
    """The loader that all share: augmented images from the cache, no worker to compete for the two cores.

    Each pair stands in the list several times, so that an epoch has as many steps as epochs usually have.
    """
    pairs = folder / "pairs.txt"
    pairs.write_text(PEOPLE.read_text() * TIMES_IN_LIST)
    return SegmentationDataLoader(
        PairOptions(str(pairs), data_root=str(PEOPLE.parent)),
        labels=LabelOptions(num_classes=2),
        images=ImageOptions(resize=list(network.size)),
        augmentation=AugmentationOptions(flip_hor=0.5),
        loading=MaskLoaderOptions(batch_size=network.batch_size),
    )


def make_model(network: Network) -> UNet:
    """A small network, so that what surrounds the step weighs as much as it can."""
    torch.manual_seed(0)
    return UNet(2, channels=list(network.channels))


def bare_epoch(loader: BaseDataLoader, network: Network) -> Callable[[], None]:
    """What one writes by hand."""
    model, criterion = make_model(network).train(), CrossEntropyLoss(ignore_index=255)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def epoch() -> None:
        total = 0.0
        for inputs, target, *_ in loader:
            loss = criterion(model(inputs), target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.item()

    return epoch


def our_epoch(loader: BaseDataLoader, network: Network, folder: Path) -> Callable[[], None]:
    """This project's trainer with everything on."""
    model = make_model(network)
    callbacks = [
        ProgressBar(show_bar=True),
        TensorBoardLogger(),
        MetricsFile(),
        Checkpoints(folder, {"name": "overhead"}),
    ]
    trainer = Trainer(
        model,
        torch.optim.AdamW(model.parameters(), lr=1e-3),
        criterion=CrossEntropyLoss(ignore_index=255),
        train_loader=loader,
        metrics=[MeanIoU(2, ignore_index=255)],
        plan=TrainingPlan(epochs=10**6, monitor="max miou", precision=AS_IT_COMES),
        callbacks=callbacks,
    )
    trainer.run_folder = folder
    trainer.notify("on_fit_start")
    return trainer.run_epoch


def lightning_epoch(loader: BaseDataLoader, network: Network, folder: Path) -> Callable[[], float]:
    """Lightning with the same metric, its TensorBoard logger, progress bar and checkpoints."""
    model, criterion = make_model(network), CrossEntropyLoss(ignore_index=255)
    module = lightning_module(model, criterion, torch.optim.AdamW(model.parameters(), lr=1e-3))
    return lightning_epochs(module, loader, folder, time.process_time)


def processor_seconds(epoch: Callable[[], float | None]) -> float:
    """Run an epoch and return the processor time that it took, or what it counted itself."""
    started = time.process_time()
    counted = epoch()
    return time.process_time() - started if counted is None else counted


def measure(rounds: int) -> list[Comparison]:
    """Return two rows for each network: next to a bare loop, and next to Lightning."""
    torch.set_num_threads(1)
    with_peer = importlib.util.find_spec("lightning") is not None
    rows = []
    for network in NETWORKS:
        with tempfile.TemporaryDirectory() as scratch, silenced():
            loader = make_loader(Path(scratch), network)
            epochs: dict[str, Callable[[], float | None]] = {
                "bare": bare_epoch(loader, network),
                "ours": our_epoch(loader, network, Path(scratch)),
            }
            if with_peer:
                epochs["Lightning"] = lightning_epoch(loader, network, Path(scratch) / "lightning")
            cases = {name: partial(step_milliseconds, epoch, len(loader)) for name, epoch in epochs.items()}
            values = alternate(cases, rounds)
        for other, is_limit, bar in (("bare", True, network.bar), ("Lightning", False, None)):
            if other in values:
                other_name = "bare loop" if is_limit else other
                rows.append(Comparison(network.name, "ms", values["ours"], values[other], other_name, is_limit, bar))
    return rows


def step_milliseconds(epoch: Callable[[], float | None], steps: int) -> float:
    """Return the processor time of a step."""
    return 1000 * processor_seconds(epoch) / steps
