"""Runs of POPNASv3 become searches: every key acts or is named, and `python -m search` trains them."""

import copy
import json
import logging
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import train
from build import read_data_spec
from config import cli, load_config
from search.__main__ import main
from tests.support.simulated_study import World
from tests.support.slow import slow_unless
from tests.test_classification_commands import write_images, write_series
from tests.test_search_popnas import simulation
from utils.errors import ConfigError

IMAGES = {
    "search_space": {
        "blocks": 3,
        "lookback_depth": 1,
        "operators": ["identity", "3x3:2dr conv", "3x3:4z zconv", "1x7-7x1 conv", "4r SE", "3k-2h-1b cvt"],
    },
    "search_strategy": {
        "max_children": 7,
        "max_exploration_children": 2,
        "score_metric": "f1_score",
        "additional_pareto_objectives": ["time", "params", "inference_time"],
    },
    "training_hyperparameters": {
        "epochs": 21,
        "learning_rate": 0.01,
        "weight_decay": 0.0005,
        "drop_path": 0.2,
        "softmax_dropout": 0.1,
        "label_smoothing": 0.05,
        "optimizer": {
            "type": "SGDW: 0.9 momentum",
            "scheduler": "cdr: 3 period, 2.0 t_mul, 1.0 m_mul, 0.1 alpha",
            "warmup": 2,
            "lookahead": {"sync_period": 4, "slow_step_size": 0.4},
        },
    },
    "architecture_hyperparameters": {
        "filters": 8,
        "motifs": 2,
        "normal_cells_per_motif": 1,
        "block_join_operator": "avg",
        "lookback_reshape": True,
        "concat_only_unused_blocks": False,
        "residual_cells": False,
        "se_cell_output": True,
        "multi_output": True,
        "activation_function": "silu",
    },
    "dataset": {
        "type": "image_classification",
        "name": "textures",
        "path": "photos",
        "classes_count": 2,
        "batch_size": 8,
        "val_test_batch_size": 4,
        "inference_batch_size": 4,
        "validation_size": 0.25,
        "cache": False,
        "folds": 2,
        "samples": 32,
        "balance_class_losses": True,
        "class_labels_remapping": {"stripes": 1, "bars": 0},
        "resize": {"width": 18, "height": 16},
        "rescale": False,
        "normalize": True,
        "data_augmentation": {"enabled": True, "use_cutout": True},
    },
    "others": {
        "accuracy_predictor_ensemble_units": 3,
        "predictions_batch_size": 1024,
        "save_children_weights": False,
        "save_children_models": True,
        "pnas_mode": False,
        "train_strategy": "CPU",
        "enable_XLA_compilation": True,
        "use_mixed_precision": False,
    },
}
SERIES = {
    "search_space": {"blocks": 2, "lookback_depth": 1, "operators": ["identity", "3 dconv", "3x3 conv", "gru"]},
    "search_strategy": {"additional_pareto_objectives": ["params"]},
    "training_hyperparameters": {
        "epochs": 4,
        "learning_rate": 0.01,
        "weight_decay": 0.001,
        "optimizer": {"type": "radam: 0.1 alpha", "scheduler": "cd: 0.01 alpha"},
    },
    "architecture_hyperparameters": {"filters": 8, "motifs": 2, "normal_cells_per_motif": 1},
    "dataset": {
        "type": "time_series_classification",
        "path": "series",
        "batch_size": 8,
        "validation_size": 0.25,
        "rescale": True,
        "normalize": True,
    },
    "others": {"train_strategy": "CPU"},
}
MASKS = {
    "search_space": {"blocks": 2, "operators": ["3x3 conv", "2x2 maxpool"]},
    "search_strategy": {"score_metric": "mean_iou"},
    "training_hyperparameters": {"epochs": 4, "learning_rate": 0.01, "optimizer": {"type": "adam", "warmup": 1}},
    "architecture_hyperparameters": {"filters": 4, "motifs": 2, "normal_cells_per_motif": 1},
    "dataset": {
        "type": "image_segmentation",
        "path": "masks",
        "classes_count": 2,
        "ignore_class": 255,
        "batch_size": 4,
        "resize": {"width": 24, "height": 16},
        "data_augmentation": {"enabled": True},
    },
    "others": {"pnas_mode": True, "train_strategy": "CPU"},
}

