"""Files of a few lines that stand for more than a machine holds are refused at once, by counting."""

import json
import os

import pytest

from config.faults import MAX_FAULTS, Faults
from config.loading.limits import MAX_BYTES
from config.loading.load import apply_override, load_config
from search.space.space import Space
from utils.errors import ConfigError

DOUBLED = 18  # each doubles what the one before stands for


def doubled(kind, last):
    """Definitions of which each holds the next one twice."""
    return {f"v{k}": [{kind: f"v{k + 1}"}] * 2 for k in range(DOUBLED)} | {f"v{DOUBLED}": last}


def load(folder, content, name="a.json"):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return load_config(folder / name)


CHOICE = {"$choice": [1, 2]}


def nested(levels):
    """A repetition of a repetition and so on."""
    return {"$repeat": {"of": nested(levels - 1), "times": 2}} if levels else CHOICE


SPACES = {
    "a doubled variable": ({"$var": "v0"}, doubled("$var", CHOICE), "stands for more than 50,000 values"),
    "branches that are a doubled variable": (
        {"$var": "v0"},
        {f"v{k}": {"$choice": [{"$var": f"v{k + 1}"}] * 2} for k in range(DOUBLED)} | {f"v{DOUBLED}": 1},
        "stands for more than 50,000 values",
    ),
    "a chain of variables": (
        {"$var": "v0"},
        {f"v{k}": {"$var": f"v{k + 1}"} for k in range(2000)} | {"v2000": CHOICE},
        "nested deeper than 64 levels",
    ),
    "a repetition of repetitions": (
        {"$repeat": {"of": {"$repeat": {"of": CHOICE, "times": 10_000}}, "times": 10_000}},
        {},
        "stands for more than 50,000 values",
    ),
    "repetitions within each other": (nested(28), {}, "stands for more than 50,000 values"),
    "a drawn number of repetitions": (
        {"$repeat": {"of": [CHOICE] * 40, "times": {"$choice": [{"$range": [1, 9000]}, 2]}}},
        {},
        "stands for more than 50,000 values",
    ),
    "a repetition of 10^8": ({"$repeat": {"of": CHOICE, "times": 10**8}}, {}, "Write a whole number from 0 to 10000"),
    "a late outcome of 10^8": (
        {"$repeat": {"of": CHOICE, "times": {"$choice": [{"$range": [0, 9000]}, {"$range": [0, 9000]}, 10**8]}}},
        {},
        "100000000 is not a number of times",
    ),
    "a range to 10^30": ({"$range": [0, 10**30]}, {}, "must be [start, stop]"),
}


@pytest.mark.parametrize("name", SPACES)
def test_a_space_that_explodes_is_refused(name):
    value, definitions, message = SPACES[name]
    with pytest.raises(ConfigError) as error:
        Space({"arch": {"args": {"x": value}}, "$defs": definitions})
    assert message in str(error.value)


def test_a_space_of_a_long_list_has_a_size():
    space = Space({"arch": {"args": {"x": {"$repeat": {"of": CHOICE, "times": 300}}}}})
    assert space.extent.outcomes == 2**300
    assert Space({"x": {"$range": [0, 2**53]}}).extent.outcomes == 2**53


def test_references_that_double_or_that_form_a_long_chain_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="stands for more than 200,000 values when each"):
        load(tmp_path, {"arch": {"$ref": "v0"}, "$defs": doubled("$ref", 1)})
    chain = {f"v{k}": {"$ref": f"v{k + 1}"} for k in range(2000)}
    with pytest.raises(ConfigError, match="nested deeper than 64 levels"):
        load(tmp_path, {"arch": {"$ref": "v0"}, "$defs": chain | {"v2000": 1}})


def test_files_that_are_extended_twice_each_are_counted(tmp_path):
    for number in range(DOUBLED):
        (tmp_path / f"{number}.json").write_text(json.dumps({"$extends": [f"{number + 1}.json"] * 2}))
    (tmp_path / f"{DOUBLED}.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"a\.json: \$extends reads more than 100 files"):
        load(tmp_path, {"$extends": "0.json"})


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for name, kind in (("pipe.json", "a pipe or a device"), ("/dev/zero", "a pipe or a device"), (".", "a folder")):
        with pytest.raises(ConfigError, match=f"is {kind}. A configuration is a file"):
            load(tmp_path, {"$extends": name})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"seed": ' + "1" * 100_000 + "}", "a number of 100000 digits; at most 1000 are read"),
        ('{"seed": 0.' + "0" * 100_000 + "1}", "a number of 100003 digits"),
        ('"' + "x" * MAX_BYTES + '"', "is larger than 4 MB"),
        ('{"a": ' + "[" * 5000 + "]" * 5000 + "}", "nested deeper than 64 levels"),
    ],
)
def test_texts_that_take_long_to_read_are_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_a_long_path_of_an_override_is_refused():
    with pytest.raises(ConfigError, match="the path is longer than 64 keys"):
        apply_override({}, ".".join("a" * 5000) + "=1")


def test_faults_end_at_a_number_that_can_be_read():
    faults = Faults()
    for number in range(MAX_FAULTS - 1):
        faults.add(str(number), "is wrong")
    with pytest.raises(ConfigError, match=f"{MAX_FAULTS} faults in the configuration"):
        faults.add("last", "is wrong")
