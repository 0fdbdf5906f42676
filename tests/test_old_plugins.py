"""Plug-ins that were written against the first documents run unchanged, with a warning if a module has moved."""

import json
import runpy
import shutil
import warnings
from pathlib import Path

import pytest
import torch

import train
from config import cli, load_config, load_plugins
from tests.support.pages import workplace  # noqa: F401 (a fixture)
from train import check_config
from utils.errors import DataError

OLD = Path(__file__).parent / "support/old_plugins"
MOVED = {"my_loader"}


@pytest.fixture
def old_workplace(workplace):  # noqa: F811
    """The workplace of the documents with the older files in place of those that they show today."""
    for file in OLD.iterdir():
        shutil.copy(file, workplace / file.name)
    return workplace


@pytest.mark.parametrize("name", sorted(path.stem for path in OLD.glob("my_*.json")))
def test_an_old_plugin_trains(name, old_workplace, capsys):
    words = ["-c", f"{name}.json", "--plugin", f"{name}.py"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        assert cli.run_command(train.main, train.parser(), words) == 0, capsys.readouterr().err
    moved = [str(each.message) for each in caught if "has moved" in str(each.message)]
    assert bool(moved) == (name in MOVED)
    (folder,) = (old_workplace / "saved" / name).iterdir()
    assert json.loads((folder / "result.json").read_text())["epochs"] == 2


@pytest.mark.filterwarnings("ignore:.* has moved:DeprecationWarning")
def test_an_old_script_runs(old_workplace, capsys):
    runpy.run_path("my_run.py", run_name="__main__")
    assert "val_miou 0." in capsys.readouterr().out


def test_an_old_loader_reads_the_same_samples(old_workplace):
    with pytest.warns(DeprecationWarning, match=r"data_loader\.(pictures|preprocessing)\.\w+ has moved"):
        load_plugins(["my_loader.py"])
    from my_loader import PhotoLoader

    loader = PhotoLoader("data/people", 32)
    image, mask = next(iter(loader.split_validation()))
    assert (image.shape, mask.shape) == ((8, 3, 32, 32), (8, 32, 32))
    assert set(mask.unique().tolist()) == {0, 1, 255}
    assert image.dtype == torch.float32


def test_moved_names_are_the_new_ones():
    import data_loader.pictures as old_files
    import data_loader.preprocessing as old_preprocessing
    from data_loader.images import files, preprocessing

    with pytest.warns(DeprecationWarning, match="has moved"):
        assert old_files.read_picture is files.read_image
    with pytest.warns(DeprecationWarning, match="has moved"):
        assert old_files.read_mask is files.read_mask
    with pytest.warns(DeprecationWarning, match="has moved"):
        assert old_preprocessing.place_mask is preprocessing.place_mask
    with pytest.warns(DeprecationWarning, match="has moved"):
        old = old_preprocessing.Preprocessing(resize=[4, 6], normalize=False)
    assert isinstance(old, preprocessing.Preprocessing)
    assert old.describe()["resize"] == [4, 6]
    with pytest.raises(AttributeError):
        _ = old_files.nothing
    with pytest.warns(DeprecationWarning, match="has moved"), pytest.raises(DataError, match="does not exist"):
        old_files.read_mask("nothing.png")


def test_a_trainer_may_have_arguments_of_the_names_of_the_plan(tmp_path):
    (tmp_path / "my_named.py").write_text(
        "from dataclasses import dataclass\nfrom typing import Any\nfrom torch import nn\n"
        "from trainer.trainer import Trainer, TrainingPlan\n"
        "@dataclass(frozen=True)\nclass Size:\n    width: int = 4\n"
        "class Net(nn.Module):\n    def __init__(self, num_classes: int, size: Any = Size()) -> None: ...\n"
        "class Named(Trainer):\n"
        "    def __init__(self, model: Any, optimizer: Any, *, plan: TrainingPlan, accumulate: int = 1, **parts):\n"
        "        super().__init__(model, optimizer, plan=plan, **parts)\n"
    )
    load_plugins([str(tmp_path / "my_named.py")])
    config = load_config(OLD.parents[2] / "config/people/quickstart.json")
    config["arch"] = {"type": "my_named.Net", "args": {"size": {"width": 8}}}
    config["trainer"] |= {"type": "my_named.Named", "args": {"accumulate": 3}}
    check_config(config)
