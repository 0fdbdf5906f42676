"""What is drawn from markers, how many candidates there are, and which of them are the same."""

import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from search.space.drawn import Drawn
from search.space.space import Space
from search.worker.candidate import canonical
from utils.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
LAYER = {"op": {"$choice": ["H", "V", "C", "O"]}, "dilation": {"$range": [1, 8]}}


def space_of(value, **others):
    return Space({"name": "s", "value": value, **others})


def draws(value, count=400, **others):
    space = space_of(value, **others)
    return [config["value"] for config in configs(space, count)]


def configs(space, count):
    return [space.config(space.random(number)) for number in range(count)]


def encdec(D, B, U):  # noqa: N803
    args = {"D_blocks": D, "B_blocks": B, "U_blocks": U, "base_channels": 64}
    return Space({"name": "s", "arch": {"type": "EncDec", "args": args}}, canonical=canonical)


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ({"$choice": [1, "two", [3]]}, ["1", "[3]", "two"]),
        ({"$range": [1, 8, 3]}, ["1", "4", "7"]),
        ({"$choice": ["a", {"$choice": ["b", "c"]}]}, ["a", "b", "c"]),
    ],
)
def test_every_value_is_drawn(marker, expected):
    assert sorted(set(map(str, draws(marker)))) == expected


def test_choices_are_uniform_and_repeated_entries_bias_them():
    counts = Counter(draws({"$choice": ["a", "a", "b"]}, 3000))
    assert 1900 < counts["a"] < 2100  # 2000 expected, deviation 26


def test_branches_are_chosen_independently_of_what_is_drawn_in_them():
    pairs = Counter(draws({"$choice": [{"$choice": [1, 2]}, {"$choice": [3, 4]}]}, 4000))
    assert set(pairs) == {1, 2, 3, 4}
    assert all(900 < count < 1100 for count in pairs.values())


def test_intervals():
    uniform, logarithmic = draws({"$uniform": [2, 4]}), draws({"$loguniform": [1e-4, 1e-2]})
    assert all(2 <= value <= 4 for value in uniform)
    assert 2.9 < sum(uniform) / len(uniform) < 3.1
    assert all(1e-4 <= value <= 1e-2 for value in logarithmic)
    assert 0.4 < sum(value < 1e-3 for value in logarithmic) / len(logarithmic) < 0.6
    assert all(value == float(f"{value:.6g}") for value in uniform + logarithmic)


def test_repeat_draws_each_anew_and_its_number_too():
    values = draws({"$repeat": {"of": {"$range": [0, 10]}, "times": {"$choice": [2, 3]}}})
    assert {len(value) for value in values} == {2, 3}
    assert any(value[0] != value[1] for value in values)


def test_a_variable_is_one_value_in_all_its_places():
    config = {"name": "s", "$defs": {"width": {"$range": [1, 100]}}, "a": {"$var": "width"}, "b": [{"$var": "width"}]}
    space = Space(config)
    drawn = configs(space, 20)
    assert all(each["a"] == each["b"][0] for each in drawn)
    assert len({each["a"] for each in drawn}) > 5
    assert space.label(space.random(0)) == [("$defs.width", drawn[0]["a"])]
    assert "$defs" not in drawn[0]


def test_a_draw_tells_paths_and_values_in_the_order_of_the_file():
    optimizer = {"$choice": [{"type": "SGD", "args": {"lr": {"$choice": [0.1]}}}]}
    space = Space({"name": "s", "optimizer": optimizer, "x": [{"$range": [5, 6]}]})
    assert space.label(space.random(0)) == [
        ("optimizer", "SGD"),
        ("optimizer.args.lr", 0.1),
        ("x.0", 5),
    ]


def test_other_marks_leave_a_draw_as_it_is():
    alone = draws({"$range": [0, 1000]}, 20)
    beside = draws({"$range": [0, 1000]}, 20, other={"$choice": [1, 2]})
    assert alone == beside


def test_draws_are_the_same_in_another_process_and_differ_between_seeds():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from search.space.space import Space; "
        "space = Space({'name': 's', 'value': {'$uniform': [0, 1]}}); "
        "print([space.config(space.random(number)) for number in range(5)])"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, str(ROOT)], capture_output=True, text=True, check=True
    ).stdout.strip()
    space = space_of({"$uniform": [0, 1]})
    assert told == str(configs(space, 5))
    other = Space({"name": "s", "value": {"$uniform": [0, 1]}}, study_seed=1)
    assert all(config != its for config, its in zip(configs(space, 5), configs(other, 5), strict=True))


