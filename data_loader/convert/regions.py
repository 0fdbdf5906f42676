"""Regions of pixels, from polygons and run lengths. Coordinates are (x, y) in pixels from the top left corner."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from utils.geometry import Size

_FARTHEST = 1e7  # pixels

Ring = NDArray[np.float64]  # (N, 2) of x and y: a closed line


class Region(NamedTuple):
    """Pixels of one object.

    Attributes:
        top: Row of the first row of `inside` in the image.
        left: Column of the first column of `inside` in the image.
        inside: (h, w) bool.
        is_outside: It has no pixel, because it lies outside the image and not because it is too small.
    """

    top: int
    left: int
    inside: NDArray[np.bool_]
    is_outside: bool = False

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(self.inside.sum())


def ring_of(values: Sequence[object]) -> Ring:
    """Return the ring of the coordinates x, y, x, y, ...

    Raises:
        ValueError: They are not at least three points of finite numbers, or far outside of any image.
    """
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("its coordinates must be numbers") from None
    if numbers.ndim != 1 or len(numbers) % 2 or len(numbers) < 6:
        raise ValueError(f"{len(values)} coordinates are no outline: it takes an even number, at least 6")
    if not (np.abs(numbers) <= _FARTHEST).all():
        raise ValueError(f"its coordinates must be finite, and at most {_FARTHEST:,.0f} pixels from the corner")
    return numbers.reshape(-1, 2)


def fill(ring: Ring, size: Size) -> Region:
    """Return the pixels whose centre lies inside a ring, by the even-odd rule; those outside the image are left out.

    Rings that share an edge share no pixel and leave none between them.
    """
    height, width = size
    low, high = ring.min(axis=0), ring.max(axis=0)
    left, top = (math.floor(min(max(value, 0), side)) for value, side in zip(low, (width, height), strict=True))
    right, bottom = (math.ceil(max(min(value, side), 0)) for value, side in zip(high, (width, height), strict=True))
    columns, rows = max(0, right - left), max(0, bottom - top)
    crossings = np.zeros((rows, columns + 1), dtype=np.int32)
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        first, last = (math.ceil(min(max(y - top, -1), rows + 1) - 0.5) for y in (min(y0, y1), max(y0, y1)))
        crossed = np.arange(max(first, 0), min(last, rows))  # rows whose centre lies between the ends of the edge
        x = x0 + (crossed + top + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        np.add.at(crossings, (crossed, np.clip(np.ceil(x - left - 0.5), 0, columns).astype(np.int64)), 1)
    inside = np.cumsum(crossings, axis=1)[:, :columns] % 2 == 1
    return Region(top, left, inside, is_outside=not (inside.any() or _touches(ring, size)))


def _touches(ring: Ring, size: Size) -> bool:
    """Return whether a ring without a pixel has corners in the image, or all of them on its edge."""
    limits = (size[1], size[0])
    is_in = ((ring > 0) & (ring < limits)).all(axis=1)
    is_on = ((ring >= 0) & (ring <= limits)).all(axis=1)
    return bool(is_in.any() or is_on.all())


def union(regions: Sequence[Region], size: Size) -> Region:
    """Return the pixels that are in any of the regions."""
    inside = np.zeros(size, dtype=bool)
    for top, left, part, _ in regions:
        inside[top : top + part.shape[0], left : left + part.shape[1]] |= part
    return Region(0, 0, inside, is_outside=all(region.is_outside for region in regions))


def unpack_counts(text: str) -> list[int]:
    """Return the run lengths that COCO's compressed text stands for.

    Each number is written in groups of 5 bits, the lowest first, as the character 48 + bits, with 32 more if another
    group follows; from the third on, a number is the difference to the last but one (pycocotools, `rleFrString`).

    Raises:
        ValueError: The text ends inside a number, or has a character that stands for none.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"its run lengths hold {character!r}, which stands for no number")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its run lengths are cut off")
    return counts


def expand(counts: Sequence[int], size: Size, *, by_columns: bool) -> NDArray[np.bool_]:
    """Return (h, w) True for every second run, beginning with a run of False.

    Args:
        counts: Lengths of the runs.
        size: h, w.
        by_columns: Runs go down the columns, as COCO's do, and not along the rows.

    Raises:
        ValueError: They do not cover the area.
    """
    height, width = size
    if not all(isinstance(count, int) and count >= 0 for count in counts) or sum(counts) != height * width:
        raise ValueError(
            f"its run lengths must be whole numbers from 0 with the sum {height * width} ({height}x{width})"
        )
    runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return runs.reshape(width, height).T if by_columns else runs.reshape(height, width)


def rectangle(x0: float, y0: float, x1: float, y1: float, degrees: float = 0.0) -> Ring:
    """Return the ring of a rectangle between two corners, turned clockwise about its centre."""
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)
    return _turned(corners, ((x0 + x1) / 2, (y0 + y1) / 2), degrees)


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0.0) -> Ring:
    """Return the ring of an ellipse about (x, y) with two radii, turned clockwise; 360 points stand for it."""
    angles = np.radians(np.arange(360))
    return _turned(np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1), (x, y), degrees)


def _turned(ring: Ring, center: tuple[float, float], degrees: float) -> Ring:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.asarray((ring - center) @ np.array([[cosine, sine], [-sine, cosine]]) + center)
