"""Choices as data: the same candidates as ever, written to a journal and read back."""

import json
from pathlib import Path

import pytest

from search.space.drawn import Drawn
from search.space.space import Space
from tests.support.random_spaces import random_space
from utils.errors import SearchError

STORED = json.loads((Path(__file__).parent / "stored" / "drawn_candidates.json").read_text())


@pytest.mark.parametrize("stored", STORED, ids=range(len(STORED)))
def test_candidates_are_those_of_earlier_versions(stored):
    space = Space(stored["space"], study_seed=stored["study_seed"])
    for candidate in stored["candidates"]:
        drawn = space.random(candidate["number"])
        seed = space.seed(candidate["number"])
        now = {
            "number": candidate["number"],
            "seed": seed,
            "config": {**space.config(drawn), "seed": seed},
            "label": space.label(drawn),
            "key": space.key(drawn),
        }
        assert json.dumps(now) == json.dumps(candidate)  # the order of keys and 1.0 for 1 included


@pytest.mark.parametrize("seed", range(60))
def test_choices_lead_to_the_same_bytes_after_the_journal(seed):
    space = Space(random_space(seed), study_seed=seed)
    for number in range(8):
        drawn = space.random(number)
        read = space.read(json.loads(json.dumps(drawn.as_json())))
        assert read == drawn
        assert json.dumps(space.config(read)) == json.dumps(space.config(drawn))


def test_branches_of_the_same_type_are_told_apart():
    branches = [{"type": "SGD", "args": {"lr": 0.1}}, {"type": "SGD", "args": {"lr": {"$choice": [0.2]}}}]
    space = Space({"name": "s", "optimizer": {"$choice": [*branches, {"$choice": ["SGD", "Adam"]}, "SGD"]}})
    paths = {tuple(space.random(number).choices) for number in range(100)}
    assert paths == {
        (("optimizer", 0),),
        (("optimizer", 1), ("optimizer.args.lr", 0)),
        (("optimizer", 2), ("optimizer", 0)),
        (("optimizer", 2), ("optimizer", 1)),
        (("optimizer", 3),),
    }


def test_a_whole_number_in_an_interval_is_a_real_one():
    space = Space({"name": "s", "lr": {"$uniform": [1, 3]}})
    assert json.dumps(space.config(space.read([["lr", 2]]))["lr"]) == "2.0"


SPACE = {
    "name": "s",
    "lr": {"$uniform": [0, 1]},
    "n": {"$range": [1, 9, 2]},
    "width": {"$logrange": [8, 64]},
    "x": {"$choice": [1, {"y": {"$choice": ["a"]}}]},
}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            [["lr", 1.5], ["n", 1], ["width", 8], ["x", 0]],
            r'lr: the choices have \["lr", 1.5\] .*"\$uniform": \[0, 1\]',
        ),
        ([["lr", 0.5], ["n", 2], ["width", 8], ["x", 0]], r'n: the choices have \["n", 2\]'),
        ([["lr", 0.5], ["n", 3.0], ["width", 8], ["x", 0]], r'n: the choices have \["n", 3.0\]'),
        ([["lr", 0.5], ["n", 3], ["width", 65], ["x", 0]], r'width: the choices have \["width", 65\]'),
        ([["lr", 0.5], ["n", 3], ["width", 64], ["x", 2]], r'x: the choices have \["x", 2\]'),
        ([["lr", 0.5], ["n", 3], ["width", 64], ["x", 1]], r"x.y: the choices have nothing"),
        ([["lr", 0.5], ["n", 3], ["width", 64], ["x", 0], ["x.y", 0]], r"x.y: .* the space has no marker"),
        ([["n", 3], ["lr", 0.5]], r'lr: the choices have \["n", 3\]'),
        ([["lr", True]], r"no choice of a path and a number"),
        ([["lr"]], r"altered"),
        ([4], r"altered"),
    ],
)
def test_choices_of_another_space_are_refused(choices, message):
    with pytest.raises(SearchError, match=message):
        Space(SPACE).read(choices)


def test_choices_that_fractions_lead_to():
    space = Space(SPACE)
    assert space.at(lambda *_: 0.0) == Drawn((("lr", 0.0), ("n", 1), ("width", 8), ("x", 0)))
    assert space.at(lambda *_: 0.5) == Drawn((("lr", 0.5), ("n", 5), ("width", 22), ("x", 1), ("x.y", 0)))
    met = []
    Space({"name": "s", "x": {"$choice": [{"$choice": [{"$range": [4]}]}]}}).at(lambda *site: met.append(site) or 0)
    assert [(path, branch, *marker) for path, branch, marker in met] == [
        ("x", "", "$choice"),
        ("x", "/0", "$choice"),
        ("x", "/0/0", "$range"),
    ]


def test_whole_numbers_on_a_logarithmic_scale():
    space = Space({"name": "s", "n": {"$logrange": [1, 255]}})
    numbers = [space.config(space.at(lambda *_, part=part: (part + 0.5) / 8000))["n"] for part in range(8000)]
    assert (min(numbers), max(numbers)) == (1, 255)
    assert all(type(number) is int for number in numbers)
    assert [sum(number.bit_length() == bits for number in numbers) for bits in range(1, 9)] == [1000] * 8
    ends = Space({"name": "s", "n": {"$logrange": [8, 9]}})
    assert [ends.config(ends.at(lambda *_, part=part: part))["n"] for part in (0, 0.52, 0.54, 1 - 2**-53)] == [
        8,
        8,
        9,
        9,
    ]
