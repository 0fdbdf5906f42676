"""The expanding path of an EncDec."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.encdec.layers import Layer, Unit


class EncDecDecoder(nn.Module):
    """Blocks that join what came last with the skip connection, reduce its channels, double the map, and go on.

    Args:
        encoder_channels: Width of each halving block, finest first.
        up: Listed layers of each doubling block, coarsest first.
        unit: What stands around each convolution.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(self, encoder_channels: Sequence[int], up: Sequence[Sequence[Layer]], unit: Unit) -> None:
        super().__init__()
        self.out_channels = encoder_channels[0]
        previous = list(reversed(encoder_channels))
        widths = [*previous[1:], self.out_channels]
        self.up = nn.ModuleList(
            nn.Sequential(unit.layer(Layer("O"), 2 * before, width), unit.double(width), *unit.layers(layers, width))
            for before, width, layers in zip(previous, widths, up, strict=True)
        )

    def forward(self, features: Sequence[Tensor], current: Tensor) -> Tensor:
        """Outputs of the halving blocks, finest first, and of the bottleneck -> (B, out_channels, H, W)."""
        for block, skip in zip(self.up, reversed(features), strict=True):
            current = block(torch.cat([current, skip], dim=1))
        return current
