"""The operations of a block (arXiv:2212.06735, section 3.1), for images and series.

Each is for one of four cases: it preserves the shape of its input, changes its width, halves its size, or both.
B batch, C channels, S the size of a map: (H, W) of an image, (T,) of a series.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.popnas.attention import ConvTransformer
from models.popnas.layers import (
    ConvUnit,
    Excitation,
    Extent,
    MapNorm,
    MapPool,
    Subsampling,
    every,
    make_activation,
    repeat_extent,
    same_map_convolution,
)
from utils.architecture.cells.network import CellActivation
from utils.architecture.cells.operators import Operator


class MapSequence(nn.Module):
    """Layers one after another; each gets the extent of its input.

    Args:
        layers: Pairs of a layer and the stride of its output in terms of its input.
    """

    def __init__(self, layers: Sequence[tuple[nn.Module, int]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer for layer, _ in layers)
        self.strides = [stride for _, stride in layers]

    def forward(self, maps: Tensor, extent: Extent) -> Tensor:
        """(B, C, *S) float -> (B, C', *ceil(S / stride)) float."""
        for layer, stride in zip(self.layers, self.strides, strict=True):
            maps = layer(maps, extent)
            extent = every(extent, stride)
        return maps


class TransposedUnit(nn.Module):
    """A transposed convolution that doubles the size, and a convolution that halves it again, each with norm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Of both.
        stride: Of the output in terms of the input.
        activation: After each norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        *,
        stride: int,
        activation: CellActivation,
    ) -> None:
        super().__init__()
        transposed: Any = nn.ConvTranspose2d if len(kernel) == 2 else nn.ConvTranspose1d
        # The result is twice as long: 2 (n - 1) + k - 2 p + o = 2 n.
        extra = tuple(length % 2 for length in kernel)
        padding = tuple((length - 2 + odd) // 2 for length, odd in zip(kernel, extra, strict=True))
        self.enlarge: nn.Module = transposed(in_channels, out_channels, tuple(kernel), 2, padding, extra, bias=False)
        self.norm = MapNorm(out_channels, len(kernel))
        self.activation = make_activation(activation)
        self.reduce = ConvUnit(out_channels, out_channels, kernel, stride=2 * stride, activation=activation)

    def forward(self, maps: Tensor, extent: Extent) -> Tensor:
        """(B, in_channels, *S) float -> (B, out_channels, *ceil(S / stride)) float."""
        doubled = repeat_extent(extent, 2)
        enlarged = self.activation(self.norm(self.enlarge(maps), doubled))
        result: Tensor = self.reduce(enlarged, doubled)
        return result


class ZoomedUnit(nn.Module):
    """Mean over windows, a convolution at the small size, and linear interpolation back to the size before.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Of the convolution.
        zoom: Size of the windows.
        stride: Of the output in terms of the input.
        activation: After the convolution's norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        *,
        zoom: int,
        stride: int,
        activation: CellActivation,
    ) -> None:
        super().__init__()
        self.zoom, self.stride = zoom, stride
        self.unit = ConvUnit(in_channels, out_channels, kernel, stride=stride, activation=activation)

    def forward(self, maps: Tensor, extent: Extent) -> Tensor:
        """(B, in_channels, *S) float -> (B, out_channels, *ceil(S / stride)) float."""
        # Not -(-length // stride): as torch writes the size of a convolution, so that a traced network knows it.
        size = [(length - 1) // self.stride + 1 for length in maps.shape[2:]]
        if extent is None:
            small = F.avg_pool2d(maps, self.zoom, ceil_mode=True, count_include_pad=False)
            enlarged = F.interpolate(self.unit(small, None), scale_factor=float(self.zoom), mode="bilinear")
            return enlarged[:, :, : size[0], : size[1]]
        valid = extent.steps.valid.to(maps.dtype)
        # A window at the end of a series is the mean of the valid steps in it.
        shares = self._mean(valid).clamp(min=0.5 / self.zoom)
        zoomed = extent.every(self.zoom)
        small = self._mean(maps) / shares * zoomed.steps.valid.to(maps.dtype)
        unit, kept = self.unit(small, zoomed), zoomed.every(self.stride).steps.valid.to(maps.dtype)
        # Interpolated from valid steps only: at the end of a series the last value, as at the end of the whole map.
        weights = self._enlarge(kept, size).clamp(min=torch.finfo(torch.float16).tiny)
        return self._enlarge(unit, size) / weights * extent.every(self.stride).steps.valid.to(maps.dtype)

    def _mean(self, maps: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, ceil(T / zoom)), zeros after the end counted."""
        return F.avg_pool1d(F.pad(maps, (0, self.zoom - 1)), self.zoom)

    def _enlarge(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(maps, scale_factor=float(self.zoom), mode="linear")[:, :, : size[0]]


class RecurrentUnit(nn.Module):
    """An LSTM or GRU over the steps of a series, all of its outputs, and a norm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kind: "lstm" or "gru".
    """

    def __init__(self, in_channels: int, out_channels: int, *, kind: str) -> None:
        super().__init__()
        self.layer = (nn.LSTM if kind == "lstm" else nn.GRU)(in_channels, out_channels, batch_first=True)
        self.norm = MapNorm(out_channels, 1)

    def forward(self, maps: Tensor, extent: Extent) -> Tensor:
        """(B, in_channels, T) float -> (B, out_channels, T) float."""
        # Padding is at the end: no step of the series is computed from it.
        states = self.layer(maps.transpose(1, 2))[0]
        result: Tensor = self.norm(states.transpose(1, 2), extent)
        return result


class NoOperation(nn.Module):
    """The identity."""

    def forward(self, maps: Tensor, _extent: Extent) -> Tensor:
        """Return the maps themselves."""
        return maps


def build_block_operation(
    operator: Operator, in_channels: int, out_channels: int, *, stride: int, activation: CellActivation
) -> nn.Module:
    """Build an operation of a block: (B, in_channels, *S) -> (B, out_channels, *ceil(S / stride)).

    Args:
        operator: The operator; its `dims` say whether it is for images or for series.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: 2 in a block of a reduction cell that reads an earlier cell.
        activation: After each convolution.
    """
    kind, kernel, dims = operator.kind, operator.kernel, operator.dims
    changes_width = in_channels != out_channels
    if kind in _UNITS:
        return _UNITS[kind](operator, in_channels, out_channels, stride, activation)
    if kind == "identity" and not changes_width and stride == 1:
        return NoOperation()
    layers: list[tuple[nn.Module, int]] = []
    if kind in ("maxpool", "avgpool"):
        layers.append((MapPool(kernel, stride=stride, is_max=kind == "maxpool"), stride))
    elif stride > 1 and kind == "se":
        layers.append((Subsampling(stride, dims), stride))
    if changes_width or kind == "identity":
        pointwise = stride if kind == "identity" else 1
        unit = ConvUnit(in_channels, out_channels, (1,) * dims, stride=pointwise, activation=activation)
        layers.append((unit, pointwise))
    if kind == "se":
        layers.append((Excitation(out_channels, operator.ratio, activation), 1))
    return layers[0][0] if len(layers) == 1 else MapSequence(layers)


def _convolution(
    operator: Operator, in_channels: int, out_channels: int, stride: int, activation: CellActivation
) -> nn.Module:
    """A dilated convolution leaves no pixel out: in a reduction it has stride 1, and a pooling follows."""
    is_dilated = operator.dilation > 1
    unit = ConvUnit(
        in_channels,
        out_channels,
        operator.kernel,
        stride=1 if is_dilated else stride,
        dilation=operator.dilation,
        activation=activation,
    )
    if not is_dilated or stride == 1:
        return unit
    return MapSequence([(unit, 1), (Subsampling(stride, operator.dims), stride)])


def _separable(
    operator: Operator, in_channels: int, out_channels: int, stride: int, activation: CellActivation
) -> nn.Module:
    return ConvUnit(in_channels, out_channels, operator.kernel, stride=stride, activation=activation, is_separable=True)


def _pair(
    operator: Operator, in_channels: int, out_channels: int, stride: int, activation: CellActivation
) -> nn.Module:
    first = ConvUnit(in_channels, out_channels, operator.kernel, stride=stride, activation=activation)
    second = ConvUnit(out_channels, out_channels, operator.second_kernel, activation=activation)
    return MapSequence([(first, stride), (second, 1)])


def _transposed(
    operator: Operator, in_channels: int, out_channels: int, stride: int, activation: CellActivation
) -> nn.Module:
    return TransposedUnit(in_channels, out_channels, operator.kernel, stride=stride, activation=activation)


def _zoomed(
    operator: Operator, in_channels: int, out_channels: int, stride: int, activation: CellActivation
) -> nn.Module:
    return ZoomedUnit(
        in_channels, out_channels, operator.kernel, zoom=operator.zoom, stride=stride, activation=activation
    )


def _recurrent(
    operator: Operator, in_channels: int, out_channels: int, stride: int, _activation: CellActivation
) -> nn.Module:
    unit = RecurrentUnit(in_channels, out_channels, kind=operator.kind)
    return unit if stride == 1 else MapSequence([(unit, 1), (Subsampling(stride, 1), stride)])


def _transformer(
    operator: Operator, in_channels: int, out_channels: int, stride: int, activation: CellActivation
) -> nn.Module:
    embedding = same_map_convolution(in_channels, out_channels, operator.kernel, stride=stride)
    return ConvTransformer(
        embedding,
        out_channels,
        heads=operator.heads,
        layers=operator.layers,
        activation=activation,
        has_mlp=operator.kind == "cvt",
    )


_UNITS: dict[str, Callable[[Operator, int, int, int, CellActivation], nn.Module]] = {
    "conv": _convolution,
    "dconv": _separable,
    "conv_pair": _pair,
    "tconv": _transposed,
    "zconv": _zoomed,
    "lstm": _recurrent,
    "gru": _recurrent,
    "cvt": _transformer,
    "scvt": _transformer,
}
