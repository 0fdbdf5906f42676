"""Pairs, decoded once and checked: one block of memory that all workers share."""

import logging
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from base.workers import available_processors
from data_loader.labels import Labels
from data_loader.pairs import Pair
from data_loader.pictures import picture_size, read_mask, read_picture
from data_loader.preprocessing import Preprocessing, scaled_mask
from utils.errors import DataError
from utils.geometry import Size

logger = logging.getLogger(__name__)

_SHOWN = 5
_THREADS = 4


class DecodedPair(NamedTuple):
    """A pair as it is kept.

    Attributes:
        picture: (h', w', C) uint8 or uint16, RGB or grey, no larger than the network's input.
        mask: (h', w') as the picture, or (h, w) at its own size where masks are kept whole; uint8 or uint16 ids.
        original: Size of the files.
    """

    picture: np.ndarray
    mask: np.ndarray
    original: Size


class PairFault(DataError):
    """What is wrong with one pair.

    Attributes:
        unknown: Labels that the mask must not hold, where that is the fault.
    """

    unknown: Sequence[int] = ()


class PairCache:
    """Reads pairs, from memory where they were decoded up front and from their files otherwise.

    Pictures are kept at the network's scale: an epoch then costs no decoding and no large resize. The block is
    anonymous shared memory, so forked workers read the same pages; a copy sent to a spawned one decodes for itself.

    Args:
        pairs: Files.
        preprocessing: Gives scale and channels.
        labels: Gives the allowed values of masks.
        keeps_masks_whole: Masks stay at their own size (evaluation is done there).
        cache_mb: Most memory to use; None: a quarter of what is free, shared between the processes of this machine.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        preprocessing: Preprocessing,
        labels: Labels,
        *,
        keeps_masks_whole: bool,
        cache_mb: int | None = None,
    ) -> None:
        self._pairs = list(pairs)
        self._preprocessing = preprocessing
        self._labels = labels
        self._keeps_masks_whole = keeps_masks_whole
        self._cache_mb = cache_mb
        self._kept: dict[int, DecodedPair] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def load(self, index: int) -> DecodedPair:
        """The pair at `index`; its arrays are not to be written to.

        Raises:
            DataError: A file is missing or unreadable, or the two do not fit.
        """
        return self._kept.get(index) or self._decode(index)

    def load_mask(self, index: int) -> np.ndarray:
        """The mask at `index` at its own size, (h, w) ids, without its picture.

        Raises:
            DataError: The file is missing or unreadable.
        """
        kept = self._kept.get(index)
        if kept is not None and kept.mask.shape == kept.original:
            return kept.mask
        return self._labels.convert(read_mask(self._pairs[index].mask))[0]

    def prepare(self, indices: Iterable[int]) -> None:
        """Check every pair and decode as many as fit into the memory.

        Raises:
            DataError: Something is wrong with at least one pair; names the first few and counts all.
        """
        todo = [int(index) for index in indices if int(index) not in self._kept]
        with ThreadPoolExecutor(min(_THREADS, available_processors())) as pool:
            plans = self._checked(pool.map(_attempt(self._plan), todo))
            fitting, total = _fitting(plans, self._budget())
            block = np.frombuffer(mmap.mmap(-1, max(total, 1)), np.uint8)

            def keep(job: tuple[int, int, int]) -> DecodedPair:
                position, start, size = job
                return _stored(self._decode(todo[position]), block[start : start + size])

            decoded = self._checked(pool.map(_attempt(keep), fitting))
        for (position, _, _), pair in zip(fitting, decoded, strict=True):
            self._kept[todo[position]] = pair
        logger.info("%d of %d pairs are decoded and kept in memory (%.1f MB).", len(fitting), len(todo), total / 2**20)

    def _plan(self, index: int) -> int:
        """Bytes that a pair takes, from its headers."""
        pair = self._pairs[index]
        height, width, depth = picture_size(pair.picture, upright=self._preprocessing.in_channels != 4)
        mask_height, mask_width, _ = picture_size(pair.mask, upright=False)
        if (height, width) != (mask_height, mask_width):
            height, width = self._decode(index).original  # a header may mislead; the pixels decide
        resized = self._preprocessing.geometry((height, width)).resized
        kept = min(height * width, resized[0] * resized[1])
        mask_pixels = height * width if self._keeps_masks_whole else kept
        return kept * self._preprocessing.in_channels * depth + mask_pixels * self._labels.dtype.itemsize + 16

    def _decode(self, index: int) -> DecodedPair:
        pair = self._pairs[index]
        picture = read_picture(pair.picture, in_channels=self._preprocessing.in_channels)
        original = (picture.shape[0], picture.shape[1])
        raw = read_mask(pair.mask)
        _require_same_size(pair, original, (raw.shape[0], raw.shape[1]))
        mask, unknown = self._labels.convert(raw)
        if unknown:
            fault = PairFault(
                f"{pair.mask} holds the labels {_listed(unknown)}: masks must hold {self._labels.rule()}. "
                f"{self._labels.repair(unknown)}{_jpeg_hint(pair.mask)}"
            )
            fault.unknown = unknown
            raise fault
        shrunk = self._preprocessing.shrink(picture)
        if not self._keeps_masks_whole:
            mask = scaled_mask(mask, (shrunk.shape[0], shrunk.shape[1]))
        return DecodedPair(shrunk, mask, original)

    def _checked(self, results: Iterable[Any]) -> list[Any]:
        """The results, or one error for all that failed."""
        results = list(results)
        faults = [result for result in results if isinstance(result, DataError)]
        if not faults:
            return results
        if len(faults) == 1:
            raise faults[0]
        lines = [str(fault) for fault in faults if not getattr(fault, "unknown", ())]
        parts = [f"{len(faults)} of {len(results)} pairs cannot be used."]
        parts += [f"  {line}" for line in lines[:_SHOWN]]
        if len(lines) > _SHOWN:
            parts.append(f"  ... and {len(lines) - _SHOWN} more like these.")
        parts += self._label_faults([fault for fault in faults if isinstance(fault, PairFault) and fault.unknown])
        raise DataError("\n".join(parts))

    def _label_faults(self, faults: Sequence[PairFault]) -> list[str]:
        if not faults:
            return []
        values = sorted({value for fault in faults for value in fault.unknown})
        shown = [f"  {str(fault).split(': ', maxsplit=1)[0]}" for fault in faults[:_SHOWN]]
        more = [f"  ... and {len(faults) - _SHOWN} more like these."] if len(faults) > _SHOWN else []
        return [*shown, *more, f"Masks must hold {self._labels.rule()}. {self._labels.repair(values)}"]

    def _budget(self) -> int:
        if self._cache_mb is not None:
            return self._cache_mb * 2**20
        return available_memory() // 4 // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def available_memory() -> int:
    """Bytes free for use within the limits of this process's container; 2 GB where the system does not tell."""
    candidates = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        candidates.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")))
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            candidates.append(int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, StopIteration, ValueError):
        pass  # another system, or no limits to read: what was found so far counts
    return max(0, min(candidates, default=2 * 2**30))


