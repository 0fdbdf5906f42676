"""The boundary loss (arXiv:1812.07032): probabilities weighted by their distance from the true contour."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.losses.common import LogitLoss, weighted_mean
from utils.errors import ConfigError

HALF_A_PIXEL = 0.5  # the contour runs between two pixels, whose centres are a pixel apart


class BoundaryLoss(LogitLoss):
    """Sum over classes of probability times signed distance from the class's true contour, mean over valid pixels.

    Probability outside the class costs, more with the distance; inside it gains. So the value may be negative, and it
    is to be combined with a loss of regions (the paper's sum of the two: a list in `loss`). Two things differ from the
    paper: distances are a fraction of the image's diagonal, so that the resolution does not change the value, and the
    contour runs half-way between the pixels of its two sides. A class that the truth of an image does not show, or
    shows everywhere, has no contour and costs nothing. Ignored pixels are on neither side. The distances are computed
    on the processor: on a GPU, this loss waits for the labels.

    Args:
        ignore_index: Label of pixels that do not count.
        exclude_background: Leave class 0 out of the sum, as the paper does; its contour is that of the others.
    """

    name = "boundary_loss"

    def __init__(self, ignore_index: int | None = None, *, exclude_background: bool = True) -> None:
        super().__init__(ignore_index)
        self.first_class = int(exclude_background)

    def compute(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B, K, H, W) float32, target (B, H, W) int64 -> () float32.

        Raises:
            ConfigError: The target is not an image.
        """
        if target.dim() != 3:
            raise ConfigError(
                f"boundary_loss got a target of shape {tuple(target.shape)}: it needs masks (B, H, W), since only "
                "an image has contours. Use another loss."
            )
        classes = range(self.first_class, logits.shape[1])
        masks = target.cpu().numpy()
        distances = np.zeros((len(masks), len(classes), *masks.shape[1:]), np.float32)
        for of_image, mask in zip(distances, masks, strict=True):
            valid = mask != self.ignore_index
            for of_class, number in zip(of_image, classes, strict=True):
                of_class[:] = signed_distance((mask == number) & valid, (mask != number) & valid)
        distances /= np.hypot(*masks.shape[1:]).astype(np.float32)
        costs = (logits.softmax(dim=1)[:, self.first_class :] * torch.from_numpy(distances).to(logits.device)).sum(
            dim=1
        )
        valid_pixels = target != self.ignore_index
        return weighted_mean(costs * valid_pixels, valid_pixels)

    def batch_weight(self, target: Tensor) -> Tensor | None:
        """Return the number of valid pixels, () float64."""
        return (target != self.ignore_index).sum(dtype=torch.float64)


def signed_distance(inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the exact distance in pixels from the contour between two sets, negative inside.

    Args:
        inside: (H, W) the one set.
        outside: (H, W) the other; the distance of pixels of neither is that from `inside`.

    Returns:
        (H, W) float32; 0 everywhere if one of the sets is empty.
    """
    if not inside.any() or not outside.any():
        return np.zeros(inside.shape, np.float32)
    to_inside, to_outside = (
        cv2.distanceTransform(np.where(pixels, 0, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for pixels in (inside, outside)
    )
    result: NDArray[np.float32] = np.where(inside, HALF_A_PIXEL - to_outside, to_inside - HALF_A_PIXEL)
    return result.astype(np.float32)
