"""Training, killing, testing and using classifiers of images and of series, by the commands that a user types."""

import copy
import csv
import json
import shutil

import cv2
import numpy as np
import pytest

import inference
import test as test_command
from base.base_trainer import StopRequest
from base.callback import Callback
from config import cli
from data_loader.time_series.files import read_series
from train import for_overfit, train
from utils.checkpoint_file import read_checkpoint
from utils.errors import ConfigError, DataError, Interrupted

TEXTURES = {"stripes": (1, 0), "bars": (0, 1)}


def write_images(folder, count):
    """Images of two classes: stripes across and bars down, with noise."""
    generator = np.random.default_rng(count)
    rows, columns = np.mgrid[:16, :16]
    for name, (down, across) in TEXTURES.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            wave = 128 + 80 * np.sin(1.5 * (down * rows + across * columns) + number)
            noisy = wave + generator.normal(0, 10, wave.shape)
            assert cv2.imwrite(str(folder / name / f"{number}.png"), noisy.clip(0, 255).astype(np.uint8))


def write_series(file, count, *, has_labels=True):
    """Series of two variables and 6 to 12 steps, rising or falling."""
    generator = np.random.default_rng(count)
    label = ["@classLabel true rise fall"] if has_labels else []
    lines = ["@problemName Toy", "@univariate false", "@dimensions 2", "@equalLength false", *label, "@data"]
    for number in range(count):
        steps = np.arange(6 + number % 7)
        sign = 1 if number % 2 else -1
        values = [sign * steps + generator.normal(0, 0.5, len(steps)), generator.normal(5, 2, len(steps))]
        text = ":".join(",".join(f"{value:.4f}" for value in row) for row in values)
        lines.append(f"{text}:{'rise' if number % 2 else 'fall'}" if has_labels else text)
    file.write_text("\n".join(lines) + "\n")


def common(folder, name):
    return {
        "name": name,
        "seed": 2,
        "n_gpu": 0,
        "optimizer": {"type": "AdamW", "args": {"lr": 0.01}},
        "loss": "ce_loss",
        "metrics": ["accuracy", "f1"],
        "lr_scheduler": {"type": "OneCycleLR", "args": {"max_lr": 0.01}},
        "trainer": {
            "epochs": 3, "save_dir": str(folder / "saved"), "tensorboard": True, "verbosity": 0, "precision": "fp32",
            "monitor": "max val_accuracy", "save_every_steps": 2,
        },
    }  # fmt: skip


def images_config(folder):
    for part, count in (("train", 9), ("val", 4), ("test", 5)):
        write_images(folder / "pictures" / part, count)
    args = {"folder": str(folder / "pictures"), "in_channels": 1, "batch_size": 4}
    chance = {"mixup": 0.3, "cutout": 0.2, "shift": 0.1, "flip_hor": 0.5, "noise_std": 3}
    loader = {"type": "ImageClassificationDataLoader", "args": args}
    return {
        **common(folder, "pictures"),
        "arch": {"type": "ConvNet", "args": {"channels": [6, 8], "dropout": 0.2}},
        "train_loader": {**loader, "args": {**args, **chance}},
        "valid_loader": loader,
        "test_loader": loader,
    }


def series_config(folder):
    for part, count in (("TRAIN", 20), ("TEST", 12)):
        write_series(folder / f"Toy_{part}.ts", count)
    loader = {"type": "TimeSeriesDataLoader", "args": {"path": str(folder), "rescale": True, "batch_size": 4}}
    return {
        **common(folder, "series"),
        "arch": {"type": "LSTMFCN", "args": {"cells": 4, "channels": [6, 6], "dropout": 0.2}},
        "data_loader": {**loader, "args": {**loader["args"], "validation_split": 4, "jitter": 0.1}},
        "test_loader": loader,
    }


MAKERS = {"pictures": images_config, "series": series_config}


@pytest.fixture(scope="module", params=MAKERS)
def finished(request, tmp_path_factory):
    """A finished run of each task: its config, and what train() gave."""
    folder = tmp_path_factory.mktemp(request.param)
    config = MAKERS[request.param](folder)
    return config, train(copy.deepcopy(config)), folder


