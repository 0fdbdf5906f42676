"""The cells of a study as candidates: their grammar, the config of each, and its costs without a training."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from config.checking.classes import find_class, read_spec
from config.checking.splits import loader_section
from config.faults import Faults, show
from config.loading.load import deep_merge
from search.space.drawn import Drawn
from search.space.table_space import TableSpace
from search.strategies.popnas.choice import exact_facts
from search.strategies.popnas.options import ARGUMENTS, CELL, OPERATORS, SERIES_OPERATORS, GrowthOptions
from search.study.settings import StudyParts
from utils.architecture.cells.cell import Block, Cell
from utils.architecture.cells.expansion import CellGrammar
from utils.architecture.cells.grammar import Grammar
from utils.architecture.cells.nasbench201 import (
    EDGES,
    NODE_OPERATORS,
    Nasbench201Blocks,
    Nasbench201Nodes,
    read_architecture,
)
from utils.architecture.cells.operators import read_operator
from utils.errors import ConfigError
from utils.registry import Section
from utils.seeding import derive_seed

_LOADER_OF_SERIES = "TimeSeriesDataLoader"  # the only one of the registry


@dataclass(frozen=True)
class CandidateForm:
    """A cell as the journal holds it.

    Attributes:
        drawn: Choices of the space; none unless it is that of a table.
        label: JSON path and value, for people.
        key: Text that is equal for cells that train the same.
    """

    drawn: Drawn
    label: list[tuple[str, Any]]
    key: str


class Cells(ABC):
    """The cells of a study.

    Attributes:
        grammar: Which cells there are, and which grows from which.
    """

    grammar: CellGrammar | Nasbench201Nodes

    @abstractmethod
    def first(self, most: int | None, seed: int, allowed: Collection[str] | None = None) -> list[str]:
        """Return the cells of one step to train: all, or those with one operation alone first, then random ones.

        Args:
            most: Number of cells at most; None: all.
            seed: Of the random ones.
            allowed: Those that may be trained; None: all.
        """

    @abstractmethod
    def candidate(self, cell: str) -> CandidateForm:
        """Return a cell as the journal holds it."""

    @abstractmethod
    def config(self, cell: str) -> dict[str, Any]:
        """Return the config of a cell, without its seed."""

    @abstractmethod
    def covering(self) -> Iterator[dict[str, Any]]:
        """Yield configs in which together each operation occurs."""

    @abstractmethod
    def describe(self) -> str:
        """Return in words which cells there are."""


class NetworkCells(Cells):
    """The cells of a network with the argument `cell`.

    Args:
        config: Of the study.
        growth: Which cells there are.

    Raises:
        ConfigError: An operation is not known, or some are for images and others for series.
    """

    def __init__(self, config: Mapping[str, Any], growth: GrowthOptions) -> None:
        self._config = {key: value for key, value in config.items() if key not in ("search", "$defs")}
        operators, dims = _operators_of(growth.operators, config)
        self.grammar: Grammar = Grammar(tuple(operators), growth.lookbacks, growth.blocks, dims)

    def first(self, most: int | None, seed: int, allowed: Collection[str] | None = None) -> list[str]:
        """Return the cells of one block to train."""
        texts = self.grammar.expand([self.grammar.empty]).texts()
        found = texts if allowed is None else [each for each in texts if each in allowed]
        if most is None or most >= len(found):
            return found
        order = np.random.default_rng(derive_seed(seed, "first cells")).permutation(len(found)).tolist()
        return [found[place] for place in sorted(order, key=lambda place: not _is_single(found[place]))[:most]]

    def candidate(self, cell: str) -> CandidateForm:
        """Return a cell as the journal holds it."""
        return CandidateForm(Drawn(), [(CELL, cell)], cell)

    def config(self, cell: str) -> dict[str, Any]:
        """Return the config of a cell."""
        merged: dict[str, Any] = deep_merge(self._config, {"arch": {"args": {"cell": cell}}})
        return merged

    def covering(self) -> Iterator[dict[str, Any]]:
        """Yield the config of the empty cell, and one for each operation, on the furthest input that a cell has."""
        yield self.config(self.grammar.empty)
        for operator in self.grammar.operators:
            yield self.config(str(Cell((Block(-self.grammar.lookbacks, operator, -1, operator),))))

    def describe(self) -> str:
        """Return the operations and the size of the cells."""
        grammar = self.grammar
        return (
            f"Cells of up to {grammar.blocks} blocks with {len(grammar.operators)} operations on {grammar.lookbacks} "
            "earlier cells"
        )


def _is_single(text: str) -> bool:
    """Return whether a cell of one block has one operation on both sides, and reads the cell before it alone."""
    block = Cell.parse(text).blocks[0]
    return block.inputs == (-1, -1) and block.first == block.second


def dims_of_data(config: Mapping[str, Any]) -> int | None:
    """Return 1 if networks of a config read series, 2 if images; None if its loader is the user's and does not say."""
    arch = config.get("arch")
    args = arch.get("args") if isinstance(arch, Mapping) else None
    if isinstance(args, Mapping) and args.get("dims") in (1, 2):
        return int(args["dims"])
    section = loader_section(config, "train")
    spec = None if section is None else read_spec(config[section], section, Faults())
    if spec is None:  # for the validation to report
        return 2
    if "." not in spec.type:
        return 1 if spec.type == _LOADER_OF_SERIES else 2
    with suppress(ConfigError):  # of a plug-in that is not loaded, or no class
        target = find_class(spec.type, spec.path, "data_loader", Section("builtins:object")).target
        dims = getattr(target, "dims", None)
        return dims if dims in (1, 2) else 2 if getattr(target, "task", None) == "segmentation" else None
    return None


