"""Cells of any grammar as predictors read them.

Dimensions: N cells, H cells of the history, O operators.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.worker.predictors.learners.graphs import CellGraphs, graphs_of_blocks, graphs_of_edges
from utils.architecture.cells.expansion import CellGrammar, Codes
from utils.architecture.cells.features import dynamic_reindex
from utils.architecture.cells.grammar import Grammar
from utils.architecture.cells.nasbench201 import EDGES, NODE_OPERATORS, Nasbench201Nodes, read_architecture
from utils.errors import SearchError

Array = NDArray[np.float64]
Pairs = NDArray[np.intp]
_PARENTS_AT_ONCE = 64


@dataclass(frozen=True)
class EncodedCells:
    """Cells as the predictor of one objective reads them.

    Attributes:
        graphs: N graphs.
        features: (N, F) numbers for support vectors; none for scores.
    """

    graphs: CellGraphs
    features: Array

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, rows: NDArray[np.intp]) -> "EncodedCells":
        return EncodedCells(self.graphs[rows], self.features[rows])


@dataclass(frozen=True)
class CellEncoder:
    """Reads cells of a grammar.

    Attributes:
        grammar: Of the cells.
        motifs: Of the network that is made of them.
        normal_cells: Of each motif.
    """

    grammar: CellGrammar
    motifs: int = 3
    normal_cells: int = 2

    def canonical(self, cells: Sequence[str]) -> list[str]:
        """Return the canonical text of each cell."""
        return self.grammar.decode(self.grammar.encode(list(cells))) if len(cells) else []

    def for_scores(self, codes: Codes) -> EncodedCells:
        """Return cells by the operators and inputs that influence their output."""
        graphs = self._graphs(codes, NODE_OPERATORS.index("none"))
        return EncodedCells(graphs, np.zeros((len(codes), 0)))

    def for_costs(self, codes: Codes, operator_values: Array) -> EncodedCells:
        """Return cells by everything that is computed, whether or not it influences their output.

        Args:
            codes: N cells.
            operator_values: (O,) from `operator_values`.
        """
        sizes = {"motifs": self.motifs, "normal_cells": self.normal_cells}
        return EncodedCells(self._graphs(codes, None), self.grammar.time_features(codes, operator_values, **sizes))

    def operator_values(self, costs: Mapping[str, float]) -> Array:
        """Return the value (O,) of each operator, see `dynamic_reindex`.

        Args:
            costs: Of known cells, by their canonical texts.
        """
        single = self.canonical([str(self.grammar.one_operator_cell(each)) for each in self.grammar.operators])
        known = [cost for cost in costs.values() if np.isfinite(cost)]
        empty = costs.get(self.canonical([self.grammar.empty])[0], np.nan)
        return dynamic_reindex(
            [costs.get(each, np.nan) for each in single], empty if np.isfinite(empty) else min(known, default=0.0)
        )

    def _graphs(self, codes: Codes, zero: int | None) -> CellGraphs:
        """Return the graphs of cells; without the operator `zero` of NAS-Bench-201, and the nodes that it cuts off."""
        if isinstance(self.grammar, Grammar):
            return graphs_of_blocks(codes, self.grammar.lookbacks, len(self.grammar.operators))
        if isinstance(self.grammar, Nasbench201Nodes):
            texts = self.grammar.decode(codes)  # of a partial cell, that of the complete one that is trained
            numbers = [[NODE_OPERATORS.index(each) for each in read_architecture(text)] for text in texts]
            operators = np.array(numbers, dtype=np.int64).reshape(-1, len(EDGES))
            return graphs_of_edges(operators, EDGES, len(NODE_OPERATORS), zero)
        raise SearchError(f"{type(self.grammar).__name__}: no predictor reads the cells of this grammar.")

    def family(self, codes: Codes) -> Pairs:
        """Return (2, pairs): which of some cells grow from which other ones, as places of parent and child.

        Args:
            codes: H cells, none equivalent to another.
        """
        keys = self.grammar.keys(codes)
        order = np.argsort(keys)
        pairs = [np.zeros((2, 0), dtype=np.intp)]
        for start in range(0, len(codes), _PARENTS_AT_ONCE):
            found, exists = self.grammar.child_keys(codes[start : start + _PARENTS_AT_ONCE])
            places = np.searchsorted(keys, found, sorter=order).clip(max=len(keys) - 1)
            parents, growths = np.nonzero(exists & (keys[order[places]] == found))
            pairs.append(np.stack([parents + start, order[places[parents, growths]]]))
        once = np.unique(np.concatenate(pairs, axis=1), axis=1)
        # In the table, a growth may compute the same as its parent: that one is the same cell, or has fewer nodes.
        sizes = (self.grammar.elements(codes)[0] >= 0).sum(axis=1)
        return once[:, sizes[once[0]] < sizes[once[1]]]


def means_of_parents(pairs: Pairs, values: Array) -> Array:
    """Return (H,) the mean value of the known parents of each cell, NaN if there is none.

    Args:
        pairs: From `CellEncoder.family`.
        values: (H,) of each cell, NaN if unknown.
    """
    parents, children = pairs[:, np.isfinite(values[pairs[0]])]
    counts = np.bincount(children, minlength=len(values))
    sums = np.bincount(children, weights=values[parents], minlength=len(values))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