STREETS = MASKS | {"dataset": {"type": "image_segmentation", "name": "cityscapes", "validation_size": 0.1}}


def changed(run, path, value):
    """A run with another value; `...` removes the key."""
    new = copy.deepcopy(run)
    *parts, key = path.split(".")
    place = new
    for part in parts:
        place = place.setdefault(part, {})
    place[key] = value
    if value is ...:
        del place[key]
    return new


@pytest.fixture
def load(tmp_path):
    def load_content(run, *overrides):
        (tmp_path / "run.json").write_text(json.dumps(run))
        return load_config(tmp_path / "run.json", overrides)

    return load_content


def test_every_key_of_an_image_run_has_its_place(load):
    loaded = load(IMAGES)
    assert loaded["arch"] == {
        "type": "CellNet",
        "args": {
            "stem": "none",
            "filters": 8,
            "motifs": 2,
            "normal_cells": 1,
            "block_join": "avg",
            "lookback_reshape": True,
            "concat_only_unused": False,
            "residual": False,
            "se_output": True,
            "multi_output": True,
            "activation": "swish",
            "drop_path": 0.2,
            "dropout": 0.1,
            "num_classes": 2,
        },
    }
    common = {"resize": [16, 18], "normalize": True, "classes": ["bars", "stripes"], "cache_mb": 0, "folder": "photos"}
    augmented = {"crop_range": [0.875, 1.0], "flip_hor": 0.5, "cutout": 0.125}
    training = {"split": "keras_training", "batch_size": 8, "samples": 32, "validation_split": 0.25}
    loader = "ImageClassificationDataLoader"
    assert loaded["data_loader"] == {"type": loader, "args": common | training | augmented}
    test = {"split": "keras_test", "batch_size": 4, "is_training": False}
    assert loaded["test_loader"] == {"type": loader, "args": common | test}
    assert loaded["search"] == {
        "strategy": {
            "type": "POPNAS",
            "args": {
                "max_best": 0,
                "blocks": 3,
                "lookbacks": 1,
                "operators": ["identity", "3x3 conv:2dr", "3x3 zconv:4", "1x7-7x1 conv", "4 SE", "3-2-1 cvt"],
                "max_children": 7,
                "max_exploration": 2,
                "pnas_mode": False,
                "members": 3,
            },
        },
        "objectives": ["max val_f1", "min training_time", "min params", "min latency_ms"],
        "folds": 2,
        "retrain": {"top": 1, "epochs": 200, "seeds": 1, "train_on": "train+valid"},
    }
    assert loaded["loss"] == {"type": "ce_loss", "args": {"label_smoothing": 0.05, "weight": "balanced"}}
    assert loaded["metrics"] == ["accuracy", "f1"]
    assert loaded["trainer"] == {"epochs": 21, "monitor": "max val_f1", "precision": "fp32"}
    assert (loaded["n_gpu"], loaded["name"]) == (0, "run")
    assert loaded["optimizer"] == {
        "type": "SGDW",
        "args": {"lr": 0.01, "weight_decay": 0.05, "momentum": 0.9},  # 0.0005 per step is 0.05 times the rate of 0.01
        "lookahead": {"sync_period": 4, "slow_step_size": 0.4},
    }
    assert loaded["lr_scheduler"] == {
        "type": "CosineAnnealingWarmRestarts",
        "args": {"T_0": 3, "T_mult": 2, "eta_min": 0.001},
        "interval": "epoch",
        "warmup": 2,
    }


def test_one_warning_names_what_does_not_act(load, caplog):
    load(IMAGES)
    (record,) = caplog.records
    assert (record.levelno, record.name.partition(".")[0]) == (logging.WARNING, "config")
    text = record.getMessage()
    for key in (
        "others.predictions_batch_size",
        "others.enable_XLA_compilation",
        "others.save_children_weights",
        "others.save_children_models",
        "dataset.inference_batch_size",
        "dataset.val_test_batch_size",
        "dataset.normalize",
        "dataset.rescale",
    ):
        assert text.count(f"{key}: ") == 1
    assert "train_strategy" not in text


def test_a_run_without_such_keys_is_read_without_naming_any(load, caplog):
    load(SERIES | {"training_hyperparameters": {"epochs": 2, "learning_rate": 0.1}})
    assert "Keys" not in caplog.records[0].getMessage()


