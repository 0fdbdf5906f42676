"""The expanding path of the U-Net."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.blocks import Norm, conv_block


class UNetDecoder(nn.Module):
    """From the coarsest feature map upwards: enlarge, concatenate the skip connection, convolve.

    Against the paper: nearest-neighbour enlargement in the place of a transposed convolution (no weights, no
    checkerboard).

    Args:
        encoder_channels: Channels of the encoder's feature maps, finest first.
        channels: Width at each level but the coarsest, finest first.
        convs: Convolutions per level.
        norm: Normalisation behind each convolution.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(self, encoder_channels: Sequence[int], channels: Sequence[int], *, convs: int, norm: Norm) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        previous = encoder_channels[-1]
        for skip, width in zip(reversed(encoder_channels[:-1]), reversed(channels), strict=True):
            blocks = [conv_block(previous + skip, width, norm=norm)]
            blocks.extend(conv_block(width, width, norm=norm) for _ in range(convs - 1))
            self.levels.append(nn.Sequential(*blocks))
            previous = width
        self.out_channels = previous

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps, finest first -> (B, out_channels, h, w) at the finest one's size."""
        current = features[-1]
        for level, skip in zip(self.levels, reversed(features[:-1]), strict=True):
            # Odd sizes were rounded up: enlarging to the size of the skip connection doubles and cuts in one.
            enlarged = F.interpolate(current, size=list(skip.shape[2:]), mode="nearest")
            current = level(torch.cat([enlarged, skip], dim=1))
        return current
