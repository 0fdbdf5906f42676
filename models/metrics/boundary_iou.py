"""Boundary IoU (arXiv:2103.16562): how well contours are met. Plain IoU sees mostly the insides of large things."""

from collections.abc import Hashable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from base.base_metric import Metric
from models.layers.blocks import Count
from models.metrics.confusion import count_codes, hard_target, predictions, require_logits_of
from utils.errors import ConfigError


class BoundaryIoU(Metric):
    """`boundary_iou`: intersection over union of the bands along the contours, mean over the classes.

    The band of a class is what lies within d pixels of its contour and inside it; the edge of the image is a contour,
    too. As in the paper's section 5, d is a share of the diagonal, and a square of side 2d + 1 finds the band. Pixels
    are summed over the data set and divided once; the paper, which judges objects, divides for each one. Ignored pixels
    make no contours, so that a void line between two things is as thin as none.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count. Other labels outside 0..K-1 do not count either.
        distance: d as a share of the image's diagonal; at least a pixel.
        exclude_background: Leave class 0 out.
    """

    def __init__(
        self,
        num_classes: Count,
        ignore_index: int | None = None,
        *,
        distance: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.02,
        exclude_background: bool = False,
    ) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.distance = distance
        self.first_class = int(exclude_background)
        self.reset()

    def reset(self) -> None:
        """Set the counts to zero: (2, K) int64, intersection and union of each class's bands."""
        self.counts = torch.zeros(2, self.num_classes, dtype=torch.int64)

    @torch.no_grad()
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            logits: (B, K, H, W) float.
            target: (B, H, W) int64.

        Raises:
            ConfigError: These are no images, or the logits are of another number of classes.
        """
        require_logits_of(logits, self.num_classes)
        if logits.dim() != 4:
            raise ConfigError(
                f"boundary_iou got logits of shape {tuple(logits.shape)}: it needs (B, K, H, W), since only an image "
                "has contours. Leave it out of metrics."
            )
        truth = hard_target(logits, target)
        judged = (truth >= 0) & (truth < self.num_classes)
        if self.ignore_index is not None:
            judged &= truth != self.ignore_index
        width = max(1, round(self.distance * (logits.shape[2] ** 2 + logits.shape[3] ** 2) ** 0.5))
        predicted = predictions(logits).to(torch.int64)
        true_band, predicted_band = (self._band(labels, judged, width) for labels in (truth, predicted))
        both = true_band & predicted_band & (truth == predicted)
        counted = [self._count(truth, both), self._count(truth, true_band), self._count(predicted, predicted_band)]
        batch = torch.stack((counted[0], counted[1] + counted[2] - counted[0]))
        self.counts = self.counts.to(batch.device) + batch

    def compute(self) -> dict[str, float]:
        """The mean over the classes that have a band in truth or prediction; NaN where none has."""
        intersection, union = self.counts.cpu().double()
        return {"boundary_iou": float((intersection / union)[self.first_class :].nanmean())}

    def counts_key(self) -> Hashable:
        """Equal arguments count the same thing."""
        return ("boundary", self.distance, self.num_classes, self.ignore_index)

    def _band(self, labels: Tensor, judged: Tensor, width: int) -> Tensor:
        """(B, H, W) bool: the judged pixels with another class, or the image's edge, within `width`."""
        lowest = -sliding_maximum(-labels.where(judged, self.num_classes).int(), width)
        highest = sliding_maximum(labels.where(judged, -1).int(), width)
        inner = torch.zeros_like(judged)
        inner[:, width:-width, width:-width] = True
        return judged & ~(inner & (lowest == highest))

    def _count(self, labels: Tensor, chosen: Tensor) -> Tensor:
        """(K,) int64: chosen pixels of each class."""
        return count_codes(labels.where(chosen, self.num_classes), self.num_classes + 1)[:-1]


def sliding_maximum(values: Tensor, reach: int) -> Tensor:
    """The largest value in the square of side 2 reach + 1 around each pixel, cut at the edges.

    Args:
        values: (B, H, W) int32.
        reach: In pixels, 1 or more; some passes, their number growing with its logarithm.
    """
    for dimension in (1, 2):
        values = values.transpose(dimension, -1)
        edge = torch.iinfo(values.dtype).min
        values = torch.nn.functional.pad(values, (reach, reach), value=edge)
        covered, window = 1, 2 * reach + 1
        while covered < window:
            step = min(covered, window - covered)
            values = torch.maximum(values[..., :-step], values[..., step:])
            covered += step
        values = values.transpose(dimension, -1)
    return values
