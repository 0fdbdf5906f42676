"""The rungs and the brackets of halving, in numbers."""

from collections.abc import Sequence

from search.schedulers.base import check_at_least
from utils.errors import ConfigError


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


def interleave(sizes: Sequence[int]) -> list[int]:
    """Deal sum(sizes) candidates to brackets: each to the one that is furthest behind its share.

    Returns:
        The bracket of each candidate.
    """
    counts = [0] * len(sizes)
    order = []
    for drawn in range(1, sum(sizes) + 1):
        behind = [size * drawn - count * sum(sizes) for size, count in zip(sizes, counts, strict=True)]
        order.append(behind.index(max(behind)))
        counts[order[-1]] += 1
    return order


def check_halving(max_epochs: int, grace_period: int, reduction_factor: int) -> None:
    """Raise if no rungs follow from the arguments.

    Raises:
        ConfigError: A number is too small, or the first rung is beyond a full training.
    """
    check_at_least("grace_period", grace_period, 1)
    check_at_least("reduction_factor", reduction_factor, 2)
    if grace_period > max_epochs:
        raise ConfigError(
            f"grace_period {grace_period}: must be at most the {max_epochs} epochs of a full training. "
            f"Set grace_period to {max_epochs} or less, or train longer."
        )
