"""From samples in bytes to a batch of tensors. B batch, C channels, H, W size of the input."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from base.data.samples import NamedMask
from data_loader.common.image_cache import DecodedPair, PairCache
from data_loader.images.augmentation import Augmentation, FreeTransforms
from data_loader.images.preprocessing import Preprocessing, in_8_bits, place_mask
from data_loader.segmentation.labels import Labels
from data_loader.segmentation.sources import PairSource
from data_loader.segmentation.sparse_labels import SparseLabels
from utils.errors import DataError
from utils.geometry import Geometry
from utils.seeds import derive_seed


class PlacedSample(NamedTuple):
    """An image as it lies on the input, not normalised yet, and its mask.

    Attributes:
        image: (H, W, C) uint8 or uint16, of arrays also float32.
        mask: (H, W) uint8 or uint16.
        origin: Where it came from, in evaluation.
    """

    image: np.ndarray
    mask: np.ndarray
    origin: "Origin | None" = None


class Origin(NamedTuple):
    """What becomes a `base.data.samples.NamedMask`.

    Attributes:
        name: The photo's file.
        target: (h, w) uint8 or uint16, the mask at its own size.
        geometry: How the image lies on the input.
        position: Position in the data set.
    """

    name: str
    target: np.ndarray
    geometry: Geometry
    position: int


@dataclass(frozen=True)
class PackedEvaluation:
    """A batch for evaluation on its way from a worker: all targets in one tensor of their small type.

    Attributes:
        images: (B, C, H, W) float32.
        masks: (B, H, W) int64.
        targets: Masks at their own sizes, one after the other, uint8 or uint16.
        names: File of each sample.
        geometries: Letterbox of each sample.
        positions: Position of each sample in the data set.
    """

    images: Tensor
    masks: Tensor
    targets: Tensor
    names: list[str]
    geometries: list[Geometry]
    positions: list[int]

    def pin_memory(self) -> "PackedEvaluation":
        """The same with images and masks in page-locked memory; DataLoader would also turn the sizes into lists."""
        return replace(self, images=self.images.pin_memory(), masks=self.masks.pin_memory())

    def unpack(self) -> tuple[Tensor, Tensor, list[NamedMask]]:
        """Images, masks, and a `NamedMask` per sample."""
        sizes = [geometry.original for geometry in self.geometries]
        parts = torch.split(self.targets, [height * width for height, width in sizes])
        targets = [part.to(torch.int64).reshape(size) for part, size in zip(parts, sizes, strict=True)]
        fields = zip(self.names, targets, self.geometries, self.positions, strict=True)
        return self.images, self.masks, [NamedMask(*values) for values in fields]


class SegmentationCollate:
    """Makes a batch of samples, normalising each image straight into its place.

    Args:
        preprocessing: Knows how to normalise.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def __call__(self, samples: Sequence[PlacedSample]) -> tuple[Tensor, Tensor] | PackedEvaluation:
        """Images (B, C, H, W) float32, channels-last in memory, and masks (B, H, W) int64; packed in evaluation.

        Raises:
            DataError: The images differ in size.
        """
        require_one_size([sample.mask.shape for sample in samples])
        images = _empty((len(samples), *samples[0].image.shape), torch.float32)
        masks = _empty((len(samples), *samples[0].mask.shape), torch.int64)
        for image, mask, sample in zip(images.numpy(), masks.numpy(), samples, strict=True):
            self.preprocessing.normalize_into(image, sample.image)
            mask[...] = sample.mask
        origins = [sample.origin for sample in samples if sample.origin is not None]
        if not origins:
            return images.permute(0, 3, 1, 2), masks
        return PackedEvaluation(
            images.permute(0, 3, 1, 2),
            masks,
            torch.from_numpy(np.concatenate([origin.target.reshape(-1) for origin in origins])),
            [origin.name for origin in origins],
            [origin.geometry for origin in origins],
            [origin.position for origin in origins],
        )


def require_one_size(shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuse a batch of different sizes (height, width).

    Raises:
        DataError: Two of them differ.
    """
    sizes = sorted(set(shapes))
    if len(sizes) > 1:
        shown = ", ".join(f"{height}x{width}" for height, width in sizes[:5])
        raise DataError(
            f"Images of different sizes cannot share a batch: {shown}. "
            "Set resize to [height, width], or batch_size to 1."
        )


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An empty tensor; in a worker in memory shared with the main process, which then needs no copy."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(prod(shape) * dtype.itemsize)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload,no-any-return]


class SegmentationDataset(Dataset[PlacedSample]):
    """Pairs of photos and masks.

    Args:
        source: Images and masks.
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
        image, mask = pair.image, pair.mask
        if self._transforms is not None:
            image, mask = self._transforms(in_8_bits(image), mask.copy(), generator)
        return PlacedSample(*self.augmentation(image, mask, self.preprocessing, self.labels.ignored, generator))

    def target(self, index: int) -> np.ndarray:
        """The mask of pair `index` at its own size, (h, w) ids, not augmented."""
        return self._cache.load_mask(index)

    def without_target(self, sample: PlacedSample) -> PlacedSample:
        """The sample with every pixel ignored."""
        return sample._replace(mask=np.full_like(sample.mask, self.labels.ignored))

    def _evaluated(self, pair: DecodedPair, index: int) -> PlacedSample:
        geometry = self.preprocessing.geometry(pair.original)
        placed = self.preprocessing.place(pair.image, geometry)
        mask = place_mask(pair.mask, geometry, self.labels.ignored)
        return PlacedSample(placed, mask, Origin(self.source.names(index)[0], pair.mask, geometry, index))
