"""The cells of a study as candidates: what grows from which, the config of each, and its costs without a training."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.faults import Faults, show
from config.loading.load import deep_merge
from search.space.drawn import Drawn
from search.space.table_space import TableSpace
from search.strategies.popnas.options import ARGUMENTS, CELL, OPERATORS, SERIES_OPERATORS, GrowthOptions
from search.study.settings import StudyParts
from utils.architecture.cells.cell import Cell
from utils.architecture.cells.operators import read_operator
from utils.errors import ConfigError

Floats = NDArray[np.float64]


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


class Expanded(ABC):
    """Cells that grow from others, N of them; no two are equivalent.

    Attributes:
        parents: The cells that they grow from.
        parent: (N,) int, the place of the parent of each; of several, the first.
    """

    parents: Sequence[str]
    parent: NDArray[np.int64]

    @abstractmethod
    def __len__(self) -> int:
        """Return their number."""

    @abstractmethod
    def text(self, place: int) -> str:
        """Return the canonical text of one."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write them as arrays for a worker."""


class Cells(ABC):
    """The cells of a study.

    Attributes:
        blocks: Blocks of the largest ones.
        empty: Text of the cell without blocks.
    """

    blocks: int
    empty: str

    @abstractmethod
    def first(self, most: int | None, seed: int) -> list[str]:
        """Return the cells of one block to train: all, or those with one operation twice first, then random ones."""

    @abstractmethod
    def num_first(self, most: int | None) -> int:
        """Return the number of `first`."""

    @abstractmethod
    def expand(self, parents: Sequence[str], known: Collection[str]) -> Expanded:
        """Return the cells of one block more than their parents, without those that are known."""

    @abstractmethod
    def candidate(self, cell: str) -> CandidateForm:
        """Return a cell as the journal holds it."""

    @abstractmethod
    def config(self, cell: str) -> dict[str, Any]:
        """Return the config of a cell, without its seed."""

    @abstractmethod
    def costs(self, expanded: Expanded) -> Mapping[str, Floats]:
        """Return the facts of cells that are known exactly, by name, (N,) each."""

    @abstractmethod
    def covering(self) -> Iterator[dict[str, Any]]:
        """Yield configs in which together each operation occurs."""

    @abstractmethod
    def describe(self) -> str:
        """Return in words which cells there are."""

    @abstractmethod
    def grammar_json(self) -> dict[str, Any]:
        """Return the grammar as plain data, for a worker."""
