"""Time Series Classification from Scratch with Deep Neural Networks (arXiv:1611.06455), section II-B."""

from torch import Tensor, nn

from base.base_model import BaseModel
from models.layers.blocks import Count, Probability
from models.layers.masked import MaskedConv, initialise_series, masked_mean, split_padding
from utils.errors import ConfigError

CHANNELS = (128, 256, 128)
KERNELS = (8, 5, 3)


class FCN(BaseModel):
    """Fully convolutional network: convolutions that preserve the length, then the mean over time; any length.

    Args:
        num_classes: Classes K.
        in_channels: Variables V of a series.
        channels: Width of each convolution; 128, 256, 128 as in the paper if not given.
        kernel_sizes: Steps in the kernel of each; 8, 5, 3 as in the paper if not given.
        dropout: Fraction of the pooled features that is dropped while training; the paper drops none.

    Raises:
        ConfigError: Not as many kernels as convolutions.
    """

    def __init__(
        self,
        num_classes: Count,
        in_channels: Count = 1,
        *,
        channels: list[Count] | None = None,
        kernel_sizes: list[Count] | None = None,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__()
        widths, kernels = list(channels or CHANNELS), list(kernel_sizes or KERNELS)
        if len(widths) != len(kernels):
            raise ConfigError(
                f"{len(kernels)} kernel_sizes {kernels} for {len(widths)} convolutions of channels {widths}: each "
                "needs one. Give as many of each."
            )
        self.in_channels = in_channels
        inputs = [in_channels, *widths[:-1]]
        self.layers = nn.ModuleList(map(MaskedConv, inputs, widths, kernels))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], num_classes)
        initialise_series(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Series (B, V, T) float, NaN for padding -> logits (B, K) float."""
        maps, steps = split_padding(inputs, is_training=self.training)
        for layer in self.layers:
            maps = layer(maps, steps)
        logits: Tensor = self.head(self.dropout(masked_mean(maps, steps)))
        return logits
