"""Everything wrong is said at once, with its path and a suggestion, and nothing is called to find it out."""

import re

import pytest

from config import find_markers, refuse_markers, shared_values, trainer_options, validate
from tests.support.config_samples import CALLED, REGISTRY, sample
from utils.errors import ConfigError


def faults_of(config):
    """The faults of a configuration, one per line."""
    with pytest.raises(ConfigError, match=": ") as caught:
        validate(config, REGISTRY)
    lines = str(caught.value).splitlines()
    return [line.strip() for line in (lines[1:] if "faults in the configuration" in lines[0] else lines)]


def fault_of(config):
    """The one fault of a configuration."""
    (fault,) = faults_of(config)
    return fault


def with_args(section, kind, **args):
    return sample(**{section: {"type": kind, "args": args}})


def test_a_good_configuration_passes_and_nothing_is_built():
    CALLED.clear()
    validate(sample(), REGISTRY)
    assert CALLED == []


def test_all_faults_are_reported_together():
    faults = faults_of(
        sample(
            sede=1,
            n_gpu=-1,
            arch={"type": "Nett"},
            optimizer={"type": "SGD", "args": {"lr": "fast", "momentun": 0.9}},
            trainer={"epochs": 0, "monitr": "off"},
        )
    )
    paths = [fault.split(":")[0] for fault in faults]
    assert sorted(paths) == [
        "arch.type",
        "n_gpu",
        "optimizer.args.lr",
        "optimizer.args.momentun",
        "sede",
        "trainer.epochs",
        "trainer.monitr",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sede": 1}, 'sede: unknown key "sede". Did you mean "seed"?'),
        ({"seed": "1"}, 'seed: "1" must be an integer >= 0 and <= 9223372036854775807. Write 1 without quotes.'),
        ({"seed": True}, "seed: true must be an integer"),
        ({"seed": -1}, "seed: -1 must be an integer >= 0"),
        ({"name": ""}, 'name: "" must be a string of at least 1'),
        ({"name": "../x"}, 'name: "../x" cannot name a folder'),
        ({"n_gpu": 1.5}, "n_gpu: 1.5 must be an integer"),
        ({"metrics": "accuracy"}, 'metrics: "accuracy" must be a list'),
        ({"arch": None}, 'arch: missing. Add "arch": The network.'),
        ({"trainer": None}, 'trainer: missing. Add "trainer": Length of the training'),
        ({"train_loader": None}, "train_loader: missing."),
        ({"data_loader": {"type": "Loader", "args": {"path": "x"}}}, "data_loader: there is a train_loader, too."),
        ({"arch": 5}, 'arch: 5 must be a class. Write {"type": NAME, "args": {...}} or "NAME".'),
        ({"arch": {"typ": "Net", "type": "Net"}}, 'arch.typ: unknown key "typ". Did you mean "type"?'),
        ({"arch": {"args": {}}}, 'arch.type: missing. Add "type": Name of the class.'),
        ({"arch": {"type": 5}}, "arch.type: 5 must be a string of at least 1"),
        ({"arch": {"type": "Net", "args": [1]}}, "arch.args: [1] must be an object or null."),
        ({"visualization": {"log": "x"}}, 'visualization.log: unknown key "log". Did you mean "log_dir"?'),
        ({"search": 5}, "search: 5 must be an object"),
        ({"search": {"num_sample": 5}}, 'search.num_sample: unknown key "num_sample". Did you mean "num_samples"?'),
        ({"search": {"limits": {"max_params": 0}}}, "search.limits.max_params: 0 must be an integer >= 1"),
        ({"search": {"budget": {"hours": 2}}}, 'search.budget.hours: unknown key "hours".'),
        ({"search": {"retrain": {"seeds": 0}}}, "search.retrain.seeds: 0 must be an integer >= 1"),
        (
            {"lr_scheduler": {"type": "StepLR", "args": {"step_size": 3}, "interval": "eopch"}},
            "lr_scheduler.interval: ",
        ),
        ({"metrics": ["accuracy", {"type": "acuracy"}]}, 'metrics.1.type: unknown class "acuracy". Did you mean'),
        ({"metrics": [None]}, "metrics.0: null must be a class."),
        ({"loss": []}, "loss: [] names no loss. Add one."),
        ({"loss": [{"type": "Loss", "weight": "1"}]}, 'loss.0.weight: "1" must be a number.'),
        ({"loss": [{"type": "Loss", "weigth": 1}]}, 'loss.0.weigth: unknown key "weigth". Did you mean "weight"?'),
        ({"loss": ["Loss", {"type": "Loss", "args": {"smoth": 1}}]}, "loss.1.args.smoth: unknown argument"),
    ],
)
def test_faults_of_sections(changes, message):
    assert fault_of(sample(**changes)).startswith(message)


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"epochs": 1, "monitor": "valid_loss"}, 'trainer.monitor: "valid_loss" must be "min NAME"'),
        ({"epochs": 1, "monitor": "min valid_loss"}, 'trainer.monitor: "min valid_loss": validation results begin'),
        ({"epochs": 1, "monitor": "mix val_loss"}, 'trainer.monitor: "mix val_loss" must be "min NAME"'),
        ({"epochs": 1, "monitor": "min"}, 'trainer.monitor: "min" must be'),
        ({"epochs": 1, "monitor": ""}, 'trainer.monitor: "" must be'),
        ({"epochs": 1, "monitor": 5}, "trainer.monitor: 5 must be a string"),
        ({}, 'trainer.epochs: missing. Add "epochs": Passes over the training data.'),
        ({"epochs": 1.0}, "trainer.epochs: 1.0 must be an integer >= 1"),
        ({"epochs": 1, "len_epoch": 0}, "trainer.len_epoch: 0 must be an integer >= 1 or null"),
        ({"epochs": 1, "save_every_minutes": 0}, "trainer.save_every_minutes: 0 must be a number > 0 or null"),
        ({"epochs": 1, "verbosity": 3}, "trainer.verbosity: 3 must be an integer >= 0 and <= 2"),
        ({"epochs": 1, "tensorboard": "true"}, 'trainer.tensorboard: "true" must be true or false. Write true without'),
        ({"epochs": 1, "precision": "bf32"}, 'trainer.precision: "bf32" must be one of "auto", "fp32", "bf16", "fp16"'),
        ({"epochs": 1, "early_stopping": 3}, 'trainer.early_stopping: unknown key "early_stopping". Did you mean "ear'),
        ({"epochs": 1, "type": "Trainr"}, 'trainer.type: unknown class "Trainr". Did you mean "Trainer"?'),
        ({"epochs": 1, "type": "Patient", "args": {"patience": "x"}}, 'trainer.args.patience: "x" must be an integer'),
        (
            {"epochs": 1, "type": "Patient", "args": {"patients": 3}},
            'trainer.args.patients: unknown argument "patients',
        ),
        ({"epochs": 1, "type": "Patient", "args": {"plan": 3}}, "trainer.args.plan: 3: plan is given at run time."),
        ({"epochs": 1, "args": {"model": 3}}, "trainer.args.model: 3: model is given at run time. Remove it."),
        ("Trainer", 'trainer: "Trainer" must be an object'),
    ],
)
def test_faults_of_the_trainer(trainer, message):
    assert fault_of(sample(trainer=trainer)).startswith(message)


