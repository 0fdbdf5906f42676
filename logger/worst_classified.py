"""The samples whose class a network got most wrong: named, and drawn where they are pictures or series."""

import heapq
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from base.sample import NamedSample
from logger.worst_cases import write_picture
from utils.drawing import Picture, class_colors, panel, to_displayable

PANEL_HEIGHT = 320
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
        """Write `worst-01.png`, the worst, and so on; pictures of an earlier test are replaced."""
        for old in folder.glob("worst-*.png"):
            old.unlink()
        paths = []
        for place, (_, _, entry, inputs) in enumerate(self._sorted(), start=1):
            caption = f"{entry['truth']}, taken for {entry['prediction']} ({entry['probability']:.2f})"
            paths.append(folder / f"worst-{place:02d}.png")
            write_picture(paths[-1], draw_input(inputs, caption))
        return paths

    def _sorted(self) -> list[tuple[float, int, dict[str, object], NDArray[np.float32]]]:
        return sorted(self._heap, key=lambda item: item[:2], reverse=True)


def draw_input(inputs: NDArray[np.float32], caption: str) -> Picture:
    """What a classifier saw, (C, H, W) as a picture or (V, T) as curves, under a caption."""
    drawn = to_displayable(inputs) if inputs.ndim == 3 else draw_series(inputs)
    return panel([drawn], [caption], PANEL_HEIGHT)


def draw_series(series: NDArray[np.float32]) -> Picture:
    """The first variables of a series (V, T) as curves in one frame, its padding left out; (h, w, 3) uint8 RGB."""
    height, width = SERIES_SIZE
    picture = np.full((height, width, 3), SERIES_GROUND, np.uint8)
    shown = series[:MOST_VARIABLES, ~np.isnan(series).all(axis=0)]
    if not shown.size:
        return picture
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    across = np.linspace(4, width - 5, shown.shape[1])
    for row, color in zip(shown, class_colors(len(shown) + 1)[1:].tolist(), strict=True):
        down = (height - 9) * (1 - (row - low) / max(high - low, 1e-12)) + 4
        points = np.stack([across, down], axis=1).round().astype(np.int32)
        cv2.polylines(picture, [points], isClosed=False, color=color, thickness=1, lineType=cv2.LINE_AA)
    return picture
