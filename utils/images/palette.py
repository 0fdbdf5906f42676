"""Colours and names of classes, as every image of masks uses them: overlays, masks in colours, legends.

Images are (h, w, 3) uint8 RGB; masks are (h, w) integers. `K` is the number of classes.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.drawing import Image, class_colors, colorize, counted_labels, overlay
from utils.images.lettering import draw_text, text_size

BACKGROUND_NAMES = frozenset({"background", "_background_", "bg", "other", "others", "unlabeled", "unlabelled"})
FEW_CLASSES = 2  # which need no legend
_GREY = 18
_MARGIN = 6
_HEX = re.compile(r"#[0-9a-fA-F]{6}")


LOADERS = ("valid_loader", "train_loader", "data_loader", "test_loader")


def of_loaders(config: Mapping[str, Any], name: str) -> list[str]:
    """Return a list of texts that the loaders of a config have as an argument, as `classes` or `palette`; or none."""
    for section in LOADERS:
        spec = config.get(section)
        arguments = spec.get("args") if isinstance(spec, Mapping) else None
        if isinstance(arguments, Mapping) and isinstance(arguments.get(name), list) and arguments[name]:
            return [str(entry) for entry in arguments[name]]
    return []


def wrong_colors(palette: Sequence[str]) -> list[str]:
    """Return the entries that are no colours of the form `#rrggbb`."""
    return [entry for entry in palette if not _HEX.fullmatch(entry)]


@dataclass(frozen=True, eq=False)
class Palette:
    """Colours and names of K classes.

    Attributes:
        colors: (K, 3) uint8 RGB.
        names: K names, or none.
        background: Class that overlays leave as it is in the image; None if every class is drawn.
    """

    colors: Image
    names: Sequence[str] = ()
    background: int | None = None

    @classmethod
    def of(cls, num_classes: int, names: Sequence[str] = (), colors: Sequence[str] = ()) -> "Palette":
        """Return the palette of K classes.

        Class 0 is the background if its name says so, if there are two classes, or if there are no names.

        Args:
            num_classes: K.
            names: Of the classes; a list of another length is not used.
            colors: `#rrggbb` for each class; colours that are far apart if there are none or another number.
        """
        known = tuple(names) if len(names) == num_classes else ()
        has_background = num_classes == FEW_CLASSES or not known or known[0].strip().lower() in BACKGROUND_NAMES
        background = 0 if has_background else None
        if len(colors) == num_classes and not wrong_colors(colors):
            given = np.array([list(bytes.fromhex(color[1:])) for color in colors], dtype=np.uint8)
            return cls(given, known, background)
        # The first colour is the dark one of a background.
        return cls(class_colors(num_classes + 1)[(0 if has_background else 1) :][:num_classes], known, background)

    def to_json(self) -> dict[str, Any]:
        """Return colours (K RGB triples) and background as plain data."""
        return {"colors": self.colors.tolist(), "background": self.background}

    def overlay(self, image: Image, mask: NDArray[Any], alpha: float = 0.5, ignore_index: int | None = None) -> Image:
        """Draw a mask over its image; the background and ignored pixels show the image alone."""
        if self.background is None:
            return overlay(image, mask, self.colors, alpha, ignore_index)
        shown = counted_labels(mask, len(self.colors), ignore_index)
        return overlay(image, shown, self.colors, alpha, ignore_index=self.background)

    def colorize(self, mask: NDArray[Any], ignore_index: int | None = None) -> Image:
        """Draw a mask in the colours of its classes; ignored labels are light grey."""
        return colorize(mask, self.colors, ignore_index)

    def present(self, *masks: NDArray[Any]) -> list[int]:
        """Return the classes that occur in any of the masks."""
        found = {int(label) for mask in masks for label in np.unique(mask)}
        return sorted(found & set(range(len(self.colors))))

    def with_legend(self, image: Image, classes: Collection[int] | None = None) -> Image:
        """Return an image with a legend below, if there are more than two classes and it is wide enough.

        Args:
            image: (h, w, 3) uint8 RGB.
            classes: The classes to name; all if None.

        Returns:
            (h + l, w, 3) uint8 RGB; l depends only on the size of the image and the classes.
        """
        chosen = range(len(self.colors)) if classes is None else sorted(classes)
        if len(self.colors) <= FEW_CLASSES or not chosen:
            return image
        legend = self._legend(chosen, image.shape[1], max(0.4, min(image.shape[:2]) / 1000))
        return image if legend is None or len(legend) > len(image) else np.vstack([image, legend])

    def _legend(self, classes: Sequence[int], width: int, scale: float) -> Image | None:
        """Return the legend, as many rows as needed; None if a name does not fit."""
        line = round(28 * scale / 0.4 * 0.75)
        box = round(line * 0.55)
        texts = {number: self.names[number] if self.names else str(number) for number in classes}
        widths = {number: box + 3 * _MARGIN + text_size(text, scale)[0] for number, text in texts.items()}
        if max(widths.values()) + _MARGIN > width:
            return None
        places: list[tuple[int, int, int]] = []
        x, row = _MARGIN, 0
        for number in classes:
            if x + widths[number] > width and x > _MARGIN:
                x, row = _MARGIN, row + 1
            places.append((number, x, row))
            x += widths[number]
        height = (row + 1) * line
        drawn = np.full((height + height % 2, width, 3), _GREY, dtype=np.uint8)  # the sides of videos are even
        for number, left, in_row in places:
            top = in_row * line + (line - box) // 2
            drawn[top - 1 : top + box + 1, left - 1 : left + box + 1] = 110  # a frame, for dark colours
            drawn[top : top + box, left : left + box] = self.colors[number]
            draw_text(drawn, texts[number], (left + box + _MARGIN, top + round(box * 0.9)), scale=scale)
        return drawn
