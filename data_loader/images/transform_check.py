"""Transforms of albumentations, tried on images of the sizes that a data set has, before the first step meets them."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from utils.errors import ConfigError
from utils.geometry import Size
from utils.seeding import isolated_generators

_SEEDS = range(3)  # transforms that draw a size are tried with several
_MOST_SIZES = 8  # of the images that a transform may meet, after those before it

States = dict[Size, tuple[np.ndarray, np.ndarray]]


class TransformFailure(NamedTuple):
    """A transform that cannot be applied.

    Attributes:
        transform: Its name.
        size: Height and width of the image that it met.
        reason: The first line of its error.
    """

    transform: str
    size: Size
    reason: str


Key = TypeVar("Key")
Failures = dict[tuple[int, ...], TransformFailure]
"""Positions in the composition, from the outside in -> the first failure of the transform there."""


def unfit_transforms(
    composition: Any, sizes: Mapping[Key, Size], channels: int, name: Callable[[Key], str]
) -> Iterator[ConfigError]:
    """Yield an error for each transform that can meet an image that it cannot be applied to.

    Every transform is applied, whatever its probability, to noise of the smallest and largest sizes.

    Args:
        composition: A composition of albumentations; it is not changed.
        sizes: Key of an image -> (height, width) of it as the transforms get it.
        channels: Of the images.
        name: Key -> name of the image's file.
    """
    reported: set[tuple[int, ...]] = set()
    for index in _extremes(sizes):
        height, width = sizes[index]
        generator = np.random.default_rng(0)
        image = generator.integers(0, 256, (height, width, channels), dtype=np.uint8)
        mask = generator.integers(0, 2, (height, width), dtype=np.uint8)
        for seed in _SEEDS:
            failures: Failures = {}
            tried = copy.deepcopy(composition)
            tried.set_random_seed(seed)
            with isolated_generators(seed):
                _applied(tried, {(height, width): (image, mask)}, (), failures)
            for position in failures.keys() - reported:
                transform, met, reason = failures[position]
                yield ConfigError(
                    f"transforms: {transform} cannot be applied to {name(index)}, which it gets as {met[0]}x{met[1]} "
                    f"(height x width): {reason}. Transforms see an image after it, or its crop, was scaled to fit "
                    "resize. Correct the transform, let PadIfNeeded come before it, or set a larger resize if the "
                    "files are larger."
                )
            reported |= failures.keys()


def _extremes(sizes: Mapping[Key, Size]) -> list[Key]:
    """Return the samples of the least and the largest height and width, one for each size."""
    if not sizes:
        return []
    chosen = [pick(sizes, key=lambda index: sizes[index][axis]) for axis in (0, 1) for pick in (min, max)]
    return list({sizes[index]: index for index in chosen}.values())


def _applied(transform: Any, states: States, position: tuple[int, ...], failures: Failures) -> States:
    """Return the images that can result from a transform or composition, one for each size; collect what fails."""
    if transform.p == 0:
        return states
    kind, parts = type(transform).__name__, getattr(transform, "transforms", None)
    results: States = dict(states) if transform.p < 1 else {}
    if parts is not None and kind in ("Compose", "ReplayCompose", "Sequential"):
        for number, part in enumerate(parts):
            states = _applied(part, states, (*position, number), failures)
        results |= states
    elif parts is not None and kind in ("OneOf", "OneOrOther", "SomeOf", "RandomOrder"):
        for number, part in enumerate(parts):  # whichever is drawn
            results |= _applied(part, states, (*position, number), failures)
    else:
        for size, (image, mask) in states.items():
            try:
                result = transform(force_apply=True, image=image.copy(), mask=mask.copy())
            except Exception as error:  # the errors of albumentations have no common base
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                failures.setdefault(position, TransformFailure(kind, size, reason))
                results[size] = image, mask  # so that those after it are tried as well
                continue
            changed, changed_mask = result["image"], result["mask"]
            # Of another result the whole list may still make an image; the loader checks what comes out.
            if isinstance(changed, np.ndarray) and changed.shape[:2] == np.shape(changed_mask)[:2]:
                results[changed.shape[0], changed.shape[1]] = changed, changed_mask
    return dict(list(results.items())[:_MOST_SIZES])
