"""The samples that a network got most wrong, as images. K is the number of classes, sizes are (height, width)."""

import heapq
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from base.data.samples import NamedMask, NamedSample
from utils.drawing import Image, class_colors, overlay, panel, resize_to, to_displayable

Labels = NDArray[np.integer]  # (h, w)

PANEL_HEIGHT = 320
MISSED = (235, 60, 60)  # of two classes: truth is class 1, prediction class 0; of more: any error
INVENTED = (60, 130, 255)
UNJUDGED = (120, 120, 120)


class WorstCases:
    """Keeps the `count` samples of the lowest score, each drawn when it enters, so that no input is held.

    Args:
        count: How many to keep.
        num_classes: K.
        ignore_index: Label that is not judged.
    """

    def __init__(self, count: int, num_classes: int, ignore_index: int | None = None) -> None:
        self.count = count
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self._seen = 0
        self._heap: list[tuple[float, int, int, str, Image]] = []  # the best of the worst comes first

    def add(self, source: NamedMask, inputs: Tensor, logits: Tensor, score: float) -> None:
        """Look at one sample.

        Args:
            source: Its name, mask and geometry.
            inputs: (C, H, W) float, what the network saw.
            logits: (K, h, w) float, at the mask's size.
            score: Lower is worse; a NaN (nothing in it was judged) is passed over.
        """
        self._seen += 1
        rank = (-score, -source.index, -self._seen)  # no two are equal, so that images are never compared
        if math.isnan(score) or self.count < 1 or (len(self._heap) == self.count and rank < self._heap[0][:3]):
            return
        entry = (*rank, source.name, self._draw(source, inputs, logits, score))
        if len(self._heap) < self.count:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heapreplace(self._heap, entry)

    def ranking(self) -> list[dict[str, object]]:
        """Name and score of each, the worst first."""
        return [{"name": name, "score": -negative} for negative, _, _, name, _ in self._sorted()]

    def write(self, folder: Path) -> list[Path]:
        """Write `worst-01.png`, the worst, and so on; images of an earlier test are replaced."""
        for old in folder.glob("worst-*.png"):
            old.unlink()
        paths = []
        for place, (*_, image) in enumerate(self._sorted(), start=1):
            paths.append(folder / f"worst-{place:02d}.png")
            write_image(paths[-1], image)
        return paths

    def _sorted(self) -> list[tuple[float, int, int, str, Image]]:
        return sorted(self._heap, key=lambda entry: entry[:3], reverse=True)

    def _draw(self, source: NamedMask, inputs: Tensor, logits: Tensor, score: float) -> Image:
        """Input, truth, prediction and errors side by side."""
        truth, prediction = source.target.cpu().numpy(), logits.argmax(dim=0).cpu().numpy()
        judged = self._judged(truth)
        wrong_share = (judged & (truth != prediction)).sum() / max(1, judged.sum())
        truth, prediction = _shrunk(truth), _shrunk(prediction)
        image = resize_to(image_of(source, inputs), truth.shape)
        colors = class_colors(self.num_classes)
        masks = [overlay(image, mask, colors, 0.55, self.ignore_index) for mask in (truth, prediction)]
        what = "red: missed, blue: invented" if self.num_classes == 2 else "red: wrong"
        captions = [f"{Path(source.name).name}  mIoU {score:.3f}", "truth", "prediction", f"{wrong_share:.1%} wrong"]
        captions[-1] += f" ({what})"
        return panel([image, *masks, self._errors(image, truth, prediction)], captions, PANEL_HEIGHT)

    def _errors(self, image: Image, truth: Labels, prediction: Labels) -> Image:
        """Where the prediction is wrong, on the darkened grey image."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) // 2
        drawn = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8, copy=False)
        judged = self._judged(truth)
        wrong = judged & (truth != prediction)
        drawn[~judged] = UNJUDGED
        drawn[wrong] = MISSED
        if self.num_classes == 2:
            drawn[wrong & (prediction == 1)] = INVENTED
        return drawn

    def _judged(self, truth: Labels) -> NDArray[np.bool_]:
        judged: NDArray[np.bool_] = (truth >= 0) & (truth < self.num_classes)
        return judged if self.ignore_index is None else judged & (truth != self.ignore_index)


def image_of(source: NamedMask, inputs: Tensor) -> Image:
    """What the network saw of a sample, without its padding, (h', w', 3) uint8 RGB."""
    top, left = source.geometry.offset
    height, width = source.geometry.resized
    return np.ascontiguousarray(to_displayable(inputs.float().cpu().numpy())[top : top + height, left : left + width])


def _shrunk(labels: Labels) -> Labels:
    """Labels at the height of the panel where they are higher, by nearest neighbour."""
    height, width = labels.shape
    if height <= PANEL_HEIGHT:
        return labels
    new_width = max(1, round(width * PANEL_HEIGHT / height))
    rows, columns = np.arange(PANEL_HEIGHT) * height // PANEL_HEIGHT, np.arange(new_width) * width // new_width
    return labels[np.ix_(rows, columns)]


def write_image(path: Path, image: Image) -> None:
    """Write an RGB image as PNG.

    Raises:
        OSError: It cannot be written.
    """
    path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())


PANEL_HEIGHT_WORST_CLASSIFIED = 320
SERIES_SIZE = (240, 480)  # height and width
SERIES_GROUND = 18
MOST_VARIABLES = 12


class WorstClassified:
    """Keeps the `count` samples whose own class got the least probability.

    Args:
        count: How many to keep.
        class_names: K names.
    """

    def __init__(self, count: int, class_names: Sequence[str]) -> None:
        self.count = count
        self.class_names = list(class_names)
        self._heap: list[tuple[float, int, dict[str, object], NDArray[np.float32]]] = []  # the best of the worst first

    def add(self, sample: NamedSample, inputs: Tensor, logits: Tensor) -> None:
        """Look at one sample.

        Args:
            sample: Its name and class; one whose class counts nowhere is passed over.
            inputs: (C, H, W) or (V, T) float, what the network saw.
            logits: (K,) float.
        """
        if not 0 <= sample.target < len(self.class_names):
            return
        probabilities = logits.float().softmax(dim=0).cpu()
        score, predicted = float(probabilities[sample.target]), int(probabilities.argmax())
        if self.count < 1 or (len(self._heap) == self.count and (-score, -sample.index) < self._heap[0][:2]):
            return
        entry: dict[str, object] = {
            "name": sample.name,
            "score": score,
            "truth": self.class_names[sample.target],
            "prediction": self.class_names[predicted],
            "probability": float(probabilities[predicted]),
        }
        item = (-score, -sample.index, entry, inputs.float().cpu().numpy().copy())
        if len(self._heap) < self.count:
            heapq.heappush(self._heap, item)
        else:
            heapq.heapreplace(self._heap, item)

    def ranking(self) -> list[dict[str, object]]:
        """Of each name, score (probability of its own class), truth, prediction and its probability; worst first."""
        return [entry for _, _, entry, _ in self._sorted()]

    def write(self, folder: Path) -> list[Path]:
        """Write `worst-01.png`, the worst, and so on; images of an earlier test are replaced."""
        for old in folder.glob("worst-*.png"):
            old.unlink()
        paths = []
        for place, (_, _, entry, inputs) in enumerate(self._sorted(), start=1):
            caption = f"{entry['truth']}, taken for {entry['prediction']} ({entry['probability']:.2f})"
            paths.append(folder / f"worst-{place:02d}.png")
            write_image(paths[-1], draw_input(inputs, caption))
        return paths

    def _sorted(self) -> list[tuple[float, int, dict[str, object], NDArray[np.float32]]]:
        return sorted(self._heap, key=lambda item: item[:2], reverse=True)


def draw_input(inputs: NDArray[np.float32], caption: str) -> Image:
    """What a classifier saw, (C, H, W) as an image or (V, T) as curves, under a caption."""
    drawn = to_displayable(inputs) if inputs.ndim == 3 else draw_series(inputs)
    return panel([drawn], [caption], PANEL_HEIGHT_WORST_CLASSIFIED)


def draw_series(series: NDArray[np.float32]) -> Image:
    """The first variables of a series (V, T) as curves in one frame, its padding left out; (h, w, 3) uint8 RGB."""
    height, width = SERIES_SIZE
    image = np.full((height, width, 3), SERIES_GROUND, np.uint8)
    shown = series[:MOST_VARIABLES, ~np.isnan(series).all(axis=0)]
    if not shown.size:
        return image
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    across = np.linspace(4, width - 5, shown.shape[1])
    for row, color in zip(shown, class_colors(len(shown) + 1)[1:].tolist(), strict=True):
        down = (height - 9) * (1 - (row - low) / max(high - low, 1e-12)) + 4
        points = np.stack([across, down], axis=1).round().astype(np.int32)
        cv2.polylines(image, [points], isClosed=False, color=color, thickness=1, lineType=cv2.LINE_AA)
    return image
