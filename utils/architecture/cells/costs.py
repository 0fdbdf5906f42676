"""Exact parameters and FLOPs of any network of cells from its plan: neither torch nor the network is needed.

FLOPs are those of `BaseModel.flops`: one sample in evaluation; convolutions and matrix products, a multiply-add as two.
A cell's costs are a sum over its parts, so those of each operator on each kind of input are computed once.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.architecture.cells.cell import Cell, Side
from utils.architecture.cells.network import CellPlan, EnlargePlan, MapShape, NetworkOptions, NetworkPlan, plan_network
from utils.architecture.cells.operators import Operator, read_operator

SE_OUTPUT_RATIO = 8
ASPP_RATES = (3, 6, 12)
UPSAMPLED_BETWEEN_SKIPS = 4  # the decoder reads every second level
Size = tuple[int, ...]


@dataclass(frozen=True)
class NetworkCosts:
    """Parameters, and FLOPs of one sample."""

    params: int = 0
    flops: int = 0

    def __add__(self, other: "NetworkCosts") -> "NetworkCosts":
        return NetworkCosts(self.params + other.params, self.flops + other.flops)


class CostModel:
    """The costs of networks that differ in their cell alone.

    Args:
        options: Of the networks.
        input_size: (H, W) of the input, or (T,) of a series.
    """

    def __init__(self, options: NetworkOptions, input_size: Sequence[int]) -> None:
        self.options = options
        self.input_size = tuple(input_size)
        self._plans: dict[tuple[int, ...], _PlanCosts] = {}

    def costs(self, cell: Cell) -> NetworkCosts:
        """Return the costs of the network of a cell.

        Raises:
            ConfigError: The cell has an operator for inputs of other dimensions.
        """
        known = self._of_plan(cell.lookbacks)
        joined = len(cell.unused_blocks) if self.options.cells.concat_only_unused else len(cell)
        parts = [known.output(joined), *(known.side(side) for block in cell.blocks for side in block.sides)]
        return NetworkCosts(
            known.fixed.params + sum(part.params for part in parts),
            known.fixed.flops + sum(part.flops for part in parts),
        )

    def of_codes(self, codes: NDArray[np.int16], operators: Sequence[str]) -> NDArray[np.int64]:
        """Return parameters and FLOPs of many cells, (N, 2) int64.

        Args:
            codes: (N, B, 4) cells as `Grammar` codes them: first input, number of the first operator, second input,
                number of the second one; operators below 0 for blocks that are not there.
            operators: Texts by their numbers.
        """
        reads, numbers = codes[:, :, [0, 2]].astype(np.int64), codes[:, :, [1, 3]].astype(np.int64)
        exists = numbers >= 0
        reach = max(1, -int(reads[exists].min(initial=-1)))
        is_lookback = exists & (reads < 0)
        # Bit k of a number says that the cell reads -1 - k: all cells with the same number share a plan.
        bits = np.where(is_lookback, 1 << np.where(is_lookback, -1 - reads, 0), 0)
        shared = np.bitwise_or.reduce(bits, axis=(1, 2))
        blocks = exists.any(axis=2).sum(axis=1)
        joined = blocks.copy()
        if self.options.cells.concat_only_unused:
            for place in range(codes.shape[1]):
                joined -= (exists & (reads == place)).any(axis=(1, 2))
        result = np.zeros((len(codes), 2), dtype=np.int64)
        for number in np.unique(shared).tolist():
            rows = np.flatnonzero(shared == number)
            lookbacks = tuple(-1 - place for place in range(reach) if number >> place & 1)
            known = self._of_plan(lookbacks)
            places = np.where(exists[rows], np.minimum(reads[rows], 0) + reach, reach + 1)
            used = np.unique(np.stack([places, numbers[rows]])[:, exists[rows]], axis=1).T.tolist()
            sides = np.zeros((reach + 2, len(operators), 2), dtype=np.int64)  # the last row: of absent blocks
            for place, operator in used:
                sides[place, operator] = _pair(known.side((place - reach, operators[operator])))
            outputs = np.array([_pair(known.output(count)) for count in range(codes.shape[1] + 1)], dtype=np.int64)
            result[rows] = sides[places, numbers[rows]].sum(axis=(1, 2)) + outputs[joined[rows]] + _pair(known.fixed)
        return result

    def _of_plan(self, lookbacks: tuple[int, ...]) -> "_PlanCosts":
        known = self._plans.get(lookbacks)
        if known is None:
            plan = plan_network(lookbacks, self.options)
            known = self._plans[lookbacks] = _PlanCosts(plan, plan.input_size(self.input_size))
        return known


class _PlanCosts:
    """The costs of the parts of all cells of a plan."""

    def __init__(self, plan: NetworkPlan, size: Size) -> None:
        self.plan, self.size, self.dims = plan, size, len(size)
        self.cells = [(cell, cell.shape.size(size)) for cell in plan.built_cells]
        self.fixed = self._fixed()
        self._sides: dict[Side, NetworkCosts] = {}
        self._outputs: dict[int, NetworkCosts] = {}

    def side(self, side: Side) -> NetworkCosts:
        """Return the costs of an operator on an input, in all cells."""
        found = self._sides.get(side)
        if found is None:
            read, operator = side[0], read_operator(side[1], self.dims)
            found = self._sides[side] = _total(self._one_side(cell, read, operator) for cell, _ in self.cells)
        return found

    def output(self, joined: int) -> NetworkCosts:
        """Return the costs of the concatenation of a number of blocks, in all cells."""
        found = self._outputs.get(joined)
        if found is None:
            parts = (
                conv_unit_costs(joined * cell.shape.filters, cell.shape.filters, (1,) * self.dims, size)
                for cell, size in self.cells
                if joined > 1
            )
            found = self._outputs[joined] = _total(parts)
        return found

    def _one_side(self, cell: CellPlan, read: int, operator: Operator) -> NetworkCosts:
        shape = cell.shape
        if read < 0:
            shape = next(each.shape for each in cell.lookbacks if each.lookback == read)
        stride = cell.shape.stride // shape.stride
        return operator_costs(operator, shape.filters, cell.shape.filters, stride, shape.size(self.size))

    def _fixed(self) -> NetworkCosts:
        """Return the costs of the parts independent of the blocks of the cell: stem, cells around them, and heads."""
        plan, point = self.plan, (1,) * self.dims
        options, style = plan.options, plan.options.cells
        parts = []
        if options.macro.stem != "none":
            stem = plan.shapes[0]
            parts.append(conv_unit_costs(options.in_channels, stem.filters, (3,) * self.dims, stem.size(self.size)))
        for cell, size in self.cells:
            filters = cell.shape.filters
            for each in cell.lookbacks:
                if each.is_reshaped:
                    reshaped = each.shape.size(self.size)
                    parts.append(conv_unit_costs(each.given.filters, each.shape.filters, point, reshaped))
            if style.residual and cell.lookbacks[0].shape.filters != filters:
                parts.append(conv_unit_costs(cell.lookbacks[0].shape.filters, filters, point, size))
            if style.se_output:
                parts.append(_excitation_costs(filters, SE_OUTPUT_RATIO))
        for node in plan.built:
            if isinstance(node, EnlargePlan):
                parts.append(self._enlarge_costs(node))
        parts += [NetworkCosts(self._classifier(plan.shapes[each.state]).params) for each in plan.exits]
        parts.append(self._decoder_costs() if options.decoder == "deeplab" else self._classifier(plan.shapes[-1]))
        return _total(parts)

    def _enlarge_costs(self, node: EnlargePlan) -> NetworkCosts:
        coarse, skip = (self.plan.shapes[source] for source in node.sources)
        filters = node.shape.filters
        enlarged = _conv_costs(coarse.filters, filters, (2, 2), coarse.size(self.size)) + _norm_costs(filters)
        narrowed = conv_unit_costs(filters + skip.filters, filters, (1, 1), node.shape.size(self.size))
        return enlarged + narrowed

    def _classifier(self, shape: MapShape) -> NetworkCosts:
        """Return the costs of the layer that gives logits, on the mean of a map or at each of its pixels."""
        classes = self.plan.options.num_classes
        places = math.prod(shape.size(self.size)) if self.plan.options.decoder else 1
        return NetworkCosts((shape.filters + 1) * classes, 2 * places * shape.filters * classes)

    def _decoder_costs(self) -> NetworkCosts:
        """Return the costs of pyramid, refinement and head of the fixed decoder."""
        shape = self.plan.shapes[self.plan.output]
        size, width = shape.size(self.size), pyramid_width(shape)
        branches = len(ASPP_RATES) + 1
        parts = [conv_unit_costs(shape.filters, width, (1, 1), size)]
        parts += [conv_unit_costs(shape.filters, width, (3, 3), size)] * len(ASPP_RATES)
        parts.append(NetworkCosts((shape.filters + 1) * width + width**2, 2 * (shape.filters + width) * width))
        parts.append(conv_unit_costs(width * branches, width, (1, 1), size))
        for state in self.plan.skips:
            shape = self.plan.shapes[state]
            size, reduced = shape.size(self.size), skip_width(shape)
            parts.append(conv_unit_costs(shape.filters, reduced, (1, 1), size))
            parts.append(conv_unit_costs(width + reduced, shape.filters, (3, 3), size))
            width = shape.filters
        return _total([*parts, self._classifier(MapShape(shape.stride, width))])


def pyramid_width(shape: MapShape) -> int:
    """Return the width of the pyramid of the fixed decoder on a map: half of it."""
    return -(-shape.filters // 2)


def skip_width(shape: MapShape) -> int:
    """Return the width to which the fixed decoder reduces a level of the encoder: half of it."""
    return -(-shape.filters // 2)


def operator_costs(operator: Operator, in_filters: int, filters: int, stride: int, size: Size) -> NetworkCosts:
    """Return the costs of an operator of a block.

    Args:
        operator: The operator.
        in_filters: Width of its input.
        filters: Width of its result.
        stride: Of its result, in terms of its input.
        size: Of its input.
    """
    kind, kernel, point = operator.kind, operator.kernel, (1,) * len(size)
    small = tuple(-(-length // stride) for length in size)
    costs = NetworkCosts()
    if kind in ("identity", "maxpool", "avgpool", "se"):
        if in_filters != filters or (kind == "identity" and stride > 1):
            costs += conv_unit_costs(in_filters, filters, point, small)
        if kind == "se":
            costs += _excitation_costs(filters, operator.ratio)
    elif kind == "conv":
        # A dilated convolution has stride 1, and a pooling after it.
        costs += conv_unit_costs(in_filters, filters, kernel, size if operator.dilation > 1 else small)
    elif kind == "dconv":
        costs += _conv_costs(in_filters, in_filters, kernel, small, groups=in_filters)
        costs += conv_unit_costs(in_filters, filters, point, small)
    elif kind == "conv_pair":
        costs += conv_unit_costs(in_filters, filters, kernel, small)
        costs += conv_unit_costs(filters, filters, operator.second_kernel, small)
    elif kind == "tconv":
        # The multiply-adds of a transposed convolution are those per value of its input.
        costs += conv_unit_costs(in_filters, filters, kernel, size)
        costs += conv_unit_costs(filters, filters, kernel, small)
    elif kind == "zconv":
        zoomed = tuple(-(-length // (operator.zoom * stride)) for length in size)
        costs += conv_unit_costs(in_filters, filters, kernel, zoomed)
    elif kind in ("lstm", "gru"):
        gates, biases = (4, 8) if kind == "lstm" else (3, 6)
        products = gates * filters * (in_filters + filters)
        costs += NetworkCosts(products + biases * filters, 2 * products * math.prod(size)) + _norm_costs(filters)
    else:
        costs += _transformer_costs(operator, in_filters, filters, small)
    return costs


def conv_unit_costs(in_filters: int, filters: int, kernel: Sequence[int], size: Size) -> NetworkCosts:
    """Return the costs of a convolution without bias and a norm; `size` is that of the result."""
    return _conv_costs(in_filters, filters, kernel, size) + _norm_costs(filters)


def _transformer_costs(operator: Operator, in_filters: int, filters: int, size: Size) -> NetworkCosts:
    """Return the costs of "cvt" and "scvt": embedding, and layers of attention and, but for "scvt", an MLP."""
    tokens, inner = math.prod(size), operator.heads * filters
    embedding = _conv_costs(in_filters, filters, operator.kernel, size) + _norm_costs(filters)
    projections = NetworkCosts(4 * filters * inner, 8 * tokens * filters * inner)
    attention = NetworkCosts(0, 4 * tokens**2 * inner)
    layer = _norm_costs(filters) + projections + attention
    if operator.kind == "cvt":
        layer += _norm_costs(filters) + NetworkCosts(4 * filters**2, 8 * tokens * filters**2)
    return _total([embedding, *[layer] * operator.layers])


def _conv_costs(in_filters: int, filters: int, kernel: Sequence[int], size: Size, *, groups: int = 1) -> NetworkCosts:
    weights = in_filters // groups * filters * math.prod(kernel)
    return NetworkCosts(weights, 2 * weights * math.prod(size))


def _norm_costs(filters: int) -> NetworkCosts:
    return NetworkCosts(2 * filters)


def _excitation_costs(filters: int, ratio: int) -> NetworkCosts:
    weights = 2 * filters * -(-filters // ratio)
    return NetworkCosts(weights, 2 * weights)


def _pair(costs: NetworkCosts) -> tuple[int, int]:
    return costs.params, costs.flops


def _total(parts: Iterable[NetworkCosts]) -> NetworkCosts:
    return sum(parts, NetworkCosts())
