"""The decoder that DeepLabV3+ adds: sharp edges from the features at stride 4 (arXiv:1802.02611, section 3.1)."""

import torch
from torch import Tensor, nn

from models.layers.blocks import Norm, conv_block, enlarge

LOW_LEVEL_CHANNELS = 48  # arXiv:1802.02611, table 1


class DeepLabDecoder(nn.Module):
    """Concatenate the pyramid's output with reduced features at stride 4 and refine both by two 3x3 convolutions.

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
