"""Annotated images as the readers of this folder return them, and their masks."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_loader.convert.regions import Region
from utils.errors import DataError
from utils.geometry import Size
from utils.writing.text import is_one_line

BACKGROUND = "background"
BACKGROUND_NAMES = frozenset({BACKGROUND, "_background_"})
"""Labels of class 0; the second is labelme's."""

IGNORED_NAME = "__ignore__"
"""Label of pixels that count nowhere, as labelme names it."""

IGNORED = 255


class Shape(NamedTuple):
    """One object.

    Attributes:
        name: Its class.
        draw: Returns its pixels in an image of a size; a ValueError says why it cannot.
        place: File and object, for messages.
        order: Objects of a higher one lie on top; of equal ones the later.
    """

    name: str
    draw: Callable[[Size], Region]
    place: str
    order: int = 0


@dataclass(frozen=True)
class Annotated:
    """An image with its objects.

    Attributes:
        image: Its file.
        layers: In the order of the file.
        place: File that annotates it.
        size: Height and width that the annotations are meant for; None if the format does not say.
        split: Name of the list that it belongs to; empty if there is only one.
        smaller_on_top: The format knows no order, so that smaller objects are drawn over larger ones.
    """

    image: Path
    layers: Sequence[Shape]
    place: str
    size: Size | None = None
    split: str = ""
    smaller_on_top: bool = False


@dataclass
class Annotations:
    """The content of a file or folder of annotations.

    Attributes:
        images: All annotated images.
        names: Classes that the format lists, in its order; empty if it lists none.
        place: The file that lists them.
        faults: What cannot be read, each with its file.
        left_out: Number of objects without an area, by their kind.
    """

    images: list[Annotated] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    place: str = ""
    faults: list[DataError] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def class_names(found: Annotations, chosen: Sequence[str] | None, *, is_background_ignored: bool) -> list[str]:
    """Return the names of the classes in the order of their ids.

    Args:
        found: The annotations; without names of their own, the labels in alphabetical order.
        chosen: The names that the user gave, instead.
        is_background_ignored: There is no class for pixels without a label.

    Raises:
        DataError: A name occurs twice, or there are no classes or too many.
    """
    labels = sorted({layer.name for image in found.images for layer in image.layers})
    names = [name for name in (chosen or found.names or labels) if name not in BACKGROUND_NAMES | {IGNORED_NAME}]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"The class {twice[0]!r} is listed twice. Give each class a name of its own.")
    if not names:
        raise DataError("The annotations hold no class. Annotate some objects, or name the classes with --classes.")
    if not is_background_ignored:
        names = [BACKGROUND, *names]
    if len(names) > IGNORED:
        raise DataError(
            f"There are {len(names)} classes; a mask holds at most {IGNORED}. Merge some, or leave some out."
        )
    return names


def unknown_labels(images: Sequence[Annotated], ids: Mapping[str, int]) -> list[DataError]:
    """Return an error for each label that is no class."""
    places: dict[str, str] = {}
    for layer in (layer for image in images for layer in image.layers):
        if layer.name not in ids:
            places.setdefault(layer.name, layer.place)
    return [
        DataError(
            f"{place}: {name!r} is no class{_suggestion(name, ids)}. The classes are {', '.join(ids)}; correct the "
            "label, or add it to --classes.",
            place=place,
        )
        for name, place in places.items()
    ]


def _suggestion(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def broken_names(found: Annotations) -> list[DataError]:
    """Return an error for each class, label and image whose name cannot be a line of a text file."""
    places = dict.fromkeys(found.names, found.place)
    for image in found.images:
        places.setdefault(str(image.image), image.place)
        for layer in image.layers:
            places.setdefault(layer.name, layer.place)
    return [
        DataError(
            f"{place}: the name {name!a} holds a control character or half a character, which no list can hold. "
            "Rename it.",
            place=place,
        )
        for name, place in places.items()
        if not is_one_line(name)
    ]


def ids_of_labels(names: Sequence[str]) -> dict[str, int]:
    """Return the id of each label: of the classes, of the background's names, and of the ignored label."""
    background = 0 if names[0] == BACKGROUND else IGNORED
    return {
        **dict.fromkeys(sorted(BACKGROUND_NAMES), background),
        IGNORED_NAME: IGNORED,
        **{name: number for number, name in enumerate(names)},
    }


class DrawnMask(NamedTuple):
    """The mask of an image.

    Attributes:
        mask: (h, w) class ids.
        contested: Number of pixels that two classes claim.
        too_small: Places of the objects that cover the centre of no pixel.
        faults: Objects that cannot be drawn.
    """

    mask: NDArray[np.uint8]
    contested: int
    too_small: list[str]
    faults: list[DataError]


def draw_mask(annotated: Annotated, size: Size, ids: Mapping[str, int]) -> DrawnMask:
    """Draw the mask of an image.

    Args:
        annotated: The image.
        size: Its height and width.
        ids: Of `ids_of_labels`; pixels without an object have that of the background.
    """
    drawn: list[tuple[Shape, Region]] = []
    too_small, faults = [], []
    for layer in annotated.layers:
        try:
            region = layer.draw(size)
            if region.is_outside:
                raise ValueError(f"it lies outside the image ({size[1]}x{size[0]})")
        except (ValueError, OverflowError) as error:
            text = f"{layer.place} ({layer.name}) cannot be drawn: {error}. Correct or remove it in the labelling tool."
            faults.append(DataError(text, place=layer.place))
        else:
            if region.inside.any():
                drawn.append((layer, region))
            else:
                too_small.append(layer.place)
    drawn.sort(key=lambda each: (each[0].order, -each[1].area if annotated.smaller_on_top else 0))
    background = ids[BACKGROUND]
    mask = np.full(size, background, dtype=np.uint8)
    contested = np.zeros(size, dtype=bool)
    for layer, (top, left, inside, _) in drawn:
        area = np.s_[top : top + inside.shape[0], left : left + inside.shape[1]]
        label = ids[layer.name]
        if label not in (background, IGNORED):  # drawn on purpose, as holes are
            contested[area] |= inside & (mask[area] != background) & (mask[area] != label) & (mask[area] != IGNORED)
        mask[area][inside] = label
    return DrawnMask(mask, int(contested.sum()), too_small, faults)
