"""The loader of images with one class each, with its augmentation, data set and collation.

B batch, C channels, h, w size of an image, H, W size of the input, K classes.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from base.base_data_loader import BaseDataLoader, Task
from base.loading.packing import Allocate, CompactBatch, PackedBatch, PackingCollate
from base.samples import NamedSample, RawSample
from data_loader.classification.sources import (
    DatasetImages,
    FileImages,
    IdxImages,
    ImageSource,
    list_in_folders,
    list_labelled,
)
from data_loader.common.class_labels import (
    NO_CLASS,
    LabelledDataset,
    checked_classes,
    first_of_each_class,
    list_label_ids,
)
from data_loader.common.folds import divide_samples
from data_loader.common.image_cache import Decoder, Footprint, ImageCache, stamp
from data_loader.common.options import (
    AugmentationOptions,
    ClassOptions,
    ImageLoaderOptions,
    ImageOptions,
    require_whole_decoding,
)
from data_loader.images.augmentation import Augmentation
from data_loader.images.batches import compact_images, completed_images, normalized_batch
from data_loader.images.preprocessing import NO_ENLARGEMENT, Enlargement, Preprocessing, mixed_sizes, require_one_size
from utils.errors import ConfigError, DataError, EspalierError
from utils.geometry import Size
from utils.writing.text import storable

ClassFolder = Annotated[
    str | None, Field(description="Folder of class folders, or with `train`, `val`, `test` of them.")
]
ListFile = Annotated[str | None, Field(description="List with one `path, class` per line.")]
ImagesFile = Annotated[str | None, Field(description="Idx file of images, as of MNIST, compressed (`.gz`) or not.")]
LabelsFile = Annotated[str | None, Field(description="Idx file of their classes.")]
TorchvisionDataset = Annotated[Any, Field(description='As `{"type": "torchvision.datasets.CIFAR10", "args": {...}}`.')]
Split = Annotated[str | None, Field(description="Part of the folder; `null`: by `is_training`, train or val.")]
DataRoot = Annotated[str | None, Field(description="Folder that the paths are relative to.")]


@dataclass(frozen=True)
class WholeImageOptions(AugmentationOptions):
    """Augmentation of images that have one class each; the default is none.

    `cutout` is a fraction of the input's shorter side; `mixup` is the parameter of the Beta distribution of
    arXiv:1710.09412.
    """

    shift: Annotated[float, Field(ge=0, le=1, description="Largest shift, as a fraction of the input's side.")] = 0.0
    cutout: Annotated[float, Field(ge=0, le=1, description="Side of a random blank square (arXiv:1708.04552).")] = 0.0
    mixup: Annotated[float, Field(ge=0, description="Parameter of mixing pairs of images; 0: none.")] = 0.0


class ImageAugmentation:
    """Random changes of an image in training.

    Every sample takes the same number of random values, so that an effect that is switched on leaves the others as they
    were.

    Args:
        options: Strength of the effects; mixing is done by `ClassificationCollate`.
        preprocessing: Gives size of the input and padding.
    """

    def __init__(self, options: WholeImageOptions, preprocessing: Preprocessing) -> None:
        self.options = options
        self.warp = Augmentation(options, preprocessing)
        self.preprocessing = preprocessing

    def __call__(self, image: np.ndarray, generator: np.random.Generator, original: Size | None = None) -> np.ndarray:
        """Draw random values and apply the effects: (h, w, C) uint8 or uint16 -> (H, W, C) of the same dtype.

        `original` is the size of the file; None: that of the image.
        """
        placed, _ = self.warp(image, np.zeros(image.shape[:2], np.uint8), generator, original)
        # Drawn even if they are not used, see above.
        down, right, row, column = generator.random(4).tolist()
        padding = self.preprocessing.padding(placed.dtype)
        height, width = placed.shape[:2]
        if self.options.shift:
            rows = round(self.options.shift * (2 * down - 1) * height)
            columns = round(self.options.shift * (2 * right - 1) * width)
            moved = np.full_like(placed, padding)
            moved[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = placed[
                max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
            ]
            placed = moved
        if self.options.cutout:
            # The centre of the square lies anywhere on the image, so that the edges may cut the square.
            side = max(1, round(self.options.cutout * min(height, width)))
            top, left = int(row * height) - side // 2, int(column * width) - side // 2
            placed = placed.copy()  # it may be the array of the cache
            placed[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = padding
        return placed


class DecodedImage(NamedTuple):
    """An image as the cache holds it.

    Attributes:
        image: (h', w', C) uint8 or uint16, no larger than the augmentation needs it.
        original: Size of the file.
    """

    image: np.ndarray
    original: Size


@dataclass(eq=False)
class ImageDecoder(Decoder[DecodedImage]):
    """Reader of images, at the scale that network and augmentation need.

    Args:
        source: The images.
        preprocessing: Gives scale and channels.
        enlargement: The most that an augmentation enlarges a part of an image, which is then cached as much larger.
    """

    noun = "images"

    source: ImageSource
    preprocessing: Preprocessing
    enlargement: Enlargement = NO_ENLARGEMENT

    def footprint(self, index: int) -> Footprint:
        """Return the size of an image from its header; without one, an upper bound."""
        channels = self.preprocessing.in_channels
        header = self.source.header(index, channels)
        if header is None:
            # Without an enlargement it is never stored larger than the input, whose size saves decoding it twice.
            known = self.preprocessing.size if self.enlargement.factor == 1 else None
            height, width = known or self.source.image(index, channels).shape[:2]
            header = height, width, 1
        height, width, depth = header
        pixels = prod(self.preprocessing.shrunk_size((height, width), self.enlargement))
        return Footprint((height, width), pixels * channels * depth)

    def decode(self, index: int) -> DecodedImage:
        """Return an image at the network's scale.

        Raises:
            DataError: It cannot be read, or has no fourth channel although the network has.
        """
        channels = self.preprocessing.in_channels
        image, original = self.source.scaled_image(index, channels, self._needed_size)
        shrunk = self.preprocessing.shrink(self._checked(index, image), self.enlargement, original)
        return DecodedImage(np.ascontiguousarray(shrunk), original)

    def _needed_size(self, original: Size) -> Size:
        return self.preprocessing.shrunk_size(original, self.enlargement)

    def read(self, index: int) -> np.ndarray:
        """Return an image as its file holds it, (h, w, C) or (h, w).

        Raises:
            DataError: As `decode`.
        """
        return self._checked(index, self.source.image(index, self.preprocessing.in_channels))

    def _checked(self, index: int, image: np.ndarray) -> np.ndarray:
        """Return an image if the channels of an input can be made of its own.

        Raises:
            DataError: They cannot.
        """
        channels = self.preprocessing.in_channels
        if channels == 4 and (image.ndim != 3 or image.shape[2] != 4):
            raise DataError(
                f"{self.source.names[index]} has no fourth channel, but in_channels is 4. Set in_channels to 3 or 1."
            )
        try:
            self.preprocessing.channels(image)
        except DataError as error:
            raise DataError(f"{self.source.names[index]}: {error}") from None
        return image

    def scale(self) -> str:
        """Return the scale of the decoded images as the end of a sentence."""
        return self.enlargement.describe()

    def settings(self) -> Hashable:
        """Return everything that decides a decoded image except its file."""
        is_reduced = isinstance(self.source, FileImages) and self.source.reduced_decoding
        return DecodedImage, self.preprocessing.identity(), self.enlargement, is_reduced

    def identities(self, indices: Sequence[int]) -> dict[int, Hashable]:
        """Return the state of the file of each image, if it is known."""
        files, names = self.source.files, self.source.names
        return {index: (stamp(files[index]), names[index]) for index in indices} if files else {}


class PlacedImage(NamedTuple):
    """An image as it lies on the input, not normalised yet.

    Attributes:
        image: (H, W, C) uint8 or uint16.
        label: Id of its class.
        origin: Its name and index, in evaluation.
        mixing_seed: In training, seed for mixing the batch whose first sample this is.
    """

    image: np.ndarray
    label: int
    origin: NamedSample | None = None
    mixing_seed: int = 0


class LabelledImageDataset(LabelledDataset[PlacedImage]):
    """Images with their classes.

    Args:
        source: The images.
        labels: Id of the class of each.
        preprocessing: Converts an image to an input.
        augmentation: Changes in training; None for evaluation, whose samples carry their names.
        loading: Gives the memory limit, and the number of samples that must have one size.
    """

    def __init__(
        self,
        source: ImageSource,
        labels: Sequence[int],
        preprocessing: Preprocessing,
        *,
        augmentation: ImageAugmentation | None = None,
        loading: ImageLoaderOptions = ImageLoaderOptions(),
    ) -> None:
        super().__init__(labels)
        self.source = source
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        enlargement = NO_ENLARGEMENT if augmentation is None else augmentation.warp.enlargement
        self.decoder = ImageDecoder(source, preprocessing, enlargement)
        self.cache = ImageCache(self.decoder, loading.cache_mb)
        self._batch_size = loading.batch_size

    def prepare(self, indices: Iterable[int] | None = None) -> None:
        """Check these images (or all) and decode as many as fit into memory.

        Raises:
            DataError: Some cannot be read.
        """
        may_differ = self.preprocessing.size is None
        is_transformed = self.augmentation is not None and self.augmentation.warp.transforms is not None
        check = self._check_sizes if may_differ or is_transformed else None
        self.cache.prepare(range(len(self)) if indices is None else indices, check)

    def is_in_memory(self, indices: Iterable[int]) -> bool:
        """Return whether these images are decoded in memory."""
        return self.cache.holds(indices)

    def _check_sizes(self, sizes: Mapping[int, Size]) -> None:
        """Raise an error if images of these sizes cannot be augmented, or cannot share a batch."""
        for error in self.unfit_sizes(sizes):
            raise error

    def unfit_sizes(self, sizes: Mapping[int, Size]) -> Iterator[EspalierError]:
        """Yield the reasons for which images of these sizes cannot be augmented, or cannot share a batch."""
        warp, name = None if self.augmentation is None else self.augmentation.warp, self.source.names.__getitem__
        if warp is not None:
            yield from warp.unfit_transforms(sizes, name)
        if warp is None or warp.transforms is None:
            may_turn = warp is not None and warp.rotate > 0
            geometry = self.preprocessing.geometry
            yield from mixed_sizes(sizes, geometry, name, batch_size=self._batch_size, may_turn=may_turn)

    def sample_names(self, index: int) -> Sequence[str]:
        """Return the file of an image, or file and row."""
        return [self.source.names[index]]

    def raw_sample(self, index: int) -> RawSample:
        """Return an image as its file holds it, and its class.

        Raises:
            DataError: It cannot be read, or has other channels than an input can be made of.
        """
        return RawSample(self.decoder.read(index), self.labels[index])

    def sample_identity(self, index: int) -> str:
        """Return name and class of an image without its folders; in a file of many, its row and class."""
        is_file = isinstance(self.source, FileImages)
        name = self.source.files[index].name if is_file else str(self.source.rows[index])
        return f"{name}\t{self.labels[index]}"

    def sample(self, index: int, generator: np.random.Generator) -> PlacedImage:
        """Return sample `index` with random numbers from `generator`.

        Raises:
            DataError: The image cannot be read.
        """
        decoded, label = self.cache.load(index), self.labels[index]
        if self.augmentation is None:
            placed = self.preprocessing.place(decoded.image, self.preprocessing.geometry(decoded.original))
            return PlacedImage(placed, label, NamedSample(self.source.names[index], label, index))
        placed = self.augmentation(decoded.image, generator, decoded.original)
        # Drawn for every sample: which one comes first in its batch is not known here.
        return PlacedImage(placed, label, mixing_seed=int(generator.integers(2**62)))


@dataclass(eq=False)
class ClassificationCollate(PackingCollate):
    """Collation of samples to a batch, which mixes them in training if `mixup` is set (arXiv:1710.09412, section 2).

    The draws of a batch follow from its first sample, so from seed, epoch and index: they are the same with any number
    of workers. Processes that share the work each mix their part of a batch.

    Args:
        preprocessing: Knows how to normalise.
        num_classes: K.
        mixup: Both parameters of the Beta distribution from which a batch's weight is drawn; 0 mixes nothing.
    """

    preprocessing: Preprocessing
    num_classes: int
    mixup: float = 0.0

    def pack(self, samples: Sequence[PlacedImage]) -> PackedBatch:
        """Return the images (H, W, C); the details are their classes, their names, and the seed for mixing them.

        Raises:
            DataError: The images differ in size.
        """
        require_one_size([sample.image.shape[:2] for sample in samples])
        origins = [sample.origin for sample in samples if sample.origin is not None]
        details = [sample.label for sample in samples], origins, samples[0].mixing_seed
        return PackedBatch([sample.image for sample in samples], details)

    def unpack(self, batch: PackedBatch, empty: Allocate = torch.empty) -> tuple[Any, ...]:
        """Return images (B, C, H, W) float32, channels-last in memory, and classes (B,) int64; names in evaluation.

        Mixed batches have weights of the classes (B, K) float32 instead of classes.
        """
        labels, origins, mixing_seed = batch.details
        images = normalized_batch(self.preprocessing, batch.arrays, empty)
        target = torch.tensor(labels, dtype=torch.int64)
        if origins:
            return images, target, origins
        if not self.mixup:
            return images, target
        generator = np.random.default_rng(mixing_seed)
        weight = float(generator.beta(self.mixup, self.mixup))
        partners = torch.from_numpy(generator.permutation(len(images)))
        # One more class takes the samples that do not count; its column is then left out.
        known = torch.where(target == NO_CLASS, self.num_classes, target)
        weights = F.one_hot(known, self.num_classes + 1)[:, :-1].float()
        return images.lerp(images[partners], 1 - weight), weights.lerp(weights[partners], 1 - weight)

    def compact(self, batch: PackedBatch, empty: Allocate = torch.empty) -> CompactBatch | None:
        """Return images (B, H, W, C) uint8 and classes (B,) int64; None for other types, and for mixed batches."""
        labels, origins, _ = batch.details
        images = compact_images(self.preprocessing, batch.arrays, empty)
        if images is None or (self.mixup and not origins):
            return None
        classes = empty((len(labels),), dtype=torch.int64)
        classes.numpy()[:] = labels

        def complete(images: Tensor, classes: Tensor) -> tuple[Any, ...]:
            return completed_images(self.preprocessing, images), classes, *((origins,) if origins else ())

        return CompactBatch((images, classes), complete)


def _require_one_source(
    folder: object, list_file: object, dataset: object, images_file: object, labels_file: object
) -> None:
    """Raise a `ConfigError` unless exactly one source is given; one of the two idx files alone is an error as well."""
    has_idx = images_file is not None or labels_file is not None
    given = (folder is not None) + (list_file is not None) + has_idx + (dataset is not None)
    if given != 1 or (images_file is None) != (labels_file is None):
        raise ConfigError(
            f"{given} sources are given: images come from exactly one. Set folder, list_file, dataset, or "
            "images_file and labels_file together."
        )


class ImageClassificationDataLoader(BaseDataLoader):
    """Batches of images and their classes, from one of four sources: `folder`, `list_file`, idx files, `dataset`.

    Training batches are (images (B, C, H, W) float32, classes (B,) int64), with `mixup` weights of the classes (B, K)
    float32. With `is_training` false nothing is augmented, and a batch has a third part: a list of
    `base.samples.NamedSample`. Without `classes`, their names are those of the training data. With `samples`,
    images are taken from the classes in turn.

    Args:
        folder: Folder with one folder per class, or with `train`, `val` and `test` that contain these.
        list_file: List with one `path, class` per line.
        images_file: Idx file of images.
        labels_file: Idx file of their classes.
        dataset: Data set of torchvision.
        split: Part of the folder.
        data_root: Folder that other paths are relative to.
        labels: Names of the classes.
        images: Conversion to inputs.
        augmentation: Random changes in training.
        loading: Selection, order and loading of the samples.

    Raises:
        ConfigError: An option is out of its range, or there is not exactly one source.
        DataError: The source does not hold images with classes.
    """

    task: Task = "classification"
    dims: int | None = 2

    def __init__(
        self,
        folder: ClassFolder = None,
        *,
        list_file: ListFile = None,
        images_file: ImagesFile = None,
        labels_file: LabelsFile = None,
        dataset: TorchvisionDataset = None,
        split: Split = None,
        data_root: DataRoot = None,
        labels: ClassOptions = ClassOptions(),
        images: ImageOptions = ImageOptions(),
        augmentation: WholeImageOptions = WholeImageOptions(),
        loading: ImageLoaderOptions = ImageLoaderOptions(batch_size=64),
    ) -> None:
        preprocessing = self.make_preprocessing(images)
        _require_one_source(folder, list_file, dataset, images_file, labels_file)
        if folder is None and list_file is None:
            require_whole_decoding(images, "a data set of torchvision" if images_file is None else "an idx file")
        source: ImageSource
        if folder is not None:
            root, name = Path(data_root or "") / folder, split or loading.default_split
            source = list_in_folders(root, name, is_named=split is not None)
        elif list_file is not None:
            source = list_labelled(list_file, data_root)
        elif dataset is not None:
            source = DatasetImages(dataset)
        else:
            source = IdxImages(str(images_file), str(labels_file), max_decoded_mb=images.max_decoded_mb)
        if isinstance(source, FileImages):
            source.max_decoded_mb, source.reduced_decoding = images.max_decoded_mb, images.reduced_decoding
        names = checked_classes([storable(name) for name in labels.classes or ()], source.classes)
        are_ids = all(name.isdecimal() and len(name) < 10 and int(name) < len(names) for name in source.classes)
        if are_ids and not set(source.classes) <= set(names):
            # The data has numbers, and the config gives their names.
            source.labels, source.classes = [names[int(label)] for label in source.labels], names
        source = source.select(first_of_each_class(source.labels, loading.samples))
        faults = source.faults
        known = list_label_ids(source.labels, names, source.names.__getitem__)
        source, ids = source.select([index for index, _ in known.usable()]), [number for _, number in known.entries]
        # Both, because `split_validation` evaluates samples of a loader that trains.
        plain = LabelledImageDataset(source, ids, preprocessing, loading=loading)
        changes = ImageAugmentation(augmentation, preprocessing)
        augmented = LabelledImageDataset(source, ids, preprocessing, augmentation=changes, loading=loading)
        divided = divide_samples(loading, len(ids))
        self.split_seed = loading.split_seed
        super().__init__(
            augmented if loading.is_training else plain,
            collate_fn=ClassificationCollate(preprocessing, len(names), augmentation.mixup),
            validation_dataset=plain,
            indices=None if divided is None else divided[0].tolist(),
            **loading.base_arguments(),
        )
        if divided is not None:
            self._held_out = divided[1]
        self.num_classes, self.class_names, self.learned = len(names), names, {"classes": names}
        self.in_channels = preprocessing.in_channels
        self.ignore_index = NO_CLASS
        self.preprocessing = preprocessing
        self.listing_faults = (*faults, *known.faults)

    @staticmethod
    def make_preprocessing(images: ImageOptions = ImageOptions()) -> Preprocessing:
        """Return the conversion of an image to an input, which needs no data."""
        return Preprocessing(images)
