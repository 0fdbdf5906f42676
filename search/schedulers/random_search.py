"""Random search: every candidate is trained in full."""

from collections.abc import Iterator

from search.schedulers.synchronous import Plan, SynchronousScheduler


class RandomSearch(SynchronousScheduler):
    """Trains every candidate in full; what any other scheduler is to be measured against.

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.
    """

    def _plan(self) -> Iterator[Plan]:
        while True:
            yield Plan(self.num_samples, (self.max_epochs,), ())
