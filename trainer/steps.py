"""The batches of the steps of a training, in endless passes through a loader, and their way to the device."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from base.base_data_loader import BaseDataLoader
from base.loading.packing import CompactBatch
from trainer.runtime.devices import RunPrecision

Batch = tuple[Tensor, Tensor]
_EVALUATED_AHEAD = 2


class BatchMover:
    """Moves batches to an accelerator: images of 8 bits as they are, which it normalises.

    A GPU copies on a stream of its own, while it computes the step before. No batch is loaded ahead for that: a step
    waits for its forward pass alone (see `FiniteCheck`), so that the process asks for the next batch while the backward
    pass runs, and the position of a loader remains that of the batch in use. With fp16 the scaler waits for that pass.

    Args:
        precision: The device and its memory format; on a processor batches are what the loader yields.
    """

    def __init__(self, precision: RunPrecision) -> None:
        self.precision = precision
        self._stream: torch.cuda.Stream | None = None

    def batches(self, loader: BaseDataLoader) -> "BaseDataLoader | MovedBatches":
        """Return the batches of a loader for a training, on the device."""
        return loader if self.precision.device.type == "cpu" else MovedBatches(loader, self)

    def evaluated(self, loader: BaseDataLoader) -> "BaseDataLoader | MovedBatches":
        """Return the batches of a loader for an evaluation, on the device."""
        return loader if self.precision.device.type == "cpu" else MovedBatches(loader, self, _EVALUATED_AHEAD)

    def move(self, batch: Any) -> tuple[Any, ...]:
        """Return (inputs, target, ...) on the device; the process waits for nothing.

        Args:
            batch: The same of a loader, or a `CompactBatch`.
        """
        device = self.precision.device
        parts = batch.tensors if isinstance(batch, CompactBatch) else batch[:2]
        # What a plug-in has computed on the device is ready on the stream that computes only.
        if device.type != "cuda" or any(part.is_cuda for part in parts):
            return self._placed(batch)
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        computing = torch.cuda.current_stream(device)
        with torch.cuda.stream(self._stream):
            inputs, target, *rest = self._placed(batch)
        computing.wait_stream(self._stream)
        for tensor in (inputs, target):
            tensor.record_stream(computing)  # its memory is free again when the step is computed, not copied
        return inputs, target, *rest

    def mark(self) -> "torch.cuda.Event | None":
        """Return an event at the end of what the GPU is to compute so far; None for another device."""
        device = self.precision.device
        if device.type != "cuda":
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        return event

    def _placed(self, batch: Any) -> tuple[Any, ...]:
        place = self.precision.place
        is_compact = isinstance(batch, CompactBatch)
        inputs, target, *rest = batch.complete(*map(place, batch.tensors)) if is_compact else batch
        return place(inputs), place(target), *rest


@dataclass(frozen=True, eq=False)
class MovedBatches:
    """The batches of a loader on the device.

    Attributes:
        loader: Yields (inputs, target, ...).
        mover: Moves them.
        ahead: Batches that the process may be ahead of a GPU: the memory of one is free again when it is computed.
            None: the loop over the batches waits for the GPU, as a training does.
    """

    loader: BaseDataLoader
    mover: BatchMover
    ahead: int | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        # A plug-in that makes batches of its own yields no others.
        is_own = type(self.loader).__iter__ is not BaseDataLoader.__iter__
        marks: deque[Any] = deque()
        for batch in iter(self.loader) if is_own else self.loader.compact_batches():
            mark = None if self.ahead is None else self.mover.mark()
            if mark is not None:
                marks.append(mark)
                if len(marks) > (self.ahead or 0):
                    marks.popleft().synchronize()
            yield self.mover.move(batch)


def endless_steps(loader: BaseDataLoader, accumulate: int, first: int, mover: BatchMover) -> Iterator[list[Batch]]:
    """Yield the batches of one step after another, in pass after pass through a loader.

    The iterator outlives an epoch, which may be shorter or longer than a pass.

    Args:
        loader: Yields (inputs, target, ...).
        accumulate: Batches of a step; the last step of a pass has those that are left.
        first: Number of steps that were made before.
        mover: Moves them to the device.
    """
    steps_per_pass, step = math.ceil(len(loader) / accumulate), first
    while True:
        epoch, position = divmod(step, steps_per_pass)
        loader.set_position(epoch, position * accumulate)
        batches = iter(mover.batches(loader))
        while group := [(inputs, target) for inputs, target, *_ in islice(batches, accumulate)]:
            step += 1
            yield group
