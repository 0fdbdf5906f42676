"""The command as a user types it: one JSON file in, a run folder out, and every way to go on from it."""

import copy
import errno
import json
import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import inference
import test as test_command
from base.base_trainer import TrainResult
from build import build_loader, build_loaders, build_model, build_preprocessing, build_training
from config import DataSpec, load_config, load_plugins
from config.cli import run_command
from train import for_overfit, main, parser, summary_text, train, try_out
from trainer.checkpoints.resume import lock_run_folder, resolve_start
from trainer.runtime.devices import unwrap
from utils import plugins
from utils.checkpoint_file import read_checkpoint
from utils.errors import CheckpointError, ConfigError, DataError

ROOT = Path(__file__).resolve().parent.parent
PEOPLE = ROOT / "data/people"


@pytest.fixture
def small(tmp_path):
    """A people config that trains in a second: a narrow net, few small images."""
    loader = {"type": "SegmentationDataLoader", "args": {"num_classes": 2, "resize": [32, 24], "batch_size": 4}}
    train_args = {"pairs_file": str(PEOPLE / "train_pairs.txt"), "samples": 10, "flip_hor": 0.5, "noise_std": 3}
    valid_args = {"pairs_file": str(PEOPLE / "valid_pairs.txt"), "samples": 5, "is_training": False, "shuffle": False}
    return {
        "name": "small",
        "seed": 1,
        "n_gpu": 0,
        "arch": {"type": "UNet", "args": {"channels": [4, 8], "dropout": 0.2}},
        "train_loader": {**loader, "args": {**loader["args"], **train_args}},
        "valid_loader": {**loader, "args": {**loader["args"], **valid_args}},
        "optimizer": {"type": "AdamW", "args": {"lr": 0.01}},
        "loss": [{"type": "ce_loss", "weight": 1.0}, {"type": "dice_loss", "weight": 0.5}],
        "metrics": ["miou", "class_iou"],
        "lr_scheduler": {"type": "OneCycleLR", "args": {"max_lr": 0.01}},
        "trainer": {"epochs": 2, "save_dir": str(tmp_path / "saved"), "monitor": "max val_miou", "verbosity": 0},
    }


def changed(config, **values):
    """The config with dotted paths set: changed(config, trainer__epochs=3)."""
    result = copy.deepcopy(config)
    for path, value in values.items():
        *parents, last = path.split("__")
        place = result
        for part in parents:
            place = place[part]
        place[last] = value
    return result


def files(folder):
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*")}


def test_a_run_leaves_everything_that_the_design_lists(small):
    result = train(small)
    there = files(result.run_folder)
    assert {"config.json", "environment.json", "metrics.csv", "result.json", "checkpoint-last.pth"} <= there
    assert {"model_best.pth"} <= there
    assert any("tfevents" in name for name in there)
    saved = json.loads((result.run_folder / "result.json").read_text())
    assert (saved["best"], saved["checkpoint"]) == (result.best, "model_best.pth")
    assert result.epochs == 2
    assert list(result.history[0]) == [
        *["epoch", "step", "lr", "loss", "miou", "iou_class_0", "iou_class_1"],
        *["val_loss", "val_miou", "val_iou_class_0", "val_iou_class_1"],
    ]
    resolved = json.loads((result.run_folder / "config.json").read_text())
    assert resolved["arch"]["args"] == {"channels": [4, 8], "dropout": 0.2, "num_classes": 2, "in_channels": 3}
    checkpoint = torch.load(result.checkpoint, weights_only=True)
    assert checkpoint["config"] == resolved
    keys = {"arch", "epoch", "state_dict", "optimizer", "monitor_best", "config", "format_version", "global_step"}
    assert keys | {"lr_scheduler", "scaler", "ema", "rng", "loop", "callbacks", "history", "versions"} <= set(
        checkpoint
    )


def test_two_runs_of_the_same_config_are_the_same_and_share_no_folder(small):
    one, other = train(small), train(small)
    assert one.run_folder != other.run_folder
    assert one.history == other.history
    assert train(changed(small, seed=2)).history != one.history


