"""Augmentation of images and masks: albumentations' transforms, one warp, one colour matrix, and one addition of noise.

All random values come from the generator of the sample. h, w size of an image, H, W size of the input, C channels.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np

from data_loader.common.options import ColorOptions, TurnOptions, WarpOptions
from data_loader.images.preprocessing import Enlargement, Preprocessing, full_scale, place_mask, scaled_mask
from data_loader.images.transform_check import unfit_transforms
from data_loader.images.warp import Move, move_both
from utils.errors import ConfigError
from utils.geometry import Size
from utils.seeding import isolated_generators

_NOISE_VALUES = 1 << 20
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, RGB


class RandomValues(NamedTuple):
    """Random values of one sample, each uniform in [0, 1)."""

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


class Augmentation:
    """Random changes of an image and its mask in training.

    Every sample takes the same number of random values, so that an effect that is switched on leaves the others as they
    were.

    Args:
        options: Strength of the effects; those that a group of options lacks are off.
        preprocessing: Gives size of the input and padding.
        ignored: Label of the area outside of the image.
    """

    def __init__(self, options: WarpOptions, preprocessing: Preprocessing, ignored: int = 0) -> None:
        self.warp = options
        self.rotate = options.rotate if isinstance(options, TurnOptions) else 0.0
        self.colors = options if isinstance(options, ColorOptions) else ColorOptions()
        self.transforms = AlbumentationsTransforms(self.colors.transforms, ignored) if self.colors.transforms else None
        self.preprocessing = preprocessing
        self.ignored = ignored

    @property
    def enlargement(self) -> Enlargement:
        """The most that a crop enlarges an image, for `Preprocessing.shrink`."""
        smallest = (self.warp.crop_range or (1.0,))[0]
        # In steps of a tenth, so that the candidates of a search that draws it share their decoded images.
        return self._enlargement(math.floor(smallest * 10 + 1e-6) / 10 or smallest)

    def _enlargement(self, crop: float) -> Enlargement:
        return Enlargement(1 / min(crop, 1.0), self.rotate > 0)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, generator: np.random.Generator, original: Size | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw random values and apply the effects to both.

        Args:
            image: (h, w, C) uint8 or uint16, RGB or grey, of arrays also float32, after `Preprocessing.shrink` with
                `enlargement`.
            mask: (h, w) uint8 or uint16.
            generator: Source of the random values.
            original: Size of the file; None: that of the image.

        Returns:
            Image (H, W, C) and mask (H, W), letterboxed, of the same dtypes.
        """
        preprocessing = self.preprocessing
        original = original or (mask.shape[0], mask.shape[1])
        is_file = original == mask.shape
        seed = 0 if self.transforms is None else int(generator.integers(2**31))
        values = RandomValues(*generator.random(len(RandomValues._fields)).tolist())
        move = self.move(values)
        if self.transforms is not None:
            # Effects of a transform in pixels, as the width of a blur, are then the same for every crop.
            shown = preprocessing.enlarged_size(original, self._enlargement(move.crop))
            image, mask = preprocessing.scaled(image, shown), scaled_mask(mask, shown)
            image, mask = self.transforms(image, mask, seed)
            original, is_file = (mask.shape[0], mask.shape[1]), False
        geometry = preprocessing.geometry(original[::-1] if move.quarters else original)
        moved, moved_mask = move_both(
            image, mask, move, geometry.resized, preprocessing, ignored=self.ignored, is_file=is_file
        )
        recolored = self._recolored(moved, values)
        return preprocessing.place(recolored, geometry), place_mask(moved_mask, geometry, self.ignored)

    def move(self, values: RandomValues) -> Move:
        """Return the change of geometry that follows from random values."""
        smallest, largest = self.warp.crop_range or (1.0, 1.0)
        return Move(
            crop=smallest + (largest - smallest) * values.crop,
            left=values.left,
            top=values.top,
            is_flipped=values.flip < self.warp.flip_hor,
            quarters=(1 if values.side >= 0.5 else -1) if values.turn < self.rotate else 0,
            radians=math.radians(self.warp.angle * (2.0 * values.angle - 1.0)),
        )

    def unfit_transforms(self, sizes: Mapping[int, Size], name: Callable[[int], str]) -> Iterator[ConfigError]:
        """Yield an error for each transform of albumentations that cannot be applied to images of these sizes.

        Args:
            sizes: Index of a sample -> (height, width) of its file.
            name: Index -> name of the file.
        """
        if self.transforms is not None:
            preprocessing, window = self.preprocessing, self.warp.crop_range or (1.0, 1.0)
            shown = {
                (index, crop): preprocessing.enlarged_size(size, self._enlargement(crop))
                for index, size in sizes.items()
                for crop in window
            }
            composition, channels = self.transforms.composition, preprocessing.in_channels
            yield from unfit_transforms(composition, shown, channels, lambda key: name(key[0]))

    def _recolored(self, image: np.ndarray, values: RandomValues) -> np.ndarray:
        """Apply brightness, contrast and saturation as one affine map of each pixel's channels, then add noise."""
        colors = self.colors
        if colors.brightness or colors.contrast or colors.saturation:
            # cv2.transform takes (C, C + 1): a matrix, and a last column that is added.
            channels, full = image.shape[2], full_scale(image.dtype)
            contrast = 1.0 + colors.contrast * (2.0 * values.contrast - 1.0)
            brightness = colors.brightness * (2.0 * values.brightness - 1.0)
            matrix = np.eye(channels, channels + 1)
            changed = min(channels, 3)  # a fourth channel (alpha) stays as it is
            if changed == 3:
                # Between the colour and its grey; below 1 greyer, above 1 more colourful.
                saturation = 1.0 + colors.saturation * (2.0 * values.saturation - 1.0)
                matrix[:3, :3] = saturation * np.eye(3) + (1.0 - saturation) * np.array(_LUMA)
            # Contrast leaves mid-grey, full / 2, unchanged.
            matrix[:changed, :changed] *= contrast
            matrix[:changed, channels] = full * (0.5 * (1.0 - contrast) + brightness)
            image = np.asarray(cv2.transform(image, matrix)).reshape(image.shape)
        if not colors.noise_std:
            return image
        noise = _noise_table(colors.noise_std * full_scale(image.dtype) / 255)
        start = int(values.noise * max(1, _NOISE_VALUES - image.size))
        chosen = noise[start : start + image.size]
        if chosen.size < image.size:  # an image larger than the table: the noise repeats
            chosen = np.resize(chosen, image.size)
        # OpenCV's addition saturates: values stay within the range of the type.
        depth = cv2.CV_8U if image.dtype == np.uint8 else cv2.CV_16U
        return np.asarray(cv2.add(image, chosen.reshape(image.shape), dtype=depth)).reshape(image.shape)


