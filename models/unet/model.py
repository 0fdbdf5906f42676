"""U-Net: Convolutional Networks for Biomedical Image Segmentation (arXiv:1505.04597)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from base.base_model import BaseModel
from models.backbones import Backbone, Encoder, build_backbone
from models.layers.blocks import Count, Norm, Probability, conv_block, enlarge, initialise, widen_tiny
from utils.errors import ConfigError

Downsample = Literal["conv", "pool"]
DECODER_CHANNELS_PER_STRIDE = 16  # after a library's backbone: at most 32, 64, 128, 256 at strides 2, 4, 8, 16
PLAIN_CHANNELS = (16, 32, 64, 128, 256)


class PlainEncoder(nn.Module):
    """The contracting path: 3x3 convolutions at falling resolution.

    Unlike the paper's: padded convolutions, a norm, and by default a first convolution of stride 2 and strided
    convolutions instead of pooling, which makes a training step on a CPU five times as fast at equal quality.

    Args:
        in_channels: Channels of the image.
        channels: Width of each level, finest first.
        convs: Convolutions per level.
        stem_stride: 2 halves the image in the first convolution, 1 does not.
        downsample: "conv" halves in a level's first convolution, "pool" in a max pooling before it.
        norm: Normalisation after each convolution.

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
            # An odd side is rounded up, so that no row of pixels is lost; the decoder cuts it off again.
            blocks: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if pool else []
            blocks.append(conv_block(previous, width, stride=stride, norm=norm))
            blocks.extend(conv_block(width, width, norm=norm) for _ in range(convs - 1))
            self.levels.append(nn.Sequential(*blocks))
            previous = width

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """Image (B, C, H, W) float -> feature maps (B, channels, h, w) float, finest first."""
        features: list[Tensor] = []
        current = inputs
        for level in self.levels:
            current = level(current)
            features.append(current)
        return features


class UNetDecoder(nn.Module):
    """The expanding path, from the coarsest feature map upwards: enlarge, concatenate the skip connection, convolve.

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


class UNet(BaseModel):
    """U-Net with a light encoder or the backbone of a library; images of any size.

    Args:
        num_classes: Classes K, the background among them.
        in_channels: Channels C of the image.
        backbone: "plain", a backbone of torchvision, or "timm:" and a name of timm's.
        weights: Weights of the backbone: null (from scratch), "DEFAULT", a name, or a file.
        norm: "batch", "group" (the same result with any number of processes) or, only with "plain", "none".
        decoder_channels: Width of the decoder per level, finest first, one fewer than the encoder has levels; if not
            given, the encoder's widths, with the backbone of a library at most 32, 64, 128, 256.
        decoder_convs: Convolutions per decoder level.
        dropout: Fraction of the coarsest features that is dropped while training (as in the paper, section 3.1).
        channels: Plain only. Width per level, finest first; 16, 32, 64, 128, 256 if not given.
        encoder_convs: Plain only. Convolutions per level; 2 if not given.
        stem_stride: Plain only. 2 halves the image at once and enlarges the logits at the end, 1 works at full size;
            2 if not given.
        downsample: Plain only. Halve by strided "conv" or by max "pool"; "conv" if not given.

    Raises:
        ConfigError: An argument does not apply to the backbone, or weights cannot be found.
        CheckpointError: The weights are damaged or of another network.
    """

    def __init__(
        self,
        num_classes: Count,
        in_channels: Count = 3,
        *,
        backbone: Literal["plain"] | Backbone = "plain",
        weights: str | None = None,
        norm: Norm = "batch",
        decoder_channels: list[Count] | None = None,
        decoder_convs: Count = 1,
        dropout: Probability = 0.0,
        channels: list[Count] | None = None,
        encoder_convs: Count | None = None,
        stem_stride: Literal[1, 2] | None = None,
        downsample: Downsample | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        plain = {"channels": channels, "encoder_convs": encoder_convs, "stem_stride": stem_stride,
                 "downsample": downsample}  # fmt: skip
        of_others = {"weights": weights} if backbone == "plain" else plain
        unused = [name for name, value in of_others.items() if value is not None]
        if unused:
            pronoun = "it" if len(unused) == 1 else "them"
            user = "only a backbone of a library" if backbone == "plain" else 'only "plain"'
            raise ConfigError(
                f"{', '.join(unused)} given with backbone {backbone!r}: {user} can use {pronoun}. "
                f"Remove {pronoun} or change the backbone."
            )
        self.encoder: PlainEncoder | Encoder
        if backbone == "plain":
            widths = PLAIN_CHANNELS if channels is None else channels
            if not widths:
                raise ConfigError(
                    'Wrong channels []: a U-Net has at least one level. Set e.g. "channels": [16, 32, 64].'
                )
            self.encoder = PlainEncoder(
                in_channels,
                widths,
                convs=encoder_convs or 2,
                stem_stride=stem_stride or 2,
                downsample=downsample or "conv",
                norm=norm,
            )
            initialise(self.encoder)
            up = decoder_widths(decoder_channels, self.encoder.channels)
        else:
            self.encoder = build_backbone(backbone, in_channels, weights=weights, norm=norm)
            up = decoder_widths(decoder_channels, self.encoder.channels, self.encoder.strides)
        self.dropout = nn.Dropout(dropout)
        self.decoder = UNetDecoder(self.encoder.channels, up, convs=decoder_convs, norm=norm)
        initialise(self.decoder)
        # Not initialised like the rest: with torch's default the first logits are small.
        self.head = nn.Conv2d(self.decoder.out_channels, num_classes, kernel_size=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float."""
        features = self.encoder(widen_tiny(inputs, self.encoder.stride))
        features[-1] = self.dropout(features[-1])
        # Logits are enlarged, not features, which is the same and cheaper: the head is linear and has fewer channels.
        return enlarge(self.head(self.decoder(features)), self.encoder.first_stride, inputs.shape[2:])
