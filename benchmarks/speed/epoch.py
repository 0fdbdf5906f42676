"""A training epoch as the shipped config makes it, next to its arithmetic alone and to Lightning.

The network is that of config/people/unet_mobilenetv2.json without pretrained weights, on 200 photos of
data/human_ccp if they are there, else on those of data/people. Ours is the config's training with everything on,
without validation, from the second epoch on, when all photos are in memory. Beside it:

- the limit: forward and backward passes of the same network and loss in the same precision, and a fused AdamW, on
  batches that lie in memory;
- Lightning as one tunes it: our network, the same precision, channels-last, photos decoded in memory, a fused AdamW,
  with as many loader workers as are named;
- Lightning with segmentation-models-pytorch as its examples show: its U-Net over the same encoder, float32, photos
  read from the disk by two workers, its Dice loss.

The peers augment by albumentations as ours does. Wall-clock time, since workers take part.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.speed.comparison import Comparison, alternate
from benchmarks.speed.peers import lightning_epochs, lightning_module, silenced
from build import TrainingParts, build_training
from config import load_config
from data_loader.common.options import MaskLoaderOptions, PairOptions
from data_loader.segmentation.pairs import choose_pairs
from logger.callbacks import MetricsFile, ProgressBar, TensorBoardLogger
from models.losses import CrossEntropyLoss, DiceLoss
from trainer.checkpoints.saving import Checkpoints

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config/people/unet_mobilenetv2.json"
PHOTOS, BATCH_SIZE, LEARNING_RATE = 200, 16, 0.003
SIZE = (112, 160)  # width and height of the config's input


def pairs_file() -> Path:
    """Return the list of photos and masks: the large one if it is there."""
    found = (ROOT / f"data/{name}/train_pairs.txt" for name in ("human_ccp", "people"))
    return next(file for file in found if file.is_file())


def our_parts(folder: Path) -> TrainingParts:
    """Return the training of the shipped config, without its validation and test data."""
    overrides = (
        "arch.args.weights=null", f"train_loader.args.pairs_file={pairs_file()}", f"train_loader.args.samples={PHOTOS}",
        "trainer.monitor=off", f"trainer.save_dir={folder}", "trainer.epochs=1000",
    )  # fmt: skip
    config = load_config(str(CONFIG), list(overrides))
    del config["valid_loader"], config["test_loader"]
    return build_training(config)


def our_epoch(parts: TrainingParts, folder: Path) -> Callable[[], float]:
    """Return a function that trains an epoch as train.py does; it returns its seconds."""
    trainer = parts.trainer
    trainer.callbacks += [
        ProgressBar(show_bar=True), TensorBoardLogger(), MetricsFile(), Checkpoints(folder, parts.config)
    ]  # fmt: skip
    trainer.run_folder = folder
    trainer.notify("on_fit_start")
    return timed(trainer.run_epoch)


def bare_epoch(parts: TrainingParts) -> Callable[[], float]:
    """Return a function that makes the steps of an epoch on batches in memory."""
    trainer = parts.trainer
    model, precision = trainer.model, trainer.plan.precision  # type: ignore[attr-defined]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    batches = [(precision.place(inputs), precision.place(target)) for inputs, target, *_ in parts.train_loader]

    def epoch() -> None:
        model.train()
        for inputs, target in batches:
            optimizer.zero_grad(set_to_none=True)
            with precision.autocast():
                loss = parts.loss(model(inputs), target)
            loss.backward()
            optimizer.step()

    return timed(epoch)


def timed(epoch: Callable[[], None]) -> Callable[[], float]:
    """Return a function that runs an epoch and returns its seconds."""

    def seconds() -> float:
        started = time.perf_counter()
        epoch()
        return time.perf_counter() - started

    return seconds


@dataclass
class PeerPhotos(Dataset[tuple[Tensor, Tensor]]):
    """The photos of the peers, augmented by albumentations.

    Attributes:
        pairs: Files of photo and mask.
        kept: Photos and masks in memory, resized; None reads a file each time.
    """

    pairs: list[tuple[str, str]]
    kept: list[tuple[Any, Any]] | None = None

    def __post_init__(self) -> None:
        """Build the augmentation of config/people/unet.json."""
        import albumentations as transforms

        width, height = SIZE
        self.augment = transforms.Compose([
            transforms.HorizontalFlip(p=0.5),
            transforms.Affine(scale=(0.8, 1.25), rotate=(-5, 5), p=1.0),
            transforms.ColorJitter(brightness=0.08, contrast=0.2, saturation=0.25, hue=0.0, p=1.0),
            transforms.Resize(height, width),
            transforms.Normalize(),
        ])  # fmt: skip

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a photo (3, H, W) float32 and its mask (H, W) int64."""
        image, mask = self.read(index) if self.kept is None else self.kept[index]
        result = self.augment(image=image, mask=mask)
        return torch.from_numpy(result["image"]).permute(2, 0, 1), torch.from_numpy(result["mask"]).long()

    def read(self, index: int) -> tuple[Any, Any]:
        """Return a photo (h, w, 3) uint8 RGB and its mask (h, w) uint8 of 0 and 1."""
        photo, mask = self.pairs[index]
        image, labels = cv2.imread(photo), cv2.imread(mask, cv2.IMREAD_GRAYSCALE)
        if image is None or labels is None:
            raise SystemExit(f"{photo} or {mask} cannot be read.")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.asarray(labels > 0, dtype=np.uint8)

    def decoded(self) -> "PeerPhotos":
        """Return the same photos, in memory at the size of the input."""
        kept = []
        for index in range(len(self)):
            image, mask = self.read(index)
            kept.append((cv2.resize(image, SIZE), cv2.resize(mask, SIZE, interpolation=cv2.INTER_NEAREST)))
        return PeerPhotos(self.pairs, kept)


