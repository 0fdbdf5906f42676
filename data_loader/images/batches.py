"""Batches of images as a network takes them."""

from collections.abc import Sequence

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
