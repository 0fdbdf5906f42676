"""The batches of the steps of a training, in endless passes through a loader."""

import math
from collections.abc import Iterator
from itertools import islice

from torch import Tensor

from base.base_data_loader import BaseDataLoader

Batch = tuple[Tensor, Tensor]


def endless_steps(loader: BaseDataLoader, accumulate: int, first: int) -> Iterator[list[Batch]]:
    """Yield the batches of one step after another, in pass after pass through a loader.

    The iterator outlives an epoch, which may be shorter or longer than a pass.

    Args:
        loader: Yields (inputs, target, ...).
        accumulate: Batches of a step; the last step of a pass has those that are left.
        first: Number of steps that were made before.
    """
    steps_per_pass, step = math.ceil(len(loader) / accumulate), first
    while True:
        epoch, position = divmod(step, steps_per_pass)
        loader.set_position(epoch, position * accumulate)
        batches = iter(loader)
        while group := [(inputs, target) for inputs, target, *_ in islice(batches, accumulate)]:
            step += 1
            yield group
