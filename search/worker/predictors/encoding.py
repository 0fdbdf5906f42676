"""Cells of any grammar as predictors read them.

Dimensions: N cells, H cells of the history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.worker.predictors.graphs import CellGraphs, graphs_of_blocks
from utils.architecture.cells.expansion import CellGrammar, Codes
from utils.architecture.cells.grammar import Grammar
from utils.errors import SearchError

Array = NDArray[np.float64]
_PARENTS_AT_ONCE = 64


@dataclass(frozen=True)
class EncodedCells:
    """Cells for predictors.

    Attributes:
        graphs: N graphs.
        features: (N, F) of the predictor of times.
    """

    graphs: CellGraphs
    features: Array

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, rows: NDArray[np.intp]) -> "EncodedCells":
        return EncodedCells(self.graphs[rows], self.features[rows])


def graphs_of(grammar: CellGrammar, codes: Codes) -> CellGraphs:
    """Return the graphs of cells.

    Raises:
        SearchError: The grammar is of a kind whose cells have no graphs yet.
    """
    if isinstance(grammar, Grammar):
        return graphs_of_blocks(codes, grammar.lookbacks, len(grammar.operators))
    raise SearchError(f"{type(grammar).__name__}: no predictor reads the cells of this grammar. Add it to graphs_of.")


def family(grammar: CellGrammar, codes: Codes) -> NDArray[np.intp]:
    """Return (2, pairs): which of some cells grow from which other ones, as places of parent and child.

    Args:
        grammar: Of the cells.
        codes: (H, ...) of the cells, none equivalent to another.
    """
    keys = grammar.keys(codes)
    order = np.argsort(keys)
    pairs = []
    for start in range(0, len(codes), _PARENTS_AT_ONCE):
        found, exists = grammar.child_keys(codes[start : start + _PARENTS_AT_ONCE])
        places = np.searchsorted(keys, found, sorter=order).clip(max=len(keys) - 1)
        is_known = exists & (keys[order[places]] == found)
        parents, growths = np.nonzero(is_known)
        pairs.append(np.stack([parents + start, order[places[parents, growths]]]))
    return np.unique(np.concatenate(pairs, axis=1), axis=1) if pairs else np.zeros((2, 0), dtype=np.intp)


def means_of_parents(pairs: NDArray[np.intp], values: Sequence[float] | Array) -> Array:
    """Return (H,) the mean value of the known parents of each cell, NaN if there is none.

    Args:
        pairs: From `family`.
        values: (H,) of each cell, NaN if unknown.
    """
    numbers = np.asarray(values, dtype=float)
    parents, children = pairs[:, np.isfinite(numbers[pairs[0]])]
    counts = np.bincount(children, minlength=len(numbers))
    sums = np.bincount(children, weights=numbers[parents], minlength=len(numbers))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
