"""Which estimated cells are chosen, and the numbers from which they are estimated."""

import itertools
import math

import numpy as np
import pytest

from tests.test_popnas_cells import OPERATORS
from utils.architecture.cells.features import (
    TIME_FEATURES,
    built_cells,
    dynamic_reindex,
    score_feature_names,
    score_features,
    time_features,
)
from utils.architecture.cells.front import RareUse, best_of, exploration_front, pareto_front
from utils.architecture.cells.grammar import Grammar

GRAMMAR = Grammar(("identity", "1x1 conv", "3x3 conv"), blocks=4)
VALUES = [0.0, 0.5, 1.0]


def features_of(text: str, **network: int) -> dict[str, float]:
    row = time_features(GRAMMAR.encode([text]), VALUES, 2, **network)[0]
    return dict(zip(TIME_FEATURES, row.tolist(), strict=True))


def test_the_largest_value_of_an_operator_is_one() -> None:
    assert dynamic_reindex([12.0, 15.0, 20.0], 10.0).tolist() == [0.2, 0.5, 1.0]
    assert dynamic_reindex([4.0, 15.0, 20.0], 10.0).max() == 1  # faster than the empty cell, by a busy machine
    assert dynamic_reindex([10.0, 10.0], 10.0).tolist() == [1.0, 1.0]
    assert dynamic_reindex([10.0, math.nan, 20.0], 10.0).tolist() == [0.0, 0.5, 1.0]
    assert dynamic_reindex([math.nan, math.nan], 10.0).tolist() == [1.0, 1.0]
    assert dynamic_reindex([11.0, math.nan], math.nan).tolist() == [1.0, 1.0]


def test_the_nine_numbers_of_a_cell_are_those_counted_by_hand() -> None:
    text = (
        "[(-2, '1x1 conv', -1, '3x3 conv');(-1, '1x1 conv', 0, '3x3 conv')"
        ";(-1, '3x3 conv', -1, 'identity');(0, '3x3 conv', 1, '1x1 conv')]"
    )
    # Values of the blocks: 1.5, 1.5, 1, 1.5. Blocks 0 and 2 read no block; 2 and 3 are not read.
    # The heaviest path is -1 (3x3) 0 (3x3) 1 (1x1) 3.
    assert features_of(text) == {
        "blocks": 4,
        "cells": 8,
        "value": 5.5,
        "several lookbacks": 1,
        "share of the value in blocks that read no block": 2.5 / 5.5,
        "reads of blocks": 3,
        "depth": 3,
        "blocks joined to the output": 2,
        "share of the value on the heaviest path": 2.5 / 5.5,
    }


def test_a_single_block_is_not_joined_and_a_cell_without_value_has_no_shares() -> None:
    one = features_of("[(-2, 'identity', -2, 'identity')]")

    assert list(one.values()) == [1, 4, 0, 0, 0, 0, 1, 0, 0]
    assert list(features_of("[]").values()) == [0] * 9
    assert features_of("[(-2, '1x1 conv', -2, 'identity')]", motifs=2, normal_cells=3)["cells"] == 4


def test_a_network_has_the_cells_that_reach_its_output() -> None:
    assert built_cells([-1], 3, 2) == built_cells([-1, -2], 3, 2) == 8
    assert built_cells([-2], 3, 2) == 4
    assert built_cells([-2], 2, 1) == 2
    assert built_cells([-3, -2], 3, 2) == 7  # the one before the last is read by none
    assert built_cells([], 3, 2) == 1


def test_no_cells_have_no_features() -> None:
    none = GRAMMAR.encode([])

    assert time_features(none, VALUES, 2).shape == (0, 9)
    assert score_features(none, 3, 2).shape == (0, len(score_feature_names(GRAMMAR.operators, 2)))


