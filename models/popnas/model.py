"""Networks of a cell that POPNAS finds (arXiv:2212.06735): of images, of series, and for segmentation."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from base.base_model import BaseModel
from models.layers.blocks import Count, Probability
from models.layers.drop_path import set_drop_progress
from models.layers.masked import split_padding
from models.popnas.encoder import CellStack
from models.popnas.layers import Extent, SeriesExtent, mean_over_map
from utils.architecture.cells.cell import Cell
from utils.architecture.cells.network import (
    CellOptions,
    MacroOptions,
    MultiOutput,
    NetworkOptions,
    plan_network,
)
from utils.errors import ConfigError

Dims = Literal[1, 2]
DEFAULT_CELLS: dict[int, str] = {
    1: "[(-1, '7 dconv', -2, '3 conv');(-1, 'identity', 0, '5 conv')]",
    2: "[(-1, '3x3 dconv', -2, '3x3 conv');(-1, 'identity', 0, '5x5 dconv')]",
}


class CellClassifier(nn.Module):
    """Mean over the map, dropout, and a linear layer: (B, C, *S) -> (B, K).

    Args:
        channels: C.
        num_classes: K.
        dropout: Fraction of the features that is dropped while training.
    """

    def __init__(self, channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, maps: Tensor, extent: Extent) -> Tensor:
        """(B, C, *S) float -> logits (B, K) float."""
        logits: Tensor = self.linear(self.dropout(mean_over_map(maps, extent)))
        return logits


class BaseCellNet(BaseModel):
    """The parts that networks of cells have in common.

    Args:
        cell: In the notation of POPNAS; the default for the inputs if None.
        options: Of the network.
        drop_path: Probability of dropping a path.

    Raises:
        ConfigError: The cell cannot be read, or has an operator for other inputs.
    """

    def __init__(self, cell: str | None, options: NetworkOptions, *, drop_path: float) -> None:
        super().__init__()
        self.in_channels = options.in_channels
        self.cell = Cell.parse(
            DEFAULT_CELLS[options.dims] if cell is None else cell, dims=options.dims, where="args.cell"
        )
        self.plan = plan_network(self.cell.lookbacks, options)
        self.stack = CellStack(self.cell, self.plan, drop_path=drop_path)
        self.auxiliary_weights = tuple(each.weight for each in self.plan.exits)

    @classmethod
    def canonical_arguments(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with the one cell that stands for all equivalent ones."""
        try:
            return {**arguments, "cell": str(Cell.parse(arguments["cell"]).canonical())}
        except (ConfigError, KeyError):  # the default, or no network at all: its constructor explains why
            return dict(arguments)

    def set_progress(self, share: float) -> None:
        """Set the probabilities of dropping paths for a share of the training that is done, from 0 to 1."""
        set_drop_progress(self, share)

    def initialise(self) -> None:
        """Initialise every convolution of stem and cells for the activation after it (arXiv:1502.01852)."""
        for part in self.stack.modules():
            if isinstance(part, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d):
                nn.init.kaiming_uniform_(part.weight, nonlinearity="relu")


class CellNet(BaseCellNet):
    """Classifier of images or series: a stem, motifs of equal cells, the mean over the last map; inputs of any size.

    A motif has normal cells, and all but the last end in a reduction cell, which halves the map and doubles the width.

    Args:
        num_classes: Classes K.
        in_channels: Channels C of an image, or variables V of a series.
        dims: 2 for images, 1 for series; the loader says it.
        cell: The cell, e.g. "[(-2, '3x3 conv', -1, '2x2 maxpool')]", "[]" for none.
        macro: Arrangement of the cells.
        cells: Parts of a cell around its blocks.
        multi_output: Train a classifier after each cell, or after "one" in addition to the last.
        drop_path: Probability of dropping a path for a sample, in the last cell at the end of the training; it grows
            linearly with the depth of the cell and with the completed epochs.
        dropout: Fraction of the pooled features that is dropped while training; after earlier cells less.

    Raises:
        ConfigError: An argument is out of range, or the cell cannot be read.
    """

    def __init__(
        self,
        num_classes: Count,
        in_channels: Count = 3,
        *,
        dims: Dims = 2,
        cell: str | None = None,
        macro: MacroOptions = MacroOptions(),
        cells: CellOptions = CellOptions(),
        multi_output: MultiOutput = False,
        drop_path: Probability = 0.0,
        dropout: Probability = 0.0,
    ) -> None:
        options = NetworkOptions(
            num_classes, in_channels, dims=dims, macro=macro, cells=cells, multi_output=multi_output
        )
        super().__init__(cell, options, drop_path=drop_path)
        shapes = self.plan.shapes
        self.exits = nn.ModuleList(
            CellClassifier(shapes[each.state].filters, num_classes, dropout * each.depth) for each in self.plan.exits
        )
        self.head = CellClassifier(shapes[self.plan.output].filters, num_classes, dropout)
        self.initialise()

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Image (B, C, H, W) or series (B, V, T) float, NaN for padding -> logits (B, K) float.

        In training with `multi_output` it is a tuple of these and of the logits of the other exits.
        """
        extent: Extent = None
        if self.plan.options.dims == 1:
            inputs, steps = split_padding(inputs, is_training=self.training)
            extent = SeriesExtent(steps)
        states = self.stack(inputs, extent)
        logits: Tensor = self.head(*states[self.plan.output])
        if not self.training or not self.exits:
            return logits
        others = (classify(*states[each.state]) for classify, each in zip(self.exits, self.plan.exits, strict=True))
        return (logits, *others)
