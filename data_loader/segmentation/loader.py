"""The loader of images and masks, with its data set and collation, and its base class for all kinds of mask data.

B batch, C channels, h, w size of an image, H, W size of the input.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from base.base_data_loader import BaseDataLoader, Task
from base.loading.packing import Allocate, CompactBatch, PackedBatch, PackingCollate
from base.samples import NamedMask, RawSample
from data_loader.common.folds import divide_samples
from data_loader.common.image_cache import ImageCache, map_in_threads
from data_loader.common.options import (
    AugmentationOptions,
    ImageOptions,
    LabelOptions,
    MaskLoaderOptions,
    PairOptions,
    WarpOptions,
)
from data_loader.images.augmentation import Augmentation
from data_loader.images.batches import compact_images, completed_images, normalized_batch, stacked
from data_loader.images.preprocessing import Preprocessing, mixed_sizes, place_mask, require_one_size
from data_loader.segmentation.labels import Labels, export_ids
from data_loader.segmentation.pair_decoder import PairDecoder
from data_loader.segmentation.pairs import ImagePairs, PairSource, choose_pairs
from data_loader.segmentation.sparse_labels import SparseLabels
from utils.errors import ConfigError, EspalierError
from utils.geometry import Geometry, Size
from utils.seeding import derive_seed

logger = logging.getLogger(__name__)


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
        may_differ = self.decoder.preprocessing.size is None
        is_transformed = self.augmentation is not None and self.augmentation.transforms is not None
        self.cache.prepare(wanted, self._check_sizes if may_differ or is_transformed else None)
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

    def is_in_memory(self, indices: Iterable[int]) -> bool:
        """Return whether these pairs are decoded in memory."""
        return self.cache.holds(indices)

    def _count_pixels(self, index: int) -> tuple[int, int]:
        """Return the labelled pixels of a mask at its original size, and all of them."""
        pair = self.cache.samples.get(index)
        if pair is not None:
            return pair.labelled, pair.original[0] * pair.original[1]
        mask = self.decoder.mask(index)
        return int(np.count_nonzero(mask != self.decoder.labels.ignored)), mask.size

    def _check_sizes(self, sizes: Mapping[int, Size]) -> None:
        """Raise an error if images of these sizes cannot be augmented, or cannot share a batch."""
        for error in self.unfit_sizes(sizes):
            raise error

    def unfit_sizes(self, sizes: Mapping[int, Size]) -> Iterator[EspalierError]:
        """Yield the reasons for which images of these sizes cannot be augmented, or cannot share a batch."""
        changes = self.augmentation
        if changes is not None:
            yield from changes.unfit_transforms(sizes, self._image_name)
        if changes is not None and changes.transforms is not None:
            return  # such transforms may bring all images to one size: the first batch will show it
        geometry, may_turn = self.decoder.preprocessing.geometry, changes is not None and changes.rotate > 0
        yield from mixed_sizes(sizes, geometry, self._image_name, batch_size=self._batch_size, may_turn=may_turn)

    def _image_name(self, index: int) -> str:
        return self.decoder.source.names(index)[0]

    def sample_names(self, index: int) -> Sequence[str]:
        """Return the names of image and mask."""
        return self.decoder.source.names(index)

    def raw_sample(self, index: int) -> RawSample:
        """Return pair `index` as its files hold it, with class ids in the mask.

        Raises:
            DataError: A file is missing or damaged, or the two do not fit.
        """
        return self.decoder.raw(index)

    def sample(self, index: int, generator: np.random.Generator) -> PlacedSample:
        """Return sample `index`, with all random values from `generator`; in evaluation with its origin.

        Raises:
            DataError: A file is missing or damaged, or the two do not fit.
        """
        pair = self.cache.load(index)
        if self.augmentation is not None:
            return PlacedSample(*self.augmentation(pair.image, pair.mask, generator, pair.original))
        preprocessing = self.decoder.preprocessing
        geometry = preprocessing.geometry(pair.original)
        origin = Origin(self.decoder.source.names(index)[0], pair.mask, geometry, index)
        mask = place_mask(pair.mask, geometry, self.decoder.labels.ignored)
        return PlacedSample(preprocessing.place(pair.image, geometry), mask, origin)

    def target(self, index: int) -> np.ndarray:
        """Return the mask of pair `index` at its original size, (h, w) ids, not augmented.

        Raises:
            DataError: The file is missing or damaged, or the mask has unknown labels.
        """
        pair = self.cache.samples.get(index)
        return pair.mask if pair is not None and pair.mask.shape == pair.original else self.decoder.mask(index)

    def sample_identity(self, index: int) -> str:
        """Return the names of image and mask without their folders."""
        return "\t".join(Path(name).name for name in self.decoder.source.names(index))

    def without_target(self, sample: PlacedSample) -> PlacedSample:
        """Return the sample with every pixel ignored."""
        return sample._replace(mask=np.full_like(sample.mask, self.decoder.labels.ignored))


@dataclass(frozen=True)
class PairCollate(PackingCollate):
    """Collation of images and masks.

    Args:
        preprocessing: Knows how to normalise.
    """

    preprocessing: Preprocessing

    def pack(self, samples: Sequence[PlacedSample]) -> PackedBatch:
        """Return all images (H, W, C) and all masks (H, W); in evaluation also the masks (h, w) at their original size.

        The details are name, geometry and index of each sample for evaluation.

        Raises:
            DataError: The images differ in size.
        """
        require_one_size([sample.mask.shape for sample in samples])
        origins = [sample.origin for sample in samples if sample.origin is not None]
        parts = [[each.image for each in samples], [each.mask for each in samples], [each.target for each in origins]]
        details = [(each.name, each.geometry, each.position) for each in origins]
        return PackedBatch(list(chain.from_iterable(parts)), details)

    def unpack(
        self, batch: PackedBatch, empty: Allocate = torch.empty
    ) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, list[NamedMask]]:
        """Return images (B, C, H, W) float32, channels-last, masks (B, H, W) int64, in evaluation `NamedMask`s."""
        placed, given = _images_and_masks(batch)
        images = normalized_batch(self.preprocessing, placed, empty)
        masks = empty((len(given), *given[0].shape), dtype=torch.int64)
        for mask, labels in zip(masks.numpy(), given, strict=True):
            mask[...] = labels
        return (images, masks, _named_masks(batch)) if batch.details else (images, masks)

    def compact(self, batch: PackedBatch, empty: Allocate = torch.empty) -> CompactBatch | None:
        """Return images (B, H, W, C) uint8 and masks (B, H, W) uint8; None if one has another type."""
        placed, given = _images_and_masks(batch)
        images, masks = compact_images(self.preprocessing, placed, empty), stacked(given, empty)
        if images is None or masks is None:
            return None
        samples = (_named_masks(batch),) if batch.details else ()

        def complete(images: Tensor, masks: Tensor) -> tuple[Any, ...]:
            return completed_images(self.preprocessing, images), masks.to(torch.int64), *samples

        return CompactBatch((images, masks), complete)


def _images_and_masks(batch: PackedBatch) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
    """Return the images (H, W, C) and the masks (H, W) of a batch of `PairCollate`."""
    count = (len(batch.arrays) - len(batch.details)) // 2
    return batch.arrays[:count], batch.arrays[count : 2 * count]


def _named_masks(batch: PackedBatch) -> list[NamedMask]:
    """Return the masks at their original sizes of a batch of `PairCollate` for evaluation."""
    originals = batch.arrays[len(batch.arrays) - len(batch.details) :]
    return [
        NamedMask(name, torch.from_numpy(original.astype(np.int64)), geometry, index)
        for original, (name, geometry, index) in zip(originals, batch.details, strict=True)
    ]


class MaskDataLoader(BaseDataLoader):
    """A loader of batches of images and masks.

    Training batches are (images (B, C, H, W) float32, masks (B, H, W) int64). With `is_training` false nothing is
    augmented and no label hidden, and a batch has a third part: a list of `base.samples.NamedMask` with each mask
    at its original size.

    Args:
        source: Images and masks.
        preprocessing: Converts an image to a network's input.
        labels: Classes of the masks.
        augmentation: Random changes in training.
        loading: Selection, order and loading of the samples.

    Raises:
        ConfigError: An option is out of its range, or two of them disagree.
        DataError: There is no sample.
    """

    task: Task = "segmentation"

    def __init__(
        self,
        source: PairSource,
        preprocessing: Preprocessing,
        labels: Labels,
        augmentation: WarpOptions,
        loading: MaskLoaderOptions,
    ) -> None:
        sparse = None if loading.sparse is None else SparseLabels.parse(loading.sparse, loading.seed)
        plain = SegmentationDataset(PairDecoder(source, preprocessing, labels, has_whole_masks=True), loading)
        changes = Augmentation(augmentation, preprocessing, labels.ignored)
        decoder = PairDecoder(
            source, preprocessing, labels, has_whole_masks=False, enlargement=changes.enlargement, sparse=sparse
        )
        augmented = SegmentationDataset(decoder, loading, changes)
        divided = divide_samples(loading, len(source))
        self.split_seed = loading.split_seed
        super().__init__(
            augmented if loading.is_training else plain,
            collate_fn=PairCollate(preprocessing),
            validation_dataset=plain,
            indices=None if divided is None else divided[0].tolist(),
            **loading.base_arguments(),
        )
        if divided is not None:
            self._held_out = divided[1]
        self.num_classes = labels.num_classes
        self.in_channels = preprocessing.in_channels
        self.ignore_index = labels.ignored
        self.class_names = labels.class_names
        self.preprocessing = preprocessing

    @property
    def labelled_megapixels(self) -> float | None:
        """Millions of pixels with a class that this loader trains on; None if no labels are hidden on purpose."""
        megapixels: float | None = self.dataset.dataset.labelled_megapixels
        return megapixels

    @staticmethod
    def make_preprocessing(images: ImageOptions = ImageOptions()) -> Preprocessing:
        """Return the conversion of an image to an input, without any data."""
        return Preprocessing(images)

    @staticmethod
    def make_export_ids(*, label_map: Mapping[str, int] | None = None) -> list[int] | None:
        """Return the masks' value for each class, for predictions in the data set's ids; None if it is the same."""
        return export_ids(label_map)


class SegmentationDataLoader(MaskDataLoader):
    """A loader of batches of photos and masks, which are image files; see `MaskDataLoader`.

    Args:
        files: List of the files, see `data_loader.segmentation.pairs.list_pairs`, or a folder with
            `data/{split}/NAME.*` and `labels/{split}/NAME.png`.
        labels: Classes and values of the masks.
        images: Conversion of an image to an input.
        augmentation: Random changes in training.
        loading: Selection, order and loading of the samples.
        one_hot: Only false, an argument of an older dialect.

    Raises:
        ConfigError: An argument is out of its range, or two of them disagree.
        DataError: A file is missing, damaged, or does not fit the others.
    """

    def __init__(
        self,
        files: PairOptions = PairOptions(),
        *,
        labels: LabelOptions = LabelOptions(),
        images: ImageOptions = ImageOptions(),
        augmentation: AugmentationOptions = AugmentationOptions(),
        loading: MaskLoaderOptions = MaskLoaderOptions(),
        one_hot: Annotated[bool, Field(description="Only `false`: losses take class ids.")] = False,
    ) -> None:
        if one_hot:
            raise ConfigError("one_hot is true, but every loss here takes class ids. Set one_hot to false.")
        classes = Labels(labels)
        preprocessing = self.make_preprocessing(images)
        listing = choose_pairs(files, loading)
        source = ImagePairs(
            listing.entries,
            in_channels=preprocessing.in_channels,
            is_binary=labels.binary_masks,
            ignore_index=labels.ignore_index,
            max_decoded_mb=images.max_decoded_mb,
            reduced_decoding=images.reduced_decoding,
        )
        super().__init__(source, preprocessing, classes, augmentation, loading)
        self.listing_faults = listing.faults
