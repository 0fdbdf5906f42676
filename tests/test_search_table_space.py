"""The space of a table: its candidates are the rows."""

import math

import numpy as np
import pytest

from search.samplers.grid import GridSampler
from search.samplers.random import RandomSampler
from search.samplers.sobol import SobolSampler
from search.space.drawn import Drawn
from search.space.space import Space
from search.space.table_space import TableSpace, marker_of
from utils.errors import ConfigError, SearchError

LR, WIDTH, ACT = "optimizer.args.lr", "arch.args.width", "arch.args.act"
SETTINGS = {
    LR: [0.001, 0.01, 0.1, 0.001, 0.01, 0.1],
    WIDTH: [8, 8, 8, 16, 16, 16],
    ACT: ["relu", "gelu", "relu", "gelu", "relu", "gelu"],
}
CONDITIONAL = {
    "name": "x",
    "arch": {"$choice": [{"type": "A", "args": {"k": {"$range": [1, 4]}}}, {"type": "B"}]},
    "optimizer": {"type": "SGD", "args": {"lr": {"$loguniform": [0.001, 1.0]}}},
}
CONDITIONAL_SETTINGS = {
    "arch": ["A", "A", "B", "B"],
    "arch.args.k": [1, 3, None, None],
    "optimizer.args.lr": [0.01, 0.1, 0.01, 0.1],
}
NAMES = {"name": "x"}


def table_space(**changes):
    return TableSpace(NAMES, SETTINGS, **changes)


def test_a_row_is_found_by_its_values_and_has_their_config():
    space = table_space()
    drawn = space.find({LR: 0.1, WIDTH: 16})
    assert space.row(drawn) == 5
    assert space.config(drawn) == {
        "name": "x",
        "optimizer": {"args": {"lr": 0.1}},
        "arch": {"args": {"width": 16, "act": "gelu"}},
    }
    assert dict(space.label(drawn)) == {LR: 0.1, WIDTH: 16, ACT: "gelu"}
    assert space.read(drawn.as_json()) == drawn


def test_random_draws_are_a_permutation_that_follows_from_the_seed():
    space = table_space(study_seed=1)
    drawn = [space.random(number) for number in range(6)]
    assert sorted(map(space.row, drawn)) == [0, 1, 2, 3, 4, 5]
    assert [space.random(number) for number in range(6, 12)] == drawn
    assert [table_space(study_seed=1).random(number) for number in range(6)] == drawn
    other = space.reseeded(2)
    assert [other.random(number) for number in range(6)] != drawn
    assert [space.random(number) for number in range(6)] == drawn
    assert space.distinct() == 6


@pytest.mark.parametrize(
    ("config", "settings"), [(NAMES, SETTINGS), (CONDITIONAL, CONDITIONAL_SETTINGS)], ids=["plain", "conditional"]
)
def test_vectors_of_all_rows_are_those_of_a_space(config, settings):
    space = TableSpace(config, settings)
    points, is_inactive = space.listed_vectors
    assert points.shape == (len(space.listed), len(space.dimensions))
    for row, drawn in enumerate(space.listed):
        wanted, mask = Space.vector(space, drawn)
        np.testing.assert_array_equal(points[row], wanted)
        np.testing.assert_array_equal(is_inactive[row], mask)
        np.testing.assert_array_equal(space.vector(drawn)[0], wanted)


def test_a_space_without_a_list_has_no_vectors_of_one():
    space = Space(CONDITIONAL)
    assert [part.shape for part in space.listed_vectors] == [(0, len(space.dimensions))] * 2
    drawn = space.random(0)
    assert space.nearest(drawn) is drawn


def test_rows_with_conditions_leave_out_what_does_not_exist():
    space = TableSpace(CONDITIONAL, CONDITIONAL_SETTINGS)
    assert [dict(space.label(drawn)).get("arch.args.k") for drawn in space.listed] == [1, 3, None, None]
    assert space.config(space.listed[3])["arch"] == {"type": "B"}
    assert space.row(space.find({"arch.type": "A", LR: 0.1})) == 1


def test_a_column_with_gaps_is_a_choice_between_null_and_a_number():
    space = TableSpace(NAMES, {LR: [0.1, 0.2, 0.3], "optimizer.args.momentum": [None, 0.5, 0.9]})
    momentum = [space.config(drawn)["optimizer"]["args"]["momentum"] for drawn in space.listed]
    assert momentum == [None, 0.5, 0.9]


def test_choices_of_no_row_lead_to_the_nearest_one():
    space = table_space()
    assert space.row(space.at(lambda path, branch, marker: 0.0)) == 0  # lr .001, width 8, the first name
    free = Drawn(((LR, 0.08), (WIDTH, 16), (ACT, 1)))
    assert space.row(space.nearest(free)) == 5
    with pytest.raises(SearchError, match="no row of the table has these choices"):
        space.row(free)
    with pytest.raises(SearchError, match="no row of the table"):
        space.read(free.as_json())


def test_values_of_no_row_are_an_error_that_names_the_nearest():
    message = (
        r"search.first.0.*: no row of the table has .*The nearest one has optimizer.args.lr=0.1, arch.args.width=8"
    )
    for number in range(4):
        with pytest.raises(ConfigError, match=message):
            table_space().find({LR: 0.09, WIDTH: 8}, number, prefix="search.first.0")
    with pytest.raises(ConfigError, match="cannot be drawn: the space has"):
        table_space().find({WIDTH: 9})


