"""The synchronous schedulers: random search, successive halving and Hyperband."""

from collections.abc import Iterator, Sequence

from search.schedulers.base import check_at_least, check_halving
from search.schedulers.synchronous import BracketSizes, SynchronousScheduler
from utils.errors import ConfigError

GRACE_PERIOD, REDUCTION_FACTOR = 1, 3


def rung_epochs(max_epochs: int, grace_period: int, reduction_factor: int) -> tuple[int, ...]:
    """Return the epochs of the rungs: grace_period, each next reduction_factor times it, and at last max_epochs.

    One that is nearer to max_epochs than half a step (by their ratio) is left out: comparing at 27 epochs saves
    nothing if 28 are a full training. From 2 in threes: 2, 6, 18, 50 for 50 and 2, 6, 20 for 20.
    """
    levels = []
    epochs = grace_period
    while epochs**2 * reduction_factor <= max_epochs**2:
        levels.append(epochs)
        epochs *= reduction_factor
    return (*levels, max_epochs)


def bracket_sizes(num_rungs: int, reduction_factor: int) -> list[int]:
    """Return the candidates of each bracket, that with the most rungs first.

    A bracket of s + 1 rungs, of num_rungs = s_max + 1 at most, begins with the smallest whole number that is at least
    (s_max + 1) / (s + 1) * reduction_factor ** s (Li et al. 2018, https://arxiv.org/abs/1603.06560, Algorithm 1).
    """
    halvings = range(num_rungs - 1, -1, -1)
    return [-(-num_rungs * reduction_factor**halving // (halving + 1)) for halving in halvings]


class RandomSearch(SynchronousScheduler):
    """Training in full of every candidate: the baseline of all other schedulers.

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.
    """

    def _bracket_sizes(self) -> Iterator[BracketSizes]:
        while True:
            yield BracketSizes(self.num_samples, (self.max_epochs,), ())


class SuccessiveHalving(SynchronousScheduler):
    """Successive halving: all candidates train a little, the better ones more, the best in full.

    Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943.

    Args:
        num_samples: Candidates to try.
        max_epochs: Epochs of a full training.
        grace_period: Epochs of the first rung; see `rung_epochs` for the others.
        reduction_factor: Of n candidates, n // reduction_factor ** k are promoted to rung k, at least one.
        rungs: Instead of these two, each rung before the full training as [epochs, factor], from which one in `factor`
            is promoted: of 120 candidates, [[2, 6], [6, 4], [18, 2]] trains 20 beyond 2 epochs, 5 beyond 6 and 2
            beyond 18.
        bracket_size: Candidates that are compared with each other; None: all. The last bracket takes the rest.

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
            check_at_least("bracket_size", bracket_size, 1)
        if rungs is None:
            self._levels = rung_epochs(max_epochs, grace_period, reduction_factor)
            self._factors = (reduction_factor,) * (len(self._levels) - 1)
        else:
            if (grace_period, reduction_factor) != (GRACE_PERIOD, REDUCTION_FACTOR):
                raise ConfigError(
                    f"rungs {rungs} with grace_period {grace_period} and reduction_factor {reduction_factor}: rungs "
                    "say both. Leave out either rungs or the other two."
                )
            _check_rungs(rungs, max_epochs)
            # A full training follows the last of them without a factor.
            self._levels = (*(epochs for epochs, _ in rungs), max_epochs)
            self._factors = tuple(factor for _, factor in rungs)
        self._bracket_size = bracket_size or num_samples
        super().__init__(num_samples, max_epochs)

    def _bracket_sizes(self) -> Iterator[BracketSizes]:
        while True:
            yield BracketSizes(self._bracket_size, self._levels, self._factors)


def _check_rungs(rungs: Sequence[tuple[int, int]], max_epochs: int) -> None:
    levels = [epochs for epochs, _ in rungs]
    if levels != sorted(set(levels)) or not all(0 < epochs < max_epochs for epochs in levels):
        raise ConfigError(
            f"rungs at {levels} epochs: must ascend from at least 1 and end before the {max_epochs} epochs of a full "
            "training, which is not one of them. Write e.g. [[2, 6], [6, 4], [18, 2]]."
        )
    for _, factor in rungs:
        check_at_least("rungs: a factor of", factor, 2)


class Hyperband(SynchronousScheduler):
    """Brackets of successive halving that begin with few epochs for many candidates or with many epochs for few.

    The brackets with s_max, ..., 1, 0 halvings follow each other, again and again until num_samples candidates have
    been drawn; the last bracket takes the rest and its rungs shrink accordingly. The rungs are those of successive
    halving: a bracket with s halvings has the last s + 1 of them. Li et al. 2018, https://arxiv.org/abs/1603.06560.

    Args:
        num_samples: Candidates to try, in all brackets together.
        max_epochs: Epochs of a full training.
        grace_period: Epochs of the first rung of the first bracket.
        reduction_factor: One in `reduction_factor` is promoted to the next rung.

    Raises:
        ConfigError: A number does not fit.
    """

    def __init__(self, num_samples: int, max_epochs: int, *, grace_period: int = 1, reduction_factor: int = 3) -> None:
        check_halving(max_epochs, grace_period, reduction_factor)
        self._grace_period = grace_period
        self._reduction_factor = reduction_factor
        super().__init__(num_samples, max_epochs)

    def _bracket_sizes(self) -> Iterator[BracketSizes]:
        levels = rung_epochs(self.max_epochs, self._grace_period, self._reduction_factor)
        sizes = bracket_sizes(len(levels), self._reduction_factor)
        while True:
            for first, size in enumerate(sizes):  # a later bracket begins at a later rung
                rungs = levels[first:]
                yield BracketSizes(size, rungs, (self._reduction_factor,) * (len(rungs) - 1))
