"""U-Net: Convolutional Networks for Biomedical Image Segmentation (arXiv:1505.04597)."""

from typing import Literal

from torch import Tensor, nn

from base.base_model import BaseModel
from models.backbones import Backbone, Encoder, build_backbone
from models.layers.blocks import Count, Norm, Probability, enlarge, initialise, widen_tiny
from models.unet.decoder import UNetDecoder, decoder_widths
from models.unet.encoder import Downsample, PlainEncoder
from utils.errors import ConfigError

PLAIN_CHANNELS = (16, 32, 64, 128, 256)


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
