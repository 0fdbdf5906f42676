"""Images and settings of trainings that are only tried, and the comparison of two states."""

import torch

from trainer.trainer import TrainingPlan


def plan(**changes):
    return TrainingPlan(epochs=1, **changes)


def adam(weights):
    return torch.optim.AdamW(weights, lr=0.1)


class Images:
    """`size` grey images of 8x8 with masks of labels 0 to K-1, or with one label each."""

    def __init__(self, size, num_labels=3, channels=1, is_mask=True):
        generator = torch.Generator().manual_seed(size)
        self.images = torch.rand(size, channels, 8, 8, generator=generator)
        self.targets = torch.arange(size * 64).reshape(size, 8, 8) % num_labels
        if not is_mask:
            self.targets = self.targets[:, 0, 0]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.targets[index]


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
