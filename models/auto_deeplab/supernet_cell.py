"""A node of the supernet: the cell at one layer and stride, with all its sources and operations.

Legend: N batch, S sources, C channels of the node, B blocks, P = C / K channels that operations compute.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.auto_deeplab.cell import shrink
from models.auto_deeplab.mixed import (
    EdgeWeights,
    MixedEdges,
    is_narrow,
    join_channels,
    norm_state,
    normalise,
    split_channels,
)
from models.auto_deeplab.operations import Atrous, CellNorm
from models.layers.blocks import enlarge, make_norm
from utils.architecture.genotype import Genotype, input_names

Mixing = Literal["outputs", "inputs"]
SMALLEST_TOTAL = 1e-12  # of the weights of a node's sources, below which the node gives nothing


class SupernetInput(nn.Module):
    """Bring maps to the stride and the width of a node: 1x1 convolution and norm at the smaller of both sizes.

    As the decoded network does, but its norm has no weights: they would blur the effect of alpha and beta.

    Args:
        in_channels: Channels of the maps.
        channels: C.
        doublings: 1 if the maps are at half the node's stride, 0 at the same, -1 at twice it.
    """

    def __init__(self, in_channels: int, channels: int, doublings: int, *, norm: CellNorm) -> None:
        super().__init__()
        self.shrink_factor, self.enlarge_factor = 2 ** max(0, doublings), 2 ** max(0, -doublings)
        self.convolution = nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)
        self.norm = make_norm(norm, channels, affine=False)
        nn.init.kaiming_normal_(self.convolution.weight)

    def forward(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """(N, in_channels, h, w) -> (N, C, *size) float."""
        if maps.device.type == "cpu":  # there, cells compute in full precision, see `SupernetCell.forward`
            maps = maps.to(self.convolution.weight.dtype)
        narrow = normalise(self.norm, self.convolution(shrink(maps, self.shrink_factor)))
        return enlarge(narrow, self.enlarge_factor, size)

    def state(self) -> dict[str, Tensor]:
        """Return weights and statistics by the names of `CellInput`'s."""
        weight = self.convolution.weight.detach()
        norm = norm_state(self.norm, slice(0, len(weight)))
        return {"convolution.weight": weight.clone(), **{f"norm.{name}": each.clone() for name, each in norm.items()}}


