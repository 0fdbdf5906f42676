"""From samples to a batch, where a sample may be a failure and a batch may travel in another form."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from base.keyed_sampler import Failure


@runtime_checkable
class Packed(Protocol):
    """What a worker sends where the batch itself would be costly or impossible to send."""

    def unpack(self) -> Any:
        """The batch, made in the main process."""


class GuardedCollate:
    """Makes a batch of samples unless one of them is a failure, which then takes the batch's place.

    Args:
        collate_fn: List of samples -> batch.
    """

    def __init__(self, collate_fn: Callable[[list[Any]], Any]) -> None:
        self.collate_fn = collate_fn

    def __call__(self, samples: list[Any]) -> Any:
        """The batch, or the first failure."""
        for sample in samples:
            if isinstance(sample, Failure):
                return sample
        return self.collate_fn(samples)


def unpacked(batch: Any) -> Any:
    """A batch as it is to be used.

    Raises:
        EspalierError: What came in the place of the batch.
    """
    if isinstance(batch, Failure):
        raise batch.error
    return batch.unpack() if isinstance(batch, Packed) else batch
