"""Whether an exported network still is the one that it was made of, on real images."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from base.base_inference import BaseInference
from base.base_metric import Metric
from base.base_model import class_logits, main_output
from base.data.samples import NamedMask
from utils.errors import DataError, ExportError
from utils.geometry import Geometry, restore_logits

TOLERANCE = 1e-3  # of probabilities; two ways of computing in float32 differ by about 1e-5


class Sample(NamedTuple):
    """An image or series to compare on.

    Attributes:
        inputs: (C, H, W) float32, of a series (V, T).
        geometry: How the image lies on it; None where the network gives one class for all of it.
        target: What is true, where that is known: (h, w) int64 ids at the mask's own size, or () of one class.
    """

    inputs: Tensor
    geometry: Geometry | None = None
    target: Tensor | None = None


@dataclass(frozen=True)
class Comparison:
    """How far the two networks differ.

    Attributes:
        samples: How many images or series were compared.
        largest_difference: Of any probability.
        agreement: Share of the pixels, or of the samples, with the same class.
        scores: mIoU, or accuracy, of the checkpoint and of the exported network; None where no truth is known.
        has_masks: Whether there is a class for each pixel.
    """

    samples: int
    largest_difference: float
    agreement: float
    scores: tuple[float, float] | None
    has_masks: bool = True

    def text(self) -> str:
        """As a line for the console."""
        name, units, counted = ("mIoU", "pixels", "pictures") if self.has_masks else ("accuracy", "samples", "samples")
        parts = [f"{self.samples} {counted}: largest difference of a probability {self.largest_difference:.1e}"]
        if self.scores is not None:
            parts.append("{} of the checkpoint {:.4f}, exported {:.4f}".format(name, *self.scores))
        parts.append(f"same class for {self.agreement:.4%} of the {units}")
        return ", ".join(parts)

    def require_equal(self, tolerance: float = TOLERANCE) -> None:
        """Refuse an export that is another network.

        Raises:
            ExportError: A probability differs by more than the tolerance, or is no number.
        """
        if not self.largest_difference <= tolerance:
            raise ExportError(
                f"The exported network is not the checkpoint's, and nothing was written. {self.text()}. They may "
                f"differ by {tolerance:g}. Try the other --format, or another --opset."
            )


def samples_of_loader(loader: Iterable[Any]) -> Iterator[Sample]:
    """The samples of a loader for evaluation, which hands over each mask at its own size, or classes."""
    for inputs, targets, sources in loader:
        for own, target, source in zip(inputs, targets, sources, strict=True):
            if isinstance(source, NamedMask):
                yield Sample(own, source.geometry, source.target)
            else:
                yield Sample(own, None, target)


def samples_of_images(images: Iterable[NDArray[Any]], inference: BaseInference) -> Iterator[Sample]:
    """Images (h, w, 3 or 4) RGB, or series (V, T), of which nothing is known, as samples of a network."""
    for image in images:
        inputs, geometry = inference.prepare(image)
        yield Sample(torch.from_numpy(inputs), geometry)


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
        make_metric: Gives a metric of one result, which knows what target counts nowhere.
        has_masks: Whether there is a class for each pixel.

    Raises:
        DataError: There is no sample.
    """
    metrics = make_metric(), make_metric()
    for metric in metrics:
        metric.reset()
    largest, same, places, count, judged = 0.0, 0, 0, 0, 0
    for sample in samples:
        count += 1
        logits = [class_logits(main_output(each(sample.inputs[None])).float()) for each in (network, exported)]
        left, right = (each.softmax(dim=1) for each in logits)
        # A NaN must not be lost: max() of Python would drop it.
        largest = float(torch.stack([(left - right).abs().max(), torch.tensor(largest)]).max())
        same += int((left.argmax(dim=1) == right.argmax(dim=1)).sum())
        places += left[:, 0].numel()
        if sample.target is not None:
            judged += 1
            for metric, own in zip(metrics, logits, strict=True):
                metric.update(_as_judged(own, sample), sample.target[None])
    if count == 0:
        raise DataError("There is nothing to compare the networks on. Name some images or series: --source PATH.")
    scores = (_only(metrics[0]), _only(metrics[1])) if judged else None
    return Comparison(count, largest, same / places, scores, has_masks)


def _as_judged(logits: Tensor, sample: Sample) -> Tensor:
    """Logits (1, K, H, W) at the mask's own size; those of a class (1, K) as they are."""
    if sample.geometry is None or sample.target is None:
        return logits
    return restore_logits(logits[0], sample.geometry, (sample.target.shape[-2], sample.target.shape[-1]))[None]


def _only(metric: Metric) -> float:
    (value,) = metric.compute().values()
    return float(value)
