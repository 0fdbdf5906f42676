"""A segmentation network with a renderer: what `inference.py` and notebooks use."""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from base.base_inference import BaseInference, Preprocess
from predictor.compositing import as_rgb, to_show
from predictor.rendering import OverlayRenderer, Renderer
from utils.drawing import Image
from utils.errors import ConfigError
from utils.geometry import Geometry, restore_logits

MOTION_SCALE = 12.0  # change of colour, in 0..255 per channel, at which the weight of the past falls to 1/e
MOTION_BLUR = 5  # side of the window that separates motion from the camera's noise, in pixels

ROUNDING = 1e-6  # difference of two logits from which on their probabilities differ in float32, with a margin of 8


@dataclass(eq=False)
class TemporalSmoothing:
    """Exponential smoothing of the probabilities of a video, weaker at pixels whose colour changed.

    Args:
        strength: Weight of the past at pixels that do not move, 0 to below 1.
    """

    strength: float = 0.6
    _colors: NDArray[np.float32] | None = field(init=False, default=None)
    _probabilities: NDArray[np.float32] | None = field(init=False, default=None)

    def __call__(self, image: Image, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Smooth the next frame of one video.

        Args:
            image: (h, w, 3) uint8 RGB.
            probabilities: (K, h, w) float32 that sum to 1 over K.

        Returns:
            (K, h, w) float32 that sum to 1 over K.
        """
        # In colour: two colours of equal brightness differ as well.
        colors = np.asarray(cv2.blur(image.astype(np.float32), (MOTION_BLUR, MOTION_BLUR)), dtype=np.float32)
        before, past = self._colors, self._probabilities
        if before is not None and past is not None and past.shape == probabilities.shape:
            change = (colors - before) / MOTION_SCALE
            weight = self.strength * np.exp(-(change * change).mean(axis=2))
            probabilities = probabilities + weight * (past - probabilities)
        self._colors, self._probabilities = colors, probabilities
        return probabilities


class Segmenter(BaseInference):
    """A segmentation network that renders its prediction of each image.

    Attributes:
        renderer: From a prediction to a result; at first an overlay in the colours of `palette`, without a legend.
        smoothing: For the frames of one video in order; None for photos.
        num_classes: Known after the first prediction.
        has_legend: `show` adds a legend below masks.
    """

    smoothing: TemporalSmoothing | None = None
    num_classes = 0
    has_legend = False

    def __init__(self, model: nn.Module, preprocess: Preprocess, *, device: torch.device | str = "cpu") -> None:
        super().__init__(model, preprocess, device=device)
        self.renderer: Renderer = OverlayRenderer(self.palette)

    @torch.inference_mode()
    def scores(self, logits: Tensor, geometry: Geometry) -> NDArray[np.float32]:
        """Return what `render` needs of the logits (K, H, W) of one input, (K, h, w) float32 at the image's size.

        These are the probabilities of `restore`; or the enlarged logits, in half the time, if there are two classes,
        only the more probable one is drawn, and the rounding of softmax cannot make them equal.
        """
        if len(logits) != 2 or self.smoothing is not None or self.renderer.uses_probabilities:
            return self.restore(logits, geometry)
        enlarged: NDArray[np.float32] = restore_logits(logits, geometry).float().cpu().numpy()
        distance = np.abs(enlarged[1] - enlarged[0])
        is_close = (distance < ROUNDING) & (distance > 0)
        return self.restore(logits, geometry) if is_close.any() else enlarged

    def render(self, image: NDArray[Any], probabilities: NDArray[np.float32]) -> NDArray[Any]:
        """Return (h, w) ids, (h, w, 3) RGB or (h, w, 4) RGBA, as the renderer decides; also of `scores`."""
        shown = as_rgb(image)
        self.num_classes = len(probabilities)
        if self.smoothing is not None:
            probabilities = self.smoothing(shown, probabilities)
        return self.renderer(shown, probabilities)

    def show(self, result: NDArray[Any]) -> Image:
        """Return a result of `render` as (h, w, 3) RGB, for a window or a video."""
        shown = self.renderer.to_classes(result)
        return to_show(shown, self.palette(self.num_classes), has_legend=self.has_legend)

    def class_id(self, name: str) -> int:
        """Return the id of a class that is given by its name, or by its id as text.

        Raises:
            ConfigError: There is no such class.
        """
        names = self.class_names
        if name in names:
            return names.index(name)
        outputs = self.config.get("arch", {}).get("args", {}).get("num_classes", 0)
        count = len(names) or (2 if outputs == 1 else outputs)  # one channel separates two classes by its sign
        if name.isdecimal() and (int(name) < count or not count):
            return int(name)
        known = ", ".join(f"{number} {each}" for number, each in enumerate(names)) or f"0 to {count - 1}"
        raise ConfigError(f"--class {name}: there is no such class. The network knows {known}.")
