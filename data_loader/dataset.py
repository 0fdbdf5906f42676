"""One picture and its mask as tensors, and a list of them as a batch. B batch, C channels, H, W size of the input."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from base.sample import Source
from data_loader.cache import DecodedPair, PairCache
from data_loader.free_transforms import FreeTransforms
from data_loader.labels import Labels
from data_loader.pairs import Pair
from data_loader.preprocessing import Preprocessing, full_scale, place_mask
from data_loader.transforms import Augmentation
from utils.errors import DataError
from utils.geometry import Geometry
from utils.seeding import derive_seed


class SegmentationDataset(Dataset[Any]):
    """Pairs of photos and masks.

    Args:
        pairs: Files.
        preprocessing: Makes a network's input of a photo.
        labels: Gives the allowed values of masks.
        augmentation: What happens to a sample in training; None for evaluation, whose samples carry a `Source`.
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

    def __getitem__(self, index: int) -> Any:
        """Sample `index` with draws that follow from the index alone; loaders call `sample`."""
        return self.sample(index, np.random.default_rng(derive_seed("sample", index)))

    def prepare(self, indices: Iterable[int] | None = None) -> None:
        """Check these pairs (or all) and decode what fits into memory.

        Raises:
            DataError: Something is wrong with at least one pair.
        """
        self._cache.prepare(range(len(self)) if indices is None else indices)

    def sample(self, index: int, generator: np.random.Generator) -> Any:
        """Sample `index`, its draws from `generator`.

        Returns:
            Image (C, H, W) float32 and mask (H, W) int64; in evaluation also a `Source`, whose target is uint8 or
            uint16 until a batch is made of it.

        Raises:
            DataError: A file is missing or unreadable, or the two do not fit.
        """
        pair = self._cache.load(index)
        if self.augmentation is None:
            return self._evaluated(pair, index)
        picture, mask = pair.picture, pair.mask
        if self._transforms is not None:
            picture, mask = self._transforms(_in_8_bits(picture), mask.copy(), generator)
        placed, placed_mask = self.augmentation(picture, mask, self.preprocessing, self.labels.ignored, generator)
        return self._image(placed), torch.from_numpy(placed_mask.astype(np.int64))

    def without_target(self, sample: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The sample with every pixel ignored."""
        return sample[0], torch.full_like(sample[1], self.labels.ignored)

    def _evaluated(self, pair: DecodedPair, index: int) -> tuple[Tensor, Tensor, Source]:
        geometry = self.preprocessing.geometry(pair.original)
        image = self._image(self.preprocessing.place(pair.picture, geometry))
        mask = place_mask(pair.mask, geometry, self.labels.ignored)
        source = Source(str(self.pairs[index].picture), torch.from_numpy(pair.mask.copy()), geometry, index)
        return image, torch.from_numpy(mask.astype(np.int64)), source

    def _image(self, placed: np.ndarray) -> Tensor:
        """(C, H, W) float32 whose memory is (H, W, C): batches of it are channels-last without another copy."""
        return torch.from_numpy(self.preprocessing.normalized(placed)).permute(2, 0, 1)


class PackedEvaluation(NamedTuple):
    """A batch for evaluation on its way from a worker: all targets in one tensor of their small type.

    Attributes:
        images: (B, C, H, W) float32.
        masks: (B, H, W) int64.
        targets: Masks at their own sizes, one after the other, uint8 or uint16.
        names: File of each sample.
        geometries: Letterbox of each sample.
        indices: Position of each sample in the data set.
    """

    images: Tensor
    masks: Tensor
    targets: Tensor
    names: list[str]
    geometries: list[Geometry]
    indices: list[int]

    def unpack(self) -> tuple[Tensor, Tensor, list[Source]]:
        """Images, masks, and a `Source` per sample."""
        sizes = [geometry.original for geometry in self.geometries]
        parts = torch.split(self.targets, [height * width for height, width in sizes])
        targets = [part.to(torch.int64).reshape(size) for part, size in zip(parts, sizes, strict=True)]
        fields = zip(self.names, targets, self.geometries, self.indices, strict=True)
        return self.images, self.masks, [Source(*values) for values in fields]


def collate_segmentation(samples: list[Any]) -> tuple[Tensor, Tensor] | PackedEvaluation:
    """Make a batch of samples.

    Raises:
        DataError: The pictures differ in size.
    """
    sizes = {tuple(sample[1].shape) for sample in samples}
    if len(sizes) > 1:
        shown = ", ".join(f"{height}x{width}" for height, width in sorted(sizes)[:5])
        raise DataError(
            f"Pictures of different sizes cannot share a batch: {shown}. "
            "Set resize to [height, width], or batch_size to 1."
        )
    # In a worker, default_collate writes straight into the memory that it shares with the main process.
    images = default_collate([sample[0].permute(1, 2, 0) for sample in samples]).permute(0, 3, 1, 2)
    masks = default_collate([sample[1] for sample in samples])
    if len(samples[0]) == 2:
        return images, masks
    sources = [sample[2] for sample in samples]
    return PackedEvaluation(
        images,
        masks,
        torch.cat([source.target.reshape(-1) for source in sources]),
        [source.name for source in sources],
        [source.geometry for source in sources],
        [source.index for source in sources],
    )


def _in_8_bits(picture: np.ndarray) -> np.ndarray:
    if picture.dtype == np.uint8:
        return picture.copy()  # a transform may work in place
    return np.asarray(np.rint(picture * (255.0 / full_scale(picture.dtype))), dtype=np.uint8)
