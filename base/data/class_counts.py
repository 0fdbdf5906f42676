"""How often each class is to be seen in the data that a loader trains on, for losses that weigh classes by it."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from utils.errors import ConfigError
from utils.hardware import available_processors

_THREADS = 4


@runtime_checkable
class TargetSource(Protocol):
    """A data set that can give a target without its input, and without augmentation."""

    def target(self, index: int) -> Any:
        """The target of sample `index` as training sees it (what is hidden there is ignored), at its own size."""


def count_targets(
    dataset: TargetSource, indices: Sequence[int], num_classes: int, ignore_index: int | None
) -> list[int]:
    """Sum the labels of some samples' targets, whatever their order.

    Args:
        dataset: Gives the targets.
        indices: Samples to look at.
        num_classes: Labels outside 0..K-1 do not count.
        ignore_index: A label that does not count either.
    """
    with ThreadPoolExecutor(min(_THREADS, available_processors())) as pool:
        # One after the other as they are asked for: all at once would hold every mask of the data set.
        parts = pool.map(lambda index: _count(dataset.target(index), num_classes, ignore_index), indices)
        return _sum(parts, num_classes)


def count_batches(batches: Iterable[Any], num_classes: int, ignore_index: int | None) -> list[int]:
    """Sum the labels of a loader's batches, of the sources at their own size where it hands them over."""
    return _sum((_count(target, num_classes, ignore_index) for target in _targets(batches)), num_classes)


def required_classes(num_classes: int | None) -> int:
    """The number of classes, which counting needs.

    Raises:
        ConfigError: The loader does not know it.
    """
    if num_classes is None:
        raise ConfigError(
            "the loader does not know how many classes there are, so it cannot count them. Let it have the attribute "
            'num_classes, or write the "weight" of the loss as numbers.'
        )
    return num_classes


def _targets(batches: Iterable[Any]) -> Iterator[Any]:
    for _, target, *rest in batches:
        if rest:
            yield from (source.target for source in rest[0])
        else:
            yield target


def _count(target: Any, num_classes: int, ignore_index: int | None) -> NDArray[np.int64]:
    labels = np.asarray(target).reshape(-1)
    if labels.dtype.itemsize > 2 or labels.dtype.kind != "u":
        labels = labels[(labels >= 0) & (labels < num_classes)].astype(np.int64)
    counts = np.bincount(labels, minlength=num_classes)[:num_classes].astype(np.int64)
    if ignore_index is not None and 0 <= ignore_index < num_classes:
        counts[ignore_index] = 0
    return counts


def _sum(parts: Iterable[NDArray[np.int64]], num_classes: int) -> list[int]:
    total = np.zeros(num_classes, np.int64)
    for part in parts:
        total += part
    return [int(count) for count in total]
