"""From pairs of an image and a mask to samples, and from samples to batches of tensors.

B batch, C channels, h, w size of an image, H, W size of the input.
"""

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from base.samples import NamedMask
from data_loader.common.image_cache import Decoder, Footprint, ImageCache, first_few, map_in_threads
from data_loader.common.options import MaskLoaderOptions
from data_loader.images.augmentation import Augmentation
from data_loader.images.preprocessing import Preprocessing, place_mask, require_one_size, scaled_mask
from data_loader.segmentation.labels import Labels
from data_loader.segmentation.pairs import PairSource
from data_loader.segmentation.sparse_labels import SparseLabels
from utils.errors import DataError
from utils.geometry import Geometry, Size
from utils.seeding import derive_seed

logger = logging.getLogger(__name__)

_LABELS_SHOWN = 8


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
        image: (h', w', C) as the source gives it, RGB if it is a photo, no larger than the network's input.
        mask: (h', w') as the image, or (h, w) if masks are whole; uint8 or uint16 ids.
        original: Size of the files.
        labelled: Number of pixels with a class in the mask at its original size, if labels are hidden.
    """

    image: np.ndarray
    mask: np.ndarray
    original: Size
    labelled: int


class PairDecoder(Decoder[DecodedPair]):
    """Reader of pairs, at the network's scale: an epoch then costs no decoding and no large resize.

    Args:
        source: Images and masks.
        preprocessing: Gives scale and channels.
        labels: Gives the allowed values of masks.
        has_whole_masks: Masks retain their original size, as evaluation needs them.
        sparse: Hides labels, on the mask as it is in its file.
    """

    noun = "pairs"

    def __init__(
        self,
        source: PairSource,
        preprocessing: Preprocessing,
        labels: Labels,
        *,
        has_whole_masks: bool,
        sparse: SparseLabels | None = None,
    ) -> None:
        self.source = source
        self.preprocessing = preprocessing
        self.labels = labels
        self.has_whole_masks = has_whole_masks
        self.sparse = sparse

    def footprint(self, index: int) -> Footprint:
        """Return the size of a pair from its headers."""
        header = self.source.header(index)
        size = header.image
        if size != header.mask:
            size = self.decode(index).original  # a header may mislead; the pixels decide
        height, width = size
        resized = self.preprocessing.geometry(size).resized
        pixels = min(height * width, resized[0] * resized[1])
        mask_pixels = height * width if self.has_whole_masks else pixels
        image_bytes = pixels * self.preprocessing.in_channels * header.depth
        return Footprint(size, image_bytes + mask_pixels * self.labels.dtype.itemsize + 16)  # 16 for the alignment

    def decode(self, index: int) -> DecodedPair:
        """Return a pair at the network's scale.

        Raises:
            DataError: A file is missing or damaged, the two differ in size, or the mask has unknown labels.
        """
        image, raw = self.source.image(index), self.source.mask(index)
        size, mask_size = (image.shape[0], image.shape[1]), (raw.shape[0], raw.shape[1])
        if size != mask_size:
            name, mask_name = self.source.names(index)
            turned = " Height and width are swapped: if EXIF turns the photo, turn the mask, too."
            raise DataError(
                f"{mask_name} is {mask_size[0]}x{mask_size[1]} (height x width) but its image {name} is "
                f"{size[0]}x{size[1]}: both must have the same size.{turned if size == mask_size[::-1] else ''} "
                "Resize the mask (nearest neighbour)."
            )
        mask = self._class_ids(index, raw)
        labelled = 0 if self.sparse is None else int(np.count_nonzero(mask != self.labels.ignored))
        shrunk = self.preprocessing.shrink(image)
        if not self.has_whole_masks:
            mask = scaled_mask(mask, (shrunk.shape[0], shrunk.shape[1]))
        return DecodedPair(shrunk, mask, size, labelled)

    def mask(self, index: int) -> np.ndarray:
        """Return the mask of a pair at its original size, (h, w) ids, without its image.

        Raises:
            DataError: The file is missing or damaged, or the mask has unknown labels.
        """
        return self._class_ids(index, self.source.mask(index))

    def settings(self) -> Hashable:
        """Return everything that decides a decoded pair except its files."""
        decided_by = self.preprocessing.identity(), self.labels.identity()
        return DecodedPair, type(self.source), *decided_by, self.has_whole_masks, self.sparse

    def identities(self, indices: Sequence[int]) -> dict[int, Hashable]:
        """Return the state of the files of each pair, as far as it is known."""
        known = {index: self.source.identity(index) for index in indices}
        # The labels that are hidden follow from the index of a pair as well.
        return {
            index: identity if self.sparse is None else (identity, index)
            for index, identity in known.items()
            if identity is not None
        }

    def summarize(self, faults: Sequence[DataError], count: int) -> DataError:
        """Return one error for several pairs; those with unknown labels come last, with one repair for all."""
        unknown = [fault for fault in faults if isinstance(fault, UnknownLabels)]
        lines = [f"{len(faults)} of {count} {self.noun} cannot be used."]
        lines += first_few([str(fault) for fault in faults if not isinstance(fault, UnknownLabels)])
        if unknown:
            lines += first_few([fault.finding for fault in unknown])
            values = {value for fault in unknown for value in fault.unknown}
            lines.append(f"Masks must hold {self.labels.rule()}. {self.labels.repair(values)}")
        return DataError("\n".join(lines))

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
        return mask if self.sparse is None else self.sparse.hide(mask, index, self.labels.ignored)


class Origin(NamedTuple):
    """The file of a sample for evaluation: a `base.samples.NamedMask` before it is sent to the main process.

    Attributes:
        name: The photo's file.
        target: (h, w) uint8 or uint16, the mask at its original size.
        geometry: Position of the image on the input.
        position: Index in the data set.
    """

    name: str
    target: np.ndarray
    geometry: Geometry
    position: int


class PlacedSample(NamedTuple):
    """An image as it lies on the input, not normalised yet, and its mask.

    Attributes:
        image: (H, W, C) uint8 or uint16, of arrays also float32.
        mask: (H, W) uint8 or uint16.
        origin: Its file, in evaluation.
    """

    image: np.ndarray
    mask: np.ndarray
    origin: Origin | None = None


class SegmentationDataset(Dataset[PlacedSample]):
    """Pairs of images and masks as samples.

    Args:
        decoder: Reads the pairs.
        loading: Gives the memory limit, and the number of samples that must have one size.
        augmentation: Random changes in training; None for evaluation, whose samples carry their origin.

    Attributes:
        labelled_megapixels: Millions of pixels with a class in the prepared pairs; None if no labels are hidden.
    """

    def __init__(
        self, decoder: PairDecoder, loading: MaskLoaderOptions, augmentation: Augmentation | None = None
    ) -> None:
        self.decoder = decoder
        self.augmentation = augmentation
        self.cache = ImageCache(decoder, loading.cache_mb)
        self.labelled_megapixels: float | None = None
        self._batch_size = loading.batch_size

    def __len__(self) -> int:
        return len(self.decoder.source)

    def __getitem__(self, index: int) -> PlacedSample:
        """Return sample `index` with random values that follow from the index alone; loaders call `sample`."""
        return self.sample(index, np.random.default_rng(derive_seed("sample", index)))

    def prepare(self, indices: Iterable[int] | None = None) -> None:
        """Check these pairs (or all) and decode as many as fit into memory.

        Raises:
            DataError: Something is wrong with at least one pair.
        """
        wanted = list(range(len(self)) if indices is None else indices)
        self.cache.prepare(wanted, self._require_one_size)
        if self.decoder.sparse is not None:
            counts = map_in_threads(self.decoder, self._count_pixels, wanted)
            labelled, pixels = (sum(count[part] for count in counts) for part in (0, 1))
            self.labelled_megapixels = labelled / 1e6
            logger.info(
                "Sparse labels (%s, density %g): %.2f of %.2f megapixels are labelled.",
                self.decoder.sparse.pattern,
                self.decoder.sparse.density,
                labelled / 1e6,
                pixels / 1e6,
            )

    def _count_pixels(self, index: int) -> tuple[int, int]:
        """Return the labelled pixels of a mask at its original size, and all of them."""
        pair = self.cache.samples.get(index)
        if pair is not None:
            return pair.labelled, pair.original[0] * pair.original[1]
        mask = self.decoder.mask(index)
        return int(np.count_nonzero(mask != self.decoder.labels.ignored)), mask.size

    def _require_one_size(self, sizes: Mapping[int, Size]) -> None:
        """Raise an error if images of these sizes cannot share a batch."""
        if self._batch_size == 1 or (self.augmentation is not None and self.augmentation.transforms is not None):
            return  # such transforms may bring all images to one size: the first batch will show it
        inputs: list[tuple[str, Size]] = []
        for index, (height, width) in sizes.items():
            name = self.decoder.source.names(index)[0]
            inputs.append((name, self.decoder.preprocessing.geometry((height, width)).padded))
            if self.augmentation is not None and self.augmentation.rotate > 0:
                turned = self.decoder.preprocessing.geometry((width, height)).padded
                inputs.append((f"{name}, turned by rotate,", turned))
        for name, size in inputs:
            first, expected = inputs[0]
            if size != expected:
                raise DataError(
                    f"Images of different sizes cannot share a batch: {first} is {expected[0]}x{expected[1]} "
                    f"(height x width), {name} {size[0]}x{size[1]}, and batch_size is {self._batch_size}. "
                    "Set resize to [height, width], or batch_size to 1."
                )

    def sample(self, index: int, generator: np.random.Generator) -> PlacedSample:
        """Return sample `index`, with all random values from `generator`; in evaluation with its origin.

        Raises:
            DataError: A file is missing or damaged, or the two do not fit.
        """
        pair = self.cache.load(index)
        if self.augmentation is not None:
            return PlacedSample(*self.augmentation(pair.image, pair.mask, generator))
        preprocessing = self.decoder.preprocessing
        geometry = preprocessing.geometry(pair.original)
        mask = place_mask(pair.mask, geometry, self.decoder.labels.ignored)
        origin = Origin(self.decoder.source.names(index)[0], pair.mask, geometry, index)
        return PlacedSample(preprocessing.place(pair.image, geometry), mask, origin)

    def target(self, index: int) -> np.ndarray:
        """Return the mask of pair `index` at its original size, (h, w) ids, not augmented.

        Raises:
            DataError: The file is missing or damaged, or the mask has unknown labels.
        """
        pair = self.cache.samples.get(index)
        return pair.mask if pair is not None and pair.mask.shape == pair.original else self.decoder.mask(index)

    def without_target(self, sample: PlacedSample) -> PlacedSample:
        """Return the sample with every pixel ignored."""
        return sample._replace(mask=np.full_like(sample.mask, self.decoder.labels.ignored))


@dataclass(frozen=True)
class PackedEvaluation:
    """A batch for evaluation on its way from a loader worker: all targets in one tensor of their small type.

    Attributes:
        images: (B, C, H, W) float32.
        masks: (B, H, W) int64.
        targets: Masks at their original sizes, one after the other, uint8 or uint16.
        origins: Name, geometry and index of each sample.
    """

    images: Tensor
    masks: Tensor
    targets: Tensor
    origins: list[tuple[str, Geometry, int]]

    def pin_memory(self) -> "PackedEvaluation":
        """Return the same with images and masks in page-locked memory; DataLoader would turn the sizes into lists."""
        return replace(self, images=self.images.pin_memory(), masks=self.masks.pin_memory())

    def unpack(self) -> tuple[Tensor, Tensor, list[NamedMask]]:
        """Return images, masks, and a `NamedMask` per sample."""
        sizes = [geometry.original for _, geometry, _ in self.origins]
        parts = torch.split(self.targets, [height * width for height, width in sizes])
        named = [
            NamedMask(name, part.to(torch.int64).reshape(geometry.original), geometry, index)
            for part, (name, geometry, index) in zip(parts, self.origins, strict=True)
        ]
        return self.images, self.masks, named


class SegmentationCollate:
    """Collation of samples to a batch, which normalises each image straight into its place.

    Args:
        preprocessing: Knows how to normalise.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def __call__(self, samples: Sequence[PlacedSample]) -> tuple[Tensor, Tensor] | PackedEvaluation:
        """Return images (B, C, H, W) float32, channels-last, and masks (B, H, W) int64; packed in evaluation.

        Raises:
            DataError: The images differ in size.
        """
        require_one_size([sample.mask.shape for sample in samples])
        images = _empty((len(samples), *samples[0].image.shape), torch.float32)
        masks = _empty((len(samples), *samples[0].mask.shape), torch.int64)
        for image, mask, sample in zip(images.numpy(), masks.numpy(), samples, strict=True):
            self.preprocessing.normalize_into(image, sample.image)
            mask[...] = sample.mask
        images = images.permute(0, 3, 1, 2)
        origins = [sample.origin for sample in samples if sample.origin is not None]
        if not origins:
            return images, masks
        targets = torch.from_numpy(np.concatenate([origin.target.reshape(-1) for origin in origins]))
        return PackedEvaluation(images, masks, targets, [(each.name, each.geometry, each.position) for each in origins])


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an empty tensor; in a loader worker in memory shared with the main process, which then needs no copy."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    # The public ways to shared memory would copy the tensor once more.
    storage = torch.UntypedStorage._new_shared(prod(shape) * dtype.itemsize)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload,no-any-return]
