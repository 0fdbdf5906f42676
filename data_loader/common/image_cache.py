"""Pairs, decoded once and checked: one block of memory that all workers share."""

import logging
import mmap
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from data_loader.common.shared_cache import current
from data_loader.images.preprocessing import Preprocessing, scaled_mask
from data_loader.segmentation.labels import Labels
from data_loader.segmentation.pairs import attempt, checked, require_one_size, require_same_size, unknown_labels
from data_loader.segmentation.sources import PairSource
from data_loader.segmentation.sparse_labels import SparseLabels
from utils.geometry import Size
from utils.hardware import available_memory, available_processors

logger = logging.getLogger(__name__)

_THREADS = 4


class DecodedPair(NamedTuple):
    """A pair as it is kept.

    Attributes:
        image: (h', w', C) as the source gives it, RGB where it is a photo, no larger than the network's input.
        mask: (h', w') as the image, or (h, w) at its own size where masks are kept whole; uint8 or uint16 ids.
        original: Size of the files.
        labelled: Pixels of the mask at its own size that have a class.
    """

    image: np.ndarray
    mask: np.ndarray
    original: Size
    labelled: int

    @property
    def num_bytes(self) -> int:
        """Bytes of both arrays."""
        return self.image.nbytes + self.mask.nbytes


class _Plan(NamedTuple):
    size: Size
    bytes: int


