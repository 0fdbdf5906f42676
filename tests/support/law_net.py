"""Plug-ins for the laws: a network of two convolutions with any norm, and a loader of masks from memory."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from base import BaseDataLoader

IGNORED, SIZE = 255, (12, 16)
NUM_SAMPLES = {"train": 11, "valid": 5}
WIDTH = 4


class LawNet(nn.Module):
    """Logits (B, K, H, W) from half the image's size; each sample depends on its batch through batch norm alone."""

    def __init__(
        self, num_classes: int, in_channels: int = 3, *, norm: Literal["batch", "group", "instance", "none"] = "none"
    ) -> None:
        super().__init__()
        norms = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "none": nn.Identity}
        self.first = nn.Conv2d(in_channels, WIDTH, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, WIDTH) if norm == "group" else norms[norm](WIDTH)
        self.head = nn.Conv2d(WIDTH, num_classes, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        # A smooth activation: at the edge of a ReLU, rounding would choose the gradient.
        features = F.silu(self.norm(self.first(inputs)))
        return F.interpolate(self.head(features), inputs.shape[2:], mode="bilinear")


class Masks:
    """Images (3, 12, 16) with masks: padded ones, such as lack classes or contours, and one without any label."""

    def __init__(self, samples: int, classes: int, *, is_noisy: bool) -> None:
        generator = torch.Generator().manual_seed(samples)
        coarse = torch.randint(0, classes, (samples, 3, 4), generator=generator)
        self.masks = coarse.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
        self.images = torch.randn(samples, 3, *SIZE, generator=generator) + self.masks[:, None] * 0.5
        self.is_noisy = is_noisy
        self.masks[2:4] = 0
        self.masks[::3, :5] = IGNORED
        self.masks[1] = IGNORED

    def __len__(self) -> int:
        return len(self.masks)

    def sample(self, index: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        noise = torch.from_numpy(generator.standard_normal((3, *SIZE), dtype=np.float32))
        return self.images[index] + 0.3 * self.is_noisy * noise, self.masks[index]

    def target(self, index: int) -> Tensor:
        return self.masks[index]

    def without_target(self, sample: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return sample[0], torch.full_like(sample[1], IGNORED)


class LawLoader(BaseDataLoader):
    """Yields these masks, with noise in training."""

    in_channels, ignore_index = 3, IGNORED

    def __init__(
        self,
        classes: int,
        batch_size: int,
        *,
        role: str = "train",
        is_training: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        n_workers: int = 0,
    ) -> None:
        samples = Masks(NUM_SAMPLES[role], classes, is_noisy=is_training)
        options = {"is_training": is_training, "seed": seed, "n_workers": n_workers}
        super().__init__(samples, batch_size, shuffle=shuffle, **options)
        self.num_classes, self.class_names = classes, [f"c{number}" for number in range(classes)]
