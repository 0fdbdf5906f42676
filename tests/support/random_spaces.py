"""Random spaces: markers nested in each other at random, for the laws that hold for any space."""

import random

KINDS = ("plain", "choice", "range", "uniform", "loguniform", "logrange", "repeat", "var", "object", "class", "list")
SIMPLE = KINDS[:6]


def random_space(seed, kinds=KINDS):
    """Return a config with markers of the given kinds, up to four deep, and two variables."""
    chance = random.Random(seed)
    outer = [kind for kind in kinds if kind != "var"]
    definitions = {name: _value(chance, outer, 2) for name in ("first", "second")}
    definitions["times"] = {"$range": [0, 3]}
    config = {f"key{number}": _value(chance, kinds, 4) for number in range(chance.randrange(1, 5))}
    return {"name": "s", "seed": 3, "$defs": definitions, **config}


def _value(chance, kinds, depth):
    kind = chance.choice(kinds if depth else [each for each in kinds if each in SIMPLE])
    low = chance.randrange(1, 10)

    def inner(key):
        return _value(chance, kinds if depth else ("plain",), max(depth - 1, 0))

    values = {
        "plain": lambda: chance.choice([1, "text", None, True, 0.5, ["in a list"]]),
        "choice": lambda: {"$choice": list(map(inner, range(chance.randrange(1, 4))))},
        "range": lambda: {"$range": [low - 5, low + chance.randrange(1, 9), chance.randrange(1, 3)]},
        "uniform": lambda: {"$uniform": [low / 3, low * chance.choice([2, 10.0, 1000])]},
        "loguniform": lambda: {"$loguniform": [low / 3000, low * chance.choice([2, 10.0, 1000])]},
        "logrange": lambda: {"$logrange": [low, low + chance.randrange(1, 100)]},
        "repeat": lambda: {"$repeat": {"of": inner("of"), "times": _times(chance, kinds)}},
        "var": lambda: {"$var": chance.choice(["first", "second"])},
        "object": lambda: {key: inner(key) for key in chance.sample(["a", "b", "c"], chance.randrange(1, 4))},
        "class": lambda: {"type": chance.choice("TU"), "args": {"a": inner("a"), "b": inner("b")}},
        "list": lambda: list(map(inner, range(chance.randrange(1, 4)))),
    }
    return values[kind]()


def _times(chance, kinds):
    variable = [{"$var": "times"}] if "var" in kinds else []
    return chance.choice([0, 2, {"$range": [1, 4]}, {"$choice": [1, 2, {"$range": [0, 2]}]}, *variable])
