"""U-Net: Convolutional Networks for Biomedical Image Segmentation (arXiv:1505.04597)."""

from typing import Literal

from torch import Tensor, nn

from base.base_model import BaseModel
from models.backbones import Backbone
from models.layers.blocks import Count, Norm, Probability, enlarge, initialise, widen_tiny
from models.unet.decoder import UNetDecoder
from models.unet.encoder import Downsample, PlainEncoder, make_encoder
from utils.errors import ConfigError

DECODER_CHANNELS_PER_STRIDE = 16  # of a decoder over a trunk: at most 32, 64, 128, 256 at strides 2, 4, 8, 16


class UNet(BaseModel):
    """U-Net with a light encoder of its own or a trunk; images of any size.

    Args:
        num_classes: Classes K, the background among them.
        in_channels: Channels C of the image.
        backbone: "plain", a torchvision trunk, or "timm:" and a name of timm's.
        weights: Weights of the trunk: null (from scratch), "DEFAULT", a name, or a file.
        norm: "batch", "group" (the same result with any number of processes) or, with "plain" alone, "none".
        decoder_channels: Width of the decoder per level, finest first, one fewer than the encoder has levels; the
            encoder's own widths, with a trunk at most 32, 64, 128, 256, where not given.
        decoder_convs: Convolutions per decoder level.
        dropout: Share of the coarsest features that is dropped while training (as in the paper, section 3.1).
        channels: Plain only. Width per level, finest first; 16, 32, 64, 128, 256 where not given.
        encoder_convs: Plain only. Convolutions per level; 2 where not given.
        stem_stride: Plain only. 2 halves the image at once and enlarges the logits at the end, 1 works at full size;
            2 where not given.
        downsample: Plain only. Halve by strided "conv" or by max "pool"; "conv" where not given.

    Raises:
        ConfigError: An argument does not apply to the backbone, or weights cannot be had.
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
        self.encoder = make_encoder(
            backbone,
            in_channels,
            weights=weights,
            norm=norm,
            channels=channels,
            convs=encoder_convs,
            stem_stride=stem_stride,
            downsample=downsample,
        )
        decoder_widths = self._decoder_widths(decoder_channels)
        self.dropout = nn.Dropout(dropout)
        self.decoder = UNetDecoder(self.encoder.channels, decoder_widths, convs=decoder_convs, norm=norm)
        initialise(self.decoder)
        self.head = nn.Conv2d(self.decoder.out_channels, num_classes, kernel_size=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float."""
        features = self.encoder(widen_tiny(inputs, self.encoder.stride))
        features[-1] = self.dropout(features[-1])
        return enlarge(self.head(self.decoder(features)), self.encoder.first_stride, inputs.shape[2:])

    def _decoder_widths(self, given: list[int] | None) -> list[int]:
        levels = self.encoder.channels[:-1]
        if given is None:
            if isinstance(self.encoder, PlainEncoder):
                return levels
            widest = [DECODER_CHANNELS_PER_STRIDE * stride for stride in self.encoder.strides]
            return [min(level, width) for level, width in zip(levels, widest, strict=False)]
        if len(given) != len(levels):
            raise ConfigError(
                f"Wrong decoder_channels {given}: with an encoder of {len(levels) + 1} levels the decoder has "
                f"{len(levels)}. Give {len(levels)} widths, finest first."
            )
        return given
