"""The letterbox between an image of any size and the input of a network. Sizes are (height, width)."""

from typing import NamedTuple

import torch
from torch import Tensor

Size = tuple[int, int]


class Geometry(NamedTuple):
    """The letterbox of one image.

    Attributes:
        original: Size of the image as read.
        resized: Size after scaling with the aspect ratio of the image.
        offset: (top, left) of the scaled image on the padded input.
        padded: Size of the network's input.
    """

    original: Size
    resized: Size
    offset: Size
    padded: Size


def letterbox_geometry(original: Size, target: Size | None) -> Geometry:
    """Fit an image of size `original` into `target`, centred; without a target its size does not change."""
    if target is None:
        return Geometry(original, original, (0, 0), original)
    scale = min(target[0] / original[0], target[1] / original[1])
    height = max(1, min(target[0], round(original[0] * scale)))
    width = max(1, min(target[1], round(original[1] * scale)))
    offset = ((target[0] - height) // 2, (target[1] - width) // 2)
    return Geometry(original, (height, width), offset, target)


def restore_logits(logits: Tensor, geometry: Geometry, size: Size | None = None) -> Tensor:
    """Convert the logits of a padded input to the size of the image.

    Args:
        logits: (K, H, W) float, of one sample.
        geometry: The letterbox that made the sample's input.
        size: Size of the result; that of the image if None.

    Returns:
        (K, h, w) float, bilinear; the padding is cut off first.
    """
    top, left = geometry.offset
    height, width = geometry.resized
    inside = logits[:, top : top + height, left : left + width]
    wanted = size or geometry.original
    if tuple(inside.shape[1:]) == tuple(wanted):
        return inside
    batch = as_batch(inside.float())
    return torch.nn.functional.interpolate(batch, size=wanted, mode="bilinear", align_corners=False)[0]


def as_batch(sample: Tensor) -> Tensor:
    """Return one sample (C, H, W) as a batch (1, C, H, W) in the same memory and memory format.

    After `sample[None]` torch would not see the channels-last format of it: it computes the same numbers, and copies
    them to the other format. For 150 classes at 512x512 `interpolate` takes 1020 ms of processor time then, else 130.
    For up to three channels it has no kernel of that format, and the copy is cheap.
    """
    channel, row, _ = sample.stride()
    if channel != 1 or sample.shape[0] <= 3:
        return sample[None]
    return sample.as_strided((1, *sample.shape), (row * sample.shape[1], *sample.stride()))