class SupernetCell(nn.Module):
    """The cell of one layer and stride, fed by up to three sources of the layer before.

    With `mixing` "outputs", as in the paper, the cell runs once per source, and its results are summed by beta. With
    "inputs" the sources are averaged by beta before one run, and the result is multiplied by the sum of their beta: the
    same for a single source, and for a linear cell. So a node that little leads to still gives little.

    With `partial_channels` K > 1, an edge computes its operations on the first 1 / K of the channels and passes the
    others on (PC-DARTS, arXiv:1907.05737, section 3.2). Each block then shuffles its channels as in ShuffleNet: on each
    that was computed follow K - 1 that passed. So the next edges compute on some of both kinds if P is larger than 1.
    With P = 1 (K = C) all blocks of a node compute on one and the same channel, and only the 1x1 convolutions between
    cells mix it with the others.

    Args:
        channels: C.
        num_blocks: B.
        sources: Channels and doublings of the stride (see `SupernetInput`) of each source.
        two_back: Those of the maps two layers back; None if there are none, whose edges then give nothing.
        mixing: See above.
        partial_channels: K, a divisor of C.
        atrous: See `MixedEdges`.
        norm: See `MixedEdges`.
    """

    def __init__(
        self,
        channels: int,
        num_blocks: int,
        sources: Sequence[tuple[int, int]],
        two_back: tuple[int, int] | None,
        *,
        mixing: Mixing,
        partial_channels: int,
        atrous: Atrous,
        norm: CellNorm,
    ) -> None:
        super().__init__()
        self.mixing, self.partial_channels = mixing, partial_channels
        self.computed = channels // partial_channels
        self.num_parallel = len(sources) if mixing == "outputs" else 1
        self.one_back = nn.ModuleList(
            SupernetInput(width, channels, doublings, norm=norm) for width, doublings in sources
        )
        self.two_back = None if two_back is None else SupernetInput(two_back[0], channels, two_back[1], norm=norm)
        # Inputs of a cell: the maps two layers back, those of the layer before, and each block but the last.
        edges = [num_blocks, num_blocks, *range(num_blocks - 1, 0, -1)]
        parallel = [1] + [self.num_parallel] * num_blocks
        self.edges = nn.ModuleList(
            MixedEdges(self.computed, count, each, atrous=atrous, norm=norm) if two_back or position else nn.Identity()
            for position, (count, each) in enumerate(zip(edges, parallel, strict=True))
        )

    def forward(
        self,
        sources: Sequence[Tensor],
        two_back: Tensor | None,
        size: Sequence[int],
        weights: Sequence[EdgeWeights],
        beta: Tensor,
    ) -> Tensor:
        """Return the maps of the node, (N, B x C, *size) float.

        Args:
            sources: Maps of the layer before, in the order of the constructor's.
            two_back: Maps two layers back.
            size: (H, W) of the node.
            weights: Of the edges from each of the maps that a cell reads.
            beta: (S,), the weight of each source.
        """
        # oneDNN computes many such narrow convolutions wrongly or slowly in bf16 (trainer/runtime/cpu_convolutions.py).
        with torch.autocast("cpu", enabled=False):
            brought = [module(maps, size) for module, maps in zip(self.one_back, sources, strict=True)]
            total = beta.sum()
            if self.mixing == "outputs":
                one_back = torch.cat(brought, dim=1)
            else:
                shares = (beta / total.clamp(min=SMALLEST_TOTAL)).unbind()
                one_back = torch.stack([maps * share for maps, share in zip(brought, shares, strict=True)]).sum(0)
            finer = None if self.two_back is None or two_back is None else self.two_back(two_back, size)
            blocks = self._blocks(finer, one_back, weights)
            return self._weighted(blocks, beta if self.mixing == "outputs" else total[None])

    def spread(self, alpha: Sequence[Tensor], passing: Sequence[Tensor]) -> list[EdgeWeights]:
        """Return the weights of edges as the cell needs them; equal cells, by `weights_key`, may share them.

        Args:
            alpha: Of each of the maps that a cell reads, the weights of the operations on its edges, (E, 8).
            passing: The same for channels that pass, (E,).
        """
        parallel = [1] + [self.num_parallel] * (len(alpha) - 1)
        return [
            EdgeWeights.of(*each, sources=count, channels=self.computed)
            for *each, count in zip(alpha, passing, parallel, strict=True)
        ]

    @property
    def weights_key(self) -> tuple[int, int]:
        """The sizes of a cell on which `spread` depends."""
        return self.num_parallel, self.computed

    def _blocks(self, two_back: Tensor | None, one_back: Tensor, weights: Sequence[EdgeWeights]) -> list[Tensor]:
        """Return the blocks, split as by `split_channels` into S and C."""
        # Sums over the edges that lead to each block; those of the maps two layers back are the same for all sources.
        waiting = self._read(1, one_back, weights[1])
        if two_back is not None:
            waiting = [maps + more for maps, more in zip(waiting, self._read(0, two_back, weights[0]), strict=True)]
        blocks: list[Tensor] = []
        for position in range(2, len(self.edges) + 1):
            parts = [torch.split(maps, [1, len(maps) - 1]) for maps in waiting]
            blocks.append(self._shuffled([first[0] for first, _ in parts]))
            if position < len(self.edges):
                edges = self._read(position, join_channels(blocks[-1], self.computed), weights[position])
                waiting = [rest + more for (_, rest), more in zip(parts, edges, strict=True)]
        return blocks

    def _read(self, position: int, maps: Tensor, weights: EdgeWeights) -> list[Tensor]:
        """Return the results of each edge for maps (N, S x C, H, W): computed channels and, if K > 1, those that pass.

        Both are (E, ...), split as by `split_channels` into S and P or C, of which the first P are of no use.
        """
        layout = torch.channels_last if is_narrow(self.computed) else torch.contiguous_format
        maps = maps.contiguous(memory_format=layout)
        if self.partial_channels == 1:
            return [self.edges[position](maps, weights)]
        width = self.computed * self.partial_channels
        parts = split_channels(maps, (maps.shape[1] // width, width), self.computed)
        computed = parts.narrow(self._channel_axis, 0, self.computed)
        computed = join_channels(computed, self.computed).contiguous(memory_format=layout)
        passed = (weights.passing.to(maps.dtype)[:, None] @ parts.reshape(1, -1)).view(-1, *parts.shape)
        return [self.edges[position](computed, weights), passed]

    def _shuffled(self, parts: Sequence[Tensor]) -> Tensor:
        """Return a block from the results of `_read`: each of the P computed channels, K - 1 that passed after it."""
        if len(parts) == 1:
            return parts[0]
        computed, passed = parts
        axis = computed.dim() + self._channel_axis
        grouped = torch.unflatten(passed, axis, (self.partial_channels, self.computed))
        others = grouped.narrow(axis, 1, self.partial_channels - 1).transpose(axis, axis + 1)
        return torch.cat((computed.unsqueeze(axis + 1), others), axis + 1).flatten(axis, axis + 1)

    @property
    def _channel_axis(self) -> int:
        """Axis of the channels in maps that are split by `split_channels`, from the end."""
        return -1 if is_narrow(self.computed) else -3

    def _weighted(self, blocks: Sequence[Tensor], weights: Tensor) -> Tensor:
        """Return the blocks of all sources, split as by `split_channels` into S and C, as weighted sum over S."""
        if is_narrow(self.computed):
            total = (torch.stack(list(blocks), dim=4) * weights[:, None, None]).sum(3)
        else:
            total = (torch.stack(list(blocks), dim=2) * weights[:, None, None, None, None]).sum(1)
        return join_channels(total, self.computed).relu_()

    def state(self, genotype: Genotype, source: int, *, has_two_back: bool) -> dict[str, Tensor]:
        """Return the weights and statistics of a decoded cell, by the names of `DeepLabCell`'s.

        Args:
            genotype: Its blocks are those of the cell.
            source: Position of the source that the cell reads.
            has_two_back: Whether the decoded cell reads the same maps two layers back; otherwise its input and edges
                have no counterpart here and are left out.
        """
        one_back = self.one_back[source]
        assert isinstance(one_back, SupernetInput)
        inputs = {"one_back": one_back}
        if has_two_back and self.two_back is not None:
            inputs["two_back"] = self.two_back
        state = {
            f"inputs.{name}.{key}": each for name, module in inputs.items() for key, each in module.state().items()
        }
        names = input_names(len(genotype.blocks))
        for block, edges in enumerate(genotype.blocks):
            for name, operation in edges:
                if name == "two_back" and name not in inputs:
                    continue
                place = names.index(name)
                parallel = source if place and self.num_parallel > 1 else 0
                # Each block is read by those after it, the two inputs by all.
                mixed = self.edges[place]
                assert isinstance(mixed, MixedEdges)
                values = mixed.state(operation, block - max(0, place - 1), parallel)
                state |= {f"blocks.{block}.{name}.{key}": each for key, each in values.items()}
        return state
