"""The data of this project: change it first. `--check` reads every sample and names each fault."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from base import BaseDataLoader
from data_loader.common.options import ImageOptions
from data_loader.images.files import read_image
from data_loader.images.preprocessing import Preprocessing


class LabelledImages:
    """Images `folder/CLASS/NAME.png` with the number of their class.

    Args:
        folder: Holds a folder for each class.
        classes: Names of the classes, in the order of their numbers.
        preprocessing: Converts an image to an input.
        flip: Mirror half of the images, drawn anew in each epoch.
    """

    def __init__(self, folder: str, classes: Sequence[str], preprocessing: Preprocessing, *, flip: bool) -> None:
        self.files = [
            (file, label) for label, name in enumerate(classes) for file in sorted(Path(folder, name).glob("*"))
        ]
        self.preprocessing, self.flip = preprocessing, flip

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int, generator: np.random.Generator) -> tuple[Tensor, int]:
        """Return an input (3, H, W) float32 and its class; every random number comes from the generator."""
        file, label = self.files[index]
        image = read_image(file)
        if self.flip and generator.random() < 0.5:
            image = cv2.flip(image, 1)
        return torch.from_numpy(self.preprocessing(image)[0]), label

    def target(self, index: int) -> int:
        """Return the class of a sample without reading its image."""
        return self.files[index][1]


class ShapeLoader(BaseDataLoader):
    """Batches of images (B, 3, H, W) float32 and classes (B,) int64.

    Args:
        folder: Holds a folder for each class.
        size: Side of the input in pixels.
        classes: Names of the classes; None: those of the folders, sorted.
        samples: Take so many, of all classes alike, as `--overfit` asks; None: all.
        is_training: Mirror and shuffle.
        batch_size: Samples per batch.
        n_workers: Processes that load.
        seed: Seed of the run.
    """

    in_channels = 3

    def __init__(
        self,
        folder: str,
        size: int = 32,
        *,
        classes: Sequence[str] | None = None,
        samples: int | None = None,
        is_training: bool = True,
        batch_size: int = 8,
        n_workers: int = 0,
        seed: int = 0,
    ) -> None:
        names = classes or sorted(path.name for path in Path(folder).glob("*") if path.is_dir())
        self.class_names, self.num_classes = list(names), len(names)
        self.preprocessing = self.make_preprocessing(size)
        images = LabelledImages(folder, names, self.preprocessing, flip=is_training)
        count = len(images) if samples is None else min(samples, len(images))
        taken = [position * len(images) // count for position in range(count)]
        super().__init__(images, batch_size, shuffle=is_training, n_workers=n_workers, seed=seed, indices=taken)

    @staticmethod
    def make_preprocessing(size: int = 32) -> Preprocessing:
        """Return the conversion of an image to an input, which inference.py uses as well."""
        return Preprocessing(ImageOptions(resize=size))
