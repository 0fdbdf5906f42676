"""The boundary loss (arXiv:1812.07032): probabilities weighted by their distance from the true contour."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from base.base_model import Output
from models.losses.common import NOTHING_IGNORED, class_ids, judged_logits
from utils.errors import ConfigError

HALF_A_PIXEL = 0.5  # the contour runs between two pixels, whose centres are a pixel apart


class BoundaryLoss(nn.Module):
    """Sum over classes of probability times signed distance from the class's true contour, mean over valid pixels.

    Probability outside the class costs, the farther off the more; inside it gains. So the value may be negative, and it
    belongs beside a loss of regions (the paper's sum of the two: a list in `loss`). Two things differ from the paper:
    distances are a share of the image's diagonal, so that the resolution does not change the value, and the contour
    runs half-way between the pixels of its two sides. A class that the truth of an image does not show, or shows
    everywhere, has no contour and costs nothing. Ignored pixels are on neither side. The distances are computed on the
    processor: on a GPU, this loss waits for the labels.

    Args:
        ignore_index: Label of pixels that do not count.
        exclude_background: Leave class 0 out of the sum, as the paper does; its contour is that of the others.
    """

    def __init__(self, ignore_index: int | None = None, *, exclude_background: bool = True) -> None:
        super().__init__()
        self.ignore_index = NOTHING_IGNORED if ignore_index is None else ignore_index
        self.first_class = int(exclude_background)

    def forward(self, output: Output, target: Tensor) -> Tensor:
        """Logits (B, K, H, W) float, target (B, H, W) int64 -> () float32.

        Raises:
            ConfigError: The target is no image.
        """
        logits = judged_logits(output)
        with torch.autocast(logits.device.type, enabled=False):
            labels = class_ids(logits, target, "boundary_loss")
            if labels.dim() != 3:
                raise ConfigError(
                    f"boundary_loss got a target of shape {tuple(labels.shape)}: it needs masks (B, H, W), since only "
                    "an image has contours. Use another loss."
                )
            distances = self._distances(labels.cpu().numpy(), logits.shape[1]).to(logits.device)
            costs = (logits.softmax(dim=1)[:, self.first_class :] * distances[:, self.first_class :]).sum(dim=1)
            valid = labels != self.ignore_index
            return (costs * valid).sum() / valid.sum().clamp(min=1)

    def _distances(self, labels: NDArray[np.int64], num_classes: int) -> Tensor:
        """(B, K, H, W) float32."""
        distances = np.zeros((len(labels), num_classes, *labels.shape[1:]), np.float32)
        for image, mask in zip(distances, labels, strict=True):
            valid = mask != self.ignore_index
            for number in range(self.first_class, num_classes):
                image[number] = signed_distance((mask == number) & valid, (mask != number) & valid)
        return torch.from_numpy(distances / np.hypot(*labels.shape[1:]).astype(np.float32))


def signed_distance(inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance in pixels from the contour between two sets, negative inside.

    Args:
        inside: (H, W) the one set.
        outside: (H, W) the other; pixels of neither are as far off as they are from `inside`.

    Returns:
        (H, W) float32; 0 everywhere where one of the sets is empty.
    """
    if not inside.any() or not outside.any():
        return np.zeros(inside.shape, np.float32)
    result: NDArray[np.float32] = np.where(
        inside, HALF_A_PIXEL - _distance_to(outside), _distance_to(inside) - HALF_A_PIXEL
    ).astype(np.float32)
    return result


def _distance_to(pixels: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(H, W) the distance of each pixel from the nearest of a set, exact."""
    zero_there = np.where(pixels, 0, 1).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(zero_there, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
