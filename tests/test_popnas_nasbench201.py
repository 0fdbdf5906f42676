"""Both grammars of the table NAS-Bench-201."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from utils.architecture.cells.cell import Block, Cell
from utils.architecture.cells.expansion import CellGrammar
from utils.architecture.cells.features import dynamic_reindex
from utils.architecture.cells.front import exploration_front, pareto_front
from utils.architecture.cells.loading import load_expansion, read_grammar
from utils.architecture.cells.nasbench201 import (
    BLOCK_OPERATORS,
    NODE_OPERATORS,
    Nasbench201Blocks,
    Nasbench201Nodes,
    architecture_of_blocks,
    blocks_of_architecture,
    write_architecture,
)
from utils.errors import ConfigError

BLOCKS, NODES = Nasbench201Blocks(), Nasbench201Nodes()
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"


def grown(grammar: CellGrammar) -> list[list[str]]:
    """Return all cells after each step."""
    steps = [[grammar.empty]]
    while len(steps) <= grammar.steps:
        steps.append(grammar.expand(steps[-1]).texts())
    return steps


def written_blocks() -> list[Cell]:
    """Return the cells of up to two blocks in every way to write them, whether the benchmark holds them or not."""
    sides = [list(itertools.product(inputs, BLOCK_OPERATORS)) for inputs in ((-1,), (-1, 0))]
    first, second = ([Block(*a, *b) for a, b in itertools.product(each, each)] for each in sides)
    return [Cell(), *(Cell((a,)) for a in first), *(Cell((a, b)) for a, b in itertools.product(first, second))]


def test_two_blocks_can_be_written_as_529_cells_of_the_benchmark() -> None:
    found, refused = set(), 0
    for cell in written_blocks():
        try:
            text = architecture_of_blocks(cell)
        except ConfigError:
            refused += 1
            continue
        found.add(text)
        assert architecture_of_blocks(blocks_of_architecture(text)) == text
        assert blocks_of_architecture(text).equivalent(cell)
    assert len(found) == 529
    assert refused == 16 * 16  # both sides of the second block read the first


def test_the_original_grammar_grows_what_the_benchmark_holds() -> None:
    steps = grown(BLOCKS)

    assert [len(each) for each in steps] == [1, 10, 10 * 11 // 2 + 10 * 16]
    texts = [BLOCKS.architecture(text) for step in steps for text in step]
    assert len(set(texts)) == len(texts)


def test_a_cell_of_blocks_lies_on_the_edges() -> None:
    text = BLOCKS.architecture("[(-1, '3x3 conv', -1, '3x3 avgpool');(0, '1x1 conv', -1, 'identity')]")

    assert text == "|skip_connect~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
    assert BLOCKS.architecture("[]") == "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[(-1, '3x3 conv', -1, '3x3 conv');(0, '1x1 conv', 0, 'identity')]", "one edge to what block 1 reads twice"),
        ("[(-2, '3x3 conv', -1, '3x3 conv')]", "cells of up to two blocks that read -1"),
        ("[(-1, '5x5 conv', -1, '3x3 conv')]", '"5x5 conv" is none of the operators identity, 1x1 conv'),
    ],
)
def test_a_cell_that_the_benchmark_lacks_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        BLOCKS.architecture(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("|nor_conv_3x3~0|", "is written as |nor_conv_3x3~0|+|none~0|"),
        (BEST.replace("nor_conv_1x1", "conv"), '"conv" is no operator of NAS-Bench-201. Known: none, skip_connect'),
    ],
)
def test_a_text_that_is_no_cell_of_the_benchmark_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        NODES.expand([text])
    with pytest.raises(ConfigError, match="no cell of two blocks"):
        blocks_of_architecture(BEST)


def test_the_whole_benchmark_grows_node_by_node() -> None:
    steps = grown(NODES)

    assert [len(each) for each in steps] == [1, 5, 125, 15_625]
    whole = {write_architecture(each) for each in itertools.product(NODE_OPERATORS, repeat=6)}
    assert set(steps[3]) == whole
    assert all(set(each) < whole for each in steps[:3])
    assert (
        BEST
        in NODES.expand(["|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|"]).texts()
    )


def test_a_partial_cell_carries_its_last_node_to_the_output() -> None:
    assert NODES.empty == "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    first = NODES.one_operator_cell("nor_conv_3x3")
    assert first == "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"
    second = NODES.expand([first]).texts()
    assert len(second) == 25
    assert all(re.fullmatch(r"\|nor_conv_3x3~0\|\+\|.*\|\+\|none~0\|none~1\|skip_connect~2\|", each) for each in second)
    assert len(NODES.expand([BEST])) == 0


def test_the_last_node_grows_in_several_rounds() -> None:
    parents = NODES.expand(NODES.expand([NODES.empty]).texts()).texts()[40:42]
    first = NODES.expand(parents)
    assert len(first) == 250
    trained = [*parents, *first.texts()[:30]]
    second = NODES.expand(parents, trained)
    # One child of each parent is the parent itself: its last node is carried to the output.
    assert set(second.texts()) == set(first.texts()) - set(trained)
    assert 250 - len(second) == 30 + sum(parent not in first.texts()[:30] for parent in parents)


def test_cells_that_compute_the_same_can_count_once() -> None:
    once = Nasbench201Nodes(once_per_network=True)
    codes = np.array(list(itertools.product(range(5), repeat=6)), dtype=np.int16)
    keys = once.keys(codes)

    assert len(np.unique(keys)) == 4930
    assert len(np.unique(NODES.keys(codes))) == 15_625
    same = [
        "|skip_connect~0|+|nor_conv_3x3~0|none~1|+|none~0|nor_conv_1x1~1|skip_connect~2|",
        "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|nor_conv_1x1~0|none~1|skip_connect~2|",
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|none~0|skip_connect~1|skip_connect~2|",
    ]
    assert len(set(once.keys(once.encode(same)).tolist())) == 1
    # Partial cells that differ in a node that only the next one can read are kept apart: all networks are reached.
    steps = grown(once)
    assert len(steps[3]) == len(np.unique(once.keys(once.encode(steps[3])))) == 4930
    last = once.expand(steps[2], [*steps[1], *steps[2]])
    assert len(last) == 4930 - len(np.unique(once.known_keys(steps[2])[len(steps[2]) :]))
    # A skip to the first node computes the same as the empty cell.
    assert len(once.expand([once.empty])) == 5


def test_features_count_what_reaches_the_output() -> None:
    values = dynamic_reindex([1.0, 1.0, 2.0, 3.0, 1.5], 1.0)  # none, skip, 1x1, 3x3, pooling: 0, 0, 0.5, 1, 0.25
    dead = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|"
    codes = NODES.encode([BEST, dead, NODES.empty])
    rows = NODES.time_features(codes, values)

    # skips, 1x1, 3x3, poolings, value, share at the input, share of the heaviest path, edges of a path, at the output
    assert rows[0].tolist() == [1, 1, 4, 0, 4.5, 2 / 4.5, 2.5 / 4.5, 3, 3]
    assert rows[1].tolist() == [0, 1, 2, 0, 2.5, 1.5 / 2.5, 2 / 2.5, 2, 2]
    assert rows[2].tolist() == [1, 0, 0, 0, 0, 0, 0, 1, 1]
    scores = NODES.score_features(codes)
    assert scores.shape == (3, 6 * 4 + 4 + 3)
    assert scores[:, -3:].tolist() == [[3, 3, 3], [2, 2, 2], [1, 1, 0]]


@pytest.mark.parametrize("grammar", [BLOCKS, NODES, Nasbench201Nodes(True)], ids=["blocks", "nodes", "once"])
def test_both_grammars_serve_all_that_grows_cells(grammar: CellGrammar, tmp_path: Path) -> None:
    first = grammar.expand([grammar.empty])
    second = grammar.expand(first.texts(), [first.text(0)])
    second.save(tmp_path / "expansion.npz")
    again = load_expansion(tmp_path / "expansion.npz")

    assert read_grammar(grammar.to_json()) == again.grammar == grammar
    assert again.texts() == second.texts()
    values = np.random.default_rng(0).random((len(second), 2))
    front = pareto_front(values, 10, second.keys())
    assert set(exploration_front(second, values, front, 4).tolist()).isdisjoint(front.tolist())
    assert len(second.parent_means(np.arange(len(first)))) == len(second)
    assert len(grammar.time_features(second.codes(), np.ones(len(grammar.operators)))) == len(second)
    assert len(grammar.score_features(second.codes())) == len(second)
    assert [grammar.encode([grammar.one_operator_cell(each)]).shape[0] for each in grammar.operators]
