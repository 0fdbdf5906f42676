"""Lightning, epoch by epoch, so that a benchmark can alternate it with other loops."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.metrics.confusion import MeanIoU
from trainer.evaluation import MetricSet

Loss = Callable[[Tensor, Tensor], Tensor]


@contextmanager
def silenced() -> Iterator[None]:
    """Let progress bars draw into nothing, and warnings of the peer pass."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    consoles = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.stdout = sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = consoles


def lightning_module(model: nn.Module, criterion: Loss, optimizer: torch.optim.Optimizer) -> Any:
    """Return a LightningModule that trains a network on (inputs, target), with the loss and our mIoU of two classes.

    Args:
        model: Gets its inputs in channels-last format.
        criterion: (output, target) -> ().
        optimizer: Of the model's weights.
    """
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.criterion = model, criterion
            self.metrics = MetricSet([MeanIoU(2, ignore_index=255)])

        def training_step(self, batch: Any, _: int) -> Tensor:
            output = self.model(batch[0].contiguous(memory_format=torch.channels_last))
            loss: Tensor = self.criterion(output, batch[1])
            self.metrics.update(output.detach(), batch[1])
            self.log("loss", loss, prog_bar=True, on_epoch=True)
            return loss

        def on_train_epoch_end(self) -> None:
            self.log("miou", self.metrics.compute()["miou"])
            self.metrics.reset()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer

    return Module()


def lightning_epochs(
    module: Any, loader: Any, folder: Path, clock: Callable[[], float], precision: str = "32-true"
) -> Callable[[], float]:
    """Return a function that trains one more epoch and returns the seconds from its beginning to its end.

    Each call goes on in one `fit`, held at the ends of its epochs, so that Lightning's start is not counted. Its
    TensorBoard logger, progress bar and checkpoints are on.

    Args:
        module: A LightningModule.
        loader: Of its batches.
        folder: For logs and checkpoints.
        clock: Seconds: `time.process_time`, `time.perf_counter`.
        precision: As Lightning names it.
    """
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
    from lightning.pytorch.loggers import TensorBoardLogger

    trainer = lightning.Trainer(
        accelerator="cpu",
        precision=precision,
        max_epochs=0,
        logger=TensorBoardLogger(str(folder)),
        callbacks=[TQDMProgressBar(), ModelCheckpoint(folder, save_last=True)],
        enable_model_summary=False,
    )
    spent: dict[str, float] = {}

    class Clock(lightning.Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            spent["start"] = clock()

        def on_train_epoch_end(self, *_: Any) -> None:
            spent["seconds"] = clock() - spent["start"]

    trainer.callbacks.insert(0, Clock())

    def epoch() -> float:
        trainer.fit_loop.max_epochs = trainer.current_epoch + 1
        trainer.fit(module, loader)
        return spent["seconds"]

    return epoch
