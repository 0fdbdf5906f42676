"""From a section to its object: arguments of the file, of the run, and what is nested, built in that order."""

import sys

import pytest
import torch
from torch import nn

from config import class_and_arguments, instantiate, load_plugins, validate
from tests.support.config_samples import CALLED, REGISTRY, Flip, Loss, Net, OneOf, Sum, parameters, sample
from utils.errors import ConfigError
from utils.registry import Section

RUN = {"num_classes": 2, "in_channels": 3, "ignore_index": 255, "seed": 7}


def with_args(section, kind, **args):
    return sample(**{section: {"type": kind, "args": args}})


def test_a_class_gets_the_arguments_of_the_file_and_those_of_the_run_that_it_asks_for():
    net = instantiate(with_args("arch", "Net", width=5, size=[2, 3]), "arch", REGISTRY, runtime=RUN)
    assert isinstance(net, Net)
    assert net.arguments == {"num_classes": 2, "in_channels": 3, "width": 5, "size": (2, 3)}


def test_values_of_the_run_reach_a_base_that_asks_for_them():
    net = instantiate(with_args("arch", "WideNet", factor=4), "arch", REGISTRY, runtime=RUN)
    assert (net.arguments["num_classes"], net.arguments["width"]) == (2, 32)
    assert instantiate(sample(arch="OpenNet"), "arch", REGISTRY, runtime=RUN).anything == {}


def test_building_does_not_change_the_configuration():
    config = sample()
    instantiate(config, "arch", REGISTRY, runtime=RUN)
    assert config == sample()


def test_the_file_and_the_run_may_say_the_same():
    net = instantiate(with_args("arch", "Net", num_classes=2), "arch", REGISTRY, runtime=RUN)
    assert net.arguments["num_classes"] == 2


def test_the_file_and_the_run_must_not_disagree():
    message = r"arch\.args\.num_classes: 5, but the run has num_classes 2\. Both must agree"
    with pytest.raises(ConfigError, match=message):
        instantiate(with_args("arch", "Net", num_classes=5), "arch", REGISTRY, runtime=RUN)


def test_lists_of_the_file_agree_with_tensors_of_the_run():
    config = with_args("loss", "Loss", class_weights=[1.0, 2.0])
    weights = torch.tensor([1.0, 2.0])
    assert instantiate(config, "loss", REGISTRY, runtime={"class_weights": weights}).class_weights is weights
    with pytest.raises(ConfigError, match="Both must agree"):
        instantiate(config, "loss", REGISTRY, runtime={"class_weights": torch.tensor([1.0, 3.0])})


def test_a_value_unknown_to_the_run_is_the_files():
    config = with_args("loss", "Loss", ignore_index=9)
    assert instantiate(config, "loss", REGISTRY, runtime={"ignore_index": None}).ignore_index == 9


def test_defaults_give_way_to_the_file():
    optimizer = torch.optim.SGD(parameters(), lr=1)
    for args, moves in (({}, 50), ({"T_max": 5}, 5)):
        config = with_args("lr_scheduler", "CosineAnnealingLR", **args)
        run, defaults = {"optimizer": optimizer}, {"T_max": 50, "total_steps": 50}
        assert instantiate(config, "lr_scheduler", REGISTRY, runtime=run, defaults=defaults).T_max == moves


def test_what_the_run_does_not_know_is_missing():
    with pytest.raises(ConfigError, match=r"arch\.args\.num_classes: missing: .* Add \"num_classes\" to args"):
        instantiate(sample(), "arch", REGISTRY)


def test_optimizer_and_schedule_of_torch():
    optimizer = instantiate(sample(), "optimizer", REGISTRY, runtime={"params": parameters()})
    assert optimizer.defaults["momentum"] == 0.9
    schedule = instantiate(sample(), "lr_scheduler", REGISTRY, runtime={"optimizer": optimizer})
    assert schedule.step_size == 3