class KilledAfter(Callback):
    """A signal that comes in the middle of an epoch."""

    def __init__(self, steps):
        self.steps = steps

    def on_step_end(self, trainer, report):
        if trainer.global_step == self.steps:
            trainer.stop_request = StopRequest.from_signal(15)


def renamed(config, name, **loader_args):
    changed = copy.deepcopy(config)
    changed["name"] = name
    changed.get("train_loader", changed.get("data_loader"))["args"] |= loader_args
    return changed


@pytest.mark.parametrize("steps", [1, 7])
def test_a_run_killed_at_any_step_ends_in_the_same_bytes(finished, steps):
    config, whole, _ = finished
    cut = renamed(config, f"killed_{steps}")
    with pytest.raises(Interrupted):
        train(copy.deepcopy(cut), callbacks=[KilledAfter(steps)])
    workers = {**cut, "name": cut["name"]}
    again = train(renamed(workers, cut["name"], n_workers=1), resume="auto")
    assert again.history == whole.history
    assert (again.run_folder / "metrics.csv").read_bytes() == (whole.run_folder / "metrics.csv").read_bytes()
    states = [read_checkpoint(result.run_folder / "checkpoint-last.pth") for result in (again, whole)]
    for one, other in zip(*(state["state_dict"].values() for state in states), strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()


def test_the_config_in_the_checkpoint_needs_no_training_data(finished):
    config, result, _ = finished
    saved = read_checkpoint(result.checkpoint)["config"]
    names = ["bars", "stripes"] if config["name"] == "pictures" else ["rise", "fall"]
    assert saved["test_loader"]["args"]["classes"] == names
    assert saved["arch"]["args"]["num_classes"] == 2
    if config["name"] == "series":
        args = saved["test_loader"]["args"]
        assert all(len(args[name]) == 2 for name in ("mean", "std", "scale"))
        assert {name: args[name] for name in args if name != "batch_size"} == {
            name: saved["data_loader"]["args"][name] for name in args if name != "batch_size"
        }
    only_test = {name: section for name, section in saved.items() if name not in ("train_loader", "data_loader")}
    judged = test_command.test(only_test, read_checkpoint(result.checkpoint)["state_dict"])
    assert judged["samples"] == (10 if config["name"] == "pictures" else 12)


def test_validation_split_gives_the_very_numbers_of_training(finished):
    _, result, _ = finished
    checkpoint = read_checkpoint(result.checkpoint)
    judged = test_command.test(checkpoint["config"], checkpoint["state_dict"], split="valid")
    assert judged["metrics"] == {name.removeprefix("val_"): v for name, v in result.best.items() if "val_" in name}


def run(command, *argv):
    return cli.run_command(command.main, command.parser(), [str(argument) for argument in argv])


def test_a_test_says_what_suits_the_task(finished, tmp_path, capsys):
    config, result, _ = finished
    file = tmp_path / "result.json"
    options = ["--resume", result.run_folder, "--json", file, "--worst", 3, "--output", tmp_path]
    assert run(test_command, *options, 'metrics=["accuracy"]') == 0
    judged = json.loads(file.read_text())
    matrix = np.array(judged["confusion"])
    assert list(judged["metrics"]) == ["loss", "accuracy"]
    assert judged["metrics"]["accuracy"] == pytest.approx(matrix.trace() / matrix.sum())
    for number, values in enumerate(judged["per_class"].values()):
        assert list(values) == ["precision", "recall", "f1", "support"]
        assert values["support"] == matrix[number].sum()
        assert values["recall"] == pytest.approx(matrix[number, number] / matrix[number].sum())
    scores = [case["score"] for case in judged["worst"]]
    assert scores == sorted(scores)
    assert len(scores) == 3
    first = judged["worst"][0]
    assert set(first) == {"name", "score", "truth", "prediction", "probability"}
    if first["truth"] == first["prediction"]:
        assert first["score"] == first["probability"]
    else:
        assert first["score"] == pytest.approx(1 - first["probability"])
    said = capsys.readouterr().out
    assert "support" in said
    assert "IoU" not in said
    assert {"confusion.png", "worst-01.png", "worst-03.png"} <= {path.name for path in tmp_path.iterdir()}
    where = ".png" if config["name"] == "pictures" else "Toy_TEST.ts, line "
    assert where in first["name"]


def rows_of(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_inference_writes_the_predictions_of_the_test(finished, tmp_path):
    config, result, folder = finished
    images = config["name"] == "pictures"
    source = folder / "pictures/test" if images else folder / "Toy_TEST.ts"
    assert run(inference, "--resume", result.run_folder, "--source", source, "--output", tmp_path / "all.csv") == 0
    rows = rows_of(tmp_path / "all.csv")
    names = ["bars", "stripes"] if images else ["rise", "fall"]
    columns = ["file" if images else "row", "class", "probability", *(f"probability_{name}" for name in names)]
    assert list(rows[0]) == columns
    checkpoint = read_checkpoint(result.run_folder / "model_best.pth")
    judged = test_command.test(checkpoint["config"], checkpoint["state_dict"])
    truth = [row["file"].split("/")[0] for row in rows] if images else read_series(source).labels
    matrix = np.zeros((2, 2), int)
    for label, row in zip(truth, rows, strict=True):
        shares = [float(row[f"probability_{name}"]) for name in names]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == max(shares) == shares[names.index(row["class"])]
        matrix[names.index(label), names.index(row["class"])] += 1
    assert matrix.tolist() == judged["confusion"]
    if not images:
        assert rows[0]["row"] == "7"
        write_series(tmp_path / "new.ts", 4, has_labels=False)
        assert run(inference, "--resume", result.run_folder, "--source", tmp_path / "new.ts", "--output", tmp_path) == 0
        assert len(rows_of(tmp_path / "predictions.csv")) == 4


def test_a_bad_photo_is_named_and_the_others_are_in_the_table(finished, tmp_path, capsys):
    config, result, folder = finished
    if config["name"] != "pictures":
        wrong = tmp_path / "wrong.ts"
        wrong.write_text("@univariate true\n@data\n1,2,3\n")
        assert run(inference, "--resume", result.run_folder, "--source", wrong, "--output", tmp_path) == 3
        assert "has 1 variables, but the network was trained on 2" in capsys.readouterr().err
        return
    shutil.copytree(folder / "pictures/val/bars", tmp_path / "in")
    (tmp_path / "in/0.png").write_bytes(b"no image")
    (tmp_path / "in/a.heic").write_bytes(b"not read")
    code = run(inference, "--resume", result.run_folder, "--source", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 3
    messages = capsys.readouterr().err
    assert "1 of 4 images could not be used" in messages
    assert "Left out: 1 .heic in" in messages
    assert [row["file"] for row in rows_of(tmp_path / "out/predictions.csv")] == ["1.png", "2.png", "3.png"]
    (tmp_path / "bad").mkdir()
    shutil.copy(tmp_path / "in/0.png", tmp_path / "bad/0.png")
    assert (
        run(inference, "--resume", result.run_folder, "--source", tmp_path / "bad", "--output", tmp_path / "no.csv")
        == 3
    )
    assert "Nothing could be classified: none of the 1 images could be used. The first: " in (
        messages := capsys.readouterr().err
    )
    assert "bad/0.png cannot be read as an image" in messages
    assert not (tmp_path / "no.csv").exists()


def test_options_of_masks_are_refused(finished, tmp_path, capsys):
    _, result, folder = finished
    views = {"--tta-flip": [], "--tta-scales": [0.5, 1], "--window": [], "--window ": [8, 8]}
    images = {"--mode": ["mask"], "--class": ["x"], "--own-ids": [], "--no-legend": [], "--smooth": [0.5]}
    network = ["--resume", result.run_folder, "-d", "cpu"]
    for option, values in views.items():
        words = [*network, option.strip(), *values]
        for command, more in ((test_command, []), (inference, ["--source", folder, "--output", tmp_path])):
            assert run(command, *words, *more) == 2
            assert f"{option.strip()}: the network gives one class to a whole" in capsys.readouterr().err
    for option, values in images.items():
        assert run(inference, *network, "--source", folder, "--output", tmp_path, option, *values) == 2
        assert f"error: {option}: the network classifies, and its results are the rows" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_source_of_another_kind_is_refused(finished, tmp_path, capsys):
    config, result, _ = finished
    np.savez(tmp_path / "series.npz", x=np.zeros((3, 2, 9), np.float32))
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((16, 16, 3), np.uint8))
    is_photos = config["name"] == "pictures"
    source = tmp_path / ("series.npz" if is_photos else "photo.png")
    assert run(inference, "--resume", result.run_folder, "--source", source, "--output", tmp_path / "out") == 3
    expected = "series.npz is neither a photo (" if is_photos else "photo.png is not a file of series: it must end in"
    assert expected in capsys.readouterr().err
    if is_photos:
        with pytest.raises(DataError, match="The image holds float32 values, and must hold uint8 or uint16"):
            inference.predict(result.run_folder, [np.zeros((16, 16), np.float32)])


def test_a_file_that_is_larger_than_the_limit_of_the_command_line_is_refused(finished, tmp_path, capsys):
    config, result, _ = finished
    if config["name"] == "pictures":
        cv2.imwrite(str(tmp_path / "large.png"), np.zeros((700, 600, 3), np.uint8))
        source = tmp_path / "large.png"
    else:
        write_series(tmp_path / "large.ts", 5000, has_labels=False)
        source = tmp_path / "large.ts"
        assert 2**19 < source.stat().st_size < 2**20
    options = ["--resume", result.run_folder, "--source", source, "--output", tmp_path, "--limit", 4]
    assert run(inference, *options, "--max-decoded-mb", 2) == 0
    capsys.readouterr()
    assert run(inference, *options, "--max-decoded-mb", 1) == 3
    assert "the limit is 1 MB (max_decoded_mb)" in capsys.readouterr().err


def test_one_line_in_a_notebook(finished):
    config, result, folder = finished
    values = (
        cv2.imread(str(folder / "pictures/test/bars/0.png"))
        if config["name"] == "pictures"
        else read_series(folder / "Toy_TEST.ts").series[0]
    )
    assert inference.predict(result.run_folder, [values]) in ([0], [1])
    with pytest.raises(ConfigError, match="it classifies, and has no masks to give"):
        inference.load(result.run_folder)


def test_other_data_is_judged_with_what_was_learned(finished, tmp_path, monkeypatch):
    config, result, _ = finished
    other = {"test_loader": copy.deepcopy(config["test_loader"]), **{k: config[k] for k in ("name", "loss", "metrics")}}
    other |= {key: config[key] for key in ("optimizer", "trainer", "arch")}
    (tmp_path / "other.json").write_text(json.dumps(other))
    file = tmp_path / "result.json"
    options = ["--resume", result.run_folder, "-c", tmp_path / "other.json", "--json", file, "--output", tmp_path]
    assert run(test_command, *options) == 0
    checkpoint = read_checkpoint(result.run_folder / "model_best.pth")
    expected = test_command.test(checkpoint["config"], checkpoint["state_dict"])
    assert json.loads(file.read_text())["confusion"] == expected["confusion"]


def test_overfitting_a_few_samples_ends_perfect(finished):
    config, *_ = finished
    few = for_overfit(config, 4)
    few["trainer"]["epochs"] = 20
    for section in ("train_loader", "valid_loader"):
        few[section]["args"] |= {"mixup": 0} if config["name"] == "pictures" else {"jitter": 0.0}
    result = train(few)
    assert result.best["val_accuracy"] == 1


def test_validation_samples_are_drawn_in_tensorboard(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, result, _ = finished
    events = EventAccumulator(str(result.run_folder / "tensorboard/valid"))
    events.Reload()
    assert events.Tags()["images"] == [f"validation/{number}" for number in range(4)]
