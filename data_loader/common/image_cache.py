"""Decoded samples in memory: those of one loader, and those that the loaders of one process share."""

import logging
import mmap
import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from utils.environment import DECODING_THREADS, available_memory, available_processors
from utils.errors import DataError, first_few
from utils.geometry import Size

logger = logging.getLogger(__name__)

Content = TypeVar("Content")
Result = TypeVar("Result")
_SAMPLES_ASKED = 8  # for their size, before it is known whether all fit into the memory
Sample = TypeVar("Sample")


class Footprint(NamedTuple):
    """Size of a sample as its headers state it.

    Attributes:
        original: Height and width of the file.
        num_bytes: Upper bound of the bytes of its decoded arrays.
    """

    original: Size
    num_bytes: int


class Decoder(ABC, Generic[Sample]):
    """Reader of the samples of a data set, by index; it may be called from several threads at once.

    Attributes:
        noun: Name of the samples in messages, in the plural.
    """

    noun: str

    @abstractmethod
    def footprint(self, index: int) -> Footprint:
        """Return the size of a sample, as cheaply as it is available.

        Raises:
            DataError: A file is missing or of another kind.
        """

    @abstractmethod
    def decode(self, index: int) -> Sample:
        """Return a sample: a named tuple of arrays and plain values, with the size of the file in `original`.

        Raises:
            DataError: A file is missing, damaged, or of another kind.
        """

    @abstractmethod
    def settings(self) -> Hashable:
        """Return everything that decides the bytes of the decoded samples except the files."""

    def scale(self) -> str:
        """Return the scale of the decoded samples as the end of a sentence; empty if it is that of the input."""
        return ""

    def identities(self, indices: Sequence[int]) -> dict[int, Hashable]:
        """Return the state of the files of each sample; samples for which it is unknown are left out."""
        return {}

    def summarize(self, faults: Sequence[DataError], count: int) -> str:
        """Return one message for two or more samples of `count` that cannot be used."""
        lines = [f"{len(faults)} of {count} {self.noun} cannot be used.", *first_few(list(map(str, faults)))]
        return "\n".join(lines)


