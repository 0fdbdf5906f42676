"""EncDec: encoder-decoders of halving, bottleneck and doubling blocks, the layers of each block being searched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from base.base_model import BaseModel
from models.layers.blocks import Count, Probability, initialise, pad_to_multiple, widen_tiny
from utils.errors import ConfigError

Op = Literal["H", "V", "C", "O"]
Dilation = Annotated[int, Field(ge=1)]
LayerSpec = tuple[Op, Dilation] | dict[str, Op | Dilation]
Blocks = list[list[LayerSpec]]
Activation = Literal["relu", "leaky_relu", "elu", "silu", "gelu"]
PaddingMode = Literal["zeros", "replicate"]

KERNELS: dict[str, tuple[int, int]] = {"H": (1, 3), "V": (3, 1), "C": (3, 3), "O": (1, 1)}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}


@dataclass(frozen=True)
class Layer:
    """One searched layer.

    Attributes:
        op: H 1x3, V 3x1, C 3x3, O 1x1.
        dilation: Spacing of the taps; 1 for O, which has only one.
    """

    op: str
    dilation: int = 1

    def __str__(self) -> str:
        return self.op if self.op == "O" else f"{self.op}{self.dilation}"


@dataclass(frozen=True)
class Unit:
    """The norm, activation and dropout after each convolution, and the padding before it.

    Attributes:
        dropout_ratio: Fraction of the values after the activation that is dropped.
        momentum_bn: Of the running statistics, as torch counts it.
        padding_mode: Padding of a map at its border.
        activation: A key of `ACTIVATIONS`.
    """

    dropout_ratio: float
    momentum_bn: float
    padding_mode: PaddingMode
    activation: str

    def around(self, convolution: nn.Module, channels: int) -> nn.Sequential:
        """Build a convolution, norm, activation and dropout."""
        norm = nn.BatchNorm2d(channels, momentum=self.momentum_bn)
        return nn.Sequential(convolution, norm, ACTIVATIONS[self.activation](), nn.Dropout(self.dropout_ratio))

    def layer(self, layer: Layer, in_channels: int, out_channels: int) -> nn.Sequential:
        """Build a searched layer, which preserves the size of the map."""
        kernel = KERNELS[layer.op]
        height, width = kernel
        convolution = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            padding=(layer.dilation * (height // 2), layer.dilation * (width // 2)),
            dilation=(layer.dilation if height > 1 else 1, layer.dilation if width > 1 else 1),
            padding_mode=self.padding_mode,
        )
        return self.around(convolution, out_channels)


def read_blocks(value: Sequence[Sequence[Any]], name: str) -> list[list[Layer]]:
    """Return the layers of each block of an argument.

    Args:
        value: A list of blocks, each a list of layers: `["C", 1]`, or `{"op": "C", "dilation": 1}`.
        name: Of the argument, for errors.

    Raises:
        ConfigError: A layer is something else.
    """
    blocks: list[list[Layer]] = []
    for number, specs in enumerate(value):
        blocks.append([])
        for place, spec in enumerate(specs):
            pair: Any = spec
            if isinstance(spec, Mapping) and spec.keys() <= {"op", "dilation"}:
                pair = spec.get("op"), spec.get("dilation", 1)
            no_pair: Any = (None, None)
            op, dilation = pair if isinstance(pair, list | tuple) and len(pair) == 2 else no_pair
            is_count = isinstance(dilation, int) and not isinstance(dilation, bool) and dilation >= 1
            if not isinstance(op, str) or op not in KERNELS or not is_count:
                shown = list(spec) if isinstance(spec, tuple) else spec
                raise ConfigError(
                    f"Wrong layer {name}[{number}][{place}] {shown!r}: a layer is an op of H, V, C, O and a dilation "
                    'of 1 or more. Write ["C", 1] or {"op": "C", "dilation": 1}.'
                )
            blocks[-1].append(Layer(op, 1 if op == "O" else dilation))  # a single tap has no spacing
    return blocks


class EncDecEncoder(nn.Module):
    """Blocks that halve the map and double its channels, then bottleneck blocks that change neither.

    Args:
        in_channels: Channels of the image.
        base_channels: Width of the first block.
        down: Listed layers of each halving block.
        bottleneck: Listed layers of each bottleneck block.
        unit: Norm, activation, dropout and padding of each convolution.

    Attributes:
        channels: Width of each halving block, finest first.
    """

    def __init__(
        self,
        in_channels: int,
        base_channels: int,
        *,
        down: Sequence[Sequence[Layer]],
        bottleneck: Sequence[Sequence[Layer]],
        unit: Unit,
    ) -> None:
        super().__init__()
        self.channels = [base_channels * 2**level for level in range(len(down))]
        self.down = nn.ModuleList()
        previous = in_channels
        for width, layers in zip(self.channels, down, strict=True):
            halving = nn.Conv2d(previous, width, 3, stride=2, padding=1, padding_mode=unit.padding_mode)
            others = (unit.layer(layer, width, width) for layer in layers)
            self.down.append(nn.Sequential(unit.around(halving, width), *others))
            previous = width
        self.bottleneck = nn.Sequential(
            *(nn.Sequential(*(unit.layer(layer, previous, previous) for layer in layers)) for layers in bottleneck)
        )

    def forward(self, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
        """Image (B, C, H, W) float -> the output of each halving block, finest first, and that of the bottleneck."""
        features: list[Tensor] = []
        current = inputs
        for block in self.down:
            current = block(current)
            features.append(current)
        return features, self.bottleneck(current)


class EncDecDecoder(nn.Module):
    """Blocks that concatenate the skip connection, reduce the channels, and double the map before their layers.

    Args:
        encoder_channels: Width of each halving block, finest first.
        up: Listed layers of each doubling block, coarsest first.
        unit: Norm, activation, dropout and padding of each convolution.

    Attributes:
        out_channels: Channels of the output.
    """

    def __init__(self, encoder_channels: Sequence[int], up: Sequence[Sequence[Layer]], unit: Unit) -> None:
        super().__init__()
        self.out_channels = encoder_channels[0]
        self.up = nn.ModuleList()
        coarsest_first = list(reversed(encoder_channels))
        for before, width, layers in zip(coarsest_first, [*coarsest_first[1:], self.out_channels], up, strict=True):
            joined = unit.layer(Layer("O"), 2 * before, width)
            # Zeros beyond the border: a transposed convolution of torch knows no other padding.
            doubling = nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1)
            others = (unit.layer(layer, width, width) for layer in layers)
            self.up.append(nn.Sequential(joined, unit.around(doubling, width), *others))

    def forward(self, features: Sequence[Tensor], current: Tensor) -> Tensor:
        """Outputs of the halving blocks, finest first, and of the bottleneck -> (B, out_channels, H, W) float."""
        for block, skip in zip(self.up, reversed(features), strict=True):
            current = block(torch.cat([current, skip], dim=1))
        return current


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