@pytest.mark.parametrize(
    ("section", "kind", "args", "message"),
    [
        ("optimizer", "SGD", {"lr": -1}, r'optimizer: SGD refuses \{"lr": -1\}: ValueError: Invalid learning rate: -1'),
        ("optimizer", "AdamW", {"betas": [0.9, 2]}, "optimizer: AdamW refuses .*Invalid beta parameter at index 1"),
        ("optimizer", "AdamW", {"lr": "x"}, r'optimizer\.args\.lr: "x" must be a number'),
        ("arch", "Net", {"width": 13}, r"arch: Net refuses .*width 13 brings bad luck\. Correct arch\.args"),
        ("arch", "Net", {"width": 14}, r"^arch: width 14 is odd in its own way\. Set width to 16\.$"),
        ("arch", "Net", {"width": 15}, "arch: Net refuses .*AssertionError"),
        ("arch", "Net", {"width": 0}, r"arch\.args\.width: 0 must be an integer > 0"),
        ("arch", "make_wrong", {}, "arch: make_wrong made a int, not a Module"),
        ("train_loader", "Loader", {"path": "x", "batch_size": 0}, r"train_loader\.args\.batch_size: 0 must be"),
    ],
)
def test_what_a_constructor_refuses_has_its_path(section, kind, args, message):
    run = {**RUN, "params": parameters()}
    with pytest.raises(ConfigError, match=message):
        instantiate(with_args(section, kind, **args), section, REGISTRY, runtime=run)


def test_a_missing_section_is_named():
    config = sample()
    del config["arch"]
    with pytest.raises(ConfigError, match="arch: missing"):
        instantiate(config, "arch", REGISTRY)
    with pytest.raises(ConfigError, match=r"metrics\.0: missing"):
        instantiate({"metrics": []}, "metrics.0", REGISTRY)


def test_nested_parts_are_built_first():
    transforms = ["Flip", {"type": "OneOf", "args": {"transforms": [{"type": "Flip", "args": {"p": 1}}], "p": 0.1}}]
    loader = instantiate(with_args("train_loader", "Loader", path="x", transforms=transforms), "train_loader", REGISTRY)
    flip, one_of = loader.transforms
    assert isinstance(flip, Flip)
    assert isinstance(one_of, OneOf)
    assert [inner.p for inner in one_of.transforms] == [1]


def test_a_single_nested_part_is_passed_as_it_is():
    config = with_args("train_loader", "Loader", path="x", transforms={"type": "Flip"})
    assert isinstance(instantiate(config, "train_loader", REGISTRY).transforms, Flip)


def test_faults_of_nested_parts_have_their_own_path():
    config = with_args("train_loader", "Loader", path="x", transforms=["Flip", {"type": "Flip", "args": {"p": 2}}])
    with pytest.raises(ConfigError, match=r"^train_loader\.args\.transforms\.1\.args\.p: 2 must be"):
        instantiate(config, "train_loader", REGISTRY)


def test_one_loss_is_built_as_it_is():
    for loss in ("Loss", {"type": "Loss"}):
        assert isinstance(instantiate(sample(loss=loss), "loss", REGISTRY, runtime=RUN), Loss)


def test_losses_with_weights_become_their_sum():
    losses = ["Loss", {"type": "Loss", "weight": 0.5, "args": {"smooth": 2}}, {"type": "torch.nn.L1Loss", "weight": 2}]
    total = instantiate(sample(loss=losses), "loss", REGISTRY, runtime=RUN)
    assert isinstance(total, Sum)
    assert total.weights == [1, 0.5, 2]
    assert [type(loss) for loss in total.losses] == [Loss, Loss, nn.L1Loss]
    assert total.losses[1].smooth == 2
    assert total.losses[0].ignore_index == 255
    assert instantiate(sample(loss={"type": "Loss", "weight": 3}), "loss", REGISTRY).weights == [3]


def test_an_item_of_a_list_is_built_by_its_path():
    metrics = ["accuracy", {"type": "accuracy", "args": {"exclude_background": True}}]
    built = [instantiate(sample(metrics=metrics), f"metrics.{i}", REGISTRY, runtime=RUN) for i in range(2)]
    assert [(metric.num_classes, metric.exclude_background) for metric in built] == [(2, False), (2, True)]


def test_class_and_arguments_without_building():
    CALLED.clear()
    assert class_and_arguments(sample(), "arch", REGISTRY) == (Net, {"width": 4, "dropout": 0.5})
    assert class_and_arguments(sample(arch="Net"), "arch", REGISTRY) == (Net, {})
    loop, args = class_and_arguments(
        sample(trainer={"epochs": 1, "type": "Patient", "args": {"patience": 2}}), "trainer", REGISTRY
    )
    assert (loop.__name__, args) == ("PatientLoop", {"patience": 2})
    assert CALLED == []


