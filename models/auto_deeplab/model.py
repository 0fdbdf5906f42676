"""Auto-DeepLab: Hierarchical Neural Architecture Search for Semantic Image Segmentation (arXiv:1901.02985)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from base.base_model import BaseModel
from models.auto_deeplab.cell import DeepLabCell
from models.auto_deeplab.operations import Atrous, CellNorm
from models.layers.blocks import Count, Probability, conv_block, enlarge, initialise, widen_tiny
from models.layers.drop_path import set_drop_progress
from models.layers.pyramid import ASPP, LOW_LEVEL_STRIDE, DeepLabDecoder, atrous_rates_at
from utils.architecture.genotype import STRIDES, Genotype
from utils.architecture.reading import read_genotype
from utils.errors import ConfigError

GenotypeObject = dict[str, list[int] | list[dict[str, str]]]
StemChannels = Annotated[list[Count], Field(min_length=3, max_length=3)]

STEM_CHANNELS = (64, 64, 128)


class Stem(nn.Module):
    """Three 3x3 convolutions, the first and the last of stride 2.

    Args:
        in_channels: Channels of the image.
        channels: Width of each convolution.
        norm: Normalisation after each convolution.

    Attributes:
        outputs: Width and stride of each output.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], *, norm: CellNorm) -> None:
        super().__init__()
        first, second, third = channels
        self.to_stride_2 = nn.Sequential(
            conv_block(in_channels, first, stride=2, norm=norm), conv_block(first, second, norm=norm)
        )
        self.to_stride_4 = conv_block(second, third, stride=2, norm=norm)
        self.outputs = ((second, STRIDES[0] // 2), (third, STRIDES[0]))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, C, H, W) float -> maps at strides 2 and 4: the first layer's inputs two and one back."""
        half = self.to_stride_2(inputs)
        return half, self.to_stride_4(half)


class AutoDeepLabEncoder(nn.Module):
    """Stem and decoded layers; sizes are rounded up wherever a side is not divisible by the stride.

    The first layer reads the stem's outputs at stride 2 as "two_back" and at stride 4 as "one_back".

    Args:
        genotype: The architecture.
        in_channels: Channels of the image.
        filter_multiplier: F; a block of a layer at stride s has the width F s / 4.
        stem_channels: Width of the stem's three convolutions.
        atrous: As for `AutoDeepLab`.
        norm: As for `AutoDeepLab`.
        drop_path: As for `AutoDeepLab`.

    Attributes:
        stride: Of the last layer.
        channels: Of the last layer.
        low_level_channels: Of the low-level features.
    """

    def __init__(
        self,
        genotype: Genotype,
        in_channels: int,
        *,
        filter_multiplier: int,
        stem_channels: Sequence[int],
        atrous: Atrous,
        norm: CellNorm,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.strides = genotype.strides
        self.stem = Stem(in_channels, stem_channels, norm=norm)
        self.layers = nn.ModuleList()
        outputs = list(self.stem.outputs)
        for depth, stride in enumerate(self.strides, start=1):
            channels = filter_multiplier * stride // STRIDES[0]
            cell = DeepLabCell(
                genotype,
                channels,
                stride,
                two_back=outputs[-2],
                one_back=outputs[-1],
                atrous=atrous,
                norm=norm,
                drop_path=drop_path * depth / len(self.strides),
            )
            self.layers.append(cell)
            outputs.append((channels * len(genotype.blocks), stride))
        # The last map at stride 4, which is the stem's if no layer has that stride.
        self.low_level = max(place for place, (_, stride) in enumerate(outputs) if stride == LOW_LEVEL_STRIDE)
        self.low_level_channels = outputs[self.low_level][0]
        self.channels, self.stride = outputs[-1]

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, C, H, W) float -> features at stride 4, and those of the last layer at its stride."""
        two_back, one_back = self.stem(inputs)
        low_level = one_back
        height, width = inputs.shape[2:]
        for place, (cell, stride) in enumerate(zip(self.layers, self.strides, strict=True), start=2):
            # Not -(-height // stride): the division of an exported network rounds towards zero.
            size = ((height + stride - 1) // stride, (width + stride - 1) // stride)
            two_back, one_back = one_back, cell(two_back, one_back, size)
            if place == self.low_level:
                low_level = one_back
        return low_level, one_back


class AutoDeepLab(BaseModel):
    """A network that a search of Auto-DeepLab found, with the head of DeepLabV3+; images of any size.

    Args:
        num_classes: Classes K, the background among them.
        in_channels: Channels C of the image.
        genotype: The architecture: strides and blocks, or a JSON file with them, or a folder of the public code's
            three .npy files, or "random:17" for a random one, "random:17:8:4" for one of 8 layers and 4 blocks; that of
            the published networks if not given.
        filter_multiplier: F; a block of a cell at stride s has the width F s / 4. The published networks have 20, 32
            and 48.
        atrous: "separable" or "dense" convolutions of rate 2 in the cells; the published networks have dense ones.
        stem_channels: Widths of the three convolutions before the first layer.
        aspp_channels: Channels of the pyramid and of the decoder.
        atrous_rates: Dilations of the pyramid; those of the paper for the last layer's stride if not given.
        norm: "batch" or "group" (the same result with any number of processes).
        dropout: Fraction of the pyramid's output that is dropped while training.
        drop_path: Probability of dropping an operation for a sample, in the last cell at the end of the training; it
            grows linearly with the depth of the cell and with the completed epochs.

    Raises:
        ConfigError: An argument is out of range, or the genotype cannot be read.
    """

    def __init__(
        self,
        num_classes: Count,
        in_channels: Count = 3,
        *,
        genotype: GenotypeObject | str | None = None,
        filter_multiplier: Count = 20,
        atrous: Atrous = "separable",
        stem_channels: StemChannels | None = None,
        aspp_channels: Count = 256,
        atrous_rates: list[Count] | None = None,
        norm: CellNorm = "batch",
        dropout: Probability = 0.5,
        drop_path: Probability = 0.0,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.genotype = read_genotype(genotype)
        self.encoder = AutoDeepLabEncoder(
            self.genotype,
            in_channels,
            filter_multiplier=filter_multiplier,
            stem_channels=STEM_CHANNELS if stem_channels is None else stem_channels,
            atrous=atrous,
            norm=norm,
            drop_path=drop_path,
        )
        stride = self.encoder.stride
        rates = atrous_rates_at(stride) if atrous_rates is None else atrous_rates
        self.aspp = ASPP(self.encoder.channels, aspp_channels, rates=rates, dropout=dropout, norm=norm)
        self.decoder = DeepLabDecoder(
            self.encoder.low_level_channels, aspp_channels, factor=stride // LOW_LEVEL_STRIDE, norm=norm
        )
        for part in (self.encoder, self.aspp, self.decoder):
            initialise(part)
        self.head = nn.Conv2d(aspp_channels, num_classes, kernel_size=1)

    @classmethod
    def canonical_arguments(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with the genotype written out."""
        try:
            return cls.complete_arguments(arguments)
        except ConfigError:
            return dict(arguments)  # no network at all: its constructor explains why

    @classmethod
    def complete_arguments(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with the genotype written out.

        Raises:
            ConfigError: It cannot be read.
        """
        return {**arguments, "genotype": read_genotype(arguments.get("genotype")).to_json()}

    def set_progress(self, share: float) -> None:
        """Set the probabilities of dropping paths for a share of the training that is done, from 0 to 1."""
        set_drop_progress(self, share)

    def forward(self, inputs: Tensor) -> Tensor:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float."""
        low_level, features = self.encoder(widen_tiny(inputs, max(self.encoder.strides)))
        refined = self.decoder(self.aspp(features), low_level)
        return enlarge(self.head(refined), LOW_LEVEL_STRIDE, inputs.shape[2:])
