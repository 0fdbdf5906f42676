"""Losses that compare whole regions: Dice, Jaccard, Tversky. B batch, K classes, N pixels of a sample."""

from abc import abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from models.losses.common import NOTHING_IGNORED, LogitLoss, weighted_mean

Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


class RegionLoss(LogitLoss):
    """One minus a soft coefficient of overlap, mean over classes and samples.

    Each sample has its coefficients, so that the loss of a batch is the mean over its samples and does not depend on
    how they are distributed over batches or processes. Samples without valid pixels do not count.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator: a class that is neither there nor predicted costs nothing.
        exclude_background: Leave class 0 out of the mean.
        sigmoid: Take only the one channel of a binary network.
    """

    takes_probabilities = True

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        smooth: Positive = 1.0,
        exclude_background: bool = False,
        sigmoid: bool = False,
    ) -> None:
        super().__init__(ignore_index, sigmoid=sigmoid)
        self.smooth = smooth
        self.first_class = int(exclude_background)

    @abstractmethod
    def coefficients(self, overlap: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
        """Return the coefficient of each class, (B, K) float32.

        Args:
            overlap: (B, K), sum of truth times probability.
            true: (B, K), sum of the truth.
            predicted: (B, K), sum of the probabilities.
        """

    def compute(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B, K, ...) float32, target (B, ...) int64 or (B, K, ...) float -> () float32."""
        batch, num_classes = logits.shape[:2]
        if target.is_floating_point():
            truth = target.float().reshape(batch, num_classes, -1)
        else:
            if 0 <= self.ignore_index < num_classes:
                target = target.masked_fill(target == self.ignore_index, NOTHING_IGNORED)
            # Not one_hot(), which refuses ignored labels.
            labels = target.reshape(batch, 1, -1).to(torch.int16)
            classes = torch.arange(num_classes, dtype=torch.int16, device=target.device)[:, None]
            truth = (labels == classes).to(logits.dtype)
        # (B, K, K): the probability that each class (row) got on the pixels of each true class (column). One matrix
        # product gives every sum that the coefficients need, with a deterministic gradient, in half the time of
        # products with one-hot masks. Ignored pixels are in no column.
        confusion = logits.softmax(dim=1).reshape(batch, num_classes, -1) @ truth.transpose(1, 2)
        overlap = confusion.diagonal(dim1=1, dim2=2)
        losses = 1 - self.coefficients(overlap, confusion.sum(dim=1), confusion.sum(dim=2))
        # The probabilities of a pixel sum to 1, so only a sample without valid pixels has the sum 0.
        counts = confusion.detach().sum(dim=(1, 2)) > 0
        return weighted_mean(losses[:, self.first_class :].mean(dim=1) * counts, counts)


class DiceLoss(RegionLoss):
    """One minus the soft Dice coefficient (arXiv:1606.04797), mean over classes and samples.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator: a class that is neither there nor predicted costs nothing.
        exclude_background: Leave class 0 out of the mean.
        sigmoid: Take only the one channel of a binary network.
    """

    name = "dice_loss"

    def coefficients(self, overlap: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
        """Return the Dice coefficient of each class, (B, K) float32."""
        return (2 * overlap + self.smooth) / (true + predicted + self.smooth)


class JaccardLoss(RegionLoss):
    """One minus the soft intersection over union, mean over classes and samples.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator: a class that is neither there nor predicted costs nothing.
        exclude_background: Leave class 0 out of the mean.
        sigmoid: Take only the one channel of a binary network.
    """

    name = "jaccard_loss"

    def coefficients(self, overlap: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
        """Return the intersection over union of each class, (B, K) float32."""
        return (overlap + self.smooth) / (true + predicted - overlap + self.smooth)


class TverskyLoss(RegionLoss):
    """One minus the soft Tversky index (arXiv:1706.05721), mean over classes and samples.

    With alpha and beta 0.5 it is Dice (of half the smoothing), with 1 and 1 Jaccard.

    Args:
        ignore_index: Label of pixels that do not count.
        alpha: Cost of a false positive.
        beta: Cost of a false negative; above alpha, small things are found rather than missed.
        smooth: Added to numerator and denominator: a class that is neither there nor predicted costs nothing.
        exclude_background: Leave class 0 out of the mean.
        sigmoid: Take only the one channel of a binary network.
    """

    name = "tversky_loss"

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        alpha: NotNegative = 0.3,
        beta: NotNegative = 0.7,
        smooth: Positive = 1.0,
        exclude_background: bool = False,
        sigmoid: bool = False,
    ) -> None:
        super().__init__(ignore_index, smooth=smooth, exclude_background=exclude_background, sigmoid=sigmoid)
        self.alpha = alpha
        self.beta = beta

    def coefficients(self, overlap: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
        """Return the Tversky index of each class, (B, K) float32."""
        wrong = self.alpha * (predicted - overlap) + self.beta * (true - overlap)
        return (overlap + self.smooth) / (overlap + wrong + self.smooth)
