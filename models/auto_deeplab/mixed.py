"""Mixed operations of a supernet's cell, all edges that read the same maps together, in few large calls.

Legend: N batch, S sources of the node, E edges that read the maps, C channels of the node. A layer-by-layer supernet
makes tens of thousands of calls on tiny tensors; the results here are the same up to rounding, since

- ReLU, poolings and their norms depend on what is read, not on the edge: each is computed once;
- the sources of a node are groups of channels that share the weights of their convolutions, each with its own batch
  statistics;
- the weight of an operation is the scale of its batch norm, which otherwise has none;
- between the depthwise and the pointwise part of a separable convolution there is nothing that is not linear. In narrow
  nodes both are one convolution, whose kernel is the product of theirs: fewer calls, and nothing stored in between.
"""

from collections.abc import Sequence

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
WITHOUT_WEIGHTS = slice(OPERATIONS.index("max_pool_3x3"), OPERATIONS.index("skip") + 1)


class MixedEdges(nn.Module):
    """The edges of a cell that read the same maps: on each, every operation, weighted.

    Weights are stacked by role, so that a cell has few tensors. Their first axis is the role: for kernels of both sizes
    the first and the second separable convolution, then the atrous one.

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
        is_separable = atrous == "separable"
        roles = 3 if is_separable else 2
        for size in KERNEL_SIZES:
            self.register_parameter(f"depthwise_{size}", _kaiming(roles, num_edges, channels, 1, size, size))
            if not is_separable:
                self.register_parameter(f"dense_{size}", _kaiming(num_edges, channels, channels, size, size))
        self.pointwise = _kaiming(len(KERNEL_SIZES), roles, num_edges, channels, channels, 1, 1)
        names = (*(f"{name}_{part}" for name in SEPARABLE for part in ("first", "second")), *ATROUS)
        self.norms = nn.ModuleDict({name: _norm(norm, num_sources * num_edges, channels) for name in names})
        for name in ("max_pool_3x3", "avg_pool_3x3"):
            self.norms[name] = _norm(norm, num_sources, channels)

    def forward(self, maps: Tensor, alpha: Tensor) -> Tensor:
        """Return the weighted sum of the operations on each edge.

        Args:
            maps: (N, S x C, H, W) float.
            alpha: (E, 8), the weight of each operation on each edge.

        Returns:
            (E, N, H, W, S, C) in a narrow node, (E, N, S, C, H, W) in a wide one: as the maps lie in memory.
        """
        total = self._convolved(maps, alpha)
        return split_channels(total, (self.num_sources, self.num_edges, self.channels), self.channels).movedim(
            4 if is_narrow(self.channels) else 2, 0
        ) + self._pooled(maps, alpha)

    def state(self, operation: str, edge: int, source: int) -> dict[str, Tensor]:
        """Return the weights and statistics of an operation on one edge, by the names of `build_operation`'s."""
        if operation == "skip":
            return {}
        norms = {name: norm_state(norm, self._channels_of(name, edge, source)) for name, norm in self.norms.items()}
        if operation not in SEPARABLE + ATROUS:
            return {f"1.{name}": each for name, each in norms[operation].items() if name not in ("weight", "bias")}
        position = (SEPARABLE if operation in SEPARABLE else ATROUS).index(operation)
        depthwise = self.get_parameter(f"depthwise_{KERNEL_SIZES[position]}")[:, edge]
        pointwise = self.pointwise[position, :, edge]
        if operation in SEPARABLE:
            first, second = (norms[f"{operation}_{part}"] for part in ("first", "second"))
            return named_parts([depthwise[0], pointwise[0], first, None, depthwise[1], pointwise[1], second])
        if len(depthwise) > 2:
            return named_parts([depthwise[2], pointwise[2], norms[operation]])
        return named_parts([self.get_parameter(f"dense_{KERNEL_SIZES[position]}")[edge], norms[operation]])

    def _channels_of(self, norm: str, edge: int, source: int) -> slice:
        """Return the channels of one edge and source in a norm."""
        unit = source if norm in OPERATIONS[WITHOUT_WEIGHTS] else source * self.num_edges + edge
        return slice(unit * self.channels, (unit + 1) * self.channels)

    def _pooled(self, maps: Tensor, alpha: Tensor) -> Tensor:
        """Return the part of the operations without weights: poolings with a norm, and skip."""
        most = normalise(self.norms["max_pool_3x3"], F.max_pool2d(maps, 3, stride=1, padding=1))
        mean = F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)
        mean = normalise(self.norms["avg_pool_3x3"], mean)
        shape = (self.num_sources, self.channels)
        stacked = torch.stack([split_channels(each, shape, self.channels) for each in (most, mean, maps)])
        mixed = alpha[:, WITHOUT_WEIGHTS].to(stacked.dtype) @ stacked.flatten(1)
        return mixed.view(-1, *stacked.shape[1:])

    def _convolved(self, maps: Tensor, alpha: Tensor) -> Tensor:
        """Return the part of the convolutions: (N, S x E x C, H, W)."""
        sources = self.num_sources
        positive = maps.relu()
        # A single edge and source would remain an expanded view, of which a batch norm's backward pass on a CPU reads
        # the memory after the first value (seen with torch 2.14).
        scales = alpha.t()[:, None, :, None].expand(-1, sources, -1, self.channels).flatten(1).contiguous().unbind()
        total: Tensor | None = None
        for position, (size, separable, atrous) in enumerate(zip(KERNEL_SIZES, SEPARABLE, ATROUS, strict=True)):
            depthwise = self.get_parameter(f"depthwise_{size}").unbind()
            pointwise = self.pointwise[position].unbind()
            first = convolve(positive, depthwise[0], pointwise[0], sources=sources, is_shared=True)
            # Nothing else reads the result of a norm.
            first = normalise(self.norms[f"{separable}_first"], first).relu_()
            second = convolve(first, depthwise[1], pointwise[1], sources=sources, is_shared=False)
            second = normalise(self.norms[f"{separable}_second"], second, scales[OPERATIONS.index(separable)])
            if len(depthwise) > 2:
                wide = convolve(
                    positive, depthwise[2], pointwise[2], sources=sources, is_shared=True, dilation=ATROUS_RATE
                )
            else:
                dense = self.get_parameter(f"dense_{size}")
                wide = grouped_convolution(positive, dense, groups=sources, sources=sources, dilation=ATROUS_RATE)
            wide = normalise(self.norms[atrous], wide, scales[OPERATIONS.index(atrous)])
            total = second.add_(wide) if total is None else total.add_(second).add_(wide)
        assert total is not None
        return total


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
    return F.batch_norm(
        maps,
        norm.running_mean if uses_running else None,
        norm.running_var if uses_running else None,
        scale,
        None,
        norm.training,
        norm.momentum or 0.0,
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


def convolve(
    maps: Tensor, depthwise: Tensor, pointwise: Tensor, *, sources: int, is_shared: bool, dilation: int = 1
) -> Tensor:
    """Convolve separably, on several edges at once, each source with the same weights.

    Args:
        maps: (N, S x C, H, W) if all edges read the same maps, else (N, S x E x C, H, W).
        depthwise: (E, C, 1, k, k).
        pointwise: (E, C, C, 1, 1).
        sources: S.
        is_shared: Whether all edges read the same maps.
        dilation: Of the depthwise part.

    Returns:
        (N, S x E x C, H, W).
    """
    edges, channels = depthwise.shape[:2]
    if is_narrow(channels):
        kernels = pointwise * depthwise.transpose(1, 2)
        return grouped_convolution(
            maps, kernels, groups=sources if is_shared else sources * edges, sources=sources, dilation=dilation
        )
    padding = dilation * (depthwise.shape[-1] // 2)
    # A channel that has several outputs has them next to each other.
    kernels = (depthwise.transpose(0, 1) if is_shared else depthwise).flatten(0, 1).repeat(sources, 1, 1, 1)
    spread = F.conv2d(maps, kernels, padding=padding, dilation=dilation, groups=maps.shape[1])
    shape = (sources, channels, edges) if is_shared else (sources, edges, channels)
    spread = spread.reshape(maps.shape[0], *shape, -1)
    if is_shared:
        spread = spread.transpose(2, 3)
    joined = pointwise.flatten(2) @ spread
    return joined.view(maps.shape[0], -1, *maps.shape[2:])


def grouped_convolution(maps: Tensor, kernels: Tensor, *, groups: int, sources: int, dilation: int) -> Tensor:
    """Convolve each group of channels with kernels (E, C, C, k, k), the same ones for each source, see `convolve`."""
    padding = dilation * (kernels.shape[-1] // 2)
    kernels = kernels.flatten(0, 1).repeat(sources, 1, 1, 1)
    return F.conv2d(maps, kernels, padding=padding, dilation=dilation, groups=groups)


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
