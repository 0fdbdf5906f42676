"""Cells of POPNAS: notation, operators, equivalence."""

import itertools
import json
import math
import random
import re
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from utils.architecture.cells.cell import Block, Cell
from utils.architecture.cells.grammar import Grammar
from utils.architecture.cells.loading import load_expansion
from utils.architecture.cells.operators import OPERATOR_KINDS, Operator, operator_forms, read_operator
from utils.errors import ConfigError, SearchError

TEXT = "[(-2, '3x3 conv', -1, '2x2 maxpool');(0, 'identity', -1, '3x3 conv')]"


def test_the_notation_of_a_cell_is_read_and_written() -> None:
    cell = Cell.parse(TEXT, dims=2)

    assert cell.blocks == (Block(-2, "3x3 conv", -1, "2x2 maxpool"), Block(0, "identity", -1, "3x3 conv"))
    assert str(cell) == TEXT
    assert Cell.parse("[ (-2,\"3x3 conv\",-1 , '2x2 maxpool') ; (0,'identity',-1,'3x3 conv'); ]") == cell
    assert str(Cell()) == "[]"
    assert Cell.parse(" [] ") == Cell()


def test_a_cell_tells_its_inputs_output_and_depth() -> None:
    cell = Cell.parse(TEXT[:-1] + ";(0, 'identity', 0, 'identity')]")

    assert cell.lookbacks == (-1, -2)
    assert cell.unused_blocks == (1, 2)
    assert (cell.depths, cell.depth, len(cell)) == ((1, 2, 2), 2, 3)
    assert (Cell().lookbacks, Cell().unused_blocks, Cell().depth) == ((), (), 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not in square brackets"),
        (7, "7 is not a string"),
        ("[(-1, '3x3 conv')]", "block 0 is \"(-1, '3x3 conv')\": a cell is written as"),
        ("[(0, 'a', -1, 'b')]", "block 0 reads 0: a block reads cells (-1, -2, ...) or earlier blocks. Set -1 or -2."),
        ("[(-1, 'a', -1, 'b');(0, 'a', 1, 'b')]", "block 1 reads 1: .* Set -1 to 0"),
        ("[(-1, ' ', -1, 'b')]", "block 0 has the operator ' '"),
        ("[(-1, '3x3 conv', -1, '3x3 maxpol')]", 'block 0: "3x3 maxpol" is no .* Did you mean "3x3 maxpool"'),
        ("[(-12345, '3x3 conv', -1, '3x3 conv')]", "block 0 is"),
    ],
)
def test_a_text_that_is_no_cell_is_refused(text: str, words: str) -> None:
    pattern = words if ".*" in words else re.escape(words)
    with pytest.raises(ConfigError, match=pattern) as error:
        Cell.parse(text, dims=2, where="arch.args.cell")
    assert str(error.value).startswith("arch.args.cell: ")
    assert "\n" not in str(error.value)


def test_every_kind_of_operator_has_a_form_that_is_read() -> None:
    kinds = {read_operator(text, dims).kind for dims in (1, 2) for text in operator_forms(dims)}

    assert kinds == set(OPERATOR_KINDS)


def test_the_numbers_of_an_operator_are_read() -> None:
    assert read_operator("3x3 conv:4dr", 2) == Operator("3x3 conv:4dr", "conv", 2, (3, 3), dilation=4)
    assert read_operator("1x7-7x1 conv", 2) == Operator("1x7-7x1 conv", "conv_pair", 2, (1, 7), (7, 1))
    assert read_operator("5x5 zconv:2", 2) == Operator("5x5 zconv:2", "zconv", 2, (5, 5), zoom=2)
    assert read_operator("12 SE", 1) == Operator("12 SE", "se", 1, ratio=12)
    assert read_operator("3-4-2 cvt", 2) == Operator("3-4-2 cvt", "cvt", 2, (3, 3), heads=4, layers=2)
    assert read_operator("5-4 scvt", 2) == Operator("5-4 scvt", "scvt", 2, (5, 5), heads=4)
    assert read_operator("7 tconv", 1) == Operator("7 tconv", "tconv", 1, (7,))


@pytest.mark.parametrize(
    ("text", "dims", "near"),
    [
        ("3 conv", 2, "3x3 conv"),
        ("7x7 dconv", 1, "7 dconv"),
        ("conv 3x3", 2, "3x3 conv"),
        ("5X5 Conv", 2, "5x5 conv"),
        ("4 se", 2, "4 SE"),
        ("3x3  avgpool", 2, "3x3 avgpool"),
        ("7x7 maxpol", 2, "7x7 maxpool"),
        ("ltsm", 1, "lstm"),
        ("3x3:2dr conv", 2, "3x3 conv:2dr"),
        ("5:4 zconv", 1, "5 zconv:4"),
    ],
)
def test_an_unknown_operator_names_a_near_miss(text: str, dims: int, near: str) -> None:
    with pytest.raises(ConfigError, match=f'Did you mean "{near}"'):
        read_operator(text, dims)


