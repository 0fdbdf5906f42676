"""Images with one class each as samples and batches. B batch, C channels, H, W size of the input, K classes."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from base.data.samples import NamedSample
from data_loader.classification.sources import NO_CLASS, LabelledImages
from data_loader.common.image_cache import Decoder, Footprint, ImageCache
from data_loader.images.augmentation import Augmentation
from data_loader.images.files import image_size
from data_loader.images.preprocessing import Preprocessing, require_one_size
from utils.errors import ConfigError, DataError
from utils.geometry import Size
from utils.seeds import derive_seed

_OWN_DRAWS = 4


@dataclass(frozen=True)
class ImageAugmentation:
    """What happens to an image in training; the default is nothing.

    Every sample takes the same number of draws, so switching one effect on leaves the others as they were.

    Attributes:
        warp: Flips, rotations, windows, colours, noise.
        shift: Largest shift to each side, as a share of the input's sides; what comes in is padding.
        cutout: Side of a square of padding put anywhere (arXiv:1708.04552), as a share of the input's shorter side.
    """

    warp: Augmentation
    shift: float = 0.0
    cutout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("shift", "cutout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"Wrong {name} {getattr(self, name)}: it must be from 0 (off) to 1.")

    def __call__(self, image: np.ndarray, preprocessing: Preprocessing, generator: np.random.Generator) -> np.ndarray:
        """Draw once and apply: (h, w, C) uint8 or uint16 -> (H, W, C) of the same dtype, letterboxed."""
        nothing = np.zeros(image.shape[:2], np.uint8)
        placed, _ = self.warp(image, nothing, generator)
        down, right, row, column = generator.random(_OWN_DRAWS).tolist()
        padding = preprocessing.padding(placed.dtype)
        if self.shift:
            placed = _shifted(placed, self.shift * (2 * down - 1), self.shift * (2 * right - 1), padding)
        if self.cutout:
            placed = _cut_out(placed, self.cutout, row, column, padding)
        return placed


def _shifted(image: np.ndarray, down: float, right: float, padding: float) -> np.ndarray:
    """(H, W, C) moved by shares of its height and width, rounded to pixels."""
    height, width = image.shape[:2]
    rows, columns = round(down * height), round(right * width)
    moved = np.full_like(image, padding)
    moved[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = image[
        max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    return moved


def _cut_out(image: np.ndarray, share: float, row: float, column: float, padding: float) -> np.ndarray:
    """(H, W, C) with a square of padding whose centre lies anywhere on it, so that edges may cut the square."""
    height, width = image.shape[:2]
    side = max(1, round(share * min(height, width)))
    top, left = int(row * height) - side // 2, int(column * width) - side // 2
    cut = image.copy()
    cut[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = padding
    return cut


class DecodedImage(NamedTuple):
    """An image as the cache holds it.

    Attributes:
        image: (h', w', C) uint8 or uint16, no larger than the network's input.
        original: Size of the file.
    """

    image: np.ndarray
    original: Size


class ImageDecoder(Decoder[DecodedImage]):
    """Reader of images, at the network's scale.

    Args:
        images: The data source.
        preprocessing: Gives scale and channels.
    """

    noun = "images"

    def __init__(self, images: LabelledImages, preprocessing: Preprocessing) -> None:
        self.images = images
        self.preprocessing = preprocessing

    def footprint(self, index: int) -> Footprint:
        """Return the size of an image from its header; images without a file of their own are read."""
        channels = self.preprocessing.in_channels
        if self.images.files:
            height, width, depth = image_size(self.images.files[index], upright=channels != 4)
        else:
            image = self.images.read(index, channels)
            height, width, depth = image.shape[0], image.shape[1], image.itemsize
        resized = self.preprocessing.geometry((height, width)).resized
        pixels = min(height * width, resized[0] * resized[1])
        return Footprint((height, width), pixels * channels * depth + 16)  # 16 for the alignment

    def decode(self, index: int) -> DecodedImage:
        """Return an image at the network's scale.

        Raises:
            DataError: It cannot be read.
        """
        channels = self.preprocessing.in_channels
        image = self.images.read(index, channels)
        if channels == 4 and (image.ndim != 3 or image.shape[2] != 4):
            raise DataError(
                f"{self.images.names[index]} has no fourth channel, but in_channels is 4. Set in_channels to 3 or 1."
            )
        shrunk = np.ascontiguousarray(self.preprocessing.shrink(image))
        return DecodedImage(shrunk, (image.shape[0], image.shape[1]))

    def settings(self) -> Hashable:
        """Return everything that decides a decoded image except its file."""
        return DecodedImage, self.preprocessing.identity()

    def identities(self, indices: Sequence[int]) -> dict[int, Hashable]:
        """Return the state of the files of each image."""
        return self.images.identities(indices)


class PlacedImage(NamedTuple):
    """An image as it lies on the input, not normalised yet.

    Attributes:
        image: (H, W, C) uint8 or uint16.
        label: Id of its class.
        origin: Its name and position, in evaluation.
        mixing_seed: In training, what the mixing of its batch draws from if it is the first of the batch.
    """

    image: np.ndarray
    label: int
    origin: NamedSample | None = None
    mixing_seed: int = 0


class LabelledImageDataset(Dataset[PlacedImage]):
    """Images with their classes.

    Args:
        images: Where they are.
        labels: Id of the class of each.
        preprocessing: Makes a network's input of an image.
        augmentation: What happens in training; None for evaluation, whose samples carry their names.
        cache_mb: Most memory for decoded images; None: a quarter of what is free.
    """

    def __init__(
        self,
        images: LabelledImages,
        labels: Sequence[int],
        preprocessing: Preprocessing,
        *,
        augmentation: ImageAugmentation | None = None,
        cache_mb: int | None = None,
    ) -> None:
        self.images = images
        self.labels = list(labels)
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.cache = ImageCache(ImageDecoder(images, preprocessing), cache_mb)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> PlacedImage:
        """Sample `index` with draws that follow from the index alone; loaders call `sample`."""
        return self.sample(index, np.random.default_rng(derive_seed("sample", index)))

    def prepare(self, indices: Iterable[int] | None = None) -> None:
        """Check these images (or all) and decode what fits into memory.

        Raises:
            DataError: Some cannot be read.
        """
        self.cache.prepare(range(len(self)) if indices is None else indices)

    def sample(self, index: int, generator: np.random.Generator) -> PlacedImage:
        """Sample `index`, its draws from `generator`.

        Raises:
            DataError: The image cannot be read.
        """
        decoded, label = self.cache.load(index), self.labels[index]
        if self.augmentation is None:
            placed = self.preprocessing.place(decoded.image, self.preprocessing.geometry(decoded.original))
            return PlacedImage(placed, label, NamedSample(self.images.names[index], label, index))
        placed = self.augmentation(decoded.image, self.preprocessing, generator)
        return PlacedImage(placed, label, mixing_seed=int(generator.integers(2**62)))

    def without_target(self, sample: PlacedImage) -> PlacedImage:
        """The sample with a class that counts nowhere."""
        return sample._replace(label=NO_CLASS)


class ClassificationCollate:
    """Makes a batch of samples; in training it may mix them (mixup, arXiv:1710.09412).

    The draws of a batch follow from its first sample's, so from seed, epoch and index: they are the same with any
    number of workers. Processes that share the work each mix their own part of a batch.

    Args:
        preprocessing: Knows how to normalise.
        num_classes: K.
        mixup: Both parameters of the Beta distribution that a batch's share is drawn from; 0 mixes nothing.

    Raises:
        ConfigError: `mixup` is negative.
    """

    def __init__(self, preprocessing: Preprocessing, num_classes: int, mixup: float = 0.0) -> None:
        if mixup < 0:
            raise ConfigError(f"Wrong mixup {mixup}: it must be 0 (off) or more, as in 0.2.")
        self.preprocessing = preprocessing
        self.num_classes = num_classes
        self.mixup = mixup

    def __call__(self, samples: Sequence[PlacedImage]) -> tuple[Any, ...]:
        """Images (B, C, H, W) float32, channels-last in memory, and classes (B,) int64, names with them in evaluation.

        Mixed batches have shares (B, K) float32 in the place of classes.

        Raises:
            DataError: The images differ in size.
        """
        require_one_size([sample.image.shape[:2] for sample in samples])
        images = torch.empty((len(samples), *samples[0].image.shape), dtype=torch.float32)
        for image, sample in zip(images.numpy(), samples, strict=True):
            self.preprocessing.normalize_into(image, sample.image)
        images = images.permute(0, 3, 1, 2)
        target = torch.tensor([sample.label for sample in samples], dtype=torch.int64)
        origins = [sample.origin for sample in samples if sample.origin is not None]
        if origins:
            return images, target, origins
        return self._mixed(images, target, samples[0].mixing_seed) if self.mixup else (images, target)

    def _mixed(self, images: Tensor, target: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        generator = np.random.default_rng(seed)
        share = float(generator.beta(self.mixup, self.mixup))
        partners = torch.from_numpy(generator.permutation(len(images)))
        # One class more takes the samples that count nowhere; its column is then left out.
        known = torch.where(target == NO_CLASS, self.num_classes, target)
        shares = F.one_hot(known, self.num_classes + 1)[:, :-1].float()
        return images.lerp(images[partners], 1 - share), shares.lerp(shares[partners], 1 - share)
