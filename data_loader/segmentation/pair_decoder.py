"""Pairs of images and masks, decoded at the scale that is needed for the cache, or as their files hold them.

h, w size of an image, C its channels.
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from base.samples import RawSample
from data_loader.common.image_cache import Decoder, Footprint
from data_loader.images.preprocessing import NO_ENLARGEMENT, Enlargement, Preprocessing, scaled_mask
from data_loader.segmentation.labels import Labels
from data_loader.segmentation.pairs import PairSource
from data_loader.segmentation.sparse_labels import SparseLabels
from utils.errors import DataError, first_few, joined_faults
from utils.geometry import Size

_LABELS_SHOWN = 8


@contextmanager
def _collected(faults: list[DataError]) -> Iterator[None]:
    """Turn an error of a block into a fault."""
    try:
        yield
    except DataError as error:
        faults.append(error)


class UnknownLabels(DataError):
    """A mask holds labels that it must not hold.

    Attributes:
        finding: The mask and its labels, without the repair.
        unknown: The labels.
    """

    finding: str = ""
    unknown: Sequence[int] = ()


class DecodedPair(NamedTuple):
    """A pair as the cache holds it.

    Attributes:
        image: (h', w', C) as the source gives it, RGB if it is a photo, no larger than the augmentation needs it.
        mask: (h', w') as the image, or (h, w) if masks are whole; uint8 or uint16 ids.
        original: Size of the files.
        labelled: Number of pixels with a class in the mask at its original size, if labels are hidden.
    """

    image: np.ndarray
    mask: np.ndarray
    original: Size
    labelled: int


@dataclass(eq=False)
class PairDecoder(Decoder[DecodedPair]):
    """Reader of pairs, at the scale that network and augmentation need: an epoch costs no decoding and no large resize.

    Args:
        source: Images and masks.
        preprocessing: Gives scale and channels.
        labels: Gives the allowed values of masks.
        has_whole_masks: Masks retain their original size, as evaluation needs them.
        enlargement: The most that an augmentation enlarges a part of an image, which is then cached as much larger.
        sparse: Hides labels, on the mask as it is in its file.
    """

    noun = "pairs"

    source: PairSource
    preprocessing: Preprocessing
    labels: Labels
    _: KW_ONLY
    has_whole_masks: bool
    enlargement: Enlargement = NO_ENLARGEMENT
    sparse: SparseLabels | None = None

    def footprint(self, index: int) -> Footprint:
        """Return the size of a pair from its headers."""
        header = self.source.header(index)
        size = header.image
        if size != header.mask:
            size = self.decode(index).original  # a header may mislead; the pixels decide
        height, width = size
        pixels = prod(self.preprocessing.shrunk_size(size, self.enlargement))
        mask_pixels = height * width if self.has_whole_masks else pixels
        image_bytes = pixels * self.preprocessing.in_channels * header.depth
        return Footprint(size, image_bytes + mask_pixels * self.labels.dtype.itemsize + 16)  # 16 for the alignment

    def decode(self, index: int) -> DecodedPair:
        """Return a pair at the network's scale.

        Raises:
            DataError: A file is missing or damaged, the two differ in size, or the mask has unknown labels.
        """
        image, original = self.source.scaled_image(index, self._needed_size)
        raw = self.source.mask(index)
        self._require_one_size(index, original, raw)
        mask = self._class_ids(index, raw)
        labelled = 0 if self.sparse is None else int(np.count_nonzero(mask != self.labels.ignored))
        shrunk = self.preprocessing.shrink(self._channels(index, image), self.enlargement, original)
        if not self.has_whole_masks:
            mask = scaled_mask(mask, (shrunk.shape[0], shrunk.shape[1]))
        return DecodedPair(shrunk, mask, original, labelled)

    def _needed_size(self, original: Size) -> Size:
        return self.preprocessing.shrunk_size(original, self.enlargement)

    def raw(self, index: int) -> RawSample:
        """Return a pair as its files hold it, with class ids in the mask.

        Raises:
            DataError: As `decode`; one error for the faults of both files.
        """
        faults: list[DataError] = []
        with _collected(faults):
            image = self.source.image(index)
            with _collected(faults):
                self._channels(index, image)
        with _collected(faults):
            mask = self.source.mask(index)
            if not faults:
                with _collected(faults):
                    self._require_one_size(index, (image.shape[0], image.shape[1]), mask)
            mask = self._class_ids(index, mask)
        if faults:
            raise joined_faults(faults)
        return RawSample(image, mask)

    def _channels(self, index: int, image: np.ndarray) -> np.ndarray:
        """Return an image with the channels of the input, and name the file if they cannot be made."""
        try:
            return self.preprocessing.channels(image)
        except DataError as error:
            raise DataError(f"{self.source.names(index)[0]}: {error}") from None

    def _require_one_size(self, index: int, size: Size, mask: np.ndarray) -> None:
        mask_size = mask.shape[:2]
        if size != mask_size:
            name, mask_name = self.source.names(index)
            turned = " Height and width are swapped: if EXIF turns the photo, turn the mask, too."
            raise DataError(
                f"{mask_name} is {mask_size[0]}x{mask_size[1]} (height x width) but its image {name} is "
                f"{size[0]}x{size[1]}: both must have the same size.{turned if size == mask_size[::-1] else ''} "
                "Resize the mask (nearest neighbour)."
            )

    def mask(self, index: int) -> np.ndarray:
        """Return the mask of a pair at its original size, (h, w) ids, without its image.

        Raises:
            DataError: The file is missing or damaged, or the mask has unknown labels.
        """
        return self._class_ids(index, self.source.mask(index))

    def scale(self) -> str:
        """Return the scale of the decoded images as the end of a sentence."""
        return self.enlargement.describe()

    def settings(self) -> Hashable:
        """Return everything that decides a decoded pair except its files."""
        decided_by = self.preprocessing.identity(), self.labels.identity()
        return DecodedPair, type(self.source), *decided_by, self.has_whole_masks, self.enlargement, self.sparse

    def identities(self, indices: Sequence[int]) -> dict[int, Hashable]:
        """Return the state of the files of each pair, as far as it is known."""
        known = {index: self.source.identity(index) for index in indices}
        # The labels that are hidden follow from the index of a pair as well.
        return {
            index: identity if self.sparse is None else (identity, index)
            for index, identity in known.items()
            if identity is not None
        }

    def summarize(self, faults: Sequence[DataError], count: int) -> str:
        """Return one message for several pairs; those with unknown labels come last, with one repair for all."""
        unknown = [fault for fault in faults if isinstance(fault, UnknownLabels)]
        lines = [f"{len(faults)} of {count} {self.noun} cannot be used."]
        lines += first_few([str(fault) for fault in faults if not isinstance(fault, UnknownLabels)])
        if unknown:
            lines += first_few([fault.finding for fault in unknown])
            values = {value for fault in unknown for value in fault.unknown}
            lines.append(f"Masks must hold {self.labels.rule()}. {self.labels.repair(values)}")
        return "\n".join(lines)

    def _class_ids(self, index: int, raw: np.ndarray) -> np.ndarray:
        """Convert a mask as read (h, w) to class ids, and hide labels."""
        mask, unknown = self.labels.convert(raw)
        if unknown:
            shown = ", ".join(map(str, unknown[:_LABELS_SHOWN])) + (", ..." if len(unknown) > _LABELS_SHOWN else "")
            finding = f"{self.source.names(index)[1]} holds the labels {shown}"
            fault = UnknownLabels(f"{finding}: masks must hold {self.labels.rule()}. {self.labels.repair(unknown)}")
            # Set, not passed: an error that a loader worker sends is rebuilt from its message alone.
            fault.finding, fault.unknown = finding, unknown
            raise fault
        if self.sparse is not None:
            number = self.sparse.number(index, self.source.names(index)[0])
            visible = self.sparse.visible((mask.shape[0], mask.shape[1]), number)
            mask = np.where(visible, mask, mask.dtype.type(self.labels.ignored))
        return mask
