"""The expanding path of an EncDec."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.encdec.layers import Layer, Unit


class EncDecDecoder(nn.Module):
    """Blocks that concatenate the skip connection, reduce the channels, and double the map before their layers.

    Args:
        encoder_channels: Width of each halving block, finest first.
        up: Listed layers of each doubling block, coarsest first.
        unit: Norm, activation, dropout and padding of each convolution.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(self, encoder_channels: Sequence[int], up: Sequence[Sequence[Layer]], unit: Unit) -> None:
        super().__init__()
        self.out_channels = encoder_channels[0]
        self.up = nn.ModuleList()
        coarsest_first = list(reversed(encoder_channels))
        for before, width, layers in zip(coarsest_first, [*coarsest_first[1:], self.out_channels], up, strict=True):
            joined = unit.layer(Layer("O"), 2 * before, width)
            # Zeros beyond the border: a transposed convolution of torch knows no other padding.
            doubling = nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1)
            others = (unit.layer(layer, width, width) for layer in layers)
            self.up.append(nn.Sequential(joined, unit.around(doubling, width), *others))

    def forward(self, features: Sequence[Tensor], current: Tensor) -> Tensor:
        """Outputs of the halving blocks, finest first, and of the bottleneck -> (B, out_channels, H, W) float."""
        for block, skip in zip(self.up, reversed(features), strict=True):
            current = block(torch.cat([current, skip], dim=1))
        return current
