"""UNetPlus: U-Net (arXiv:1505.04597) over a classification network, with a decoder of two convolutions per level."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from base.base_model import BaseModel
from models.backbones import Backbone, Encoder, build_backbone, freeze_stages
from models.layers.blocks import Count, Norm, Probability, conv_block, enlarge, initialise, widen_tiny
from models.unet.model import decoder_widths
from utils.errors import ConfigError

Squeeze = Literal["transpose", "interpolate"]
HEAD_CHANNELS = (32, 16)


class PartlyFrozenEncoder(nn.Module):
    """A backbone whose first stages do not train, and whose batch norms may retain their statistics.

    Args:
        encoder: The backbone.
        in_channels: Channels of the image.
        frozen_stages: Number of feature maps, finest first, whose weights and statistics are frozen.
        norm_eval: Freeze the running statistics of every batch norm of the backbone.

    Raises:
        ConfigError: More stages than there are.
    """

    def __init__(self, encoder: Encoder, in_channels: int, *, frozen_stages: int, norm_eval: bool) -> None:
        super().__init__()
        count = len(encoder.channels)
        if not 0 <= frozen_stages <= count:
            raise ConfigError(
                f"Wrong frozen_stages {frozen_stages}: the backbone has {count} stages. Give a number from 0 to "
                f"{count}."
            )
        self.trunk = encoder  # the word in the state dicts of all checkpoints
        self.channels, self.strides = encoder.channels, encoder.strides
        # Names, not modules: a module may be replaced afterwards, and a copy has other modules.
        self.in_evaluation_mode = freeze_stages(encoder, frozen_stages, in_channels)
        if norm_eval:
            norms = [name for name, part in encoder.named_modules() if isinstance(part, nn.BatchNorm2d)]
            self.in_evaluation_mode += norms

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """Image (B, C, H, W) float -> feature maps (B, channels, h, w) float, finest first."""
        features: list[Tensor] = self.trunk(inputs)
        return features

    def train(self, mode: bool = True) -> Self:
        """Set training mode for all but the frozen parts."""
        super().train(mode)
        for name in self.in_evaluation_mode:
            self.trunk.get_submodule(name).eval()
        return self


class DecoderLevel(nn.Module):
    """Enlarge the coarser map to the skip connection's size, concatenate both, convolve twice.

    Args:
        in_channels: Channels of the coarser map.
        skip_channels: Channels of the skip connection.
        channels: Width of the level.
        factor: Ratio of the strides of both maps, a power of two.
        squeeze: "transpose" enlarges by a transposed convolution, "interpolate" bilinearly after a 1x1 convolution.
        norm: Normalisation after each convolution.
    """

    def __init__(
        self, in_channels: int, skip_channels: int, channels: int, *, factor: int, squeeze: Squeeze, norm: Norm
    ) -> None:
        super().__init__()
        self.squeeze: nn.Module
        if squeeze == "transpose" and factor > 1:
            # The kernel is a multiple of the stride: all outputs get equally many inputs, without a checkerboard.
            self.squeeze = nn.ConvTranspose2d(in_channels, channels, 2 * factor, stride=factor, padding=factor // 2)
        else:
            self.squeeze = nn.Conv2d(in_channels, channels, kernel_size=1)
        self.join = nn.Sequential(
            conv_block(channels + skip_channels, channels, norm=norm), conv_block(channels, channels, norm=norm)
        )

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """(B, in_channels, h, w) float and (B, skip_channels, H, W) float -> (B, channels, H, W) float."""
        size = list(skip.shape[2:])
        squeezed = self.squeeze(coarse)
        if isinstance(self.squeeze, nn.ConvTranspose2d):
            squeezed = squeezed[:, :, : size[0], : size[1]]  # odd sizes were rounded up on the way down
        else:
            squeezed = F.interpolate(squeezed, size, mode="bilinear", align_corners=False)
        joined: Tensor = self.join(torch.cat([squeezed, skip], dim=1))
        return joined


class UNetPlusDecoder(nn.Module):
    """The expanding path, from the coarsest feature map upwards.

    Args:
        encoder: Gives the feature maps.
        channels: Width at each level but the coarsest, finest first.
        squeeze: How a level enlarges.
        norm: Normalisation after each convolution.
    """

    def __init__(self, encoder: Encoder, channels: Sequence[int], *, squeeze: Squeeze, norm: Norm) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        previous = encoder.channels[-1]
        for index, width in reversed(list(enumerate(channels))):
            factor, skip = encoder.strides[index + 1] // encoder.strides[index], encoder.channels[index]
            self.levels.append(DecoderLevel(previous, skip, width, factor=factor, squeeze=squeeze, norm=norm))
            previous = width

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps, finest first -> (B, channels[0], h, w) float at the finest one's size."""
        current = features[-1]
        for level, skip in zip(self.levels, reversed(features[:-1]), strict=True):
            current = level(current, skip)
        return current


