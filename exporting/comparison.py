"""Whether an exported network still is the one that it was made of, on real pictures."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from base.base_inference import BaseInference
from base.base_metric import Metric
from base.output import class_logits, main_output
from utils.errors import DataError, ExportError
from utils.geometry import Geometry, restore_logits

TOLERANCE = 1e-3  # of probabilities; two ways of computing in float32 differ by about 1e-5


class Sample(NamedTuple):
    """A picture to compare on.

    Attributes:
        inputs: (C, H, W) float32.
        geometry: How the picture lies on it.
        target: (h, w) int64 ids at the mask's own size, where there is a mask.
    """

    inputs: Tensor
    geometry: Geometry
    target: Tensor | None = None


@dataclass(frozen=True)
class Comparison:
    """How far the two networks differ.

    Attributes:
        pictures: How many were compared.
        largest_difference: Of any probability.
        agreement: Share of the pixels with the same class.
        miou: Of the checkpoint and of the exported network; None without masks.
    """

    pictures: int
    largest_difference: float
    agreement: float
    miou: tuple[float, float] | None

    def text(self) -> str:
        """As a line for the console."""
        parts = [f"{self.pictures} pictures: largest difference of a probability {self.largest_difference:.1e}"]
        if self.miou is not None:
            parts.append("mIoU of the checkpoint {:.4f}, exported {:.4f}".format(*self.miou))
        parts.append(f"same class for {self.agreement:.4%} of the pixels")
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
    """The samples of a loader for evaluation, which hands over each mask at its own size."""
    for inputs, _, sources in loader:
        for own, source in zip(inputs, sources, strict=True):
            yield Sample(own, source.geometry, source.target)


def samples_of_pictures(pictures: Iterable[NDArray[Any]], inference: BaseInference) -> Iterator[Sample]:
    """Pictures (h, w, 3 or 4) RGB without masks as samples of a network."""
    for picture in pictures:
        inputs, geometry = inference.prepare(picture)
        yield Sample(torch.from_numpy(inputs), geometry)


@torch.inference_mode()
def compare(
    network: nn.Module, exported: nn.Module, samples: Iterable[Sample], make_metric: Callable[[], Metric]
) -> Comparison:
    """Run both networks on the same inputs.

    Args:
        network: The checkpoint's, in evaluation mode.
        exported: The other one.
        samples: Real pictures.
        make_metric: Gives a metric that computes `miou`, and knows which label counts nowhere.

    Raises:
        DataError: There is no picture.
    """
    metrics = make_metric(), make_metric()
    for metric in metrics:
        metric.reset()
    largest, same, pixels, count, judged = 0.0, 0, 0, 0, 0
    for sample in samples:
        count += 1
        logits = [class_logits(main_output(each(sample.inputs[None])).float()) for each in (network, exported)]
        left, right = (each.softmax(dim=1) for each in logits)
        # A NaN must not be lost: max() of Python would drop it.
        largest = float(torch.stack([(left - right).abs().max(), torch.tensor(largest)]).max())
        same += int((left.argmax(dim=1) == right.argmax(dim=1)).sum())
        pixels += left[:, 0].numel()
        if sample.target is not None:
            judged += 1
            size = sample.target.shape[-2], sample.target.shape[-1]
            for metric, own in zip(metrics, logits, strict=True):
                metric.update(restore_logits(own[0], sample.geometry, size)[None], sample.target[None])
    if count == 0:
        raise DataError("There is no picture to compare the networks on. Name some: --source FOLDER.")
    miou = (metrics[0].compute()["miou"], metrics[1].compute()["miou"]) if judged else None
    return Comparison(count, largest, same / pixels, miou)
