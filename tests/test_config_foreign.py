"""The config of a checkpoint or an exported file runs nothing, fetches nothing, and chooses no place to write to."""

import copy
import json
import re

import pytest
import torch
import torchvision
from support.checkpoints import write_checkpoint
from support.people import people_config

import inference
import test as testing
import train
from config import cli, narrowed, require_own_place
from config.foreign import DATA_SETS, SAFE_DATA_SETS, TRACKING_URI, require_named_tracking
from utils.errors import ConfigError

LSUN = {"type": f"{DATA_SETS}LSUN", "args": {"root": "evil", "classes": "val"}}


def loader(dataset):
    return {"type": "TorchvisionDataLoader", "args": {"dataset": dataset, "num_classes": 2}}


def config_of(folder, **more):
    config = people_config(folder / "saved", 1)
    config["arch"]["args"] |= {"num_classes": 2, "in_channels": 3}
    return {**copy.deepcopy(config), **more}


def test_data_sets_that_unpickle_are_not_among_those_of_a_stranger():
    known = set(vars(torchvision.datasets))
    assert known >= SAFE_DATA_SETS
    assert not SAFE_DATA_SETS & {"LSUN", "LSUNClass", "CIFAR10", "CIFAR100", "DatasetFolder", "ImageNet", "PhotoTour"}


@pytest.mark.parametrize(
    ("path", "section"),
    [
        ("train_loader.args.dataset.type", {"train_loader": loader(LSUN)}),
        ("test_loader.args.dataset", {"test_loader": loader(f"{DATA_SETS}LSUNClass")}),
        ("valid_loader.args.dataset.type", {"valid_loader": loader({"type": f"{DATA_SETS}CIFAR10"})}),
        ("arch.args.name", {"arch": {"type": "TimmModel", "args": {"name": "hf-hub:evil/net"}}}),
        ("arch", {"arch": "torchvision.models.detection.backbone_utils.mobilenet_backbone"}),
        ("arch.type", {"arch": {"type": "torchvision.models.detection.backbone_utils.resnet_fpn_backbone"}}),
        ("arch.args.name", {"arch": {"type": "TimmModel", "args": {"name": " HF_hub:evil/net"}}}),
        ("arch.args.encoder", {"arch": {"type": "x", "args": {"encoder": "tu-local-dir:/evil"}}}),
        ("arch.type", {"arch": {"type": "torch.hub.load", "args": {}}}),
        ("arch.args.url", {"arch": {"type": "x", "args": {"url": "https://example.org/net.pth"}}}),
        ("arch.args.inner.0.checkpoint_path", {"arch": {"args": {"inner": [{"checkpoint_path": "evil.pth"}]}}}),
        ("arch.args.pretrained_cfg", {"arch": {"type": "x", "args": {"pretrained_cfg": {"file": "evil.pth"}}}}),
    ],
)
def test_what_runs_or_fetches_is_refused_unless_the_user_says_it(path, section):
    with pytest.raises(ConfigError, match=rf"^{path}: .* of the checkpoint's config .* -c FILE"):
        narrowed(section)
    assert narrowed(section, asked=section) == section


def test_what_the_user_says_is_allowed_in_a_config_that_was_completed():
    asked = {"arch": {"type": "TimmModel", "args": {"name": "hf-hub:mine/net"}}}
    completed = {"arch": {"type": "TimmModel", "args": {"name": "hf-hub:mine/net", "num_classes": 3}}}
    assert narrowed(completed, asked=asked) == completed
    other = {"arch": {"type": "TimmModel", "args": {"name": "hf-hub:evil/net", "num_classes": 3}}}
    with pytest.raises(ConfigError, match="hf-hub:evil"):
        narrowed(other, asked=asked)


