"""Batches on their way from a loader worker: in the small types of their samples, in memory that is used again.

An image of 8 bits becomes four times as large as an input, and an id of 8 bits eight times as large as an int64. So a
worker sends the arrays of its samples, and the process that iterates the loader makes the batch of them. The memory in
which they are sent was allocated before the workers started: fresh shared memory would cost a page fault for every 4 KB
on both sides.
"""

import mmap
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from base.loading.workers import sendable
from base.samples import Failure
from utils.errors import LoaderFailed

BATCHES_PER_WORKER = 2
"""Batches that a worker prepares ahead, as in torch."""

_BUFFERS_PER_WORKER = BATCHES_PER_WORKER + 1  # one more holds the batch that is unpacked
_ALIGNMENT = 64
_MARGIN = 1.25  # samples of one data set may differ in size, as the masks of an evaluation do
Allocate = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class CompactBatch:
    """A batch in the small types of its samples, of which an accelerator makes what a network takes.

    Attributes:
        tensors: Everything large, on the processor.
        complete: The same tensors on the accelerator -> the batch, as `PackingCollate.unpack` returns it.
    """

    tensors: tuple[Tensor, ...]
    complete: Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class PackedBatch:
    """A batch before its samples are converted to the types of a network.

    Attributes:
        arrays: Of all samples, in any order that `PackingCollate.unpack` knows.
        details: Everything else, as plain data.
    """

    arrays: Sequence[np.ndarray]
    details: Any = None

    def pin_memory(self) -> "PackedBatch":
        """Return the same: `PackingCollate.unpack` writes into page-locked memory."""
        return self


