"""Losses: (output, target) -> scalar. B batch, K classes, H height, W width.

All compute in float32, also under autocast, and give 0 with a gradient of zeros for a batch without valid pixels. A
model that gives a tuple (logits, auxiliary logits, ...) is judged by the first.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from base.output import Output, main_output
from utils.errors import ConfigError

ClassWeight = Annotated[float, Field(ge=0.0)]
NOTHING_IGNORED = -100  # torch's own default: no label is negative


class CrossEntropyLoss(nn.Module):
    """Cross-entropy, mean over the valid pixels.

    Args:
        ignore_index: Label of pixels that do not count.
        weight: One number per class; the mean is then weighted, as torch's is.
        num_classes: K, to check `weight` against.

    Raises:
        ConfigError: Not as many weights as classes.
    """

    weight: Tensor | None

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        weight: list[ClassWeight] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        if weight is not None and num_classes not in (None, len(weight)):
            raise ConfigError(
                f"{len(weight)} class weights {weight} for {num_classes} classes: each class needs one. "
                "Correct weight or num_classes."
            )
        self.ignore_index = NOTHING_IGNORED if ignore_index is None else ignore_index
        self.register_buffer("weight", None if weight is None else torch.tensor(weight).float(), persistent=False)

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, K, H, W) float, target (B, H, W) int64 -> () float32; also (B, K) and (B,), or soft (B, K)."""
        logits = main_output(output)
        with torch.autocast(logits.device.type, enabled=False):
            if target.is_floating_point():
                losses = F.cross_entropy(logits.float(), target, self.weight, reduction="none")
                return losses.sum() / (target.sum(dim=1) > 0).sum().clamp(min=1)
            # The reduction "none" is the one that is deterministic on CUDA.
            losses = F.cross_entropy(
                logits.float(), target, self.weight, ignore_index=self.ignore_index, reduction="none"
            )
            return losses.sum() / self._divisor(target)

    def _divisor(self, target: Tensor) -> Tensor:
        valid = target != self.ignore_index
        if self.weight is None:
            return valid.sum().clamp(min=1)
        total = (self.weight[target.where(valid, 0)] * valid).sum()
        return total.where(total > 0, 1.0)


class DiceLoss(nn.Module):
    """One minus the soft Dice coefficient (arXiv:1606.04797), mean over classes and samples.

    Each sample has its own coefficients, so that the loss of a batch is the mean of its samples' and does not depend on
    how they are spread over batches or processes. Samples without valid pixels do not count.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator: a class that is neither there nor predicted costs nothing.
        exclude_background: Leave class 0 out of the mean.
    """

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        smooth: Annotated[float, Field(gt=0.0)] = 1.0,
        exclude_background: bool = False,
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.smooth = smooth
        self.first_class = int(exclude_background)

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, K, H, W) float, target (B, H, W) int64 -> () float32."""
        logits = main_output(output)
        with torch.autocast(logits.device.type, enabled=False):
            confusion = self._soft_confusion(logits.float(), target)
            overlap = confusion.diagonal(dim1=1, dim2=2)
            sizes = confusion.sum(dim=1) + confusion.sum(dim=2)
            losses = 1 - (2 * overlap + self.smooth) / (sizes + self.smooth)
            counts = confusion.detach().sum(dim=(1, 2)) > 0
            return (losses[:, self.first_class :].mean(dim=1) * counts).sum() / counts.sum().clamp(min=1)

    def _soft_confusion(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, K, K) float32: the probability that each class (row) got on the pixels of each true class (column).

        One matrix product gives every sum that the coefficients need, with a deterministic gradient, in half the time
        of products with one-hot masks. Ignored pixels are in no column.
        """
        num_classes = logits.shape[1]
        if self.ignore_index is not None and 0 <= self.ignore_index < num_classes:
            target = target.masked_fill(target == self.ignore_index, NOTHING_IGNORED)
        labels = target.flatten(1).to(torch.int16)
        classes = torch.arange(num_classes, dtype=torch.int16, device=target.device)
        truth = (labels[:, None] == classes[:, None]).to(logits.dtype)
        return logits.softmax(dim=1).flatten(2) @ truth.transpose(1, 2)


class WeightedLoss(nn.Module):
    """A weighted sum of losses.

    Args:
        losses: The terms, each (output, target) -> scalar; all get the whole output, auxiliary logits included.
        weights: One factor per term.

    Raises:
        ConfigError: Not as many factors as terms, or no terms.
    """

    def __init__(self, losses: list[nn.Module], weights: list[float]) -> None:
        super().__init__()
        if not losses or len(losses) != len(weights):
            raise ConfigError(
                f"{len(losses)} losses with {len(weights)} weights: there must be at least one loss, and "
                "one weight for each. Give as many of each."
            )
        self.losses = nn.ModuleList(losses)
        self.weights = list(weights)

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, K, H, W) float, target (B, H, W) int64 -> () float32."""
        terms = [weight * loss(output, target) for weight, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(terms).sum()