@pytest.mark.parametrize("strategy", ["TPU", "multi-GPU"])
def test_devices_that_cannot_be_used_so_are_named(load, caplog, strategy):
    assert "n_gpu" not in load(changed(SERIES, "others.train_strategy", strategy))
    assert "others.train_strategy: " in caplog.records[0].getMessage()


def test_a_run_of_series(load):
    loaded = load(SERIES)
    args = {"path": "series", "normalize": "variable", "rescale": True, "batch_size": 8}
    assert loaded["data_loader"]["args"] == {**args, "split": "train", "validation_split": 0.25}
    assert loaded["test_loader"]["args"] == {**args, "split": "test", "is_training": False}
    assert loaded["search"]["strategy"]["args"]["operators"] == ["identity", "3 dconv", "3 conv", "gru"]
    decay = {"weight_decay": 0.001, "decoupled_weight_decay": True}
    assert loaded["optimizer"] == {"type": "RAdam", "args": {"lr": 0.01, **decay}}
    assert loaded["lr_scheduler"]["args"] == {"eta_min": 0.0001}


def test_a_run_of_masks(load):
    loaded = load(changed(MASKS, "dataset.class_labels_remapping", {"7": 0, "9": 1}))
    assert loaded["arch"]["type"] == "CellNetSegmenter"
    assert loaded["trainer"]["monitor"] == "max val_miou"
    splits = {name: loaded[name]["args"] for name in ("train_loader", "valid_loader", "test_loader")}
    assert [args["split"] for args in splits.values()] == ["train", "val", "test"]
    for args in splits.values():
        assert (args["folder"], args["resize"], args["num_classes"]) == ("masks", [16, 24], 2)
        assert (args["ignore_index"], args["label_map"]) == (255, {"7": 0, "9": 1})
    assert [args.get("flip_hor") for args in splits.values()] == [0.5, None, None]


def test_cityscapes_tests_on_its_validation_data(load):
    loaded = load(STREETS)
    assert loaded["data_loader"]["type"] == "CityscapesDataLoader"
    assert loaded["test_loader"]["args"]["split"] == "val"


@pytest.mark.parametrize(
    ("text", "kind", "args"),
    [
        ("adamW", "AdamW", {"lr": 0.01, "weight_decay": 0.05}),
        ("adam", "Adam", {"lr": 0.01, "weight_decay": 0.001}),
        ("SGD: 0.8 momentum", "SGD", {"lr": 0.01, "weight_decay": 0.001, "momentum": 0.8}),
        ("SGDW", "SGDW", {"lr": 0.01, "weight_decay": 0.05, "momentum": 0.0}),
        ("radam", "RAdam", {"lr": 0.01, "weight_decay": 0.0005, "decoupled_weight_decay": True}),
    ],
)
def test_every_optimizer(load, text, kind, args):
    loaded = load(changed(IMAGES, "training_hyperparameters.optimizer", {"type": text}))
    assert loaded["optimizer"] == {"type": kind, "args": args}
    assert "lr_scheduler" not in loaded


def test_a_weight_decay_of_null_is_none(load):
    assert (
        load(changed(IMAGES, "training_hyperparameters.weight_decay", None))["optimizer"]["args"]["weight_decay"] == 0
    )


@pytest.mark.parametrize(("units", "members"), [(1, 2), (2, 2), (20, 20), (21, 20)])
def test_the_number_of_predicting_networks_is_one_that_is_possible(load, caplog, units, members):
    path = "others.accuracy_predictor_ensemble_units"
    assert load(changed(IMAGES, path, units))["search"]["strategy"]["args"]["members"] == members
    assert (f"{path}: {units} is read as {members}" in caplog.text) == (units != members)


def test_training_and_evaluation_have_one_batch_size_if_none_is_named(load):
    loaded = load(changed(SERIES, "dataset.batch_size", ...))
    assert [loaded[name]["args"]["batch_size"] for name in ("data_loader", "test_loader")] == [128, 128]


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        ({"type": "image_classification", "name": "cifar10"}, '"cifar10" has no validation data'),
        ({"type": "image_segmentation", "name": "Cityscapes"}, '"Cityscapes" is tested on its validation data'),
        ({"type": "time_series_classification", "path": "all.npz"}, '"all.npz" is one file, without validation data'),
        ({"type": "time_series_classification", "path": "all.ts"}, '"all.ts" is one file, without validation data'),
    ],
)
def test_data_without_validation_data_of_its_own_needs_a_part_for_it(load, dataset, reason):
    run = {**SERIES, "search_space": {"blocks": 1}, "dataset": dataset}
    with pytest.raises(ConfigError, match=rf"run\.json: dataset\.validation_size: null, and {reason}\. Add a fraction"):
        load(run)
    assert "data_loader" in load({**run, "dataset": dataset | {"validation_size": 0.2}})


