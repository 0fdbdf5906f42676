"""Hyperband: brackets of successive halving that begin with few epochs for many or with many for few."""

from collections.abc import Iterator

from search.schedulers.bookkeeping import check_halving
from search.schedulers.synchronous import Plan, SynchronousScheduler, rung_epochs


def bracket_sizes(num_rungs: int, reduction_factor: int) -> list[int]:
    """Candidates of each bracket, that with the most rungs first (Li et al. 2018, arXiv:1603.06560, Algorithm 1).

    A bracket of s + 1 rungs, of num_rungs = s_max + 1 at most, begins with the smallest whole number that is at least
    (s_max + 1) / (s + 1) * reduction_factor ** s.
    """
    halvings = range(num_rungs - 1, -1, -1)
    return [-(-num_rungs * reduction_factor**halving // (halving + 1)) for halving in halvings]


class Hyperband(SynchronousScheduler):
    """Hedges between trusting early epochs and not (Li et al. 2018, arXiv:1603.06560).

    The brackets with s_max, ..., 1, 0 halvings follow each other, again and again until num_samples candidates have
    been drawn; the last bracket takes those that are left and its rungs shrink accordingly. The rungs are those of
    successive halving: a bracket with s halvings has the last s + 1 of them.

    Args:
        num_samples: Candidates to try, in all brackets together.
        max_epochs: Epochs of a full training.
        grace_period: Epochs of the first rung of the first bracket.
        reduction_factor: One in so many goes on to the next rung.

    Raises:
        ConfigError: A number does not fit.
    """

    def __init__(self, num_samples: int, max_epochs: int, *, grace_period: int = 1, reduction_factor: int = 3) -> None:
        check_halving(max_epochs, grace_period, reduction_factor)
        self._grace_period = grace_period
        self._reduction_factor = reduction_factor
        super().__init__(num_samples, max_epochs)

    def _plan(self) -> Iterator[Plan]:
        levels = rung_epochs(self.max_epochs, self._grace_period, self._reduction_factor)
        sizes = bracket_sizes(len(levels), self._reduction_factor)
        while True:
            for first, size in enumerate(sizes):
                rungs = levels[first:]
                yield Plan(size, rungs, (self._reduction_factor,) * (len(rungs) - 1))