def test_equivalent_cells_have_the_same_features_and_names_fit() -> None:
    first = "[(-1, '1x1 conv', -2, 'identity');(-1, '3x3 conv', -1, '3x3 conv');(0, 'identity', -1, '1x1 conv')]"
    other = "[(-1, '3x3 conv', -1, '3x3 conv');(-2, 'identity', -1, '1x1 conv');(-1, '1x1 conv', 1, 'identity')]"
    rows = score_features(GRAMMAR.encode([first, other]), 3, 2)
    named = dict(zip(score_feature_names(GRAMMAR.operators, 2), rows[0].tolist(), strict=True))

    assert (rows[0] == rows[1]).all()
    assert (
        time_features(GRAMMAR.encode([first]), VALUES, 2) == time_features(GRAMMAR.encode([other]), VALUES, 2)
    ).all()
    assert named["identity"] == named["1x1 conv"] == named["3x3 conv"] == 2
    assert (named["identity on an earlier cell"], named["reads of -1"], named["reads of -2"]) == (1, 4, 1)
    assert named["identity in a block joined to the output"] == 1
    assert (named["reads of blocks"], named["blocks"], named["joined to the output"], named["depth"]) == (1, 3, 2, 2)
    assert (named["most blocks of one depth"], named["different operators"], named["blocks of equal sides"]) == (
        2,
        3,
        1,
    )


def dominates(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one >= other).all() and (one > other).any())


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_front_is_what_no_other_dominates(objectives: int) -> None:
    draw = np.random.default_rng(objectives)
    for levels in (2, 4, 50):  # few levels: many equal values
        values = draw.integers(0, levels, (60, objectives)).astype(float)
        expected = [i for i, one in enumerate(values) if not any(dominates(other, one) for other in values)]
        front = pareto_front(values)
        assert sorted(front.tolist()) == expected
        assert (np.diff(values[front, 0]) <= 0).all()
        assert pareto_front(values, 3).tolist() == front[:3].tolist()


def test_equal_estimates_do_not_remove_each_other() -> None:
    assert pareto_front([[0.5, -3.0], [0.5, -3.0], [0.4, -3.0]]).tolist() == [0, 1]
    assert pareto_front([[0.5, -3.0], [0.5, -2.0], [0.4, -3.0], [0.4, -1.0]]).tolist() == [1, 3]
    assert pareto_front([[0.5, -3.0, 1.0], [0.5, -3.0, 1.0]]).tolist() == [0, 1]


def test_unknown_estimates_and_equivalent_cells_are_left_out() -> None:
    values = [[math.nan, 0.0], [0.9, math.nan], [0.5, -3.0], [0.5, -3.0], [0.6, -4.0]]
    keys = np.array([1, 2, 3, 3, 5], dtype=np.uint64)

    assert pareto_front(values).tolist() == [4, 2, 3]
    assert pareto_front(values, keys=keys).tolist() == [4, 2]
    assert best_of([0.1, math.nan, 0.3, 0.3, 0.2], 3, keys).tolist() == [2, 4, 0]
    assert best_of([0.1, 0.3, 0.3], 2).tolist() == [1, 2]
    assert pareto_front(np.empty((0, 2))).tolist() == best_of([], 3).tolist() == []
    with pytest.raises(ValueError, match="a row per cell"):
        pareto_front([0.5, 0.3])


def test_the_order_of_the_rows_does_not_decide_between_equal_cells() -> None:
    keys = np.arange(50, dtype=np.uint64)
    order = np.random.default_rng(0).permutation(50)
    values = np.zeros((50, 2))

    chosen = pareto_front(values, 5, keys)
    again = pareto_front(values[order], 5, keys[order])
    assert keys[order][again].tolist() == keys[chosen].tolist()


def test_what_is_used_less_than_a_fifth_of_its_share_is_rare() -> None:
    use = RareUse(np.array([50, 5, 4, 1, 0]), np.array([10, 10, 10]))  # 60 in all: 2.4 is a fifth of 12

    assert use.rare().operators.tolist() == [False, False, False, True, True]
    assert use.rare().inputs.tolist() == [False, False, False]


