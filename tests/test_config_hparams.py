"""The YAML of a study of sparse labels becomes a training: every key acts or is named."""

from pathlib import Path

import pytest

from config import load_config
from search.space.grid_space import GridSpace
from search.study.settings import build_study_parts
from tests.test_search_grid import SHIPPED
from train import check_config
from utils.errors import ConfigError

FINAL = """
smoke_test: False
model_name: deeplabv3
backbone_name: resnet101
scenario_name: final
seed: 13
dataset_train_name: subcityscapes_train
dataset_val_name: subcityscapes_val
len_dataset_train_scale_factor: 1.0
len_dataset_val_scale_factor: 1.0
label_density: 1.0
ignore_index: 255
input_height: 320
input_width: 640
mean_for_input_normalization: !!python/tuple
- 0.485
- 0.456
- 0.406
std_for_input_normalization: !!python/tuple
- 0.229
- 0.224
- 0.225
layers_to_train: final
minibatch_size: 32
learning_rate_final_layer: 0.0005
learning_rate_nonfinal_layers: 0.0
freeze_batchnorm_statistics: False
weight_classes: False
class_frequency_max_to_min_ratio_ubnd: null
label_smoothing: 0.0
stop_early: True
num_epochs_ubnd: 500
"""


@pytest.fixture
def read(tmp_path):
    def read(text=FINAL, *, overrides=(), **changes):
        lines = [line for line in text.splitlines() if line.partition(":")[0] not in changes]
        lines += [f"{key}: {value}" for key, value in changes.items()]
        file = tmp_path / "hparams--x.yaml"
        file.write_text("\n".join(lines))
        return load_config(file, overrides)

    return read


def test_the_four_runs_are_the_conditions_of_the_shipped_study(read):
    (path,) = (path for path in SHIPPED if path.stem == "sparse_labels_cityscapes_gpu")
    space = build_study_parts(load_config(path)).space
    assert isinstance(space, GridSpace)
    runs = {
        "2n, whole": read(),
        "2n, half": read(label_density=0.5),
        "n, whole": read(len_dataset_train_scale_factor=0.5),
        "n, half": read(len_dataset_train_scale_factor=0.5, label_density=0.5),
    }
    assert space.configs == {name: {**config, "name": path.stem} for name, config in runs.items()}


def test_layers_rates_and_weights_act(read):
    changes = {"layers_to_train": "all", "learning_rate_final_layer": 0.001, "learning_rate_nonfinal_layers": 0.0001}
    config = read(**changes, weight_classes=True, class_frequency_max_to_min_ratio_ubnd=2.0, label_smoothing=0.1)
    slow = [{"match": "backbone", "lr_scale": 0.1}, {"match": "classifier.[0-3]", "lr_scale": 0.1}]
    assert config["optimizer"] == {"type": "AdamW", "args": {"lr": 0.001}, "groups": slow}
    assert config["loss"]["args"] == {"weight": "bounded", "max_weight_ratio": 2.0, "label_smoothing": 0.1}
    assert "freeze" not in config["trainer"]
    head = read(**changes | {"layers_to_train": "head"})
    assert head["trainer"]["freeze"] == ["backbone"]
    assert head["optimizer"]["groups"] == slow[1:]
    assert read(weight_classes=True)["loss"]["args"] == {"weight": "balanced"}


def test_data_sets_stopping_and_smoke_tests_act(read):
    whole = read(dataset_train_name="cityscapes_train", dataset_val_name="cityscapes_val", smoke_test=True)
    assert whole["valid_loader"]["args"]["split"] == "val"
    assert "validation_split" not in whole["train_loader"]["args"]
    assert "test_loader" not in whole
    assert (whole["trainer"]["epochs"], whole["trainer"]["len_epoch"]) == (2, 2)
    every = read(dataset_train_name="subcityscapes_trainval", dataset_val_name="null", stop_early=False)
    assert every["trainer"] == {"epochs": 500, "monitor": "off", "freeze": ["backbone"]}
    assert every["test_loader"]["args"]["split"] == "val"
    stays = read(stop_early=False, num_epochs_ubnd=7, minibatch_size=4, backbone_name="resnet50", seed=5)
    assert stays["trainer"]["monitor"] == "max val_miou_without_background"
    assert (stays["seed"], stays["train_loader"]["args"]["batch_size"], stays["trainer"]["epochs"]) == (5, 4, 7)
    check_config(stays)


def test_one_warning_names_what_acts_otherwise(read, caplog):
    read(label_density=0.5, freeze_batchnorm_statistics=True, len_dataset_val_scale_factor=0.5)
    (message,) = caplog.messages
    for key in (
        "backbone_name",
        "label_density",
        "freeze_batchnorm_statistics",
        "len_dataset_val_scale_factor",
        "dataset_val_name",
        "layers_to_train",
    ):
        assert f" {key}: " in message
    assert " ignore_index: " not in message


def test_sections_of_this_project_are_laid_over_it(read):
    config = read(trainer="{epochs: 3}", overrides=["arch.args.weights_backbone=null"])
    assert config["trainer"]["epochs"] == 3
    assert config["trainer"]["early_stop"] == 3
    assert config["arch"]["args"]["weights_backbone"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_density": 0}, r"label_density: 0 must be a number > 0"),
        ({"label_densty": 0.5}, r'Did you mean "label_density"'),
        ({"model_name": "segformer"}, r'model_name: "segformer": was never finished there\. Write deeplabv3'),
        ({"dataset_val_name": "cityscapes_val"}, r"must be parts of one data set"),
        ({"dataset_val_name": "null"}, r"stop_early: true, and dataset_val_name is null"),
        ({"std_for_input_normalization": "[1, 1, 1]"}, r"mean_for_input_normalization: only ImageNet's"),
        ({"seed": "1\nseed: 2"}, r'duplicate key "seed"'),
        ({"seed": "[1"}, r"no YAML"),
        ({"seed": "!!python/object:os.system {}"}, r"no YAML"),
    ],
)
def test_faults_are_named(read, changes, message):
    with pytest.raises(ConfigError, match=message):
        read(**changes)


def test_other_yaml_is_refused(tmp_path):
    file = Path(tmp_path / "x.yml")
    file.write_text("arch: UNet\n")
    with pytest.raises(ConfigError, match=r"YAML, and only the hparams of a study of sparse labels .* as JSON"):
        load_config(file)
