"""Pictures with one class each as samples and batches. B batch, C channels, H, W size of the input, K classes."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from base.sample import NamedSample
from data_loader.batches import require_one_size
from data_loader.classes import NO_CLASS
from data_loader.free_transforms import FreeTransforms
from data_loader.labelled_pictures import LabelledPictures
from data_loader.picture_augmentation import PictureAugmentation
from data_loader.picture_cache import PictureCache
from data_loader.preprocessing import Preprocessing, in_8_bits
from utils.errors import ConfigError
from utils.keyed import derive_seed


class PlacedPicture(NamedTuple):
    """A picture as it lies on the input, not normalised yet.

    Attributes:
        picture: (H, W, C) uint8 or uint16.
        label: Id of its class.
        origin: Its name and position, in evaluation.
        mixing_seed: In training, what the mixing of its batch draws from if it is the first of the batch.
    """

    picture: np.ndarray
    label: int
    origin: NamedSample | None = None
    mixing_seed: int = 0


class LabelledPictureDataset(Dataset[PlacedPicture]):
    """Pictures with their classes.

    Args:
        pictures: Where they are.
        labels: Id of the class of each.
        preprocessing: Makes a network's input of a picture.
        augmentation: What happens in training; None for evaluation, whose samples carry their names.
        transforms: Albumentations' transforms, before the augmentation; in training only.
        cache_mb: Most memory for decoded pictures; None: a quarter of what is free.
    """

    def __init__(
        self,
        pictures: LabelledPictures,
        labels: Sequence[int],
        preprocessing: Preprocessing,
        *,
        augmentation: PictureAugmentation | None = None,
        transforms: Sequence[Any] = (),
        cache_mb: int | None = None,
    ) -> None:
        self.pictures = pictures
        self.labels = list(labels)
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self._transforms = FreeTransforms(transforms, 0) if transforms else None
        self._cache = PictureCache(pictures, preprocessing, cache_mb)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> PlacedPicture:
        """Sample `index` with draws that follow from the index alone; loaders call `sample`."""
        return self.sample(index, np.random.default_rng(derive_seed("sample", index)))

    def prepare(self, indices: Iterable[int] | None = None) -> None:
        """Check these pictures (or all) and decode what fits into memory.

        Raises:
            DataError: Some cannot be read.
        """
        self._cache.prepare(range(len(self)) if indices is None else indices)

    def sample(self, index: int, generator: np.random.Generator) -> PlacedPicture:
        """Sample `index`, its draws from `generator`.

        Raises:
            DataError: The picture cannot be read.
        """
        decoded, label = self._cache.load(index), self.labels[index]
        if self.augmentation is None:
            placed = self.preprocessing.place(decoded.picture, self.preprocessing.geometry(decoded.original))
            return PlacedPicture(placed, label, NamedSample(self.pictures.names[index], label, index))
        picture = decoded.picture
        if self._transforms is not None:
            picture, _ = self._transforms(in_8_bits(picture), np.zeros(picture.shape[:2], np.uint8), generator)
        placed = self.augmentation(picture, self.preprocessing, generator)
        return PlacedPicture(placed, label, mixing_seed=int(generator.integers(2**62)))

    def without_target(self, sample: PlacedPicture) -> PlacedPicture:
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

    def __call__(self, samples: Sequence[PlacedPicture]) -> tuple[Any, ...]:
        """Images (B, C, H, W) float32, channels-last in memory, and classes (B,) int64, names with them in evaluation.

        Mixed batches have shares (B, K) float32 in the place of classes.

        Raises:
            DataError: The pictures differ in size.
        """
        require_one_size([sample.picture.shape[:2] for sample in samples])
        images = torch.empty((len(samples), *samples[0].picture.shape), dtype=torch.float32)
        for image, sample in zip(images.numpy(), samples, strict=True):
            self.preprocessing.normalize_into(image, sample.picture)
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