def test_a_file_without_markers_is_repeated_with_other_seeds():
    space = space_of(3)
    assert space.random(0) == space.random(1) == Drawn()
    assert (space.config(Drawn())["value"], space.label(Drawn()), space.distinct()) == (3, [], math.inf)
    assert space.seed(0) != space.seed(1)
    assert 0 <= space.seed(0) < 2**32


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1, 1),
        ({"$choice": [1, 2, 2]}, 2),
        ({"$range": [0, 10, 3]}, 4),
        ([{"$choice": [1, 2]}, {"$choice": [1, 2, 3]}], 6),
        ({"$choice": [1, {"x": {"$range": [0, 5]}}, [{"$choice": [1, 2]}, {"$choice": [1, 2]}]]}, 1 + 5 + 4),
        ({"$repeat": {"of": {"$choice": [1, 2]}, "times": 3}}, 8),
        ({"$repeat": {"of": {"$choice": [1, 2]}, "times": {"$range": [1, 4]}}}, 2 + 4 + 8),
        ({"x": {"$uniform": [0, 1]}, "y": {"$choice": [1, 2]}}, math.inf),
    ],
)
def test_size_of_a_space(value, size):
    assert space_of(value).extent.count == size


def test_a_variable_counts_once():
    config = {"name": "s", "$defs": {"w": {"$range": [0, 7]}}, "a": {"$var": "w"}, "b": {"$var": "w"}}
    assert Space(config).extent.count == 7


def test_a_layer_has_22_outcomes_and_the_published_space_22_to_the_11():
    fixed = [["C", 1]]
    assert encdec([[LAYER]], [fixed], [fixed]).extent.count == 22
    blocks = [[LAYER]] * 4
    assert encdec(blocks, [[LAYER] * 3], blocks).extent.count == 22**11
    assert "5.84e+14" in encdec(blocks, [[LAYER] * 3], blocks).describe()


def test_candidates_that_train_the_same_have_one_key():
    space = encdec([[LAYER]], [[["C", 1]]], [[["C", 1]]])
    keys = {}
    for drawn in map(space.random, range(400)):
        layer = space.config(drawn)["arch"]["args"]["D_blocks"][0][0]
        keys.setdefault((layer["op"], 1 if layer["op"] == "O" else layer["dilation"]), set()).add(space.key(drawn))
    assert len(keys) == 22
    assert all(len(found) == 1 for found in keys.values())
    assert len(set.union(*keys.values())) == 22


def test_all_faults_are_told_at_once():
    faulty = {
        "a": {"$choice": []},
        "b": {"$range": [3, 1]},
        "c": {"$uniform": [1, 0]},
        "d": [{"$loguniform": [0, 1]}],
        "e": {"$repeat": {"of": 1}},
        "f": {"$var": "widht"},
        "g": {"$choice": [1], "beside": 2},
        "h": {"$choise": [1]},
        "i": {"$logrange": [0, 8]},
        "j": {"$logrange": [1.5, 8]},
        "k": {"$logrange": [8, 8]},
        "l": {"$range": [0, 10**30]},
        "m": {"$uniform": [0, 10**400]},
        "n": {"$uniform": [0, float("inf")]},
        "o": {"$repeat": {"of": 1, "times": 10**9}},
        "p": {"$repeat": {"of": 1, "times": {"$range": [0, 10**9]}}},
        "q": {"$repeat": {"of": 1, "times": {"$choice": [1, -1, "two"]}}},
    }
    with pytest.raises(ConfigError) as error:
        Space({"name": "s", "$defs": {"width": 1}, **faulty})
    text = str(error.value)
    assert text.startswith("17 faults")
    for part in (
        "a.$choice",
        "b.$range",
        "c.$uniform",
        "d.0.$loguniform",
        "e.$repeat",
        'Did you mean "width"',
        "g:",
        "$choise",
        "i.$logrange: [0, 8] begins at or below 0",
        "j.$logrange: [1.5, 8] must be [low, high] of two whole numbers",
        "k.$logrange: [8, 8] has low not below high",
        "l.$range: [0, 1000000000000000000000000000000] must be",
        "m.$uniform",
        "n.$uniform",
        "o.$repeat: {",
        "p.$repeat.times: 10001 is not a number of times. Use whole numbers from 0 to 10000.",
        "q.$repeat.times: -1 is not a number of times",
    ):
        assert part in text


def test_a_circle_of_variables_is_broken():
    with pytest.raises(ConfigError, match="a -> b -> a"):
        Space({"name": "s", "$defs": {"a": {"$var": "b"}, "b": {"$var": "a"}}, "x": {"$var": "a"}})