@pytest.mark.parametrize(
    ("text", "dims"),
    [
        ("lstm", 2),
        ("3-2-1 cvt", 1),
        ("0x3 conv", 2),
        ("3x3 conv:1dr", 2),
        ("3x3 zconv:1", 2),
        ("", 2),
        (None, 2),
        (["3x3 conv"], 2),
        ("1000x3 conv", 2),
    ],
)
def test_an_operator_for_other_inputs_or_without_effect_is_refused(text: str, dims: int) -> None:
    with pytest.raises(ConfigError, match="Known, with any numbers up to 999: identity, "):
        read_operator(text, dims, "search.strategy.args.operators.3")


def test_swapped_sides_and_other_orders_of_blocks_are_equivalent() -> None:
    cell = Cell.parse("[(-1, 'a', -2, 'b');(-2, 'c', -1, 'c');(0, 'a', -1, 'b')]")
    same = Cell.parse("[(-1, 'c', -2, 'c');(-2, 'b', -1, 'a');(-1, 'b', 1, 'a')]")
    other = Cell.parse("[(-1, 'c', -2, 'c');(-2, 'b', -1, 'a');(-1, 'b', 0, 'a')]")

    assert cell.equivalent(same)
    assert cell.canonical() == same.canonical()
    assert not cell.equivalent(other)
    assert cell.canonical() != other.canonical()
    assert str(cell.canonical()) == "[(-2, 'b', -1, 'a');(-2, 'c', -1, 'c');(-1, 'b', 0, 'a')]"


def test_the_operators_of_two_sides_are_not_exchanged_without_their_inputs() -> None:
    assert not Cell.parse("[(-1, 'a', -2, 'b')]").equivalent(Cell.parse("[(-1, 'b', -2, 'a')]"))


def test_of_two_equal_blocks_the_first_is_read() -> None:
    one = Cell.parse("[(-1, 'a', -1, 'a');(-1, 'a', -1, 'a');(0, 'b', 1, 'b')]")
    two = Cell.parse("[(-1, 'a', -1, 'a');(-1, 'a', -1, 'a');(1, 'b', 1, 'b')]")

    assert one.equivalent(two)
    assert str(one.canonical()) == str(two.canonical()) == "[(-1, 'a', -1, 'a');(-1, 'a', -1, 'a');(0, 'b', 0, 'b')]"


OPERATORS = (
    "identity", "3x3 dconv", "5x5 dconv", "7x7 dconv", "1x3-3x1 conv", "1x5-5x1 conv", "1x7-7x1 conv", "1x1 conv",
    "3x3 conv", "5x5 conv", "2x2 maxpool", "2x2 avgpool",
)  # fmt: skip
SMALL = Grammar(("identity", "3x3 conv"), lookbacks=1, blocks=3)


def all_cells(grammar: Grammar, blocks: int) -> list[Cell]:
    """Return every way to write a cell of so many blocks."""
    cells = [Cell()]
    for place in range(blocks):
        sides = list(itertools.product(range(-grammar.lookbacks, place), grammar.operators))
        added = [Block(*first, *second) for first in sides for second in sides]
        cells = [Cell((*cell.blocks, block)) for cell in cells for block in added]
    return cells


def test_there_are_as_many_blocks_as_the_formula_says() -> None:
    twelve, thirteen = Grammar(OPERATORS), Grammar((*OPERATORS, "8 SE"))

    assert [twelve.block_count(place) for place in range(5)] == [300, 666, 1176, 1830, 2628]
    assert len({str(cell) for cell in twelve.one_block_cells()}) == 300
    assert len(list(thirteen.one_block_cells())) == thirteen.block_count() == 351
    nats = Grammar(("identity", "1x1 conv", "3x3 conv", "3x3 avgpool"), lookbacks=1, blocks=2)
    assert len(list(nats.one_block_cells())) == nats.block_count() == 10
    assert twelve.most_trained(128, 16) == 861
    assert Grammar(OPERATORS, blocks=1).most_trained(128, 16) == 301


@pytest.mark.parametrize(
    "grammar",
    [
        SMALL,
        Grammar(("identity",), lookbacks=2, blocks=3),
        Grammar(("identity",), lookbacks=3, blocks=3),
        Grammar(("identity", "1x1 conv", "3x3 conv"), lookbacks=2, blocks=2),
        Grammar(("identity",), lookbacks=1, blocks=4),
    ],
    ids=lambda grammar: f"{len(grammar.operators)} operators, {grammar.lookbacks} lookbacks, {grammar.blocks} blocks",
)
def test_growing_all_cells_gives_each_class_of_equivalent_ones_once(grammar: Grammar) -> None:
    texts = [grammar.empty]
    for blocks in range(1, grammar.blocks + 1):
        texts = grammar.expand(texts).texts()
        assert len(set(texts)) == len(texts)
        assert set(texts) == {str(cell.canonical()) for cell in all_cells(grammar, blocks)}
    assert len(grammar.expand(texts)) == 0  # complete cells do not grow


