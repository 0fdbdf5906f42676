"""Synchronous successive halving."""

from collections.abc import Iterator

from search.schedulers.bookkeeping import check_halving, check_least
from search.schedulers.synchronous import Plan, SynchronousScheduler, rung_epochs


class SuccessiveHalving(SynchronousScheduler):
    """Trains all a little, the better ones more, the best in full (Jamieson and Talwalkar 2016, arXiv:1502.07943).

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.
        grace_period: Epochs of the first rung; see `rung_epochs` for the others.
        reduction_factor: Of n candidates, n // reduction_factor ** k come to rung k, at least one.
        bracket_size: Candidates that are compared with each other; None: all. The last bracket takes what is left.

    Raises:
        ConfigError: A number does not fit.
    """

    def __init__(
        self,
        num_samples: int,
        max_epochs: int,
        *,
        grace_period: int = 1,
        reduction_factor: int = 3,
        bracket_size: int | None = None,
    ) -> None:
        check_halving(max_epochs, grace_period, reduction_factor)
        if bracket_size is not None:
            check_least("bracket_size", bracket_size, 1)
        self._grace_period = grace_period
        self._bracket_size = bracket_size or num_samples
        super().__init__(num_samples, max_epochs, reduction_factor=reduction_factor)

    def _plan(self) -> Iterator[Plan]:
        levels = rung_epochs(self.max_epochs, self._grace_period, self._reduction_factor)
        while True:
            yield Plan(self._bracket_size, levels)
