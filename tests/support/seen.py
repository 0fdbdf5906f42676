"""A network that needs no training: it sees what is red. For everything around a network that makes images."""

import numpy as np
import torch
from torch import nn

from data_loader.images.preprocessing import Preprocessing
from predictor.segmenter import Segmenter
from tests.support.groups import from_flat


class RedNet(nn.Module):
    """Class 1 where red is above one half; with `classes`, the others are never chosen. Auxiliary logits on demand."""

    def __init__(self, num_classes=2, has_auxiliary=False):
        super().__init__()
        self.num_classes, self.has_auxiliary = num_classes, has_auxiliary
        self.seen_batches = []

    def forward(self, inputs):
        self.seen_batches.append(len(inputs))
        logits = torch.full((len(inputs), self.num_classes, *inputs.shape[2:]), -20.0)
        logits[:, 0], logits[:, 1] = 0, 20 * (inputs[:, 0] - 0.5)
        return (logits, logits[:, :, ::2, ::2]) if self.has_auxiliary else logits


def red_segmenter(resize=None, **arguments):
    return Segmenter(RedNet(**arguments), from_flat(Preprocessing, resize=resize, normalize=False))


def red_square(size=(24, 32), top=6, left=8, side=10):
    """A blue image with a red square; and where the square is."""
    image = np.zeros((*size, 3), np.uint8)
    image[..., 2] = 200
    inside = np.zeros(size, bool)
    inside[top : top + side, left : left + side] = True
    image[inside] = (250, 0, 0)
    return image, inside
