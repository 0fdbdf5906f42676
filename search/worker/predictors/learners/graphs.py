"""Cells as graphs of labelled nodes: the form in which predictors read them.

Dimensions: N cells, V nodes, B blocks.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
ABSENT = -1
_OUTPUT, _JOIN, _FIRST_INPUT = 0, 1, 2


@dataclass(frozen=True)
class CellGraphs:
    """Directed acyclic graphs, one per cell.

    Both sides of a block are alike, so that equivalent cells have the same graph up to the order of its nodes.

    Attributes:
        labels: (N, V) kind of each node, `ABSENT` if there is none; 0 is the output, 1 a join, others are inputs and
            operators.
        edges: (N, V, V) bool, whether the first node feeds the second.
        num_labels: Labels are smaller than this number.
    """

    labels: Labels
    edges: NDArray[np.bool_]
    num_labels: int

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> "CellGraphs":
        return CellGraphs(self.labels[rows], self.edges[rows], self.num_labels)

    @property
    def label_counts(self) -> NDArray[np.float64]:
        """How often each cell has each label, (N, num_labels): the operations, inputs and blocks that it has."""
        counts = np.zeros((len(self), self.num_labels + 1))
        rows = np.broadcast_to(np.arange(len(self))[:, None], self.labels.shape)
        np.add.at(counts, (rows, self.labels), 1.0)  # an absent node counts in the last column
        return counts[:, :-1]


def graphs_of_blocks(blocks: NDArray[np.integer], lookbacks: int, num_operators: int) -> CellGraphs:
    """Return the graphs of cells of blocks: a node per lookback that is read, operator and join, and the output.

    Blocks that no other reads feed the output.

    Args:
        blocks: (N, B, 4) first input, first operator, second input, second operator. An input is -1 for the previous
            cell, -2 for the one before, or the number of a block; an operator is a number from 0. A block whose
            operators are negative is absent.
        lookbacks: Earlier cells that can be read.
        num_operators: Operators that there are.
    """
    count, most = blocks.shape[:2]
    first_join, first_operator = 1 + lookbacks, 1 + lookbacks + most
    labels = np.full((count, first_operator + 2 * most), ABSENT, dtype=np.int64)
    edges = np.zeros((count, labels.shape[1], labels.shape[1]), dtype=bool)
    labels[:, 0] = _OUTPUT
    is_used = np.zeros((count, most), dtype=bool)
    for place in range(most):
        rows = np.flatnonzero(blocks[:, place, 1] >= 0)
        join = first_join + place
        labels[rows, join] = _JOIN
        for side in (0, 1):
            source, operator = blocks[rows, place, 2 * side].astype(np.int64), blocks[rows, place, 2 * side + 1]
            node = first_operator + 2 * place + side
            labels[rows, node] = _FIRST_INPUT + lookbacks + operator
            feeding = np.where(source < 0, -source, first_join + source)
            edges[rows, feeding, node] = True
            edges[rows, node, join] = True
            is_lookback = source < 0
            labels[rows[is_lookback], -source[is_lookback]] = _FIRST_INPUT - 1 - source[is_lookback]
            is_used[rows[~is_lookback], source[~is_lookback]] = True
    for place in range(most):
        edges[:, first_join + place, 0] = (blocks[:, place, 1] >= 0) & ~is_used[:, place]
    return CellGraphs(labels, edges, _FIRST_INPUT + lookbacks + num_operators)


def graphs_of_edges(
    operators: NDArray[np.integer], places: Collection[tuple[int, int]], num_operators: int, zero: int | None
) -> CellGraphs:
    """Return the graphs of cells whose operators lie on the edges between fixed nodes, as in NAS-Bench-201.

    Args:
        operators: (N, E) number of the operator on each edge.
        places: (from, to) of each edge: node 0 is the input, the last node the output.
        num_operators: Operators that there are.
        zero: The operator that passes nothing on; None if there is none.
    """
    last = max(end for _, end in places)
    labels = np.full((len(operators), last + 1 + len(places)), ABSENT, dtype=np.int64)
    edges = np.zeros((len(operators), labels.shape[1], labels.shape[1]), dtype=bool)
    labels[:, 0] = _FIRST_INPUT
    labels[:, 1:last], labels[:, last] = _JOIN, _OUTPUT
    labels[:, last + 1 :] = np.where(operators == (ABSENT if zero is None else zero), ABSENT, operators + 3)
    for place, (begin, end) in enumerate(places):
        edges[:, begin, last + 1 + place] = True
        edges[:, last + 1 + place, end] = True
    return _without_dead_ends(CellGraphs(labels, edges, _FIRST_INPUT + 1 + num_operators))


def _without_dead_ends(graphs: CellGraphs) -> CellGraphs:
    """Return graphs without the nodes that no input reaches, or that do not reach the output."""
    labels, edges = graphs.labels.copy(), graphs.edges.copy()
    is_end = (labels == _OUTPUT) | (labels == _FIRST_INPUT)
    while True:
        is_there = labels != ABSENT
        edges &= is_there[:, :, None] & is_there[:, None, :]
        is_reached = edges.any(axis=1) | (labels == _FIRST_INPUT)
        is_reaching = edges.any(axis=2) | (labels == _OUTPUT)
        is_dead = is_there & ~(is_reached & is_reaching) & ~is_end
        if not is_dead.any():
            return CellGraphs(labels, edges, graphs.num_labels)
        labels[is_dead] = ABSENT
