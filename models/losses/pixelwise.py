"""Losses that are a mean over pixels: cross-entropy and its variants."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from base.class_weights import DEFAULT_RATIO
from models.losses.common import NOTHING_IGNORED, ClassWeightedLoss, Ratio, Weights, weighted_mean

Smoothing = Annotated[float, Field(ge=0.0, lt=1.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Exponent = Annotated[float, Field(ge=0.0)]

BLOCK_NUMBERS = 2**17  # 512 KB of float32


def pixel_cross_entropy(logits: Tensor, target: Tensor, **options: Any) -> Tensor:
    """Return the cross-entropy of each pixel, (B, ...) float32.

    Without gradients, channels-last logits on a processor are divided into blocks of rows: torch makes a contiguous
    copy, which stays in the processor's cache if it is small. For 150 classes at 512x512 this takes 0.3 s of processor
    time, and 1.3 s without blocks. The numbers are the same.

    Args:
        logits: (B, K, ...) float32.
        target: (B, ...) int64, or (B, K, ...) float32.
        options: Of `torch.nn.functional.cross_entropy`, except for `reduction`.
    """
    # "none" is the one reduction that is deterministic on CUDA.
    if logits.dim() != 4 or logits.is_contiguous() or not logits.is_cpu or logits.requires_grad:
        return F.cross_entropy(logits, target, reduction="none", **options)
    batch, num_classes, _, width = logits.shape
    # With a multiple of 64 pixels of each image in a block, the same pixels share a vector instruction as without
    # blocks, so that they are rounded in the same way.
    step = 64 // math.gcd(width, 64)
    rows = max(step, BLOCK_NUMBERS // (batch * num_classes * width) // step * step)
    blocks = zip(torch.split(logits, rows, dim=2), torch.split(target, rows, dim=-2), strict=True)
    return torch.cat([F.cross_entropy(z.contiguous(), y, reduction="none", **options) for z, y in blocks], dim=1)


class CrossEntropyLoss(ClassWeightedLoss):
    """Cross-entropy, mean over the valid pixels.

    The target may also hold probabilities, (B, K, ...) float, as mixup makes them: each class then costs in proportion,
    and a pixel whose probabilities are all 0 does not count.

    Args:
        ignore_index: Label of pixels that do not count.
        weight: One number per class, or the rule that makes them: "balanced", "log" or "bounded".
        max_weight_ratio: For "bounded": the largest weight over the smallest.
        label_smoothing: Fraction of each target that is distributed over all classes (arXiv:1512.00567, section 7).
        num_classes: K, to check the weights against.
        class_counts: Pixels of each class in the training data; a rule needs them, and the loader counts them.

    Raises:
        ConfigError: Not one weight per class, or a rule without counts.
    """

    name = "ce_loss"
    takes_probabilities = True

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        weight: Weights = None,
        max_weight_ratio: Ratio = DEFAULT_RATIO,
        label_smoothing: Smoothing = 0.0,
        num_classes: int | None = None,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__(ignore_index, weight, class_counts, num_classes, max_weight_ratio)
        self.label_smoothing = label_smoothing

    def compute(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B, K, ...) float32, target (B, ...) int64 or (B, K, ...) float -> () float32."""
        soft = target.is_floating_point()
        losses = pixel_cross_entropy(
            logits,
            target.float() if soft else target,
            weight=self.weight,
            ignore_index=NOTHING_IGNORED if soft else self.ignore_index,
            label_smoothing=self.label_smoothing,
        )
        weights = self.target_weights(target)
        # With label smoothing a pixel without any probability would cost something, too.
        return weighted_mean(losses * (weights > 0) if soft else losses, weights)


class BinaryCrossEntropyLoss(CrossEntropyLoss):
    """Cross-entropy of a binary network with one channel, through its sigmoid; class 1 is the positive one.

    Args:
        ignore_index: Label of pixels that do not count.
        weight: Numbers for class 0 and 1, or the rule that makes them: "balanced", "log" or "bounded".
        max_weight_ratio: For "bounded": the largest weight over the smallest.
        label_smoothing: Fraction of each target that is distributed over both classes.
        num_classes: 2, to check the weights against.
        class_counts: Pixels of each class in the training data; a rule needs them, and the loader counts them.
    """

    name = "bce_loss"
    needs_one_channel = True


