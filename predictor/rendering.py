"""From a prediction to a result: class ids, an overlay, a cut-out with transparency, another background.

Images are (h, w, 3) uint8 RGB; probabilities are (K, h, w) float32 that sum to 1 over the K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictor.compositing import Background, blurred, composite, overlay_exactly
from predictor.matting import Alpha, foreground_colors, refine_alpha
from utils.drawing import Image, look_up
from utils.errors import ConfigError
from utils.images.palette import Palette

Probabilities = NDArray[np.float32]
MODES = ("mask", "overlay", "cutout", "background")


class Renderer(ABC):
    """The step from an image and its probabilities to a result.

    Attributes:
        is_lossless: The values of the result must survive exactly.
        has_alpha: The result is transparent in places, which no video can hold.
    """

    is_lossless = False
    has_alpha = False

    @property
    def uses_probabilities(self) -> bool:
        """Whether it uses more than the most probable class of each pixel."""
        return True

    @abstractmethod
    def __call__(self, image: Image, probabilities: Probabilities) -> NDArray[Any]:
        """Return (h, w) class ids, (h, w, 3) RGB or (h, w, 4) RGBA."""

    def to_classes(self, result: NDArray[Any]) -> NDArray[Any]:
        """Return a result whose ids, if it holds any, are the numbers of the classes: colours are chosen by those."""
        return result


def most_probable(probabilities: Probabilities) -> NDArray[Any]:
    """Return the most probable class of each pixel, (h, w) uint8, or uint16 for more than 256 classes."""
    if len(probabilities) == 2:
        return np.asarray(probabilities[1] > probabilities[0]).view(np.uint8)
    ids = np.zeros(probabilities.shape[1:], dtype=np.uint8 if len(probabilities) <= 256 else np.uint16)
    highest = probabilities[0].copy()
    for number in range(1, len(probabilities)):  # ten times as fast as argmax over the first axis
        np.copyto(ids, number, where=probabilities[number] > highest)
        np.maximum(highest, probabilities[number], out=highest)
    return ids


@dataclass(eq=False)
class MaskRenderer(Renderer):
    """Class ids.

    Args:
        export_ids: The id to write for each class, (K,); the class's number if None.

    Raises:
        ConfigError: When called, if there are not as many ids as classes.
    """

    is_lossless = True

    export_ids: Sequence[int] | None = None

    @property
    def uses_probabilities(self) -> bool:
        """False: it uses the most probable class alone."""
        return False

    def __call__(self, image: Image, probabilities: Probabilities) -> NDArray[Any]:
        """Return (h, w) ids."""
        ids = most_probable(probabilities)
        if self.export_ids is None:
            return ids
        if len(self.export_ids) != len(probabilities):
            raise ConfigError(
                f"--own-ids: the loader of the config knows {len(self.export_ids)} ids, but the network has "
                f"{len(probabilities)} classes. Leave it out."
            )
        return np.asarray(np.array(self.export_ids, np.uint8 if max(self.export_ids) <= 255 else np.uint16)[ids])

    def to_classes(self, result: NDArray[Any]) -> NDArray[Any]:
        """Return the classes (h, w) of ids (h, w); the ids of two classes are never the same."""
        if self.export_ids is None:
            return result
        order = np.argsort(self.export_ids).astype(np.uint16)
        return np.asarray(order[np.searchsorted(np.sort(self.export_ids), result)])


@dataclass(eq=False)
class OverlayRenderer(Renderer):
    """The image under its mask in colours; the background remains as it is.

    Args:
        palette: Returns the colours and names of K classes.
        has_legend: Add a legend below, if there are more than two classes.
    """

    palette: Callable[[int], Palette] = Palette.of
    has_legend: bool = False

    @property
    def uses_probabilities(self) -> bool:
        """False: it uses the most probable class alone."""
        return False

    def __call__(self, image: Image, probabilities: Probabilities) -> Image:
        """Return (h, w, 3) RGB, with a legend (h + l, w, 3)."""
        palette = self.palette(len(probabilities))
        drawn = palette.overlay(image, most_probable(probabilities))
        return palette.with_legend(drawn) if self.has_legend else drawn


@dataclass(eq=False)
class ForegroundRenderer(Renderer):
    """Base of the renderers that separate a foreground from the rest.

    Args:
        foreground: Ids of the foreground classes; all but 0 if None.
        is_soft: Refine the matte along the edges of the image; otherwise each pixel is in or out.
    """

    foreground: Sequence[int] | None = None
    is_soft: bool = field(default=False, kw_only=True)

    @property
    def uses_probabilities(self) -> bool:
        """Whether edges are soft."""
        return self.is_soft

    def foreground_layer(self, image: Image, probabilities: Probabilities) -> tuple[Image, Alpha]:
        """Return the colours of the foreground, (h, w, 3), and its share of each pixel, (h, w) in 0..1."""
        chosen = list(range(1, len(probabilities))) if self.foreground is None else list(self.foreground)
        if not self.is_soft:
            return image, share_of_classes(most_probable(probabilities), chosen)
        alpha = refine_alpha(np.clip(probabilities[chosen].sum(axis=0), 0, 1), image)
        return foreground_colors(image, alpha), alpha


def share_of_classes(ids: NDArray[Any], chosen: Sequence[int]) -> Alpha:
    """Return (h, w) float32: 1 for the pixels (h, w) of some classes, 0 for all others."""
    if ids.dtype != np.uint8:
        return np.isin(ids, chosen).astype(np.float32)
    return look_up(ids, np.isin(np.arange(256), chosen).astype(np.float32))


class CutoutRenderer(ForegroundRenderer):
    """The foreground on a transparent background."""

    is_lossless = True
    has_alpha = True

    def __call__(self, image: Image, probabilities: Probabilities) -> Image:
        """Return (h, w, 4) RGBA with straight alpha; pixels that are not seen are black, not hidden."""
        colors, alpha = self.foreground_layer(image, probabilities)
        opacity = (alpha * 255).round().astype(np.uint8)
        result = np.dstack([colors, opacity])
        result[opacity == 0] = 0
        return result


class BackgroundRenderer(ForegroundRenderer):
    """The foreground on another background.

    Args:
        background: Makes the background from an image and its alpha; see `parse_background`.
        foreground: As for `ForegroundRenderer`.
        is_soft: As for `ForegroundRenderer`.
    """

    def __init__(
        self, background: Background, foreground: Sequence[int] | None = None, *, is_soft: bool = False
    ) -> None:
        super().__init__(foreground, is_soft=is_soft)
        self.background = background

    def __call__(self, image: Image, probabilities: Probabilities) -> Image:
        """Return (h, w, 3) RGB."""
        colors, alpha = self.foreground_layer(image, probabilities)
        layer = composite if self.is_soft else overlay_exactly
        return layer(colors, alpha, self.background(image, alpha))


def make_renderer(
    mode: str,
    *,
    background: Background | None = None,
    foreground: Sequence[int] | None = None,
    is_soft: bool = False,
    export_ids: Sequence[int] | None = None,
    palette: Callable[[int], Palette] = Palette.of,
    has_legend: bool = False,
) -> Renderer:
    """Return the renderer of a mode.

    Args:
        mode: One of `MODES`.
        background: For mode background; a blurred one if None.
        foreground: For cut-outs and backgrounds: ids of the foreground classes; all but 0 if None.
        is_soft: For cut-outs and backgrounds: refine the matte along the edges of the image.
        export_ids: For masks: the id to write for each class; the class's number if None.
        palette: For overlays: returns the colours and names of K classes.
        has_legend: For overlays: add a legend below, if there are more than two classes.

    Raises:
        ConfigError: There is no such mode, or an option has no effect in this mode.
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
        if mode == "mask":
            return MaskRenderer(export_ids)
        return OverlayRenderer(palette, has_legend=has_legend)
    if mode == "cutout":
        return CutoutRenderer(foreground, is_soft=is_soft)
    return BackgroundRenderer(background or blurred, foreground, is_soft=is_soft)
