"""EncDec: encoder-decoders of halving, bottleneck and doubling blocks, the layers of each block being searched."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from base.base_model import BaseModel
from models.encdec.decoder import EncDecDecoder
from models.encdec.encoder import EncDecEncoder
from models.encdec.layers import ACTIVATIONS, Activation, Blocks, PaddingMode, Unit, read_blocks
from models.layers.blocks import Count, Probability, initialise, pad_to_multiple, widen_tiny
from utils.errors import ConfigError


class EncDec(BaseModel):
    """A member of the searched family; images of any size, padded to a multiple of 2^(halving blocks) and cut.

    A layer is a convolution, batch norm, activation and dropout: `["C", 1]` or `{"op": "C", "dilation": 1}`; H is 1x3,
    V 3x1, C 3x3 and O 1x1, whose dilation has no effect. The head is a 3x3 convolution alone.

    Args:
        num_classes: Classes K, the background among them.
        in_channels: Channels C of the image.
        D_blocks: Layers of each block that begins with halving; the list may be empty.
        B_blocks: Layers of each block at the coarsest size; at least one layer each.
        U_blocks: Layers of each block that begins with doubling, coarsest first, as many as D_blocks; may be empty.
        base_channels: Width of the first and last block; it doubles with each halving.
        dropout_ratio: Fraction of the values after each activation that is dropped while training.
        momentum_bn: Momentum of batch norm, as torch counts it.
        padding_mode: Padding of a map: "zeros", or "replicate" for the values at its border.
        activation: "relu", "leaky_relu", "elu", "silu" or "gelu".

    Raises:
        ConfigError: The blocks do not fit together, or a layer is none.
    """

    def __init__(
        self,
        num_classes: Count,
        in_channels: Count = 3,
        *,
        D_blocks: Blocks,  # noqa: N803 - the names of all configs of the family
        B_blocks: Blocks,  # noqa: N803
        U_blocks: Blocks,  # noqa: N803
        base_channels: Count = 16,
        dropout_ratio: Probability = 0.0,
        momentum_bn: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1,
        padding_mode: PaddingMode = "replicate",
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        down, bottleneck, up = (
            read_blocks(value, name)
            for name, value in (("D_blocks", D_blocks), ("B_blocks", B_blocks), ("U_blocks", U_blocks))
        )
        if not down or len(down) != len(up):
            raise ConfigError(
                f"{len(down)} D_blocks with {len(up)} U_blocks: each halving needs one doubling, and there is at least "
                "one. Give as many of each; a block without further layers is []."
            )
        if not bottleneck or not all(bottleneck):
            raise ConfigError(
                f"Wrong B_blocks {[[str(layer) for layer in block] for block in bottleneck]}: there is at least one, "
                'and each has at least one layer. Write e.g. [[["C", 1]]].'
            )
        for name, value, known in (
            ("padding_mode", padding_mode, ("zeros", "replicate")),
            ("activation", activation, ACTIVATIONS),
        ):
            if value not in known:
                raise ConfigError(f"Wrong {name} {value!r}: there are {', '.join(known)}. Choose one of them.")
        self.in_channels = in_channels
        self.blocks = {"D": down, "B": bottleneck, "U": up}
        self.multiple = 2 ** len(down)  # then every halving is exact, and doubling meets its skip connection
        unit = Unit(dropout_ratio, momentum_bn, padding_mode, activation)
        self.encoder = EncDecEncoder(in_channels, base_channels, down=down, bottleneck=bottleneck, unit=unit)
        self.decoder = EncDecDecoder(self.encoder.channels, up, unit)
        initialise(self.encoder)
        initialise(self.decoder)
        self.head = nn.Conv2d(base_channels, num_classes, 3, padding=1, padding_mode=padding_mode)

    @classmethod
    def canonical_arguments(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return each layer as a pair, with dilation 1 for O, for which it has no effect."""
        pairs = {}
        try:
            for name in arguments.keys() & {"D_blocks", "B_blocks", "U_blocks"}:
                blocks = read_blocks(arguments[name], name)
                pairs[name] = [[[layer.op, layer.dilation] for layer in block] for block in blocks]
        except (ConfigError, TypeError):
            return dict(arguments)  # no network at all: its constructor explains why
        return {**arguments, **pairs}

    @property
    def arch(self) -> str:
        """The architecture in one line, e.g. `D0(C1)*D1()*B0(C1,O)*U0(H2)*U1(V3)`."""
        return "*".join(
            f"{kind}{number}({','.join(map(str, layers))})"
            for kind, blocks in self.blocks.items()
            for number, layers in enumerate(blocks)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float."""
        height, width = inputs.shape[2:]
        features, current = self.encoder(pad_to_multiple(widen_tiny(inputs, self.multiple), self.multiple))
        logits: Tensor = self.head(self.decoder(features, current))
        return logits[:, :, :height, :width]
