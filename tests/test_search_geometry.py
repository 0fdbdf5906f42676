"""Choices as vectors, and the neighbours of a candidate."""

import itertools

import numpy as np
import pytest

from search.space.drawn import Drawn
from search.space.space import Space
from tests.support.random_spaces import random_space

SPACE = {
    "name": "s",
    "$defs": {"width": {"$range": [8, 33, 8]}},
    "optimizer": {
        "$choice": [
            {"type": "SGD", "args": {"lr": {"$loguniform": [0.001, 0.1]}}},
            {"type": "Adam", "args": {"lr": {"$uniform": [1, 3]}}},
            "Rprop",
        ]
    },
    "layers": {"$repeat": {"of": {"$logrange": [1, 16]}, "times": {"$choice": [1, 3]}}},
    "widths": [{"$var": "width"}, {"$var": "width"}],
}


def test_dimensions_are_branches_and_numbers():
    space = Space(SPACE)
    assert [(each.site.path, each.site.conditions, each.branch) for each in space.dimensions] == [
        ("optimizer", (), 0),
        ("optimizer", (), 1),
        ("optimizer", (), 2),
        ("optimizer.args.lr", (("optimizer", 0),), None),
        ("optimizer.args.lr", (("optimizer", 1),), None),
        ("layers.times", (), 0),
        ("layers.times", (), 1),
        ("layers.0", (), None),
        ("layers.1", (), None),
        ("layers.2", (), None),
        ("$defs.width", (), None),
    ]


def test_a_vector_has_positions_and_a_mask():
    space = Space(SPACE)
    drawn = Drawn(
        (("optimizer", 1), ("optimizer.args.lr", 2.5), ("layers.times", 0), ("layers.0", 4), ("$defs.width", 16))
    )
    values, mask = space.vector(drawn)
    assert values.tolist() == [0, 1, 0, 0, 0.75, 1, 0, 0.5, 0, 0, pytest.approx(1 / 3)]
    assert mask.tolist() == [False, False, False, True, False, False, False, False, True, True, False]
    drawn = Drawn((("optimizer", 0), ("optimizer.args.lr", 0.01), *drawn.choices[2:]))
    assert space.vector(drawn)[0][3] == pytest.approx(0.5)
    assert space.vector(drawn)[1][3:5].tolist() == [False, True]


@pytest.mark.parametrize("seed", range(40))
def test_different_choices_have_different_vectors(seed):
    space = Space(random_space(seed), study_seed=seed)
    drawn = {space.random(number) for number in range(30)}
    vectors = {(values.tobytes(), mask.tobytes()) for values, mask in map(space.vector, drawn)}
    assert len(vectors) == len(drawn)
    for values, mask in map(space.vector, drawn):
        assert values.shape == mask.shape == (len(space.dimensions),)
        assert ((values >= 0) & (values <= 1)).all()
        assert (values[mask] == 0).all()


def test_positions_on_a_scale_of_which_the_quotient_of_both_ends_is_no_float():
    space = Space({"name": "s", "x": {"$loguniform": [1e-300, 1e300]}})
    positions = [space.vector(space.find({"x": value}))[0].item() for value in (1e-300, 1.0, 1e100, 1e300)]
    assert positions == pytest.approx([0, 0.5, 2 / 3, 1])


@pytest.mark.parametrize("seed", range(40))
def test_every_marker_that_is_met_is_known_before(seed):
    space = Space(random_space(seed), study_seed=seed)
    known = [site.identity for site in space.sites]
    assert len(set(known)) == len(known)
    for number in range(20):
        met = [site.identity for site in space.follow(space.random(number))[1].sites]
        assert met == [identity for identity in known if identity in met]  # in the order of the file


@pytest.mark.parametrize("seed", range(40))
def test_neighbours_differ_in_one_choice(seed):
    space = Space(random_space(seed), study_seed=seed)
    for number in range(3):
        drawn = space.random(number)
        before = space.follow(drawn)[1]
        old = {site.identity: choice for site, (_, choice) in zip(before.sites, before.choices, strict=True)}
        found = list(itertools.islice(space.neighbours(drawn, np.random.default_rng(number)), 200))
        assert len(set(found)) == len(found)
        assert drawn not in found
        for each in found:
            assert space.read(each.as_json()) == each
            walk = space.follow(each)[1]
            new = {site.identity: choice for site, (_, choice) in zip(walk.sites, walk.choices, strict=True)}
            assert sum(new[site] != old[site] for site in old.keys() & new.keys()) == 1


def test_every_other_branch_and_the_next_numbers_are_neighbours():
    space = Space(
        {"name": "s", "x": {"$choice": ["a", "b", "c"]}, "n": {"$range": [0, 100, 10]}, "l": {"$choice": [1]}}
    )
    drawn = Drawn((("x", 1), ("n", 50), ("l", 0)))
    found = list(space.neighbours(drawn, np.random.default_rng(0)))
    assert {each.choices[0] for each in found} == {("x", 0), ("x", 1), ("x", 2)}
    assert {40, 60} <= {each.choices[1][1] for each in found}
    assert 4 <= len(found) <= 8


def test_the_first_neighbour_is_that_of_a_random_choice():
    space = Space({"name": "s", "x": {"$choice": list(range(99))}, "y": {"$choice": [1, 2]}})
    drawn = space.random(0)
    firsts = [next(space.neighbours(drawn, np.random.default_rng(seed))) for seed in range(200)]
    assert 60 < sum(each.choices[0] == drawn.choices[0] for each in firsts) < 140  # 100 expected, deviation 7


def test_a_space_of_one_candidate_has_no_neighbours():
    space = Space({"name": "s", "x": {"$choice": [1]}, "y": {"$range": [1]}, "z": 1})
    assert list(space.neighbours(space.random(0), np.random.default_rng(0))) == []
