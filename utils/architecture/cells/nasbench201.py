"""The cells of the table NAS-Bench-201, in two grammars: two blocks, as POPNAS searched it, and node by node.

Xuanyi Dong and Yi Yang, "NAS-Bench-201", https://arxiv.org/abs/2001.00326. A cell has four nodes: 0 is its input, 3 its
output, and each edge from an earlier node to a later one has one of five operators. A node is the sum of its edges.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.architecture.cells.cell import Block, Cell
from utils.architecture.cells.expansion import ABSENT, Codes, Elements, Expansion, Floats, Keys, Rows, mixed
from utils.architecture.cells.grammar import Grammar
from utils.errors import ConfigError

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""The nodes of each edge, in the order of the benchmark's text."""
NODE_OPERATORS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_NONE, _SKIP = 0, 1
BLOCK_OPERATORS = {
    "identity": "skip_connect",
    "1x1 conv": "nor_conv_1x1",
    "3x3 conv": "nor_conv_3x3",
    "3x3 avgpool": "avg_pool_3x3",
}
"""The operators of blocks, and their names in the benchmark."""
_TEXT = re.compile(r"\|(\w+)~0\|\+\|(\w+)~0\|(\w+)~1\|\+\|(\w+)~0\|(\w+)~1\|(\w+)~2\|")
_EXAMPLE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
# The edges that grow with each node, and the edge on which a node that is not the last is carried to the output.
_GROWN = ((0,), (1, 2), (3, 4, 5))
_CARRIES = (3, 4, 5)


def read_architecture(text: str) -> tuple[str, ...]:
    """Return the operators on the six `EDGES` of "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|".

    Raises:
        ConfigError: It is none of the benchmark.
    """
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(f"cell {text!r}: a cell of NAS-Bench-201 is written as {_EXAMPLE}. Write it so.")
    for operator in match.groups():
        if operator not in NODE_OPERATORS:
            known = ", ".join(NODE_OPERATORS)
            raise ConfigError(f'cell {text}: "{operator}" is no operator of NAS-Bench-201. Known: {known}.')
    return match.groups()


def write_architecture(operators: Sequence[str]) -> str:
    """Return the benchmark's text for the operators on the six `EDGES`."""
    parts = [f"{operator}~{begin}|" for operator, (begin, _) in zip(operators, EDGES, strict=True)]
    return f"|{parts[0]}+|{parts[1]}{parts[2]}+|{parts[3]}{parts[4]}{parts[5]}"


def architecture_of_blocks(cell: Cell) -> str:
    """Return the cell of the benchmark that computes a cell of at most two blocks with one lookback.

    Node 1 is a copy of the input, node 2 the first block, node 3 the second one. A block is computed on the edges as it
    is written: with swapped sides the cell of the benchmark may be another one, which computes the same. Of the 15,625
    cells of the benchmark, 529 are written in this way.

    Raises:
        ConfigError: The cell is larger, has other operators, or its second block reads the first one twice: only one
            edge leads from node 2 to node 3.
    """
    blocks = cell.blocks
    if len(blocks) > 2 or any(read < -1 for read in cell.lookbacks):
        raise ConfigError(
            f"cell {cell}: NAS-Bench-201 holds cells of up to two blocks that read -1. Write a smaller one."
        )
    for name in (name for block in blocks for name in block.operators):
        if name not in BLOCK_OPERATORS:
            raise ConfigError(f'cell {cell}: "{name}" is none of the operators {", ".join(BLOCK_OPERATORS)}. Set one.')
    edges = dict.fromkeys(EDGES, NODE_OPERATORS[_NONE])
    if not blocks:
        edges[0, 3] = NODE_OPERATORS[_SKIP]
        return write_architecture([edges[edge] for edge in EDGES])
    edges[0, 1] = edges[2, 3] = NODE_OPERATORS[_SKIP]
    edges[0, 2], edges[1, 2] = (BLOCK_OPERATORS[name] for name in blocks[0].operators)
    if len(blocks) == 2:
        (first_input, first), (second_input, second) = sorted(blocks[1].sides, key=lambda side: side[0])
        if first_input == 0:
            raise ConfigError(
                f"cell {cell}: NAS-Bench-201 has one edge to what block 1 reads twice. Set an input to -1."
            )
        edges[0, 3] = BLOCK_OPERATORS[first]
        edges[(2, 3) if second_input == 0 else (1, 3)] = BLOCK_OPERATORS[second]
    return write_architecture([edges[edge] for edge in EDGES])


