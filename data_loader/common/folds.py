"""Cross-validation: the samples divided into folds, each of which is held out once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

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
    """Return the samples that a loader draws from and those that it holds out, by its folds.

    Args:
        loading: With or without `folds`.
        count: Number of samples.

    Returns:
        Two ascending int64 arrays of indices; None without folds.

    Raises:
        ConfigError: The folds are wrong, or `validation_split` holds samples out, too.
    """
    if loading.folds is None:
        return None
    if loading.validation_split:
        raise ConfigError("folds and validation_split both hold samples out. Remove one of them.")
    others, fold = Folds.parse(loading.folds, loading.seed).split(count)
    trains = loading.is_training if loading.role is None else loading.role == "train"
    return (others, fold) if trains else (fold, fold[:0])
