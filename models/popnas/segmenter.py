"""Segmentation networks of a cell that POPNAS finds (arXiv:2212.06735). B batch, K classes, H, W size of the image."""

import torch
from torch import Tensor, nn

from models.layers.blocks import Count, Probability, conv_block, enlarge, initialise, widen_tiny
from models.layers.heads import cut_to_stride
from models.layers.pyramid import ASPP
from models.popnas.encoder import States
from models.popnas.model import BaseCellNet
from utils.architecture.cells.costs import ASPP_RATES, pyramid_width, skip_width
from utils.architecture.cells.network import (
    CellDecoder,
    CellOptions,
    MacroOptions,
    MultiOutput,
    NetworkOptions,
    NetworkPlan,
)


class PyramidDecoder(nn.Module):
    """A pyramid over the last map, refined with every second level of the encoder; the head comes after it.

    Args:
        plan: Of the network.
        dropout: Fraction of the pyramid's output that is dropped while training.

    Attributes:
        channels: Of the result.
        stride: Of the result.
    """

    def __init__(self, plan: NetworkPlan, *, dropout: float) -> None:
        super().__init__()
        shape = plan.shapes[plan.output]
        self.channels, self.stride = pyramid_width(shape), shape.stride
        self.aspp = ASPP(shape.filters, self.channels, rates=ASPP_RATES, dropout=dropout, norm="batch")
        self.output, self.skips = plan.output, plan.skips
        self.factors: list[int] = []
        self.reduce, self.refine = nn.ModuleList(), nn.ModuleList()
        for state in plan.skips:
            skip = plan.shapes[state]
            self.factors.append(self.stride // skip.stride)
            self.reduce.append(conv_block(skip.filters, skip_width(skip), kernel_size=1, norm="batch"))
            self.refine.append(conv_block(self.channels + skip_width(skip), skip.filters, norm="batch"))
            self.channels, self.stride = skip.filters, skip.stride
        initialise(self)

    def forward(self, states: States) -> Tensor:
        """States of the encoder -> (B, channels, H / stride, W / stride) float."""
        maps: Tensor = self.aspp(states[self.output][0])
        for state, factor, reduce, refine in zip(self.skips, self.factors, self.reduce, self.refine, strict=True):
            skip = states[state][0]
            maps = refine(torch.cat((enlarge(maps, factor, skip.shape[2:]), reduce(skip)), dim=1))
        return maps


class CellNetSegmenter(BaseCellNet):
    """Segmentation network of equal cells; images of any size.

    The encoder is that of `CellNet`. Its decoder is a pyramid that is refined with every second level, or a U-Net: the
    motifs once more in reverse, each after a transposed convolution that is joined with the encoder's level.

    Args:
        num_classes: Classes K, the background among them.
        in_channels: Channels C of the image.
        cell: The cell, e.g. "[(-2, '3x3 conv', -1, '2x2 maxpool')]".
        decoder: "deeplab" for the pyramid, "unet" for the U-Net.
        macro: Arrangement of the cells.
        cells: Parts of a cell around its blocks.
        multi_output: Train a classifier after each cell, or after "one" in addition to the last.
        drop_path: Probability of dropping a path for a sample, in the last cell at the end of the training; it grows
            linearly with the depth of the cell and with the completed epochs.
        dropout: Fraction of the features before the logits, or of the pyramid's output, that is dropped while training.

    Raises:
        ConfigError: An argument is out of range, or the cell cannot be read.
    """

    def __init__(
        self,
        num_classes: Count,
        in_channels: Count = 3,
        *,
        cell: str | None = None,
        decoder: CellDecoder = "deeplab",
        macro: MacroOptions = MacroOptions(),
        cells: CellOptions = CellOptions(),
        multi_output: MultiOutput = False,
        drop_path: Probability = 0.0,
        dropout: Probability = 0.0,
    ) -> None:
        options = NetworkOptions(
            num_classes, in_channels, macro=macro, cells=cells, decoder=decoder, multi_output=multi_output
        )
        super().__init__(cell, options, drop_path=drop_path)
        shapes = self.plan.shapes
        self.exits = nn.ModuleList(
            nn.Sequential(nn.Dropout(dropout * each.depth), nn.Conv2d(shapes[each.state].filters, num_classes, 1))
            for each in self.plan.exits
        )
        last = shapes[self.plan.output]
        self.decoder = PyramidDecoder(self.plan, dropout=dropout) if decoder == "deeplab" else None
        channels, self.stride = last.filters, last.stride
        if self.decoder is not None:
            channels, self.stride = self.decoder.channels, self.decoder.stride
        self.dropout = nn.Dropout(dropout if self.decoder is None else 0.0)
        self.head = nn.Conv2d(channels, num_classes, kernel_size=1)
        self.initialise()

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float.

        In training with `multi_output` it is a tuple of these and of the logits of the other exits, at their strides.
        """
        states: States = self.stack(widen_tiny(inputs, self.plan.coarsest_stride), None)
        maps = states[self.plan.output][0] if self.decoder is None else self.decoder(states)
        logits = enlarge(self.head(self.dropout(maps)), self.stride, inputs.shape[2:])
        if not self.training or not self.exits:
            return logits
        others = [
            cut_to_stride(classify(states[each.state][0]), inputs.shape[2:], self.plan.shapes[each.state].stride)
            for classify, each in zip(self.exits, self.plan.exits, strict=True)
        ]
        return (logits, *others)