@pytest.mark.parametrize(
    ("run", "key", "is_named"),
    [
        (IMAGES, ("dataset.ignore_class", 255), True),
        (SERIES, ("dataset.ignore_class", 0), True),
        (STREETS, ("dataset.ignore_class", 255), True),
        (MASKS, ("dataset.ignore_class", 255), False),
        (MASKS, ("dataset.val_test_batch_size", 2), False),
        (SERIES, ("dataset.val_test_batch_size", 2), True),
        (SERIES, ("dataset.val_test_batch_size", 8), False),
        (SERIES, ("others.save_children_weights", True), True),
        (STREETS, ("search_strategy.max_exploration_children", 4), True),
        (IMAGES, ("search_strategy.max_exploration_children", 4), False),
    ],
)  # fmt: skip
def test_a_key_that_acts_on_other_data_alone_is_named(load, caplog, run, key, is_named):
    load(changed(run, *key))
    assert (f"{key[0]}: " in caplog.records[0].getMessage()) == is_named


def test_a_schedule_that_cannot_be_ours_is_rounded_and_named(load, caplog):
    path = "training_hyperparameters.optimizer.scheduler"
    loaded = load(changed(IMAGES, path, "cdr: 2.5 period, 1.7 t_mul, 0.9 m_mul"))
    assert loaded["lr_scheduler"]["args"] == {"T_0": 2, "T_mult": 2, "eta_min": 0.0}
    assert f"{path}: the period 2.5 is read as 2" in caplog.records[0].getMessage()
    assert "the m_mul 0.9 is left out" in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("search_space.block", 5, r'run\.json: search_space\.block: unknown key "block"\. Did you mean "blocks"\?'),
        ("search_spaces", {}, r'search_spaces: unknown key .* Did you mean "search_space"\?'),
        ("search_space.blocks", 0, r"search_space\.blocks: 0 must be"),
        ("search_space.blocks", 13, r"search_space\.blocks: 13 must be"),
        ("search_space.lookback_depth", 9, r"search_space\.lookback_depth: 9 must be"),
        ("training_hyperparameters.weight_decay", -1, r"training_hyperparameters\.weight_decay: -1"),
        ("search_space.operators", ["3x3 con"], r'operators\.0: "3x3 con" .* Did you mean "3x3 conv"\?'),
        ("search_strategy.score_metric", "f1", "search_strategy.score_metric: .*f1_score"),
        ("search_strategy.additional_pareto_objectives", [], "a front needs a second objective"),
        ("training_hyperparameters.epochs", ..., 'training_hyperparameters.epochs: missing. Add "epochs"'),
        ("training_hyperparameters.optimizer.type", "adamww", 'optimizer.type: .* Did you mean "adamw"'),
        ("training_hyperparameters.optimizer.type", "SGD: x momentum", r'"x momentum" must be .*sgd: 0 momentum'),
        ("training_hyperparameters.optimizer.type", "SGDW: 9 momentum", "momentum must be from 0 to 0.9999"),
        ("training_hyperparameters.optimizer.scheduler", "cdr: 1e999 period", '"1e999 period" must be a number'),
        ("training_hyperparameters.optimizer.scheduler", "cdr: 0 period", "period must be from 1 to 10000"),
        ("training_hyperparameters.optimizer.scheduler", "cd: 7 alpha", "alpha must be from 0 to 1"),
        ("training_hyperparameters.optimizer.scheduler", "cdr: 3 perod", 'unknown term "perod".* "period"'),
        ("dataset", ..., "dataset: missing"),
        ("dataset.path", ..., "dataset.name: unknown data set .* Or name a folder as path"),
        ("dataset.path", "all.npz", "images in one array file are not read"),
        ("dataset.class_labels_remapping", {"a": 0, "b": 2}, "must be numbered 0, 1, 2"),
    ],
)
def test_what_is_wrong_in_a_run_is_named_as_it_is_there(load, path, value, message):
    with pytest.raises(ConfigError, match=message):
        load(changed(IMAGES, path, value))


