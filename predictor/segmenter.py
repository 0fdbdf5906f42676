"""A segmentation network with a look: what `inference.py` and notebooks use."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from base.base_inference import BaseInference
from predictor.compositing import as_rgb
from predictor.rendering import Look, OverlayLook
from predictor.temporal import TemporalSmoothing
from utils.errors import ConfigError


class Segmenter(BaseInference):
    """Shows each image's segmentation.

    Attributes:
        look: What to make of a prediction; an overlay at first.
        smoothing: For the frames of one video in order; None for photos.
        num_classes: Known after the first prediction.
    """

    look: Look = OverlayLook()
    smoothing: TemporalSmoothing | None = None
    num_classes = 0

    def render(self, image: NDArray[Any], probabilities: NDArray[np.float32]) -> NDArray[Any]:
        """(h, w) ids, (h, w, 3) RGB or (h, w, 4) RGBA, as the look decides."""
        shown = as_rgb(image)
        self.num_classes = len(probabilities)
        if self.smoothing is not None:
            probabilities = self.smoothing(shown, probabilities)
        return self.look(shown, probabilities)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of their ids; empty where the config does not tell them."""
        for section in ("valid_loader", "train_loader", "data_loader", "test_loader"):
            spec = self.config.get(section)
            names = spec.get("args", {}).get("classes") if isinstance(spec, dict) else None
            if names:
                return list(names)
        return []

    def class_id(self, name: str) -> int:
        """The id of a class by its name, or by its id as text.

        Raises:
            ConfigError: There is no such class.
        """
        names = self.class_names
        if name in names:
            return names.index(name)
        outputs = self.config.get("arch", {}).get("args", {}).get("num_classes", 0)
        count = len(names) or (2 if outputs == 1 else outputs)  # one channel tells two classes apart
        if name.isdecimal() and (int(name) < count or not count):
            return int(name)
        known = ", ".join(f"{number} {each}" for number, each in enumerate(names)) or f"0 to {count - 1}"
        raise ConfigError(f"--class {name}: there is no such class. The network knows {known}.")
