"""Whether the true class is among the k most probable ones."""

import torch
from torch import Tensor

from base.base_model import class_logits
from models.layers.blocks import Count
from models.metrics.confusion import ClassMetric
from utils.errors import ConfigError


class TopKAccuracy(ClassMetric):
    """`top{k}_accuracy`: fraction of the samples (or pixels) whose class is among those of the k largest logits.

    Args:
        num_classes: K.
        ignore_index: Label that does not count; if it is a class, it may be among the k for samples of other classes.
            Other labels outside 0..K-1 do not count either.
        k: Number of classes that count as found; among equal logits the first classes.

    Raises:
        ConfigError: There are fewer classes than k.
    """

    def __init__(self, num_classes: Count, ignore_index: int | None = None, *, k: Count = 5) -> None:
        if k > num_classes:
            raise ConfigError(
                f"k is {k} for {num_classes} classes: every answer would be right. Set k to 1 to {num_classes - 1}."
            )
        super().__init__(num_classes, ignore_index, (2,), "top_k", k)  # samples found, samples counted
        self.k = k

    @torch.no_grad()
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            logits: (B, K, ...) float.
            target: (B, ...) int64, or (B, K, ...) float probabilities, of which the largest counts.

        Raises:
            ConfigError: The logits are of another number of classes.
        """
        labels, _, counted = self.checked_labels(logits, target)
        logits = class_logits(logits)[:, : self.num_classes]  # of 1 class only one
        true_class = labels.where(counted, 0)[:, None]
        true_logit = logits.gather(1, true_class)
        classes = torch.arange(self.num_classes, device=logits.device).view(-1, *[1] * (logits.dim() - 2))
        # topk() would have no fixed order among equal logits.
        ahead = ((logits > true_logit) | ((logits == true_logit) & (classes < true_class))).sum(dim=1)
        batch = torch.stack(((counted & (ahead < self.k)).sum(), counted.sum()))
        self.counts = self.counts.to(logits.device) + batch

    def compute(self) -> dict[str, float]:
        """Return the fraction, NaN if nothing was counted."""
        found, counted = self.counts.double().tolist()
        return {self.result_name(): found / counted if counted else float("nan")}

    def result_name(self) -> str:
        """Return the name of the result."""
        return f"top{self.k}_accuracy"


class TopKAcc(TopKAccuracy):
    """`top_k_acc`: as `top_k_accuracy`, with the name and the k of pytorch-template.

    Args:
        num_classes: K.
        ignore_index: Label that does not count.
        k: Number of classes that count as found.
    """

    def __init__(self, num_classes: Count, ignore_index: int | None = None, *, k: Count = 3) -> None:
        super().__init__(num_classes, ignore_index, k=k)

    def result_name(self) -> str:
        """Return the name of the result."""
        return "top_k_acc"