def test_downloads_are_switched_off_at_any_depth_and_all_else_remains():
    section = loader({"type": f"{DATA_SETS}VOCSegmentation", "args": {"root": "data", "download": True}})
    config = {"train_loader": section, "arch": {"type": "UNet", "args": {"download": True}}}
    changed = copy.deepcopy(config)
    changed["train_loader"]["args"]["dataset"]["args"]["download"] = False
    assert narrowed(config) == changed
    assert config["train_loader"]["args"]["dataset"]["args"]["download"] is True
    assert narrowed({"test_loader": loader(LSUN)}, opens_data=False) == {"test_loader": loader(LSUN)}


def test_a_new_run_is_written_into_folders_of_the_user_only(tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    saved, run = tmp_path / "saved", tmp_path / "saved/net/20260101_000000"
    run.mkdir(parents=True)

    def config(save_dir, name="net", **more):
        return {"name": name, "trainer": {"epochs": 1, "save_dir": str(save_dir)}, **more}

    require_own_place(config("saved"), tmp_path / "x.pth")
    require_own_place(config(saved), run / "checkpoint-last.pth")  # the run lies there
    for place in (config(saved), config("..", "x"), config("saved", "../../x"), config("/etc")):
        with pytest.raises(ConfigError, match=r"trainer\.save_dir: .* outside of the working folder"):
            require_own_place(place, tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=r"trainer\.save_dir"):
        require_own_place(config(saved, "../../x"), run)
    (work / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=r"trainer\.save_dir"):
        require_own_place(config("link/x"), tmp_path / "x.pth")


@pytest.mark.parametrize(
    "uri",
    [
        *("FILE:///tmp/outside", "file://localhost/tmp/outside", "file:%2e%2e/%2e%2e/outside", "sqlite:///x.db"),
        *("http://server", "mysql://server/x", "mlruns", 3),
    ],
)
def test_a_checkpoint_sends_results_only_to_places_that_the_user_names(uri):
    config = {"visualization": {"mlflow": {"tracking_uri": uri}}}
    with pytest.raises(ConfigError, match=rf"^{TRACKING_URI}: .* name it: {TRACKING_URI}={re.escape(json.dumps(uri))}"):
        require_named_tracking(config, ["trainer.save_dir=x"])
    require_named_tracking(config, [f"{TRACKING_URI}={uri}"])
    require_named_tracking({"visualization": {"mlflow": {}, "wandb": None}}, [])


def run(program, *words):
    return cli.run_command(program.main, program.parser(), [str(word) for word in words])


def test_the_commands_hold_checkpoints_to_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    strange = {"torch": "x", "state_dict": {"x": torch.zeros(1)}, "epoch": 1, "global_step": 1}
    file = tmp_path / "checkpoint.pth"
    write_checkpoint(file, strange | {"config": config_of(tmp_path, test_loader=loader(LSUN))})
    for program, words in ((testing, ["--resume", file]), (train, ["--resume", file])):
        assert run(program, *words) == 2
        assert 'test_loader.args.dataset.type: "torchvision.datasets.LSUN" of the' in capsys.readouterr().err
    write_checkpoint(file, strange | {"config": config_of(tmp_path, arch={"args": {"name": "hf-hub:evil/net"}})})
    for program, words in ((testing, []), (train, []), (inference, ["--source", "x.png", "--output", "y.png"])):
        assert run(program, "--resume", file, *words) == 2
        assert 'arch.args.name: "hf-hub:evil/net" of the checkpoint' in capsys.readouterr().err
    elsewhere = config_of(tmp_path.parent / "elsewhere")
    write_checkpoint(file, strange | {"config": elsewhere})
    assert run(train, "--resume", file) == 2
    assert "is outside of the working folder, and the checkpoint is not in it" in capsys.readouterr().err
    assert not (tmp_path.parent / "elsewhere").exists()
    tracked = config_of(tmp_path, visualization={"mlflow": {"tracking_uri": "http://evil.example"}})
    write_checkpoint(file, strange | {"config": tracked})
    assert run(train, "--resume", file) == 2
    assert 'tracking_uri: "http://evil.example" of the checkpoint' in capsys.readouterr().err
    assert json.loads(json.dumps(elsewhere)) == elsewhere