@lru_cache(maxsize=4)
def _noise_table(std: float) -> np.ndarray:
    """Return normal noise, rounded, (N,) int16, of which a sample takes a stretch that begins anywhere.

    Noise drawn anew for each sample would take longer than all other effects together. Rounding loses nothing: the
    noise is added to whole numbers.
    """
    noise = np.random.default_rng(0).normal(0.0, std, _NOISE_VALUES)
    return np.clip(np.rint(noise), -32768, 32767).astype(np.int16)


os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks a server for a newer version otherwise


class AlbumentationsTransforms:
    """Transforms of albumentations, applied in order to an image and its mask.

    Albumentations 2.0.8 repeats its random values in every worker and every epoch, so it is seeded for each sample.
    Masks move by nearest neighbour, whichever interpolation a transform has, and the area outside the image is ignored.

    Args:
        transforms: Instances of albumentations' transforms or compositions, or a single one.
        ignored: Label of the area outside of the image.

    Attributes:
        composition: Of albumentations, with all transforms.
    """

    def __init__(self, transforms: Any, ignored: int) -> None:
        from albumentations import Compose

        self.composition = Compose(list(transforms) if isinstance(transforms, list | tuple) else [transforms])
        pending = [self.composition]
        while pending:
            transform = pending.pop()
            pending += getattr(transform, "transforms", ())  # compositions hold others
            if getattr(transform, "fill_mask", None) == 0:  # None: the transform leaves masks alone
                transform.fill_mask = ignored
            if hasattr(transform, "mask_interpolation"):
                transform.mask_interpolation = cv2.INTER_NEAREST

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image (h, w, C) of 8 or 16 bits as uint8 and its mask (h, w), changed; both may get another size.

        Raises:
            ConfigError: A transform fails, or its result is not an 8-bit image.
        """
        # Copies, because a transform may work in place.
        if image.dtype == np.uint8:
            image, mask = image.copy(), mask.copy()
        else:
            image, mask = np.rint(image * (255.0 / full_scale(image.dtype))).astype(np.uint8), mask.copy()
        self.composition.set_random_seed(seed)
        with isolated_generators(seed):  # some transforms draw from the global generators
            try:
                result = self.composition(image=image, mask=mask)
            except Exception as error:  # the errors of albumentations have no common base
                raise ConfigError(f"The transforms fail on an image of {image.shape}: {error}.") from error
        changed, changed_mask = result["image"], result["mask"]
        if not isinstance(changed, np.ndarray) or changed.dtype != np.uint8 or changed.shape[:2] != changed_mask.shape:
            raise ConfigError(
                "The transforms must leave an 8-bit image and a mask of the same size. Take Normalize, ToFloat and "
                "ToTensorV2 out of the list: the loader does that itself."
            )
        return changed.reshape(*changed_mask.shape, image.shape[2]), changed_mask