def test_a_wrong_number_of_classes_names_the_data(load):
    config = load(changed(IMAGES, "dataset.classes_count", 7))
    message = r"^data_loader: its data has num_classes 5, and arch.args.num_classes is 7\. Both must agree"
    with pytest.raises(ConfigError, match=message):
        read_data_spec(config, SimpleNamespace(num_classes=5))


def test_all_faults_are_found_at_once(load):
    run = changed(changed(IMAGES, "search_space.operators", ["x"]), "dataset.path", "all.npz")
    with pytest.raises(ConfigError) as raised:
        load(run)
    assert len(str(raised.value).splitlines()) == 3


def test_sections_of_ours_change_a_run(load, tmp_path):
    loaded = load(IMAGES | {"name": "mine", "search": {"retrain": None}, "trainer": {"epochs": 3}})
    assert (loaded["name"], loaded["search"]["retrain"]) == ("mine", None)
    assert (loaded["trainer"]["epochs"], loaded["trainer"]["monitor"]) == (3, "max val_f1")
    (tmp_path / "cell.json").write_text(
        json.dumps({"$extends": "run.json", "arch": {"args": {"cell": "[(-1, 'identity', -1, '3x3 conv')]"}}})
    )
    assert load_config(tmp_path / "cell.json")["arch"]["args"]["filters"] == 8


def test_overrides_name_our_keys(load):
    assert load(IMAGES, "search.strategy.args.blocks=2")["search"]["strategy"]["args"]["blocks"] == 2
    with pytest.raises(ConfigError, match=r"search_space is a section of POPNASv3, .* in search\.strategy\.args;"):
        load(IMAGES, "search_space.blocks=2")


@pytest.mark.parametrize("flags", [[], ["--check"]])
def test_train_names_the_command_of_a_search(tmp_path, monkeypatch, capsys, flags):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a run.json").write_text(json.dumps(IMAGES))
    assert cli.run_command(train.main, train.parser(), ["-c", "a run.json", *flags]) == 2
    assert "Run: python -m search -c 'a run.json', or python -m search" in capsys.readouterr().err


def test_the_number_of_predicting_networks_reaches_the_worker(tmp_path):
    seen = []

    class Watched(World):
        def estimate(self, payload):
            seen.append(payload["members"])
            return super().estimate(payload)

    simulation(tmp_path, Watched(), args={"members": 3}).run()
    assert set(seen) == {3}


def write_data(folder):
    for split, count in (("keras_training", 16), ("keras_test", 2)):
        write_images(folder / "photos" / split, count)
    (folder / "series").mkdir()
    write_series(folder / "series/Toy_TRAIN.ts", 24)
    write_series(folder / "series/Toy_TEST.ts", 6)
    generator = np.random.default_rng(1)
    for split, count in (("train", 8), ("val", 4), ("test", 2)):
        for number in range(count):
            mask = np.zeros((16, 24), np.uint8)
            mask[4:12, 4 + number : 12 + number] = 1
            mask[0] = 255
            image = 120 * (mask[..., None] == 1) + generator.integers(0, 60, (16, 24, 3))
            for kind, array in (("data", image.astype(np.uint8)), ("labels", mask)):
                (folder / "masks" / kind / split).mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(folder / "masks" / kind / split / f"{number}.png"), array)


@pytest.mark.parametrize(
    "run", slow_unless(lambda run: run is SERIES, [IMAGES, SERIES, MASKS]), ids=["images", "series", "masks"]
)
def test_a_run_is_checked_and_searched(tmp_path, monkeypatch, capsys, run):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    small = changed(changed(run, "search_space.blocks", 1), "dataset.samples", 16)
    small["search_strategy"]["additional_pareto_objectives"] = ["params"]  # a latency takes seconds to measure
    (tmp_path / "run.json").write_text(json.dumps(small | {"trainer": {"tensorboard": False}}))
    assert main(["-c", "run.json", "--check"]) == 0
    assert "The space is good." in capsys.readouterr().out
    assert main(["-c", "run.json", "--test-run", "3,16,8,2"]) == 0
    (best,) = tmp_path.glob("saved/run_test_run/*/best/config.json")
    assert json.loads(best.read_text())["arch"]["type"].startswith("CellNet")
