"""Tests of the loader, the model and the config of this project."""

from pathlib import Path

import pytest
import torch

from config import load_config, load_plugins
from train import check_config, train

ROOT = Path(__file__).parent.parent
load_plugins([ROOT / "my_loader.py", ROOT / "my_model.py"])


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The config of this project, with its run in a temporary folder."""
    monkeypatch.chdir(ROOT)  # the paths of the config are relative to the working folder
    return load_config("my_config.json", [f"trainer.save_dir={tmp_path}", "n_gpu=0", "trainer.tensorboard=false"])


def test_the_config_is_valid(config):
    check_config(config)


def test_the_loader_gives_images_and_classes(config):
    from my_loader import ShapeLoader

    loader = ShapeLoader(**config["train_loader"]["args"], batch_size=4)
    images, classes = next(iter(loader))
    assert images.shape == (4, 3, 32, 32)
    assert classes.dtype == torch.int64
    assert loader.class_names == ["circle", "square", "triangle"]


def test_the_model_gives_a_logit_per_class_for_any_size(config):
    from my_model import SmallNet

    assert SmallNet(5, width=4)(torch.rand(2, 3, 20, 31)).shape == (2, 5)


def test_a_training_learns(config):
    result = train(config)
    assert result.best["val_accuracy"] > 0.8