def test_auto_goes_on_where_a_run_died_and_returns_what_is_finished(small):
    whole = train(changed(small, name="whole"), resume="auto")
    result = train(small, resume="auto")
    for name in ("checkpoint-last.pth", "result.json"):
        (result.run_folder / name).unlink()
    shutil.copy(result.run_folder / "model_best.pth", result.run_folder / "checkpoint-last.pth")
    again = train(changed(small, train_loader__args__n_workers=1), resume="auto")
    assert again.run_folder == result.run_folder
    assert again.history == whole.history
    assert (again.run_folder / "metrics.csv").read_bytes() == (whole.run_folder / "metrics.csv").read_bytes()
    finished = train(small, resume="auto")
    assert (finished.run_folder, finished.history) == (result.run_folder, whole.history)
    assert finished.checkpoint == result.run_folder / "model_best.pth"


def test_auto_starts_anew_when_the_config_has_changed_and_last_refuses(small):
    first = train(small)
    other = changed(small, optimizer__args__lr=0.02)
    with pytest.raises(CheckpointError, match=r"differs at optimizer\.args\.lr"):
        train(copy.deepcopy(other), resume="last")
    assert train(other, resume="auto").run_folder != first.run_folder


def test_a_checkpoint_alone_goes_on_with_its_own_config(small):
    first = train(small)
    result = train(None, resume=str(first.run_folder))
    assert result.run_folder == first.run_folder
    forked = train(None, resume=str(first.run_folder / "model_best.pth"))
    assert forked.run_folder != first.run_folder
    assert forked.history[: first.best["epoch"]] == first.history[: first.best["epoch"]]


def test_a_fork_of_a_checkpoint_alone_is_known_again_by_its_config(small):
    first = train(copy.deepcopy(small))
    forked = train(None, resume=str(first.run_folder / "model_best.pth"))
    again = train(copy.deepcopy(small), resume="auto")
    assert again.run_folder == forked.run_folder


