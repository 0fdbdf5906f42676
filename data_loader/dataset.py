"""Pairs of photos and masks as samples of a network's input."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from data_loader.batches import Origin, PlacedSample
from data_loader.cache import DecodedPair, PairCache
from data_loader.free_transforms import FreeTransforms
from data_loader.labels import Labels
from data_loader.preprocessing import Preprocessing, in_8_bits, place_mask
from data_loader.sources import PairSource
from data_loader.sparse import SparseLabels
from data_loader.transforms import Augmentation
from utils.keyed import derive_seed


class SegmentationDataset(Dataset[PlacedSample]):
    """Pairs of photos and masks.

    Args:
        source: Pictures and masks.
        preprocessing: Makes a network's input of a photo.
        labels: Gives the allowed values of masks.
        augmentation: What happens to a sample in training; None for evaluation, whose samples carry their origin.
        transforms: Albumentations' transforms, before the augmentation; in training only.
        cache_mb: Most memory for decoded pairs; None: a quarter of what is free.
        sparse: Hides labels.
        batch_size: Samples that must come out at one size.
    """

    def __init__(
        self,
        source: PairSource,
        preprocessing: Preprocessing,
        labels: Labels,
        *,
        augmentation: Augmentation | None = None,
        transforms: Sequence[Any] = (),
        cache_mb: int | None = None,
        sparse: SparseLabels | None = None,
        batch_size: int = 1,
    ) -> None:
        self.source = source
        self.preprocessing = preprocessing
        self.labels = labels
        self.augmentation = augmentation
        self._transforms = FreeTransforms(transforms, labels.ignored) if transforms else None
        self._batch_size = batch_size
        self._cache = PairCache(
            source, preprocessing, labels, keeps_masks_whole=augmentation is None, cache_mb=cache_mb, sparse=sparse
        )

    def __len__(self) -> int:
        return len(self.source)

    @property
    def labelled_megapixels(self) -> float | None:
        """Millions of pixels with a class in what was prepared; None where no labels are hidden."""
        pixels = self._cache.labelled_pixels
        return None if pixels is None else pixels / 1e6

    def __getitem__(self, index: int) -> PlacedSample:
        """Sample `index` with draws that follow from the index alone; loaders call `sample`."""
        return self.sample(index, np.random.default_rng(derive_seed("sample", index)))

    def prepare(self, indices: Iterable[int] | None = None) -> None:
        """Check these pairs (or all) and decode what fits into memory.

        Raises:
            DataError: Something is wrong with at least one pair.
        """
        crops = self._transforms is not None  # such a list may bring all to one size: the first batch will tell
        self._cache.prepare(
            range(len(self)) if indices is None else indices,
            one_size_for=1 if crops else self._batch_size,
            may_turn=self.augmentation is not None and self.augmentation.rotate > 0,
        )

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

    def target(self, index: int) -> np.ndarray:
        """The mask of pair `index` at its own size, (h, w) ids, not augmented."""
        return self._cache.load_mask(index)

    def without_target(self, sample: PlacedSample) -> PlacedSample:
        """The sample with every pixel ignored."""
        return sample._replace(mask=np.full_like(sample.mask, self.labels.ignored))

    def _evaluated(self, pair: DecodedPair, index: int) -> PlacedSample:
        geometry = self.preprocessing.geometry(pair.original)
        placed = self.preprocessing.place(pair.picture, geometry)
        mask = place_mask(pair.mask, geometry, self.labels.ignored)
        return PlacedSample(placed, mask, Origin(self.source.names(index)[0], pair.mask, geometry, index))
