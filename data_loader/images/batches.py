"""Batches of images as a network takes them."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from base.loading.packing import Allocate
from data_loader.images.preprocessing import Preprocessing


def normalized_batch(preprocessing: Preprocessing, images: Sequence[np.ndarray], empty: Allocate) -> Tensor:
    """Return images of one size as an input (B, C, H, W) float32, channels-last in memory.

    Args:
        preprocessing: Knows how to normalise.
        images: Each (H, W, C), as it lies on the input.
        empty: Allocates a tensor of a shape and a dtype.
    """
    batch = empty((len(images), *images[0].shape), dtype=torch.float32)
    if len({image.dtype for image in images}) > 1:  # 8 and 16 bits have scales of their own
        for place, image in zip(batch.numpy(), images, strict=True):
            preprocessing.normalize_into(place, image)
    else:
        # As one large image, which OpenCV divides among its threads. Copying 8 bits costs a tenth of normalising them.
        rows = (-1, *images[0].shape[1:])
        preprocessing.normalize_into(batch.numpy().reshape(rows), np.concatenate(images))
    return batch.permute(0, 3, 1, 2)


def compact_images(preprocessing: Preprocessing, images: Sequence[np.ndarray], empty: Allocate) -> Tensor | None:
    """Return images of one size as (B, H, W, C) uint8, for `completed_images`; None if it cannot normalise them.

    Args:
        preprocessing: Knows how to normalise.
        images: Each (H, W, C), as it lies on the input.
        empty: Allocates a tensor of a shape and a dtype.
    """
    if type(preprocessing).normalize_into is not Preprocessing.normalize_into:
        return None
    return stacked(images, empty)


def stacked(arrays: Sequence[np.ndarray], empty: Allocate) -> Tensor | None:
    """Return arrays of one shape as one tensor uint8; None if they have another type."""
    if any(array.dtype != np.uint8 for array in arrays):
        return None
    batch = empty((len(arrays), *arrays[0].shape), dtype=torch.uint8)
    np.stack(arrays, out=batch.numpy())
    return batch


def completed_images(preprocessing: Preprocessing, images: Tensor) -> Tensor:
    """Return images as `normalized_batch` does, to the last bit, on the device that they are on.

    Args:
        preprocessing: Knows how to normalise.
        images: (B, H, W, C) uint8 of `compact_images`.
    """
    scale, shift = (tuple(each.tolist()) for each in (preprocessing.scale, preprocessing.shift))
    white, factor, added = _constants(scale, shift, images.device)
    values = (images.flip(-1) if preprocessing.is_bgr else images).float()
    # One operation after the other, each rounded, as in the table of the preprocessing. A division by a number, not a
    # tensor, would be a multiplication on a GPU.
    return values.div_(white).mul_(factor).add_(added).permute(0, 3, 1, 2)


@cache
def _constants(scale: tuple[float, ...], shift: tuple[float, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Return white, scale and shift on a device; once, since a GPU is waited for."""
    return tuple(torch.tensor(each, dtype=torch.float32, device=device) for each in (255.0, scale, shift))
