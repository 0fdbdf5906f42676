"""Augmentation: one warp, one colour matrix and one addition of noise, all drawn from the generator handed in."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np

from data_loader.images.preprocessing import Preprocessing, full_scale, place_mask
from utils.errors import ConfigError
from utils.geometry import Size
from utils.seeding import isolated_generators

_NOISE_VALUES = 1 << 20
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, RGB


class Draws(NamedTuple):
    """The chance of one sample, each uniform in [0, 1)."""

    flip: float
    turn: float
    side: float
    angle: float
    crop: float
    left: float
    top: float
    brightness: float
    contrast: float
    saturation: float
    noise: float


@dataclass(frozen=True)
class Augmentation:
    """What happens to an image and its mask in training; the default is nothing.

    Every sample takes the same number of draws, so switching one effect on leaves the others as they were.

    Attributes:
        noise_std: Deviation of the noise added to each value, in levels of 0..255.
        crop_range: Smallest and largest side of the cropped window, as a share of the image's sides; above 1 the
            window is larger than the image, which comes out smaller, with padding around it.
        flip_hor: Probability of a left-right flip.
        rotate: Probability of a quarter turn, to either side.
        angle: Largest rotation in degrees, to either side.
        brightness: Largest change of all values, as a share of the full range.
        contrast: Largest change of the distance from mid-grey, as a share.
        saturation: Largest change of the distance from grey, as a share.
    """

    noise_std: float = 0.0
    crop_range: Sequence[float] | None = None
    flip_hor: float = 0.0
    rotate: float = 0.0
    angle: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip_hor", "rotate", "brightness", "contrast", "saturation"):
            _require_between(name, getattr(self, name), 1.0)
        _require_between("noise_std", self.noise_std, 255.0)
        _require_between("angle", self.angle, 180.0)
        window = self.crop_range
        if window is not None and not (len(window) == 2 and 0.0 < window[0] <= window[1] <= 2.0):
            raise ConfigError(
                f"Wrong crop_range {list(window)}: it must be [smallest, largest] side of the window as a share of "
                "the image, above 0 and at most 2, as in [0.9, 1.0]."
            )

    def __call__(
        self,
        image: np.ndarray,
        mask: np.ndarray,
        preprocessing: Preprocessing,
        ignored: int,
        generator: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw once and apply to both.

        Args:
            image: (h, w, C) uint8 or uint16, RGB or grey, of arrays also float32.
            mask: (h, w) uint8 or uint16.
            preprocessing: Knows the size of the input and the padding.
            ignored: Label of what lies outside the image.
            generator: Where the draws come from.

        Returns:
            Image (H, W, C) and mask (H, W), letterboxed, of the same dtypes.
        """
        draws = Draws(*generator.random(len(Draws._fields)).tolist())
        height, width = mask.shape
        turns = draws.turn < self.rotate
        geometry = preprocessing.geometry((width, height) if turns else (height, width))
        matrix = self._matrix((height, width), geometry.resized, draws)
        padding = preprocessing.padding(image.dtype)
        moved = _warp(image, matrix, geometry.resized, preprocessing.interpolation, padding)
        moved = self._noisy(self._coloured(moved.reshape(*geometry.resized, -1), draws), draws)
        moved_mask = _warp(mask, matrix, geometry.resized, cv2.INTER_NEAREST, ignored)
        return preprocessing.place(moved, geometry), place_mask(moved_mask, geometry, ignored)

    def _matrix(self, size: Size, window: Size, draws: Draws) -> np.ndarray:
        """(2, 3) float64: from the image's pixels (x, y) to those of the window that it fills."""
        height, width = size
        smallest, largest = self.crop_range or (1.0, 1.0)
        crop = smallest + (largest - smallest) * draws.crop
        flip = -1.0 if draws.flip < self.flip_hor else 1.0
        radians = math.radians(self.angle * (2.0 * draws.angle - 1.0))
        if draws.turn < self.rotate:
            radians += math.copysign(math.pi / 2, draws.side - 0.5)
            scale_x, scale_y = window[1] / (crop * height), window[0] / (crop * width)
        else:
            scale_x, scale_y = window[1] / (crop * width), window[0] / (crop * height)
        cosine, sine = math.cos(radians), math.sin(radians)
        linear = np.array(((flip * scale_x * cosine, -scale_x * sine), (flip * scale_y * sine, scale_y * cosine)))
        centre = np.array(
            (width * (0.5 + (draws.left - 0.5) * (1 - crop)), height * (0.5 + (draws.top - 0.5) * (1 - crop)))
        )
        # Pixel i covers [i, i + 1), so its centre is at i + 0.5 on both sides.
        offset = linear @ (0.5 - centre) + np.array((window[1] / 2 - 0.5, window[0] / 2 - 0.5))
        return np.column_stack((linear, offset))

    def _coloured(self, image: np.ndarray, draws: Draws) -> np.ndarray:
        """Brightness, contrast and saturation as one affine map of each pixel's channels."""
        if not (self.brightness or self.contrast or self.saturation):
            return image
        channels, full = image.shape[2], full_scale(image.dtype)
        contrast = 1.0 + self.contrast * (2.0 * draws.contrast - 1.0)
        brightness = self.brightness * (2.0 * draws.brightness - 1.0)
        matrix = np.eye(channels, channels + 1)
        colours = min(channels, 3)
        if colours == 3:
            saturation = 1.0 + self.saturation * (2.0 * draws.saturation - 1.0)
            matrix[:3, :3] = saturation * np.eye(3) + (1.0 - saturation) * np.array(_LUMA)
        matrix[:colours, :colours] *= contrast
        matrix[:colours, channels] = full * (0.5 * (1.0 - contrast) + brightness)
        return np.asarray(cv2.transform(image, matrix)).reshape(image.shape)

    def _noisy(self, image: np.ndarray, draws: Draws) -> np.ndarray:
        if not self.noise_std:
            return image
        noise = _noise_table(self.noise_std * full_scale(image.dtype) / 255)
        start = int(draws.noise * max(1, _NOISE_VALUES - image.size))
        chosen = noise[start : start + image.size]
        if chosen.size < image.size:
            chosen = np.resize(chosen, image.size)
        depth = cv2.CV_8U if image.dtype == np.uint8 else cv2.CV_16U
        return np.asarray(cv2.add(image, chosen.reshape(image.shape), dtype=depth)).reshape(image.shape)


