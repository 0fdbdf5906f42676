"""Which subtrees a cell has: features of Weisfeiler and Lehman, counted for many cells at once.

Dimensions: N cells, V nodes, L levels, F subtrees.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.worker.predictors.learners.graphs import ABSENT, CellGraphs

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_Hashes = NDArray[np.uint64]
_LEVELS = 3  # a node alone, with the nodes that feed it, with those that feed them: the operators before a join


@dataclass(frozen=True)
class Counts:
    """How often cells have subtrees.

    Attributes:
        known: (N, F) sparse, of the subtrees of a vocabulary.
        unknown: (N, L) squared length of the part that lies outside of it.
    """

    known: "csr_array"
    unknown: NDArray[np.float64]


class SubtreeVocabulary:
    """The subtrees of some cells, at each level.

    At level l, a node is the tree of everything that feeds it over at most l edges (Shervashidze et al., 2011,
    https://jmlr.org/papers/v12/shervashidze11a.html; for cells: Ru et al., 2021, https://arxiv.org/abs/2006.07556).
    Trees are hashed instead of numbered, so that many cells are read without a loop over them.

    Args:
        graphs: The cells.

    Attributes:
        levels: (F,) integer, the level of each subtree.
    """

    def __init__(self, graphs: CellGraphs) -> None:
        hashes = _hashes(graphs)
        self._known = [np.unique(level[graphs.labels != ABSENT]) for level in hashes]
        self.levels = np.repeat(np.arange(_LEVELS), [len(known) for known in self._known])

    def count(self, graphs: CellGraphs) -> Counts:
        """Return how often cells have the subtrees."""
        from scipy.sparse import csr_array

        rows, columns, unknown, start = [], [], np.zeros((len(graphs), _LEVELS)), 0
        is_there = graphs.labels != ABSENT
        cells = np.broadcast_to(np.arange(len(graphs))[:, None], graphs.labels.shape)
        for level, (known, hashes) in enumerate(zip(self._known, _hashes(graphs), strict=True)):
            places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
            is_known = is_there & (known[places] == hashes)
            rows.append(cells[is_known])
            columns.append(start + places[is_known])
            # Two equal unknown subtrees are counted as two different ones: they are rare.
            unknown[:, level] = (is_there & ~is_known).sum(axis=1)
            start += len(known)
        row, column = np.concatenate(rows), np.concatenate(columns)
        found = csr_array((np.ones(len(row)), (row, column)), shape=(len(graphs), len(self.levels)))
        found.sum_duplicates()
        return Counts(found, unknown)


def _hashes(graphs: CellGraphs) -> list[_Hashes]:
    """Return the hash of the subtree of each node (N, V), level by level; sums of hashes do not depend on an order."""
    cell, begin, end = np.nonzero(graphs.edges)
    current = _mixed(graphs.labels.astype(np.uint64), 1)
    levels = [current]
    for level in range(1, _LEVELS):
        sent, received = _mixed(current, 2 * level), np.zeros_like(current)
        np.add.at(received, (cell, end), sent[cell, begin])
        current = _mixed(current ^ _mixed(received, 2 * level + 1), 0)
        levels.append(current)
    return levels


def _mixed(values: _Hashes, salt: int) -> _Hashes:
    """Return hashes (splitmix64: Steele et al., 2014, https://doi.org/10.1145/2714064.2660195)."""
    mixed = values + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: _Hashes = mixed ^ (mixed >> np.uint64(31))
    return hashed
