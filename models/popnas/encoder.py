"""The cells of a network in their order, as its plan has them. B batch, C channels, S the size of a map."""

import logging

import torch
from torch import Tensor, nn

from models.popnas.cell import PlacedCell
from models.popnas.layers import ConvUnit, Extent, MapNorm, every, make_activation
from utils.architecture.cells.cell import Cell
from utils.architecture.cells.network import STEM_STRIDES, CellActivation, EnlargePlan, NetworkPlan

logger = logging.getLogger(__name__)
States = dict[int, tuple[Tensor, Extent]]


class EnlargedJoin(nn.Module):
    """A transposed convolution that doubles the size, concatenated with a map of the encoder and narrowed.

    Args:
        coarse_channels: Channels of the coarse map.
        skip_channels: Channels of the encoder's map.
        channels: C.
        activation: After each convolution.
    """

    def __init__(self, coarse_channels: int, skip_channels: int, channels: int, *, activation: CellActivation) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(coarse_channels, channels, 2, 2, bias=False)
        self.norm = MapNorm(channels, 2)
        self.activation = make_activation(activation)
        self.narrow = ConvUnit(channels + skip_channels, channels, (1, 1), activation=activation)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """(B, coarse_channels, h, w) float, (B, skip_channels, H, W) float -> (B, C, H, W) float."""
        height, width = skip.shape[2:]
        enlarged = self.activation(self.norm(self.enlarge(coarse)[:, :, :height, :width], None))
        result: Tensor = self.narrow(torch.cat((enlarged, skip), dim=1), None)
        return result


class CellStack(nn.Module):
    """Stem and cells; those that no path to an output leads through are not there.

    Args:
        cell: The cell at each place.
        plan: The places.
        drop_path: Probability of dropping a path for a sample, in the last cell at the end of the training.
    """

    def __init__(self, cell: Cell, plan: NetworkPlan, *, drop_path: float) -> None:
        super().__init__()
        options, style = plan.options, plan.options.cells
        self.plan = plan
        self.stem = None
        if options.macro.stem != "none":
            self.stem = ConvUnit(
                options.in_channels,
                plan.shapes[0].filters,
                (3,) * options.dims,
                stride=STEM_STRIDES[options.macro.stem],
                activation=style.activation,
            )
        self.nodes = nn.ModuleList()
        for node in plan.built:
            if isinstance(node, EnlargePlan):
                widths = (*(plan.shapes[source].filters for source in node.sources), node.shape.filters)
                self.nodes.append(EnlargedJoin(*widths, activation=style.activation))
            else:
                self.nodes.append(PlacedCell(cell, node, dims=options.dims, style=style, drop_path=drop_path))
        self.wanted = {plan.output, *plan.skips, *(each.state for each in plan.exits)}
        self.last_reader = {source: node.state for node in plan.built for source in node.sources}
        built = len(plan.built_cells)
        if built < plan.num_cells:
            logger.info(
                "%d of the %d cells are built: no path to the output leads through the others, as the cell reads only "
                "the inputs %s.",
                built,
                plan.num_cells,
                ", ".join(map(str, plan.lookbacks)),
            )

    def forward(self, inputs: Tensor, extent: Extent) -> States:
        """(B, C, *S) float -> maps with extents of the output, of the levels that a decoder reads, and of the exits."""
        stem = inputs if self.stem is None else self.stem(inputs, extent)
        states: States = {0: (stem, every(extent, self.plan.shapes[0].stride))}
        for node, module in zip(self.plan.built, self.nodes, strict=True):
            read = [states[source] for source in node.sources]
            if isinstance(node, EnlargePlan):
                states[node.state] = module(*(maps for maps, _ in read)), None
            else:
                maps = module([each for each, _ in read], [each for _, each in read])
                states[node.state] = maps, every(extent, node.shape.stride)
            for source in node.sources:
                if self.last_reader[source] == node.state and source not in self.wanted:
                    states.pop(source, None)
        return states
