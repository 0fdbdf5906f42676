"""Two loaders of training data as one."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from base.base_data_loader import BaseDataLoader
from base.samples import DESCRIBED
from utils.errors import ConfigError

_OF_ONE_SAMPLE = ("sample", "target", "sample_identity", "sample_names", "raw_sample")


class JoinedDataset(Dataset[Any]):
    """Data sets one after the other, with the methods of `base.samples` that all of them offer.

    Args:
        parts: Map-style data sets of one kind.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)
        self._ends = list(accumulate(map(len, self.parts)))
        for name in _OF_ONE_SAMPLE:
            if all(hasattr(part, name) for part in self.parts):
                setattr(self, name, partial(self._call, name))
        if all(hasattr(part, "prepare") for part in self.parts):
            self.prepare = self._prepare
        if all(hasattr(part, "is_in_memory") for part in self.parts):
            self.is_in_memory = self._is_in_memory
        if all(hasattr(part, "without_target") for part in self.parts):
            self.without_target = self.parts[0].without_target

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Any:
        """Return a sample of the part that has it."""
        number, place = self._find(index)
        return self.parts[number][place]

    def _find(self, index: int) -> tuple[int, int]:
        """Return the number of the part that has a sample, and its index there."""
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def _call(self, name: str, index: int, *more: Any) -> Any:
        number, place = self._find(index)
        return getattr(self.parts[number], name)(place, *more)

    def _prepare(self, indices: Sequence[int]) -> None:
        """Check or decode samples, those of each part together."""
        for part, places in self._places(indices):
            part.prepare(places)

    def _is_in_memory(self, indices: Sequence[int]) -> bool:
        return all(part.is_in_memory(places) for part, places in self._places(indices))

    def _places(self, indices: Sequence[int]) -> list[tuple[Any, list[int]]]:
        """Return each part with the indices that the samples of it have there."""
        found = list(map(self._find, indices))
        return [(part, [place for owner, place in found if owner == each]) for each, part in enumerate(self.parts)]


def joined_loader(first: BaseDataLoader, second: BaseDataLoader) -> BaseDataLoader:
    """Return a loader of training data over the samples of two, which loads as the first one does.

    Raises:
        ConfigError: They have samples in common.
    """
    common = _names_of(first) & _names_of(second)
    if common:
        example = ", ".join(min(common))
        raise ConfigError(
            f'trainer.train_on: "train+valid", and {len(common)} samples of the validation data are training data, too '
            f'({example}). Each would be learned twice. Name other data in one of them, or write "train".'
        )
    indices = np.concatenate([first.keys.indices, second.keys.indices + len(first.dataset)])
    loader = BaseDataLoader(
        JoinedDataset([first.dataset.dataset, second.dataset.dataset]),
        first.keys.batch_size,
        shuffle=first.keys.shuffle,
        n_workers=first.n_workers,
        collate_fn=first.collate,
        validation_dataset=JoinedDataset([first.plain_dataset, second.plain_dataset]),
        seed=first.seed,
        pin_memory=first.asked_pin_memory,
        drop_last=first.keys.drop_last,
        is_training=True,
        indices=indices.tolist(),
    )
    for name in DESCRIBED:
        setattr(loader, name, getattr(first, name))
    loader.listing_faults = (*first.listing_faults, *second.listing_faults)
    return loader


def _names_of(loader: BaseDataLoader) -> set[tuple[str, ...]]:
    """Return the files of all samples, with their folders; none if the data set does not know them."""
    names = getattr(loader.dataset.dataset, "sample_names", None)
    return set() if names is None else {tuple(names(index)) for index in loader.keys.indices.tolist()}
