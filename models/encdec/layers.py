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
        dilation: Spacing of the taps; 1 for O, which has but one.
    """

    op: str
    dilation: int = 1

    def __str__(self) -> str:
        return self.op if self.op == "O" else f"{self.op}{self.dilation}"


@dataclass(frozen=True)
class Unit:
    """What stands around each convolution.

    Attributes:
        dropout_ratio: Fraction of the values that is dropped behind the activation.
        momentum_bn: Of the running statistics, as torch counts it.
        padding_mode: What lies beyond the border of a map.
        activation: A key of `ACTIVATIONS`.
    """

    dropout_ratio: float
    momentum_bn: float
    padding_mode: PaddingMode
    activation: str

    def around(self, convolution: nn.Module, channels: int) -> nn.Sequential:
        """A convolution with what follows it."""
        norm = nn.BatchNorm2d(channels, momentum=self.momentum_bn)
        return nn.Sequential(convolution, norm, ACTIVATIONS[self.activation](), nn.Dropout(self.dropout_ratio))

    def layer(self, layer: Layer, in_channels: int, out_channels: int) -> nn.Sequential:
        """A layer of the search: the map keeps its size."""
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

    def layers(self, layers: Sequence[Layer], channels: int) -> list[nn.Module]:
        """The listed layers of a block, all of one width."""
        return [self.layer(layer, channels, channels) for layer in layers]

    def halve(self, in_channels: int, out_channels: int) -> nn.Sequential:
        """A 3x3 convolution of stride 2."""
        convolution = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, padding_mode=self.padding_mode)
        return self.around(convolution, out_channels)

    def double(self, channels: int) -> nn.Sequential:
        """A transposed 3x3 convolution of stride 2, zeros beyond the border."""
        convolution = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)
        return self.around(convolution, channels)


def read_blocks(value: Sequence[Sequence[Any]], name: str) -> list[list[Layer]]:
    """The layers of each block of an argument.

    Args:
        value: A list of blocks, each a list of layers: `["C", 1]`, or `{"op": "C", "dilation": 1}`.
        name: Of the argument, for errors.

    Raises:
        ConfigError: A layer is something else.
    """
    return [
        [_read_layer(layer, f"{name}[{block}][{place}]") for place, layer in enumerate(layers)]
        for block, layers in enumerate(value)
    ]


def _read_layer(value: Any, place: str) -> Layer:
    if isinstance(value, Mapping):
        if not value.keys() <= {"op", "dilation"} or "op" not in value:
            raise _wrong(value, place)
        op, dilation = value["op"], value.get("dilation", 1)
    elif isinstance(value, list | tuple) and len(value) == 2:
        op, dilation = value
    else:
        raise _wrong(value, place)
    is_count = isinstance(dilation, int) and not isinstance(dilation, bool) and dilation >= 1
    if not isinstance(op, str) or op not in KERNELS or not is_count:
        raise _wrong(value, place)
    return Layer(op, 1 if op == "O" else dilation)


def _wrong(value: Any, place: str) -> ConfigError:
    shown = list(value) if isinstance(value, tuple) else value
    return ConfigError(
        f'Wrong layer {place} {shown!r}: a layer is an op of H, V, C, O and a dilation of 1 or more. Write ["C", 1] or '
        '{"op": "C", "dilation": 1}.'
    )
