from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from base import BaseDataLoader
from data_loader.pictures import read_mask, read_picture
from data_loader.preprocessing import Preprocessing, place_mask


class Photos:
    """Photos anywhere in `folder/images` with the masks of the same names in `folder/masks`."""

    def __init__(self, folder: str, preprocessing: Preprocessing, *, flip: bool) -> None:
        self.photos = sorted(Path(folder, "images").rglob("*.jpg"))
        self.masks = [Path(folder, "masks", f"{photo.stem}.png") for photo in self.photos]
        self.preprocessing, self.flip = preprocessing, flip

    def __len__(self) -> int:
        return len(self.photos)

    def sample(self, index: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        photo, mask = read_picture(self.photos[index]), read_mask(self.masks[index])
        if self.flip and generator.random() < 0.5:
            photo, mask = cv2.flip(photo, 1), cv2.flip(mask, 1)
        image, geometry = self.preprocessing(photo)  # (3, H, W) float32, padded to the size of the input
        target = place_mask(mask, geometry, PhotoLoader.ignore_index)
        return torch.from_numpy(image), torch.from_numpy(target.astype(np.int64))


class PhotoLoader(BaseDataLoader):
    """Batches of (image (B, 3, H, W) float32, mask (B, H, W) int64)."""

    num_classes, in_channels, ignore_index, class_names = 2, 3, 255, ("background", "person")

    def __init__(self, folder: str, size: int, *, batch_size: int = 8, n_workers: int = 0, seed: int = 0) -> None:
        self.preprocessing = self.make_preprocessing(size)
        photos, plain = (Photos(folder, self.preprocessing, flip=flip) for flip in (True, False))
        split = {"validation_split": 0.2, "validation_dataset": plain}
        super().__init__(photos, batch_size, **split, n_workers=n_workers, seed=seed)

    @staticmethod
    def make_preprocessing(size: int) -> Preprocessing:
        return Preprocessing(resize=size)
