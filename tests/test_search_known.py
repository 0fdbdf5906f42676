"""Known candidates: choices whose config has given values."""

import pytest

from search.space.space import Space
from tests.support.random_spaces import random_space
from utils.errors import ConfigError

LAYER = {"op": {"$choice": ["H", "V"]}, "dilation": {"$range": [1, 4]}}
SPACE = {
    "name": "s",
    "$defs": {"width": {"$choice": [8, 16, 24]}, "number": {"$range": [1, 3]}},
    "arch": {
        "$choice": [
            {"type": "UNet", "args": {"channels": [{"$var": "width"}, 32]}},
            {
                "type": "EncDec",
                "args": {
                    "blocks": {"$repeat": {"of": LAYER, "times": {"$range": [1, 4]}}},
                    "channels": [{"$var": "width"}, {"$choice": [{"$var": "width"}, 64]}],
                },
            },
            "Net",
        ]
    },
    "optimizer": {
        "$choice": [
            {"type": "SGD", "args": {"lr": {"$uniform": [0.1, 1.0]}, "momentum": {"$choice": [0, 0.9]}}},
            {"type": "Adam", "args": {"lr": {"$loguniform": [0.0001, 0.1]}}},
        ]
    },
    "trainer": {"epochs": 3},
}


def found(overrides, number=0):
    space = Space(SPACE)
    return space.config(space.find(overrides, number))


@pytest.mark.parametrize(
    ("overrides", "path", "value"),
    [
        ({"optimizer.args.lr": 0.5}, "optimizer", {"type": "SGD"}),
        ({"optimizer.args.lr": 0.000123456789}, "optimizer", {"type": "Adam", "args": {"lr": 0.000123456789}}),
        ({"optimizer.type": "Adam"}, "optimizer", {"type": "Adam"}),
        ({"optimizer": "Adam", "optimizer.args.lr": 0.1}, "optimizer", {"type": "Adam", "args": {"lr": 0.1}}),
        ({"optimizer": {"args": {"momentum": 0}}}, "optimizer", {"type": "SGD", "args": {"momentum": 0}}),
        ({"optimizer.args": {"lr": 1}}, "optimizer", {"args": {"lr": 1.0}}),
        ({"arch": "Net"}, "arch", "Net"),
        ({"arch.type": "Net"}, "arch", "Net"),
        ({"arch.type": "UNet", "arch.args.channels.0": 24}, "arch.args", {"channels": [24, 32]}),
        ({"arch.type": "UNet", "arch.args.channels": [16, 32]}, "arch.args", {"channels": [16, 32]}),
        ({"arch.args.channels": [16, 16]}, "arch", {"type": "EncDec", "args": {"channels": [16, 16]}}),
        ({"arch.type": "UNet", "$defs.width": 16}, "arch.args", {"channels": [16, 32]}),
        ({"arch.args.blocks.2.op": "V", "trainer.epochs": 3}, "arch.args.blocks.2", {"op": "V"}),
        ({"arch.args.blocks.times": 2, "arch.args.blocks.1.dilation": 3}, "arch.args.blocks.1", {"dilation": 3}),
        ({"arch.args.blocks": [{"op": "H", "dilation": 2}]}, "arch.args", {"blocks": [{"op": "H", "dilation": 2}]}),
    ],
)
def test_values_that_a_candidate_can_have(overrides, path, value):
    def holds(have, wanted):
        if isinstance(wanted, dict):
            return all(holds(have[key], item) for key, item in wanted.items())
        return (have, type(have)) == (wanted, type(wanted))

    for number in range(10):
        have = found(overrides, number)
        for part in path.split("."):
            have = have[int(part) if isinstance(have, list) else part]
        assert holds(have, value)