def test_the_mode_of_a_monitor_is_suggested():
    assert '"max val_miou"?' in fault_of(sample(trainer={"epochs": 1, "monitor": "maxx val_miou"}))
    assert '"min val_loss"?' in fault_of(sample(trainer={"epochs": 1, "monitor": "min valid_loss"}))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"widht": 4}, 'arch.args.widht: unknown argument "widht". Did you mean "width"?'),
        ({"width": 0}, "arch.args.width: 0 must be an integer > 0 and <= 512"),
        ({"width": 4.0}, "arch.args.width: 4.0 must be an integer"),
        ({"width": True}, "arch.args.width: true must be an integer"),
        ({"width": None}, "arch.args.width: null must be an integer"),
        ({"dropout": 1}, "arch.args.dropout: 1 must be a number >= 0 and < 1"),
        ({"dropout": False}, "arch.args.dropout: false must be a number"),
        ({"backbone": "resnet"}, 'arch.args.backbone: "resnet" must be one of "plain", "resnet18"'),
        ({"channels": 4}, "arch.args.channels: 4 must be a list, each an integer"),
        ({"channels": [4, "8"]}, 'arch.args.channels: [4, "8"] must be a list, each an integer'),
        (
            {"size": [1, 2, 3]},
            "arch.args.size: [1, 2, 3] must be an integer or a list of 2 (an integer, an integer) or",
        ),
        ({"names": {"a": "b"}}, 'arch.args.names: {"a": "b"} must be an object, each value a number or null'),
        ({"deep": 1}, "arch.args.deep: 1 must be true or false"),
        ({"deep": "yes"}, 'arch.args.deep: "yes" must be true or false'),
        ({"untyped": "3"}, 'arch.args.untyped: "3" must be a number'),
        ({"dropout": ".5"}, 'arch.args.dropout: ".5" must be a number >= 0 and < 1. Write 0.5 without quotes.'),
        ({"untyped": True}, "arch.args.untyped: true must be a number"),
        ({"untyped_switch": 1}, "arch.args.untyped_switch: 1 must be true or false"),
    ],
)
def test_arguments_are_held_to_their_annotations(args, message):
    assert fault_of(with_args("arch", "Net", **args)).startswith(message)


