"""Losses, and batches of masks as different as they come, for the laws about how samples are divided into batches."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from base import BaseDataLoader, BaseLoss
from models.losses import CrossEntropyLoss, DiceLoss, FocalLoss, LovaszLoss, WeightedLoss
from models.losses.common import AuxiliaryLoss
from trainer.trainer import Trainer, TrainingPlan

IGNORED = 255
SAMPLES = 8
CLASS_WEIGHTS = [0.2, 3.0, 1.0]


class Squared(BaseLoss):
    """A loss of a plug-in that weighs pixels by their column, and says so."""

    def pixel_weights(self, target: Tensor) -> Tensor:
        return torch.arange(1, target.shape[-1] + 1) * (target != IGNORED)

    def forward(self, output: Any, target: Tensor) -> Tensor:
        logits = output if isinstance(output, Tensor) else output[0]
        truth = F.one_hot(target.where(target != IGNORED, 0), logits.shape[1]).movedim(-1, 1)
        weights = self.pixel_weights(target)
        return ((logits - truth).square().sum(dim=1) * weights).sum() / weights.sum().clamp(min=1)

    def batch_weight(self, target: Tensor) -> Tensor:
        return self.pixel_weights(target).sum(dtype=torch.float64)


def weighted() -> nn.Module:
    return CrossEntropyLoss(IGNORED, weight=CLASS_WEIGHTS, label_smoothing=0.1)


def torchs() -> nn.Module:
    return nn.CrossEntropyLoss(ignore_index=IGNORED)


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "torch": torchs,
    "torch, weighted": lambda: nn.CrossEntropyLoss(
        torch.tensor(CLASS_WEIGHTS), ignore_index=IGNORED, label_smoothing=0.1
    ),
    "plain": lambda: CrossEntropyLoss(IGNORED),
    "weighted": weighted,
    "focal": lambda: FocalLoss(IGNORED, weight=CLASS_WEIGHTS),
    "dice": lambda: DiceLoss(IGNORED),
    "lovasz": lambda: LovaszLoss(IGNORED, exclude_background=True),
    "plugin": Squared,
    "sum": lambda: WeightedLoss([weighted(), DiceLoss(IGNORED, exclude_background=True)], [1.0, 0.5]),
    "nested": lambda: WeightedLoss([WeightedLoss([weighted(), LovaszLoss(IGNORED)], [1.0, 2.0]), Squared()], [0.5, 3]),
}  # fmt: skip
AUXILIARY: dict[str, Callable[[], nn.Module]] = {
    "auxiliary": lambda: AuxiliaryLoss(weighted(), [0.4]),
    "auxiliary sum": lambda: AuxiliaryLoss(WeightedLoss([weighted(), DiceLoss(IGNORED)], [1.0, 0.5]), [0.4]),
}


class Masks:
    """Images (3, 8, 12) with masks: letterboxed ones, such as lack a class, and one without any valid pixel."""

    def __init__(self, samples: int = SAMPLES) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(samples, 3, 8, 12, generator=generator)
        self.masks = torch.randint(0, 3, (samples, 8, 12), generator=generator)
        self.masks[0, :, :5] = IGNORED
        self.masks[2] = self.masks[2].clamp(max=1)
        self.masks[3] = IGNORED
        self.masks[5, 2:] = 0
        self.masks[6] = 0
        self.masks[7, :7] = IGNORED

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, generator: Any) -> tuple[Tensor, Tensor]:
        return self.images[index], self.masks[index]


class MaskLoader(BaseDataLoader):
    ignore_index = IGNORED


class PlainNet(nn.Module):
    """A network without norms: a sample's logits do not depend on its batch."""

    def __init__(self, *, has_auxiliary: bool = False) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 3, 3, padding=1)
        self.auxiliary = nn.Conv2d(3, 3, 2, stride=2) if has_auxiliary else None

    def forward(self, inputs: Tensor) -> Any:
        logits = self.head(inputs)
        return (logits, self.auxiliary(inputs)) if self.auxiliary is not None and self.training else logits


def trainer_of(
    name: str, batch_size: int, *, trainer: type[Trainer] = Trainer, loss: nn.Module | None = None, **plan: Any
) -> Trainer:
    """Return a trainer of the samples in their order, whose network begins with the same weights each time."""
    torch.manual_seed(1)
    model: Any = PlainNet(has_auxiliary=name in AUXILIARY)
    return trainer(
        model,
        torch.optim.SGD(model.parameters(), lr=0.0),
        criterion=loss or {**LOSSES, **AUXILIARY}[name](),
        train_loader=MaskLoader(Masks(), batch_size, shuffle=False, is_training=True),
        valid_loader=MaskLoader(Masks(), batch_size, shuffle=False, is_training=False),
        plan=TrainingPlan(epochs=1, **plan),
    )


def gradient_of(trainer: Trainer) -> Tensor:
    """Return the gradient of the first step, all weights in a row."""
    trainer.model.train()
    trainer.run_step(next(trainer._steps))
    return torch.cat([weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None])


def split(batch: Sequence[Tensor], sizes: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Return the samples of a batch in batches of these sizes."""
    return list(zip(*(tensor.split(list(sizes)) for tensor in batch), strict=True))