def blocks_of_architecture(text: str) -> Cell:
    """Return the cell of blocks that `architecture_of_blocks` writes so.

    Raises:
        ConfigError: It is none of the benchmark, or none of the 529.
    """
    names = {theirs: ours for ours, theirs in BLOCK_OPERATORS.items()}
    edges = {edge: names.get(each) for edge, each in zip(EDGES, read_architecture(text), strict=True)}
    candidates = [Cell()]
    if (first := edges[0, 2]) and (second := edges[1, 2]):
        block = Block(-1, first, -1, second)
        candidates.append(Cell((block,)))
        for edge, read in (((2, 3), 0), ((1, 3), -1)):
            if (of_input := edges[0, 3]) and (other := edges[edge]):
                candidates.append(Cell((block, Block(-1, of_input, read, other))))
    for cell in candidates:
        if architecture_of_blocks(cell) == text:
            return cell
    raise ConfigError(
        f"cell {text}: no cell of two blocks that read -1 is written so. Search node by node to reach it."
    )


@dataclass(frozen=True)
class Nasbench201Blocks(Grammar):
    """The grammar in which POPNAS searched the table: two blocks of four operators, which read the previous cell.

    A second block that reads the first one twice is no cell of the benchmark, and does not grow.
    """

    operators: tuple[str, ...] = tuple(BLOCK_OPERATORS)
    lookbacks: int = 1
    blocks: int = 2

    def child_keys(self, parents: Codes) -> tuple[Keys, NDArray[np.bool_]]:
        """Return the result of `Grammar.child_keys`, without the cells that the benchmark does not hold."""
        keys, exists = super().child_keys(parents)
        first, second = self._pairs(self.growths(parents))
        on_block = len(self.operators)  # sides from this one on read the first block
        return keys, exists & ~((first >= on_block) & (second >= on_block))

    def architecture(self, text: str) -> str:
        """Return the name of a cell in the table, see `architecture_of_blocks`."""
        return architecture_of_blocks(Cell.parse(text))

    def to_json(self) -> dict[str, Any]:
        """Return plain data, from which `loading.read_grammar` makes it again."""
        return super().to_json() | {"kind": "nasbench201_blocks"}


