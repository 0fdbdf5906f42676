"""The classifier behind the pyramid."""

from torch import nn

from models.layers.blocks import Norm, conv_block


class PSPDecoder(nn.Sequential):
    """A 3x3 convolution, dropout and a 1x1 convolution: (B, in_channels, h, w) -> logits (B, K, h, w).

    Args:
        in_channels: Channels of the pyramid's output.
        channels: Width of the 3x3 convolution.
        num_classes: Classes K.
        dropout: Share of the features before the last convolution that is dropped while training.
        norm: Normalisation behind the 3x3 convolution.
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int, *, dropout: float, norm: Norm) -> None:
        block = conv_block(in_channels, channels, norm=norm)
        super().__init__(block, nn.Dropout(dropout), nn.Conv2d(channels, num_classes, kernel_size=1))