class NegativeLogLikelihood(CrossEntropyLoss):
    """Cross-entropy under the name that pytorch-template has for it.

    For a network that gives logarithms of probabilities it is the negative log-likelihood, since the softmax of these
    is the probabilities; logits are taken, too.

    Args:
        ignore_index: Label of pixels that do not count.
    """

    name = "nll_loss"

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__(ignore_index)


class OhemCrossEntropyLoss(ClassWeightedLoss):
    """Cross-entropy of the hard pixels alone (online hard example mining, arXiv:1604.03540).

    A pixel is hard if its true class got at most `threshold`; in any case the `min_kept` hardest per sample of the
    batch are. The mean is over these. It is a statistic of the batch: accumulated batches, and those of several
    processes, each choose among their own pixels, and count by the pixels that are not ignored.

    Args:
        ignore_index: Label of pixels that do not count.
        threshold: Probability of the true class up to which a pixel is hard.
        min_kept: Least number of pixels in the mean, per sample; they are chosen from the whole batch.
        weight: One number per class, or the rule that makes them: "balanced", "log" or "bounded".
        max_weight_ratio: For "bounded": the largest weight over the smallest.
        num_classes: K, to check the weights against.
        class_counts: Pixels of each class in the training data; a rule needs them, and the loader counts them.
    """

    name = "ohem_loss"

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7,
        min_kept: Annotated[int, Field(ge=1)] = 10_000,
        weight: Weights = None,
        max_weight_ratio: Ratio = DEFAULT_RATIO,
        num_classes: int | None = None,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__(ignore_index, weight, class_counts, num_classes, max_weight_ratio)
        self.largest_easy_loss = -math.log(threshold)
        self.min_kept = min_kept

    def compute(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B, K, ...) float32, target (B, ...) int64 -> () float32."""
        losses = pixel_cross_entropy(logits, target, ignore_index=self.ignore_index)
        # The threshold stays a tensor: reading its value would wait for the device.
        ranked = losses.detach().where(target != self.ignore_index, -1.0)  # ignored pixels last
        count = min(self.min_kept * len(losses), losses.numel())
        smallest_kept = ranked.flatten().topk(count).values[-1]
        is_hard = ranked >= smallest_kept.clamp(max=self.largest_easy_loss)
        # Equally hard pixels at the limit are all in the mean: topk() would choose among them by chance.
        weights = self.target_weights(target) * is_hard
        return weighted_mean(losses * weights, weights)

    def batch_weight(self, target: Tensor) -> Tensor | None:
        """Return None: the logits decide which pixels are in the mean."""
        return None


class FocalLoss(ClassWeightedLoss):
    """Cross-entropy times (1 - p)^gamma, p the probability of the true class (arXiv:1708.02002), mean over pixels.

    Args:
        ignore_index: Label of pixels that do not count.
        gamma: 0 is cross-entropy; the larger, the less do easy pixels cost.
        weight: One number per class, or the rule that makes them: "balanced", "log" or "bounded".
        max_weight_ratio: For "bounded": the largest weight over the smallest.
        num_classes: K, to check the weights against.
        class_counts: Pixels of each class in the training data; a rule needs them, and the loader counts them.
        alpha: The paper's factor of class 1 of two, that of class 0 being 1 - alpha; unlike `weight`, it is not
            divided by in the mean. null: both are 1.
        sigmoid: Take only the one channel of a binary network.
    """

    name = "focal_loss"

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        gamma: Exponent = 2.0,
        weight: Weights = None,
        max_weight_ratio: Ratio = DEFAULT_RATIO,
        num_classes: int | None = None,
        class_counts: Sequence[int] | None = None,
        alpha: Fraction | None = None,
        sigmoid: bool = False,
    ) -> None:
        super().__init__(ignore_index, weight, class_counts, num_classes, max_weight_ratio, sigmoid=sigmoid)
        self.gamma = gamma
        self.alpha = alpha

    def compute(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B, K, ...) float32, target (B, ...) int64 -> () float32."""
        losses = pixel_cross_entropy(logits, target, ignore_index=self.ignore_index)
        missing = -torch.expm1(-losses)
        # The slope of x^gamma has no bound at 0 if gamma is below 1.
        losses = losses * missing.clamp(min=torch.finfo(missing.dtype).eps) ** self.gamma
        if self.alpha is not None:
            losses = losses * torch.where(target == 1, self.alpha, 1 - self.alpha)
        weights = self.target_weights(target)
        return weighted_mean(losses * weights, weights)