def blocks_written_out(cell: Cell) -> Counter[str]:
    """Return the blocks with every block that they read written out: the definition of equivalent cells."""
    written: list[str] = []
    for block in cell.blocks:
        sides = sorted(f"{written[read] if read >= 0 else read} {operator}" for read, operator in block.sides)
        written.append(f"({' + '.join(sides)})")
    return Counter(written)


def test_canonical_cells_are_canonical_and_equivalent_and_keys_follow_them() -> None:
    cells = all_cells(SMALL, 3)
    canonical = [cell.canonical() for cell in cells]
    keys = SMALL.keys(SMALL.encode([str(cell) for cell in cells]))

    assert all(each.canonical() == each and Cell.parse(str(each)) == each for each in canonical)
    assert all(
        blocks_written_out(each) == blocks_written_out(cell) for each, cell in zip(canonical, cells, strict=True)
    )
    assert len({frozenset(blocks_written_out(cell).items()) for cell in cells}) == len(set(canonical))
    # One to one: as many keys as texts, and as pairs of both.
    pairs = set(zip(keys.tolist(), map(str, canonical), strict=True))
    assert len(pairs) == len(set(keys.tolist())) == len(set(canonical))


def test_random_cells_keep_their_class_however_they_are_written() -> None:
    draw = random.Random(0)
    grammar = Grammar(OPERATORS, lookbacks=3, blocks=6)
    for _ in range(200):
        cell = random_cell(draw, grammar)
        other = rewritten(cell, draw)
        assert other.equivalent(cell)
        assert blocks_written_out(other) == blocks_written_out(cell) == blocks_written_out(cell.canonical())
        assert str(other.canonical()) == str(cell.canonical())
        first, second = grammar.encode([str(cell), str(other)])
        assert (first == second).all()
        assert grammar.decode([first]) == [str(cell.canonical())]


def random_cell(draw: random.Random, grammar: Grammar) -> Cell:
    blocks: list[Block] = []
    for place in range(draw.randint(0, grammar.blocks)):
        if blocks and draw.random() < 0.2:
            blocks.append(draw.choice(blocks))  # equal blocks are rare otherwise
            continue
        sides = [(draw.randrange(-grammar.lookbacks, place), draw.choice(grammar.operators)) for _ in range(2)]
        blocks.append(Block(*sides[0], *sides[1]))
    return Cell(tuple(blocks))


def rewritten(cell: Cell, draw: random.Random) -> Cell:
    """Return the same cell with sides swapped and blocks in another order."""
    order: list[int] = []
    while len(order) < len(cell):
        ready = [
            place
            for place, block in enumerate(cell.blocks)
            if place not in order and all(read < 0 or read in order for read in block.inputs)
        ]
        order.append(draw.choice(ready))
    blocks = []
    for old in order:
        sides = [(order.index(read) if read >= 0 else read, name) for read, name in cell.blocks[old].sides]
        draw.shuffle(sides)
        blocks.append(Block(*sides[0], *sides[1]))
    return Cell(tuple(blocks))


def test_cells_of_different_length_grow_together_and_known_ones_are_left_out() -> None:
    parents = ["[]", "[(-1, 'identity', -1, 'identity')]"]
    expansion = SMALL.expand(parents)
    one, two = SMALL.expand(parents[:1]).texts(), SMALL.expand(parents[1:]).texts()

    assert sorted(expansion.texts()) == sorted(one + two)
    known = ["[(-1, '3x3 conv', -1, 'identity')]", parents[1]]
    rest = SMALL.expand(parents, known)
    assert set(expansion.texts()) - set(rest.texts()) == {str(Cell.parse(each).canonical()) for each in known}


def test_the_mean_over_the_parents_counts_each_parent_of_a_cell_once() -> None:
    one, two = "[(-1, 'identity', -1, 'identity')]", "[(-1, '3x3 conv', -1, '3x3 conv')]"
    expansion = SMALL.expand([one, two])
    means = dict(zip(expansion.texts(), expansion.parent_means([2.0, 5.0]).tolist(), strict=True))

    both = "[(-1, '3x3 conv', -1, '3x3 conv');(-1, 'identity', -1, 'identity')]"
    assert means[both] == 3.5
    assert means["[(-1, 'identity', -1, 'identity');(-1, 'identity', -1, 'identity')]"] == 2.0
    assert means["[(-1, '3x3 conv', -1, '3x3 conv');(0, 'identity', 0, 'identity')]"] == 5.0
    unknown = dict(zip(expansion.texts(), expansion.parent_means([math.nan, 5.0]).tolist(), strict=True))
    assert unknown[both] == 5.0
    assert math.isnan(unknown["[(-1, 'identity', -1, 'identity');(-1, 'identity', -1, 'identity')]"])


