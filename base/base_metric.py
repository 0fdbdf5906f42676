"""Several metrics over one pass, each kind of counts gathered once."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

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


class MetricSet:
    """Updates each group of metrics that share their counts once per batch.

    Args:
        metrics: Metrics whose `counts_key` are equal count the same thing and share one tensor.
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
        """The counts, one tensor per group: what is summed over processes."""
        return [group[0].counts for group in self._groups]

    def set_counts(self, counts: Iterable[Tensor]) -> None:
        """Put (summed) counts in the place of the own ones."""
        for group, tensor in zip(self._groups, counts, strict=True):
            for metric in group:
                metric.counts = tensor

    def compute(self) -> dict[str, float]:
        """Name -> value of every metric, in the order given."""
        self.set_counts(self.counts())
        results: dict[str, float] = {}
        for metric in self.metrics:
            results.update(metric.compute())
        return results

    def state_dict(self) -> dict[str, Any]:
        """The counts, for a checkpoint in mid-epoch."""
        return {"counts": [tensor.detach().to("cpu", copy=True) for tensor in self.counts()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the counts of a checkpoint."""
        current = self.counts()
        self.set_counts([new.to(old.device) for new, old in zip(state["counts"], current, strict=True)])
