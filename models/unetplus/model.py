"""UNetPlus: U-Net (arXiv:1505.04597) over a classification network, with a decoder of two convolutions per level."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from base.base_model import BaseModel
from models.backbones import Backbone, build_backbone
from models.layers.blocks import Count, Probability, conv_block, enlarge, initialise, widen_tiny
from models.unet.decoder import decoder_widths
from models.unetplus.decoder import Squeeze, UNetPlusDecoder
from models.unetplus.encoder import PartlyFrozenEncoder
from utils.errors import ConfigError

HEAD_CHANNELS = (32, 16)


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
        self.decoder = UNetPlusDecoder(encoder.channels, encoder.strides, widths, squeeze=squeeze, norm=norm)
        before = [widths[0], *HEAD_CHANNELS[:-1]]
        blocks = [conv_block(old, new, norm=norm) for old, new in zip(before, HEAD_CHANNELS, strict=True)]
        self.head = nn.Sequential(*blocks, nn.Dropout(dropout), nn.Conv2d(HEAD_CHANNELS[-1], num_classes, 1))
        # Not the encoder: its weights may be pretrained, and those from scratch are initialised by its library.
        initialise(self.decoder)
        for block in blocks:
            initialise(block)

    def forward(self, inputs: Tensor) -> Tensor:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float."""
        features = self.encoder(widen_tiny(inputs, self.stride))
        return enlarge(self.head(self.decoder(features)), self.first_stride, inputs.shape[2:])
