"""Losses that are a mean over pixels: cross-entropy and its kin."""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from base.base_model import Output
from models.losses.class_weights import DEFAULT_RATIO, Ratio, Weights, class_weights
from models.losses.common import NOTHING_IGNORED, class_ids, is_soft, judged_logits, require_one_channel, weighted_mean

Smoothing = Annotated[float, Field(ge=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Exponent = Annotated[float, Field(ge=0.0)]


class _ClassWeighted(nn.Module):
    """What losses with class weights share.

    Args:
        ignore_index: Label of pixels that do not count.
        weight: One number per class, or the rule that makes them: `balanced`, `log` or `bounded`; see
            `models.losses.class_weights`. The mean is then weighted, as torch's is.
        max_weight_ratio: For `bounded`: the largest weight over the smallest.
        num_classes: K, to check the weights against.
        class_counts: Pixels of each class in the training data; a rule needs them, and the loader counts them.

    Raises:
        ConfigError: Not one weight per class, or a rule without counts.
    """

    weight: Tensor | None

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        weight: Weights = None,
        max_weight_ratio: Ratio = DEFAULT_RATIO,
        num_classes: int | None = None,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.ignore_index = NOTHING_IGNORED if ignore_index is None else ignore_index
        numbers = class_weights(weight, class_counts, num_classes=num_classes, max_ratio=max_weight_ratio)
        self.register_buffer("weight", None if numbers is None else torch.tensor(numbers).float(), persistent=False)

    def target_weights(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, ...) float32: the weight of each pixel, 0 where it does not count."""
        if is_soft(logits, target):
            ones = torch.ones(logits.shape[1], device=logits.device)
            weights = ones if self.weight is None else self.weight
            return (weights.view(-1, *[1] * (target.dim() - 2)) * target.float()).sum(dim=1)
        valid = target != self.ignore_index
        return valid.float() if self.weight is None else self.weight[target.where(valid, 0)] * valid


class CrossEntropyLoss(_ClassWeighted):
    """Cross-entropy, mean over the valid pixels.

    The target may also hold shares, (B, K, ...) float, as mixup makes them: each class then costs in proportion, and a
    pixel without any share does not count.

    Args:
        ignore_index: Label of pixels that do not count.
        weight: One number per class, or the rule that makes them: "balanced", "log" or "bounded".
        max_weight_ratio: For "bounded": the largest weight over the smallest.
        label_smoothing: Share of each target that is spread over all classes (arXiv:1512.00567, section 7).
        num_classes: K, to check the weights against.
        class_counts: Pixels of each class in the training data; a rule needs them, and the loader counts them.

    Raises:
        ConfigError: Not one weight per class, or a rule without counts.
    """

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
        super().__init__(
            ignore_index,
            weight=weight,
            max_weight_ratio=max_weight_ratio,
            num_classes=num_classes,
            class_counts=class_counts,
        )
        self.label_smoothing = label_smoothing

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, K, H, W) float, target (B, H, W) int64 or (B, K, H, W) float -> () float32."""
        logits = judged_logits(output)
        with torch.autocast(logits.device.type, enabled=False):
            soft = is_soft(logits, target)
            # The reduction "none" is the one that is deterministic on CUDA.
            losses = F.cross_entropy(
                logits,
                target.float() if soft else class_ids(logits, target, "ce_loss"),
                self.weight,
                ignore_index=NOTHING_IGNORED if soft else self.ignore_index,
                reduction="none",
                label_smoothing=self.label_smoothing,
            )
            weights = self.target_weights(logits, target)
            return weighted_mean(losses * (weights > 0) if soft else losses, weights)


class BinaryCrossEntropyLoss(CrossEntropyLoss):
    """Cross-entropy of a binary network with one channel, through its sigmoid; class 1 is the positive one.

    Args:
        ignore_index: Label of pixels that do not count.
        weight: Numbers for class 0 and 1, or the rule that makes them: "balanced", "log" or "bounded".
        max_weight_ratio: For "bounded": the largest weight over the smallest.
        label_smoothing: Share of each target that is spread over both classes.
        num_classes: 2, to check the weights against.
        class_counts: Pixels of each class in the training data; a rule needs them, and the loader counts them.
    """

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, 1, H, W) float, target (B, H, W) int64 -> () float32."""
        require_one_channel(output, "bce_loss")
        return super().forward(output, target)


class OhemCrossEntropyLoss(_ClassWeighted):
    """Cross-entropy of the hard pixels alone (online hard example mining, arXiv:1604.03540).

    Hard are the pixels whose true class got at most `threshold`, and in any case the `min_kept` hardest per sample of
    the batch. The mean is over those that are kept. Under several processes each one chooses among its own.

    Args:
        ignore_index: Label of pixels that do not count.
        threshold: Probability of the true class up to which a pixel is hard.
        min_kept: Pixels that are kept at least: so many times the samples in the batch, from all of it.
        weight: One number per class, or the rule that makes them: "balanced", "log" or "bounded".
        max_weight_ratio: For "bounded": the largest weight over the smallest.
        num_classes: K, to check the weights against.
        class_counts: Pixels of each class in the training data; a rule needs them, and the loader counts them.
    """

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
        super().__init__(
            ignore_index,
            weight=weight,
            max_weight_ratio=max_weight_ratio,
            num_classes=num_classes,
            class_counts=class_counts,
        )
        self.largest_easy_loss = -math.log(threshold)
        self.min_kept = min_kept

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, K, H, W) float, target (B, H, W) int64 -> () float32."""
        logits = judged_logits(output)
        with torch.autocast(logits.device.type, enabled=False):
            ids = class_ids(logits, target, "ohem_loss")
            losses = F.cross_entropy(logits, ids, ignore_index=self.ignore_index, reduction="none")
            weights = self.target_weights(logits, ids) * self._is_kept(losses.detach(), ids)
            return weighted_mean(losses * weights, weights)

    def _is_kept(self, losses: Tensor, target: Tensor) -> Tensor:
        """(B, ...) bool; nothing here waits for the device."""
        ranked = losses.where(target != self.ignore_index, -1.0)  # behind every valid pixel
        kept = min(self.min_kept * len(losses), losses.numel())
        smallest_kept = ranked.flatten().topk(kept).values[-1]
        return ranked >= smallest_kept.clamp(max=self.largest_easy_loss)


class FocalLoss(_ClassWeighted):
    """Cross-entropy times (1 - p)^gamma, p the probability of the true class (arXiv:1708.02002), mean over pixels.

    Args:
        ignore_index: Label of pixels that do not count.
        gamma: 0 is cross-entropy; the larger, the less do easy pixels cost.
        weight: One number per class (the paper's alpha), or the rule that makes them: "balanced", "log" or "bounded".
        max_weight_ratio: For "bounded": the largest weight over the smallest.
        num_classes: K, to check the weights against.
        class_counts: Pixels of each class in the training data; a rule needs them, and the loader counts them.
    """

    def __init__(
        self,
        ignore_index: int | None = None,
        *,
        gamma: Exponent = 2.0,
        weight: Weights = None,
        max_weight_ratio: Ratio = DEFAULT_RATIO,
        num_classes: int | None = None,
        class_counts: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            ignore_index,
            weight=weight,
            max_weight_ratio=max_weight_ratio,
            num_classes=num_classes,
            class_counts=class_counts,
        )
        self.gamma = gamma

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, K, H, W) float, target (B, H, W) int64 -> () float32."""
        logits = judged_logits(output)
        with torch.autocast(logits.device.type, enabled=False):
            losses = focal_losses(logits, class_ids(logits, target, "focal_loss"), self.gamma, self.ignore_index)
            weights = self.target_weights(logits, target)
            return weighted_mean(losses * weights, weights)


class SigmoidFocalLoss(nn.Module):
    """The focal loss of a binary network with one channel, as its paper has it (arXiv:1708.02002), mean over pixels.

    Args:
        ignore_index: Label of pixels that do not count.
        gamma: 0 is cross-entropy; the larger, the less do easy pixels cost.
        alpha: Factor of class 1; that of class 0 is 1 - alpha. null: both are 1.
    """

    def __init__(self, ignore_index: int | None = None, *, gamma: Exponent = 2.0, alpha: Share | None = 0.25) -> None:
        super().__init__()
        self.ignore_index = NOTHING_IGNORED if ignore_index is None else ignore_index
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, 1, H, W) float, target (B, H, W) int64 -> () float32."""
        require_one_channel(output, "focal_loss_with_sigmoid")
        logits = judged_logits(output)
        with torch.autocast(logits.device.type, enabled=False):
            ids = class_ids(logits, target, "focal_loss_with_sigmoid")
            losses = focal_losses(logits, ids, self.gamma, self.ignore_index)
            if self.alpha is not None:
                losses = losses * ((ids == 1) * self.alpha + (ids != 1) * (1 - self.alpha))
            return weighted_mean(losses, (ids != self.ignore_index).float())


def focal_losses(logits: Tensor, target: Tensor, gamma: float, ignore_index: int) -> Tensor:
    """The focal loss of each pixel, (B, ...) float32, 0 where the label is ignored."""
    losses = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    # The slope of x^gamma has no bound at 0 where gamma is below 1.
    missing = -torch.expm1(-losses)
    result: Tensor = losses * missing.clamp(min=torch.finfo(missing.dtype).eps) ** gamma
    return result
