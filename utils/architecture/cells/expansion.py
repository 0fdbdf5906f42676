"""The cells that grow from others by one step, each once: as arrays, so that 100,000 take a fraction of a second.

Dimensions: P parents, G growths of a parent, N cells of an expansion.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.files import write_atomically

Codes = NDArray[np.int16]
Keys = NDArray[np.uint64]
Rows = NDArray[np.int64]
Elements = NDArray[np.int16]
Floats = NDArray[np.float64]
BATCH_SIZE = 16_384
ABSENT = -1
"""The code of an operator on a block or node that a cell does not have."""
_CHILDREN_AT_ONCE = 1 << 18


class CellGrammar(Protocol):
    """The cells of a search: which there are, and which grows from which.

    Codes are cells as whole numbers, a row each, of any shape; keys are equal for equivalent cells.
    """

    @property
    def steps(self) -> int:
        """After how many steps of growth a cell is complete."""

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators, of which codes hold the numbers."""

    @property
    def empty(self) -> str:
        """The cell from which all others grow."""

    def one_operator_cell(self, operator: str) -> str:
        """Return the cell with a single operator: it measures the operator's time, see `features.dynamic_reindex`."""

    def encode(self, texts: Sequence[str]) -> Codes:
        """Return the codes of cells, (N, ...). Equivalent cells have the same codes up to the order of their parts."""

    def decode(self, codes: Codes) -> list[str]:
        """Return the canonical text of each."""

    def keys(self, codes: Codes) -> Keys:
        """Return (N,): a number that is the same for equivalent cells only."""

    def known_keys(self, texts: Sequence[str]) -> Keys:
        """Return the keys of the cells that are left out of an expansion if these cells are known."""

    def elements(self, codes: Codes) -> tuple[Elements, Elements]:
        """Return the number of each operator (N, E) and of each input (N, F) that cells use, -1 for absent ones."""

    def time_features(self, codes: Codes, values: ArrayLike, *, motifs: int = 3, normal_cells: int = 2) -> Floats:
        """Return the numbers from which the time of each cell is predicted, see `features.time_features`."""

    def score_features(self, codes: Codes) -> Floats:
        """Return numbers from which the score of each cell is predicted, see `features.score_features`."""

    def growths(self, parents: Codes) -> int:
        """Return G: the number of ways in which the parent with the most can grow."""

    def child_keys(self, parents: Codes) -> tuple[Keys, NDArray[np.bool_]]:
        """Return the keys (P, G) of the cells that grow from parents, and which of them exist."""

    def children(self, parents: Codes, growths: Rows) -> Codes:
        """Return the codes of the child of each parent by its growth, (N, ...)."""

    def expand(self, parents: Sequence[str], known: Sequence[str] = ()) -> "Expansion":
        """Return the cells that grow from parents, without equivalents of known ones."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data, from which `loading.read_grammar` makes it again."""