@pytest.mark.parametrize("sides", list(itertools.permutations(["1x1 conv", "identity"])))
def test_both_operators_of_a_block_count_for_exploration(sides: tuple[str, str]) -> None:
    rare = RareUse(np.array([9, 0, 9]), np.array([9, 9, 0])).rare()
    nothing = RareUse(np.zeros(3, dtype=int), np.zeros(3, dtype=int))
    text = f"[(-2, '{sides[0]}', -1, '{sides[1]}');(-2, 'identity', 0, '1x1 conv')]"
    operators, inputs = GRAMMAR.elements(GRAMMAR.encode([text]))

    # Two uses of the operator and one of block 0, each rare and not explored before: 1 + 2.
    assert rare.threshold == 8
    assert rare.points(operators, inputs, nothing).tolist() == [9]
    # The operator was explored more than the mean of the rare ones, itself: not. Its kind more than inputs: they get 1.
    assert rare.points(operators, inputs, RareUse(np.array([0, 2, 0]), np.array([0, 0, 1]))).tolist() == [3 + 3 + 4]


def test_a_use_beyond_the_mean_of_its_kind_gives_one_point() -> None:
    rare = RareUse(np.array([0, 0, 90]), np.array([9, 9, 9])).rare()
    operators, inputs = GRAMMAR.elements(GRAMMAR.encode(["[(-2, 'identity', -1, '1x1 conv')]"]))

    assert rare.threshold == 4
    assert rare.points(operators, inputs, RareUse(np.array([3, 1, 0]), np.zeros(3, dtype=int))).tolist() == [1 + 3]


def test_exploration_takes_what_the_front_does_not_use() -> None:
    expansion = GRAMMAR.expand(GRAMMAR.expand(["[]"]).texts())
    texts = expansion.texts()
    counts = GRAMMAR.elements(expansion.codes())[0]
    values = np.stack([(counts == 2).sum(axis=1) / 4.0, -np.arange(len(texts)) / len(texts)], axis=1)
    front = np.flatnonzero(values[:, 0] == 1)[:5]
    assert all("identity" not in texts[row] and "1x1 conv" not in texts[row] for row in front)

    explored = exploration_front(expansion, values, front, 4)

    assert 0 < len(explored) <= 4
    assert not set(explored.tolist()) & set(front.tolist())
    assert all("identity" in texts[row] or "1x1 conv" in texts[row] for row in explored)
    assert not any(dominates(values[one], values[other]) for one in explored for other in explored)
    assert exploration_front(expansion, values, front, 0).tolist() == []
    # The same for a selection of the rows.
    rows = np.setdiff1d(np.arange(len(texts)), explored[:1])
    place = {int(row): number for number, row in enumerate(rows)}
    others = exploration_front(expansion, values[rows], [place[int(row)] for row in front], 4, rows)
    assert explored[0] not in rows[others]


def test_nothing_is_explored_if_all_is_used_alike() -> None:
    expansion = GRAMMAR.expand(["[]"])

    assert exploration_front(expansion, np.zeros((len(expansion), 2)), np.arange(len(expansion)), 4).tolist() == []
    assert exploration_front(expansion, np.zeros((len(expansion), 2)), np.arange(len(expansion) - 1), 4).tolist() == []


def test_the_default_search_space_has_a_front_and_exploration() -> None:
    grammar = Grammar(OPERATORS)
    expansion = grammar.expand(grammar.expand(["[]"]).texts()[:100])
    draw = np.random.default_rng(0)
    values = np.stack([draw.random(len(expansion)), -draw.random(len(expansion)), -draw.random(len(expansion))], axis=1)
    front = pareto_front(values, 128, expansion.keys())

    assert 20 < len(front) <= 128
    assert len(exploration_front(expansion, values, front, 16)) <= 16
