"""Steadier masks in a video: what stood still keeps its class."""

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.drawing import Image

MOTION_SCALE = 12.0  # change of brightness, in 0..255, at which the past counts for 1/e
MOTION_BLUR = 5  # side of the window that tells motion from the camera's noise, in pixels


class TemporalSmoothing:
    """Mixes each frame's probabilities with the past ones, less where the image changed.

    Args:
        strength: Share of the past where nothing moves, 0 to below 1.
    """

    def __init__(self, strength: float = 0.6) -> None:
        self.strength = strength
        self._brightness: NDArray[np.float32] | None = None
        self._probabilities: NDArray[np.float32] | None = None

    def __call__(self, image: Image, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next frame of one video.

        Args:
            image: (h, w, 3) uint8 RGB.
            probabilities: (K, h, w) float32, summing to 1 over K.

        Returns:
            (K, h, w) float32, summing to 1 over K.
        """
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        brightness = np.asarray(cv2.blur(grey, (MOTION_BLUR, MOTION_BLUR)), dtype=np.float32)
        before, past = self._brightness, self._probabilities
        if before is not None and past is not None and past.shape == probabilities.shape:
            change = (brightness - before) / MOTION_SCALE
            weight = self.strength * np.exp(-(change * change))
            probabilities = probabilities + weight * (past - probabilities)
        self._brightness, self._probabilities = brightness, probabilities
        return probabilities
