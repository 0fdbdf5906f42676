"""The samples with the worst predictions, as images. K is the number of classes, sizes are (height, width)."""

import heapq
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from base.samples import NamedMask, NamedSample
from utils.drawing import Image, class_colors, panel, resize_to, to_displayable, valid_pixels
from utils.images.palette import Palette

Labels = NDArray[np.integer]  # (h, w)

PANEL_HEIGHT = 320
MISSED = (235, 60, 60)  # of two classes: truth is class 1, prediction class 0; of more: any error
INVENTED = (60, 130, 255)
NOT_COUNTED = (120, 120, 120)
SERIES_SIZE = (240, 480)  # height and width
SERIES_BACKGROUND = 18
MAX_VARIABLES = 12


@dataclass(eq=False)
class WorstCases(ABC):
    """The `count` samples of the lowest score. Each is drawn when it enters, so that no inputs are held in memory.

    Args:
        count: Largest number of samples.
    """

    count: int
    _seen: int = field(init=False, default=0)
    # (-score, -index, -order of arrival), facts, image: the best of the worst is the first in the heap.
    _heap: list[tuple[tuple[float, int, int], dict[str, Any], Image]] = field(init=False, default_factory=list)

    @abstractmethod
    def describe(self, sample: Any, logits: Tensor) -> dict[str, Any]:
        """Return name and `score` of a sample, and more facts for the report; a score of NaN leaves the sample out."""

    @abstractmethod
    def draw(self, sample: Any, inputs: Tensor, logits: Tensor, facts: dict[str, Any]) -> Image:
        """Return the sample as an image; `facts` are the result of `describe`."""

    def add(self, sample: Any, inputs: Tensor, logits: Tensor) -> dict[str, Any]:
        """Take in one sample, if it is among the worst so far, and return its facts.

        Args:
            sample: Its name and truth.
            inputs: (C, H, W) or (V, T) float, the network's input.
            logits: (K, h, w) float at the size of the sample's mask, or (K,) float.
        """
        self._seen += 1
        facts = self.describe(sample, logits)
        rank = (-facts["score"], -sample.index, -self._seen)  # no two are equal, so that images are never compared
        is_full = len(self._heap) == self.count
        if math.isnan(facts["score"]) or self.count < 1 or (is_full and rank < self._heap[0][0]):
            return facts
        (heapq.heapreplace if is_full else heapq.heappush)(
            self._heap, (rank, facts, self.draw(sample, inputs, logits, facts))
        )
        return facts

    def ranking(self) -> list[dict[str, Any]]:
        """Return the facts of each sample, the worst first."""
        return [facts for _, facts, _ in sorted(self._heap, key=lambda case: case[0], reverse=True)]

    def write(self, folder: Path) -> list[Path]:
        """Write `worst-01.png`, the worst, and so on; images of an earlier test are replaced."""
        # An earlier test may have written more of them.
        for old in folder.glob("worst-*.png"):
            old.unlink()
        paths = []
        for place, (*_, image) in enumerate(sorted(self._heap, key=lambda case: case[0], reverse=True), start=1):
            paths.append(folder / f"worst-{place:02d}.png")
            write_image(paths[-1], image)
        return paths


@dataclass(eq=False)
class WorstSegmented(WorstCases):
    """The samples of a segmentation with the lowest mIoU.

    Args:
        count: Largest number of samples.
        palette: Colours and names of the K classes.
        ignore_index: Label that does not count.
        score: Returns the mIoU of logits (K, h, w) for a mask (h, w); NaN if no pixel counts.
    """

    palette: Palette
    ignore_index: int | None
    score: Callable[[Tensor, Tensor], float]

    def describe(self, sample: NamedMask, logits: Tensor) -> dict[str, Any]:
        """Return name and score."""
        return {"name": sample.name, "score": self.score(logits, sample.target)}

    def draw(self, sample: NamedMask, inputs: Tensor, logits: Tensor, facts: dict[str, Any]) -> Image:
        """Return input, truth, prediction and errors side by side, above the classes that occur in them."""
        num_classes = len(self.palette.colors)
        truth, prediction = sample.target.cpu().numpy(), logits.argmax(dim=0).cpu().numpy()
        counted = valid_pixels(truth, num_classes, self.ignore_index)
        wrong_fraction = (counted & (truth != prediction)).sum() / max(1, counted.sum())
        height, width = truth.shape
        if height > PANEL_HEIGHT:  # by nearest neighbour, as labels cannot be averaged
            new_width = max(1, round(width * PANEL_HEIGHT / height))
            rows, columns = np.arange(PANEL_HEIGHT) * height // PANEL_HEIGHT, np.arange(new_width) * width // new_width
            truth, prediction = (labels[np.ix_(rows, columns)] for labels in (truth, prediction))
        image = resize_to(image_of(sample, inputs), truth.shape)
        masks = [self.palette.overlay(image, mask, 0.55, self.ignore_index) for mask in (truth, prediction)]
        errors = draw_errors(image, truth, prediction, num_classes, self.ignore_index)
        legend = "red: missed, blue: invented" if num_classes == 2 else "red: wrong"
        first, last = f"{Path(sample.name).name}  mIoU {facts['score']:.3f}", f"{wrong_fraction:.1%} wrong ({legend})"
        drawn = panel([image, *masks, errors], [first, "truth", "prediction", last], PANEL_HEIGHT)
        return self.palette.with_legend(drawn, self.palette.present(truth, prediction))


