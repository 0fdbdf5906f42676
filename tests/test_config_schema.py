"""The JSON Schema takes the files that are shipped and refuses what an editor should underline."""

import copy
import json
import re
from pathlib import Path

import pytest

from build import registry
from config import json_schema, schema_text
from config.markers import MARKERS
from tests.support.config_samples import REGISTRY, sample

FOLDER = Path(__file__).parent.parent / "config"
SHIPPED = sorted(path for path in FOLDER.glob("*/*.json"))
REAL = registry()
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": int | float, "null": type(None)}


def has_type(value, name):
    if name == "boolean" or isinstance(value, bool):
        return name == "boolean" and isinstance(value, bool)
    return isinstance(value, TYPES[name])


def holds(value, schema, root):
    """Whether a value is valid under the keywords of JSON Schema that ours uses."""
    if "$ref" in schema and not holds(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root):
        return False
    names = schema.get("type", [])
    checks = [
        not names or any(has_type(value, name) for name in ([names] if isinstance(names, str) else names)),
        "anyOf" not in schema or any(holds(value, choice, root) for choice in schema["anyOf"]),
        "const" not in schema or value == schema["const"],
        "enum" not in schema or value in schema["enum"],
    ]
    if isinstance(value, dict):
        known = schema.get("properties", {})
        extra = schema.get("additionalProperties", True)
        checks += [holds(item, known.get(key, {}), root) for key, item in value.items()]
        checks += [key in known or extra is True or (extra and holds(value[key], extra, root)) for key in value]
        checks += [key in value for key in schema.get("required", [])]
    elif isinstance(value, list):
        prefix = schema.get("prefixItems", [])
        checks += [holds(item, schema.get("items", {}), root) for item in value[len(prefix) :]]
        checks += [holds(item, part, root) for item, part in zip(value, prefix, strict=False)]
        checks += [schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))]
    elif isinstance(value, str):
        checks += [re.search(schema.get("pattern", ""), value), len(value) >= schema.get("minLength", 0)]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        checks += [value >= schema.get("minimum", value), value <= schema.get("maximum", value)]
        checks += ["exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"]]
        checks += ["exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"]]
    return all(checks)


@pytest.fixture(scope="module")
def schema():
    return json_schema(REAL)


def test_shipped_files_are_found():
    assert len(SHIPPED) >= 5


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_files_hold(path, schema):
    content = json.loads(path.read_text())
    assert holds(content, schema, schema)
    assert (path.parent / content["$schema"]).resolve() == FOLDER / "schema.json"


def test_the_sample_holds_in_every_form_of_a_class():
    small = json_schema(REGISTRY)
    for arch in ("Net", {"type": "Net"}, {"args": {"width": {"$choice": [1]}}}, "torchvision.models.alexnet"):
        assert holds(sample(arch=arch), small, small)
    for loss in ("Loss", [{"type": "Loss", "weight": 2}], {"$ref": "my_loss"}):
        assert holds(sample(loss=loss), small, small)


@pytest.mark.parametrize(
    "changes",
    [
        {"sede": 1},
        {"seed": -1},
        {"seed": "1"},
        {"arch": "Nett"},
        {"arch": {"type": "Nett"}},
        {"arch": {"type": "Net", "arg": {}}},
        {"arch": {"type": "Net", "args": {"widht": 1}}},
        {"arch": {"type": "Net", "args": {"width": 0}}},
        {"arch": {"type": "Net", "args": {"backbone": "x"}}},
        {"optimizer": {"type": "SGD", "args": {"lr": "x"}}},
        {"optimizer": {"type": "SGD", "args": {"params": []}}},
        {"loss": []},
        {"loss": [{"type": "Loss", "weight": "x"}]},
        {"metrics": ["acc"]},
        {"train_loader": {"type": "Loader", "args": {"path": "x", "transforms": ["Flap"]}}},
        {"lr_scheduler": {"type": "StepLR", "interval": "hour"}},
        {"trainer": {"epochs": 0}},
        {"trainer": {"epoch": 1}},
    ],
)
def test_faults_do_not_hold(changes):
    small = json_schema(REGISTRY)
    assert not holds(sample(**changes), small, small)


LAYERS = {"D_blocks": [[]], "U_blocks": [{"$ref": "block"}]}


