"""Comparison of an exported network with the one of the checkpoint, on real images or series."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from base.base_metric import Metric
from base.base_model import class_logits, main_output
from utils.errors import DataError, ExportError
from utils.geometry import Geometry, restore_logits

TOLERANCE = 1e-3  # of probabilities; two ways of computing in float32 differ by about 1e-5


class Sample(NamedTuple):
    """An image or series to compare on.

    Attributes:
        inputs: (C, H, W) float32, of a series (V, T).
        geometry: The image's place on it; None if the network predicts one class for all of it.
        target: The truth, if it is known: (h, w) int64 ids at the mask's resolution, or () of one class.
    """

    inputs: Tensor
    geometry: Geometry | None = None
    target: Tensor | None = None


@dataclass(frozen=True)
class Comparison:
    """The difference of two networks.

    Attributes:
        samples: Number of images or series that were compared.
        largest_difference: Of any probability.
        agreement: Fraction of the pixels, or of the samples, with the same class.
        scores: mIoU, or accuracy, of the checkpoint and of the exported network; None if no truth is known.
        has_masks: Whether there is a class for each pixel.
    """

    samples: int
    largest_difference: float
    agreement: float
    scores: tuple[float, float] | None
    has_masks: bool = True

    def text(self) -> str:
        """Return a line for the console."""
        name, units, counted = ("mIoU", "pixels", "images") if self.has_masks else ("accuracy", "samples", "samples")
        parts = [f"{self.samples} {counted}: largest difference of a probability {self.largest_difference:.1e}"]
        if self.scores is not None:
            parts.append("{} of the checkpoint {:.4f}, exported {:.4f}".format(name, *self.scores))
        parts.append(f"same class for {self.agreement:.4%} of the {units}")
        return ", ".join(parts)

    def require_equal(self, tolerance: float = TOLERANCE) -> None:
        """Refuse an export that is another network.

        Raises:
            ExportError: A probability differs by more than the tolerance, or is not a number.
        """
        # Not `>`, which is false for NaN.
        if not self.largest_difference <= tolerance:
            raise ExportError(
                f"The exported network is not the checkpoint's, and nothing was written. {self.text()}. They may "
                f"differ by {tolerance:g}. Try the other --format, or another --opset."
            )


@torch.inference_mode()
def compare(
    network: nn.Module,
    exported: nn.Module,
    samples: Iterable[Sample],
    make_metric: Callable[[], Metric],
    *,
    has_masks: bool = True,
) -> Comparison:
    """Run both networks on the same inputs.

    Args:
        network: The checkpoint's, in evaluation mode.
        exported: The other one.
        samples: Real images or series.
        make_metric: Returns a metric of one result, which knows the ignored label.
        has_masks: Whether there is a class for each pixel.

    Raises:
        DataError: There is no sample.
    """
    metrics = make_metric(), make_metric()
    for metric in metrics:
        metric.reset()
    largest, same, pixels, count, has_truth = 0.0, 0, 0, 0, False
    for inputs, geometry, target in samples:
        count += 1
        logits = [class_logits(main_output(each(inputs[None])).float()) for each in (network, exported)]
        left, right = (each.softmax(dim=1) for each in logits)
        # A NaN must not be lost: max() of Python would drop it.
        largest = float(torch.stack([(left - right).abs().max(), torch.tensor(largest)]).max())
        same += int((left.argmax(dim=1) == right.argmax(dim=1)).sum())
        pixels += left[:, 0].numel()
        if target is not None:
            has_truth = True
            size = (target.shape[-2], target.shape[-1]) if geometry else None
            for metric, found in zip(metrics, logits, strict=True):
                metric.update(restore_logits(found[0], geometry, size)[None] if geometry else found, target[None])
    if count == 0:
        raise DataError("There is nothing to compare the networks on. Name some images or series: --source PATH.")
    (of_network,), (of_exported,) = (metric.compute().values() for metric in metrics)
    return Comparison(count, largest, same / pixels, (of_network, of_exported) if has_truth else None, has_masks)
