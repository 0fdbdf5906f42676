"""What is found wrong with a space before anything is trained."""

import pytest

from search.space.outcomes import covering, find_faults
from search.space.space import Space
from utils.errors import ConfigError


def cover(value, **definitions):
    return list(covering(value, definitions))


@pytest.mark.parametrize(
    ("value", "candidates"),
    [
        (5, [5]),
        ([{"$choice": [1, 2, 3]}, {"$choice": ["a", "b"]}], [[1, "a"], [2, "b"], [3, "a"]]),
        ({"$choice": [1, {"$choice": [2, 3]}]}, [1, 2, 3]),
        ({"$choice": [{"x": {"$range": [4, 9, 2]}}, 7]}, [{"x": 4}, {"x": 8}, 7]),
        ({"$uniform": [0.5, 1]}, [0.5, 1]),
        ({"$loguniform": [0.5, 1]}, [0.5, 1]),
        ({"$logrange": [4, 64]}, [4, 64]),
        ({"$repeat": {"of": {"$choice": ["a", "b"]}, "times": 2}}, [["a", "b"], ["b", "a"]]),
        ([{"$var": "v"}, {"$var": "v"}], [[1, 1], [2, 2]]),
    ],
)
def test_every_branch_and_both_ends_occur(value, candidates):
    assert cover(value, v={"$choice": [1, 2]}) == candidates


def refuse(*bad):
    def check(candidate):
        faults = [f"x: {value} is bad." for value in candidate if value in bad]
        if faults:
            raise ConfigError("\n  ".join(["2 faults:", *faults] if len(faults) > 1 else faults))

    return check


def test_faults_of_some_candidates_are_told_once():
    candidates = [[1, 2], [2, 3], [4]]
    assert find_faults(iter(candidates), refuse()) == []
    assert find_faults(iter(candidates), refuse(2, 3)) == ["x: 2 is bad.", "x: 3 is bad."]


def test_a_space_without_a_good_candidate_is_refused():
    with pytest.raises(ConfigError, match=r"no candidate .*\n  x: 1 is bad\.\n  x: 2 is bad\."):
        find_faults(iter([[1], [1, 2]]), refuse(1, 2))


def test_covering_configs_are_complete():
    space = Space({"name": "s", "x": {"$choice": [1, 2]}, "search": {}, "$defs": {}})
    assert [(config["name"], config["x"]) for config in space.covering()] == [("s", 1), ("s", 2)]
    assert all(config.keys() == {"name", "x", "seed"} for config in space.covering())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": {"$range": [0, 5]}}, "seed: it holds for the whole search"),
        ({"name": {"$choice": ["a", "b"]}}, "name: it holds for the whole search"),
        ({"search": {"num_samples": {"$range": [1, 5]}}}, "search: it holds for the whole search"),
        ({"trainer": {"epochs": {"$range": [1, 5]}}}, "trainer.epochs: it holds for the whole search"),
        ({"trainer": {"save_dir": {"$choice": ["a", "b"]}}}, "trainer.save_dir: it holds"),
        ({"trainer": {"$choice": [{"epochs": 1}]}}, "trainer: the section holds for the whole search"),
        (
            {"x": {"$repeat": {"of": 1, "times": {"$choice": ["a", 2]}}}},
            r'x.\$repeat.times: "a" is not a number of times',
        ),
        ({"x": {"$repeat": {"of": 1, "times": {"$range": [-1, 2]}}}}, r"x.\$repeat.times: -1 is not a number of times"),
        ({"x": {"$repeat": {"of": 1, "times": {"$uniform": [1, 2]}}}}, "is not a number of times. Use whole numbers"),
        ({"x": {"$repeat": {"of": 1, "times": {"$var": "n"}}}}, r'unknown definition "n"'),
        ({"x": {"$range": [0.5, 1]}}, r"x.\$range: \[0.5, 1\] must be .* of whole numbers. For others write \$uniform"),
    ],
)
def test_what_cannot_be_searched_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Space({"name": "s", **values})


def test_other_values_of_the_trainer_may_be_searched():
    space = Space({"name": "s", "trainer": {"epochs": 3, "ema": {"$uniform": [0.9, 0.999]}}})
    assert 0.9 <= space.draw(0).config["trainer"]["ema"] <= 0.999
