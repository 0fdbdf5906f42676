"""Labelled images, read once and kept at the network's scale."""

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from data_loader.classification.sources import LabelledImages
from data_loader.common.shared_cache import current
from data_loader.images.files import image_size
from data_loader.images.preprocessing import Preprocessing
from utils.errors import DataError
from utils.geometry import Size
from utils.hardware import available_memory, available_processors

logger = logging.getLogger(__name__)

_SHOWN = 5
_THREADS = 4
_AT_ONCE = 256


class DecodedImage(NamedTuple):
    """An image as it is kept.

    Attributes:
        image: (h', w', C) uint8 or uint16, no larger than the network's input.
        original: Its own size.
    """

    image: np.ndarray
    original: Size


class ImageCache:
    """Reads images, from memory where they were decoded up front.

    Forked workers share the pages of the main process; a copy sent to a spawned one decodes for itself.

    Args:
        images: Where they are.
        preprocessing: Gives scale and channels.
        cache_mb: Most memory to use; None: a quarter of what is free.
    """

    def __init__(self, images: LabelledImages, preprocessing: Preprocessing, cache_mb: int | None = None) -> None:
        self._images = images
        self._preprocessing = preprocessing
        self._cache_mb = cache_mb
        self._kept: dict[int, DecodedImage] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def load(self, position: int) -> DecodedImage:
        """An image; its array is not to be written to.

        Raises:
            DataError: It cannot be read.
        """
        return self._kept.get(position) or self._decode(position)

    def prepare(self, positions: Iterable[int]) -> None:
        """Decode as many as fit into the memory, and look at the headers of the others.

        Raises:
            DataError: Some cannot be read; names the first few and counts all.
        """
        wanted = [int(position) for position in positions]
        names = self._take_kept(wanted)
        todo = [position for position in wanted if position not in self._kept]
        budget = self._budget()
        faults: list[str] = []
        used = done = 0
        with ThreadPoolExecutor(min(_THREADS, available_processors())) as pool:
            for start in range(0, len(todo), _AT_ONCE):
                part = todo[start : start + _AT_ONCE]
                fits = used < budget
                for position, found in zip(part, pool.map(self._keep if fits else self._look_at, part), strict=True):
                    if isinstance(found, DataError):
                        faults.append(str(found))
                    elif isinstance(found, DecodedImage) and used + found.image.nbytes <= budget:
                        self._kept[position] = found
                        used, done = used + found.image.nbytes, done + 1
        if len(faults) == 1:
            raise DataError(faults[0])
        if faults:
            more = [f"  ... and {len(faults) - _SHOWN} more like these."] if len(faults) > _SHOWN else []
            shown = [f"  {fault}" for fault in faults[:_SHOWN]]
            raise DataError("\n".join([f"{len(faults)} of {len(todo)} images cannot be used.", *shown, *more]))
        self._keep_for_others(names)
        if todo:
            logger.info("%d of %d images are decoded and kept in memory (%.1f MB).", done, len(todo), used / 2**20)

    def _take_kept(self, positions: Sequence[int]) -> dict[int, Hashable]:
        """Take what an earlier loader decoded in the same way; the name of each image, where loaders share any."""
        kept = current()
        if kept is None:
            return {}
        names = self._images.identities(positions)
        shelf = kept.find(self._shelf())
        self._kept |= {position: shelf[name] for position, name in names.items() if name in shelf}
        return names

    def _keep_for_others(self, names: Mapping[int, Hashable]) -> None:
        kept = current()
        if kept is not None and names:
            shelf = {**kept.find(self._shelf())}
            shelf |= {names[position]: decoded for position, decoded in self._kept.items() if position in names}
            kept.keep(self._shelf(), shelf, sum(decoded.image.nbytes for decoded in shelf.values()))

    def _shelf(self) -> Hashable:
        return DecodedImage, self._preprocessing.identity()

    def _budget(self) -> int:
        """Bytes for what is still to be decoded."""
        used = sum(decoded.image.nbytes for decoded in self._kept.values())
        whole = (available_memory() + used) // 4 if self._cache_mb is None else self._cache_mb * 2**20
        return max(0, whole - used)

    def _keep(self, position: int) -> DecodedImage | DataError:
        try:
            return self._decode(position)
        except DataError as error:
            return error

    def _look_at(self, position: int) -> DataError | None:
        if self._images.files:
            try:
                image_size(self._images.files[position], upright=False)
            except DataError as error:
                return error
        return None

    def _decode(self, position: int) -> DecodedImage:
        image = self._images.read(position, self._preprocessing.in_channels)
        if self._preprocessing.in_channels == 4 and (image.ndim != 3 or image.shape[2] != 4):
            raise DataError(
                f"{self._images.names[position]} has no fourth channel, but in_channels is 4. Set in_channels to 3 "
                "or 1."
            )
        kept = np.ascontiguousarray(self._preprocessing.shrink(image))
        return DecodedImage(kept, (image.shape[0], image.shape[1]))
