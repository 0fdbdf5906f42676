"""Boundary IoU (arXiv:2103.16562): how well contours are met. Plain IoU sees mostly the insides of large things."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from models.layers.blocks import Count
from models.metrics.confusion import ClassMetric, count_codes
from utils.errors import ConfigError


class BoundaryIoU(ClassMetric):
    """`boundary_iou`: intersection over union of the bands along the contours, mean over the classes.

    The band of a class is the part of it within d pixels of its contour; the edge of the image is a contour, too. As in
    the paper's section 5, d is a fraction of the diagonal, and a square of side 2d + 1 finds the band. Pixels are
    summed over the data set and divided once; the paper, which evaluates objects, divides for each one. Ignored pixels
    make no contours, so that a void line between two things is as thin as none.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count. If it is a class, this class is not in the mean. Other labels
            outside 0..K-1 do not count either.
        distance: d as a fraction of the image's diagonal; at least a pixel.
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
        # Intersection and union of the bands of each class.
        super().__init__(num_classes, ignore_index, (2, num_classes), "boundary", distance)
        self.distance = distance
        self.first_class = int(exclude_background)

    @torch.no_grad()
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            logits: (B, K, H, W) float.
            target: (B, H, W) int64.

        Raises:
            ConfigError: These are no images, or the logits are of another number of classes.
        """
        truth, predicted, counted = self.checked_labels(logits, target)
        if logits.dim() != 4:
            raise ConfigError(
                f"boundary_iou got logits of shape {tuple(logits.shape)}: it needs (B, K, H, W), since only an image "
                "has contours. Leave it out of metrics."
            )
        width = max(1, round(self.distance * (logits.shape[2] ** 2 + logits.shape[3] ** 2) ** 0.5))
        bands = []
        for labels in (truth, predicted):
            # The band: pixels with another class, or the image's edge, within `width`. Around any other pixel the
            # lowest and the highest label are the same.
            lowest = -sliding_maximum(-labels.where(counted, self.num_classes).int(), width)
            highest = sliding_maximum(labels.where(counted, -1).int(), width)
            inner = torch.zeros_like(counted)
            inner[:, width:-width, width:-width] = True
            bands.append(counted & ~(inner & (lowest == highest)))
        true_band, predicted_band = bands
        both, of_truth, of_prediction = (
            count_codes(labels.where(chosen, self.num_classes), self.num_classes + 1)[:-1]
            for labels, chosen in (
                (truth, true_band & predicted_band & (truth == predicted)),
                (truth, true_band),
                (predicted, predicted_band),
            )
        )
        self.counts = self.counts.to(both.device) + torch.stack((both, of_truth + of_prediction - both))

    def compute(self) -> dict[str, float]:
        """Return the mean over the classes that have a band in truth or prediction; NaN if none has."""
        intersection, union = self.counts.cpu().double()
        values = intersection / union
        if self.ignored_class is not None:  # contours that were found of it are errors of the other classes
            values[self.ignored_class] = torch.nan
        return {"boundary_iou": float(values[self.first_class :].nanmean())}


def sliding_maximum(values: Tensor, reach: int) -> Tensor:
    """Return the largest value in the square of side 2 reach + 1 around each pixel, cut at the edges.

    Args:
        values: (B, H, W) int32.
        reach: In pixels, 1 or more; the number of passes grows with its logarithm.
    """
    for dimension in (1, 2):
        values = values.transpose(dimension, -1)
        edge = torch.iinfo(values.dtype).min
        values = torch.nn.functional.pad(values, (reach, reach), value=edge)
        # The maximum over twice as many pixels is that of two neighbouring maxima.
        covered, window = 1, 2 * reach + 1
        while covered < window:
            step = min(covered, window - covered)
            values = torch.maximum(values[..., :-step], values[..., step:])
            covered += step
        values = values.transpose(dimension, -1)
    return values
