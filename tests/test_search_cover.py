"""What is found wrong with a space before anything is trained."""

import json

import pytest

from config.faults import Faults
from search.space.cover import CoveringConfig, covering, find_faults
from search.space.space import Space
from train import check_config
from utils.errors import ConfigError


def cover(value, **definitions):
    return [each.config for each in covering(value, definitions)]


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
        faults = Faults()
        for value in candidate:
            if value in bad:
                faults.add("x", f"{value} is bad.")
        if faults:
            raise faults.error()

    return check


def test_faults_of_some_candidates_are_told_once():
    candidates = list(map(CoveringConfig, [[1, 2], [2, 3], [4]]))
    assert find_faults(candidates, refuse()) == []
    assert find_faults(candidates, refuse(2, 3)) == ["x: 2 is bad.", "x: 3 is bad."]


def test_a_space_without_a_good_candidate_is_refused():
    with pytest.raises(ConfigError, match=r"no candidate .*\n  x: 1 is bad\.\n  x: 2 is bad\."):
        find_faults(map(CoveringConfig, [[1], [1, 2]]), refuse(1, 2))


def test_covering_configs_are_complete():
    space = Space({"name": "s", "x": {"$choice": [1, 2]}, "search": {}, "$defs": {}})
    configs = [each.config for each in space.covering()]
    assert [(config["name"], config["x"]) for config in configs] == [("s", 1), ("s", 2)]
    assert all(config.keys() == {"name", "x", "seed"} for config in configs)


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
    assert 0.9 <= space.config(space.random(0))["trainer"]["ema"] <= 0.999


UNIFORM = {"$uniform": [2, 4]}
CONFIG = {
    "name": "s",
    "arch": {"type": "UNet", "args": {"channels": [8, 16]}},
    "train_loader": {"type": "SegmentationDataLoader", "args": {"folder": "x", "batch_size": 4}},
    "valid_loader": {"type": "SegmentationDataLoader", "args": {"folder": "x"}},
    "optimizer": {"type": "SGD", "args": {"lr": 0.1}},
    "loss": "ce_loss",
    "trainer": {"epochs": 1},
}


def space_with(**changes):
    config = json.loads(json.dumps(CONFIG))
    for path, value in changes.items():
        *parents, last = path.split("__")
        holder = config
        for key in parents:
            holder = holder[key]
        holder[last] = value
    return Space(config)


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (
            {"train_loader__args__batch_size": UNIFORM},
            [
                'train_loader.args.batch_size: {"$uniform": [2, 4]} must be an integer; write $range or $logrange, '
                'e.g. {"$range": [2, 5]}.'
            ],
        ),
        ({"train_loader__args__batch_size": {"$uniform": [2.5, 4.5]}}, ["train_loader.args.batch_size: "]),
        ({"train_loader__args__batch_size": {"$loguniform": [0.1, 0.9]}}, ['e.g. {"$range": [1, 2]}']),
        ({"train_loader__args__batch_size": {"$choice": [2, UNIFORM]}}, ["train_loader.args.batch_size: "]),
        (
            {"train_loader__args__batch_size": {"$choice": [2, 3.5, 4.0]}},
            [
                "train_loader.args.batch_size: 3.5 must be an integer; write 3 or 4.",
                "train_loader.args.batch_size: 4.0 must be an integer; write 4.",
            ],
        ),
        ({"arch__args__channels": [8, UNIFORM, {"$range": [8, 17]}]}, ["arch.args.channels.1: "]),
        ({"arch__args__channels": [{**UNIFORM}, {**UNIFORM}]}, ["arch.args.channels.0: ", "arch.args.channels.1: "]),
        ({"arch__args__channels": {"$choice": [[8, 16], [8.5, 16]]}}, ["arch.args.channels.0: 8.5 must be an integer"]),
        ({"arch__args__channels": {"$repeat": {"of": UNIFORM, "times": 2}}}, ["arch.args.channels.0: "]),
        ({"trainer__save_period": UNIFORM}, ["trainer.save_period: "]),
    ],
)
def test_a_real_number_in_the_place_of_a_whole_one_is_refused(changes, messages):
    space = space_with(**changes)
    with pytest.raises(ConfigError) as error:
        space.find_faults(check_config)
    assert all(message in str(error.value) for message in messages)
    assert str(error.value).count("must be an integer; write") == len(messages)


def test_variables_are_named_by_their_places():
    config = {**CONFIG, "$defs": {"v": UNIFORM}, "optimizer": {"type": "SGD", "args": {"lr": {"$var": "v"}}}}
    config["train_loader"] = {**CONFIG["train_loader"], "args": {"folder": "x", "batch_size": {"$var": "v"}}}
    with pytest.raises(
        ConfigError, match=r"^train_loader.args.batch_size: {\"\$uniform\": \[2, 4\]} must be an integer"
    ):
        Space(config).find_faults(check_config)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer__args__lr": UNIFORM},
        {"optimizer__args__lr": {"$choice": [1.0, 2.0, 3]}},
        {"train_loader__args__batch_size": {"$range": [2, 4]}},
        {"train_loader__args__batch_size": {"$logrange": [2, 64]}},
        {"train_loader__args__batch_size": {"$choice": [2, 4]}},
        {"trainer__clip_norm": UNIFORM},
    ],
)
def test_numbers_of_the_right_kind_are_good(changes):
    assert space_with(**changes).find_faults(check_config) == []


def test_a_number_that_is_good_next_to_another_class_is_not_refused():
    def check(config):
        if config["type"] == "Whole" and not isinstance(config["x"], int):
            raise ConfigError(f"x: {config['x']} must be an integer.")

    space = {"type": {"$choice": ["Whole", "Real"]}, "x": UNIFORM}
    assert find_faults(covering(space, {}), check) == ["x: 2.0 must be an integer."]
    with pytest.raises(ConfigError, match="write \\$range"):
        find_faults(covering({**space, "type": "Whole"}, {}), check)


def test_a_limit_is_no_wrong_kind():
    faults = space_with(optimizer__args__lr={"$uniform": [-1, 1]}, trainer__ema={"$uniform": [0, 1]}).find_faults
    with pytest.raises(ConfigError, match="no candidate of this space"):
        faults(check_config)
