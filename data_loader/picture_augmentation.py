"""Augmentation of pictures that have one class: the warp and colours of masks' pictures, then shift and cutout."""

from dataclasses import dataclass

import numpy as np

from data_loader.preprocessing import Preprocessing, full_scale
from data_loader.transforms import Augmentation
from utils.errors import ConfigError

_OWN_DRAWS = 4


@dataclass(frozen=True)
class PictureAugmentation:
    """What happens to a picture in training; the default is nothing.

    Every sample takes the same number of draws, so switching one effect on leaves the others as they were.

    Attributes:
        warp: Flips, rotations, windows, colours, noise.
        shift: Largest shift to each side, as a share of the input's sides; what comes in is padding.
        cutout: Side of a square of padding put anywhere (arXiv:1708.04552), as a share of the input's shorter side.
    """

    warp: Augmentation
    shift: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("shift", "cutout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"Wrong {name} {getattr(self, name)}: it must be from 0 (off) to 1.")

    def __call__(self, picture: np.ndarray, preprocessing: Preprocessing, generator: np.random.Generator) -> np.ndarray:
        """Draw once and apply: (h, w, C) uint8 or uint16 -> (H, W, C) of the same dtype, letterboxed."""
        nothing = np.zeros(picture.shape[:2], np.uint8)
        placed, _ = self.warp(picture, nothing, preprocessing, 0, generator)
        down, right, row, column = generator.random(_OWN_DRAWS).tolist()
        padding = preprocessing.padding_value * full_scale(placed.dtype) // 255
        if self.shift:
            placed = _shifted(placed, self.shift * (2 * down - 1), self.shift * (2 * right - 1), padding)
        if self.cutout:
            placed = _cut_out(placed, self.cutout, row, column, padding)
        return placed


def _shifted(picture: np.ndarray, down: float, right: float, padding: int) -> np.ndarray:
    """(H, W, C) moved by shares of its height and width, rounded to pixels."""
    height, width = picture.shape[:2]
    rows, columns = round(down * height), round(right * width)
    moved = np.full_like(picture, padding)
    moved[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = picture[
        max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    return moved


def _cut_out(picture: np.ndarray, share: float, row: float, column: float, padding: int) -> np.ndarray:
    """(H, W, C) with a square of padding whose centre lies anywhere on it, so that edges may cut the square."""
    height, width = picture.shape[:2]
    side = max(1, round(share * min(height, width)))
    top, left = int(row * height) - side // 2, int(column * width) - side // 2
    cut = picture.copy()
    cut[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = padding
    return cut
