"""The supernet of Auto-DeepLab: all networks of the search space at once (arXiv:1901.02985)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from base.base_model import BaseModel
from models.auto_deeplab.heads import LevelHead
from models.auto_deeplab.mixed import EdgeWeights
from models.auto_deeplab.model import Stem
from models.auto_deeplab.operations import Atrous, CellNorm
from models.auto_deeplab.supernet_cell import Mixing, SupernetCell
from models.layers.blocks import Count, enlarge, initialise, widen_tiny
from utils.architecture.decoding import decode, possible_moves
from utils.architecture.genotype import OPERATIONS, STRIDES, Genotype, cell_edges
from utils.errors import ConfigError

NUM_LEVELS = len(STRIDES)
INITIAL_SPREAD = 1e-3  # of alpha and beta: arXiv:1901.02985, section 5.1


class AutoDeepLabSupernet(BaseModel):
    """All cells at all strides, weighted by the architecture parameters alpha and beta; images of any size.

    `alpha` (E, 8) are the logits of the operations on each edge of the cell, in the order of `OPERATIONS`, shared by
    all nodes. The edges are those of the first block (from two_back, one_back), of the second (two_back, one_back,
    block_1), and so on. `beta` (L, 4, 3) are the logits of the moves into each layer: `beta[l, i, m]` leads from level
    i (stride 4 x 2^i) of the layer before to level i - 1 (m = 0), i or i + 1. The stem is level 0 before layer 0. Each
    softmax runs over the possible moves out of a level that can be reached; all others have no effect.

    At one-hot alpha and beta the encoder computes the maps of the decoded network with the same weights, if the maps
    two layers back have the stride of the node on all its path; the stem stands for both layers before the first.
    Elsewhere they differ: the supernet has maps two layers back only at the node's own stride, and where there are
    none, their edges give nothing. The decoded network brings them to its stride.

    Args:
        num_classes: Classes K, the background among them.
        in_channels: Channels C of the image.
        layers: Layers L of the encoder.
        blocks: Blocks B of the cell.
        filter_multiplier: Channels of a block at stride 4; at stride s it has s / 4 times as many.
        atrous: "separable": atrous operations are depthwise and pointwise; "dense": as in the published network.
        mixing: "inputs": a cell runs once, see `SupernetCell`; "outputs": once per source, as in the paper. The default
            takes about two thirds of the time, and of the memory apart from that of the process.
        partial_channels: K: operations compute 1 / K of a node's channels, the others pass; 1: all, as in the paper. It
            divides `filter_multiplier`. At 8, K = 4 takes about three fifths of the time of K = 1, and half the memory
            apart from that of the process (docs/auto_deeplab.md). `filter_multiplier` should be twice K or more: at K a
            node of stride 4 computes a single channel, the same one in all blocks.
        norm: "batch" or "group".

    Attributes:
        alpha: (E, 8) logits of the operations.
        beta: (L, 4, 3) logits of the moves.
        edges: (E,) logits of the edges, whose softmax runs over those of a block (PC-DARTS, arXiv:1907.05737, section
            3.3), if `partial_channels` is larger than 1; otherwise None.

    Raises:
        ConfigError: An argument is out of range.
    """

    def __init__(
        self,
        num_classes: Count,
        in_channels: Count = 3,
        *,
        layers: Count = 12,
        blocks: Count = 5,
        filter_multiplier: Count = 8,
        atrous: Atrous = "separable",
        mixing: Mixing = "inputs",
        partial_channels: Count = 1,
        norm: CellNorm = "batch",
    ) -> None:
        super().__init__()
        _check(layers=layers, blocks=blocks, filter_multiplier=filter_multiplier, partial_channels=partial_channels)
        if filter_multiplier % partial_channels:
            raise ConfigError(
                f"Wrong partial_channels {partial_channels}: it must divide filter_multiplier, {filter_multiplier}, "
                f"the narrowest width of a block. Set it to {math.gcd(filter_multiplier, partial_channels)}."
            )
        self.in_channels, self.layers, self.blocks = in_channels, layers, blocks
        widths = [filter_multiplier * 2**level for level in range(NUM_LEVELS)]

        half = max(1, filter_multiplier * blocks // 2)
        self.stem = Stem(in_channels, (half, half, filter_multiplier * blocks), norm=norm)
        initialise(self.stem)
        self.cells = nn.ModuleDict(
            {
                f"{layer}_{level}": SupernetCell(
                    widths[level],
                    blocks,
                    [(blocks * widths[source], level - source) for source in source_levels(layer, level)],
                    self._two_back_width(layer, level, widths),
                    mixing=mixing,
                    partial_channels=partial_channels,
                    atrous=atrous,
                    norm=norm,
                )
                for layer in range(layers)
                for level in reachable_levels(layer)
            }
        )
        self.heads = nn.ModuleList(
            LevelHead(blocks * widths[level], blocks * widths[level], num_classes, stride=STRIDES[level], norm=norm)
            for level in reachable_levels(layers - 1)
        )
        edges = cell_edges(blocks)
        self.alpha = nn.Parameter(INITIAL_SPREAD * torch.randn(len(edges), len(OPERATIONS)))
        self.beta = nn.Parameter(INITIAL_SPREAD * torch.randn(layers, NUM_LEVELS, 3))
        self.edges: nn.Parameter | None = None
        if partial_channels > 1:
            self.edges = nn.Parameter(INITIAL_SPREAD * torch.randn(len(edges)))
        # Cells compute the edges that read the same maps together.
        self.edge_groups = [
            [edge for edge, (_, place) in enumerate(edges) if place == each] for each in range(blocks + 1)
        ]
        self.register_buffer("possible_moves", torch.from_numpy(possible_moves(layers)), persistent=False)
        self.possible_moves: Tensor

    def _two_back_width(self, layer: int, level: int, widths: Sequence[int]) -> tuple[int, int] | None:
        """Return the channels of the maps two layers back, and by how many levels they are finer; None without one."""
        if layer == 0:
            return self.stem.outputs[0][0], level + 1
        found = two_back_level(layer, level)
        return None if found is None else (self.blocks * widths[found], 0)

    def forward(self, inputs: Tensor) -> Tensor:
        """Image (B, C, H, W) float -> logits (B, K, H, W) float."""
        maps = self.encode(widen_tiny(inputs, STRIDES[-1]))
        total = torch.zeros(())
        for head, each, stride in zip(self.heads, maps, STRIDES, strict=False):
            total = enlarge(head(each), stride, inputs.shape[2:]) + total
        return total

    def encode(self, inputs: Tensor) -> list[Tensor]:
        """Image (B, C, H, W) float -> the maps of the last layer at each stride s, (B, blocks x F x s / 4, h, w)."""
        alpha, beta = self.architecture_probabilities()
        strengths = self.edge_weights()
        alpha = alpha if self.edges is None else alpha * strengths[:, None]
        by_input = [[each[edges] for edges in self.edge_groups] for each in (alpha, strengths)]
        spread: dict[tuple[int, int], list[EdgeWeights]] = {}
        # Rounded up; the exporter to ONNX gets the division of a negative number wrong.
        sizes = [[(side + stride - 1) // stride for side in inputs.shape[2:]] for stride in STRIDES]
        two_back, one_back = ([maps] for maps in self.stem(inputs))
        for layer in range(self.layers):
            maps = []
            for level in reachable_levels(layer):
                sources = source_levels(layer, level)
                weights = torch.stack([beta[layer, source, level - source + 1] for source in sources])
                found, cell = two_back_level(layer, level), self.cells[f"{layer}_{level}"]
                assert isinstance(cell, SupernetCell)
                if cell.weights_key not in spread:
                    spread[cell.weights_key] = cell.spread(*by_input)
                maps.append(
                    cell(
                        [one_back[source] for source in sources],
                        None if found is None else two_back[found],
                        sizes[level],
                        spread[cell.weights_key],
                        weights,
                    )
                )
            two_back, one_back = one_back, maps
        return one_back

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Return alpha, beta and, if there are some, `edges`: the logits that decide the architecture."""
        return [each for each in (self.alpha, self.beta, self.edges) if each is not None]

    def architecture_probabilities(self) -> list[Tensor]:
        """Return the weights that alpha (E, 8) and beta (L, 4, 3) stand for; 0 for moves that are not possible."""
        masked = self.beta.masked_fill(~self.possible_moves, -torch.inf)
        # A level that cannot be reached has no moves at all, and a softmax over nothing is not a number.
        masked = torch.where(self.possible_moves.any(-1, keepdim=True), masked, 0.0)
        return [self.alpha.softmax(-1), masked.softmax(-1) * self.possible_moves]

    def edge_weights(self) -> Tensor:
        """Return (E,): the softmax of `edges` over those of each block; 1 without them."""
        if self.edges is None:
            return torch.ones_like(self.alpha[:, 0])
        return torch.cat([block.softmax(0) for block in torch.split(self.edges, [*range(2, self.blocks + 2)])])

    def architecture(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits alpha (E, 8) and beta (L, 4, 3)."""
        return self.alpha.detach().cpu().numpy().copy(), self.beta.detach().cpu().numpy().copy()

    def decode(self) -> Genotype:
        """Return the genotype that the architecture parameters prefer."""
        return decode(*self.architecture(), None if self.edges is None else self.edges.detach().cpu().numpy())

    def encoder_state(self, genotype: Genotype) -> dict[str, Tensor]:
        """Return the weights of the decoded encoder, by the names of `AutoDeepLab.encoder`'s, as copies.

        If the maps two layers back have another stride than their reader, it has no counterpart here: the weights of
        its input and of the edges from it are left out.

        Raises:
            ConfigError: The genotype has another number of layers or blocks, or the operations are those of partial
                channels, narrower than the decoded network's.
        """
        if self.edges is not None:
            raise ConfigError(
                "Wrong partial_channels above 1: the supernet's operations are narrower than those of the decoded "
                "network, which cannot have their weights. Train it from the start, or set partial_channels to 1."
            )
        wanted = (genotype.num_layers, genotype.num_blocks)
        if wanted != (self.layers, self.blocks):
            raise ConfigError(
                f"Wrong genotype with {wanted[0]} layers and {wanted[1]} blocks: the supernet has {self.layers} and "
                f"{self.blocks}. Give one of the same size."
            )
        state = {f"stem.{name}": each.clone() for name, each in self.stem.state_dict().items()}
        path = (0, 0, *genotype.levels)
        for layer, level in enumerate(genotype.levels):
            cell = self.cells[f"{layer}_{level}"]
            assert isinstance(cell, SupernetCell)
            source = source_levels(layer, level).index(path[layer + 1])
            found = two_back_level(layer, level)
            values = cell.state(genotype, source, has_two_back=path[layer] == found)
            state |= {f"layers.{layer}.{name}": each for name, each in values.items()}
        return state

    @contextmanager
    def only_architecture(self) -> Iterator[None]:
        """Within, only the architecture parameters need gradients."""
        architecture = {id(each) for each in self.architecture_parameters()}
        with without_gradients([weight for weight in self.parameters() if id(weight) not in architecture]):
            yield


def reachable_levels(layer: int) -> range:
    """Return the levels that a path can have at a layer (from 0)."""
    return range(min(layer + 2, NUM_LEVELS))


def source_levels(layer: int, level: int) -> list[int]:
    """Return the levels of the layer before from which a level is reached, finer ones first."""
    before = reachable_levels(layer - 1)
    return [source for source in (level - 1, level, level + 1) if source in before]


def two_back_level(layer: int, level: int) -> int | None:
    """Return the level that a node reads two layers back: its own; at layer 0 that of the stem; None without one."""
    if layer == 0:
        return 0
    return level if level in reachable_levels(layer - 2) else None


@contextmanager
def without_gradients(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within, these weights need no gradients; afterwards each is as it was."""
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for weight, was_trained in zip(weights, before, strict=True):
            weight.requires_grad_(was_trained)


def _check(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"Wrong {name} {count}: there must be at least one. Set it to 1 or more.")
