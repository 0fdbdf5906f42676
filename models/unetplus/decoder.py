"""The expanding path of UNetPlus."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.blocks import Norm, conv_block

Squeeze = Literal["transpose", "interpolate"]


class DecoderLevel(nn.Module):
    """Enlarge the coarser map to the skip connection's size, concatenate both, convolve twice.

    Args:
        in_channels: Channels of the coarser map.
        skip_channels: Channels of the skip connection.
        channels: Width of the level.
        factor: Ratio of the strides of both maps, a power of two.
        squeeze: "transpose" enlarges by a transposed convolution, "interpolate" bilinearly after a 1x1 convolution.
        norm: Normalisation after each convolution.
    """

    def __init__(
        self, in_channels: int, skip_channels: int, channels: int, *, factor: int, squeeze: Squeeze, norm: Norm
    ) -> None:
        super().__init__()
        self.squeeze: nn.Module
        if squeeze == "transpose" and factor > 1:
            # The kernel is a multiple of the stride: all outputs get equally many inputs, without a checkerboard.
            self.squeeze = nn.ConvTranspose2d(in_channels, channels, 2 * factor, stride=factor, padding=factor // 2)
        else:
            self.squeeze = nn.Conv2d(in_channels, channels, kernel_size=1)
        self.join = nn.Sequential(
            conv_block(channels + skip_channels, channels, norm=norm), conv_block(channels, channels, norm=norm)
        )

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """(B, in_channels, h, w) float and (B, skip_channels, H, W) float -> (B, channels, H, W) float."""
        size = list(skip.shape[2:])
        squeezed = self.squeeze(coarse)
        if isinstance(self.squeeze, nn.ConvTranspose2d):
            squeezed = squeezed[:, :, : size[0], : size[1]]  # odd sizes were rounded up on the way down
        else:
            squeezed = F.interpolate(squeezed, size, mode="bilinear", align_corners=False)
        joined: Tensor = self.join(torch.cat([squeezed, skip], dim=1))
        return joined


class UNetPlusDecoder(nn.Module):
    """From the coarsest feature map upwards.

    Args:
        encoder_channels: Channels of the encoder's feature maps, finest first.
        strides: Their strides.
        channels: Width at each level but the coarsest, finest first.
        squeeze: How a level enlarges.
        norm: Normalisation after each convolution.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        strides: Sequence[int],
        channels: Sequence[int],
        *,
        squeeze: Squeeze,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        previous = encoder_channels[-1]
        for index in reversed(range(len(channels))):
            factor, skip = strides[index + 1] // strides[index], encoder_channels[index]
            self.levels.append(DecoderLevel(previous, skip, channels[index], factor=factor, squeeze=squeeze, norm=norm))
            previous = channels[index]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps, finest first -> (B, channels[0], h, w) float at the finest one's size."""
        current = features[-1]
        for level, skip in zip(self.levels, reversed(features[:-1]), strict=True):
            current = level(current, skip)
        return current
