"""UNetPlus: U-Net (arXiv:1505.04597) over a classification network, with a decoder of two convolutions per level."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from base.base_model import BaseModel
from models.backbones import Backbone, make_trunk
from models.layers.blocks import Count, Probability, conv_block, enlarge, initialise, widen_tiny
from models.unetplus.decoder import Squeeze, UNetPlusDecoder
from models.unetplus.encoder import SteadyTrunk
from utils.errors import ConfigError

DECODER_CHANNELS_PER_STRIDE = 16
HEAD_CHANNELS = (32, 16)


class UNetPlus(BaseModel):
    """U-Net over any trunk, parts of which may stay as they are; images of any size.

    Args:
        num_classes: Classes K, the background among them.
        in_channels: Channels C of the image.
        backbone: A torchvision trunk, or "timm:" and a name of timm's.
        weights: Weights of the trunk: null (from scratch), "DEFAULT", a name, or a file.
        norm: "batch" or "group" (the same result with any number of processes).
        squeeze: How the decoder enlarges: "transpose" by a transposed convolution, "interpolate" bilinearly.
        decoder_channels: Width of the decoder per level, finest first, one fewer than the trunk has feature maps; its
            own, at most 16 times the stride, where not given.
        dropout: Share of the features before the classifier that is dropped while training.
        frozen_stages: How many of the trunk's feature maps, finest first, stay as they are: weights and statistics.
        norm_eval: Keep the statistics of all the trunk's batch norms while training.

    Raises:
        ConfigError: An argument is out of range, or weights cannot be had.
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
        trunk = make_trunk(backbone, in_channels, weights=weights, norm=norm)
        self.first_stride, self.stride = trunk.first_stride, trunk.stride
        self.encoder = SteadyTrunk(trunk, in_channels, frozen_stages=frozen_stages, norm_eval=norm_eval)
        widths = self._decoder_widths(decoder_channels)
        self.decoder = UNetPlusDecoder(trunk.channels, trunk.strides, widths, squeeze=squeeze, norm=norm)
        before = [widths[0], *HEAD_CHANNELS[:-1]]
        blocks = [conv_block(old, new, norm=norm) for old, new in zip(before, HEAD_CHANNELS, strict=True)]
        self.head = nn.Sequential(*blocks, nn.Dropout(dropout), nn.Conv2d(HEAD_CHANNELS[-1], num_classes, 1))
        initialise(self.decoder)
        for block in blocks:
            initialise(block)

    def forward(self, inputs: Tensor) -> Tensor:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float."""
        features = self.encoder(widen_tiny(inputs, self.stride))
        return enlarge(self.head(self.decoder(features)), self.first_stride, inputs.shape[2:])

    def _decoder_widths(self, given: list[int] | None) -> list[int]:
        levels = self.encoder.channels[:-1]
        if given is None:
            return [
                min(level, DECODER_CHANNELS_PER_STRIDE * stride)
                for level, stride in zip(levels, self.encoder.strides, strict=False)
            ]
        if len(given) != len(levels):
            raise ConfigError(
                f"Wrong decoder_channels {given}: with a trunk of {len(levels) + 1} feature maps the decoder has "
                f"{len(levels)} levels. Give {len(levels)} widths, finest first."
            )
        return given
