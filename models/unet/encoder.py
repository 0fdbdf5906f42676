"""The contracting path of the U-Net: light convolutions of its own, or a trunk."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from models.backbones import Backbone, TimmTrunk, Trunk, make_trunk
from models.layers.blocks import Norm, conv_block, initialise
from utils.errors import ConfigError

PLAIN_CHANNELS = (16, 32, 64, 128, 256)
Downsample = Literal["conv", "pool"]


class PlainEncoder(nn.Module):
    """3x3 convolutions at falling resolution.

    Against the paper: padded convolutions, a norm, and by default a first convolution of stride 2 and strided
    convolutions in the place of pooling, which makes a training step on a CPU five times as fast at equal quality.

    Args:
        in_channels: Channels of the image.
        channels: Width of each level, finest first.
        convs: Convolutions per level.
        stem_stride: 2 halves the image in the first convolution, 1 keeps it.
        downsample: "conv" halves in a level's first convolution, "pool" in a max pooling before it.
        norm: Normalisation behind each convolution.

    Attributes:
        channels: Channels of each feature map, finest first.
        first_stride: Stride of the finest feature map.
        stride: Stride of the coarsest feature map.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        *,
        convs: int,
        stem_stride: int,
        downsample: Downsample,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.channels = list(channels)
        self.first_stride = stem_stride
        self.stride = stem_stride * 2 ** (len(channels) - 1)
        self.levels = nn.ModuleList()
        previous = in_channels
        for index, width in enumerate(channels):
            pool = index > 0 and downsample == "pool"
            stride = stem_stride if index == 0 else 1 if pool else 2
            blocks: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if pool else []
            blocks.append(conv_block(previous, width, stride=stride, norm=norm))
            blocks.extend(conv_block(width, width, norm=norm) for _ in range(convs - 1))
            self.levels.append(nn.Sequential(*blocks))
            previous = width

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """Image (B, C, H, W) -> feature maps, finest first."""
        features: list[Tensor] = []
        current = inputs
        for level in self.levels:
            current = level(current)
            features.append(current)
        return features


def make_encoder(
    backbone: Literal["plain"] | Backbone,
    in_channels: int,
    *,
    weights: str | None,
    norm: Norm,
    channels: Sequence[int] | None,
    convs: int | None,
    stem_stride: int | None,
    downsample: Downsample | None,
) -> PlainEncoder | Trunk | TimmTrunk:
    """The encoder that `UNet` was asked for; None stands for what was not given.

    Raises:
        ConfigError: An argument that was given does not apply to the backbone.
    """
    if backbone != "plain":
        plain = {"channels": channels, "encoder_convs": convs, "stem_stride": stem_stride, "downsample": downsample}
        _refuse([name for name, value in plain.items() if value is not None], backbone, 'only "plain"')
        return make_trunk(backbone, in_channels, weights=weights, norm=norm)
    _refuse([] if weights is None else ["weights"], backbone, "only a trunk")
    widths = PLAIN_CHANNELS if channels is None else channels
    if not widths:
        raise ConfigError('Wrong channels []: a U-Net has at least one level. Set e.g. "channels": [16, 32, 64].')
    encoder = PlainEncoder(
        in_channels,
        widths,
        convs=convs or 2,
        stem_stride=stem_stride or 2,
        downsample=downsample or "conv",
        norm=norm,
    )
    initialise(encoder)
    return encoder


def _refuse(given: Sequence[str], backbone: str, owner: str) -> None:
    if given:
        pronoun = "it" if len(given) == 1 else "them"
        raise ConfigError(
            f"{', '.join(given)} given with backbone {backbone!r}: {owner} can use {pronoun}. "
            f"Remove {pronoun} or change the backbone."
        )