class UNetPlus(BaseModel):
    """U-Net over the backbone of a library, parts of which may be frozen; images of any size.

    Args:
        num_classes: Classes K, the background among them.
        in_channels: Channels C of the image.
        backbone: A backbone of torchvision, or "timm:" and a name of timm's.
        weights: Weights of the backbone: null (from scratch), "DEFAULT", a name, or a file.
        norm: "batch" or "group" (the same result with any number of processes).
        squeeze: How the decoder enlarges: "transpose" by a transposed convolution, "interpolate" bilinearly.
        decoder_channels: Width of the decoder per level, finest first, one fewer than the backbone has feature maps; if
            not given, those of the backbone, at most 16 times the stride.
        head_channels: Widths of the convolutions before the classifier, at the finest feature map's size; [] is the
            fastest.
        dropout: Fraction of the features before the classifier that is dropped while training.
        frozen_stages: Number of the backbone's feature maps, finest first, whose weights and statistics are frozen.
        norm_eval: Freeze the statistics of all the backbone's batch norms while training.

    Raises:
        ConfigError: An argument is out of range, or weights cannot be found.
        CheckpointError: The weights are damaged or of another network.
    """

    def __init__(
        self,
        num_classes: Count,
        in_channels: Count = 3,
        *,
        backbone: Backbone = "resnet18",
        weights: str | None = None,
        norm: Literal["batch", "group"] = "batch",
        squeeze: Squeeze = "transpose",
        decoder_channels: list[Count] | None = None,
        head_channels: Sequence[Count] = HEAD_CHANNELS,
        dropout: Probability = 0.2,
        frozen_stages: Annotated[int, Field(ge=0)] = 0,
        norm_eval: bool = False,
    ) -> None:
        super().__init__()
        if squeeze not in ("transpose", "interpolate"):
            raise ConfigError(f"Wrong squeeze {squeeze!r}: there are transpose and interpolate. Choose one of them.")
        self.in_channels = in_channels
        encoder = build_backbone(backbone, in_channels, weights=weights, norm=norm)
        self.first_stride, self.stride = encoder.first_stride, encoder.stride
        self.encoder = PartlyFrozenEncoder(encoder, in_channels, frozen_stages=frozen_stages, norm_eval=norm_eval)
        widths = decoder_widths(decoder_channels, encoder.channels, encoder.strides)
        self.decoder = UNetPlusDecoder(encoder, widths, squeeze=squeeze, norm=norm)
        all_widths = [widths[0], *head_channels]
        blocks = [conv_block(old, new, norm=norm) for old, new in pairwise(all_widths)]
        self.head = nn.Sequential(*blocks, nn.Dropout(dropout), nn.Conv2d(all_widths[-1], num_classes, 1))
        # Not the encoder: its weights may be pretrained, and those from scratch are initialised by its library.
        initialise(self.decoder)
        for block in blocks:
            initialise(block)

    def forward(self, inputs: Tensor) -> Tensor:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float."""
        features = self.encoder(widen_tiny(inputs, self.stride))
        return enlarge(self.head(self.decoder(features)), self.first_stride, inputs.shape[2:])