class PackingCollate(ABC):
    """Collation in two steps: a loader worker packs the samples, and the process that iterates unpacks the batch."""

    @abstractmethod
    def pack(self, samples: Sequence[Any]) -> PackedBatch:
        """Return the arrays of the samples as they are, without a copy.

        Raises:
            DataError: The samples cannot share a batch.
        """

    @abstractmethod
    def unpack(self, batch: PackedBatch, empty: Allocate = torch.empty) -> tuple[Any, ...]:
        """Return the batch as a network takes it.

        Args:
            batch: Of `pack`; its arrays may be overwritten after this call.
            empty: Allocates a tensor of a shape and a dtype.
        """

    def compact(self, batch: PackedBatch, empty: Allocate = torch.empty) -> CompactBatch | None:
        """Return the batch for an accelerator to complete; None if only `unpack` knows how.

        Args:
            batch: As in `unpack`.
            empty: Allocates each of the tensors.
        """
        return None

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Return the batch of some samples."""
        return self.unpack(self.pack(samples))


@dataclass(frozen=True)
class SentBatch:
    """A packed batch as the message of a loader worker.

    Attributes:
        block: Number of the buffer that holds the arrays, or a tensor (N,) uint8 in shared memory with them.
        layout: First byte, shape and dtype of each array.
        details: As in `PackedBatch`.
    """

    block: int | Tensor
    layout: Sequence[tuple[int, tuple[int, ...], str]]
    details: Any

    def pin_memory(self) -> "SentBatch":
        """Return the same, see `PackedBatch.pin_memory`."""
        return self


class SendBuffers:
    """Memory that the main process shares with its forked loader workers; each of them has a few buffers.

    A worker takes a buffer that is free and fills it, the main process reads it and frees it.

    Args:
        workers: Number of loader workers.
        num_bytes: Bytes of a packed batch.

    Raises:
        OSError: There is not enough memory.
    """

    def __init__(self, workers: int, num_bytes: int) -> None:
        count = workers * _BUFFERS_PER_WORKER
        self.size = -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        # Anonymous: it is no part of the file system for shared memory, whose size may be limited. Pages that no batch
        # reaches take no memory.
        memory = np.frombuffer(mmap.mmap(-1, count * self.size + count), np.uint8)
        self._taken = memory[count * self.size :]
        self._buffers = memory[: count * self.size].reshape(count, self.size)

    def take(self, worker: int, num_bytes: int) -> int | None:
        """Return the number of a buffer for a worker to fill; None if none is free, or large enough."""
        if num_bytes <= self.size:
            for number in range(worker * _BUFFERS_PER_WORKER, (worker + 1) * _BUFFERS_PER_WORKER):
                if not self._taken[number]:
                    self._taken[number] = 1
                    return number
        return None

    def buffer(self, number: int) -> np.ndarray:
        """Return the bytes of a buffer, (size,) uint8."""
        buffer: np.ndarray = self._buffers[number]
        return buffer

    def free(self, number: int) -> None:
        """Let a worker fill a buffer again."""
        self._taken[number] = 0

    def free_all(self) -> None:
        """Let the workers fill all buffers again: batches of an iteration that was broken off are never read."""
        self._taken[:] = 0


def buffers_for(collate: Any, load: Callable[[], Any], batch_size: int, workers: int) -> SendBuffers | None:
    """Return the buffers for loader workers that are about to be forked; None if they have to do without.

    Args:
        collate: The collation; only a `PackingCollate` uses buffers.
        load: Loads a sample, which says how large a batch is, or returns a `Failure`.
        batch_size: Largest number of samples in a batch.
        workers: Number of loader workers.
    """
    if sys.platform != "linux" or not isinstance(collate, PackingCollate):
        return None
    sample = load()
    if isinstance(sample, Failure):
        return None
    _, num_bytes = _layout(collate.pack([sample]).arrays)
    try:
        return SendBuffers(workers, int(num_bytes * batch_size * _MARGIN))
    except (OSError, ValueError, OverflowError):
        return None


@dataclass(eq=False)
class BatchSender:
    """Collation in the process that loads the samples of a batch: a loader worker, or the one that iterates.

    Attributes:
        collate: List of samples -> batch.
        buffers: Memory for the batches of workers, if there is some.
    """

    collate: Callable[[list[Any]], Any]
    buffers: SendBuffers | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "buffers": None}  # a spawned worker has none

    def __call__(self, samples: list[Any]) -> Any:
        """Return the batch of some samples, still packed if `collate` does that, or the first failure among them."""
        failures = [sample for sample in samples if isinstance(sample, Failure)]
        if failures:
            return failures[0]
        try:
            if isinstance(self.collate, PackingCollate):
                return self._sent(self.collate.pack(samples))
            return sendable(partial(self.collate, samples))
        except LoaderFailed as error:
            return Failure(error)

    def _sent(self, batch: PackedBatch) -> PackedBatch | SentBatch:
        """Return a batch as a loader worker sends it; unchanged in the process that iterates."""
        worker = get_worker_info()
        if worker is None:
            return batch
        layout, num_bytes = _layout(batch.arrays)
        number = None if self.buffers is None else self.buffers.take(worker.id, num_bytes)
        if self.buffers is not None and number is not None:
            _write(batch.arrays, layout, self.buffers.buffer(number))
            return SentBatch(number, layout, batch.details)

        def share() -> SentBatch:
            block = torch.empty(num_bytes, dtype=torch.uint8)
            _write(batch.arrays, layout, block.numpy())
            return SentBatch(block, layout, batch.details)

        shared: SentBatch = sendable(share)
        return shared


def received_batch(
    batch: Any, collate: Any, buffers: SendBuffers | None, *, pins: bool, is_compact: bool = False
) -> Any:
    """Return a batch as the process that iterates uses it.

    Args:
        batch: A result of `BatchSender`.
        collate: The collation.
        buffers: Memory for the batches of workers, if there is some.
        pins: A packed batch is unpacked into page-locked memory.
        is_compact: A packed batch is returned as `CompactBatch` if the collation can do that.

    Raises:
        EspalierError: A failure came instead of the batch.
    """
    if isinstance(batch, Failure):
        raise batch.error
    if not isinstance(batch, PackedBatch | SentBatch):
        return batch
    empty = partial(torch.empty, pin_memory=True) if pins else torch.empty
    packed = batch if isinstance(batch, PackedBatch) else _read(batch, _block_of(batch, buffers))
    compact = collate.compact(packed, empty) if is_compact else None
    unpacked = collate.unpack(packed, empty) if compact is None else compact
    if buffers is not None and isinstance(batch, SentBatch) and isinstance(batch.block, int):
        buffers.free(batch.block)
    if not pins or compact is not None:
        return unpacked
    # Also what `empty` did not make; the rest is pinned already, and stays where it is.
    return tuple(each.pin_memory() if isinstance(each, Tensor) else each for each in unpacked)


def _block_of(batch: SentBatch, buffers: SendBuffers | None) -> np.ndarray:
    """Return the bytes that hold the arrays of a batch, (N,) uint8."""
    if isinstance(batch.block, Tensor):
        return batch.block.numpy()
    if buffers is None:
        raise RuntimeError("a loader worker sent a batch in a buffer, but there is none")
    return buffers.buffer(batch.block)


def _layout(arrays: Sequence[np.ndarray]) -> tuple[list[tuple[int, tuple[int, ...], str]], int]:
    """Return first byte, shape and dtype of each array, one after the other, and the bytes of all."""
    layout, end = [], 0
    for array in arrays:
        layout.append((end, array.shape, array.dtype.str))
        end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    return layout, end


def _views(layout: Sequence[tuple[int, tuple[int, ...], str]], block: np.ndarray) -> list[np.ndarray]:
    return [np.ndarray(shape, dtype, block, offset) for offset, shape, dtype in layout]


def _write(arrays: Sequence[np.ndarray], layout: Sequence[tuple[int, tuple[int, ...], str]], block: np.ndarray) -> None:
    for array, place in zip(arrays, _views(layout, block), strict=True):
        place[...] = array


def _read(batch: SentBatch, block: np.ndarray) -> PackedBatch:
    return PackedBatch(_views(batch.layout, block), batch.details)