def test_torchvision_fetches_nothing_that_the_file_does_not_ask_for(monkeypatch):
    def no_network(*_, **__):
        pytest.fail("weights were fetched")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    config = sample(arch="torchvision.models.segmentation.lraspp_mobilenet_v3_large")
    assert isinstance(instantiate(config, "arch", REGISTRY, runtime=RUN), nn.Module)


PLUGIN = """
from torch import nn
import neighbour_{number}

class MyNet(nn.Module):
    def __init__(self, num_classes: int, depth: int = neighbour_{number}.DEPTH) -> None:
        super().__init__()
        self.num_classes, self.depth = num_classes, depth

class _Private(nn.Module):
    pass

def my_builder(num_classes):
    return MyNet(num_classes, 9)

def my_saboteur() -> int:
    raise SystemExit
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", sys.path.copy())
    monkeypatch.setattr("utils.plugins.loaded", {})
    number = abs(hash(str(tmp_path)))
    (tmp_path / f"neighbour_{number}.py").write_text("DEPTH = 4")
    path = tmp_path / f"my_models_{number}.py"
    path.write_text(PLUGIN.format(number=number))
    return path


def test_classes_of_a_plugin_are_named_by_its_file(plugin):
    config = sample(arch={"type": f"{plugin.stem}.MyNet", "args": {"depth": 3}})
    with pytest.raises(ConfigError, match=r"arch\.type: .* is outside the allowed modules.*--plugin FILE"):
        validate(config, REGISTRY)
    assert load_plugins([plugin]) == (plugin.stem,)
    assert load_plugins([str(plugin)]) == (plugin.stem,)
    validate(config, REGISTRY)
    assert instantiate(config, "arch", REGISTRY, runtime=RUN).depth == 3
    assert instantiate(sample(arch=f"{plugin.stem}.MyNet"), "arch", REGISTRY, runtime=RUN).depth == 4
    assert instantiate(sample(arch=f"{plugin.stem}.my_builder"), "arch", REGISTRY, runtime=RUN).depth == 9


def test_a_plugin_is_held_to_the_rules_of_the_section(plugin):
    load_plugins([plugin])
    for name, message in [
        ("_Private", "leads to a private name"),
        ("my_saboteur", "is not annotated to return Module"),
        ("nn.Linear", "there is no module"),
        ("MyNett", rf'Did you mean "{plugin.stem}\.MyNet"'),
    ]:
        with pytest.raises(ConfigError, match=message):
            validate(sample(arch=f"{plugin.stem}.{name}"), REGISTRY)
    with pytest.raises(ConfigError, match="is not a subclass of Optimizer"):
        validate(sample(optimizer=f"{plugin.stem}.MyNet"), REGISTRY)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("broken_plugin.py", "import torch\ndef f(:\n", "importing it failed with SyntaxError: .*line 2"),
        ("failing_plugin.py", "1 / 0", "importing it failed with ZeroDivisionError: division by zero"),
        ("json.py", "", 'a module named "json" exists already'),
        ("models.py", "", 'a module named "models" exists already'),
        ("my-net.py", "", '"my-net" cannot name a module'),
        ("my_net.txt", "", "must be a Python file that exists"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named(tmp_path, monkeypatch, name, text, message):
    monkeypatch.setattr("sys.path", sys.path.copy())
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_plugins([tmp_path / name])


def test_a_missing_plugin_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.py: must be a Python file that exists"):
        load_plugins([tmp_path / "nowhere.py"])


def test_an_entry_of_the_wrong_class_is_our_own_mistake():
    wrong = {**REGISTRY, "optimizer": Section("torch.optim:Optimizer", {"Net": "tests.support.config_samples:Net"})}
    with pytest.raises(TypeError, match=r"tests.support.config_samples:Net is not a torch\.optim:Optimizer"):
        instantiate(sample(optimizer="Net"), "optimizer", wrong)


def test_a_plug_in_on_the_module_path_is_the_file_itself(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("first_parts_on_path", "second_parts_on_path"):
        (tmp_path / f"{name}.py").write_text("class Net:\n    pass\n")
        assert load_plugins([tmp_path / f"{name}.py"]) == (name,)
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "second_parts_on_path.py").write_text("")
    with pytest.raises(ConfigError, match="exists already"):
        load_plugins([other / "second_parts_on_path.py"])
