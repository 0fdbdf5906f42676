"""Transforms of albumentations, tried on images of the sizes that a data set has, before the first step meets them."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from utils.errors import ConfigError
from utils.geometry import Size
from utils.seeding import isolated_generators

_SEEDS = range(3)  # transforms that draw a size are tried with several
_MOST_SIZES = 8  # of the images that a transform may meet, after those before it

States = dict[Size, tuple[np.ndarray, np.ndarray]]


class TransformFailure(Exception):
    """A transform that cannot be applied: its name, the size (h, w) that it met, and the reason."""


def require_applicable(composition: Any, sizes: Mapping[int, Size], channels: int, name: Callable[[int], str]) -> None:
    """Raise an error if a transform can meet an image that it cannot be applied to.

    Every transform is applied, whatever its probability, to noise of the smallest and largest sizes.

    Args:
        composition: A composition of albumentations; it is not changed.
        sizes: Index of a sample -> (height, width) of its image as the transforms get it.
        channels: Of the images.
        name: Index -> name of the image's file.

    Raises:
        ConfigError: Names the transform, the file, and the repair.
    """
    for index in _extremes(sizes):
        height, width = sizes[index]
        generator = np.random.default_rng(0)
        image = generator.integers(0, 256, (height, width, channels), dtype=np.uint8)
        mask = generator.integers(0, 2, (height, width), dtype=np.uint8)
        for seed in _SEEDS:
            tried = copy.deepcopy(composition)
            tried.set_random_seed(seed)
            try:
                with isolated_generators(seed):
                    _applied(tried, {(height, width): (image, mask)})
            except TransformFailure as failure:
                transform, met, reason = failure.args
                raise ConfigError(
                    f"transforms: {transform} cannot be applied to {name(index)}, which it gets as {met[0]}x{met[1]} "
                    f"(height x width): {reason}. Transforms see an image after it, or its crop, was scaled to fit "
                    "resize. Correct the transform, let PadIfNeeded come before it, or set a larger resize if the "
                    "files are larger."
                ) from failure


def _extremes(sizes: Mapping[int, Size]) -> list[int]:
    """Return the samples of the least and the largest height and width, one for each size."""
    if not sizes:
        return []
    chosen = [pick(sizes, key=lambda index: sizes[index][axis]) for axis in (0, 1) for pick in (min, max)]
    return list({sizes[index]: index for index in chosen}.values())


def _applied(transform: Any, states: States) -> States:
    """Return the images that can result from a transform or composition, one for each size.

    Raises:
        TransformFailure: It, or one of its parts, cannot be applied to an image that it can meet.
    """
    if transform.p == 0:
        return states
    kind, parts = type(transform).__name__, getattr(transform, "transforms", None)
    results: States = dict(states) if transform.p < 1 else {}
    if parts is not None and kind in ("Compose", "ReplayCompose", "Sequential"):
        for part in parts:
            states = _applied(part, states)
        results |= states
    elif parts is not None and kind in ("OneOf", "OneOrOther", "SomeOf", "RandomOrder"):
        for part in parts:  # whichever is drawn
            results |= _applied(part, states)
    else:
        for size, result in _tried(transform, kind, states):
            results[size] = result
    return dict(list(results.items())[:_MOST_SIZES])


def _tried(transform: Any, kind: str, states: States) -> Iterator[tuple[Size, tuple[np.ndarray, np.ndarray]]]:
    """Yield the results of a single transform with their sizes."""
    for size, (image, mask) in states.items():
        try:
            result = transform(force_apply=True, image=image.copy(), mask=mask.copy())
        except Exception as error:  # the errors of albumentations have no common base
            raise TransformFailure(
                kind, size, str(error).splitlines()[0] if str(error) else type(error).__name__
            ) from error
        changed, changed_mask = result["image"], result["mask"]
        if not isinstance(changed, np.ndarray) or changed.shape[:2] != np.shape(changed_mask)[:2]:
            continue  # the whole list may still make an image of it; the loader checks what comes out
        yield (changed.shape[0], changed.shape[1]), (changed, changed_mask)
