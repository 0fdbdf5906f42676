"""The pyramid and the decoder of the DeepLab networks. B batch, C channels, h, w size of a feature map."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.blocks import Norm, conv_block, enlarge, make_norm

LOW_LEVEL_CHANNELS = 48  # arXiv:1802.02611, table 1
LOW_LEVEL_STRIDE = 4  # of the feature map that the decoder refines with
RATES_AT_16 = (6, 12, 18)  # arXiv:1706.05587, section 3.3


def atrous_rates_at(stride: int) -> tuple[int, ...]:
    """Return the dilations of the pyramid on features of a stride, which reach equally far in the image at each.

    The paper has (6, 12, 18) at stride 16 and twice that at 8; at 4 it is four times that, and at 32 half.
    """
    return tuple(rate * 16 // stride for rate in RATES_AT_16)


class ASPP(nn.Module):
    """A 1x1 convolution, one 3x3 convolution per rate and the mean of the whole map, projected by a 1x1 convolution.

    Atrous spatial pyramid pooling: the same features at several scales (arXiv:1706.05587, section 3.3). Unlike in the
    paper, the image-level branch has a bias instead of a batch norm, which cannot train on the single value per channel
    that a batch of one image leaves there.

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


class DeepLabDecoder(nn.Module):
    """Concatenate the pyramid's output with reduced features at stride 4 and refine both by two 3x3 convolutions.

    It gives sharp edges (arXiv:1802.02611, section 3.1).

    Args:
        low_level_channels: Channels of the backbone's features at stride 4.
        channels: Channels of the pyramid's output, and of the result.
        factor: Ratio of the strides of both maps.
        norm: Normalisation after each convolution.
    """

    def __init__(self, low_level_channels: int, channels: int, *, factor: int, norm: Norm) -> None:
        super().__init__()
        self.factor = factor
        self.reduce = conv_block(low_level_channels, LOW_LEVEL_CHANNELS, kernel_size=1, norm=norm)
        self.refine = nn.Sequential(
            conv_block(channels + LOW_LEVEL_CHANNELS, channels, norm=norm),
            conv_block(channels, channels, norm=norm),
        )

    def forward(self, coarse: Tensor, low_level: Tensor) -> Tensor:
        """Coarse (B, channels, h, w), low_level (B, low_level_channels, H, W) -> (B, channels, H, W) float."""
        enlarged = enlarge(coarse, self.factor, low_level.shape[2:])
        result: Tensor = self.refine(torch.cat([enlarged, self.reduce(low_level)], dim=1))
        return result
