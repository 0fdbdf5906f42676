"""Files of the two older templates load as they are, each old key named in one warning."""

import json
import logging

import pytest

import data_loader
import models
import trainer
from config import load_config, validate
from utils.errors import ConfigError

HUMAN_SEGMENTATION = {
    "name": "HumanSeg",
    "n_gpu": 1,
    "arch": {"type": "UNet", "args": {"backbone": "mobilenetv2", "num_classes": 2, "pretrained_backbone": None}},
    "train_loader": {
        "type": "SegmentationDataLoader",
        "args": {
            "pairs_file": "dataset/train_mask.txt",
            "color_channel": "RGB",
            "resize": 320,
            "padding_value": 0,
            "is_training": True,
            "noise_std": 3,
            "crop_range": [0.9, 1.0],
            "flip_hor": 0.5,
            "rotate": 0.0,
            "angle": 10,
            "normalize": True,
            "one_hot": False,
            "shuffle": True,
            "batch_size": 16,
            "n_workers": 24,
            "pin_memory": True,
        },
    },
    "valid_loader": {
        "type": "SegmentationDataLoader",
        "args": {"pairs_file": "dataset/valid_mask.txt", "resize": 320, "is_training": False, "n_workers": 24},
    },
    "optimizer": {"type": "SGD", "args": {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-8}},
    "loss": "dice_loss",
    "metrics": ["miou"],
    "lr_scheduler": {"type": "StepLR", "args": {"step_size": 100, "gamma": 1.0}},
    "trainer": {
        "epochs": 80,
        "save_dir": "checkpoints/",
        "save_freq": None,
        "verbosity": 2,
        "monitor": "valid_loss",
        "monitor_mode": "min",
    },
    "visualization": {"tensorboardX": True, "log_dir": "checkpoints/"},
}


@pytest.fixture
def load(tmp_path):
    def load_content(content, *overrides):
        path = tmp_path / "old.json"
        path.write_text(json.dumps(content))
        return load_config(path, overrides)

    return load_content


def test_a_human_segmentation_file_reads_as_todays(load):
    loaded = load(HUMAN_SEGMENTATION)
    assert loaded["trainer"] == {
        "epochs": 80,
        "save_dir": "checkpoints/",
        "save_period": None,
        "verbosity": 2,
        "monitor": "min val_loss",
        "tensorboard": True,
    }
    assert loaded["arch"]["args"] == {"backbone": "mobilenet_v2", "num_classes": 2, "weights": None}
    assert loaded["train_loader"]["args"]["binary_masks"] is True
    assert loaded["valid_loader"]["args"]["binary_masks"] is True
    assert "visualization" not in loaded


def test_a_human_segmentation_file_is_valid(load):
    validate(load(HUMAN_SEGMENTATION), {**models.SECTIONS, **data_loader.SECTIONS, **trainer.SECTIONS})


def test_one_warning_names_every_old_key(load, caplog):
    load(HUMAN_SEGMENTATION)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.records[0].name.startswith("config")
    text = caplog.records[0].getMessage()
    for old, new in [
        ("trainer.save_freq", "trainer.save_period"),
        ("trainer.monitor and trainer.monitor_mode", '"min val_loss"'),
        ("visualization.tensorboardX", "trainer.tensorboard"),
        ("visualization.log_dir", "the run folder"),
        ('arch.args.backbone "mobilenetv2"', '"mobilenet_v2"'),
        ("arch.args.pretrained_backbone", "arch.args.weights"),
        ("train_loader (labels above 0 are class 1)", "train_loader.args.binary_masks = true"),
    ]:
        assert text.count(f"{old} -> {new}") == 1


def test_todays_file_warns_of_nothing(load, caplog):
    native = {
        "name": "native",
        "n_gpu": 1,
        "arch": {"type": "LeNet", "args": {}},
        "data_loader": {"type": "L", "args": {"batch_size": 128, "validation_split": 0.1, "n_workers": 2}},
        "loss": "nll_loss",
        "metrics": ["accuracy"],
        "trainer": {"epochs": 100, "save_period": 1, "monitor": "min val_loss", "early_stop": 10, "tensorboard": True},
    }
    assert load(native) == native
    assert not caplog.records


def test_pytorch_templates_worker_count_is_read(load):
    loaded = load({"data_loader": {"type": "L", "args": {"num_workers": 2, "validation_split": 500}}})
    assert loaded["data_loader"]["args"] == {"n_workers": 2, "validation_split": 500}


