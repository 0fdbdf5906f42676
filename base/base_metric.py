"""Metrics over a data set: counts that are summed over its batches and divided once."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from utils.errors import ConfigError

# Other columns of an epoch's row.
TAKEN_NAMES = ("epoch", "step", "lr", "loss", "val_loss")


def class_ids(target: Tensor, ignored: int | None = None) -> Tensor:
    """Return a target as one class per pixel or sample, (B, ...) int64.

    Args:
        target: (B, ...) ids or (B,) float numbers, which are returned as they are, or (B, K, ...) float probabilities,
            of which the largest counts.
        ignored: The id of a pixel whose probabilities are all 0; None: -1, which is no class.
    """
    if not target.is_floating_point() or target.dim() == 1:
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

    def reason_for_nan(self, name: str) -> str:
        """Return why `compute` gives NaN under a name, as a clause for a message."""
        if not self.counts.any():
            return "nothing was counted, since every target is ignored or of no class"
        return f"{type(self).__name__} computed it from what it counted"

    def counts_key(self) -> object:
        """Return a key that is equal for metrics that count the same thing, which is then counted once."""
        return id(self)


def check_result_names(metrics: Mapping[str, Metric]) -> None:
    """Reset metrics, and refuse those whose results would hide each other or another column of an epoch's row.

    Args:
        metrics: JSON path -> metric.

    Raises:
        ConfigError: Two results have the same name, or a metric does not name its results.
    """
    places = dict.fromkeys(TAKEN_NAMES, "the trainer")
    faults: list[str] = []
    for path, metric in metrics.items():
        metric.reset()
        results = metric.compute()
        if not isinstance(results, Mapping):
            faults.append(
                f"{path}: {type(metric).__name__}.compute returned {results!r}, but results have names. Return for "
                f'example {{"found": {results!r}}}.'
            )
            continue
        for name in [each for result in results for each in (result, f"val_{result}")]:
            if name in places and not any(fault.startswith(f"{path}:") for fault in faults):
                faults.append(
                    f'{path}: its result "{name}" is one of {places[name]} already. Each result of an epoch needs a '
                    "name of its own. Remove one of them, or rename it."
                )
            places.setdefault(name, path)
    if faults:
        raise ConfigError("\n".join(faults), [ConfigError(fault) for fault in faults])