def _warp(array: np.ndarray, matrix: np.ndarray, size: Size, interpolation: int, border: float) -> np.ndarray:
    """Any number of channels, (h, w) or (h, w, C): OpenCV fills what comes from outside in four at a time."""
    if array.ndim == 3 and array.shape[2] > 4:
        parts = [array[..., first : first + 4] for first in range(0, array.shape[2], 4)]
        moved = [_warp(part, matrix, size, interpolation, border).reshape(*size, -1) for part in parts]
        return np.concatenate(moved, axis=2)
    return np.asarray(
        cv2.warpAffine(
            array,
            matrix,
            (size[1], size[0]),
            flags=interpolation,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(border,) * 4,
        )
    )


@lru_cache(maxsize=4)
def _noise_table(std: float) -> np.ndarray:
    """Normal noise, rounded, (N,) int16; drawing it anew for each sample would take longer than all else together.

    A sample takes a stretch of it that begins anywhere. Rounding loses nothing: it is added to whole numbers.
    """
    noise = np.random.default_rng(0).normal(0.0, std, _NOISE_VALUES)
    return np.clip(np.rint(noise), -32768, 32767).astype(np.int16)


def _require_between(name: str, value: float, largest: float) -> None:
    if not 0.0 <= value <= largest:
        raise ConfigError(f"Wrong {name} {value}: it must be from 0 (off) to {largest:g}.")


os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it calls home on import otherwise


class FreeTransforms:
    """Applies the transforms that a configuration lists, in order, to an image and its mask.

    Albumentations 2.0.8 repeats its draws in every worker and every epoch, so it is seeded anew for each sample.
    Masks move by nearest neighbour whatever a transform says, and what comes from outside the image is ignored.

    Args:
        transforms: Instances of albumentations' transforms or compositions, or a single one.
        ignored: Label of what lies outside the image.
    """

    def __init__(self, transforms: Sequence[Any], ignored: int) -> None:
        from albumentations import Compose

        self._compose = Compose(list(transforms) if isinstance(transforms, list | tuple) else [transforms])
        _adapt(self._compose, ignored)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Apply to an image (h, w, C) uint8 and its mask (h, w); both may come out at another size.

        Raises:
            ConfigError: A transform fails, or leaves something other than an 8-bit image.
        """
        seed = int(generator.integers(2**31))
        self._compose.set_random_seed(seed)
        with isolated_generators(seed):
            try:
                result = self._compose(image=image, mask=mask)
            except Exception as error:  # their errors have no base of their own
                raise ConfigError(f"The transforms fail on an image of {image.shape}: {error}.") from error
        changed, changed_mask = result["image"], result["mask"]
        if not isinstance(changed, np.ndarray) or changed.dtype != np.uint8 or changed.shape[:2] != changed_mask.shape:
            raise ConfigError(
                "The transforms must leave an 8-bit image and a mask of the same size. Take Normalize, ToFloat and "
                "ToTensorV2 out of the list: the loader does that itself."
            )
        return changed.reshape(*changed_mask.shape, image.shape[2]), changed_mask


def _adapt(transform: Any, ignored: int) -> None:
    """Set the filling and the interpolation of masks, in compositions too."""
    for inner in getattr(transform, "transforms", ()):
        _adapt(inner, ignored)
    if getattr(transform, "fill_mask", None) == 0:  # None: the transform leaves masks alone
        transform.fill_mask = ignored
    if hasattr(transform, "mask_interpolation"):
        transform.mask_interpolation = cv2.INTER_NEAREST
