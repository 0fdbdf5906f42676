"""A list of albumentations' transforms, made to draw from the sample's own generator."""

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from utils.errors import ConfigError
from utils.seeding import isolated_generators

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it calls home on import otherwise


class FreeTransforms:
    """Applies the transforms that a configuration lists, in order, to a picture and its mask.

    Albumentations 2.0.8 repeats its draws in every worker and every epoch, so it is seeded anew for each sample.
    Masks move by nearest neighbour whatever a transform says, and what comes from outside the picture is ignored.

    Args:
        transforms: Instances of albumentations' transforms or compositions, or a single one.
        ignored: Label of what lies outside the picture.
    """

    def __init__(self, transforms: Sequence[Any], ignored: int) -> None:
        from albumentations import Compose

        self._compose = Compose(list(transforms) if isinstance(transforms, list | tuple) else [transforms])
        _adapt(self._compose, ignored)

    def __call__(
        self, picture: np.ndarray, mask: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Apply to a picture (h, w, C) uint8 and its mask (h, w); both may come out at another size.

        Raises:
            ConfigError: A transform fails, or leaves something other than an 8-bit picture.
        """
        seed = int(generator.integers(2**31))
        self._compose.set_random_seed(seed)
        with isolated_generators(seed):
            try:
                result = self._compose(image=picture, mask=mask)
            except Exception as error:  # their errors have no base of their own
                raise ConfigError(f"The transforms fail on a picture of {picture.shape}: {error}.") from error
        changed, changed_mask = result["image"], result["mask"]
        if not isinstance(changed, np.ndarray) or changed.dtype != np.uint8 or changed.shape[:2] != changed_mask.shape:
            raise ConfigError(
                "The transforms must leave an 8-bit picture and a mask of the same size. Take Normalize, ToFloat and "
                "ToTensorV2 out of the list: the loader does that itself."
            )
        return changed.reshape(*changed_mask.shape, picture.shape[2]), changed_mask


def _adapt(transform: Any, ignored: int) -> None:
    """Set the filling and the interpolation of masks, in compositions too."""
    for inner in getattr(transform, "transforms", ()):
        _adapt(inner, ignored)
    if getattr(transform, "fill_mask", None) == 0:  # None: the transform leaves masks alone
        transform.fill_mask = ignored
    if hasattr(transform, "mask_interpolation"):
        transform.mask_interpolation = cv2.INTER_NEAREST
