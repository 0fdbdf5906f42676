"""Option groups: dataclasses of a constructor whose fields the JSON names directly."""

from dataclasses import dataclass

import pytest

from config import group_arguments, instantiate, json_schema, validate
from config.checking.signatures import REQUIRED, signature_of
from tests.support.config_samples import REGISTRY, GroupLoader, OrderOptions, SizeOptions, sample
from utils.errors import ConfigError


def with_loader(kind, **args):
    return sample(train_loader={"type": kind, "args": args})


def test_the_fields_of_a_group_are_arguments_like_any_other():
    parameters = signature_of(GroupLoader).parameters
    assert list(parameters) == ["order", "seed", "tags", "height", "scales", "path"]
    assert parameters["order"].default is REQUIRED
    assert (parameters["seed"].default, parameters["tags"].default) == (0, [])
    assert (parameters["height"].default, parameters["scales"].default) == (16, (1.0,))  # of the default instance
    assert (parameters["height"].group, parameters["path"].group) == ("sizes", None)


@pytest.mark.parametrize("kind", ["GroupLoader", "NamedGroupLoader"])
def test_flat_values_of_the_file_and_of_the_run_are_gathered(kind):
    config = with_loader(kind, order="backward", scales=[1, 2], path="y")
    validate(config, REGISTRY)
    loader = instantiate(config, "train_loader", REGISTRY, runtime={"seed": 7})
    assert loader.order == OrderOptions("backward", seed=7)
    assert loader.sizes == SizeOptions(height=16, scales=(1.0, 2.0))
    assert loader.path == "y"


def test_defaults_of_the_run_give_way_to_the_file():
    loader = instantiate(with_loader("GroupLoader", height=4), "train_loader", REGISTRY, defaults={"order": "forward"})
    assert (loader.order.order, loader.sizes.height) == ("forward", 4)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, r"train_loader\.args\.order: missing"),
        ({"order": "up"}, r'train_loader\.args\.order: "up" must be one of "forward", "backward"'),
        ({"order": "forward", "height": 0}, r"train_loader\.args\.height: 0 must be an integer >= 1"),
        ({"order": "forward", "hight": 1}, r'args\.hight: unknown argument "hight"\. Did you mean "height"'),
        ({"order": "forward", "sizes": {}}, r'args\.sizes: unknown argument "sizes"'),
    ],
)
def test_faults_of_fields_are_those_of_arguments(args, message):
    with pytest.raises(ConfigError, match=message):
        validate(with_loader("GroupLoader", **args), REGISTRY)


def test_the_schema_has_the_fields_with_their_documentation():
    (entry,) = [
        item for item in json_schema(REGISTRY)["$defs"]["data_loader"]["anyOf"] if item.get("title") == "GroupLoader"
    ]
    height = entry["properties"]["args"]["properties"]["height"]
    assert (height["description"], height["default"], height["anyOf"][0]["minimum"]) == ("Rows.", 16, 1)


def test_arguments_are_gathered_for_a_function_too():
    def make(*, sizes: SizeOptions = SizeOptions(), order: OrderOptions = OrderOptions("forward")) -> None: ...

    assert group_arguments(make, {}) == {}
    assert group_arguments(make, {"height": 2}) == {"sizes": SizeOptions(height=2)}
    given = SizeOptions(height=3, scales=(2.0,))
    assert group_arguments(make, {"sizes": given, "height": 5}) == {"sizes": SizeOptions(height=5, scales=(2.0,))}
    assert group_arguments(GroupLoader, {"order": "backward", "path": "z"}) == {
        "order": OrderOptions("backward"),
        "path": "z",
    }
    with pytest.raises(TypeError, match="order"):
        group_arguments(GroupLoader, {"seed": 1})


def test_a_field_that_occurs_twice_is_an_error_of_the_program():
    def make(seed: int, order: OrderOptions) -> None: ...

    with pytest.raises(TypeError, match=r"make: seed occurs twice, in its signature and order\. Rename one"):
        signature_of(make)


@pytest.mark.parametrize("frozen", [False, True])
def test_another_dataclass_is_an_ordinary_argument(frozen):
    @dataclass(frozen=frozen)
    class Loose:
        depth: int = 3

    def make(loose: Loose | None = None) -> None: ...

    def take(loose: Loose) -> None: ...

    assert list(signature_of(make).parameters) == list(signature_of(take).parameters) == ["loose"]
