"""Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation (arXiv:1802.02611)."""

from typing import Literal

from torch import Tensor, nn

from base.base_model import BaseModel
from models.backbones import Backbone, build_backbone, index_of_stride
from models.layers.blocks import Count, Probability, enlarge, initialise, widen_tiny
from models.layers.pyramid import ASPP, LOW_LEVEL_STRIDE, DeepLabDecoder, atrous_rates_at
from utils.errors import ConfigError

OUTPUT_STRIDES = (8, 16, 32)


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
        if output_stride not in OUTPUT_STRIDES:
            raise ConfigError(f"Wrong output_stride {output_stride}: there are 8, 16 and 32. Choose one of them.")
        self.in_channels = in_channels
        self.encoder = build_backbone(
            backbone,
            in_channels,
            weights=weights,
            norm=norm,
            output_stride=output_stride,
            needed=(LOW_LEVEL_STRIDE, output_stride),
        )
        self.low_level = index_of_stride(self.encoder, backbone, LOW_LEVEL_STRIDE)
        rates = atrous_rates_at(output_stride) if atrous_rates is None else atrous_rates
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