@pytest.mark.parametrize(
    "args",
    [
        {"dropout": 0},
        {"size": 3},
        {"size": [3, 4]},
        {"size": None},
        {"channels": []},
        {"names": {"a": 1}},
        {"table": [1, 2]},
        {"norm": "anything"},
        {"untyped": 2.5},
        {"untyped": [1, 2]},
    ],
)
def test_good_arguments_pass_and_what_cannot_be_known_is_left_to_the_class(args):
    validate(with_args("arch", "Net", **args), REGISTRY)


def test_a_class_that_passes_arguments_on_takes_those_of_its_base():
    validate(with_args("arch", "WideNet", factor=3, dropout=0.5), REGISTRY)
    assert fault_of(with_args("arch", "WideNet", dropuot=0.5)).startswith("arch.args.dropuot: unknown argument")
    assert fault_of(with_args("arch", "WideNet", dropout=2)).startswith("arch.args.dropout: 2 must be a number")
    validate(with_args("arch", "OpenNet", whatever=3), REGISTRY)


def test_missing_arguments_are_named_but_not_those_of_the_run():
    faults = faults_of(sample(arch="Strict"))
    assert [fault.split(":")[0] for fault in faults] == ["arch.args.depth", "arch.args.label"]
    assert fault_of(with_args("lr_scheduler", "StepLR")).startswith("lr_scheduler.args.step_size: missing")
    validate(sample(arch="make_net", lr_scheduler="CosineAnnealingLR"), REGISTRY)


def test_what_is_given_at_run_time_cannot_be_said():
    assert "optimizer.args.params: [] must" not in fault_of(with_args("optimizer", "SGD", params=[]))
    assert fault_of(with_args("optimizer", "SGD", params=[])).endswith("params is given at run time. Remove it.")


def test_torchs_own_signatures_are_read():
    assert fault_of(with_args("optimizer", "AdamW", betas=[0.9])).startswith(
        "optimizer.args.betas: [0.9] must be a list"
    )
    assert fault_of(with_args("optimizer", "SGD", nesterov=1)).startswith("optimizer.args.nesterov: 1 must be true or")
    assert "must be one of" in fault_of(with_args("lr_scheduler", "OneCycleLR", max_lr=1, anneal_strategy="log"))
    assert "each an integer" in fault_of(with_args("lr_scheduler", "MultiStepLR", milestones=[1, 2.5]))
    validate(with_args("optimizer", "AdamW", betas=[0.9, 0.99], lr=1, foreach=None), REGISTRY)