def test_an_expansion_is_the_same_from_its_file(tmp_path: Path) -> None:
    expansion = SMALL.expand(SMALL.expand(["[]"]).texts(), ["[(-1, 'identity', -1, 'identity')]"])
    expansion.save(tmp_path / "expansion.npz")
    again = load_expansion(tmp_path / "expansion.npz")

    assert again.grammar == SMALL
    assert again.texts() == expansion.texts()
    assert [len(batch) for batch in again.batches(10)][:2] == [10, 10]
    assert (np.concatenate(list(again.batches(7))) == expansion.codes()).all()
    first = (tmp_path / "expansion.npz").read_bytes()
    again.save(tmp_path / "expansion.npz")
    assert (tmp_path / "expansion.npz").read_bytes() == first


def test_a_damaged_expansion_is_refused_or_read(tmp_path: Path) -> None:
    path = tmp_path / "expansion.npz"
    SMALL.expand(SMALL.expand(["[]"]).texts()).save(path)
    whole = path.read_bytes()
    with pytest.raises(SearchError, match=r"expansion.npz: holds no expansion of cells \(.*\). Delete it: it is made"):
        load_expansion(tmp_path / "none" / "expansion.npz")
    refused = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            load_expansion(path)
        except SearchError:
            refused += 1
    assert refused > 50
    path.write_bytes(whole[:100])
    with pytest.raises(SearchError, match="holds no expansion"):
        load_expansion(path)
    np.savez(path, grammar=json.dumps(SMALL.to_json()), parents=["[]"], places=np.array([0, 10**9]))
    with pytest.raises(SearchError, match="holds no expansion"):
        load_expansion(path)


def test_a_deep_cell_is_compared_without_writing_it_out() -> None:
    chain = [Block(-1, "a", -1, "b"), *(Block(place, "a", place, "b") for place in range(200))]

    assert Cell(tuple(chain)).canonical() == Cell(tuple(chain))
    assert Cell(tuple(chain)).depth == 201


def test_no_parents_grow_into_nothing() -> None:
    nothing = SMALL.expand([])

    assert (len(nothing), nothing.texts(), list(nothing.batches()), nothing.keys().tolist()) == (0, [], [], [])
    assert nothing.parent_means([]).tolist() == []


def test_texts_that_are_damaged_at_random_are_refused_in_one_line() -> None:
    draw, messages = random.Random(1), []
    for _ in range(500):
        letters = list(TEXT)
        for _ in range(draw.randint(1, 4)):
            letters[draw.randrange(len(letters))] = draw.choice("[]();,'\"-01 x\n\\é")
        try:
            cell = Cell.parse("".join(letters))
        except ConfigError as error:
            messages.append(str(error))
        else:
            assert Cell.parse(str(cell)) == cell
    assert len(messages) > 300
    assert not any("\n" in each for each in messages)


def test_a_hundred_thousand_cells_grow_within_bounded_memory() -> None:
    grammar = Grammar(OPERATORS)
    parents = grammar.expand(["[]"]).texts()
    tracemalloc.start()
    expansion = grammar.expand(parents)
    rows = sum(len(batch) for batch in expansion.batches())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # 300 pairs of blocks that read no block, and 45,150 - 300 without regard to their order; 366 that read the first.
    assert rows == len(expansion) == 300 * 301 // 2 + 300 * 366
    assert peak < 50e6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"operators": ()}, "operators is empty"),
        ({"operators": ("identity", "identity")}, 'operators.1: "identity" is named twice'),
        ({"operators": ("3 conv",)}, 'operators.0: "3 conv" is no operator for images. Did you mean "3x3 conv"?'),
        ({"operators": ("identity",), "blocks": 0}, "blocks is 0: it must be a whole number from 1"),
        ({"operators": ("identity",), "lookbacks": 1.5}, "lookbacks is 1.5"),
    ],
)
def test_a_grammar_that_is_none_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        Grammar(**arguments)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[(-1, '5x5 conv', -1, 'identity')]", '"5x5 conv" is not among the operators: identity, 3x3 conv'),
        ("[(-2, 'identity', -1, 'identity')]", "reads -2, and 1 earlier cells are read"),
        (f"[{';'.join(['(-1, ' + repr('identity') + ', -1, ' + repr('identity') + ')'] * 4)}]", "4 blocks, and cells"),
    ],
)
def test_a_cell_of_another_grammar_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        SMALL.expand([text])