class PairCache:
    """Reads pairs, from memory where they were decoded up front and from their files otherwise.

    Images are kept at the network's scale: an epoch then costs no decoding and no large resize. The block is
    anonymous shared memory, so forked workers read the same pages; a copy sent to a spawned one decodes for itself.

    Args:
        source: Images and masks.
        preprocessing: Gives scale and channels.
        labels: Gives the allowed values of masks.
        keeps_masks_whole: Masks stay at their own size (evaluation is done there).
        cache_mb: Most memory to use; None: a quarter of what is free, shared between the processes of this machine.
        sparse: Hides labels, on the mask as it is in its file.

    Attributes:
        labelled_pixels: Pixels with a class in all that was prepared; None where no labels are hidden.
    """

    def __init__(
        self,
        source: PairSource,
        preprocessing: Preprocessing,
        labels: Labels,
        *,
        keeps_masks_whole: bool,
        cache_mb: int | None = None,
        sparse: SparseLabels | None = None,
    ) -> None:
        self._source = source
        self._preprocessing = preprocessing
        self._labels = labels
        self._keeps_masks_whole = keeps_masks_whole
        self._cache_mb = cache_mb
        self._sparse = sparse
        self._kept: dict[int, DecodedPair] = {}
        self.labelled_pixels: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def load(self, index: int) -> DecodedPair:
        """The pair at `index`; its arrays are not to be written to.

        Raises:
            DataError: A file is missing or unreadable, or the two do not fit.
        """
        return self._kept.get(index) or self._decode(index)

    def load_mask(self, index: int) -> np.ndarray:
        """The mask at `index` at its own size, (h, w) ids, hidden where it is to be, without its image.

        Raises:
            DataError: The file is missing or unreadable.
        """
        kept = self._kept.get(index)
        if kept is not None and kept.mask.shape == kept.original:
            return kept.mask
        return self._ids(index, self._source.mask(index))

    def prepare(self, indices: Iterable[int], *, one_size_for: int = 1, may_turn: bool = False) -> None:
        """Check every pair and decode as many as fit into the memory.

        Args:
            indices: The pairs to look at.
            one_size_for: Samples per batch that must come out at one size; 1: any sizes will do.
            may_turn: The images may be turned by a quarter.

        Raises:
            DataError: Something is wrong with at least one pair; names the first few and counts all.
        """
        wanted = [int(index) for index in indices]
        names = self._take_kept(wanted)
        todo = [index for index in wanted if index not in self._kept]
        with ThreadPoolExecutor(min(_THREADS, available_processors())) as pool:
            plans = self._checked(pool.map(attempt(self._plan), todo))
            if one_size_for > 1:
                known = {index: pair.original for index, pair in self._kept.items()}
                known |= {index: plan.size for index, plan in zip(todo, plans, strict=True)}
                self._require_one_size({index: known[index] for index in wanted}, one_size_for, may_turn=may_turn)
            fitting, total = _fitting([plan.bytes for plan in plans], self._budget())
            block = np.frombuffer(mmap.mmap(-1, max(total, 1)), np.uint8)

            def keep(job: tuple[int, int, int]) -> DecodedPair:
                position, start, size = job
                return _stored(self._decode(todo[position]), block[start : start + size])

            decoded = self._checked(pool.map(attempt(keep), fitting))
            for (position, _, _), pair in zip(fitting, decoded, strict=True):
                self._kept[todo[position]] = pair
            if todo:
                megabytes = total / 2**20
                logger.info(
                    "%d of %d pairs are decoded and kept in memory (%.1f MB).", len(fitting), len(todo), megabytes
                )
            self._keep_for_others(names)
            if self._sparse is not None:
                self._count_labels(self._checked(pool.map(attempt(self._labelled), wanted)))

    def _take_kept(self, indices: Sequence[int]) -> dict[int, Hashable]:
        """Take what an earlier loader decoded in the same way; the name of each pair, where loaders share any."""
        kept = current()
        names: dict[int, Hashable] = {}
        if kept is not None:
            shelf = kept.find(self._shelf())
            for index in indices:
                identity = self._source.identity(index)
                if identity is None:
                    continue
                # Which labels are hidden follows from a pair's number, too.
                names[index] = identity if self._sparse is None else (identity, index)
                if names[index] in shelf:
                    self._kept[index] = shelf[names[index]]
        return names

    def _keep_for_others(self, names: Mapping[int, Hashable]) -> None:
        kept = current()
        if kept is not None and names:
            shelf = {**kept.find(self._shelf())}
            shelf |= {names[index]: pair for index, pair in self._kept.items() if index in names}
            kept.keep(self._shelf(), shelf, sum(pair.num_bytes for pair in shelf.values()))

    def _shelf(self) -> Hashable:
        """What decides the bytes of a decoded pair, beside its files."""
        how = self._preprocessing.identity(), self._labels.identity()
        return DecodedPair, type(self._source), *how, self._keeps_masks_whole, self._sparse

    def _count_labels(self, counts: Sequence[tuple[int, int]]) -> None:
        """Add up labelled and all pixels, and say so."""
        assert self._sparse is not None
        self.labelled_pixels, total = (sum(count[part] for count in counts) for part in (0, 1))
        logger.info(
            "Sparse labels (%s, density %g): %.2f of %.2f megapixels are labelled.",
            self._sparse.pattern,
            self._sparse.density,
            self.labelled_pixels / 1e6,
            total / 1e6,
        )

    def _labelled(self, index: int) -> tuple[int, int]:
        """Labelled pixels of a mask at its own size, and all of them."""
        pair = self._kept.get(index)
        if pair is not None:
            return pair.labelled, pair.original[0] * pair.original[1]
        mask = self._ids(index, self._source.mask(index))
        return self._count(mask), mask.size

    def _count(self, mask: np.ndarray) -> int:
        return int(np.count_nonzero(mask != self._labels.ignored))

    def _require_one_size(self, sizes: Mapping[int, Size], batch_size: int, *, may_turn: bool) -> None:
        inputs = {}
        for index, (height, width) in sizes.items():
            name = self._source.names(index)[0]
            inputs[name] = self._preprocessing.geometry((height, width)).padded
            if may_turn:
                inputs[f"{name}, turned by rotate,"] = self._preprocessing.geometry((width, height)).padded
        require_one_size(inputs, batch_size)

    def _checked(self, results: Iterable[Any]) -> list[Any]:
        return checked(results, self._labels)

    def _plan(self, index: int) -> "_Plan":
        """Size of a pair and the bytes that it takes, from its headers."""
        header = self._source.header(index)
        size = header.image
        if size != header.mask:
            size = self._decode(index).original  # a header may mislead; the pixels decide
        height, width = size
        resized = self._preprocessing.geometry(size).resized
        kept = min(height * width, resized[0] * resized[1])
        mask_pixels = height * width if self._keeps_masks_whole else kept
        image_bytes = kept * self._preprocessing.in_channels * header.depth
        return _Plan(size, image_bytes + mask_pixels * self._labels.dtype.itemsize + 16)

    def _decode(self, index: int) -> DecodedPair:
        image = self._source.image(index)
        original = (image.shape[0], image.shape[1])
        raw = self._source.mask(index)
        require_same_size(self._source.names(index), original, (raw.shape[0], raw.shape[1]))
        mask = self._ids(index, raw)
        labelled = self._count(mask) if self._sparse is not None else 0
        shrunk = self._preprocessing.shrink(image)
        if not self._keeps_masks_whole:
            mask = scaled_mask(mask, (shrunk.shape[0], shrunk.shape[1]))
        return DecodedPair(shrunk, mask, original, labelled)

    def _ids(self, index: int, raw: np.ndarray) -> np.ndarray:
        """The classes of a mask as read (h, w), hidden where they are to be."""
        mask, unknown = self._labels.convert(raw)
        if unknown:
            raise unknown_labels(self._source.names(index)[1], unknown, self._labels)
        return mask if self._sparse is None else self._sparse.hide(mask, index, self._labels.ignored)

    def _budget(self) -> int:
        """Bytes for what is still to be decoded."""
        used = sum(pair.num_bytes for pair in self._kept.values())
        if self._cache_mb is not None:
            return max(0, self._cache_mb * 2**20 - used)
        share = (available_memory() + used) // 4 // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return max(0, share - used)


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
    for array in (pair.image, pair.mask):
        start += -start % array.itemsize
        if start + array.nbytes > block.nbytes:
            return pair
        view = block[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        view[...] = array
        view.flags.writeable = False
        views.append(view)
        start += array.nbytes
    return pair._replace(image=views[0], mask=views[1])
