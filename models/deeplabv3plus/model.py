"""Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation (arXiv:1802.02611)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from base.base_model import BaseModel
from models.backbones import Backbone, build_backbone, index_of_stride
from models.layers.blocks import Count, Norm, Probability, conv_block, enlarge, initialise, make_norm, widen_tiny
from utils.errors import ConfigError

LOW_LEVEL_CHANNELS = 48  # arXiv:1802.02611, table 1
ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}  # arXiv:1706.05587, section 3.3; 32: halved again
LOW_LEVEL_STRIDE = 4  # of the feature map that the decoder refines with


class ASPP(nn.Module):
    """A 1x1 convolution, one 3x3 convolution per rate and the mean of the whole map, projected by a 1x1 convolution.

    Atrous spatial pyramid pooling: the same features at several scales (arXiv:1706.05587, section 3.3). Unlike in the
    paper, the image-level branch has a bias instead of a batch norm, which cannot train on the single value per channel
    that a batch of one image leaves there.

    Args:
        in_channels: Channels of the backbone's coarsest feature map.
        channels: Channels of each branch and of the output.
        rates: Dilations of the 3x3 convolutions.
        dropout: Fraction of the output that is dropped while training.
        norm: Normalisation after each convolution.
    """

    def __init__(self, in_channels: int, channels: int, *, rates: Sequence[int], dropout: float, norm: Norm) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_block(in_channels, channels, kernel_size=1, norm=norm)])
        self.branches.extend(conv_block(in_channels, channels, dilation=rate, norm=norm) for rate in rates)
        self.image_level = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, channels, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, kernel_size=1, bias=False),
        )
        self.project = nn.Conv2d(channels * len(self.branches), channels, kernel_size=1, bias=norm == "none")
        self.finish = nn.Sequential(make_norm(norm, channels), nn.ReLU(inplace=True), nn.Dropout(dropout))

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) float -> (B, channels, h, w) float."""
        joined = torch.cat([branch(features) for branch in self.branches], dim=1)
        # A 1x1 convolution of a concatenation is the sum of one convolution per part. The image-level part is
        # constant over the map, so it is projected once and added.
        result: Tensor = self.finish(self.project(joined) + self.image_level(features))
        return result


class DeepLabDecoder(nn.Module):
    """Concatenate the pyramid's output with reduced features at stride 4 and refine both by two 3x3 convolutions.

    It gives sharp edges (arXiv:1802.02611, section 3.1).

    Args:
        low_level_channels: Channels of the backbone's features at stride 4.
        channels: Channels of the pyramid's output, and of the result.
        factor: Ratio of the strides of both maps.
        norm: Normalisation after each convolution.
    """

    def __init__(self, low_level_channels: int, channels: int, *, factor: int, norm: Norm) -> None:
        super().__init__()
        self.factor = factor
        self.reduce = conv_block(low_level_channels, LOW_LEVEL_CHANNELS, kernel_size=1, norm=norm)
        self.refine = nn.Sequential(
            conv_block(channels + LOW_LEVEL_CHANNELS, channels, norm=norm),
            conv_block(channels, channels, norm=norm),
        )

    def forward(self, coarse: Tensor, low_level: Tensor) -> Tensor:
        """Coarse (B, channels, h, w), low_level (B, low_level_channels, H, W) -> (B, channels, H, W) float."""
        enlarged = enlarge(coarse, self.factor, low_level.shape[2:])
        result: Tensor = self.refine(torch.cat([enlarged, self.reduce(low_level)], dim=1))
        return result


class DeepLabV3Plus(BaseModel):
    """DeepLabV3+ over the backbone of a library; plain 3x3 convolutions instead of separable ones; images of any size.

    Args:
        num_classes: Classes K, the background among them.
        in_channels: Channels C of the image.
        backbone: A backbone of torchvision, or "timm:" and a name of timm's.
        weights: Weights of the backbone: null (from scratch), "DEFAULT", a name, or a file.
        norm: "batch" or "group" (the same result with any number of processes).
        output_stride: Stride of the coarsest features: a smaller one is finer and costs more.
        atrous_rates: Dilations of the pyramid; those of the paper for the output stride if not given.
        aspp_channels: Channels of the pyramid and of the decoder.
        dropout: Fraction of the pyramid's output that is dropped while training.

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
        output_stride: Literal[8, 16, 32] = 16,
        atrous_rates: list[Count] | None = None,
        aspp_channels: Count = 256,
        dropout: Probability = 0.5,
    ) -> None:
        super().__init__()
        if output_stride not in ATROUS_RATES:
            raise ConfigError(f"Wrong output_stride {output_stride}: there are 8, 16 and 32. Choose one of them.")
        self.in_channels = in_channels
        self.encoder = build_backbone(backbone, in_channels, weights=weights, norm=norm, output_stride=output_stride)
        self.low_level = index_of_stride(self.encoder, backbone, LOW_LEVEL_STRIDE)
        rates = ATROUS_RATES[output_stride] if atrous_rates is None else atrous_rates
        self.aspp = ASPP(self.encoder.channels[-1], aspp_channels, rates=rates, dropout=dropout, norm=norm)
        self.decoder = DeepLabDecoder(
            self.encoder.channels[self.low_level], aspp_channels, factor=output_stride // LOW_LEVEL_STRIDE, norm=norm
        )
        # Not the encoder: its weights may be pretrained, and those from scratch are initialised by its library.
        initialise(self.aspp)
        initialise(self.decoder)
        self.head = nn.Conv2d(aspp_channels, num_classes, kernel_size=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float."""
        features = self.encoder(widen_tiny(inputs, self.encoder.stride))
        refined = self.decoder(self.aspp(features[-1]), features[self.low_level])
        return enlarge(self.head(refined), LOW_LEVEL_STRIDE, inputs.shape[2:])
