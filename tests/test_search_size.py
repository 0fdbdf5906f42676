"""How many different candidates a space holds: alternatives add up, independent values multiply, equals count once."""

import math

import pytest

from search.space.outcomes import holds_marker
from search.space.space import Space
from search.worker.candidate import canonical

TWO, THREE = {"$choice": ["a", "b"]}, {"$range": [0, 3]}
LAYER = {"op": {"$choice": ["H", "V", "C", "O"]}, "dilation": {"$range": [1, 8]}}
C1 = ["C", 1]
BIG = {"$range": [0, 1000]}  # beside it, a space is too large for comparing all of its candidates


def size_of(definitions=None, **values):
    return Space({"name": "s", "$defs": definitions or {}, **values}).extent.count


def encdec(bottleneck, definitions=None, **others):
    args = {"D_blocks": [[]], "B_blocks": bottleneck, "U_blocks": [[]]}
    arch = {"type": "EncDec", "args": args}
    return Space({"name": "s", "$defs": definitions or {}, "arch": arch, **others}, canonical=canonical)


@pytest.mark.parametrize(
    ("definitions", "values", "size"),
    [
        ({}, {"x": TWO, "y": THREE}, 6),
        ({}, {"x": {"$logrange": [3, 6]}}, 4),
        ({}, {"x": {"$choice": [1, TWO, {"z": THREE}]}}, 1 + 2 + 3),
        ({}, {"x": {"$choice": [1, 1, TWO, TWO]}}, 1 + 2),
        ({}, {"x": {"$repeat": {"of": [TWO, THREE], "times": 2}}}, 6**2),
        ({}, {"x": {"$repeat": {"of": TWO, "times": {"$range": [0, 3]}}}}, 1 + 2 + 4),
        ({"v": THREE}, {"x": {"$var": "v"}, "y": [{"$var": "v"}]}, 3),
        ({"v": THREE}, {"x": {"$choice": [7, [{"$var": "v"}]]}}, 1 + 3),
        ({"v": THREE}, {"x": {"$choice": [7, [{"$var": "v"}]]}, "y": {"$var": "v"}}, 2 * 3),
        ({"v": {"$choice": [9, {"$var": "w"}]}, "w": THREE}, {"x": {"$var": "v"}}, 1 + 3),
        ({"v": {"$choice": [9, {"$var": "w"}]}, "w": THREE}, {"x": {"$var": "v"}, "y": {"$var": "w"}}, 2 * 3),
        ({"n": {"$range": [1, 4]}}, {"x": {"$repeat": {"of": TWO, "times": {"$var": "n"}}}}, 2 + 4 + 8),
        (
            {"n": {"$range": [1, 3]}},  # two lists of the same length
            {name: {"$repeat": {"of": TWO, "times": {"$var": "n"}}} for name in "xy"},
            2 * 2 + 4 * 4,
        ),
        ({"fixed": 5}, {"x": {"$var": "fixed"}, "y": TWO}, 2),
    ],
)
def test_outcomes(definitions, values, size):
    assert size_of(definitions, **values) == size
    beside = {"big": BIG, "bigger": BIG}
    extent = Space({"name": "s", "$defs": definitions, **values, **beside}).extent
    if any(map(holds_marker, definitions.values())):  # a large space with variables has a lower bound
        assert not extent.is_exact
        assert extent.outcomes <= size * 10**6
    else:
        assert (extent.outcomes, extent.is_exact) == (size * 10**6, True)


@pytest.mark.parametrize("beside", [{}, {"big": BIG, "bigger": BIG}])
@pytest.mark.parametrize(
    ("bottleneck", "size"),
    [
        ([[LAYER]], 22),
        ([[LAYER, LAYER]], 22**2),
        ([[{"$choice": [["O", 1], ["O", 2], {"op": "O"}, C1]}]], 2),
        ([[{"$choice": [["O", {"$range": [1, 8]}], C1]}]], 2),
        ([{"$repeat": {"of": LAYER, "times": {"$range": [1, 3]}}}], 22 + 22**2),
        ([{"$choice": [[LAYER], [C1, LAYER]]}], 22 + 22),
    ],
)
def test_what_trains_the_same_counts_once(bottleneck, size, beside):
    assert encdec(bottleneck, **beside).extent.count == size * 1000 ** len(beside)


def test_equals_are_found_in_a_branch_that_the_first_candidate_does_not_have():
    unet = {"type": "UNet", "args": {"channels": [8, {"$range": [8, 18]}]}}
    searched = {"type": "EncDec", "args": {"D_blocks": [[]], "B_blocks": [[LAYER]], "U_blocks": [[]]}}
    for branches in ([unet, searched], [searched, unet]):
        space = Space({"name": "s", "arch": {"$choice": branches}, "big": BIG, "bigger": BIG}, canonical=canonical)
        assert space.extent.count == (10 + 22) * 10**6


def test_one_layer_in_all_places_has_22_outcomes():
    assert encdec([[{"$var": "layer"}] * 4], {"layer": LAYER}).extent.count == 22
    large = encdec([[{"$var": "layer"}] * 4], {"layer": LAYER}, big=BIG, bigger=BIG)
    assert large.describe() == "6 searched values: at least 1,000,000 different candidates."
    assert large.distinct() == math.inf  # a search does not end because as many are drawn


def test_an_operation_of_its_own_with_a_dilation_for_all():
    layer = {"op": {"$choice": ["C", "O"]}, "dilation": {"$var": "dilation"}}
    # Seven dilations with a C somewhere, and two times O alone.
    assert encdec([[layer, layer]], {"dilation": {"$range": [1, 8]}}).extent.count == 7 * 3 + 1


def test_a_size_has_no_limit():
    space = encdec([{"$repeat": {"of": LAYER, "times": 300}}])
    assert space.extent.count == 22**300
    assert "22^300 = 5.33e+402" in space.describe()
    assert len(space.random(0).choices) == 600


def test_values_without_number_are_counted_apart():
    rates = {"$choice": [{"lr": {"$uniform": [0, 1]}, "momentum": {"$uniform": [0, 1]}}, {"lr": {"$uniform": [0, 1]}}]}
    space = Space({"name": "s", "x": rates, "y": TWO, "z": {"$repeat": {"of": {"$loguniform": [1, 2]}, "times": 3}}})
    assert (space.extent.outcomes, space.extent.continuous) == (4, 2 + 3)
    assert space.extent.count == space.distinct() == math.inf
    assert space.describe() == "3 searched values: 4 outcomes times 5 continuous values."


def test_a_continuous_variable_counts_once():
    space = Space({"name": "s", "$defs": {"rate": {"$uniform": [0, 1]}}, "x": {"$var": "rate"}, "y": {"$var": "rate"}})
    assert space.extent.continuous == 1


def test_sizes_in_words():
    assert encdec([[LAYER] * 11]).describe() == "22 searched values: 22^11 = 5.84e+14 different candidates."
    assert Space({"name": "s", "x": BIG}).describe() == "1 searched values: 1,000 different candidates."
    assert "repeats with other seeds" in Space({"name": "s", "x": 1}).describe()