def test_nested_specs_are_checked_where_they_stand():
    transforms = [{"type": "OneOf", "args": {"transforms": ["Flip", {"type": "Flip", "args": {"p": 2}}]}}, "Flipp", 3]
    faults = faults_of(with_args("train_loader", "Loader", path="x", transforms=transforms))
    assert [fault.split(":")[0] for fault in faults] == [
        "train_loader.args.transforms.0.args.transforms.1.args.p",
        "train_loader.args.transforms.1.type",
        "train_loader.args.transforms.2",
    ]


def test_a_lookup_lists_what_exists(monkeypatch):
    monkeypatch.setattr("utils.plugins.loaded", {})  # whatever other tests have loaded
    fault = fault_of(sample(optimizer="Adamm"))
    assert 'Did you mean "Adam"?' in fault
    assert re.search(r"Known: .*\bAdamW\b.*\bRMSprop\b.*\bSGD\b", fault)
    assert "a class in full under torch.optim, or a class of your own file, named with --plugin" in fault


def test_an_entry_that_needs_a_missing_package_says_so():
    assert "cannot be imported (No module named 'no_such_package')" in fault_of(sample(arch="Absent"))


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("optimizer", "torch.optim.AdamW"),
        ("optimizer", "torch.optim.adamw.AdamW"),
        ("loss", "torch.nn.CrossEntropyLoss"),
        ("loss", "torch.nn.modules.loss.NLLLoss"),
        ("arch", "torchvision.models.resnet18"),
        ("arch", "torchvision.models.segmentation.deeplabv3_resnet50"),
        ("arch", "torchvision.ops.MLP"),
    ],
)
def test_classes_may_be_named_in_full(section, kind):
    args = {"in_channels": 3, "hidden_channels": [2]} if kind.endswith("MLP") else {}
    validate(with_args(section, kind, **args), REGISTRY)


@pytest.mark.parametrize(
    ("section", "kind", "message"),
    [
        ("optimizer", "torch.optim.os.system", "there is no module torch.optim.os"),
        ("optimizer", "torch.optim.lr_scheduler.StepLR", "is not a subclass of Optimizer"),
        ("optimizer", "torch.optim.adamw.adamw", "is a function that is not annotated to return Optimizer"),
        ("optimizer", "torch.optim.optimizer._use_grad_for_differentiable", "leads to a private name"),
        ("optimizer", "torch.optim.AdamW.__init__", "leads to a private name"),
        ("optimizer", "torch.optim.AdamW.step", "there is no module torch.optim.AdamW"),
        ("optimizer", "torch.optim.AdamWW", 'Did you mean "torch.optim.AdamW"?'),
        ("optimizer", "torch.optim", "outside the allowed modules"),
        ("optimizer", "torch.optim.", "leads to a private name"),
        ("optimizer", "torch.hub.load", "outside the allowed modules"),
        ("optimizer", "os.system", "outside the allowed modules"),
        ("optimizer", "torch.optimism.X", "outside the allowed modules"),
        ("optimizer", "defaultdict", "unknown class"),
        ("optimizer", "lr_scheduler", "unknown class"),
        ("loss", "torch.nn.modules.torch.hub.load", "there is no module torch.nn.modules.torch"),
        ("loss", "torch.nn.functional.cross_entropy", "is not annotated to return Module"),
        ("loss", "torch.nn.Parameter", "is not a subclass of Module"),
        ("loss", "torch.nn.modules", "is not a class"),
        ("loss", "builtins.eval", "outside the allowed modules"),
        ("arch", "torchvision.datasets.utils.download_url", "is not annotated to return Module"),
        ("arch", "torchvision.models.get_model_weights", "is not annotated to return Module"),
        ("arch", "torchvision.models._api.get_model", "leads to a private name"),
        ("arch", "torchvision.datasets.utils.urllib.request.urlopen", "there is no module"),
        ("arch", "torchvision.io.video.av", "torchvision.io.video"),
        ("arch", "config_samples.Net", "outside the allowed modules"),
        ("metrics", "config_samples.Score", "outside the allowed modules"),
    ],
)
def test_no_name_leads_out_of_its_section(section, kind, message):
    spec = {"type": kind}
    assert message in fault_of(sample(**{section: [spec] if section == "metrics" else spec}))


