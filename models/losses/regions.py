"""Losses that compare whole regions: Dice, Jaccard, Tversky. B batch, K classes, N pixels of a sample."""

from abc import abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from models.losses.common import NOTHING_IGNORED, LogitLoss, weighted_mean

Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Absent = Literal["skip", "count"]


class RegionLoss(LogitLoss):
    """One minus a soft coefficient of overlap, mean over the classes of a sample, then over samples.

    Each sample has its coefficients, so that the loss of a batch is the mean over its samples and does not depend on
    how they are distributed over batches or processes. Samples without valid pixels do not count, nor do, with
    `absent` "skip", those whose truth shows none of the classes of the mean.

    Of a class that the truth of a sample lacks, the coefficient only asks whether the sum of its probabilities over the
    whole image is below `smooth`: with "count", 0.05 % on each of 100,000 pixels costs 0.98 of 1. With "skip", a
    false positive costs by the classes whose pixels it takes, and nothing if these are not in the mean.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator, so that both may be 0.
        exclude_background: Leave class 0 out of the mean.
        absent: "skip" leaves a class that the truth of a sample lacks out of its mean; "count" takes it in.
        sigmoid: Take only the one channel of a binary network.
    """

    takes_probabilities = True

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        smooth: Positive = 1.0,
        exclude_background: bool = False,
        absent: Absent = "skip",
        sigmoid: bool = False,
    ) -> None:
        super().__init__(ignore_index, sigmoid=sigmoid)
        self.smooth = smooth
        self.first_class = int(exclude_background)
        self.skips_absent = absent == "skip"

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
            # Not one_hot(), which refuses ignored labels. These may be any number: -1 and K are no class.
            dtype = torch.int16 if num_classes <= torch.iinfo(torch.int16).max else torch.int32
            labels = target.clamp(-1, num_classes).reshape(batch, 1, -1).to(dtype)
            classes = torch.arange(num_classes, dtype=dtype, device=target.device)[:, None]
            truth = (labels == classes).to(logits.dtype)
        overlap, true, predicted = _sums(logits.softmax(dim=1).reshape(batch, num_classes, -1), truth)
        losses = (1 - self.coefficients(overlap, true, predicted))[:, self.first_class :]
        # The probabilities of a pixel sum to 1, so only a class that is absent has the sum 0.
        if self.skips_absent:
            is_present = true.detach()[:, self.first_class :] > 0
            counts = is_present.any(dim=1)
            means = (losses * is_present).sum(dim=1) / is_present.sum(dim=1).clamp(min=1)
        else:
            counts = predicted.detach().sum(dim=1) > 0
            means = losses.mean(dim=1)
        return weighted_mean(means * counts, counts)

    def batch_weight(self, target: Tensor) -> Tensor | None:
        """Return the number of samples that count, () float64."""
        first_class = self.first_class if self.skips_absent else 0
        if target.is_floating_point():
            counts = target[:, first_class:] > 0
        else:
            counts = (target >= first_class) & (target != self.ignore_index)
        return counts.reshape(len(target), -1).any(dim=1).sum(dtype=torch.float64)


def _sums(probabilities: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums that the coefficients need, (B, K) each, of (B, K, N) shares; ignored pixels have no truth."""
    if truth.shape[1] > truth.shape[2]:  # more classes than pixels: their square would be large
        known = truth.sum(dim=1, keepdim=True)
        return (probabilities * truth).sum(dim=2), truth.sum(dim=2), (probabilities * known).sum(dim=2)
    # (B, K, K): the probability that each class (row) got on the pixels of each true class (column). One matrix
    # product gives all sums, with a deterministic gradient, in half the time of products with one-hot masks.
    confusion = probabilities @ truth.transpose(1, 2)
    return confusion.diagonal(dim1=1, dim2=2), confusion.sum(dim=1), confusion.sum(dim=2)


class DiceLoss(RegionLoss):
    """One minus the soft Dice coefficient (arXiv:1606.04797), mean over the classes of a sample, then over samples.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator, so that both may be 0.
        exclude_background: Leave class 0 out of the mean.
        absent: "skip" leaves a class that the truth of a sample lacks out of its mean; "count" takes it in.
        sigmoid: Take only the one channel of a binary network.
    """

    name = "dice_loss"

    def coefficients(self, overlap: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
        """Return the Dice coefficient of each class, (B, K) float32."""
        return (2 * overlap + self.smooth) / (true + predicted + self.smooth)


class JaccardLoss(RegionLoss):
    """One minus the soft intersection over union, mean over the classes of a sample, then over samples.

    Args:
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator, so that both may be 0.
        exclude_background: Leave class 0 out of the mean.
        absent: "skip" leaves a class that the truth of a sample lacks out of its mean; "count" takes it in.
        sigmoid: Take only the one channel of a binary network.
    """

    name = "jaccard_loss"

    def coefficients(self, overlap: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
        """Return the intersection over union of each class, (B, K) float32."""
        return (overlap + self.smooth) / (true + predicted - overlap + self.smooth)


class TverskyLoss(RegionLoss):
    """One minus the soft Tversky index (arXiv:1706.05721), mean over the classes of a sample, then over samples.

    With alpha and beta 0.5 it is Dice (of half the smoothing), with 1 and 1 Jaccard.

    Args:
        ignore_index: Label of pixels that do not count.
        alpha: Cost of a false positive.
        beta: Cost of a false negative; above alpha, small things are found rather than missed.
        smooth: Added to numerator and denominator, so that both may be 0.
        exclude_background: Leave class 0 out of the mean.
        absent: "skip" leaves a class that the truth of a sample lacks out of its mean; "count" takes it in.
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
        absent: Absent = "skip",
        sigmoid: bool = False,
    ) -> None:
        super().__init__(
            ignore_index, smooth=smooth, exclude_background=exclude_background, absent=absent, sigmoid=sigmoid
        )
        self.alpha = alpha
        self.beta = beta

    def coefficients(self, overlap: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
        """Return the Tversky index of each class, (B, K) float32."""
        wrong = self.alpha * (predicted - overlap) + self.beta * (true - overlap)
        return (overlap + self.smooth) / (overlap + wrong + self.smooth)
