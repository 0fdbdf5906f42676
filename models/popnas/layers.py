"""Layers for images and series alike. B batch, C channels, S the size of a map: (H, W) of an image, (T,) of a series.

Series of a batch may end in padding. Each layer takes the extent of its input, None for images, and leaves zeros at
padded steps, so that a series has the same result alone as in a batch with longer ones. Sizes are rounded up when a
layer has a stride, and padding is the same for all sizes, so that a step lies at the same place in both cases.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from base.subsampled_convolution import ONEDNN_BLOCK, SubsampledConv2d
from models.layers.masked import MaskedNorm, Steps, masked_mean
from utils.architecture.cells.network import CellActivation

# All of them are 0 at 0, so that padding remains 0.
_ACTIVATIONS: dict[CellActivation, Callable[[], nn.Module]] = {
    "swish": nn.SiLU,
    "relu": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
}


def make_activation(name: CellActivation) -> nn.Module:
    """Build an activation function."""
    return _ACTIVATIONS[name]()


class SeriesExtent:
    """The steps of a batch that are of the series, in contrast to padding, at one resolution.

    Args:
        steps: At this resolution.
    """

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self._others: dict[tuple[str, int], SeriesExtent] = {}

    def every(self, stride: int) -> "SeriesExtent":
        """Return the extent of a map with a stride in terms of this one."""
        if stride == 1:
            return self
        # A pool of one step: its size is written as that of a convolution, so that a traced network knows it.
        return self._other("every", stride, lambda valid: F.avg_pool1d(valid, 1, stride))

    def repeated(self, factor: int) -> "SeriesExtent":
        """Return the extent of a map with a whole number of steps for each one of this."""
        return self._other("repeated", factor, lambda valid: valid.repeat_interleave(factor, dim=2))

    def _other(self, name: str, number: int, change: Callable[[Tensor], Tensor]) -> "SeriesExtent":
        found = self._others.get((name, number))
        if found is None:
            valid = change(self.steps.valid)
            positions = None if self.steps.positions is None else valid.flatten().nonzero()[:, 0]
            found = self._others[name, number] = SeriesExtent(Steps(valid, positions))
        return found


Extent = SeriesExtent | None


def every(extent: Extent, stride: int) -> Extent:
    """Return the extent of a map with a stride in terms of this one's; None for images."""
    return None if extent is None else extent.every(stride)


def repeat_extent(extent: Extent, factor: int) -> Extent:
    """Return the extent of a map with a whole number of steps for each one of this; None for images."""
    return None if extent is None else extent.repeated(factor)


