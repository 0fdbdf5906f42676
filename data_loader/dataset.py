"""Pairs of photos and masks as samples of a network's input."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from data_loader.batches import Origin, PlacedSample
from data_loader.cache import DecodedPair, PairCache
from data_loader.free_transforms import FreeTransforms
from data_loader.labels import Labels
from data_loader.pairs import Pair
from data_loader.preprocessing import Preprocessing, in_8_bits, place_mask
from data_loader.transforms import Augmentation
from utils.seeding import derive_seed


class SegmentationDataset(Dataset[PlacedSample]):
    """Pairs of photos and masks.

    Args:
        pairs: Files.
        preprocessing: Makes a network's input of a photo.
        labels: Gives the allowed values of masks.
        augmentation: What happens to a sample in training; None for evaluation, whose samples carry their origin.
        transforms: Albumentations' transforms, before the augmentation; in training only.
        cache_mb: Most memory for decoded pairs; None: a quarter of what is free.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        preprocessing: Preprocessing,
        labels: Labels,
        *,
        augmentation: Augmentation | None = None,
        transforms: Sequence[Any] = (),
        cache_mb: int | None = None,
    ) -> None:
        self.pairs = list(pairs)
        self.preprocessing = preprocessing
        self.labels = labels
        self.augmentation = augmentation
        self._transforms = FreeTransforms(transforms, labels.ignored) if transforms else None
        self._cache = PairCache(
            self.pairs, preprocessing, labels, keeps_masks_whole=augmentation is None, cache_mb=cache_mb
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> PlacedSample:
        """Sample `index` with draws that follow from the index alone; loaders call `sample`."""
        return self.sample(index, np.random.default_rng(derive_seed("sample", index)))

    def prepare(self, indices: Iterable[int] | None = None) -> None:
        """Check these pairs (or all) and decode what fits into memory.

        Raises:
            DataError: Something is wrong with at least one pair.
        """
        self._cache.prepare(range(len(self)) if indices is None else indices)

    def sample(self, index: int, generator: np.random.Generator) -> PlacedSample:
        """Sample `index`, its draws from `generator`; in evaluation with its origin.

        Raises:
            DataError: A file is missing or unreadable, or the two do not fit.
        """
        pair = self._cache.load(index)
        if self.augmentation is None:
            return self._evaluated(pair, index)
        picture, mask = pair.picture, pair.mask
        if self._transforms is not None:
            picture, mask = self._transforms(in_8_bits(picture), mask.copy(), generator)
        return PlacedSample(*self.augmentation(picture, mask, self.preprocessing, self.labels.ignored, generator))

    def without_target(self, sample: PlacedSample) -> PlacedSample:
        """The sample with every pixel ignored."""
        return sample._replace(mask=np.full_like(sample.mask, self.labels.ignored))

    def _evaluated(self, pair: DecodedPair, index: int) -> PlacedSample:
        geometry = self.preprocessing.geometry(pair.original)
        placed = self.preprocessing.place(pair.picture, geometry)
        mask = place_mask(pair.mask, geometry, self.labels.ignored)
        return PlacedSample(placed, mask, Origin(str(self.pairs[index].picture), pair.mask, geometry, index))
