"""The expanding path of UNetPlus."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.blocks import Norm, conv_block

Squeeze = Literal["transpose", "interpolate"]


class Level(nn.Module):
    """Enlarge the coarser map to the skip connection's size, put both side by side, convolve twice.

    Args:
        in_channels: Channels of the coarser map.
        skip_channels: Channels of the skip connection.
        channels: Width of the level.
        factor: By how much the coarser map is coarser, a power of two.
        squeeze: "transpose" enlarges by a transposed convolution, "interpolate" bilinearly behind a 1x1 convolution.
        norm: Normalisation behind each convolution.
    """

    def __init__(
        self, in_channels: int, skip_channels: int, channels: int, *, factor: int, squeeze: Squeeze, norm: Norm
    ) -> None:
        super().__init__()
        self.squeeze: nn.Module
        if squeeze == "transpose" and factor > 1:
            self.squeeze = nn.ConvTranspose2d(in_channels, channels, 2 * factor, stride=factor, padding=factor // 2)
        else:
            self.squeeze = nn.Conv2d(in_channels, channels, kernel_size=1)
        self.join = nn.Sequential(
            conv_block(channels + skip_channels, channels, norm=norm), conv_block(channels, channels, norm=norm)
        )

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """(B, in_channels, h, w) and (B, skip_channels, H, W) -> (B, channels, H, W)."""
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
        norm: Normalisation behind each convolution.
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
            factor = strides[index + 1] // strides[index]
            width = channels[index]
            skip = encoder_channels[index]
            self.levels.append(Level(previous, skip, width, factor=factor, squeeze=squeeze, norm=norm))
            previous = width

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps, finest first -> (B, channels[0], h, w) at the finest one's size."""
        current = features[-1]
        for level, skip in zip(self.levels, reversed(features[:-1]), strict=True):
            current = level(current, skip)
        return current