def _attempt(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same work with a `DataError` as its result instead of an end to all."""

    def attempted(job: Any) -> Any:
        try:
            return work(job)
        except DataError as error:
            return error

    return attempted


def _fitting(sizes: Sequence[int], budget: int) -> tuple[list[tuple[int, int, int]], int]:
    """(position, start, size) of the pairs that fit into `budget` bytes, in order, and the bytes they take."""
    fitting, start = [], 0
    for position, size in enumerate(sizes):
        if start + size > budget:
            break
        fitting.append((position, start, size))
        start += size
    return fitting, start


def _stored(pair: DecodedPair, block: np.ndarray) -> DecodedPair:
    """The pair with its arrays moved into the block; as it is where the headers had promised less."""
    start, views = 0, []
    for array in (pair.picture, pair.mask):
        start += -start % array.itemsize
        if start + array.nbytes > block.nbytes:
            return pair
        view = block[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        view[...] = array
        view.flags.writeable = False
        views.append(view)
        start += array.nbytes
    return DecodedPair(views[0], views[1], pair.original)


def _require_same_size(pair: Pair, picture: Size, mask: Size) -> None:
    if picture == mask:
        return
    turned = (
        " Height and width are swapped: where EXIF turns the photo, turn the mask, too."
        if picture == mask[::-1]
        else ""
    )
    raise PairFault(
        f"{pair.mask} is {mask[0]}x{mask[1]} (height x width) but its picture {pair.picture} is "
        f"{picture[0]}x{picture[1]}: both must have the same size.{turned} Resize the mask (nearest neighbour)."
    )


def _jpeg_hint(mask: Path) -> str:
    return " JPEG changes labels: save masks as PNG." if mask.suffix.lower() in (".jpg", ".jpeg") else ""


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
