"""Heads of the supernet; the decoded network has those of DeepLabV3+ (models/layers/pyramid.py)."""

from torch import nn

from models.auto_deeplab.operations import CellNorm
from models.layers.pyramid import ASPP

SEARCH_REACH = 96  # pixels of the image between the taps of the atrous branch (arXiv:1901.02985, section 3.2)


class LevelHead(nn.Sequential):
    """Logits from the last layer at one stride: features (B, in_channels, h, w) -> logits (B, K, h, w).

    A pyramid of a 1x1 convolution, a 3x3 convolution of rate 96 / stride and the image's mean, and a classifier.

    Args:
        in_channels: Channels of the features.
        channels: Width of the pyramid.
        num_classes: Classes K.
        stride: Of the features.
        norm: Normalisation after the pyramid's convolutions.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int, *, stride: int, norm: CellNorm) -> None:
        pyramid = ASPP(in_channels, channels, rates=(SEARCH_REACH // stride,), dropout=0.0, norm=norm)
        super().__init__(pyramid, nn.Conv2d(channels, num_classes, kernel_size=1))
