"""Mixed operations of a supernet's cell, all edges that read the same maps together, in few large calls.

Legend: N batch, S sources of the node, E edges that read the maps, C channels of the node. A layer-by-layer supernet
makes tens of thousands of calls on tiny tensors; the results here are the same up to rounding, since

- ReLU, poolings and their norms depend on the input, not on the edge: each is computed once;
- the sources of a node are groups of channels that share the weights of their convolutions, each with its own batch
  statistics;
- the weight of an operation is the scale of its batch norm, which otherwise has none;
- between the depthwise and the pointwise part of a separable convolution there is nothing that is not linear. In narrow
  nodes both are one convolution, whose kernel is the product of theirs: fewer calls, and nothing stored in between.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.auto_deeplab.operations import ATROUS_RATE, Atrous, CellNorm
from models.layers.blocks import make_norm
from utils.architecture.genotype import OPERATIONS

# Up to here the products of depthwise and pointwise kernels, in channels-last, are the faster way on a CPU.
WIDEST_COMPOSED = 16
KERNEL_SIZES = (3, 5)
SEPARABLE = ("sep_conv_3x3", "sep_conv_5x5")
ATROUS = ("atrous_conv_3x3", "atrous_conv_5x5")
POOLS = ("max_pool_3x3", "avg_pool_3x3")
WITHOUT_WEIGHTS = slice(OPERATIONS.index(POOLS[0]), OPERATIONS.index("skip") + 1)
WITH_WEIGHTS = slice(OPERATIONS.index(SEPARABLE[0]), OPERATIONS.index(ATROUS[-1]) + 1)


class EdgeWeights(NamedTuple):
    """The weights of the edges that read the same maps, as nodes of one width need them.

    Attributes:
        pooled: (E, 3), the weights of the operations without weights of their own.
        second: (S x 2 x E x C,), those of the separable convolutions, for each channel of their results.
        atrous: (S x 2 x E x C,), those of the atrous ones.
        passing: (E,), those of the channels that no operation computes.
    """

    pooled: Tensor
    second: Tensor
    atrous: Tensor
    passing: Tensor

    @classmethod
    def of(cls, alpha: Tensor, passing: Tensor, *, sources: int, channels: int) -> "EdgeWeights":
        """Spread the weights of operations (E, 8) over sources S and channels C."""
        weights = alpha[:, WITH_WEIGHTS].t().reshape(2, 1, -1, 1).expand(-1, sources, -1, channels)
        # A single edge and source would remain an expanded view, of which a batch norm's backward pass on a CPU reads
        # the memory after the first value (seen with torch 2.14).
        second, atrous = weights.flatten(1).contiguous().unbind()
        return cls(alpha[:, WITHOUT_WEIGHTS], second, atrous, passing)


class MixedEdges(nn.Module):
    """The edges of a cell that read the same maps: on each, every operation, weighted.

    Weights are stacked, so that a cell has few tensors. Their first axis is the role: the first and the second part of
    a separable convolution, then the atrous one. A kernel of 3x3 is computed as one of 5x5 with a border of zeros,
    together with those of 5x5: for such narrow maps, half the calls are worth more than the multiplications.

    Args:
        channels: C.
        num_edges: E.
        num_sources: S.
        atrous: As for `build_operation`.
        norm: After each convolution and pooling, without weights.
    """

    def __init__(self, channels: int, num_edges: int, num_sources: int, *, atrous: Atrous, norm: CellNorm) -> None:
        super().__init__()
        self.channels, self.num_edges, self.num_sources = channels, num_edges, num_sources
        self.is_dense = atrous == "dense"
        roles = 2 if self.is_dense else 3
        for size in KERNEL_SIZES:
            self.register_parameter(f"depthwise_{size}", _kaiming(roles, num_edges, channels, 1, size, size))
            if self.is_dense:
                self.register_parameter(f"dense_{size}", _kaiming(num_edges, channels, channels, size, size))
        self.pointwise = _kaiming(roles, len(KERNEL_SIZES), num_edges, channels, channels, 1, 1)
        units = num_sources * len(KERNEL_SIZES) * num_edges
        self.norms = nn.ModuleDict({name: _norm(norm, units, channels) for name in ("first", "second", "atrous")})
        for name in POOLS:
            self.norms[name] = _norm(norm, num_sources, channels)

    def forward(self, maps: Tensor, weights: EdgeWeights) -> Tensor:
        """Return the weighted sum of the operations on each edge.

        Args:
            maps: (N, S x C, H, W) float.
            weights: Of these edges.

        Returns:
            (E, N, H, W, S, C) in a narrow node, (E, N, S, C, H, W) in a wide one: as the maps lie in memory.
        """
        parts = (self.num_sources, len(KERNEL_SIZES), self.num_edges, self.channels)
        split = split_channels(self._convolved(maps, weights), parts, self.channels)
        # The sources come first of the parts; the sizes of the kernels, then the edges follow.
        place = 4 if is_narrow(self.channels) else 2
        return split.sum(place).movedim(place, 0) + self._pooled(maps, weights.pooled)

    def state(self, operation: str, edge: int, source: int) -> dict[str, Tensor]:
        """Return the weights and statistics of an operation on one edge, by the names of `build_operation`'s."""
        if operation == "skip":
            return {}
        if operation in POOLS:
            state = norm_state(self.norms[operation], self._unit(source))
            return {f"1.{name}": each for name, each in state.items() if name not in ("weight", "bias")}
        position = (SEPARABLE if operation in SEPARABLE else ATROUS).index(operation)
        channels = self._unit((source * len(KERNEL_SIZES) + position) * self.num_edges + edge)
        first, second, atrous = (norm_state(self.norms[name], channels) for name in ("first", "second", "atrous"))
        depthwise = self.get_parameter(f"depthwise_{KERNEL_SIZES[position]}")[:, edge]
        pointwise = self.pointwise[:, position, edge]
        if operation in SEPARABLE:
            return named_parts([depthwise[0], pointwise[0], first, None, depthwise[1], pointwise[1], second])
        if self.is_dense:
            return named_parts([self.get_parameter(f"dense_{KERNEL_SIZES[position]}")[edge], atrous])
        return named_parts([depthwise[2], pointwise[2], atrous])

    def _unit(self, position: int) -> slice:
        """Return the channels of a norm that belong to one of its units."""
        return slice(position * self.channels, (position + 1) * self.channels)

    def _pooled(self, maps: Tensor, weights: Tensor) -> Tensor:
        """Return the part of the operations without weights: poolings with a norm, and skip."""
        most = normalise(self.norms["max_pool_3x3"], F.max_pool2d(maps, 3, stride=1, padding=1))
        mean = F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)
        mean = normalise(self.norms["avg_pool_3x3"], mean)
        shape = (self.num_sources, self.channels)
        stacked = torch.stack([split_channels(each, shape, self.channels) for each in (most, mean, maps)])
        mixed = weights.to(stacked.dtype) @ stacked.flatten(1)
        return mixed.view(-1, *stacked.shape[1:])

    def _convolved(self, maps: Tensor, weights: EdgeWeights) -> Tensor:
        """Return the weighted convolutions, those of equal kernel size added: (N, S x 2 x E x C, H, W)."""
        sources = self.num_sources
        parts = self._separable_parts()
        positive = maps.relu()
        first = convolve(positive, parts[0], sources=sources, is_shared=True)
        # Nothing else reads the result of a norm.
        first = normalise(self.norms["first"], first).relu_()
        second = convolve(first, parts[1], sources=sources, is_shared=False)
        second = normalise(self.norms["second"], second, weights.second)
        if self.is_dense:
            dense = self._widest_kernels("dense", axis=0)
            wide = grouped_convolution(positive, dense, groups=sources, sources=sources, dilation=ATROUS_RATE)
        else:
            wide = convolve(positive, parts[2], sources=sources, is_shared=True, dilation=ATROUS_RATE)
        return second.add_(normalise(self.norms["atrous"], wide, weights.atrous))

    def _separable_parts(self) -> list[tuple[Tensor, ...]]:
        """Return the kernels of each role: in a narrow node (composed,), in a wide one (depthwise, pointwise)."""
        depthwise, pointwise = self._widest_kernels("depthwise"), self.pointwise.flatten(1, 2)
        if is_narrow(self.channels):
            return [(kernels,) for kernels in (pointwise * depthwise.transpose(2, 3)).unbind()]
        return list(zip(depthwise.unbind(), pointwise.unbind(), strict=True))

    def _widest_kernels(self, name: str, axis: int = 1) -> Tensor:
        """Return kernels of both sizes as kernels of the larger one, joined along the axis of the edges."""
        # Not get_parameter: in a copy of the network for another device they are plain tensors.
        narrow, widest = (getattr(self, f"{name}_{size}") for size in KERNEL_SIZES)
        border = (KERNEL_SIZES[1] - KERNEL_SIZES[0]) // 2
        return torch.cat([F.pad(narrow, (border,) * 4), widest], dim=axis)


