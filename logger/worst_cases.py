"""The samples that a network got most wrong, as pictures. K is the number of classes, sizes are (height, width)."""

import heapq
import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from base.sample import Source
from utils.drawing import Picture, class_colors, overlay, panel, resize_to, to_displayable

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
        self._heap: list[tuple[float, int, int, str, Picture]] = []  # the best of the worst comes first

    def add(self, source: Source, inputs: Tensor, logits: Tensor, score: float) -> None:
        """Look at one sample.

        Args:
            source: Its name, mask and geometry.
            inputs: (C, H, W) float, what the network saw.
            logits: (K, h, w) float, at the mask's size.
            score: Lower is worse; a NaN (nothing in it was judged) is passed over.
        """
        self._seen += 1
        rank = (-score, -source.index, -self._seen)  # no two are equal, so that pictures are never compared
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
        """Write `worst-01.png`, the worst, and so on; pictures of an earlier test are replaced."""
        for old in folder.glob("worst-*.png"):
            old.unlink()
        paths = []
        for place, (*_, picture) in enumerate(self._sorted(), start=1):
            paths.append(folder / f"worst-{place:02d}.png")
            write_picture(paths[-1], picture)
        return paths

    def _sorted(self) -> list[tuple[float, int, int, str, Picture]]:
        return sorted(self._heap, key=lambda entry: entry[:3], reverse=True)

    def _draw(self, source: Source, inputs: Tensor, logits: Tensor, score: float) -> Picture:
        """Input, truth, prediction and errors side by side."""
        truth, prediction = source.target.cpu().numpy(), logits.argmax(dim=0).cpu().numpy()
        judged = self._judged(truth)
        wrong_share = (judged & (truth != prediction)).sum() / max(1, judged.sum())
        truth, prediction = _shrunk(truth), _shrunk(prediction)
        picture = resize_to(picture_of(source, inputs), truth.shape)
        colors = class_colors(self.num_classes)
        masks = [overlay(picture, mask, colors, 0.55, self.ignore_index) for mask in (truth, prediction)]
        what = "red: missed, blue: invented" if self.num_classes == 2 else "red: wrong"
        captions = [f"{Path(source.name).name}  mIoU {score:.3f}", "truth", "prediction", f"{wrong_share:.1%} wrong"]
        captions[-1] += f" ({what})"
        return panel([picture, *masks, self._errors(picture, truth, prediction)], captions, PANEL_HEIGHT)

    def _errors(self, picture: Picture, truth: Labels, prediction: Labels) -> Picture:
        """Where the prediction is wrong, on the darkened grey picture."""
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) // 2
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


def picture_of(source: Source, inputs: Tensor) -> Picture:
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


def write_picture(path: Path, picture: Picture) -> None:
    """Write an RGB picture as PNG.

    Raises:
        OSError: It cannot be written.
    """
    path.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
