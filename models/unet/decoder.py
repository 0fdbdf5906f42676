"""The expanding path of the U-Net."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.blocks import Norm, conv_block
from utils.errors import ConfigError

DECODER_CHANNELS_PER_STRIDE = 16  # after a library's backbone: at most 32, 64, 128, 256 at strides 2, 4, 8, 16


class UNetDecoder(nn.Module):
    """From the coarsest feature map upwards: enlarge, concatenate the skip connection, convolve.

    Unlike the paper's: nearest-neighbour enlargement instead of a transposed convolution (no weights, no
    checkerboard).

    Args:
        encoder_channels: Channels of the encoder's feature maps, finest first.
        channels: Width at each level but the coarsest, finest first.
        convs: Convolutions per level.
        norm: Normalisation after each convolution.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(self, encoder_channels: Sequence[int], channels: Sequence[int], *, convs: int, norm: Norm) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        previous = encoder_channels[-1]
        for skip, width in zip(reversed(encoder_channels[:-1]), reversed(channels), strict=True):
            blocks = [conv_block(previous + skip, width, norm=norm)]
            blocks.extend(conv_block(width, width, norm=norm) for _ in range(convs - 1))
            self.levels.append(nn.Sequential(*blocks))
            previous = width
        self.out_channels = previous

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps (B, channels, h, w) float, finest first -> (B, out_channels, h, w) float of the finest size."""
        current = features[-1]
        for level, skip in zip(self.levels, reversed(features[:-1]), strict=True):
            # Odd sizes were rounded up: enlarging to the size of the skip connection doubles and cuts in one.
            enlarged = F.interpolate(current, size=list(skip.shape[2:]), mode="nearest")
            current = level(torch.cat([enlarged, skip], dim=1))
        return current


def decoder_widths(
    given: Sequence[int] | None, encoder_channels: Sequence[int], strides: Sequence[int] | None = None
) -> Sequence[int]:
    """Return the width of each decoder level, finest first: those given, else the encoder's.

    Args:
        given: From the config.
        encoder_channels: Channels of the encoder's feature maps, finest first.
        strides: Their strides, to limit the encoder's widths; None does not.

    Raises:
        ConfigError: Not one width per level.
    """
    levels = encoder_channels[:-1]
    if given is not None and len(given) != len(levels):
        raise ConfigError(
            f"Wrong decoder_channels {given}: with an encoder of {len(levels) + 1} levels the decoder has "
            f"{len(levels)}. Give {len(levels)} widths, finest first."
        )
    if given is None and strides is not None:
        return [min(width, DECODER_CHANNELS_PER_STRIDE * strides[index]) for index, width in enumerate(levels)]
    return levels if given is None else given
