"""A metric accumulates counts over a data set and divides once."""

from abc import ABC, abstractmethod

from torch import Tensor


class Metric(ABC):
    """Counts summed over a data set, so that the batch size cannot change the result.

    A subclass keeps its counts in `self.counts` (a float64 or int64 tensor, any shape, zero after `reset`): that tensor
    is what is summed over processes and what a checkpoint in mid-epoch holds.
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
        """Name -> value over everything added; NaN where nothing was."""

    def counts_key(self) -> object:
        """Metrics with equal keys count the same thing; a set of metrics then counts it once."""
        return id(self)
