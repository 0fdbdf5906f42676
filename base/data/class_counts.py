"""Number of training targets of each class, for losses that weigh classes by it."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from utils.environment import available_processors

_THREADS = 4


@runtime_checkable
class TargetSource(Protocol):
    """A data set that can give a target without its input, and without augmentation."""

    def target(self, index: int) -> Any:
        """Return the target of sample `index` at its original size; labels hidden in training are ignored."""


def count_targets(
    dataset: TargetSource, indices: Sequence[int], num_classes: int, ignore_index: int | None
) -> list[int]:
    """Return the number of labels of each class in the targets of some samples, in any order.

    Args:
        dataset: Gives the targets.
        indices: The samples.
        num_classes: Labels outside 0..K-1 do not count.
        ignore_index: A label that does not count either.
    """
    with ThreadPoolExecutor(min(_THREADS, available_processors())) as pool:
        parts = pool.map(lambda index: _count(dataset.target(index), num_classes, ignore_index), indices)
        total: NDArray[np.int64] = sum(parts, np.zeros(num_classes, np.int64))
        return [int(count) for count in total]


def count_batches(batches: Iterable[Any], num_classes: int, ignore_index: int | None) -> list[int]:
    """Return the number of labels of each class in batches, at their original size if known."""
    total: NDArray[np.int64] = np.zeros(num_classes, np.int64)
    for _, target, *named in batches:
        for labels in (sample.target for sample in named[0]) if named else (target,):
            total += _count(labels, num_classes, ignore_index)
    return [int(count) for count in total]


def _count(target: Any, num_classes: int, ignore_index: int | None) -> NDArray[np.int64]:
    labels = np.asarray(target).reshape(-1)
    if labels.dtype.itemsize > 2 or labels.dtype.kind != "u":  # bincount needs small values without sign
        labels = labels[(labels >= 0) & (labels < num_classes)].astype(np.int64)
    counts = np.bincount(labels, minlength=num_classes)[:num_classes].astype(np.int64)
    if ignore_index is not None and 0 <= ignore_index < num_classes:
        counts[ignore_index] = 0
    return counts