def test_a_run_goes_on_in_one_process_at_a_time(small):
    folder = train(small).run_folder
    program = (
        "import sys; from pathlib import Path; from trainer.checkpoints.resume import lock_run_folder\n"
        "with lock_run_folder(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    with other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match=rf"process {other.pid} is training there. .* Wait for its end"):
            train(small, resume="auto")
    train(small, resume="auto")


@pytest.mark.parametrize("wanted", [True, False])
def test_the_records_say_whether_equal_runs_end_in_the_same_bytes(small, wanted):
    folder = train(changed(small, trainer__epochs=1, trainer__deterministic=wanted)).run_folder
    assert json.loads((folder / "environment.json").read_text())["deterministic"] is wanted
    log = (folder / "info.log").read_text()
    assert ("trainer.deterministic is false" in log) is not wanted
    first, second, third, fourth = (line.partition("train: ")[2] for line in log.splitlines()[:4])
    assert first == f"Run folder: {folder}"
    assert second.startswith("Device: cpu (")
    assert third.startswith("Network: ")
    assert re.fullmatch(r"Data: \d+ to train on in \d+ batches of \d+.*; inputs \d+x\d+x\d+, 2 classes\.", fourth)
    assert "are decoded and kept in memory" in log


def test_the_best_checkpoint_or_the_last_one_is_continued(small):
    config = changed(small, trainer__monitor="max val_loss", trainer__epochs=2)
    config.pop("lr_scheduler", None)
    assert train(config).best["epoch"] == 1
    assert resolve_start(config, "best").state["epoch"] == 1
    assert resolve_start(config, "last").state["epoch"] == 2


def test_a_file_system_without_locks_is_no_obstacle(small, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("utils.files.FileLock.acquire", refuse)
    assert train(small).epochs == small["trainer"]["epochs"]


def test_workers_that_outlive_their_run_do_not_hold_its_folder(small):
    folder = train(small).run_folder
    with lock_run_folder(folder):
        survivor = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        survivor.start()
    train(small, resume="auto")
    survivor.kill()
    survivor.join()


def test_more_epochs_go_on_from_a_finished_run(small):
    plain = {key: value for key, value in small.items() if key != "lr_scheduler"}
    whole = train(changed(plain, trainer__epochs=3, name="whole"))
    first = train(copy.deepcopy(plain))
    result = train(changed(plain, trainer__epochs=3), resume="last")
    assert (result.run_folder, result.epochs) == (first.run_folder, 3)
    assert result.history == whole.history


def test_more_epochs_of_a_schedule_with_a_fixed_length_are_refused(small):
    train(small)
    with pytest.raises(CheckpointError, match="built for total_steps 6, the config's for 9"):
        train(changed(small, trainer__epochs=3), resume="last")


@pytest.mark.parametrize(
    "schedule",
    [
        "poly",
        {"type": "OneCycleLR", "args": {"max_lr": 0.1}},
        [{"type": "ConstantLR", "args": {"factor": 0.1}, "moves": 1, "interval": "epoch"}, "CosineAnnealingLR"],
    ],
)
def test_more_epochs_of_a_schedule_that_says_so_continue_on_the_longer_curve(small, schedule):
    first = train(changed(small, lr_scheduler=schedule))
    with pytest.raises(CheckpointError, match=r'"on_more_epochs": "rescale" in lr_scheduler'):
        train(changed(small, lr_scheduler=schedule, trainer__epochs=4), resume="auto")
    parts = schedule if isinstance(schedule, list) else [schedule]
    said = {**({"type": parts[0]} if isinstance(parts[0], str) else parts[0]), "on_more_epochs": "rescale"}
    longer = changed(small, lr_scheduler=[said, *parts[1:]] if parts[1:] else said, trainer__epochs=4)
    result = train(longer, resume="auto")  # the repair is no change of the config: the same run continues
    assert (result.run_folder, result.epochs) == (first.run_folder, 4)
    whole = build_training(longer)
    rates = [whole.trainer.lr_scheduler.scheduler.get_last_lr()[0]]
    for _ in range(4):
        for _ in range(whole.trainer.steps_per_epoch):
            whole.trainer.lr_scheduler.after("step")
        rates.append(whole.optimizer.param_groups[0]["lr"])  # what the epoch's row says
        whole.trainer.lr_scheduler.after("epoch")
    assert [row["lr"] for row in result.history[2:]] == rates[3:]


def test_going_on_from_the_best_epoch_keeps_it_as_the_best(small):
    first = train(small)
    result = train(None, resume=str(first.run_folder / "model_best.pth"))
    assert read_checkpoint(result.run_folder / "model_best.pth")["monitor_best"] == result.best["val_miou"]


def test_the_role_of_a_loader_follows_from_its_section(small, tmp_path):
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        for kind, suffix in (("images", ".jpg"), ("masks", ".png")):
            target = tmp_path / {"images": "data", "masks": "labels"}[kind] / split
            target.mkdir(parents=True)
            for number, line in enumerate((PEOPLE / "train_pairs.txt").read_text().splitlines()[:count]):
                shutil.copy(PEOPLE / line.split(", ")[kind == "masks"], target / f"{number}{suffix}")
    arguments = {"folder": str(tmp_path), "num_classes": 2, "resize": [32, 24], "flip_hor": 0.5}
    loader = {"type": "SegmentationDataLoader", "args": arguments}
    config = {**small, **dict.fromkeys(("train_loader", "valid_loader", "test_loader"), loader)}
    loaders = [build_loader(config, split) for split in ("train", "valid", "test")]
    assert [each.num_samples for each in loaders] == [4, 2, 3]
    assert [each.is_training for each in loaders] == [True, False, False]
    few = for_overfit(config, 2)
    assert few["valid_loader"]["args"]["split"] == "train"
    with pytest.raises(ConfigError, match=r"valid_loader\.args\.is_training: true would augment"):
        train(changed(small, valid_loader__args__is_training=True))


def test_overfitting_a_loader_that_cannot_take_the_first_samples_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.plugins.loaded", {})
    loader = "from base import BaseDataLoader\nclass Whole(BaseDataLoader):\n    def __init__(self, folder: str): ...\n"
    extended = loader.replace("folder: str", "folder: str, samples: int | None = None")
    (tmp_path / "loader_without_samples.py").write_text(loader)
    (tmp_path / "loader_with_samples.py").write_text(extended)
    load_plugins([tmp_path / "loader_without_samples.py", tmp_path / "loader_with_samples.py"])
    config = {**small, "train_loader": {"type": "loader_without_samples.Whole", "args": {"folder": "x"}}}
    with pytest.raises(ConfigError, match=r"--overfit 2: train_loader\.type .*Whole has no argument samples"):
        for_overfit(config, 2)
    few = for_overfit({**config, "train_loader": {"type": "loader_with_samples.Whole", "args": {"folder": "x"}}}, 2)
    assert few["train_loader"]["args"] == few["valid_loader"]["args"] == {"folder": "x", "samples": 2}


@pytest.mark.slow
def test_an_encdec_overfits_one_sample_to_the_same_optimum_in_training_and_validation(small, tmp_path):
    chance = np.random.default_rng(0)
    mask = np.zeros((32, 24), np.uint8)
    mask[8:26, 6:17] = 1
    image = chance.integers(0, 90, (32, 24, 3)) + 90 * mask[..., None]
    cv2.imwrite(str(tmp_path / "photo.png"), image.astype(np.uint8))
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    (tmp_path / "pairs.txt").write_text("photo.png, mask.png\n")
    blocks = {"D_blocks": [[["C", 1]], [["V", 2]]], "B_blocks": [[["H", 1]]], "U_blocks": [[["O", 1]], []]}
    arch = {"type": "EncDec", "args": {**blocks, "base_channels": 4}}
    few = for_overfit(changed(small, arch=arch, train_loader__args__pairs_file=str(tmp_path / "pairs.txt")), 1)
    result = train(changed(few, trainer__epochs=60, lr_scheduler=None))
    last = result.history[-1]
    assert last["miou"] == last["val_miou"] == 1.0
    assert last["loss"] == pytest.approx(last["val_loss"], abs=0.02)


def test_a_split_beside_validation_data_is_refused(small):
    with pytest.raises(ConfigError, match=r"train_loader\.args\.validation_split: holds out samples"):
        train(changed(small, train_loader__args__validation_split=0.2))


def test_a_plateau_judges_as_the_monitor_does(small):
    plateau = {"type": "ReduceLROnPlateau", "args": {"patience": 0}}
    assert build_training(changed(small, lr_scheduler=plateau)).schedule.scheduler.mode == "max"
    with pytest.raises(ConfigError, match=r'"min" contradicts trainer\.monitor, "max val_miou"'):
        train(changed(small, lr_scheduler={"type": "ReduceLROnPlateau", "args": {"mode": "min"}}))


def test_a_split_of_one_loader_by_count_and_a_network_without_validation(small):
    section = small.pop("train_loader")
    del small["valid_loader"]
    section["args"]["validation_split"] = 3
    result = train({**small, "data_loader": section})
    assert "val_miou" in result.best
    del section["args"]["validation_split"]
    alone = {**small, "data_loader": section, "trainer": {**small["trainer"], "monitor": "off"}}
    assert train(alone).checkpoint.name == "checkpoint-last.pth"


@pytest.mark.parametrize(
    "schedule",
    [
        {"type": "CosineAnnealingLR", "interval": "step", "warmup": 500},
        [
            {"type": "ConstantLR", "moves": 30, "warmup": 5, "interval": "epoch"},
            {"type": "StepLR", "args": {"step_size": 9}, "moves": 50},
            "poly",
        ],
    ],
)
def test_a_warm_up_and_a_chain_longer_than_a_dev_run_are_tried_too(small, schedule):
    config = {**small, "lr_scheduler": schedule}
    before = copy.deepcopy(config)
    try_out(config, "cpu")
    assert config == before


def test_flags_that_try_out_a_config_need_one(small, capsys):
    folder = str(train(small).run_folder)
    for flag in (["--check"], ["--overfit", "2"], ["--fast-dev-run"]):
        assert run_command(main, parser(), ["--resume", folder, *flag]) == 2
        assert f"{flag[0]}: it tries out a config, and none is named" in capsys.readouterr().err


def test_trying_out_begins_at_the_beginning(small, tmp_path, capsys):
    (tmp_path / "small.json").write_text(json.dumps(small))
    for flag in ("--check", "--fast-dev-run"):
        arguments = ["-c", str(tmp_path / "small.json"), "--resume", "auto", flag]
        assert run_command(main, parser(), arguments) == 2
        assert f"{flag} with --resume: it tries out a config from its beginning" in capsys.readouterr().err


def test_fine_tuning_starts_from_other_weights_in_a_new_run(small, caplog):
    first = train(small)
    weights = read_checkpoint(first.checkpoint)["state_dict"]
    wider = changed(small, arch__args__channels=[4, 16], trainer__epochs=1, optimizer__args__lr=1e-9)
    del wider["lr_scheduler"]
    result = train(wider, resume=str(first.checkpoint))
    assert result.run_folder != first.run_folder
    assert result.epochs == 1
    tuned = read_checkpoint(result.checkpoint)["state_dict"]
    kept = [name for name in tuned if name in weights and tuned[name].shape == weights[name].shape]
    close = [name for name in kept if name.endswith("weight") and torch.allclose(tuned[name], weights[name], atol=1e-4)]
    assert close, "weights that fit were loaded"
    assert "does not fit the model's" in caplog.text


def test_fast_dev_run_touches_everything_and_leaves_nothing(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try_out(small, None)
    assert not files(tmp_path)


def test_hidden_labels_are_counted_in_the_result_and_a_fold_is_the_validation_data(small):
    small = changed(small, train_loader__args__sparse={"density": 0.5}, train_loader__args__folds={"fold": 0, "of": 5})
    del small["valid_loader"]
    result = train(small)
    saved = json.loads((result.run_folder / "result.json").read_text())
    train_loader, valid_loader = build_loaders(small)
    assert (train_loader.num_samples, valid_loader.num_samples) == (8, 2)
    train_loader.prepare()
    assert saved["labelled_megapixels"] == train_loader.labelled_megapixels > 0
    assert saved["labelled_images"] == 8
    assert "val_miou" in saved["best"]


@pytest.mark.slow
def test_overfit_ends_near_a_perfect_score(small):
    net = {"channels": [16, 32], "stem_stride": 1}
    few = for_overfit(changed(small, trainer__epochs=40, arch__args=net, train_loader__args__resize=[72, 48]), 2)
    result = train(few)
    assert result.best["val_miou"] > 0.95
    assert few["train_loader"]["args"]["samples"] == few["valid_loader"]["args"]["samples"] == 2


OLD = json.loads(
    """{"name": "HumanSeg", "n_gpu": 1, "arch": {"type": "UNet", "args": {"backbone": "mobilenetv2", "num_classes": 2,
    "pretrained_backbone": null}}, "train_loader": {"type": "SegmentationDataLoader", "args": {"pairs_file": "train",
    "color_channel": "RGB", "resize": 64, "padding_value": 0, "is_training": true, "noise_std": 3, "crop_range":
    [0.9, 1.0], "flip_hor": 0.5, "rotate": 0.0, "angle": 10, "normalize": true, "one_hot": false, "shuffle": true,
    "batch_size": 16, "n_workers": 24, "pin_memory": true}}, "valid_loader": {"type": "SegmentationDataLoader", "args":
    {"pairs_file": "valid", "color_channel": "RGB", "resize": 64, "padding_value": 0, "is_training": false, "normalize":
    true, "one_hot": false, "shuffle": false, "batch_size": 16, "n_workers": 24, "pin_memory": true}}, "optimizer":
    {"type": "SGD", "args": {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-08}}, "loss": "dice_loss", "metrics":
    ["miou"], "lr_scheduler": {"type": "StepLR", "args": {"step_size": 100, "gamma": 1.0}}, "trainer": {"epochs": 1,
    "save_dir": "checkpoints/", "save_freq": null, "verbosity": 2, "monitor": "valid_loss", "monitor_mode": "min"},
    "visualization": {"tensorboardX": true, "log_dir": "checkpoints/"}}"""
)


@pytest.mark.slow
def test_the_older_dialect_trains_with_only_its_paths_changed(tmp_path, caplog):
    for split in ("train", "valid"):
        OLD[f"{split}_loader"]["args"]["pairs_file"] = str(PEOPLE / f"{split}_pairs.txt")
    OLD["trainer"]["save_dir"] = str(tmp_path / "checkpoints")
    (tmp_path / "old.json").write_text(json.dumps(OLD))
    config = load_config(tmp_path / "old.json", ["trainer.len_epoch=2"])
    for old in ("monitor_mode", "tensorboardX", "mobilenetv2", "pretrained_backbone", "save_freq"):
        assert old in caplog.text
    result = train(config)
    assert "val_loss" in result.best
    assert (result.run_folder / "model_best.pth").exists()


def test_faults_end_before_the_disk_is_touched(small, tmp_path):
    with pytest.raises(ConfigError, match=r"trainer\.monitor: \"val_iou\" is not among the results"):
        train(changed(small, trainer__monitor="max val_iou"))
    with pytest.raises(ConfigError, match="python -m search"):
        train(changed(small, optimizer__args__lr={"$uniform": [0.1, 1.0]}))
    with pytest.raises(ConfigError, match=r"optimizer\.args"):
        train(changed(small, optimizer__args__lr=-1.0))
    with pytest.raises(DataError, match=r"none\.txt"):
        train(changed(small, train_loader__args__pairs_file=str(tmp_path / "none.txt")))
    assert not files(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"trainer\.save_dir: .*file/small cannot be written"):
        train(changed(small, trainer__save_dir=str(tmp_path / "file")))


def test_the_network_of_every_command_is_the_same(small):
    parts = build_training(small)
    result = train(small)
    config = read_checkpoint(result.checkpoint)["config"]
    rebuilt = build_model(config, DataSpec())
    rebuilt.load_state_dict(read_checkpoint(result.checkpoint)["state_dict"])
    assert str(rebuilt) == str(unwrap(parts.model))
    preprocessing = build_preprocessing(config)
    assert preprocessing.describe() == parts.valid_loader.preprocessing.describe()


def test_a_user_error_is_one_line_and_its_exit_code(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "train.py"), "-c", "none.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not files(tmp_path)


def test_the_commands_that_follow_a_training_name_its_plug_ins():
    result = TrainResult({"epoch": 2, "val_miou": 0.5}, 3, [], Path("my runs/model_best.pth"), Path("my runs"))
    config = load_config(ROOT / "config/people/quickstart.json")
    text = summary_text(result, config, ["my net.py", "losses.py"])
    for command in ("test.py", "inference.py"):
        line = next(line for line in text.splitlines() if f"python {command} --resume 'my runs/model_best.pth'" in line)
        assert line.endswith("--plugin 'my net.py' --plugin losses.py")
    assert "--plugin" not in summary_text(result, config)


def printed_command(text, script):
    """The words after `python SCRIPT` in what a command has printed."""
    line = next(line for line in text.splitlines() if f"python {script} " in line)
    return shlex.split(line.partition(f"python {script} ")[2])


@pytest.mark.parametrize("split", ["test", "valid"])
def test_the_printed_commands_run_as_they_are_printed(small, tmp_path, capsys, split):
    config = {**small, f"{split}_loader": small["valid_loader"], "trainer": {**small["trainer"], "epochs": 1}}
    (tmp_path / "x.json").write_text(json.dumps(config))
    main(parser().parse_args(["-c", str(tmp_path / "x.json")]))
    text = capsys.readouterr().out
    test_words, use = printed_command(text, "test.py"), printed_command(text, "inference.py")
    test_command.main(test_command.parser().parse_args(test_words))
    assert f"/pictures/{split}" in capsys.readouterr().out
    use[use.index("FILE")], use[use.index("out")] = str(PEOPLE / "images/test/0005.jpg"), str(tmp_path / "out")
    inference.main(inference.parser().parse_args(use))
    assert list((tmp_path / "out").iterdir())


def test_a_loader_without_preprocessing_gets_no_command_that_cannot_run():
    result = TrainResult({"epoch": 1}, 1, [], Path("run/model_best.pth"), Path("run"))
    config = load_config(ROOT / "config/people/quickstart.json", ["trainer.tensorboard=false"])
    assert "tensorboard" not in summary_text(result, config)
    assert "inference.py" in summary_text(result, config)
    del config["test_loader"], config["valid_loader"]
    config["train_loader"] = {"type": "base.base_data_loader.BaseDataLoader", "args": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plugins.loaded, "base", ROOT)  # as if the user had named its file
        text = summary_text(result, config)
    assert "inference.py" not in text
    assert "--split train" in text


def test_a_search_space_is_refused_with_the_command_that_searches_it(small, tmp_path):
    (tmp_path / "my space.json").write_text(json.dumps(small))
    words = ["-c", str(tmp_path / "my space.json"), 'optimizer.args.lr={"$choice": [0.1]}', "--epochs", "1"]
    with pytest.raises(ConfigError) as error:
        main(parser().parse_intermixed_args(words))
    command = shlex.split(str(error.value).partition("Run: ")[2])
    assert command == ["python", "-m", "search", *words[:3], "trainer.epochs=1"]
