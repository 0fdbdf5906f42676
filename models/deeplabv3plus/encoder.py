"""Atrous spatial pyramid pooling: the same features at several scales (arXiv:1706.05587, section 3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.blocks import Norm, conv_block, make_norm


class ASPP(nn.Module):
    """A 1x1 convolution, one 3x3 convolution per rate and the mean of the whole map, projected by a 1x1 convolution.

    Unlike in the paper, the image-level branch has a bias instead of a batch norm, which cannot train on the single
    value per channel that a batch of one image leaves there.

    Args:
        in_channels: Channels of the backbone's coarsest feature map.
        channels: Channels of each branch and of the output.
        rates: Dilations of the 3x3 convolutions.
        dropout: Fraction of the output that is dropped while training.
        norm: Normalisation after each convolution.
    """

    def __init__(self, in_channels: int, channels: int, *, rates: Sequence[int], dropout: float, norm: Norm) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_block(in_channels, channels, kernel_size=1, norm=norm)])
        self.branches.extend(conv_block(in_channels, channels, dilation=rate, norm=norm) for rate in rates)
        self.image_level = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, channels, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, kernel_size=1, bias=False),
        )
        self.project = nn.Conv2d(channels * len(self.branches), channels, kernel_size=1, bias=norm == "none")
        self.finish = nn.Sequential(make_norm(norm, channels), nn.ReLU(inplace=True), nn.Dropout(dropout))

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) float -> (B, channels, h, w) float."""
        joined = torch.cat([branch(features) for branch in self.branches], dim=1)
        # A 1x1 convolution of a concatenation is the sum of one convolution per part. The image-level part is
        # constant over the map, so it is projected once and added.
        result: Tensor = self.finish(self.project(joined) + self.image_level(features))
        return result