@dataclass(frozen=True)
class Nasbench201Nodes:
    """All 15,625 cells of the table, grown node by node. Each partial cell is a cell of the table, too.

    In it, the last node that has grown is carried to the output by skips, and all other edges of the nodes that have
    not grown are "none". Codes are (N, 6): the number of the operator on each of the `EDGES`, `ABSENT` if its node has
    not grown.

    Attributes:
        once_per_network: Whether cells that compute the same count as equivalent: 4,930 classes. Otherwise each of the
            table's cells counts, since each was trained.
    """

    once_per_network: bool = False

    @property
    def steps(self) -> int:
        """After how many steps of growth a cell is complete: each adds a node."""
        return len(_GROWN)

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators, of which codes hold the numbers."""
        return NODE_OPERATORS

    @property
    def empty(self) -> str:
        """The cell of the table whose input is carried to its output."""
        return self.decode(np.full((1, len(EDGES)), ABSENT, dtype=np.int16))[0]

    def one_operator_cell(self, operator: str) -> str:
        """Return the cell that has only this operator: it measures the operator's time."""
        codes = np.full((1, len(EDGES)), ABSENT, dtype=np.int16)
        codes[0, 0] = NODE_OPERATORS.index(operator)
        return self.decode(codes)[0]

    def architecture(self, text: str) -> str:
        """Return the name of a cell in the table: the cell's text itself."""
        return write_architecture(read_architecture(text))

    def expand(self, parents: Sequence[str], known: Sequence[str] = ()) -> Expansion:
        """Return the cells that have one node more than a parent, without known ones.

        The last node can be grown several times: the second time, those of the first are among the known ones.

        Raises:
            ConfigError: A cell is none of the benchmark.
        """
        return Expansion.grow(self, parents, known)

    def encode(self, texts: Sequence[str]) -> Codes:
        """Return the codes of cells, (N, 6). A cell that can be read as a partial one has its code.

        Raises:
            ConfigError: A text is no cell of the benchmark.
        """
        numbers = [[NODE_OPERATORS.index(each) for each in read_architecture(text)] for text in texts]
        codes = np.array(numbers, dtype=np.int16).reshape(-1, len(EDGES))
        for grown in range(self.steps):
            partial = codes.copy()
            partial[:, [edge for edges in _GROWN[grown:] for edge in edges]] = ABSENT
            is_partial = (_complete(partial) == codes).all(axis=1)
            codes[is_partial] = partial[is_partial]
        return codes

    def decode(self, codes: Codes) -> list[str]:
        """Return the benchmark's text of each."""
        return [write_architecture([NODE_OPERATORS[each] for each in code]) for code in _complete(codes).tolist()]

    def keys(self, codes: Codes) -> Keys:
        """Return (N,): a number for each cell of the table, or for each class of cells that compute the same.

        Partial cells are of one class if each of their nodes computes the same: the next node can read all of them.
        """
        numbers = _numbers(_complete(codes))
        if not self.once_per_network:
            return mixed(numbers.astype(np.uint64))
        first, second, last = _node_classes()[numbers].T
        grown = _nodes_grown(codes)
        partial = [np.full_like(first, 1 << 32), mixed(first), mixed(mixed(first) + second)]
        return mixed(np.where(grown == self.steps, last, np.select([grown == node for node in range(3)], partial)))

    def known_keys(self, texts: Sequence[str]) -> Keys:
        """Return the keys of cells, and those of partial ones as if they were complete."""
        codes = self.encode(texts)
        return np.concatenate([self.keys(codes), self.keys(_complete(codes))])

    def elements(self, codes: Codes) -> tuple[Elements, Elements]:
        """Return the operators (N, 6), -1 on nodes that have not grown, and no inputs: there is no choice of them."""
        return codes, np.empty((len(codes), 0), dtype=np.int16)

    def time_features(self, codes: Codes, values: ArrayLike, *, motifs: int = 3, normal_cells: int = 2) -> Floats:
        """Return numbers from which the time of each cell is predicted, (N, 9); the network is always the same.

        They are: how often each operator but "none" is used, the sum of the values, the share in it of the edges at the
        input and of the heaviest path, the number of edges on the longest path, and of those at the output. Edges
        without a path from the input to the output do not count.
        """
        del motifs, normal_cells
        used = _used_edges(_complete(codes))
        edge_values = np.append(np.asarray(values, dtype=np.float64), 0.0)[used]
        is_used = (used != ABSENT).astype(np.float64)
        total = edge_values.sum(axis=1)
        parts = (edge_values[:, [0, 1, 3]].sum(axis=1), _longest_path(edge_values))
        shares = [np.divide(part, total, out=np.zeros_like(total), where=total > 0) for part in parts]
        counts = [(used == number).sum(axis=1) for number in range(_SKIP, len(NODE_OPERATORS))]
        ends = is_used[:, [3, 4, 5]].sum(axis=1)
        return np.stack([*counts, total, *shares, _longest_path(is_used), ends], axis=1).astype(np.float64)

    def score_features(self, codes: Codes) -> Floats:
        """Return numbers from which the score of each cell is predicted, (N, 31).

        They are: which operator is on each edge, how often each is used, the number of edges on the longest path and of
        those at the output, and the longest path in convolutions. Edges that do not count are as for `time_features`.
        """
        used = _used_edges(_complete(codes))
        numbers = range(_SKIP, len(NODE_OPERATORS))
        edges = [used == number for number in numbers]
        convolutions = np.isin(used, [NODE_OPERATORS.index(f"nor_conv_{size}") for size in ("1x1", "3x3")])
        is_used = (used != ABSENT).astype(np.float64)
        single = [_longest_path(is_used), is_used[:, [3, 4, 5]].sum(axis=1), _longest_path(convolutions.astype(float))]
        columns = [*edges, np.stack([each.sum(axis=1) for each in edges], axis=1), np.stack(single, axis=1)]
        return np.concatenate(columns, axis=1).astype(np.float64)

    def growths(self, parents: Codes) -> int:
        """Return G: 5, 25 or 125, the ways in which the next node of the cell with the most nodes can be joined."""
        grown = _nodes_grown(parents)
        growing = grown[grown < self.steps]
        return int(len(NODE_OPERATORS) ** (growing.max() + 1)) if len(growing) else 0

    def child_keys(self, parents: Codes) -> tuple[Keys, NDArray[np.bool_]]:
        """Return the keys (P, G) of each cell with its next node, and which of them exist."""
        count = self.growths(parents)
        grown = _nodes_grown(parents)
        exists = (np.arange(count) < len(NODE_OPERATORS) ** (grown[:, None] + 1)) & (grown < self.steps)[:, None]
        rows, growths = np.nonzero(exists)
        keys = np.zeros(exists.shape, dtype=np.uint64)
        keys[rows, growths] = self.keys(self.children(parents[rows], growths.astype(np.int64)))
        return keys, exists

    def children(self, parents: Codes, growths: Rows) -> Codes:
        """Return (N, 6): each parent with its next node; the digits of a growth are the operators on its edges."""
        children, grown = parents.copy(), _nodes_grown(parents)
        for node, edges in enumerate(_GROWN):
            rows = np.flatnonzero(grown == node)
            for place, edge in enumerate(edges):
                digits = growths[rows] // len(NODE_OPERATORS) ** (len(edges) - 1 - place)
                children[rows, edge] = digits % len(NODE_OPERATORS)
        return children

    def to_json(self) -> dict[str, Any]:
        """Return plain data, from which `loading.read_grammar` makes it again."""
        return {"kind": "nasbench201", "once_per_network": self.once_per_network}


