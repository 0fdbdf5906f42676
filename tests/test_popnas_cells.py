"""Cells of POPNAS: notation, operators, equivalence."""

import re

import pytest

from utils.architecture.cells.cell import Block, Cell
from utils.architecture.cells.operators import OPERATOR_KINDS, Operator, operator_forms, read_operator
from utils.errors import ConfigError

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
    ],
)
def test_an_unknown_operator_names_a_near_miss(text: str, dims: int, near: str) -> None:
    with pytest.raises(ConfigError, match=f'Did you mean "{near}"'):
        read_operator(text, dims)


@pytest.mark.parametrize(
    ("text", "dims"),
    [("lstm", 2), ("3-2-1 cvt", 1), ("0x3 conv", 2), ("3x3 conv:1dr", 2), ("3x3 zconv:1", 2), ("", 2), (None, 2)],
)
def test_an_operator_for_other_inputs_or_without_effect_is_refused(text: str, dims: int) -> None:
    with pytest.raises(ConfigError, match="Known, with any numbers: identity, "):
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
