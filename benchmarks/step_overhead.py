"""What the trainer costs beside a bare PyTorch loop and Lightning: one small network, one loader, in turns.

    pip install -r requirements-benchmarks.txt
    python benchmarks/step_overhead.py

Each contender trains the same U-Net over the same loader with a running loss and a confusion matrix's mIoU reported
at the end of the epoch (the bare loop: the loss alone); ours and Lightning's with TensorBoard, progress bar and
checkpoints on. In each round all three train an epoch, in changing order; quoted are the median and the median of the
paired ratios.
"""

import argparse
import logging
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from base import BaseDataLoader
from data_loader.common.options import AugmentationOptions, ImageOptions, LabelOptions, MaskLoaderOptions, PairOptions
from data_loader.segmentation.loader import SegmentationDataLoader
from logger.callbacks import MetricsFile, ProgressBar, TensorBoardLogger
from models.losses import CrossEntropyLoss
from models.metrics.confusion import MeanIoU
from models.unet import UNet
from trainer.checkpoints.saving import Checkpoints
from trainer.evaluation import MetricSet
from trainer.runtime.devices import RunPrecision
from trainer.trainer import Trainer, TrainingPlan

TIMES_IN_LIST = 4
# Batches come in channels-last and all contenders leave them so; only then do all compute the same.
AS_IT_COMES = RunPrecision(torch.device("cpu"), memory_format=torch.channels_last)
PEOPLE = Path(__file__).resolve().parent.parent / "data/people/train_pairs.txt"


def make_loader(folder: Path, size: list[int], batch_size: int) -> BaseDataLoader:
    """The loader that all share: augmented images from the cache, no worker to compete for the two cores.

    Each pair stands in the list several times, so that an epoch has as many steps as epochs usually have.
    """
    pairs = folder / "pairs.txt"
    pairs.write_text(PEOPLE.read_text() * TIMES_IN_LIST)
    return SegmentationDataLoader(
        PairOptions(str(pairs), data_root=str(PEOPLE.parent)),
        labels=LabelOptions(num_classes=2),
        images=ImageOptions(resize=size),
        augmentation=AugmentationOptions(flip_hor=0.5),
        loading=MaskLoaderOptions(batch_size=batch_size),
    )


def make_model() -> UNet:
    """A small network, so that what surrounds the step weighs as much as it can."""
    torch.manual_seed(0)
    return UNet(2, channels=[16, 32, 64, 128])


def bare_epoch(loader: BaseDataLoader) -> Callable[[], None]:
    """What one writes by hand."""
    model, criterion = make_model().train(), CrossEntropyLoss(ignore_index=255)
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


def our_epoch(loader: BaseDataLoader, folder: Path) -> Callable[[], None]:
    """This project's trainer with everything on."""
    model = make_model()
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


def lightning_epoch(loader: BaseDataLoader, folder: Path) -> Callable[[], float]:
    """Lightning with the same metric, its TensorBoard logger, progress bar and checkpoints."""
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
    from lightning.pytorch.loggers import TensorBoardLogger as LightningBoard

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.criterion = make_model(), CrossEntropyLoss(ignore_index=255)
            self.metrics = MetricSet([MeanIoU(2, ignore_index=255)])

        def training_step(self, batch: Any, _: int) -> Tensor:
            output = self.model(batch[0])
            loss: Tensor = self.criterion(output, batch[1])
            self.metrics.update(output.detach(), batch[1])
            self.log("loss", loss, prog_bar=True, on_epoch=True)
            return loss

        def on_train_epoch_end(self) -> None:
            self.log("miou", self.metrics.compute()["miou"])
            self.metrics.reset()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    # Each round goes on in one `fit`, held at the ends of its epochs, so that Lightning's start is not counted.
    module = Module()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=0,
        logger=LightningBoard(str(folder)),
        callbacks=[TQDMProgressBar(), ModelCheckpoint(folder, save_last=True)],
        enable_model_summary=False,
    )
    spent: dict[str, float] = {}

    class Clock(lightning.Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            spent["start"] = time.perf_counter()

        def on_train_epoch_end(self, *_: Any) -> None:
            spent["seconds"] = time.perf_counter() - spent["start"]

    trainer.callbacks.insert(0, Clock())

    def epoch() -> float:
        trainer.fit_loop.max_epochs = trainer.current_epoch + 1
        trainer.fit(module, loader)
        return spent["seconds"]

    return epoch


def measure(epoch: Callable[[], Any]) -> float:
    """Seconds of one epoch; a contender that knows better what to count returns it."""
    started = time.perf_counter()
    counted = epoch()
    return counted if isinstance(counted, float) else time.perf_counter() - started


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, nargs=2, default=[96, 64])
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--without-lightning", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch, open(os.devnull, "w") as nowhere:
        loader = make_loader(Path(scratch), arguments.size, arguments.batch_size)
        consoles = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = nowhere
        contenders: dict[str, Callable[[], Any]] = {
            "bare loop": bare_epoch(loader),
            "espalier": our_epoch(loader, Path(scratch)),
        }
        if not arguments.without_lightning:
            contenders["lightning"] = lightning_epoch(loader, Path(scratch) / "lightning")
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        order = list(contenders)
        for number in range(arguments.rounds + 1):
            random.Random(number).shuffle(order)
            for name in order:
                taken = measure(contenders[name])
                if number >= 1:  # the first round warms up
                    seconds[name].append(taken)
        sys.stdout, sys.stderr = consoles
    steps = len(loader)
    print(f"{steps} steps an epoch, {arguments.rounds} rounds, batch {arguments.batch_size} of {arguments.size}")
    for name, measured in seconds.items():
        ratios = [one / bare for one, bare in zip(measured, seconds["bare loop"], strict=True)]
        step = 1000 * statistics.median(measured) / steps
        print(f"{name:10}  {step:7.2f} ms a step   {statistics.median(ratios):.3f} x the bare loop")


if __name__ == "__main__":
    main()
