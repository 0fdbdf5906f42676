"""Labels hidden on purpose, to learn from partly labelled images. H, W size of the mask in its file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from utils.errors import ConfigError
from utils.seeding import derive_seed

PATTERNS = ("halves", "tiles", "strips")
NUMBERS = ("index", "name")
_BENDS = 8  # turns of a strip
_LARGEST_TURN = 0.5  # radians at each bend


@dataclass(frozen=True)
class SparseLabels:
    """A choice of pixels of a mask that stay visible, the same for an image in every epoch.

    - `halves`: columns from the left for images of even number, from the right for those of odd number: with density
      0.5 and W columns, an even one hides the columns from `W // 2`, an odd one those before.
    - `tiles`: squares in random places; the fraction of squares is exact.
    - `strips`: bent strips in random places, like the strokes of a pen; the fraction of pixels is exact.

    Attributes:
        pattern: One of `PATTERNS`.
        density: Fraction that stays visible, above 0, at most 1.
        tile: Side of the squares in pixels.
        width: Width of the strips in pixels.
        seed: Seed of the random places.
        by: Number of an image: its `index` in the list, or a hash of its `name` without folder and suffix, which stays
            the same if the list is another one.
    """

    pattern: str = "halves"
    density: float = 0.5
    tile: int = 32
    width: int = 9
    seed: int = 0
    by: str = "index"

    @classmethod
    def parse(cls, asked: Mapping[str, Any], seed: int) -> Self:
        """Return the labels of a `sparse` of the JSON, with `seed` if it has no seed.

        Raises:
            ConfigError: A key is unknown, or a value out of its range.
        """
        known = [each.name for each in fields(cls)]
        unknown = sorted(set(asked) - set(known))
        if unknown:
            raise ConfigError(f"Wrong sparse: unknown key {unknown[0]!r}. It has {', '.join(known)}.")
        return cls(**{"seed": seed, **asked})

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise ConfigError(f"Wrong sparse pattern {self.pattern!r}: it must be one of {', '.join(PATTERNS)}.")
        if isinstance(self.density, bool) or not isinstance(self.density, int | float) or not 0 < self.density <= 1:
            raise ConfigError(f"Wrong sparse density {self.density!r}: it must be above 0 and at most 1 (all visible).")
        if self.by not in NUMBERS:
            raise ConfigError(f"Wrong sparse by {self.by!r}: images are numbered by {' or '.join(NUMBERS)}.")
        for name in ("tile", "width", "seed"):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"Wrong sparse {name} {value!r}: it must be a whole number from {least}.")

    def number(self, index: int, name: str) -> int:
        """Return the number of an image, from which its visible pixels follow.

        Args:
            index: Its place in the list, from 0.
            name: Its file.
        """
        return index if self.by == "index" else derive_seed("sparse", Path(name).stem)

    def visible(self, size: tuple[int, int], number: int) -> np.ndarray:
        """Return (H, W) bool: the visible pixels of the image with a number, see `number`."""
        if self.density == 1:
            return np.ones(size, dtype=bool)
        if self.pattern == "halves":
            visible = np.zeros(size, dtype=bool)
            if number % 2 == 0:
                visible[:, : int(self._fraction(size[1]))] = True
            else:
                visible[:, int(size[1] - self._fraction(size[1])) :] = True
            return visible
        generator = np.random.default_rng(derive_seed(self.seed, "sparse", self.pattern, number))
        if self.pattern == "tiles":
            rows, columns = (-(-side // self.tile) for side in size)  # rounded up
            chosen = np.zeros(rows * columns, dtype=bool)
            chosen[generator.permutation(chosen.size)[: max(1, round(self._fraction(chosen.size)))]] = True
            grid = chosen.reshape(rows, columns)
            return grid.repeat(self.tile, axis=0).repeat(self.tile, axis=1)[: size[0], : size[1]]
        # Strips until enough is covered; with a density above a half they cover the hidden pixels, because the last
        # free ones would take very many random strips.
        hides = self.density > 0.5
        visible_count = int(self._fraction(size[0] * size[1]))
        missing = size[0] * size[1] - visible_count if hides else visible_count
        drawn = np.zeros(size, np.uint8)
        while missing > 0:
            # A bent line of points (x, y), about as long as half the image's shorter side.
            turns = generator.uniform(-_LARGEST_TURN, _LARGEST_TURN, _BENDS)
            angles = generator.uniform(0, 2 * np.pi) + np.cumsum(turns)
            start = generator.uniform(0, 1, 2) * (size[1], size[0])
            moves = max(1.0, min(size) / 2 / _BENDS) * np.column_stack((np.cos(angles), np.sin(angles)))
            points = np.rint(np.vstack((start, start + np.cumsum(moves, axis=0)))).astype(np.int32)
            # It is drawn on a window just large enough: whole images would take much longer.
            left, top = np.maximum(points.min(axis=0) - self.width, 0)
            right, bottom = points.max(axis=0) + self.width + 1
            window = drawn[top:bottom, left:right]
            line = np.zeros(window.shape, np.uint8)
            cv2.polylines(line, [points - (left, top)], isClosed=False, color=1, thickness=self.width)
            new_rows, new_columns = np.nonzero(line > window)  # covered by the line and not before
            window[new_rows[:missing], new_columns[:missing]] = 1
            missing -= min(missing, len(new_rows))
        return np.asarray(drawn == int(not hides))

    def _fraction(self, count: int) -> Fraction:
        """Return that fraction of `count`, exact in decimals: 0.29 of 100 are 29, not 28.99 as in binary."""
        return Fraction(str(self.density)) * count
