"""Metrics over a data set: counts that are summed over its batches and divided once."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


def class_ids(target: Tensor, ignored: int | None = None) -> Tensor:
    """Return a target as one class per pixel or sample, (B, ...) int64.

    Args:
        target: (B, ...) ids, which are returned as they are, or (B, K, ...) float probabilities, of which the largest
            counts.
        ignored: The id of a pixel whose probabilities are all 0; None: -1, which is no class.
    """
    if not target.is_floating_point():
        return target
    probability, ids = target.max(dim=1)
    return torch.where(probability > 0, ids, -1 if ignored is None else ignored)


class Metric(ABC):
    """Counts summed over a data set, so that the batch size cannot change the result.

    A subclass stores its counts in `self.counts` (a float64 or int64 tensor, any shape, zero after `reset`): that
    tensor is summed over processes, and a checkpoint inside an epoch holds it.
    """

    counts: Tensor

    @abstractmethod
    def reset(self) -> None:
        """Set the counts to zero."""

    @abstractmethod
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            logits: (B, K, H, W) float, or (B, K).
            target: (B, H, W) int64, or (B,).
        """

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return name -> value over everything added; NaN if nothing was."""

    def counts_key(self) -> object:
        """Return a key that is equal for metrics that count the same thing, which is then counted once."""
        return id(self)
