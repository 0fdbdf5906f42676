"""Losses that compare whole regions: Dice, Jaccard, Tversky. B batch, K classes, N pixels of a sample."""

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from base.base_model import Output
from models.losses.common import (
    NOTHING_IGNORED,
    class_ids,
    is_soft,
    judged_logits,
    mean_of_samples,
    require_one_channel,
)

Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


class _RegionLoss(nn.Module, ABC):
    """One minus a soft coefficient of overlap, mean over classes and samples.

    Each sample has its own coefficients, so that the loss of a batch is the mean of its samples' and does not depend on
    how they are spread over batches or processes. Samples without valid pixels do not count.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator: a class that is neither there nor predicted costs nothing.
        exclude_background: Leave class 0 out of the mean.
    """

    def __init__(
        self, ignore_index: int | None = None, *, smooth: Positive = 1.0, exclude_background: bool = False
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.smooth = smooth
        self.first_class = int(exclude_background)

    @abstractmethod
    def coefficients(self, overlap: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
        """The coefficient of each class from the sums of truth times probability, truth, and probability, (B, K)."""

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, K, H, W) float, target (B, H, W) int64 or (B, K, H, W) float -> () float32."""
        logits = judged_logits(output)
        with torch.autocast(logits.device.type, enabled=False):
            confusion = self._soft_confusion(logits, target)
            overlap = confusion.diagonal(dim1=1, dim2=2)
            losses = 1 - self.coefficients(overlap, confusion.sum(dim=1), confusion.sum(dim=2))
            counts = confusion.detach().sum(dim=(1, 2)) > 0
            return mean_of_samples(losses[:, self.first_class :].mean(dim=1), counts)

    def _soft_confusion(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, K, K) float32: the probability that each class (row) got on the pixels of each true class (column).

        One matrix product gives every sum that the coefficients need, with a deterministic gradient, in half the time
        of products with one-hot masks. Ignored pixels are in no column.
        """
        probabilities = logits.softmax(dim=1).reshape(*logits.shape[:2], -1)
        return probabilities @ self._truth(logits, target).transpose(1, 2)

    def _truth(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, K, N) float32: the share of each class in each pixel."""
        if is_soft(logits, target):
            return target.float().reshape(*logits.shape[:2], -1)
        target, num_classes = class_ids(logits, target, type(self).__name__), logits.shape[1]
        if self.ignore_index is not None and 0 <= self.ignore_index < num_classes:
            target = target.masked_fill(target == self.ignore_index, NOTHING_IGNORED)
        labels = target.reshape(len(target), -1).to(torch.int16)
        classes = torch.arange(num_classes, dtype=torch.int16, device=target.device)
        return (labels[:, None] == classes[:, None]).to(logits.dtype)


class DiceLoss(_RegionLoss):
    """One minus the soft Dice coefficient (arXiv:1606.04797), mean over classes and samples.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator: a class that is neither there nor predicted costs nothing.
        exclude_background: Leave class 0 out of the mean.
    """

    def coefficients(self, overlap: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
        """Dice."""
        return (2 * overlap + self.smooth) / (true + predicted + self.smooth)


class JaccardLoss(_RegionLoss):
    """One minus the soft intersection over union, mean over classes and samples.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator: a class that is neither there nor predicted costs nothing.
        exclude_background: Leave class 0 out of the mean.
    """

    def coefficients(self, overlap: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
        """Intersection over union."""
        return (overlap + self.smooth) / (true + predicted - overlap + self.smooth)


class TverskyLoss(_RegionLoss):
    """One minus the soft Tversky index (arXiv:1706.05721), mean over classes and samples.

    With alpha and beta 0.5 it is Dice (of half the smoothing), with 1 and 1 Jaccard.

    Args:
        ignore_index: Label of pixels that do not count.
        alpha: What a false positive costs.
        beta: What a false negative costs; above alpha, what is small is found rather than missed.
        smooth: Added to numerator and denominator: a class that is neither there nor predicted costs nothing.
        exclude_background: Leave class 0 out of the mean.
    """

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        alpha: NotNegative = 0.3,
        beta: NotNegative = 0.7,
        smooth: Positive = 1.0,
        exclude_background: bool = False,
    ) -> None:
        super().__init__(ignore_index, smooth=smooth, exclude_background=exclude_background)
        self.alpha = alpha
        self.beta = beta

    def coefficients(self, overlap: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
        """Tversky's index."""
        wrong = self.alpha * (predicted - overlap) + self.beta * (true - overlap)
        return (overlap + self.smooth) / (overlap + wrong + self.smooth)


class SigmoidDiceLoss(DiceLoss):
    """One minus the soft Dice coefficient of class 1, for a binary network with one channel.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator: a sample without class 1 where none is predicted costs nothing.
    """

    def __init__(self, ignore_index: int | None = None, *, smooth: Positive = 1.0) -> None:
        super().__init__(ignore_index, smooth=smooth, exclude_background=True)

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, 1, H, W) float, target (B, H, W) int64 -> () float32."""
        require_one_channel(output, "dice_loss_with_sigmoid")
        return super().forward(output, target)


class SigmoidJaccardLoss(JaccardLoss):
    """One minus the soft intersection over union of class 1, for a binary network with one channel.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator: a sample without class 1 where none is predicted costs nothing.
    """

    def __init__(self, ignore_index: int | None = None, *, smooth: Positive = 1.0) -> None:
        super().__init__(ignore_index, smooth=smooth, exclude_background=True)

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, 1, H, W) float, target (B, H, W) int64 -> () float32."""
        require_one_channel(output, "jaccard_loss_with_sigmoid")
        return super().forward(output, target)


class SigmoidTverskyLoss(TverskyLoss):
    """One minus the soft Tversky index of class 1, for a binary network with one channel.

    Args:
        ignore_index: Label of pixels that do not count.
        alpha: What a false positive costs.
        beta: What a false negative costs.
        smooth: Added to numerator and denominator: a sample without class 1 where none is predicted costs nothing.
    """

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        alpha: NotNegative = 0.3,
        beta: NotNegative = 0.7,
        smooth: Positive = 1.0,
    ) -> None:
        super().__init__(ignore_index, alpha=alpha, beta=beta, smooth=smooth, exclude_background=True)

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, 1, H, W) float, target (B, H, W) int64 -> () float32."""
        require_one_channel(output, "tversky_loss_with_sigmoid")
        return super().forward(output, target)