def test_classes_of_the_users_own_keep_the_names_of_their_arguments(load, caplog):
    own = {
        "name": "own",
        "arch": {"type": "my_models.Net", "args": {"backbone": "mobilenetv2", "pretrained_backbone": "x"}},
        "data_loader": {"type": "my_data.L", "args": {"num_workers": 2}},
    }
    assert load(own) == own
    assert not caplog.records


@pytest.mark.parametrize(
    ("section", "monitor"),
    [
        ({"monitor": "valid_loss", "monitor_mode": "min"}, "min val_loss"),
        ({"monitor": "valid_miou", "monitor_mode": "max"}, "max val_miou"),
        ({"monitor": "val_miou", "monitor_mode": "max"}, "max val_miou"),
        ({"monitor": "valid_loss", "monitor_mode": "off"}, "off"),
        ({"monitor": "min valid_loss"}, "min val_loss"),
        ({"monitor": "max val_accuracy"}, "max val_accuracy"),
        ({"monitor": "off"}, "off"),
    ],
)
def test_every_way_to_name_the_monitor(load, section, monitor):
    assert load({"trainer": section})["trainer"] == {"monitor": monitor}


@pytest.mark.parametrize("value", [True, False])
def test_tensorboard_is_said_in_one_place(load, value):
    for old in ({"visualization": {"tensorboardX": value}}, {"trainer": {"tensorboardX": value}}):
        assert load(old)["trainer"]["tensorboard"] is value


def test_a_file_that_uses_both_names_with_two_values_is_refused(load):
    with pytest.raises(ConfigError, match=r"trainer.save_freq is 5 and trainer.save_period is 2, .* Keep save_period"):
        load({"trainer": {"save_freq": 5, "save_period": 2}})
    with pytest.raises(ConfigError, match="Keep tensorboard"):
        load({"trainer": {"tensorboard": False}, "visualization": {"tensorboardX": True}})


def test_overrides_may_use_old_and_new_names_over_an_old_file(load):
    assert load(HUMAN_SEGMENTATION, "trainer.save_period=3")["trainer"]["save_period"] == 3
    assert load(HUMAN_SEGMENTATION, "trainer.save_freq=4")["trainer"]["save_period"] == 4
    assert load(HUMAN_SEGMENTATION, "trainer.monitor_mode=max")["trainer"]["monitor"] == "max val_loss"
    assert load(HUMAN_SEGMENTATION, "trainer.monitor=max valid_miou")["trainer"]["monitor"] == "max val_miou"
    loaded = load(HUMAN_SEGMENTATION, "train_loader.args.num_workers=0")
    assert loaded["train_loader"]["args"]["n_workers"] == 0


def test_a_new_file_may_extend_an_old_one(tmp_path):
    (tmp_path / "old.json").write_text(json.dumps(HUMAN_SEGMENTATION))
    (tmp_path / "new.json").write_text(json.dumps({"$extends": "old.json", "trainer": {"save_period": 2}}))
    loaded = load_config(tmp_path / "new.json")
    assert loaded["trainer"]["save_period"] == 2
    assert loaded["train_loader"]["args"]["binary_masks"] is True


def test_binary_masks_are_only_for_two_classes_and_never_against_the_file(load):
    many = load(HUMAN_SEGMENTATION, "arch.args.num_classes=5")
    assert "binary_masks" not in many["train_loader"]["args"]
    said = load(HUMAN_SEGMENTATION, "train_loader.args.binary_masks=false")
    assert said["train_loader"]["args"]["binary_masks"] is False


def test_an_old_key_on_the_command_line_does_not_make_masks_binary(load):
    new = {key: value for key, value in HUMAN_SEGMENTATION.items() if key != "visualization"}
    new["trainer"] = {"epochs": 1, "monitor": "min val_loss"}
    assert "binary_masks" not in load(new, "trainer.save_freq=4")["train_loader"]["args"]


def test_early_stop_zero_means_none(load):
    assert load({"trainer": {"early_stop": 0}})["trainer"]["early_stop"] is None


@pytest.mark.parametrize("section", ["trainer", "visualization", "arch", "train_loader"])
@pytest.mark.parametrize("value", [5, "text", [1], {"args": 5}, {"type": "SegmentationDataLoader", "args": []}])
def test_sections_of_a_wrong_type_are_left_for_the_validation(load, section, value):
    assert section in load({**HUMAN_SEGMENTATION, section: value})