def map_in_threads(decoder: Decoder[Any], work: Callable[[Any], Result], jobs: Iterable[Any]) -> list[Result]:
    """Return the results of `work` for all jobs.

    Raises:
        DataError: Jobs failed; one error for all of them.
    """

    def attempt(chunk: list[Any]) -> list[Any]:
        results: list[Any] = []
        for job in chunk:
            try:
                results.append(work(job))
            except DataError as error:
                results.append(error)
        return results

    todo = list(jobs)
    # Several jobs per call if there are many: passing one to a thread takes longer than reading a tiny image.
    size = max(1, min(32, len(todo) // 64))
    chunks = [todo[start : start + size] for start in range(0, len(todo), size)]
    # Threads suffice: OpenCV and the file system release Python's lock.
    with ThreadPoolExecutor(min(DECODING_THREADS, available_processors())) as pool:
        results = [result for part in pool.map(attempt, chunks) for result in part]
    faults = [result for result in results if isinstance(result, DataError)]
    if faults:
        raise faults[0] if len(faults) == 1 else DataError(decoder.summarize(faults, len(results)), faults)
    return results


class _Memory:
    """Blocks of anonymous shared memory, of which arrays take parts; it may be asked from several threads at once."""

    _BLOCK_BYTES = 1 << 25

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._block = np.empty(0, np.uint8)
        self._used = 0
        self.num_bytes = 0

    def copy_of(self, array: np.ndarray) -> np.ndarray:
        """Return a copy of an array that must not be written to."""
        with self._lock:
            start = -(-self._used // array.itemsize) * array.itemsize  # aligned to the type
            if start + array.nbytes > len(self._block):
                # -1: no file behind it. Freed as a whole with its last view, unlike many small arrays.
                self._block = np.frombuffer(mmap.mmap(-1, max(array.nbytes, self._BLOCK_BYTES)), np.uint8)
                start = 0
            self._used = start + array.nbytes
            self.num_bytes += array.nbytes
            place = self._block[start : self._used]
        copy = place.view(array.dtype).reshape(array.shape)
        copy[...] = array
        copy.flags.writeable = False
        return copy


class ImageCache(Generic[Sample]):
    """Samples from memory if they were decoded up front, and from their files otherwise.

    The samples lie in anonymous shared memory, so that forked loader workers read the same pages. A copy
    that is sent to a spawned worker decodes for itself.

    Args:
        decoder: Reads the samples.
        cache_mb: Memory limit in MB; None: a quarter of the free memory, divided among the processes of this machine.
    """

    def __init__(self, decoder: Decoder[Sample], cache_mb: int | None = None) -> None:
        self.decoder = decoder
        self.samples: dict[int, Sample] = {}
        self._cache_mb = cache_mb

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "samples": {}}

    def load(self, index: int) -> Sample:
        """Return a sample, whose arrays must not be written to.

        Raises:
            DataError: It cannot be read.
        """
        return self.samples[index] if index in self.samples else self.decoder.decode(index)

    def holds(self, indices: Iterable[int]) -> bool:
        """Return whether all of these samples are in memory."""
        return all(index in self.samples for index in indices)

    def prepare(self, indices: Iterable[int], check_sizes: Callable[[Mapping[int, Size]], None] | None = None) -> None:
        """Decode as many samples as fit into the memory, and check the headers of the others.

        Args:
            indices: The samples.
            check_sizes: Called with index -> size of the file before anything is decoded; raises if they do not fit
                together. None: they always do.

        Raises:
            DataError: Something is wrong with at least one sample; names the first few and counts all.
        """
        wanted = [int(index) for index in indices]
        decoder, shared = self.decoder, SHARED_CACHE.get()
        # The state of the files before they are read: a file that changes meanwhile is read again by the next loader.
        identities = {} if shared is None else decoder.identities(wanted)
        if shared is not None:
            found = shared.find(decoder.settings())
            self.samples |= {index: found[name] for index, name in identities.items() if name in found}
        todo = [index for index in wanted if index not in self.samples]
        if check_sizes is None and self._is_ample(todo):
            self._decode(todo)
        else:
            footprints = dict(zip(todo, map_in_threads(decoder, decoder.footprint, todo), strict=True))
            if check_sizes is not None:
                known: dict[int, Any] = {**footprints, **self.samples}
                check_sizes({index: known[index].original for index in wanted})
            self._decode(self._fitting(footprints), len(todo))
        if shared is not None and identities:
            content = {**shared.find(decoder.settings())}
            content |= {identities[index]: sample for index, sample in self.samples.items() if index in identities}
            shared.store(decoder.settings(), content, sum(map(_num_bytes, content.values())))

    def _is_ample(self, indices: Sequence[int]) -> bool:
        """Return whether the memory is for twice as many samples as these, by the headers of a few.

        Then the headers of the others are not read before the files are decoded.
        """
        few = indices[:: max(1, len(indices) // _SAMPLES_ASKED)]
        try:
            largest = max((self.decoder.footprint(index).num_bytes for index in few), default=0)
        except DataError:
            return True  # decoding reports it, together with the faults of the others
        return 2 * largest * len(indices) <= self._free_bytes()

    def _free_bytes(self) -> int:
        """Return the bytes that more samples may take."""
        used = sum(map(_num_bytes, self.samples.values()))
        if self._cache_mb is not None:
            return self._cache_mb * 2**20 - used
        return (available_memory() + used) // 4 // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - used

    def _fitting(self, footprints: Mapping[int, Footprint]) -> list[int]:
        """Return those of these samples, in order, for which there is memory."""
        sizes = accumulate(footprint.num_bytes for footprint in footprints.values())
        limit = self._free_bytes()
        return [index for index, _ in takewhile(lambda each: each[1] <= limit, zip(footprints, sizes, strict=True))]

    def _decode(self, indices: Sequence[int], count: int | None = None) -> None:
        """Decode samples, of which `count` were wanted (all, if None), into the memory that loader workers share."""
        memory, limit = _Memory(), self._free_bytes()

        def decode(index: int) -> Any:
            if memory.num_bytes > limit:  # the samples that were asked for their size are smaller than others
                self.decoder.footprint(index)
                return None
            sample: Any = self.decoder.decode(index)
            arrays = {name: value for name, value in sample._asdict().items() if isinstance(value, np.ndarray)}
            return sample._replace(**{name: memory.copy_of(array) for name, array in arrays.items()})

        decoded = zip(indices, map_in_threads(self.decoder, decode, indices), strict=True)
        new = {index: sample for index, sample in decoded if sample is not None}
        self.samples |= new
        count = len(indices) if count is None else count
        if count:
            logger.info(
                "%d of %d %s are decoded and kept in memory (%.1f MB)%s.",
                len(new),
                count,
                self.decoder.noun,
                memory.num_bytes / 2**20,
                self.decoder.scale(),
            )


def _num_bytes(sample: Any) -> int:
    return sum(value.nbytes for value in sample if isinstance(value, np.ndarray))


@dataclass(eq=False)
class SharedCache:
    """Decoded samples that outlive their loader, in groups that were decoded with the same settings.

    If a limit is exceeded, the groups that were used longest ago are dropped.

    Args:
        megabytes: Memory limit.
    """

    megabytes: float
    _groups: OrderedDict[Hashable, tuple[Mapping[Hashable, Any], int]] = field(default_factory=OrderedDict, init=False)

    @property
    def num_bytes(self) -> int:
        """Bytes in use."""
        return sum(num_bytes for _, num_bytes in self._groups.values())

    def find(self, group: Hashable) -> Mapping[Hashable, Any]:
        """Return the content of a group; empty if there is no such group."""
        if group not in self._groups:
            return {}
        self._groups.move_to_end(group)  # used last
        return self._groups[group][0]

    def store(self, group: Hashable, content: Mapping[Hashable, Any], num_bytes: int) -> None:
        """Replace the content of a group; content above the whole limit is not stored."""
        self._groups.pop(group, None)  # first, so that its old content does not count
        limit = self.megabytes * 2**20
        if num_bytes > limit:
            return
        while self._groups and self.num_bytes + num_bytes > limit:
            self._groups.popitem(last=False)
        self._groups[group] = (content, num_bytes)


SHARED_CACHE: ContextVar[SharedCache | None] = ContextVar("shared cache", default=None)
"""The cache that the loaders of this process share; None outside of `share_decoded`."""


@contextmanager
def share_decoded(megabytes: float) -> Iterator[SharedCache]:
    """Let loaders find data that earlier ones decoded inside the block; its end frees all of it.

    For a process that trains many networks on the same images. A single training shares nothing and frees its memory.

    Args:
        megabytes: Memory limit.
    """
    shared = SharedCache(megabytes)
    token = SHARED_CACHE.set(shared)
    try:
        yield shared
    finally:
        SHARED_CACHE.reset(token)


def stamp(path: str | Path) -> tuple[int, ...]:
    """Return the state of a file: another file, or another content, has another one; empty if the file is missing."""
    try:
        status = os.stat(path)
    except OSError:
        return ()  # reading the file raises the error
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def read_once(
    path: str | Path, read: Callable[[Path], Content], size: Callable[[Content], int], *, how: Hashable = None
) -> Content:
    """Return the result of `read` for a file, from the shared cache if there is one; it must not be written to.

    Args:
        path: The file.
        read: Reads it.
        size: Bytes of the result.
        how: Everything else that decides the result.
    """
    shared = SHARED_CACHE.get()
    if shared is None:
        return read(Path(path))
    group, name = (read.__module__, read.__qualname__, str(path), how), stamp(path)
    content: Content | None = shared.find(group).get(name)
    if content is None:
        content = read(Path(path))
        shared.store(group, {name: content}, size(content))
    return content
