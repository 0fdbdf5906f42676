"""The contracting path and the bottleneck of an EncDec."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.encdec.layers import Layer, Unit


class EncDecEncoder(nn.Module):
    """Blocks that halve the map and double its channels, then bottleneck blocks that change neither.

    Args:
        in_channels: Channels of the image.
        base_channels: Width of the first block.
        down: Listed layers of each halving block.
        bottleneck: Listed layers of each bottleneck block.
        unit: Norm, activation, dropout and padding of each convolution.

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
        self.down = nn.ModuleList()
        previous = in_channels
        for width, layers in zip(self.channels, down, strict=True):
            halving = nn.Conv2d(previous, width, 3, stride=2, padding=1, padding_mode=unit.padding_mode)
            others = (unit.layer(layer, width, width) for layer in layers)
            self.down.append(nn.Sequential(unit.around(halving, width), *others))
            previous = width
        self.bottleneck = nn.Sequential(
            *(nn.Sequential(*(unit.layer(layer, previous, previous) for layer in layers)) for layers in bottleneck)
        )

    def forward(self, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
        """Image (B, C, H, W) float -> the output of each halving block, finest first, and that of the bottleneck."""
        features: list[Tensor] = []
        current = inputs
        for block in self.down:
            current = block(current)
            features.append(current)
        return features, self.bottleneck(current)