class SingleValueNorm2d(nn.BatchNorm2d):
    """Batch norm that uses its running statistics if a channel has one value, which has no variance.

    So a batch of one small image trains, although the last maps of a cell may be 1x1.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) float -> the same."""
        if self.training and maps.numel() == maps.shape[1]:
            return F.batch_norm(maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(maps)


class MapNorm(nn.Module):
    """Batch norm of a map, of which padding is left out.

    Args:
        channels: C.
        dims: 1 for series, 2 for images.
    """

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.over = SingleValueNorm2d(channels) if dims == 2 else MaskedNorm(channels)

    def forward(self, maps: Tensor, extent: Extent) -> Tensor:
        """(B, C, *S) float -> the same."""
        normed: Tensor = self.over(maps) if extent is None else self.over(maps, extent.steps)
        return normed


def padding_of(kernel: Sequence[int], dilation: int = 1) -> list[tuple[int, int]]:
    """Return the padding before and after, by dimension, with which a layer of stride 1 preserves the size."""
    reaches = [dilation * (length - 1) for length in kernel]
    return [(reach // 2, reach - reach // 2) for reach in reaches]


def flat_padding(padding: Sequence[tuple[int, int]]) -> list[int]:
    """Return padding as `F.pad` takes it: from the last dimension on."""
    return [length for sides in reversed(padding) for length in sides]


def same_map_convolution(
    in_channels: int,
    out_channels: int,
    kernel: Sequence[int],
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Module:
    """Build a convolution without bias: (B, in_channels, *S) -> (B, out_channels, *ceil(S / stride)).

    An even kernel has one step more ahead than back.
    """
    convolution: Any = nn.Conv2d if len(kernel) == 2 else nn.Conv1d
    if len(kernel) == 2 and stride > 1 and set(kernel) == {1} and groups == 1 and in_channels < ONEDNN_BLOCK:
        convolution = SubsampledConv2d
    padding = padding_of(kernel, dilation)
    is_even = any(before != after for before, after in padding)
    layer: nn.Module = convolution(
        in_channels,
        out_channels,
        tuple(kernel),
        stride,
        0 if is_even else tuple(before for before, _ in padding),
        dilation,
        groups,
        bias=False,
    )
    if not is_even:
        return layer
    pad: Any = nn.ZeroPad2d if len(kernel) == 2 else nn.ZeroPad1d
    return nn.Sequential(pad(tuple(flat_padding(padding))), layer)


class ConvUnit(nn.Module):
    """Convolution, norm, activation: (B, in_channels, *S) -> (B, out_channels, *ceil(S / stride)).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Its size in each dimension.
        stride: Of the convolution.
        dilation: Of the convolution.
        activation: After the norm; None for none.
        is_separable: Make it of a depthwise and a 1x1 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        *,
        stride: int = 1,
        dilation: int = 1,
        activation: CellActivation | None,
        is_separable: bool = False,
    ) -> None:
        super().__init__()
        if is_separable:
            depthwise = same_map_convolution(in_channels, in_channels, kernel, stride=stride, groups=in_channels)
            pointwise = same_map_convolution(in_channels, out_channels, (1,) * len(kernel))
            self.convolution: nn.Module = nn.Sequential(depthwise, pointwise)
        else:
            self.convolution = same_map_convolution(in_channels, out_channels, kernel, stride=stride, dilation=dilation)
        self.norm = MapNorm(out_channels, len(kernel))
        self.activation = nn.Identity() if activation is None else make_activation(activation)
        self.stride = stride

    def forward(self, maps: Tensor, extent: Extent) -> Tensor:
        """(B, in_channels, *S) float -> (B, out_channels, *ceil(S / stride)) float."""
        normed = self.norm(self.convolution(maps), every(extent, self.stride))
        result: Tensor = self.activation(normed)
        return result


class MapPool(nn.Module):
    """Maximum or mean of a window, of which padding is left out: (B, C, *S) -> (B, C, *ceil(S / stride)).

    Args:
        kernel: Size of the window in each dimension.
        stride: Of the windows.
        is_max: Maximum instead of mean.
    """

    def __init__(self, kernel: Sequence[int], *, stride: int = 1, is_max: bool) -> None:
        super().__init__()
        self.kernel = tuple(kernel)
        self.stride = stride
        self.is_max = is_max
        padding = padding_of(kernel)
        self.padding = flat_padding(padding)
        self.both_sides = tuple(before for before, _ in padding) if self.padding[::2] == self.padding[1::2] else None

    def forward(self, maps: Tensor, extent: Extent) -> Tensor:
        """(B, C, *S) float -> (B, C, *ceil(S / stride)) float."""
        if extent is None:
            return self._pool_image(maps)
        valid, kept = extent.steps.valid.to(maps.dtype), extent.every(self.stride).steps.valid.to(maps.dtype)
        if self.is_max:
            lowest = torch.finfo(maps.dtype).min  # zeros would win over negative values
            padded = F.pad(maps.masked_fill(valid == 0, lowest), self.padding, value=lowest)
            # With indices, since torch cannot trace the function without them for any length.
            return F.max_pool1d(padded, self.kernel, self.stride, return_indices=True)[0] * kept
        padded, counted = F.pad(maps, self.padding), F.pad(valid, self.padding)
        share = F.avg_pool1d(counted, self.kernel, self.stride).clamp(min=0.5 / self.kernel[0])
        return F.avg_pool1d(padded, self.kernel, self.stride) / share * kept

    def _pool_image(self, maps: Tensor) -> Tensor:
        if self.both_sides is not None:
            if self.is_max:
                return F.max_pool2d(maps, self.kernel, self.stride, self.both_sides)
            return F.avg_pool2d(maps, self.kernel, self.stride, self.both_sides, count_include_pad=False)
        if self.is_max:
            return F.max_pool2d(F.pad(maps, self.padding, value=float("-inf")), self.kernel, self.stride)
        counted = F.pad(torch.ones_like(maps[:1, :1]), self.padding)
        share = F.avg_pool2d(counted, self.kernel, self.stride)
        return F.avg_pool2d(F.pad(maps, self.padding), self.kernel, self.stride) / share


class Subsampling(nn.Module):
    """The strided maximum of 2, or of 2x2: (B, C, *S) -> (B, C, *ceil(S / stride)).

    Args:
        stride: Of the windows; with a stride of 4 or more each window has that size.
        dims: 1 for series, 2 for images.
    """

    def __init__(self, stride: int, dims: int) -> None:
        super().__init__()
        self.stride = stride
        self.pool = MapPool((stride,) * dims, stride=stride, is_max=True)
        # Windows begin at multiples of the stride, so that all padding is behind.
        self.pool.padding, self.pool.both_sides = [0, stride - 1] * dims, None

    def forward(self, maps: Tensor, extent: Extent) -> Tensor:
        """(B, C, *S) float -> (B, C, *ceil(S / stride)) float."""
        result: Tensor = self.pool(maps, extent)
        return result


def mean_over_map(maps: Tensor, extent: Extent) -> Tensor:
    """Return the mean over the map, of a series over its steps: (B, C, *S) float -> (B, C) float."""
    return maps.mean(dim=(2, 3)) if extent is None else masked_mean(maps, extent.steps)


class Excitation(nn.Module):
    """Squeeze and excitation (arXiv:1709.01507): the weights of channels follow from the means over the whole map.

    Args:
        channels: C.
        ratio: The two layers are C / ratio wide in between.
        activation: Between both.
    """

    def __init__(self, channels: int, ratio: int, activation: CellActivation) -> None:
        super().__init__()
        squeezed = -(-channels // ratio)
        self.layers = nn.Sequential(
            nn.Linear(channels, squeezed, bias=False),
            make_activation(activation),
            nn.Linear(squeezed, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, maps: Tensor, extent: Extent) -> Tensor:
        """(B, C, *S) float -> the same."""
        weights: Tensor = self.layers(mean_over_map(maps, extent))
        return maps * weights[(..., *[None] * (maps.dim() - 2))]
