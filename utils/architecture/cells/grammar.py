"""The cells of blocks that a search may grow: how many there are, which grow from which, and cells as whole numbers.

Dimensions: P parents, G growths of a parent, N cells, B blocks of a complete cell.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.architecture.cells.cell import Block, Cell
from utils.architecture.cells.expansion import ABSENT, Codes, Elements, Expansion, Floats, Keys, Rows, mixed
from utils.architecture.cells.features import score_features, time_features
from utils.architecture.cells.operators import read_operator
from utils.errors import ConfigError

_MOST_BLOCKS, _MOST_LOOKBACKS = 99, 99


@dataclass(frozen=True)
class Grammar:
    """Cells of at most B blocks with given operators and lookbacks.

    Codes are (N, B, 4): first input, number of the first operator, second input, number of the second operator, with
    the first side not after the second. Absent blocks follow the others and have the operators `ABSENT`.

    Attributes:
        operators: Texts, see `operators.read_operator`.
        lookbacks: How many earlier cells a block may read.
        blocks: How many blocks a complete cell has.
        dims: 1 for series, 2 for images.

    Raises:
        ConfigError: An operator is unknown or named twice, or a number is out of range.
    """

    operators: tuple[str, ...]
    lookbacks: int = 2
    blocks: int = 5
    dims: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", tuple(self.operators))
        if not self.operators:
            raise ConfigError("operators is empty: a block has at least one. Name some, as 'identity' and '3x3 conv'.")
        for place, operator in enumerate(self.operators):
            read_operator(operator, self.dims, f"operators.{place}")
            if operator in self.operators[:place]:
                raise ConfigError(f'operators.{place}: "{operator}" is named twice: operators differ. Remove one.')
        for name, most in (("lookbacks", _MOST_LOOKBACKS), ("blocks", _MOST_BLOCKS)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise ConfigError(f"{name} is {value!r}: it must be a whole number from 1 to {most}. Set it so.")

    @property
    def steps(self) -> int:
        """After how many steps of growth a cell is complete: each adds a block."""
        return self.blocks

    @property
    def empty(self) -> str:
        """The text of the cell without a block."""
        return str(Cell())

    def block_count(self, place: int = 0) -> int:
        """Return how many blocks differ, sides swapped or not, at a place from 0.

        With 12 operators and two lookbacks: 300, 666, 1176, 1830 and 2628.
        """
        sides = (self.lookbacks + place) * len(self.operators)
        return sides * (sides + 1) // 2

    def most_trained(self, max_children: int, max_exploration: int) -> int:
        """Return the most cells that a search trains: empty, of one block, then fronts.

        Cells are not explored in the last step. The default, 5 blocks of 12 operators with 128 and 16, has 861.
        """
        return 1 + self.block_count() + (self.blocks - 1) * max_children + max(self.blocks - 2, 0) * max_exploration

    def one_block_cells(self) -> Iterator[Cell]:
        """Yield all cells of one block, each class of equivalent ones once."""
        for text in self.expand([self.empty]).texts():
            yield Cell.parse(text)

    def one_operator_cell(self, operator: str) -> str:
        """Return the cell that has one operator twice on the previous cell: it measures the operator's time."""
        return str(Cell((Block(-1, operator, -1, operator),)))

    def expand(self, parents: Sequence[str], known: Sequence[str] = ()) -> Expansion:
        """Return the cells that have one block more than a parent, each class of equivalent ones once.

        Args:
            parents: Texts of cells; complete ones do not grow.
            known: Texts of cells that are left out, with all that are equivalent to them.

        Raises:
            ConfigError: A cell is none of this grammar.
        """
        return Expansion.grow(self, parents, known)

    def encode(self, texts: Sequence[str]) -> Codes:
        """Return the codes of cells, (N, B, 4).

        Raises:
            ConfigError: A text is no cell, or has other operators, more lookbacks or more blocks.
        """
        codes = np.full((len(texts), self.blocks, 4), ABSENT, dtype=np.int16)
        for row, text in enumerate(texts):
            cell = Cell.parse(text).canonical()
            self._require_known(cell, text)
            for place, block in enumerate(cell.blocks):
                sides = sorted((read, self._numbers[operator]) for read, operator in block.sides)
                codes[row, place] = [*sides[0], *sides[1]]
        return codes

    def _require_known(self, cell: Cell, text: str) -> None:
        if len(cell) > self.blocks:
            raise ConfigError(
                f"cell {text}: {len(cell)} blocks, and cells have up to {self.blocks}. Set blocks higher."
            )
        if any(read < -self.lookbacks for read in cell.lookbacks):
            rule = f"{self.lookbacks} earlier cells are read"
            raise ConfigError(f"cell {text}: reads {min(cell.lookbacks)}, and {rule}. Set lookbacks higher.")
        for block in cell.blocks:
            for operator in block.operators:
                if operator not in self._numbers:
                    known = ", ".join(self.operators)
                    raise ConfigError(f'cell {text}: "{operator}" is not among the operators: {known}. Add it to them.')

    def decode(self, codes: Codes) -> list[str]:
        """Return the canonical text of each cell."""
        return [str(self.cell(each)) for each in codes]

    def cell(self, code: Codes) -> Cell:
        """Return the canonical cell of one code, (B, 4)."""
        names = self.operators
        blocks = (Block(r, names[s], t, names[u]) for r, s, t, u in code.tolist() if s != ABSENT)
        return Cell(tuple(blocks)).canonical()

    def keys(self, codes: Codes) -> Keys:
        """Return (N,): 64 bits that are the same for equivalent cells.

        That two others share a number has a chance of 1 in 36,000,000 for a million cells.
        """
        keys, _ = self._hashes(codes)
        return keys

    def known_keys(self, texts: Sequence[str]) -> Keys:
        """Return the keys of the cells left out of an expansion if these are known: of these cells themselves."""
        return self.keys(self.encode(texts))

    def elements(self, codes: Codes) -> tuple[Elements, Elements]:
        """Return the operators (N, 2 B) and the inputs (N, 2 B) of all sides, the farthest lookback being input 0."""
        operators = codes[:, :, (1, 3)]
        inputs = np.where(operators == ABSENT, ABSENT, codes[:, :, (0, 2)] + self.lookbacks).astype(np.int16)
        return operators.reshape(-1, 2 * self.blocks), inputs.reshape(-1, 2 * self.blocks)

    def time_features(self, codes: Codes, values: ArrayLike, *, motifs: int = 3, normal_cells: int = 2) -> Floats:
        """Return the nine numbers from which the time of each cell is predicted, see `features.time_features`."""
        return time_features(codes, values, self.lookbacks, motifs=motifs, normal_cells=normal_cells)

    def score_features(self, codes: Codes) -> Floats:
        """Return numbers from which the score of each cell is predicted, see `features.score_features`."""
        return score_features(codes, len(self.operators), self.lookbacks)

    def growths(self, parents: Codes) -> int:
        """Return G: how many blocks differ that can be added to the longest of the cells that are not complete."""
        counts = self._block_counts(parents)
        growing = counts[counts < self.blocks]
        return self.block_count(int(growing.max())) if len(growing) else 0

    def child_keys(self, parents: Codes) -> tuple[Keys, NDArray[np.bool_]]:
        """Return the keys (P, G) of each cell with each block added, and which of them exist."""
        keys, table = self._hashes(parents)
        counts = self._block_counts(parents)
        first, second = self._pairs(self.growths(parents))
        num_sides = int(second.max(initial=-1)) + 1
        num_operators = len(self.operators)
        inputs, operators = np.divmod(np.arange(num_sides), num_operators)
        sides = mixed(table[:, inputs] * _ODD + _of_operators(operators))
        added = mixed(sides[:, first] + sides[:, second])
        can_read = second[None, :] < ((self.lookbacks + counts) * num_operators)[:, None]
        return keys[:, None] + mixed(added), can_read & (counts < self.blocks)[:, None]

    def children(self, parents: Codes, growths: Rows) -> Codes:
        """Return (N, B, 4): each parent with the block added that its growth means."""
        first, second = self._pairs(int(growths.max(initial=-1)) + 1)
        children = parents.copy()
        rows, places = np.arange(len(parents)), self._block_counts(parents)
        for column, sides in ((0, first[growths]), (2, second[growths])):
            inputs, operators = np.divmod(sides, len(self.operators))
            children[rows, places, column] = inputs - self.lookbacks
            children[rows, places, column + 1] = operators
        return children

    def to_json(self) -> dict[str, Any]:
        """Return plain data, from which `loading.read_grammar` makes it again."""
        fields = {"operators": list(self.operators), "lookbacks": self.lookbacks}
        return {"kind": "blocks", **fields, "blocks": self.blocks, "dims": self.dims}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {operator: number for number, operator in enumerate(self.operators)}

    @staticmethod
    def _pairs(growths: int) -> tuple[Rows, Rows]:
        """Return both sides of at least so many blocks, in an order that does not depend on their number.

        Side i O + o is operator o on input i, counted from the farthest lookback. Block (s, t) with s <= t has the
        number t (t + 1) / 2 + s.
        """
        num_sides = int(np.ceil((np.sqrt(8 * growths + 1) - 1) / 2))
        second, first = np.tril_indices(num_sides)
        return first.astype(np.int64), second.astype(np.int64)

    @staticmethod
    def _block_counts(codes: Codes) -> Rows:
        return np.asarray((codes[:, :, 1] != ABSENT).sum(axis=1), dtype=np.int64)

    def _hashes(self, codes: Codes) -> tuple[Keys, Keys]:
        """Return the keys (N,), and the numbers of all inputs (N, lookbacks + B), the farthest lookback first."""
        table = np.zeros((len(codes), self.lookbacks + self.blocks), dtype=np.uint64)
        table[:, : self.lookbacks] = mixed(np.arange(1, self.lookbacks + 1, dtype=np.uint64) << np.uint64(32))
        keys = np.zeros(len(codes), dtype=np.uint64)
        rows = np.arange(len(codes))
        for place in range(self.blocks):
            block = codes[:, place].astype(np.int64)
            sides = [
                mixed(table[rows, block[:, column] + self.lookbacks] * _ODD + _of_operators(block[:, column + 1]))
                for column in (0, 2)
            ]
            is_there = block[:, 1] != ABSENT
            hashes = np.where(is_there, mixed(sides[0] + sides[1]), np.uint64(0))
            table[:, self.lookbacks + place] = hashes
            keys += np.where(is_there, mixed(hashes), np.uint64(0))
        return keys, table


_ODD = np.uint64(0xD6E8FEB86659FD93)


def _of_operators(numbers: Rows) -> Keys:
    return mixed(numbers.astype(np.uint64) + np.uint64(1 << 20))