def is_narrow(channels: int) -> bool:
    """Whether a node of this width computes in channels-last, with composed kernels."""
    return channels <= WIDEST_COMPOSED


def split_channels(maps: Tensor, parts: tuple[int, ...], channels: int) -> Tensor:
    """Split the channels K, as a view: into (N, H, W, *parts) in a narrow node, into (N, *parts, H, W) in a wide one.

    Args:
        maps: (N, K, H, W), in the memory format of the node.
        parts: Lengths, K their product.
        channels: Width of the node.
    """
    if is_narrow(channels):
        rows = maps.permute(0, 2, 3, 1)
        return rows.view(*rows.shape[:3], *parts)
    return maps.view(maps.shape[0], *parts, *maps.shape[2:])


def join_channels(maps: Tensor, channels: int) -> Tensor:
    """Undo `split_channels`: five or more axes -> (N, K, H, W)."""
    return maps.flatten(3).permute(0, 3, 1, 2) if is_narrow(channels) else maps.flatten(1, -3)


def normalise(norm: nn.Module, maps: Tensor, scale: Tensor | None = None) -> Tensor:
    """Apply a norm without weights, then multiply by a scale per channel.

    Args:
        norm: A batch norm, as it was built or synchronised over processes.
        maps: (N, K, H, W).
        scale: (K,).
    """
    if type(norm) not in (nn.BatchNorm2d, nn.GroupNorm):
        normed: Tensor = norm(maps)
        return normed.clone() if scale is None else normed * scale.to(normed.dtype)[:, None, None]
    if isinstance(norm, nn.GroupNorm):
        return F.group_norm(maps, norm.num_groups, scale, None, norm.eps)
    assert isinstance(norm, nn.BatchNorm2d)
    uses_running = not norm.training or norm.track_running_stats
    share = norm.momentum
    if share is None:  # the running statistics are means over all batches so far
        share = 0.0
        if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
            share = 1 / int(norm.num_batches_tracked.add_(1))
    return F.batch_norm(
        maps,
        norm.running_mean if uses_running else None,
        norm.running_var if uses_running else None,
        scale,
        None,
        norm.training,
        share,
        norm.eps,
    )


