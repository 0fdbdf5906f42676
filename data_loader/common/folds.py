"""The samples that a loader draws from and those that it holds out: folds of cross-validation, and random subsets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from base.samples import split_indices
from data_loader.common.options import LoaderOptions
from utils.errors import ConfigError
from utils.seeding import derive_seed

_EXAMPLE = 'Write {"fold": 0, "of": 5}.'


@dataclass(frozen=True)
class Folds:
    """One fold of several; the partition follows from seed, number of folds and number of samples.

    Attributes:
        fold: Number of the fold that is held out, from 0.
        of: Number of folds.
        seed: Seed of the partition.
    """

    fold: int
    of: int
    seed: int = 0

    @classmethod
    def parse(cls, asked: Mapping[str, Any], seed: int) -> Self:
        """Return the fold of a `folds` of the JSON, with `seed` if it has no seed.

        Raises:
            ConfigError: A key is missing or unknown, or a number out of its range.
        """
        if not isinstance(asked, Mapping):
            raise ConfigError(f"Wrong folds {asked!r}: it is an object. {_EXAMPLE}")
        values = {"seed": seed, **asked}
        unknown = sorted(set(values) - {"fold", "of", "seed"})
        if unknown or {"fold", "of"} - set(values):
            raise ConfigError(f"Wrong folds {dict(asked)}: it has fold, of and optionally seed. {_EXAMPLE}")
        if any(isinstance(value, bool) or not isinstance(value, int) for value in values.values()):
            raise ConfigError(f"Wrong folds {dict(asked)}: its values are whole numbers. {_EXAMPLE}")
        if values["of"] < 2 or not 0 <= values["fold"] < values["of"]:
            raise ConfigError(f"Wrong folds {dict(asked)}: of must be 2 or more, and fold from 0 to of - 1. {_EXAMPLE}")
        return cls(**values)

    def split(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (the others, the fold), two ascending int64 arrays of indices that together are 0 to `count` - 1.

        Raises:
            ConfigError: There are fewer samples than folds.
        """
        if count < self.of:
            raise ConfigError(f"{count} samples cannot make {self.of} folds: each must have one. Ask for fewer folds.")
        permutation = np.random.default_rng(derive_seed(self.seed, "folds", self.of)).permutation(count)
        parts = np.array_split(permutation, self.of)
        others = np.concatenate([part for number, part in enumerate(parts) if number != self.fold])
        return np.sort(others), np.sort(parts[self.fold])


def divide_samples(loading: LoaderOptions, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the samples that a loader draws from and those that it holds out, by its folds and its subset.

    A subset is drawn from the samples that folds or `validation_split` leave, so that validation data stays whole.

    Args:
        loading: With or without `folds` and `subset`.
        count: Number of samples.

    Returns:
        Two ascending int64 arrays of indices; None without both.

    Raises:
        ConfigError: The folds or the subset are wrong, or `validation_split` holds samples out, too.
    """
    if loading.folds is None and loading.subset is None:
        return None
    if loading.folds is None:
        split_seed = loading.seed if loading.split_seed is None else loading.split_seed
        others, held_out = split_indices(count, loading.validation_split, split_seed)
    else:
        if loading.validation_split:
            raise ConfigError("folds and validation_split both hold samples out. Remove one of them.")
        others, held_out = Folds.parse(loading.folds, loading.seed).split(count)
        trains = loading.is_training if loading.role is None else loading.role == "train"
        if not trains:
            return held_out, held_out[:0]
    if loading.subset is None:
        return others, held_out
    seed = loading.seed if loading.subset_seed is None else loading.subset_seed
    return draw_subset(others, loading.subset, seed, count), held_out


def draw_subset(indices: np.ndarray, subset: int | float, seed: int, count: int) -> np.ndarray:
    """Draw samples at random, such that with one seed a smaller subset lies in a larger one.

    Args:
        indices: (n,) int64, the samples to draw from.
        subset: A number of samples, an int, or a fraction of n above 0 and up to 1, a float, of which one sample at
            least is drawn.
        seed: Seed of the order in which all samples are drawn.
        count: Number of all samples of the data: `indices` are below it.

    Returns:
        Ascending int64 indices.

    Raises:
        ConfigError: The subset is neither, or larger than n.
    """
    is_count = isinstance(subset, int) and not isinstance(subset, bool)
    size = subset if is_count else max(1, round(len(indices) * subset)) if isinstance(subset, float) else -1
    if not (is_count or (isinstance(subset, float) and 0.0 < subset <= 1.0)) or not 1 <= size <= len(indices):
        raise ConfigError(
            f"Wrong subset {subset!r} of {len(indices)} samples: it must be a fraction above 0 and up to 1.0 "
            f"(0.5 draws half) or a whole number of samples from 1 to {len(indices)}. Set it to null for all."
        )
    order = np.random.default_rng(derive_seed(seed, "subset")).permutation(count)
    return np.sort(order[np.isin(order, indices)][: int(size)])
