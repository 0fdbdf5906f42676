"""A cell as a search found it, at its place in a network. B batch, C channels, S the size of a map."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.drop_path import SurvivingPaths
from models.popnas.layers import ConvUnit, Excitation, Extent, Subsampling, every
from models.popnas.operations import MapSequence, NoOperation, build_block_operation
from utils.architecture.cells.cell import Block, Cell
from utils.architecture.cells.costs import SE_OUTPUT_RATIO
from utils.architecture.cells.network import CellOptions, CellPlan, LookbackPlan
from utils.architecture.cells.operators import read_operator


class JoinedBlock(nn.Module):
    """Two operations, each on an input, and the sum or mean of their results.

    Args:
        block: The inputs and operators of both sides.
        inputs: Width and stride of each side's input in terms of the result.
        channels: C, the width of the result.
        dims: 1 for series, 2 for images.
        style: Of the cell.
        drop_path: Probability of dropping a side for a sample, at the end of the training.
    """

    def __init__(
        self,
        block: Block,
        inputs: Sequence[tuple[int, int]],
        channels: int,
        *,
        dims: int,
        style: CellOptions,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.sides = nn.ModuleList(
            build_block_operation(
                read_operator(text, dims), width, channels, stride=stride, activation=style.activation
            )
            for text, (width, stride) in zip(block.operators, inputs, strict=True)
        )
        self.drop_path = SurvivingPaths(drop_path) if drop_path > 0 else None
        self.is_mean = style.block_join == "avg"

    def forward(self, inputs: Sequence[tuple[Tensor, Extent]]) -> Tensor:
        """Maps and extents of both inputs -> (B, C, *S) float."""
        paths = [side(*each) for side, each in zip(self.sides, inputs, strict=True)]
        if self.drop_path is not None:
            paths = self.drop_path(paths)
        joined: Tensor = paths[0] + paths[1]
        return joined / 2 if self.is_mean else joined


class PlacedCell(nn.Module):
    """Blocks whose results are concatenated and brought to the width of the cell.

    Args:
        cell: Its blocks.
        plan: Its place.
        dims: 1 for series, 2 for images.
        style: Of the cell.
        drop_path: Probability of dropping a path for a sample, in the last cell at the end of the training.
    """

    def __init__(self, cell: Cell, plan: CellPlan, *, dims: int, style: CellOptions, drop_path: float) -> None:
        super().__init__()
        channels, probability = plan.shape.filters, drop_path * plan.depth
        self.plan = plan
        self.reads = [block.inputs for block in cell.blocks]
        self.joined = cell.unused_blocks if style.concat_only_unused else tuple(range(len(cell.blocks)))
        self.inputs = nn.ModuleList(_bring_into_reach(each, dims, style) for each in plan.lookbacks)
        shapes = {each.lookback: each.shape for each in plan.lookbacks}
        self.strides = {read: plan.shape.stride // shape.stride for read, shape in shapes.items()}
        self.blocks = nn.ModuleList()
        for block in cell.blocks:
            sides = [(shapes.get(read, plan.shape).filters, self.strides.get(read, 1)) for read in block.inputs]
            self.blocks.append(JoinedBlock(block, sides, channels, dims=dims, style=style, drop_path=probability))
        has_several = len(self.joined) > 1
        self.drop_path = SurvivingPaths(probability) if has_several and probability > 0 else None
        self.narrow = None
        if has_several:
            width = len(self.joined) * channels
            self.narrow = ConvUnit(width, channels, (1,) * dims, activation=style.activation)
        self.excitation = Excitation(channels, SE_OUTPUT_RATIO, style.activation) if style.se_output else None
        self.shortcut = _build_shortcut(plan, dims) if style.residual else None

    def forward(self, states: Sequence[Tensor], extents: Sequence[Extent]) -> Tensor:
        """The states that it reads, (B, C', *S') float each, with their extents -> (B, C, *S) float."""
        values: dict[int, tuple[Tensor, Extent]] = {}
        for each, bring, maps, extent in zip(self.plan.lookbacks, self.inputs, states, extents, strict=True):
            values[each.lookback] = bring(maps, extent), every(extent, each.shape.stride // each.given.stride)
        nearest = values[self.plan.lookbacks[0].lookback]
        extent = every(nearest[1], self.strides[self.plan.lookbacks[0].lookback])
        for place, (block, reads) in enumerate(zip(self.blocks, self.reads, strict=True)):
            values[place] = block([values[read] for read in reads]), extent
        paths = [values[place][0] for place in self.joined]
        if self.drop_path is not None:
            paths = self.drop_path(paths)
        result = paths[0] if self.narrow is None else self.narrow(torch.cat(paths, dim=1), extent)
        if self.excitation is not None:
            result = self.excitation(result, extent)
        return result if self.shortcut is None else result + self.shortcut(*nearest)


def _bring_into_reach(each: LookbackPlan, dims: int, style: CellOptions) -> nn.Module:
    """Build the layer between an input and the operators: none, a pooling, or a 1x1 convolution to another shape."""
    if each.is_reshaped:
        stride = each.shape.stride // each.given.stride
        widths = each.given.filters, each.shape.filters
        return ConvUnit(*widths, (1,) * dims, stride=stride, activation=style.activation)
    return NoOperation() if each.pool == 1 else Subsampling(each.pool, dims)


def _build_shortcut(plan: CellPlan, dims: int) -> nn.Module:
    """Build the layers that give the nearest input the shape of the cell: pooling, and a 1x1 convolution with norm."""
    shape = plan.lookbacks[0].shape
    stride = plan.shape.stride // shape.stride
    layers: list[tuple[nn.Module, int]] = []
    if stride > 1:
        layers.append((Subsampling(stride, dims), stride))
    if shape.filters != plan.shape.filters:
        layers.append((ConvUnit(shape.filters, plan.shape.filters, (1,) * dims, activation=None), 1))
    return MapSequence(layers) if layers else NoOperation()