class Expansion:
    """The cells that grow from parents by one step, none equivalent to another or to a known one.

    They are in the order of parents and growths, and are made when they are asked for: of each, only eight bytes are
    stored.

    Args:
        grammar: Which cells there are.
        parents: Texts of the cells that grow.
        places: (N,) parent times G plus growth, in ascending order.
        num_grown: Ways in which parents grow, into equivalent and known cells, too; None: as many as there are cells.

    Attributes:
        num_grown: The same.
    """

    def __init__(
        self, grammar: CellGrammar, parents: Sequence[str], places: Rows, num_grown: int | None = None
    ) -> None:
        self.num_grown = len(places) if num_grown is None else num_grown
        self.grammar = grammar
        self.parents = tuple(parents)
        self._places = places
        self._codes_of_parents = grammar.encode(self.parents)
        self._growths = grammar.growths(self._codes_of_parents)

    @classmethod
    def grow(cls, grammar: CellGrammar, parents: Sequence[str], known: Sequence[str] = ()) -> "Expansion":
        """Return the expansion of parents, see `CellGrammar.expand`.

        Raises:
            ConfigError: A parent or a known cell is none of the grammar.
        """
        codes = grammar.encode(tuple(parents))
        keys, places = _all_children(grammar, codes)
        _, first = np.unique(keys, return_index=True)
        first.sort()
        if len(known):
            first = first[~np.isin(keys[first], grammar.known_keys(tuple(known)))]
        return cls(grammar, parents, places[first], len(places))

    def __len__(self) -> int:
        return len(self._places)

    def codes(self, rows: ArrayLike | slice | None = None) -> Codes:
        """Return the codes of some cells, or of all."""
        places = self._places if rows is None else self._places[rows if isinstance(rows, slice) else np.asarray(rows)]
        if not len(places):
            return self._codes_of_parents[:0]
        return self.grammar.children(self._codes_of_parents[places // self._growths], places % self._growths)

    def batches(self, size: int = BATCH_SIZE) -> Iterator[Codes]:
        """Yield the codes of all cells in order, in batches of a bounded number of bytes."""
        for start in range(0, len(self), size):
            yield self.codes(slice(start, start + size))

    def keys(self) -> Keys:
        """Return the key of each cell, (N,)."""
        found = [self.grammar.keys(codes) for codes in self.batches()]
        return np.concatenate(found) if found else np.empty(0, dtype=np.uint64)

    def text(self, row: int) -> str:
        """Return the canonical text of a cell."""
        return self.texts([row])[0]

    def texts(self, rows: ArrayLike | None = None) -> list[str]:
        """Return the canonical texts of some cells, or of all."""
        return self.grammar.decode(self.codes(rows))

    def parent_means(self, values: ArrayLike) -> Floats:
        """Return (N,): of each cell, the mean value of all its parents.

        Args:
            values: (P,) of each parent; NaN where it is unknown. Without any known parent the mean is NaN.
        """
        numbers = np.asarray(values, dtype=np.float64)
        if numbers.shape != (len(self.parents),):
            raise ValueError(f"values have the shape {numbers.shape}: {len(self.parents)} parents need one each.")
        keys, places = _all_children(self.grammar, self._codes_of_parents)
        _, first, class_of = np.unique(keys, return_index=True, return_inverse=True)
        # A cell can grow from one parent in two ways: it counts once.
        pairs = np.unique(np.stack([class_of, places // max(self._growths, 1)]), axis=1)
        pairs = pairs[:, ~np.isnan(numbers[pairs[1]])]
        sums = np.bincount(pairs[0], weights=numbers[pairs[1]], minlength=len(first))
        counts = np.bincount(pairs[0], minlength=len(first))
        means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        own = np.searchsorted(places, self._places)
        return np.asarray(means[class_of[own]], dtype=np.float64)

    def save(self, path: Path) -> None:
        """Write the grammar, the parents and which growths; `loading.load_expansion` reads them."""
        grammar, parents = json.dumps(self.grammar.to_json()), np.array(self.parents, dtype=np.str_)

        def write(stream: BinaryIO) -> None:
            np.savez_compressed(stream, grammar=np.array(grammar), parents=parents, places=self._places)

        write_atomically(path, write)


def _all_children(grammar: CellGrammar, parents: Codes) -> tuple[Keys, Rows]:
    """Return the keys of all that grows from cells, equivalent ones included, and the place of each."""
    growths = grammar.growths(parents)
    keys, places = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
    step = max(1, _CHILDREN_AT_ONCE // max(growths, 1))
    for start in range(0, len(parents), step):
        found, exists = grammar.child_keys(parents[start : start + step])
        flat = np.flatnonzero(exists)
        keys.append(found.reshape(-1)[flat])
        places.append(flat + start * growths)
    return np.concatenate(keys), np.concatenate(places)


def mixed(numbers: Keys) -> Keys:
    """Return 64 bits each, in which every bit of a number has changed about half of the bits.

    Source: Guy L. Steele Jr. et al., "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64).
    """
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)), dtype=np.uint64)
