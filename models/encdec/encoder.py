"""The contracting path and the bottleneck of an EncDec."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.encdec.layers import Layer, Unit


class EncDecEncoder(nn.Module):
    """Blocks that halve the map and double its channels, and behind them blocks that keep both.

    Args:
        in_channels: Channels of the image.
        base_channels: Width of the first block.
        down: Listed layers of each halving block.
        bottleneck: Listed layers of each block behind them.
        unit: What stands around each convolution.

    Attributes:
        channels: Width of each halving block, finest first.
    """

    def __init__(
        self,
        in_channels: int,
        base_channels: int,
        *,
        down: Sequence[Sequence[Layer]],
        bottleneck: Sequence[Sequence[Layer]],
        unit: Unit,
    ) -> None:
        super().__init__()
        self.channels = [base_channels * 2**level for level in range(len(down))]
        before = [in_channels, *self.channels[:-1]]
        self.down = nn.ModuleList(
            nn.Sequential(unit.halve(previous, width), *unit.layers(layers, width))
            for previous, width, layers in zip(before, self.channels, down, strict=True)
        )
        width = self.channels[-1]
        self.bottleneck = nn.Sequential(*(nn.Sequential(*unit.layers(layers, width)) for layers in bottleneck))

    def forward(self, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
        """Image (B, C, H, W) -> the output of each halving block, finest first; the output of the bottleneck."""
        features: list[Tensor] = []
        current = inputs
        for block in self.down:
            current = block(current)
            features.append(current)
        return features, self.bottleneck(current)
