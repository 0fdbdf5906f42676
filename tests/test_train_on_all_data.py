"""Training on training and validation data together: which samples, what is refused, exact resume, and the search."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import inference
import test as test_command
import train
from base.callback import Callback
from build import build_loaders
from check import check_run
from data_loader import SECTIONS
from search.cli.listing import best_text
from search.report import write_report
from search.study.folders import ONNX
from search.study.settings import build_study_parts
from search.worker.launch import open_study
from tests.support.loader_cases import CASES, COUNT, class_folders, pairs_list, random_image, random_mask, save, voc
from tests.support.simulated_study import Simulation, World
from utils.checkpoint_file import read_saved
from utils.errors import ConfigError
from utils.files import read_json_object

MERGED = "train+valid"
LOADERS = SECTIONS["data_loader"].entries


def config_of(loader, args, valid=None, **more):
    sections = {"data_loader": {"type": loader, "args": args}}
    if valid is not None:
        sections = {"train_loader": sections["data_loader"], "valid_loader": {"type": loader, "args": valid}}
    return {
        "name": "all",
        "arch": {"type": "ConvNet", "args": {"channels": [4]}},
        **sections,
        "optimizer": {"type": "SGD", "args": {"lr": 0.1}},
        "loss": "ce_loss",
        "trainer": {"epochs": 2, "train_on": MERGED, "verbosity": 0, "tensorboard": False},
        **more,
    }


def second_half(loader, folder, args):
    """Arguments of validation data of the same kind, COUNT or COUNT + 1 other samples."""
    if loader == "SegmentationDataLoader":
        for number in range(COUNT):
            save(folder / f"other_{number}.png", random_image(50 + number))
            save(folder / f"other_{number}_mask.png", random_mask(50 + number, [0, 1, 255]))
        lines = [f"other_{number}.png, other_{number}_mask.png" for number in range(COUNT)]
        (folder / "valid.txt").write_text("\n".join(lines))
        return {"pairs_file": str(folder / "valid.txt"), "num_classes": 2, "ignore_index": 255}
    names = ("folder", "path", "data_dir", "num_classes", "mean", "std", "resize", "normalize")
    return {name: args[name] for name in names if name in args}


@pytest.mark.parametrize("loader", [name for name in LOADERS if name != "TorchvisionSegmentationDataLoader"])
def test_samples_of_both_are_trained_on_with_the_augmentation_of_the_training(tmp_path, loader):
    args = CASES[loader](tmp_path) | {"batch_size": 4}
    valid = second_half(loader, tmp_path, args) | {"batch_size": 2}
    config = config_of(loader, args, valid)
    alone, validation = build_loaders(config | {"trainer": {"epochs": 1}})
    both, none = build_loaders(config)
    assert none is None
    assert both.num_samples == alone.num_samples + validation.num_samples
    assert both.batch_size == 4
    assert both.is_training
    batches = list(both)
    assert {len(batch) for batch in batches} == {2}, "of evaluation they have names, too"
    assert sum(len(batch[1]) for batch in batches) == both.num_samples
    assert both.class_counts() == [
        sum(pair) for pair in zip(alone.class_counts(), validation.class_counts(), strict=True)
    ]
    plain = next(iter(validation))[0][0]
    inputs = torch.cat([torch.nan_to_num(batch[0]) for batch in batches])
    assert not any(torch.equal(each, torch.nan_to_num(plain)) for each in inputs), "it is augmented"
    assert both.identity() not in (alone.identity(), validation.identity())


def test_classes_are_counted_before_they_are_mixed(tmp_path):
    args = class_folders(tmp_path) | {"batch_size": 4, "resize": [8, 8], "mixup": 0.4}
    both, _ = build_loaders(config_of("ImageClassificationDataLoader", args, second_half("", tmp_path, args)))
    assert next(iter(both))[1].is_floating_point(), "training batches are mixed"
    left = (COUNT + 2) // 2
    assert both.class_counts() == [2 * left, 2 * (COUNT + 1 - left)]


@pytest.mark.parametrize(
    "hold_out", [{"validation_split": 3}, {"validation_split": 0.4}, {"folds": {"fold": 0, "of": 3}}]
)
@pytest.mark.parametrize("loader", LOADERS)
def test_what_is_held_out_is_trained_on(tmp_path, loader, hold_out):
    args = CASES[loader](tmp_path) | {"batch_size": 4}
    both, none = build_loaders(config_of(loader, args | hold_out))
    whole, _ = build_loaders(config_of(loader, args) | {"trainer": {"epochs": 1}})
    assert none is None
    assert both.identity() == whole.identity()
    assert both.learned == whole.learned, "statistics are those of all samples"


def test_folds_of_two_sections_are_one_data_set(tmp_path):
    folds = {"folds": {"fold": 1, "of": 3}}
    args = pairs_list(tmp_path) | {"batch_size": 2} | folds
    both, _ = build_loaders(config_of("SegmentationDataLoader", args, args))
    assert both.num_samples == COUNT


def test_the_same_samples_are_not_trained_on_twice(tmp_path):
    args = pairs_list(tmp_path) | {"batch_size": 2}
    with pytest.raises(ConfigError, match="samples of the validation data are training data, too"):
        build_loaders(config_of("SegmentationDataLoader", args, args))
    with pytest.raises(ConfigError, match="and 2 samples of the validation data are training data, too"):
        build_loaders(config_of("SegmentationDataLoader", args, {**args, "samples": 2}))
    args = voc(tmp_path) | {"batch_size": 2}
    with pytest.raises(ConfigError, match="names no other samples than train_loader"):
        build_loaders(config_of("TorchvisionSegmentationDataLoader", args, args))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data_loader": {"type": "TimeSeriesDataLoader", "args": {"path": "x"}}},
            "trainer.train_on: .* no validation",
        ),
        ({"trainer": {"monitor": "max val_loss"}}, 'trainer.monitor: "max val_loss": .* no validation .* Write "off"'),
        ({"lr_scheduler": "ReduceLROnPlateau"}, r'lr_scheduler: "ReduceLROnPlateau" follows results of validation'),
        ({"trainer": {"train_on": "all"}}, r'trainer.train_on: "all" must be one of "train", "train\+valid"'),
    ],
)
def test_what_needs_a_validation_is_refused(changes, message):
    config = config_of("TimeSeriesDataLoader", {"path": "x", "validation_split": 3})
    trainer = config["trainer"] | changes.pop("trainer", {})
    with pytest.raises(ConfigError, match=message):
        train.check_config(config | changes | {"trainer": trainer})


def test_loaders_of_two_kinds_are_refused():
    config = config_of("TimeSeriesDataLoader", {"path": "x"}, {"path": "y"})
    config["valid_loader"]["type"] = "ImageClassificationDataLoader"
    with pytest.raises(ConfigError, match=r'valid_loader.type: "ImageClassificationDataLoader", and train_loader is'):
        train.check_config(config)


class StopsAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer, report):
        if trainer.global_step == self.step:
            trainer.request_stop("the test")


@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_run_that_is_stopped_and_resumed_ends_in_the_same_bytes(tmp_path, step):
    args = class_folders(tmp_path / "data") | {"batch_size": 4, "resize": [8, 8]}
    config = config_of("ImageClassificationDataLoader", args, {"folder": args["folder"], "resize": [8, 8]})
    config["trainer"] |= {"ema": 0.9, "save_every_steps": 1}
    ended = [tmp_path / "whole", tmp_path / "stopped"]
    train.train(config, run_folder=ended[0])
    train.train(config, [StopsAt(step)], run_folder=ended[1])
    train.train(None, resume=str(ended[1]))
    one, other = (read_saved(folder)[1] for folder in ended)
    assert one["epoch"] == other["epoch"] == 2
    assert one["global_step"] == 8, "four batches of sixteen images"
    assert not list(tmp_path.glob("*/model_best.pth")), "nothing says which epoch is best"
    for name, weights in one["ema"]["state_dict"].items():
        assert torch.equal(weights, other["ema"]["state_dict"][name])


def test_results_of_validation_data_that_was_trained_on_are_refused(tmp_path):
    args = class_folders(tmp_path / "data") | {"batch_size": 4, "resize": [8, 8], "validation_split": 4}
    config = config_of("ImageClassificationDataLoader", args)
    train.train(config, run_folder=tmp_path / "run")
    content = read_saved(tmp_path / "run")[1]
    with pytest.raises(
        ConfigError, match=r"--split valid: the run was trained on it \(trainer.train_on train\+valid\)"
    ):
        test_command.test(content["config"], content["state_dict"], split="valid")


def search_config(folder, strategy, retrain):
    args = class_folders(folder / "data") | {"batch_size": 4, "resize": [8, 8]}
    shutil.copytree(folder / "data/val", folder / "data/test")
    config = config_of("ImageClassificationDataLoader", args, {"folder": args["folder"], "resize": [8, 8]})
    config["test_loader"] = {
        "type": "ImageClassificationDataLoader",
        "args": {"folder": args["folder"], "split": "test", "resize": [8, 8]},
    }
    config["metrics"] = ["accuracy"]
    config["trainer"] = {"epochs": 1, "tensorboard": False, "save_dir": str(folder), "monitor": "max val_accuracy"}
    config["search"] = {"objectives": ["max val_accuracy"], "strategy": strategy, "retrain": retrain}
    return config


class TestData:
    """Test images that cannot be read until the last epoch of the last training is in the journal."""

    __test__ = False

    def __init__(self, folder, epochs):
        self.hidden = {path: path.read_bytes() for path in folder.rglob("*.png")}
        self.epochs = epochs
        for path in self.hidden:
            path.write_bytes(b"no image")

    def watch(self, event, _state):
        if event.name == "retrain.report" and event.data["epoch"] == self.epochs:
            for path, content in self.hidden.items():
                path.write_bytes(content)


@pytest.mark.slow
def test_a_search_tests_once_and_leaves_a_network_for_other_programs(tmp_path, monkeypatch, capsys):
    cells = {"blocks": 1, "operators": ["identity", "3x3 conv"], "lookbacks": 1, "max_first": 1, "pnas_mode": True}
    selection = {"top": 2, "params": [100, 9000], "motifs": [1, 2], "normal_cells": [1], "filters": [2, 4]}
    strategy = {"type": "POPNAS", "args": {**cells, "selection": selection}}
    config = search_config(tmp_path, strategy, {"epochs": 2, "train_on": MERGED, "changes": {"trainer.ema": 0.5}})
    config["arch"] = {"type": "CellNet", "args": {"motifs": 2, "normal_cells": 1, "filters": 2}}
    study = open_study(config)
    study.watchers = [TestData(tmp_path / "data/test", 2).watch]
    record = study.run()
    shapes = {
        (drawn["arch.args.motifs"], drawn["arch.args.filters"])
        for each in record.candidates
        if "arch.args.motifs" in (drawn := dict(each.drawn))
    }
    assert shapes == {(2, 2), (1, 4), (2, 4)}
    (run,) = record.retrained
    assert run.reason == ""
    assert run.status == "completed"
    assert record.candidates[run.candidate].notes["chosen for"] == "selection"
    assert [row["epoch"] for row in run.reports] == [1, 2]
    assert not any(name.startswith("val_") for row in run.reports for name in row)
    assert 0 <= run.test["test_accuracy"] <= 1
    assert run.onnx["largest_difference"] < 1e-3

    best = Path(record.folder) / "best"
    stored, content = read_json_object(best / "config.json", ValueError), read_saved(best)[1]
    changed = {"epochs": 2, "train_on": MERGED, "monitor": "off", "ema": 0.5, "early_stop": None}
    assert stored["trainer"] == config["trainer"] | changed
    assert content["epoch"] == 2
    assert read_json_object(best / "result.json", ValueError)["retrained"][0]["onnx"] == run.onnx

    assert f"python inference.py --model {best / ONNX} " in best_text(record)
    monkeypatch.chdir(record.folder)
    test_command.main(test_command.parser().parse_args(["--resume", "./best"]))
    assert f"accuracy {run.test['test_accuracy']:.4f}" in capsys.readouterr().out.replace("  ", " ")
    source = str(tmp_path / "data/test/left")
    inference.main(inference.parser().parse_args(["--model", f"best/{ONNX}", "--source", source, "--benchmark"]))
    assert "model " in capsys.readouterr().out
    assert not list(Path().glob("*.csv")), "a benchmark writes no table that was not asked for"
    inference.main(
        inference.parser().parse_args(["--model", f"best/{ONNX}", "--source", source, "--output", "table.csv"])
    )
    exported = np.genfromtxt("table.csv", delimiter=",", skip_header=1)[:, 3:]
    inference.main(inference.parser().parse_args(["--resume", "./best", "--source", source, "--output", "other.csv"]))
    assert np.allclose(exported, np.genfromtxt("other.csv", delimiter=",", skip_header=1)[:, 3:], atol=1e-4)


@pytest.mark.parametrize("sampler", ["random", "gp"])
def test_every_strategy_may_train_its_winner_on_all_data(tmp_path, sampler):
    config = search_config(tmp_path, None, {"epochs": 2, "train_on": MERGED, "onnx": False})
    config["optimizer"]["args"]["lr"] = {"$uniform": [0.01, 0.1]}
    config["search"] |= {"sampler": sampler, "num_samples": 2}
    study = open_study(config)
    study.watchers = [TestData(tmp_path / "data/test", 2).watch]
    record = study.run()
    (run,) = record.retrained
    assert run.reason == ""
    assert "test.py --resume" in best_text(record)
    record.config.pop("test_loader")
    assert "test.py --resume" not in best_text(record), "of its validation data it was trained on"
    assert (run.status, list(run.test)) == ("completed", ["test_loss", "test_accuracy"])
    assert run.candidate == study.ranked()[0]
    assert not (Path(study.folder) / "best" / ONNX).exists()


def test_what_a_retraining_cannot_do_is_found_before_the_search(tmp_path):
    config = search_config(tmp_path, None, {"train_on": MERGED})
    config["lr_scheduler"] = {"type": "ReduceLROnPlateau"}
    with pytest.raises(ConfigError, match=r'search.retrain: lr_scheduler: "ReduceLROnPlateau" follows results'):
        open_study(config)
    config["search"]["retrain"]["changes"] = {"lr_scheduler": None, "arch.args.chanels": [3]}
    with pytest.raises(ConfigError, match=r"search.retrain: arch.args.chanels: unknown argument"):
        open_study(config)
    del config["valid_loader"], config["search"]["retrain"]["changes"], config["lr_scheduler"]
    config["search"]["objectives"], config["trainer"]["monitor"] = ["min loss"], "off"
    with pytest.raises(ConfigError, match=r"search.retrain: trainer.train_on: .* there is no validation data"):
        open_study(config)


@pytest.mark.parametrize("kills", [(), range(2, 40, 3)])
def test_of_supernets_the_first_network_wins_if_all_learn_from_all_data(tmp_path, kills):
    class Unvalidated(World):
        def row(self, run, epoch, epochs):
            row = super().row(run, epoch, epochs)
            return {"epoch": epoch, "loss": row["val_loss"]} if run.startswith("retrained") else row

    strategy = {
        "type": "AutoDeepLab",
        "args": {"supernet": {"arch": "Supernet", "trainer": {"type": "BilevelTrainer"}}},
    }
    config = {
        "name": "s",
        "arch": {"type": "AutoDeepLab", "args": {}},
        "trainer": {"epochs": 3, "monitor": "max val_miou", "early_stop": 2},
        "search": {
            "objectives": ["max val_miou"],
            "strategy": strategy,
            "num_samples": 3,
            "retrain": {"top": 2, "epochs": 3, "train_on": MERGED},
        },
    }
    simulated = Simulation(tmp_path, lambda: build_study_parts(config), Unvalidated())
    study = simulated.run(kills=list(kills))
    runs = list(study.state.retrained.values())
    assert {run.status for run in runs} == {"completed"}
    assert study.strategy.winner() == next(iter(study.strategy.strategies[0].finalists())) == runs[0].candidate
    retraining = study.parts.retrained_config(study.strategy.config_of(runs[0].candidate), 5)
    assert retraining["trainer"] == {"epochs": 3, "train_on": MERGED, "monitor": "off", "early_stop": None}
    record = study.record()
    assert "Retrained" in best_text(record)
    write_report(record, tmp_path / "report.html")
    assert "retrained on all data but this" in (tmp_path / "report.html").read_text()


def test_a_study_that_continues_with_other_data_trains_its_winner_anew(tmp_path):
    def parts_with(**retrain):
        search = {"objectives": ["max val_miou"], "num_samples": 2, "retrain": {"top": 1, **retrain}}
        return lambda: build_study_parts({"name": "s", "arch": "Net", "trainer": {"epochs": 2}, "search": search})

    simulated = Simulation(tmp_path, parts_with(), World())
    assert len(simulated.run().record().retrained) == 1
    for retrain in ({"train_on": MERGED}, {"changes": {"arch": "Other"}}, {"changes": {"arch": "Third"}}):
        simulated.build_parts = parts_with(**retrain)
        (run,) = simulated.run().record().retrained
        assert run.status == "completed"
        assert run.folder.startswith("retrained/candidate")
    assert len(simulated.run().state.retrained) == 4
    simulated.build_parts = parts_with()
    (run,) = simulated.run().record().retrained
    assert run.folder.endswith("_seed0")


def test_a_check_counts_the_steps_of_both_and_finds_that_they_are_the_same(tmp_path):
    args = class_folders(tmp_path / "data") | {"batch_size": 4, "resize": [8, 8]}
    config = config_of("ImageClassificationDataLoader", args, {"folder": args["folder"], "resize": [8, 8]})
    config["trainer"]["save_dir"] = str(tmp_path)
    report = check_run(config)
    assert not any(finding.is_fault for finding in report.findings)
    assert " of 4 steps" in report.text(120), "sixteen images in batches of four"
    config["valid_loader"]["args"]["split"] = "train"
    faults = [finding.message for finding in check_run(config).findings if finding.is_fault]
    assert len(faults) == 1
    assert "samples of the validation data are training data, too" in faults[0]


def test_a_check_weighs_classes_by_the_labels_of_both(tmp_path):
    args = class_folders(tmp_path / "data") | {"batch_size": 4, "resize": [8, 8], "classes": ["left", "right"]}
    shutil.rmtree(tmp_path / "data/train/right")
    valid = {name: args[name] for name in ("folder", "resize", "classes")}
    config = config_of("ImageClassificationDataLoader", args, valid)
    config["loss"] = {"type": "ce_loss", "args": {"weight": "balanced"}}
    config["trainer"]["save_dir"] = str(tmp_path)
    assert not any(finding.is_fault for finding in check_run(config).findings), "the validation data shows class 1"
    config["trainer"]["train_on"] = "train"
    (fault,) = [finding.message for finding in check_run(config).findings if finding.is_fault]
    assert "shows nothing of class 1" in fault