def norm_state(norm: nn.Module, channels: slice) -> dict[str, Tensor]:
    """Return the state of a norm with weights that computes the same on some of the channels."""
    width = channels.stop - channels.start
    state = {"weight": torch.ones(width), "bias": torch.zeros(width)}
    if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
        state |= {"running_mean": norm.running_mean[channels], "running_var": norm.running_var[channels]}
        state["num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    return state


def named_parts(parts: Sequence[Tensor | dict[str, Tensor] | None]) -> dict[str, Tensor]:
    """Return the state of a sequence of convolutions (their weight), norms (their state) and others without state."""
    state: dict[str, Tensor] = {}
    for position, part in enumerate(parts):
        values = {"weight": part} if isinstance(part, Tensor) else part or {}
        state |= {f"{position}.{name}": value.detach().clone() for name, value in values.items()}
    return state


def convolve(maps: Tensor, kernels: tuple[Tensor, ...], *, sources: int, is_shared: bool, dilation: int = 1) -> Tensor:
    """Convolve separably, on several edges at once, each source with the same weights.

    Args:
        maps: (N, S x C, H, W) if all edges read the same maps, else (N, S x E x C, H, W).
        kernels: Depthwise (E, C, 1, k, k) and pointwise (E, C, C, 1, 1), or their product.
        sources: S.
        is_shared: Whether all edges read the same maps.
        dilation: Of the depthwise part.

    Returns:
        (N, S x E x C, H, W).
    """
    depthwise, edges = kernels[0], len(kernels[0])
    if len(kernels) == 1:
        groups = sources if is_shared else sources * edges
        return grouped_convolution(maps, depthwise, groups=groups, sources=sources, dilation=dilation)
    padding, channels = dilation * (depthwise.shape[-1] // 2), depthwise.shape[1]
    # A channel that has several outputs has them next to each other.
    spread = (
        (depthwise.transpose(0, 1) if is_shared else depthwise)
        .flatten(0, 1)
        .expand(sources, -1, -1, -1, -1)
        .flatten(0, 1)
    )
    spread = F.conv2d(maps, spread, padding=padding, dilation=dilation, groups=maps.shape[1])
    shape = (sources, channels, edges) if is_shared else (sources, edges, channels)
    spread = spread.reshape(maps.shape[0], *shape, -1)
    if is_shared:
        spread = spread.transpose(2, 3)
    joined = kernels[1].flatten(2) @ spread
    return joined.view(maps.shape[0], -1, *maps.shape[2:])


def grouped_convolution(maps: Tensor, kernels: Tensor, *, groups: int, sources: int, dilation: int) -> Tensor:
    """Convolve each group of channels with kernels (E, C, C, k, k), the same ones for each source, see `convolve`."""
    padding = dilation * (kernels.shape[-1] // 2)
    return F.conv2d(maps, repeated(kernels, sources), padding=padding, dilation=dilation, groups=groups)


def repeated(kernels: Tensor, sources: int) -> Tensor:
    """Return kernels (A, B, ...) as (S x A x B, ...): for each source the same."""
    joined = kernels.flatten(0, 1)
    return joined if sources == 1 else joined.repeat(sources, 1, 1, 1)


def _kaiming(*shape: int) -> nn.Parameter:
    """Return weights for the ReLU before them (arXiv:1502.01852); the last three axes are those of one output."""
    inputs = shape[-3] * shape[-2] * shape[-1]
    return nn.Parameter(torch.randn(shape) * (2 / inputs) ** 0.5)


def _norm(norm: CellNorm, units: int, channels: int) -> nn.Module:
    """Build a norm without weights for several units of channels, which are as independent as in norms of their own."""
    if norm == "batch":
        return make_norm(norm, units * channels, affine=False)
    one = make_norm(norm, channels, affine=False)
    assert isinstance(one, nn.GroupNorm)
    return nn.GroupNorm(units * one.num_groups, units * channels, affine=False)
