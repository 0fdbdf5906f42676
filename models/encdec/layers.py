"""The layers that an EncDec is made of: a convolution, batch norm, activation and dropout each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

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
