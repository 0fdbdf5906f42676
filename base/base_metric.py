"""Metrics over a data set: counts that are summed over its batches and divided once."""

from abc import ABC, abstractmethod

from torch import Tensor


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
