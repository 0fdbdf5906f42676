"""Synchronous successive halving."""

from collections.abc import Iterator, Sequence

from search.schedulers.bookkeeping import check_halving, check_least
from search.schedulers.synchronous import Plan, SynchronousScheduler, rung_epochs
from utils.errors import ConfigError

GRACE_PERIOD, REDUCTION_FACTOR = 1, 3


class SuccessiveHalving(SynchronousScheduler):
    """Trains all a little, the better ones more, the best in full (Jamieson and Talwalkar 2016, arXiv:1502.07943).

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.
        grace_period: Epochs of the first rung; see `rung_epochs` for the others.
        reduction_factor: Of n candidates, n // reduction_factor ** k come to rung k, at least one.
        rungs: Instead of these two, each rung before the full training as [epochs, factor], where one in `factor`
            goes on from it: of 120 candidates, [[2, 6], [6, 4], [18, 2]] lets 20 train on at 2 epochs, 5 at 6 and 2
            at 18.
        bracket_size: Candidates that are compared with each other; None: all. The last bracket takes what is left.

    Raises:
        ConfigError: A number does not fit.
    """

    def __init__(
        self,
        num_samples: int,
        max_epochs: int,
        *,
        grace_period: int = GRACE_PERIOD,
        reduction_factor: int = REDUCTION_FACTOR,
        rungs: Sequence[tuple[int, int]] | None = None,
        bracket_size: int | None = None,
    ) -> None:
        check_halving(max_epochs, grace_period, reduction_factor)
        if bracket_size is not None:
            check_least("bracket_size", bracket_size, 1)
        if rungs is None:
            self._levels = rung_epochs(max_epochs, grace_period, reduction_factor)
            self._factors = (reduction_factor,) * (len(self._levels) - 1)
        else:
            if (grace_period, reduction_factor) != (GRACE_PERIOD, REDUCTION_FACTOR):
                raise ConfigError(
                    f"rungs {rungs} beside grace_period {grace_period} and reduction_factor {reduction_factor}: rungs "
                    "say both. Leave out either rungs or the other two."
                )
            _check(rungs, max_epochs)
            self._levels = (*(epochs for epochs, _ in rungs), max_epochs)
            self._factors = tuple(factor for _, factor in rungs)
        self._bracket_size = bracket_size or num_samples
        super().__init__(num_samples, max_epochs)

    def _plan(self) -> Iterator[Plan]:
        while True:
            yield Plan(self._bracket_size, self._levels, self._factors)


def _check(rungs: Sequence[tuple[int, int]], max_epochs: int) -> None:
    levels = [epochs for epochs, _ in rungs]
    if levels != sorted(set(levels)) or not all(0 < epochs < max_epochs for epochs in levels):
        raise ConfigError(
            f"rungs at {levels} epochs: must ascend from at least 1 and end before the {max_epochs} epochs of a full "
            "training, which is no rung of its own. Write e.g. [[2, 6], [6, 4], [18, 2]]."
        )
    for _, factor in rungs:
        check_least("rungs: a factor of", factor, 2)