def _nodes_grown(codes: Codes) -> Rows:
    """Return (N,): how many nodes have grown, 0 to 3."""
    grown = np.stack([codes[:, edges[0]] != ABSENT for edges in _GROWN], axis=1)
    return np.asarray(grown.sum(axis=1), dtype=np.int64)


def _complete(codes: Codes) -> Codes:
    """Return codes without `ABSENT`: the last node that has grown is carried to the output."""
    complete, grown = np.where(codes == ABSENT, _NONE, codes).astype(np.int16), _nodes_grown(codes)
    for nodes, edge in enumerate(_CARRIES):
        complete[grown == nodes, edge] = _SKIP
    return complete


def _numbers(codes: Codes) -> Rows:
    """Return (N,): a number from 0 to 15,624 of each complete cell, its operators being the digits."""
    powers = len(NODE_OPERATORS) ** np.arange(len(EDGES) - 1, -1, -1)
    return np.asarray(codes.astype(np.int64) @ powers, dtype=np.int64)


def _used_edges(codes: Codes) -> NDArray[np.int64]:
    """Return codes with `ABSENT` on the edges that lie on no path from the input to the output."""
    used = np.where(codes == _NONE, ABSENT, codes).astype(np.int64)
    used[used[:, 0] == ABSENT, 2] = ABSENT  # node 1 is reached by edge 0 only
    used[used[:, 0] == ABSENT, 4] = ABSENT
    used[(used[:, 1] == ABSENT) & (used[:, 2] == ABSENT), 5] = ABSENT
    no_second = used[:, 5] == ABSENT
    used[no_second, 1] = used[no_second, 2] = ABSENT
    used[(used[:, 2] == ABSENT) & (used[:, 4] == ABSENT), 0] = ABSENT
    return used


def _longest_path(values: Floats) -> Floats:
    """Return (N,): the largest sum of values (N, 6) on a path from the input to the output."""
    nodes = np.zeros((len(values), 4))
    for edge, (begin, end) in enumerate(EDGES):
        nodes[:, end] = np.maximum(nodes[:, end], nodes[:, begin] + values[:, edge])
    return nodes[:, -1]


@lru_cache(maxsize=1)
def _node_classes() -> Keys:
    """Return (15,625, 3): for each cell of the table, the numbers of the sums that its nodes 1 to 3 compute.

    A node computes a sum of terms, each an operator on another sum: a skip passes the terms on, "none" and
    operators on nothing have no term.
    """
    known: dict[tuple[int, ...], int] = {}
    terms: dict[tuple[int, tuple[int, ...]], int] = {}

    def applied(operator: int, value: tuple[int, ...]) -> tuple[int, ...]:
        if operator == _NONE or not value:
            return ()
        return value if operator == _SKIP else (terms.setdefault((operator, value), len(terms) + 1),)

    classes = []
    for code in np.ndindex(*(len(NODE_OPERATORS),) * len(EDGES)):
        nodes: list[tuple[int, ...]] = [(0,), (), (), ()]
        for operator, (begin, end) in zip(code, EDGES, strict=True):
            nodes[end] = tuple(sorted((*nodes[end], *applied(operator, nodes[begin]))))
        classes.append([known.setdefault(node, len(known)) for node in nodes[1:]])
    return np.array(classes, dtype=np.uint64)