def peer_pairs() -> list[tuple[str, str]]:
    """Return the files of photos and masks in the list, at most as many as ours trains on."""
    listing = choose_pairs(PairOptions(pairs_file=str(pairs_file())), MaskLoaderOptions(samples=PHOTOS))
    return [(str(pair.image), str(pair.mask)) for pair in listing.entries]


def tuned_epoch(model: nn.Module, folder: Path, *, workers: int, in_bf16: bool) -> Callable[[], float]:
    """Return an epoch of Lightning with our network, as one tunes it."""
    cross_entropy, dice = CrossEntropyLoss(ignore_index=255), DiceLoss(ignore_index=255)

    def criterion(output: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = cross_entropy(output, target) + dice(output, target)
        return loss

    module = lightning_module(model, criterion, torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True))
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    loader = DataLoader(PeerPhotos(peer_pairs()).decoded(), BATCH_SIZE, shuffle=True, **options)
    return lightning_epochs(module, loader, folder, time.perf_counter, "bf16-mixed" if in_bf16 else "32-true")


def example_epoch(folder: Path) -> Callable[[], float]:
    """Return an epoch of Lightning with segmentation-models-pytorch, as their examples show it."""
    import lightning
    import segmentation_models_pytorch as smp  # type: ignore[import-untyped]

    class Example(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = smp.Unet("mobilenet_v2", encoder_weights=None, in_channels=3, classes=1)
            self.criterion = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)

        def training_step(self, batch: Any, _: int) -> Tensor:
            output, target = self.model(batch[0]), batch[1].unsqueeze(1)
            loss: Tensor = self.criterion(output, target)
            counts = smp.metrics.get_stats((output.sigmoid() > 0.5).long(), target, mode="binary")
            self.log("iou", smp.metrics.iou_score(*counts, reduction="micro"), on_epoch=True)
            self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)

    loader = DataLoader(PeerPhotos(peer_pairs()), BATCH_SIZE, shuffle=True, num_workers=2)
    return lightning_epochs(Example(), loader, folder, time.perf_counter)


def measure(rounds: int) -> list[Comparison]:
    """Return a row for the limit and for each peer."""
    with tempfile.TemporaryDirectory() as place, silenced():
        folder = Path(place)
        parts = our_parts(folder)
        in_bf16 = parts.trainer.plan.precision.dtype is torch.bfloat16  # type: ignore[attr-defined]
        cases = {"ours": our_epoch(parts, folder), "limit": bare_epoch(our_parts(folder))}
        others: list[tuple[str, str, bool, float]] = [("limit", "forward, backward and fused AdamW", True, 1.12)]
        if importlib.util.find_spec("lightning") is not None:
            for workers in (0, 2):
                case = f"tuned {workers}"
                cases[case] = tuned_epoch(our_parts(folder).model, folder / case, workers=workers, in_bf16=in_bf16)
                others.append((case, f"Lightning as one tunes it, {workers} workers", False, 1 / 1.6))
            cases["example"] = example_epoch(folder / "example")
            others.append(("example", "Lightning and segmentation-models-pytorch as in their examples", False, 1 / 6))
        values = alternate(cases, rounds)
    what = f"epoch of {len(parts.train_loader)} batches"
    return [
        Comparison(what, "s", values["ours"], values[case], name, is_limit, bar) for case, name, is_limit, bar in others
    ]