@dataclass(eq=False)
class WorstClassified(WorstCases):
    """The samples of a classification whose true class has the lowest probability.

    Args:
        count: Largest number of samples.
        class_names: K names.
        ignore_index: Class that does not count.
    """

    class_names: Sequence[str]
    ignore_index: int | None = None

    def describe(self, sample: NamedSample, logits: Tensor) -> dict[str, Any]:
        """Return name, score, truth, prediction and its probability; the score is NaN if the class does not count."""
        probabilities = logits.float().softmax(dim=0).cpu()
        predicted = int(probabilities.argmax())
        is_counted = 0 <= sample.target < len(self.class_names) and sample.target != self.ignore_index
        return {
            "name": sample.name,
            "score": float(probabilities[sample.target]) if is_counted else math.nan,
            "truth": self.class_names[sample.target] if is_counted else "",
            "prediction": self.class_names[predicted],
            "probability": float(probabilities[predicted]),
        }

    def draw(self, sample: NamedSample, inputs: Tensor, logits: Tensor, facts: dict[str, Any]) -> Image:
        """Return the input under the names of both classes."""
        caption = f"{facts['truth']}, taken for {facts['prediction']} ({facts['probability']:.2f})"
        return draw_input(inputs.float().cpu().numpy(), caption)


def draw_errors(
    image: Image, truth: Labels, prediction: Labels, num_classes: int, ignore_index: int | None = None
) -> Image:
    """Return the darkened grey image with the wrong pixels in colour and those that do not count in grey."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) // 2
    drawn = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8, copy=False)
    counted = valid_pixels(truth, num_classes, ignore_index)
    wrong = counted & (truth != prediction)
    drawn[~counted] = NOT_COUNTED
    drawn[wrong] = MISSED
    if num_classes == 2:
        drawn[wrong & (prediction == 1)] = INVENTED
    return drawn


def image_of(source: NamedMask, inputs: Tensor) -> Image:
    """Return the network's input of a sample without its padding, (h', w', 3) uint8 RGB."""
    top, left = source.geometry.offset
    height, width = source.geometry.resized
    return np.ascontiguousarray(to_displayable(inputs.float().cpu().numpy())[top : top + height, left : left + width])


def draw_input(inputs: NDArray[np.float32], caption: str) -> Image:
    """Return the input of a classifier, (C, H, W) as an image or (V, T) as curves, under a caption.

    Of a series the first variables are drawn in one frame, without the padding.
    """
    if inputs.ndim == 3:
        return panel([to_displayable(inputs)], [caption], PANEL_HEIGHT)
    height, width = SERIES_SIZE
    image = np.full((height, width, 3), SERIES_BACKGROUND, np.uint8)
    shown = inputs[:MAX_VARIABLES, ~np.isnan(inputs).all(axis=0)]
    if not shown.size:
        return panel([image], [caption], PANEL_HEIGHT)
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    across = np.linspace(4, width - 5, shown.shape[1])
    # Colour 0 is the dark one of a background class.
    for row, color in zip(shown, class_colors(len(shown) + 1)[1:].tolist(), strict=True):
        down = (height - 9) * (1 - (row - low) / max(high - low, 1e-12)) + 4
        points = np.stack([across, down], axis=1).round().astype(np.int32)
        cv2.polylines(image, [points], isClosed=False, color=color, thickness=1, lineType=cv2.LINE_AA)
    return panel([image], [caption], PANEL_HEIGHT)


def write_image(path: Path, image: Image) -> None:
    """Write an RGB image as PNG.

    Raises:
        OSError: The file cannot be written.
    """
    path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
