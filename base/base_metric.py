"""Metrics over a data set: counts that are summed over its batches and divided once."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

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
        """Return a key that is equal for metrics that count the same thing; a `MetricSet` then counts it once."""
        return id(self)


class MetricSet:
    """Several metrics that are updated together; those that count the same thing share one tensor.

    Args:
        metrics: Metrics whose `counts_key` are equal share their counts.
    """

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = list(metrics)
        groups: dict[object, list[Metric]] = {}
        for metric in self.metrics:
            groups.setdefault(metric.counts_key(), []).append(metric)
        self._groups = list(groups.values())

    def reset(self) -> None:
        """Set all counts to zero."""
        for metric in self.metrics:
            metric.reset()

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add one batch: logits (B, K, H, W) float, target (B, H, W) int64; or (B, K) and (B,)."""
        for group in self._groups:
            group[0].update(logits, target)

    def counts(self) -> list[Tensor]:
        """Return the counts, one tensor per group, to be summed over processes or saved."""
        return [group[0].counts for group in self._groups]

    def set_counts(self, counts: Iterable[Tensor]) -> None:
        """Replace the counts by (summed) ones."""
        for group, tensor in zip(self._groups, counts, strict=True):
            for metric in group:
                metric.counts = tensor

    def compute(self) -> dict[str, float]:
        """Return name -> value of every metric, in the order given."""
        for first, *others in self._groups:
            for metric in others:
                metric.counts = first.counts  # only the first of a group is updated
        return {name: value for metric in self.metrics for name, value in metric.compute().items()}