def test_all_other_values_are_drawn_by_number_and_are_none_of_a_random_draw():
    space = Space(SPACE)
    rates = [space.config(space.find({"arch": "Net"}, number))["optimizer"] for number in range(20)]
    assert rates == [space.config(space.find({"arch": "Net"}, number))["optimizer"] for number in range(20)]
    at_random = [space.config(space.random(number))["optimizer"] for number in range(20)]
    assert len({*map(str, rates), *map(str, at_random)}) == 40
    assert {found({"$defs.width": 8}, number)["arch"] == "Net" for number in range(20)} == {True, False}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"optimizer.args.lr": 5},
            r'first.0.optimizer.args.lr: 5 cannot be drawn: the space has {"\$loguniform": .*} or {"\$uniform"',
        ),
        ({"optimizer.type": "Adan"}, r'optimizer.type: "Adan" cannot be drawn: the space has "Adam" or "SGD" there'),
        ({"optimizer.type": "Adam", "optimizer.args.lr": 0.5}, r'lr: 0.5 .*{"\$loguniform": \[0.0001, 0.1\]} there'),
        ({"optimizer.args.momentun": 0}, r'optimizer.args.momentun: unknown key "momentun". Did you mean "momentum"'),
        ({"optimizer.args.momentum": 0.8}, r'momentum: 0.8 .*{"\$choice": \[0, 0.9\]} there'),
        ({"optimizer.args.momentum": False}, r"momentum: false cannot be drawn"),
        ({"trainer.epochs": 4}, r"trainer.epochs: 4 cannot be drawn: the space has 3 there. Give a value of it"),
        ({"trainer.epoch": 4}, r'unknown key "epoch". Did you mean "epochs"'),
        ({"arch.args.blocks": []}, r"arch.args.blocks.times: 0 .*\$range"),
        ({"arch.args.blocks.4.op": "H"}, r'arch.args.blocks: .*"\$repeat"'),
        ({"arch.args.blocks": 3}, r"arch.args.blocks: 3 .*\$repeat"),
        ({"arch.type": "UNet", "arch.args.channels": [16, 32, 64]}, r"arch.args.channels: \[16, 32, 64\] cannot"),
        ({"arch.args.channels": [16, 8]}, r"arch.args.channels.1: 8 cannot be drawn"),
        ({"$defs.widht": 8}, r'\$defs.widht: unknown key "widht". Did you mean "width"'),
        ({"a.b": 1, "a": {"b": 2}}, r"first.0.a.b: given twice"),
        ({"arch": None}, r"arch: null cannot be drawn"),
    ],
)
def test_values_that_no_candidate_has(overrides, message):
    with pytest.raises(ConfigError, match=message):
        Space(SPACE).find(overrides, prefix="first.0")


def test_a_variable_has_one_value_at_all_places():
    config = {
        "name": "s",
        "$defs": {"v": {"$choice": [{"$range": [0, 9]}, "x"]}},
        "a": {"$var": "v"},
        "b": [{"$var": "v"}],
    }
    space = Space(config)
    assert space.config(space.find({"a": 3}))["b"] == [3]
    assert space.config(space.find({"b": ["x"]}))["a"] == "x"
    with pytest.raises(ConfigError, match=r"b.0: 4 cannot be drawn: the space has 3 there"):
        space.find({"a": 3, "b": [4]})
    # The first branch that fits leaves none for the second place.
    branches = {"$choice": [[{"$var": "v"}, 1], [5, 1]]}
    space = Space({"name": "s", "$defs": {"v": {"$choice": [5, 6]}}, "a": branches, "b": {"$var": "v"}})
    for number in range(10):
        assert space.config(space.find({"a": [5, 1], "b": 6}, number)) == {"name": "s", "a": [5, 1], "b": 6}


@pytest.mark.parametrize("seed", range(60))
def test_every_candidate_is_found_by_its_config(seed):
    space = Space(random_space(seed), study_seed=seed)
    for number in range(4):
        config = space.config(space.random(number))
        assert space.config(space.find(config, number + 1)) == config


def test_a_candidate_is_found_by_its_label():
    space = Space(SPACE)
    for number in range(30):
        label = space.label(space.random(number))
        assert set(label) <= set(space.label(space.find(dict(label), 99)))


def test_long_lists_and_many_wrong_values_take_no_time():
    layers = {"$repeat": {"of": {"$choice": [LAYER, {**LAYER, "x": 1}]}, "times": 300}}
    space = Space({"name": "s", "layers": layers})
    wanted = [{"op": "H"}] * 299
    assert space.find({"layers": [*wanted, {"op": "V"}]})
    with pytest.raises(ConfigError, match=r"layers.299.op"):
        space.find({"layers": [*wanted, {"op": "Z"}]})
