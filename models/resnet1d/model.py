"""Time Series Classification from Scratch with Deep Neural Networks (arXiv:1611.06455), section II-C."""

from torch import Tensor, nn

from base.base_model import BaseModel
from models.layers.blocks import Count, Probability
from models.layers.masked import MaskedConv, Steps, initialise_series, masked_mean, split_padding

CHANNELS = (64, 128, 128)
KERNELS = (8, 5, 3)


class ResidualBlock(nn.Module):
    """Three convolutions, added to a shortcut, which is a convolution if the width changes.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inputs = (in_channels, out_channels, out_channels)
        self.layers = nn.ModuleList(
            MaskedConv(width, out_channels, kernel, has_relu=place < 2)
            for place, (width, kernel) in enumerate(zip(inputs, KERNELS, strict=True))
        )
        is_wider = in_channels != out_channels
        self.shortcut = MaskedConv(in_channels, out_channels, 1, has_relu=False) if is_wider else None

    def forward(self, maps: Tensor, steps: Steps) -> Tensor:
        """(B, in_channels, T) float -> (B, out_channels, T) float."""
        passed = maps if self.shortcut is None else self.shortcut(maps, steps)
        for layer in self.layers:
            maps = layer(maps, steps)
        return (maps + passed).relu()


class ResNet1d(BaseModel):
    """Residual network over time, then the mean over time; series of any length.

    The shortcut of a block that does not change the width is its input itself.

    Args:
        num_classes: Classes K.
        in_channels: Variables V of a series.
        channels: Width of each block; 64, 128, 128 as in the paper if not given.
        dropout: Fraction of the pooled features that is dropped while training; the paper drops none.
    """

    def __init__(
        self,
        num_classes: Count,
        in_channels: Count = 1,
        *,
        channels: list[Count] | None = None,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        widths = list(channels or CHANNELS)
        self.blocks = nn.ModuleList(map(ResidualBlock, [in_channels, *widths[:-1]], widths))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], num_classes)
        initialise_series(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Series (B, V, T) float, NaN for padding -> logits (B, K) float."""
        maps, steps = split_padding(inputs, is_training=self.training)
        for block in self.blocks:
            maps = block(maps, steps)
        logits: Tensor = self.head(self.dropout(masked_mean(maps, steps)))
        return logits