def test_markers_are_found_and_refused_with_the_command_to_run():
    config = sample(seed={"$choice": [1, 2]}, arch={"type": "Net", "args": {"channels": [4, {"$range": [8, 65, 8]}]}})
    config["optimizer"]["args"] = {"lr": {"$loguniform": [1e-4, 1]}, "momentum": {"$choice": [{"$uniform": [0, 1]}, 0]}}
    config["$defs"] = {"unused": {"$choice": [1]}}
    paths = ["seed", "arch.args.channels.1", "optimizer.args.lr", "optimizer.args.momentum"]
    assert find_markers(config) == paths
    message = r"seed, arch.args.channels.1, optimizer.args.lr and 1 more: .* Run: python -m search -c FILE"
    with pytest.raises(ConfigError, match=message):
        validate(config, REGISTRY)
    with pytest.raises(ConfigError, match=r"python -m search -c my\.json"):
        refuse_markers(config, "python -m search -c my.json")


def test_a_configuration_without_markers_has_none():
    assert find_markers(sample()) == []
    refuse_markers(sample())


def test_a_misspelt_marker_is_named():
    faults = faults_of(with_args("optimizer", "SGD", lr={"$choise": [1, 2]}))
    assert faults[0].startswith('optimizer.args.lr.$choise: unknown marker "$choise". Did you mean "$choice"?')
    assert fault_of(with_args("arch", "Net", table=[{"$unifrm": [0, 1]}])).startswith("arch.args.table.0.$unifrm: ")
    assert fault_of({**sample(), "$extend": "x"}).startswith("$extend: unknown marker")


def test_a_configuration_made_in_python_must_be_plain():
    with pytest.raises(ConfigError, match=r"not plain JSON .*Object of type set is not JSON serializable"):
        validate(sample(metrics={"accuracy"}), REGISTRY)
    with pytest.raises(ConfigError, match=r"not plain JSON .*Out of range float values"):
        validate(with_args("optimizer", "SGD", lr=float("nan")), REGISTRY)
    validate(with_args("arch", "Net", channels=(1, 2)), REGISTRY)


def test_trainer_options_fills_in_every_default():
    options = trainer_options({"trainer": {"epochs": 3, "monitor": "max val_miou"}})
    assert options == {
        "type": "Trainer",
        "args": {},
        "epochs": 3,
        "len_epoch": None,
        "save_dir": "saved/",
        "save_period": None,
        "save_every_steps": None,
        "save_every_minutes": None,
        "monitor": "max val_miou",
        "early_stop": None,
        "verbosity": 2,
        "tensorboard": True,
        "precision": "auto",
        "deterministic": True,
        "channels_last": True,
        "histograms": False,
        "pictures": 4,
        "accumulate": 1,
        "clip_norm": None,
        "clip_value": None,
        "ema": None,
        "freeze": [],
        "unfreeze_epoch": None,
        "sync_batch_norm": False,
        "compile": False,
        "checkpoint_activations": [],
        "train_on": "train",
        "loader_timeout": 600.0,
        "max_time": None,
    }
    with pytest.raises(ConfigError, match=r"trainer\.epochs: 0 must be an integer >= 1"):
        trainer_options({"trainer": {"epochs": 0}})


def test_shared_values_are_collected_from_network_and_loaders():
    config = sample(
        arch={"type": "Net", "args": {"num_classes": 3}},
        train_loader={"type": "Loader", "args": {"path": "x", "ignore_index": 255, "num_classes": 3}},
        valid_loader={"type": "Loader", "args": {"path": "x", "in_channels": 4, "num_classes": None}},
    )
    assert shared_values(config) == {"num_classes": 3, "ignore_index": 255, "in_channels": 4}
    assert shared_values({"arch": "Net", "data_loader": "Loader"}) == {}


def test_shared_values_that_disagree_name_both_places():
    config = sample(arch={"type": "Net", "args": {"num_classes": 3}})
    config["train_loader"]["args"]["num_classes"] = 2
    message = r"train_loader\.args\.num_classes: 2, but arch\.args\.num_classes is 3\. Both must agree"
    with pytest.raises(ConfigError, match=message):
        shared_values(config)
    with pytest.raises(ConfigError, match=message):
        validate(config, REGISTRY)
