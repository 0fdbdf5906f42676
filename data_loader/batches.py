"""From samples in bytes to a batch of tensors. B batch, C channels, H, W size of the input."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from base.sample import Source
from data_loader.preprocessing import Preprocessing
from utils.errors import DataError
from utils.geometry import Geometry


class PlacedSample(NamedTuple):
    """A picture as it lies on the input, not normalised yet, and its mask.

    Attributes:
        picture: (H, W, C) uint8 or uint16, of arrays also float32.
        mask: (H, W) uint8 or uint16.
        origin: Where it came from, in evaluation.
    """

    picture: np.ndarray
    mask: np.ndarray
    origin: "Origin | None" = None


class Origin(NamedTuple):
    """What becomes a `base.sample.Source`.

    Attributes:
        name: The photo's file.
        target: (h, w) uint8 or uint16, the mask at its own size.
        geometry: How the picture lies on the input.
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

    def unpack(self) -> tuple[Tensor, Tensor, list[Source]]:
        """Images, masks, and a `Source` per sample."""
        sizes = [geometry.original for geometry in self.geometries]
        parts = torch.split(self.targets, [height * width for height, width in sizes])
        targets = [part.to(torch.int64).reshape(size) for part, size in zip(parts, sizes, strict=True)]
        fields = zip(self.names, targets, self.geometries, self.positions, strict=True)
        return self.images, self.masks, [Source(*values) for values in fields]


class SegmentationCollate:
    """Makes a batch of samples, normalising each picture straight into its place.

    Args:
        preprocessing: Knows how to normalise.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def __call__(self, samples: Sequence[PlacedSample]) -> tuple[Tensor, Tensor] | PackedEvaluation:
        """Images (B, C, H, W) float32, channels-last in memory, and masks (B, H, W) int64; packed in evaluation.

        Raises:
            DataError: The pictures differ in size.
        """
        require_one_size([sample.mask.shape for sample in samples])
        images = _empty((len(samples), *samples[0].picture.shape), torch.float32)
        masks = _empty((len(samples), *samples[0].mask.shape), torch.int64)
        for image, mask, sample in zip(images.numpy(), masks.numpy(), samples, strict=True):
            self.preprocessing.normalize_into(image, sample.picture)
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
            f"Pictures of different sizes cannot share a batch: {shown}. "
            "Set resize to [height, width], or batch_size to 1."
        )


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An empty tensor; in a worker in memory shared with the main process, which then needs no copy."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(prod(shape) * dtype.itemsize)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload,no-any-return]
