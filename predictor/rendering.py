"""What is made of a prediction: class ids, an overlay, a cut-out with transparency, another background.

Images are (h, w, 3) uint8 RGB; probabilities are (K, h, w) float32, summing to 1 over the K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictor.compositing import Background, blurred, composite
from predictor.matting import Alpha, foreground_colors, refine_alpha
from utils.drawing import Image, class_colors, overlay
from utils.errors import ConfigError

Probabilities = NDArray[np.float32]
MODES = ("mask", "overlay", "cutout", "background")


class Look(ABC):
    """Makes an image of a prediction.

    Attributes:
        is_lossless: The result's values must survive exactly.
        has_alpha: The result is transparent in places, which no video can hold.
    """

    is_lossless = False
    has_alpha = False

    @abstractmethod
    def __call__(self, image: Image, probabilities: Probabilities) -> NDArray[Any]:
        """(h, w) class ids, (h, w, 3) RGB or (h, w, 4) RGBA of an image and its probabilities."""


def class_ids(probabilities: Probabilities) -> NDArray[Any]:
    """(h, w) the most probable class of each pixel, uint8, or uint16 where there are more than 256 classes."""
    ids = np.zeros(probabilities.shape[1:], dtype=np.uint8 if len(probabilities) <= 256 else np.uint16)
    highest = probabilities[0].copy()
    for number in range(1, len(probabilities)):  # ten times as fast as argmax over the first axis
        np.copyto(ids, number, where=probabilities[number] > highest)
        np.maximum(highest, probabilities[number], out=highest)
    return ids


class MaskLook(Look):
    """Class ids.

    Args:
        export_ids: What to write for each class, (K,); by default its id.

    Raises:
        ConfigError: In use, where there are not as many as classes.
    """

    is_lossless = True

    def __init__(self, export_ids: Sequence[int] | None = None) -> None:
        self.table = None
        if export_ids is not None:
            self.table = np.array(export_ids, np.uint8 if max(export_ids) <= 255 else np.uint16)

    def __call__(self, image: Image, probabilities: Probabilities) -> NDArray[Any]:
        """(h, w) ids."""
        ids = class_ids(probabilities)
        if self.table is None:
            return ids
        if len(self.table) != len(probabilities):
            raise ConfigError(
                f"--own-ids: the loader of the config knows {len(self.table)} ids, but the network has "
                f"{len(probabilities)} classes. Leave it out."
            )
        return np.asarray(self.table[ids])


class OverlayLook(Look):
    """The image under its mask."""

    def __call__(self, image: Image, probabilities: Probabilities) -> Image:
        """(h, w, 3) RGB."""
        return overlay(image, class_ids(probabilities), class_colors(len(probabilities)))


class ForegroundLook(Look):
    """A look that sets some classes off from the others.

    Args:
        foreground: Ids of the classes to keep; by default all but 0.
        is_soft: A matte drawn to the image's edges; otherwise each pixel is in or out.
    """

    def __init__(self, foreground: Sequence[int] | None = None, *, is_soft: bool = False) -> None:
        self.foreground, self.is_soft = foreground, is_soft

    def alpha(self, image: Image, probabilities: Probabilities) -> Alpha:
        """(h, w) how much of each pixel is foreground, 0..1."""
        chosen = list(range(1, len(probabilities))) if self.foreground is None else list(self.foreground)
        if self.is_soft:
            return refine_alpha(np.clip(probabilities[chosen].sum(axis=0), 0, 1), image)
        return np.isin(class_ids(probabilities), chosen).astype(np.float32)

    def colors(self, image: Image, alpha: Alpha) -> Image:
        """The foreground's colours, free of the background where the matte is soft."""
        return foreground_colors(image, alpha) if self.is_soft else image


class CutoutLook(ForegroundLook):
    """The foreground on nothing."""

    is_lossless = True
    has_alpha = True

    def __call__(self, image: Image, probabilities: Probabilities) -> Image:
        """(h, w, 4) RGBA, alpha not multiplied in; what is not seen is black, not hidden."""
        alpha = self.alpha(image, probabilities)
        opacity = (alpha * 255).round().astype(np.uint8)
        result = np.dstack([self.colors(image, alpha), opacity])
        result[opacity == 0] = 0
        return result


class BackgroundLook(ForegroundLook):
    """The foreground on another background.

    Args:
        background: Makes it of an image and its alpha; see `parse_background`.
        foreground: As for `ForegroundLook`.
        is_soft: As for `ForegroundLook`.
    """

    def __init__(
        self, background: Background, foreground: Sequence[int] | None = None, *, is_soft: bool = False
    ) -> None:
        super().__init__(foreground, is_soft=is_soft)
        self.background = background

    def __call__(self, image: Image, probabilities: Probabilities) -> Image:
        """(h, w, 3) RGB."""
        alpha = self.alpha(image, probabilities)
        return composite(self.colors(image, alpha), alpha, self.background(image, alpha))


def make_look(
    mode: str,
    *,
    background: Background | None = None,
    foreground: Sequence[int] | None = None,
    is_soft: bool = False,
    export_ids: Sequence[int] | None = None,
) -> Look:
    """The look of a mode by its name.

    Args:
        mode: One of `MODES`.
        background: For mode background; a blurred one where not given.
        foreground: For cut-outs and backgrounds: ids of the classes to keep; by default all but 0.
        is_soft: For these: a matte drawn to the image's edges.
        export_ids: For masks: what to write for each class; by default its id.

    Raises:
        ConfigError: There is no such mode, or the mode has no use for something given.
    """
    if mode not in MODES:
        raise ConfigError(f"Wrong mode {mode!r}: it must be one of {', '.join(MODES)}.")
    if background is not None and mode != "background":
        raise ConfigError(f"--background has no effect in mode {mode}. Use --mode background, or leave it out.")
    if export_ids is not None and mode != "mask":
        raise ConfigError(f"--own-ids has no effect in mode {mode}. Use --mode mask, or leave it out.")
    if mode in ("mask", "overlay"):
        if foreground is not None or is_soft:
            raise ConfigError(f"--class and --soft have no effect in mode {mode}. Use --mode cutout or background.")
        return MaskLook(export_ids) if mode == "mask" else OverlayLook()
    if mode == "cutout":
        return CutoutLook(foreground, is_soft=is_soft)
    return BackgroundLook(background or blurred, foreground, is_soft=is_soft)