def operator_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reason why the operations must be named: it is not known whether networks read series or images."""
    if dims_of_data(config) is None:
        loader = config[loader_section(config, "train") or ""]
        name = loader["type"] if isinstance(loader, Mapping) else loader
        yield (
            f"{ARGUMENTS}.operators: null, and {show(name)} does not say whether it has images or series. Write the "
            "operators, or set dims = 1 (series) or dims = 2 (images) in that class."
        )


def _operators_of(operators: Sequence[str] | None, config: Mapping[str, Any]) -> tuple[list[str], int]:
    """Return the operations, and whether they are for series (1) or images (2).

    Raises:
        ConfigError: One is not known, or they do not belong together.
    """
    known = dims_of_data(config)
    if known is None and operators is None:
        # Only of a study that an earlier version has begun, by the names of its data: see `operator_faults`.
        data = str(config.get("train_loader") or config.get("data_loader"))
        known = 1 if "Series" in data or "Ucr" in data else 2
    known = known or 2
    if operators is None:
        return list(SERIES_OPERATORS if known == 1 else OPERATORS), known
    faults_by_dims: dict[int, Faults] = {}
    for dims in (known, 3 - known):
        faults = faults_by_dims[dims] = Faults()
        for place, each in enumerate(operators):
            with faults.collecting():
                read_operator(each, dims, f"{ARGUMENTS}.operators.{place}")
        if not faults:
            return list(operators), dims
    raise min(faults_by_dims.values(), key=len).error()


class TableCells(Cells):
    """The cells of the table NAS-Bench-201, whose candidates are its rows.

    Args:
        space: Of the table: six choices of an operator, in the order of the edges.
        grammar: How they grow.

    Raises:
        ConfigError: It is another table.
    """

    def __init__(self, space: TableSpace, grammar: Nasbench201Nodes | Nasbench201Blocks) -> None:
        self.space, self.grammar, self._architecture = space, grammar, grammar.architecture
        sites = space.sites
        operators = [site.marker.get("$choice") for site in sites]
        if len(sites) != len(EDGES) or any(set(map(str, each or ())) != set(NODE_OPERATORS) for each in operators):
            found = ", ".join(site.path for site in sites) or "none"
            raise ConfigError(
                f"{ARGUMENTS}.grammar: its table has six settings, the operators on the edges of a cell, and this one "
                f'has {found}. Name in search.executor.args.columns how they are read: "settings": '
                '{"arch.args.edges": "arch"}, "split": {"arch": "([a-z0-9_]+)~"}.'
            )
        self._places = [(site.path, [str(each) for each in site.marker["$choice"]]) for site in sites]

    def first(self, most: int | None, seed: int, allowed: Collection[str] | None = None) -> list[str]:
        """Return the cells of one step to train."""
        texts = self.grammar.expand([self.grammar.empty]).texts()
        found = texts if allowed is None else [each for each in texts if each in allowed]
        order = np.random.default_rng(derive_seed(seed, "first cells")).permutation(len(found)).tolist()
        return found if most is None else [found[place] for place in order[:most]]

    def drawn(self, cell: str) -> Drawn:
        """Return the row of a cell."""
        operators = read_architecture(self._architecture(cell))
        return Drawn(
            tuple((path, names.index(each)) for (path, names), each in zip(self._places, operators, strict=True))
        )

    def candidate(self, cell: str) -> CandidateForm:
        """Return a cell as the journal holds it."""
        drawn = self.drawn(cell)
        return CandidateForm(drawn, self.space.label(drawn), self.space.key(drawn))

    def config(self, cell: str) -> dict[str, Any]:
        """Return the config of the row of a cell."""
        return self.space.config(self.drawn(cell))

    def covering(self) -> Iterator[dict[str, Any]]:
        """Yield nothing: no candidate of a table is trained."""
        return iter(())

    def describe(self) -> str:
        """Return how many rows there are."""
        return f"Cells of NAS-Bench-201 in {self.grammar.steps} steps, each a row of the table"


def cells_of(parts: StudyParts, growth: GrowthOptions) -> Cells:
    """Return the cells of a study.

    Raises:
        ConfigError: The grammar and the table do not belong together, or an operation is not known.
    """
    if growth.grammar is None and isinstance(parts.space, TableSpace):
        raise ConfigError(
            f"{ARGUMENTS}.grammar: null, and the cells of a table grow by a grammar of its own. Write "
            '"nasbench201", or search the table with the strategy MultiFidelity.'
        )
    if growth.grammar is None:
        return NetworkCells(parts.config, growth)
    if not isinstance(parts.space, TableSpace):
        raise ConfigError(
            f"{ARGUMENTS}.grammar: {show(growth.grammar)} is that of a table, and search.executor names none. Remove "
            "it, or name the table."
        )
    return TableCells(parts.space, Nasbench201Nodes() if growth.grammar == "nasbench201" else Nasbench201Blocks())


def network_of_request(cells: Cells, parts: StudyParts, predicted: Collection[str]) -> dict[str, Any]:
    """Return the data that a worker needs on the network whose costs follow from its cell.

    Args:
        cells: Of the study.
        parts: Of the study.
        predicted: Facts that are taken for results, as a prediction of them is to be compared.
    """
    config = cells.config(cells.grammar.empty)
    arch = config.get("arch")
    args = arch.get("args") if isinstance(arch, Mapping) else None
    sizes = {key: args[key] for key in ("motifs", "normal_cells") if isinstance(args, Mapping) and key in args}
    facts = [name for name in exact_facts(parts) if name not in predicted]
    return {"config": config, "facts": facts, "input_size": (parts.limits or {}).get("input_size"), **sizes}