def test_a_partly_given_row_is_another_one_for_each_number():
    space = table_space()
    found = {space.row(space.find({WIDTH: 16}, number)) for number in range(6)}
    assert found == {3, 4, 5}


def test_neighbours_are_the_nearest_rows_and_each_once():
    values = [(a, b) for a in range(5) for b in ("p", "q", "r")]
    space = TableSpace(NAMES, {"a": [a for a, _ in values], "b": [b for _, b in values]})
    drawn = space.find({"a": 2, "b": "q"})
    near = list(space.neighbours(drawn, np.random.default_rng(0)))
    assert drawn not in near
    assert len(set(near)) == len(near) == 4 + 2
    assert {space.config(each)["a"] for each in near} == {0, 1, 2, 3, 4}
    assert near != list(space.neighbours(drawn, np.random.default_rng(1)))


@pytest.mark.parametrize("sampler", [RandomSampler, SobolSampler, GridSampler])
def test_samplers_propose_rows(sampler):
    space = table_space()
    proposed = [sampler(space).propose(number) for number in range(7)]
    assert all(each is None or each.drawn in space.listed for each in proposed)
    if sampler is GridSampler:
        assert [space.row(each.drawn) for each in proposed[:6]] == [0, 1, 2, 3, 4, 5]
        assert proposed[6] is None


def test_markers_of_the_config_give_scale_and_outcomes():
    config = {"name": "x", "optimizer": {"args": {"lr": {"$uniform": [0.0, 0.2]}}}}
    space = TableSpace(config, SETTINGS)
    assert space.vector(space.listed[2])[0][0] == 0.5
    with pytest.raises(
        ConfigError, match=r'optimizer.args.lr: 0.1 in line 4 .*the space has \{"\$uniform": \[0, 0.05\]\}'
    ):
        TableSpace({**NAMES, "optimizer": {"args": {"lr": {"$uniform": [0, 0.05]}}}}, SETTINGS, places=LINES)


LINES = [f"line {number}" for number in range(2, 8)]


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (
            {"optimizer": {"args": {"lr": 0.1}}},
            SETTINGS,
            r"line 2: optimizer.args.lr: 0.001 cannot be drawn: the space has 0.1",
        ),
        ({"optimizer": 3}, SETTINGS, r"optimizer.args.lr: the config has 3 at a part of this path"),
        (
            {"arch": {"args": {"depth": {"$range": [1, 3]}}}},
            SETTINGS,
            r"no value of arch.args.depth, which the config marks",
        ),
        ({}, {"a": [1, 2, 1]}, r"line 4: has the same settings as line 2"),
        ({}, {"$defs.k": [1, 2, 3]}, r"\$defs.k: the config has no such definition"),
    ],
)
def test_a_table_that_does_not_fit_the_config_is_refused(config, settings, message):
    with pytest.raises(ConfigError, match=message):
        TableSpace({**NAMES, **config}, settings, places=LINES)


@pytest.mark.parametrize(
    ("values", "marker"),
    [
        ([1, 2, 3, 4, 5], {"$range": [1, 6]}),
        ([0, 10, 30], {"$range": [0, 31, 10]}),
        ([16, 32, 64, 128, 256, 512], {"$logrange": [16, 512]}),
        ([1e-4, 1e-3, 1e-2, 1e-1], {"$loguniform": [1e-4, 1e-1]}),
        ([0.001, 0.25, 0.5, 0.75, 1.0], {"$uniform": [0.001, 1.0]}),  # evenly spread, whatever the ends
        ([0.0, 0.5], {"$uniform": [0.0, 0.5]}),
        (["relu", "gelu", "relu"], {"$choice": ["relu", "gelu"]}),
        ([True, False], {"$choice": [True, False]}),
        ([1, "a"], {"$choice": [1, "a"]}),
        ([0.5, 0.5], 0.5),
        (["a", "a"], "a"),
        ([None, 1, 2], {"$choice": [None, {"$range": [1, 3]}]}),
    ],
)
def test_markers_follow_from_the_values_of_a_column(values, marker):
    assert marker_of(values) == marker


def test_lists_and_classes_are_made_of_paths():
    settings = {"arch": ["A", "B"], "arch.args.widths.0": [8, 16], "arch.args.widths.1": [16, 32]}
    space = TableSpace(NAMES, settings)
    assert space.config(space.listed[1])["arch"] == {"type": "B", "args": {"widths": [16, 32]}}


def test_the_space_is_finite_though_its_markers_are_not():
    assert math.isfinite(table_space().distinct())
    assert table_space().describe() == "3 searched values: the 6 rows of a table."


def test_the_branch_of_a_row_that_fits_two_is_that_of_the_random_draws_of_number_0():
    """As in studies of earlier versions, whose journals hold the choices."""
    branches = [{"type": "A", "args": {"w": {"$range": [1, 9]}}}, {"type": "B", "args": {"w": {"$range": [5, 15]}}}]
    config = {"name": "x", "arch": {"$choice": [{**each, "type": "Net"} for each in branches]}}
    widths = [5, 6, 7, 8, 9]
    space, plain = TableSpace(config, {"arch.args.w": widths}), Space(config)
    expected = plain._found({"arch.args.w": 7}, plain._fractions(0))
    assert space.listed[2] == expected
