"""U-Net: Convolutional Networks for Biomedical Image Segmentation (arXiv:1505.04597)."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from base.base_model import BaseModel
from models.backbones import Trunk, TrunkName
from models.blocks import Count, Norm, Probability, enlarge, initialise, widen_tiny
from models.unet.decoder import UNetDecoder
from models.unet.encoder import PlainEncoder
from utils.errors import ConfigError

PLAIN_CHANNELS = (16, 32, 64, 128, 256)
TRUNK_DECODER_CHANNELS = (32, 64, 128, 256)


class UNet(BaseModel):
    """U-Net with a light encoder of its own or a torchvision trunk; pictures of any size.

    Args:
        num_classes: Classes K, the background among them.
        in_channels: Channels C of the picture.
        backbone: "plain" or a torchvision trunk.
        weights: Weights of the trunk: null (from scratch), "DEFAULT", a torchvision name, or a file.
        norm: "batch", "group" (the same result with any number of processes) or, with "plain" alone, "none".
        decoder_channels: Width of the decoder per level, finest first, one fewer than the encoder has levels; the
            plain encoder's own widths, or 32, 64, 128, 256 with a trunk, where not given.
        decoder_convs: Convolutions per decoder level.
        dropout: Share of the coarsest features that is dropped while training (as in the paper, section 3.1).
        channels: Plain only. Width per level, finest first; 16, 32, 64, 128, 256 where not given.
        encoder_convs: Plain only. Convolutions per level; 2 where not given.
        stem_stride: Plain only. 2 halves the picture at once and enlarges the logits at the end, 1 works at full size;
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
        backbone: Literal["plain", TrunkName] = "plain",
        weights: str | None = None,
        norm: Norm = "batch",
        decoder_channels: list[Count] | None = None,
        decoder_convs: Count = 1,
        dropout: Probability = 0.0,
        channels: list[Count] | None = None,
        encoder_convs: Count | None = None,
        stem_stride: Literal[1, 2] | None = None,
        downsample: Literal["conv", "pool"] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        plain_only = {
            "channels": channels,
            "encoder_convs": encoder_convs,
            "stem_stride": stem_stride,
            "downsample": downsample,
        }
        self.encoder: PlainEncoder | Trunk
        if backbone == "plain":
            _refuse({"weights": weights}, backbone, "the torchvision trunks")
            widths = list(PLAIN_CHANNELS) if channels is None else channels
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
            default_decoder = self.encoder.channels[:-1]
        else:
            _refuse(plain_only, backbone, '"plain"')
            self.encoder = Trunk(backbone, in_channels, weights=weights, norm=norm)
            default_decoder = list(TRUNK_DECODER_CHANNELS)
        decoder_widths = default_decoder if decoder_channels is None else decoder_channels
        self._check_decoder(decoder_widths)
        self.dropout = nn.Dropout(dropout)
        self.decoder = UNetDecoder(self.encoder.channels, decoder_widths, convs=decoder_convs, norm=norm)
        initialise(self.decoder)
        self.head = nn.Conv2d(self.decoder.out_channels, num_classes, kernel_size=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Picture (B, C, H, W) float -> logits (B, K, H, W) float."""
        features = self.encoder(widen_tiny(inputs, self.encoder.stride))
        features[-1] = self.dropout(features[-1])
        return enlarge(self.head(self.decoder(features)), self.encoder.first_stride, inputs.shape[2:])

    def _check_decoder(self, widths: list[int]) -> None:
        wanted = len(self.encoder.channels) - 1
        if len(widths) != wanted:
            raise ConfigError(
                f"Wrong decoder_channels {widths}: the encoder has {wanted + 1} levels, so the decoder has {wanted}. "
                f"Give {wanted} widths, finest first."
            )


def _refuse(arguments: Mapping[str, object], backbone: str, owner: str) -> None:
    """Raise if one of the arguments was given although this backbone has no use for it."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise ConfigError(
            f"{', '.join(given)} given with backbone {backbone!r}: only {owner} can use that. "
            f"Remove {'it' if len(given) == 1 else 'them'} or change the backbone."
        )
