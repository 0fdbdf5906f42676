"""A network of equal cells as data: which of them are built, at which size, and the inputs of each.

The networks of models/popnas/ and their exact costs (`costs.py`) both follow this plan, after Andrea Falanti et al.,
"POPNASv3", https://arxiv.org/abs/2212.06735, section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from utils.errors import ConfigError
from utils.registry import OptionGroup

StemKind = Literal["none", "conv", "strided", "imagenet"]
CellDecoder = Literal["deeplab", "unet"]
BlockJoin = Literal["add", "avg"]
CellActivation = Literal["swish", "relu", "gelu", "elu", "leaky_relu", "mish"]
MultiOutput = bool | Literal["one"]

STEM_STRIDES: dict[StemKind, int] = {"none": 1, "conv": 1, "strided": 2, "imagenet": 2}  # of the convolution alone
STEM_REDUCTIONS = 2  # cells between the convolution of the stem "imagenet" and the first motif
SINGLE_EXIT_DEPTH = 2 / 3  # of the cells, for the one additional exit of `multi_output: "one"`
SINGLE_EXIT_WEIGHT = 1 / 3  # relative to the last exit: 0.25 to 0.75


@dataclass(frozen=True)
class MacroOptions(OptionGroup):
    """Arrangement of the cells in a network.

    Raises:
        ConfigError: A number is out of its range.
    """

    motifs: Annotated[
        int, Field(ge=1, description="Levels M: each has normal cells, and all but the last end in a reduction cell.")
    ] = 3
    normal_cells: Annotated[int, Field(ge=0, description="Normal cells N of each motif.")] = 2
    filters: Annotated[
        int, Field(ge=1, description="Width of the cells of the first motif; each reduction cell doubles it.")
    ] = 24
    stem: Annotated[
        StemKind,
        Field(
            description='Before the cells: `"none"`, a 3x3 convolution (`"conv"`), one of stride 2 (`"strided"`), or '
            'one of stride 2 and two reduction cells (`"imagenet"`).'
        ),
    ] = "conv"

    def __post_init__(self) -> None:
        for name, least in (("motifs", 1), ("normal_cells", 0), ("filters", 1)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"Wrong {name} {value}: it must be {least} or more. Set a larger number.")
        if self.stem not in STEM_STRIDES:
            raise ConfigError(
                f"Wrong stem {self.stem!r}: it must be one of {', '.join(STEM_STRIDES)}. Set one of them."
            )
        if self.motifs * (self.normal_cells + 1) == 1:
            raise ConfigError(
                "motifs 1 with normal_cells 0: there are motifs x (normal_cells + 1) - 1 cells, here none. Set "
                "normal_cells to 1 or more."
            )


@dataclass(frozen=True)
class CellOptions(OptionGroup):
    """The parts of a cell around its blocks."""

    block_join: Annotated[
        BlockJoin, Field(description='Join of the two sides of a block: their sum (`"add"`) or mean (`"avg"`).')
    ] = "add"
    lookback_reshape: Annotated[
        bool,
        Field(
            description="Bring earlier inputs of a cell to the shape of its last one by 1x1 convolutions, instead of "
            "by the operators that read them."
        ),
    ] = False
    concat_only_unused: Annotated[
        bool, Field(description="The output of a cell concatenates the blocks that no other block reads; else all.")
    ] = True
    residual: Annotated[bool, Field(description="Add the nearest input of a cell to its output.")] = True
    se_output: Annotated[bool, Field(description="Squeeze and excitation of the output of a cell, ratio 8.")] = False
    activation: Annotated[CellActivation, Field(description="After each convolution.")] = "swish"


@dataclass(frozen=True)
class NetworkOptions:
    """All that a network of cells has in addition to its cell and that its shapes depend on.

    Attributes:
        num_classes: Classes K.
        in_channels: Channels or variables of the input.
        dims: 1 for series, 2 for images.
        macro: Arrangement of the cells.
        cells: Parts of a cell around its blocks.
        decoder: None for a classifier, else the decoder of a segmentation network.
        multi_output: Additional classifiers in training: after each cell, after "one" of them, or none.
    """

    num_classes: int
    in_channels: int
    dims: int = 2
    macro: MacroOptions = field(default_factory=MacroOptions)
    cells: CellOptions = field(default_factory=CellOptions)
    decoder: CellDecoder | None = None
    multi_output: MultiOutput = False


@dataclass(frozen=True)
class MapShape:
    """Stride and width of a feature map; an input of length n is ceil(n / stride) long there."""

    stride: int
    filters: int

    def size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Return the lengths of the map for those of the input."""
        return tuple(-(-length // self.stride) for length in input_size)


@dataclass(frozen=True)
class LookbackPlan:
    """An input of a cell.

    Attributes:
        lookback: -1 for the output before the cell, -2 for the one before that, ...
        source: Number of the state that it is, 0 for the stem.
        given: Shape of the state.
        pool: Stride of a max pooling that comes first, so that the operators have at most a stride of 2; 1 for none.
        is_reshaped: Whether a 1x1 convolution brings it to `shape`.
        shape: As the operators of the cell get it.
    """

    lookback: int
    source: int
    given: MapShape
    pool: int
    is_reshaped: bool
    shape: MapShape


@dataclass(frozen=True)
class CellPlan:
    """A cell at its place.

    Attributes:
        number: Of all cells, from 0.
        state: Number of its output; 0 is the stem, and each cell or enlargement adds one.
        shape: Of its output and of each of its blocks.
        lookbacks: The inputs that it reads, the nearest first.
        depth: Number of this cell from 1, divided by the number of all.
    """

    number: int
    state: int
    shape: MapShape
    lookbacks: tuple[LookbackPlan, ...]
    depth: float

    @property
    def sources(self) -> tuple[int, ...]:
        """The states that it reads."""
        return tuple(each.source for each in self.lookbacks)


@dataclass(frozen=True)
class EnlargePlan:
    """A step of the U-Net decoder: a map is enlarged, concatenated with an encoder's, and narrowed.

    Attributes:
        state: Number of its output.
        shape: Of its output.
        sources: The states that it reads: the coarse one and that of the encoder.
    """

    state: int
    shape: MapShape
    sources: tuple[int, int]


@dataclass(frozen=True)
class ExitPlan:
    """A classifier after a cell.

    Attributes:
        state: The output that it reads.
        weight: Factor of its loss; that of the last exit, the network's output, is 1.
        depth: Of the cell.
    """

    state: int
    weight: float
    depth: float


@dataclass(frozen=True)
class NetworkPlan:
    """A network of cells.

    Attributes:
        options: Of the network.
        lookbacks: Those that the cell reads.
        nodes: All cells and enlargements in their order; node i makes state i + 1. Not all of them are built.
        shapes: Of all states.
        levels: The state at the end of each motif of the encoder, the finest first.
        output: The state that the head reads.
    """

    options: NetworkOptions
    lookbacks: tuple[int, ...]
    nodes: tuple[CellPlan | EnlargePlan, ...]
    shapes: tuple[MapShape, ...]
    levels: tuple[int, ...]
    output: int

    @property
    def num_cells(self) -> int:
        """Number of cells, whether or not they are built."""
        return sum(isinstance(node, CellPlan) for node in self.nodes)

    @property
    def skips(self) -> tuple[int, ...]:
        """The states of the encoder that the fixed decoder reads, the coarsest first: every second level."""
        return self.levels[-3::-2] if self.options.decoder == "deeplab" else ()

    @cached_property
    def built(self) -> tuple[CellPlan | EnlargePlan, ...]:
        """The nodes on a path to the output, in their order; only these are built."""
        needed = {self.output, *self.skips}
        for node in reversed(self.nodes):
            if node.state in needed:
                needed.update(node.sources)
        return tuple(node for node in self.nodes if node.state in needed)

    @property
    def built_cells(self) -> tuple[CellPlan, ...]:
        """The cells on a path to the output, in their order."""
        return tuple(node for node in self.built if isinstance(node, CellPlan))

    @cached_property
    def exits(self) -> tuple[ExitPlan, ...]:
        """The additional classifiers, in the order of their cells; the last cell has the network's own."""
        earlier = [cell for cell in self.built_cells if cell.state != self.output]
        if not self.options.multi_output or not earlier:
            return ()
        if self.options.multi_output == "one":
            chosen = min(earlier, key=lambda cell: abs(cell.depth - SINGLE_EXIT_DEPTH))
            return (ExitPlan(chosen.state, SINGLE_EXIT_WEIGHT, chosen.depth),)
        last = self.num_cells - 1
        return tuple(ExitPlan(cell.state, 0.5 ** (last - cell.number), cell.depth) for cell in earlier)

    def input_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the size that the network computes for an input of a size: a decoder's is widened if it is tiny."""
        stride = self.coarsest_stride
        is_tiny = self.options.decoder is not None and all(length <= stride for length in size)
        return (*size[:-1], stride + 1) if is_tiny else tuple(size)

    @property
    def coarsest_stride(self) -> int:
        """The largest stride of a map that is computed."""
        return max([self.shapes[0].stride, *(node.shape.stride for node in self.built)])


def plan_network(lookbacks: Sequence[int], options: NetworkOptions) -> NetworkPlan:
    """Return the plan of a network whose cell reads some lookbacks; it depends on nothing else of the cell.

    Cells that no path leads through are not built: of a cell that reads only -2, every second one.

    Args:
        lookbacks: Those that the cell reads, such as (-1, -2); none for the empty cell, whose network is stem and head.
        options: Of the network.
    """
    planner = _Planner(tuple(sorted(lookbacks, reverse=True)), options)
    return planner.plan()


class _Planner:
    """The states of a network so far."""

    def __init__(self, lookbacks: tuple[int, ...], options: NetworkOptions) -> None:
        self.lookbacks = lookbacks
        self.options = options
        macro = options.macro
        has_stem_cells = macro.stem == "imagenet" and bool(lookbacks)
        self.num_stem_cells = STEM_REDUCTIONS if has_stem_cells else 0
        filters = -(-macro.filters // 2**self.num_stem_cells)
        self.shapes = [MapShape(STEM_STRIDES[macro.stem], options.in_channels if macro.stem == "none" else filters)]
        self.nodes: list[CellPlan | EnlargePlan] = []
        self.first_state = 0  # earlier ones are out of reach of lookbacks
        self.num_cells = self.num_stem_cells + macro.motifs * (macro.normal_cells + 1) - 1
        if options.decoder == "unet":
            self.num_cells += (macro.motifs - 1) * (macro.normal_cells + 1)

    def plan(self) -> NetworkPlan:
        levels = [0]
        if self.lookbacks:
            levels = self._add_encoder()
            if self.options.decoder == "unet":
                self._add_decoder(levels)
        return NetworkPlan(
            self.options, self.lookbacks, tuple(self.nodes), tuple(self.shapes), tuple(levels), len(self.nodes)
        )

    def _add_encoder(self) -> list[int]:
        macro, stride, levels = self.options.macro, self.shapes[0].stride, []
        for place in reversed(range(self.num_stem_cells)):
            stride *= 2
            self._add_cell(MapShape(stride, -(-macro.filters // 2**place)))
        for motif in range(macro.motifs):
            if motif:
                stride *= 2
                self._add_cell(MapShape(stride, macro.filters * 2**motif))
            for _ in range(macro.normal_cells):
                self._add_cell(MapShape(stride, macro.filters * 2**motif))
            levels.append(len(self.nodes))
        return levels

    def _add_decoder(self, levels: Sequence[int]) -> None:
        for motif in reversed(range(self.options.macro.motifs - 1)):
            # With the width of the level's cells, which its output lacks if it is the stem's.
            shape = MapShape(self.shapes[levels[motif]].stride, self.options.macro.filters * 2**motif)
            state = len(self.nodes) + 1
            self.nodes.append(EnlargePlan(state, shape, (state - 1, levels[motif])))
            self.shapes.append(shape)
            self.first_state = state  # earlier states have another stride
            for _ in range(self.options.macro.normal_cells + 1):
                self._add_cell(shape)

    def _add_cell(self, shape: MapShape) -> None:
        state = len(self.nodes) + 1
        number = sum(isinstance(node, CellPlan) for node in self.nodes)
        inputs = tuple(self._lookback(lookback, state, shape) for lookback in self.lookbacks)
        self.nodes.append(CellPlan(number, state, shape, inputs, (number + 1) / self.num_cells))
        self.shapes.append(shape)

    def _lookback(self, lookback: int, state: int, target: MapShape) -> LookbackPlan:
        """Return an input of the cell that makes a state; in front of the first cell there is nothing but the stem."""
        source = max(self.first_state, state + lookback)
        given, nearest = self.shapes[source], self.shapes[max(self.first_state, state - 1)]
        if self.options.cells.lookback_reshape and given != nearest:
            return LookbackPlan(lookback, source, given, 1, is_reshaped=True, shape=nearest)
        pool = max(1, target.stride // given.stride // 2)
        return LookbackPlan(
            lookback, source, given, pool, is_reshaped=False, shape=MapShape(given.stride * pool, given.filters)
        )