@pytest.mark.parametrize(
    ("changes", "is_good"),
    [
        ({"arch": {"type": "EncDec", "args": {**LAYERS, "B_blocks": [[{"op": {"$choice": ["H", "V"]}}]]}}}, True),
        ({"arch": {"type": "EncDec", "args": {**LAYERS, "B_blocks": [[["C", {"$range": [1, 8]}]]]}}}, True),
        ({"arch": {"type": "EncDec", "args": {**LAYERS, "B_blocks": {"$repeat": {"of": [], "times": 2}}}}}, True),
        ({"arch": {"type": "EncDec", "args": {**LAYERS, "B_blocks": [[["X", 1]]]}}}, False),
        ({"optimizer": {"$choice": [{"type": "SGD"}, {"type": "Adam"}]}}, True),
        ({"optimizer": {"$choice": []}}, False),
        ({"optimizer": {"type": "SGD", "args": {"lr": {"$loguniform": [0.1]}}}}, False),
        ({"arch": {"type": "UNet", "args": {"channels": {"$repeat": {"of": 8}}}}}, False),
        ({"arch": {"type": "UNet", "args": {"dropout": {"$var": 5}}}}, False),
        ({"arch": {"type": "UNet", "args": {"dropout": {"$uniform": [0, 0.5]}}}}, True),
        ({"seed": {"$range": [0.5, 1]}}, False),
        ({"search": {"num_samples": 9, "scheduler": {"type": "ASHA", "args": {"mode": "promote"}}}}, True),
        ({"search": {"limits": {"max_params": 5, "input_size": [64, 48]}, "retrain": {"top": 2}}}, True),
        ({"search": {"executor": {"type": "processes", "args": {"workers": 2}}, "objectives": ["max val_miou"]}}, True),
        ({"search": {"num_sample": 9}}, False),
        ({"search": {"scheduler": "ASHAA"}}, False),
        ({"search": {"scheduler": {"type": "ASHA", "args": {"grace": 1}}}}, False),
        ({"search": {"scheduler": {"type": "ASHA", "args": {"num_samples": 1}}}}, False),
        ({"search": {"limits": {"max_param": 5}}}, False),
        ({"search": {"num_samples": {"$choice": [1, 2]}}}, False),
    ],
)
def test_a_search_is_completed_and_checked(changes, is_good, schema):
    assert holds(changes, schema, schema) is is_good


def test_every_marker_is_described(schema):
    assert schema["$defs"]["placeholder"]["properties"].keys() == {"$ref", *MARKERS}


def test_classes_and_arguments_carry_their_documentation():
    net = next(item for item in json_schema(REGISTRY)["$defs"]["arch"]["anyOf"] if item.get("title") == "Net")
    assert net["description"] == "A network with every kind of argument."
    width = net["properties"]["args"]["properties"]["width"]
    assert width["default"] == 8
    assert width["anyOf"][0] == {"type": "integer", "exclusiveMinimum": 0, "maximum": 512}


def test_every_section_and_class_has_a_description(schema):
    sections = {name for name in schema["properties"] if not name.startswith("$")}
    assert sections >= {"name", "seed", "arch", "train_loader", "optimizer", "loss", "metrics", "trainer", "search"}
    assert all("description" in schema["properties"][name] for name in sections - {"trainer", "visualization"})
    assert all("description" in option for option in schema["$defs"]["TrainerOptions"]["properties"].values())
    ours = [item for key in ("arch", "loss", "metrics", "data_loader") for item in schema["$defs"][key]["anyOf"]]
    assert all(item["description"] for item in ours if "title" in item)


def test_the_text_is_the_same_every_time_and_parses(schema):
    text = schema_text(REAL)
    assert text == schema_text(copy.copy(REAL))
    assert json.loads(text) == schema
    assert text.endswith("}\n")


def test_the_shipped_schema_is_current(schema):
    shipped = json.loads((FOLDER / "schema.json").read_text())
    repair = "Run python train.py --schema > config/schema.json"
    assert shipped["properties"] == schema["properties"], repair
    ours = [key for key, section in REAL.items() if key in schema["$defs"] and not section.shortcuts]
    for key in [*ours, "placeholder"]:
        assert shipped["$defs"][key] == schema["$defs"][key], repair
    if shipped["$comment"] == schema["$comment"]:  # the classes of the libraries are those of their versions
        assert shipped == schema, repair
