"""test.py: its numbers are those of validation, and what it leaves behind."""

import copy
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import test as command
from base.samples import NamedMask
from config import cli, load_plugins
from config.variants import without_pretrained_weights
from logger.test_report.stored import StoredSamples, sample_key
from train import train
from trainer.checkpoints.resume import find_checkpoint, load_all_weights
from trainer.runtime import devices
from utils.checkpoint_file import read_checkpoint
from utils.errors import CheckpointError, ConfigError
from utils.geometry import letterbox_geometry
from utils.images.palette import Palette
from utils.runs.stored_tests import PREDICTION, TRUTH, stored_file, stored_results

DATA = Path(__file__).resolve().parent.parent / "data" / "people"


def loader(pairs_file, **more):
    arguments = {"pairs_file": str(pairs_file), "data_root": str(DATA), "classes": ["background", "person"]}
    return {"type": "SegmentationDataLoader", "args": {**arguments, "resize": [32, 24], "batch_size": 4, **more}}


def write_pairs(folder, split, count):
    lines = (DATA / f"{split}_pairs.txt").read_text().splitlines()[:count]
    file = folder / f"{split}.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs: its result and its config."""
    folder = tmp_path_factory.mktemp("runs")
    quiet = {"is_training": False, "shuffle": False}
    config = {
        "name": "tiny",
        "n_gpu": 0,
        "arch": {"type": "UNet", "args": {"channels": [4, 8], "dropout": 0.1}},
        "train_loader": loader(write_pairs(folder, "train", 12), flip_hor=0.5),
        "valid_loader": loader(write_pairs(folder, "valid", 7), **quiet),
        "test_loader": loader(write_pairs(folder, "test", 6), **quiet),
        "optimizer": {"type": "AdamW", "args": {"lr": 0.01}},
        "loss": [{"type": "ce_loss", "weight": 1.0}, {"type": "dice_loss", "weight": 0.5}],
        "metrics": ["miou", "class_iou", "accuracy"],
        "trainer": {
            "epochs": 2,
            "save_dir": str(folder / "saved"),
            "monitor": "max val_miou",
            "tensorboard": False,
            "verbosity": 0,
        },
    }
    return train(json.loads(json.dumps(config))), config


def run(*argv):
    return cli.run_command(command.main, command.parser(), [str(argument) for argument in argv])


def write_json(file, content):
    file.write_text(json.dumps(content))
    return file


def test_validation_split_gives_the_very_numbers_of_training(finished):
    result, _ = finished
    checkpoint = read_checkpoint(result.checkpoint)
    judged = command.test(checkpoint["config"], checkpoint["state_dict"], split="valid")
    expected = {name.removeprefix("val_"): value for name, value in result.best.items() if name.startswith("val_")}
    assert judged["metrics"] == expected
    assert judged["samples"] == 7


def test_held_out_part_of_one_data_set_gives_the_very_numbers_of_training(finished, tmp_path):
    _, config = finished
    config = json.loads(json.dumps(config))
    for section in ("train_loader", "valid_loader", "test_loader"):
        arguments = config.pop(section)["args"]
    data = {**arguments, "is_training": True, "shuffle": True, "validation_split": 0.34, "flip_hor": 0.5}
    config["data_loader"] = {"type": "SegmentationDataLoader", "args": data}
    config["trainer"] |= {"epochs": 1, "save_dir": str(tmp_path)}
    result = train(config)
    checkpoint = read_checkpoint(result.checkpoint)
    judged = command.test(checkpoint["config"], checkpoint["state_dict"], split="valid")
    assert judged["samples"] == 2
    assert judged["metrics"] == {name: result.best[f"val_{name}"] for name in judged["metrics"]}
    with pytest.raises(ConfigError, match="only for train and valid"):
        command.test(checkpoint["config"], checkpoint["state_dict"])


def test_number_of_classes_must_be_known(tmp_path):
    (tmp_path / "nameless.py").write_text(
        "from base import BaseDataLoader\nfrom tests.support.tiny import Blobs\n"
        "class Points(BaseDataLoader):\n    def __init__(self):\n        super().__init__(Blobs(), 4, shuffle=False)\n"
    )
    load_plugins([str(tmp_path / "nameless.py")])
    config = {"name": "nameless", "arch": "UNet", "test_loader": "nameless.Points", "loss": "ce_loss"}
    with pytest.raises(ConfigError, match=r"set arch\.args\.num_classes"):
        command.test({**config, "optimizer": {"type": "SGD", "args": {"lr": 0.1}}, "trainer": {"epochs": 1}}, {})


def test_other_batch_sizes_and_the_images_change_no_metric(finished, tmp_path):
    result, _ = finished
    checkpoint = read_checkpoint(result.checkpoint)
    config = checkpoint["config"]
    first = command.test(config, checkpoint["state_dict"], images=tmp_path, worst=2)
    config["test_loader"]["args"]["batch_size"] = 5
    other = command.test(config, checkpoint["state_dict"])
    assert other["confusion"] == first["confusion"]
    for judged in (first, other):
        del judged["metrics"]["loss"]  # of the Dice loss, which is a loss of the batch
    assert other["metrics"] == first["metrics"]


def test_per_class_values_follow_from_the_confusion_matrix(finished):
    result, _ = finished
    checkpoint = read_checkpoint(result.checkpoint)
    judged = command.test(checkpoint["config"], checkpoint["state_dict"])
    (tn, fp), (fn, tp) = judged["confusion"]
    person = judged["per_class"]["person"]
    assert person["iou"] == pytest.approx(tp / (tp + fp + fn))
    assert person["recall"] == pytest.approx(tp / (tp + fn))
    assert person["pixel_share"] == pytest.approx((fn + tp) / (tn + fp + fn + tp))
    assert judged["metrics"]["iou_person"] == person["iou"]


def test_an_ignored_class_is_in_no_result_and_no_score(finished):
    result, _ = finished
    checkpoint = read_checkpoint(result.checkpoint)
    config = checkpoint["config"]
    for section in ("train_loader", "valid_loader", "test_loader"):
        config[section]["args"]["ignore_index"] = 0
    judged = command.test(config, checkpoint["state_dict"], images=result.run_folder / "ignored")
    (nothing, _), (missed, found) = judged["confusion"]
    assert nothing == 0
    assert list(judged["per_class"]) == ["person"]
    assert judged["per_class"]["person"]["pixel_share"] == 1.0
    iou = found / (missed + found)  # of the pixels that count, none is of another class
    assert judged["per_class"]["person"]["iou"] == judged["metrics"]["miou"] == pytest.approx(iou)
    assert {name for name in judged["metrics"] if name.startswith("iou_")} == {"iou_person"}
    # The score of a sample counts the same pixels.
    cases = command.collect_worst("segmentation", 1, ["background", "person"], Palette.of(2), 0)
    truth = torch.tensor([[0, 0, 1, 1]])
    logits = torch.tensor([[[0.0, 1.0, 0.0, 1.0]], [[1.0, 0.0, 1.0, 0.0]]])  # class 1, 0, 1, 0
    assert cases.score(logits, truth) == 0.5


def test_training_data_is_judged_whole_and_without_augmentation(finished):
    result, _ = finished
    checkpoint = read_checkpoint(result.checkpoint)
    judged = [command.test(checkpoint["config"], checkpoint["state_dict"], split="train") for _ in range(2)]
    assert judged[0]["samples"] == 12
    assert judged[0] == judged[1]


def test_command_reports_table_images_and_result(finished, tmp_path, capsys):
    result, _ = finished
    written = tmp_path / "deep" / "result.json"
    assert run("--resume", result.run_folder, "--json", written, "--output", tmp_path / "out", "--worst", 3) == 0
    shown = capsys.readouterr().out
    assert "model_best.pth (epoch" in shown
    assert "on 6 samples of test" in shown
    assert "person" in shown
    names = ["confusion.png", "worst-01.png", "worst-02.png", "worst-03.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    content = json.loads(written.read_text())
    assert {"metrics", "per_class", "samples", "split", "confusion", "worst", "pictures", "checkpoint"} <= set(content)
    scores = [case["score"] for case in content["worst"]]
    assert scores == sorted(scores)
    assert content["worst"][0]["name"].endswith(".jpg")


def test_test_results_are_added_to_those_of_the_run(finished, tmp_path, capsys):
    result, config = finished
    file = write_json(tmp_path / "config.json", config)
    before = json.loads((result.run_folder / "result.json").read_text())
    assert run("-c", file, "--resume", "best") == 0
    after = json.loads((result.run_folder / "result.json").read_text())
    assert after.pop("test")["samples"] == 6
    before.pop("test", None)
    assert after == before
    assert (result.run_folder / "pictures" / "test" / "confusion.png").is_file()
    assert "model_best.pth" in capsys.readouterr().out


def test_results_on_other_data_are_not_those_of_the_run(finished, tmp_path, caplog):
    result, config = finished
    other = copy.deepcopy(config)
    other["test_loader"]["args"]["samples"] = 3
    file = write_json(tmp_path / "config.json", other)
    before = (result.run_folder / "result.json").read_bytes()
    stored = {path: path.read_bytes() for path in (result.run_folder / "predictions").rglob("*") if path.is_file()}
    assert run("-c", file, "--resume", "best") == 0
    assert "No run had exactly this config" in caplog.text
    assert (result.run_folder / "result.json").read_bytes() == before
    assert {path: path.read_bytes() for path in stored} == stored


def test_next_to_a_gpu_the_loader_knows_it(finished, monkeypatch):
    content = read_checkpoint(finished[0].checkpoint)
    on_cpu = command.build_evaluation(content["config"], content["state_dict"], "test")
    monkeypatch.setattr(devices, "choose_devices", lambda *_: [torch.device("meta")])  # as good as a GPU to build on
    elsewhere = command.build_evaluation(content["config"], content["state_dict"], "test")
    assert (on_cpu.loader.feeds_accelerator, elsewhere.loader.feeds_accelerator) == (False, True)


def parameters_of(result):
    content = read_checkpoint(result.checkpoint)
    return command.build_evaluation(content["config"], content["state_dict"], "test").model.parameters()


def test_a_run_stores_what_comparisons_need(finished, capsys):
    result, _ = finished
    folder = result.run_folder
    assert run("--resume", folder) == 0
    content = json.loads(stored_results(folder, "test").read_text())
    assert content["facts"]["params"] == sum(each.numel() for each in parameters_of(result))
    assert content["facts"]["flops"] > content["facts"]["params"]
    assert (content["samples"], content["checkpoint"], len(content["scores"])) == (6, "model_best.pth", 6)
    assert content["data"]["samples"] == 6
    assert len(content["palette"]["colors"]) == 2
    keys = [each["key"] for each in content["shown"]]
    assert len(keys) == 6
    assert {each["key"]: each["score"] for each in content["shown"]} == content["scores"]
    first = {kind: cv2.imread(str(stored_file(folder, "test", keys[0], kind)), -1) for kind in (TRUTH, PREDICTION)}
    assert set(np.unique(first[TRUTH])) <= {0, 1, 255}
    assert set(np.unique(first[PREDICTION])) <= {0, 1}
    assert max(first[TRUTH].shape) <= 320
    assert first[TRUTH].shape == first[PREDICTION].shape
    # Another test, of whatever weights, stores the same samples, and one of other data stores none.
    assert run("--resume", folder / "checkpoint-last.pth") == 0
    assert [each["key"] for each in json.loads(stored_results(folder, "test").read_text())["shown"]] == keys
    before = stored_results(folder, "test").read_bytes()
    assert run("--resume", folder, "test_loader.args.batch_size=1") == 0
    assert stored_results(folder, "test").read_bytes() == before
    capsys.readouterr()


def test_stored_samples_do_not_depend_on_the_order():
    logits, image = torch.zeros(2, 4, 6), torch.zeros(3, 4, 6)
    masks = [
        NamedMask(f"a/{number}.png", torch.full((4, 6), number % 2), letterbox_geometry((4, 6), None), number)
        for number in range(9)
    ]
    shown = []
    for order in (masks, masks[::-1]):
        stored = StoredSamples(count=3)
        for mask in order:
            stored.add(mask, image, logits, {"score": 0.5})
        shown.append([(each["name"], each["key"]) for each in stored.shown()])
        assert len(stored.scores) == 9
        assert len(stored.files()) == 9
    assert shown[0] == shown[1]
    moved = NamedMask("elsewhere/0.png", masks[0].target, masks[0].geometry, 5)
    other = NamedMask("a/0.png", masks[1].target, masks[0].geometry, 0)
    assert sample_key(moved) == sample_key(masks[0]) != sample_key(other)


def test_other_data_is_judged_but_not_booked_to_the_run(finished, tmp_path, capsys):
    result, config = finished
    other = {name: config[name] for name in ("trainer", "metrics", "loss", "optimizer")}
    other["test_loader"] = config["valid_loader"]
    file = write_json(tmp_path / "other.json", other)
    before = (result.run_folder / "result.json").read_bytes()
    assert run("-c", file, "--resume", result.checkpoint, "--output", tmp_path) == 0
    assert "on 7 samples of test" in capsys.readouterr().out
    assert (result.run_folder / "result.json").read_bytes() == before
    assert run("-c", file, "--resume", result.checkpoint, "--split", "valid", "--output", tmp_path) == 2
    assert "only for test" in capsys.readouterr().err


def test_overrides_change_the_config_of_the_checkpoint(finished, tmp_path, capsys):
    result, _ = finished
    options = ("--output", tmp_path, 'metrics=["dice"]')
    assert run("--resume", result.checkpoint, *options) == 0
    assert "dice" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("--resume", "nowhere.pth"), (4, "nowhere.pth: there is no such file")),
        (("--resume", "best"), (2, "Add -c FILE")),
        (("--resume", "{checkpoint}", 'metrics=["mio"]'), (2, "miou")),
        (("--resume", "{checkpoint}", "arch.args.channels=[4,9]"), (4, "do not fit the network of arch")),
        (
            ("--resume", "{checkpoint}", "test_loader=null", "--split", "test"),
            (2, "only for train and valid. A test needs a loader. Add test_loader"),
        ),
        (("--resume", "{checkpoint}", "--output", "{file}/x"), (2, "--output")),
        (("--resume", "{checkpoint}", "--output", "{folder}", "--json", "{file}/x"), (2, "--json")),
        (("--resume", "{checkpoint}", 'optimizer.args.lr={"$uniform": [0, 1]}'), (2, "search")),
    ],
)
def test_mistakes_end_in_one_line_and_their_code(finished, tmp_path, capsys, argv, expected):
    result, _ = finished
    code, message = expected
    (tmp_path / "file").write_text("")
    known = {"{checkpoint}": result.checkpoint, "{folder}": tmp_path / "out", "{file}": tmp_path / "file"}

    def fill(argument):
        for name, value in known.items():
            argument = argument.replace(name, str(value))
        return argument

    assert run(*map(fill, argv)) == code
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_checkpoint_is_found_by_file_folder_best_and_last(finished):
    result, config = finished
    folder = result.run_folder
    assert find_checkpoint(str(folder), None)[0] == folder / "model_best.pth"
    assert find_checkpoint(str(folder / "checkpoint-last.pth"), None)[0] == folder / "checkpoint-last.pth"
    assert find_checkpoint("best", config)[0] == folder / "model_best.pth"
    assert find_checkpoint("last", config)[0] == folder / "checkpoint-last.pth"
    with pytest.raises(CheckpointError, match='no run of "other"'):
        find_checkpoint("best", {**config, "name": "other"})


def test_an_output_that_cannot_be_written_is_found_before_anything_is_computed(finished, tmp_path, monkeypatch, capsys):
    result, _ = finished
    monkeypatch.setattr(command, "test", lambda *_, **__: pytest.fail("computed"))
    (tmp_path / "file").touch()
    (tmp_path / "result.json").mkdir()
    for options, problem in (
        (("--output", tmp_path / "file" / "x"), f"({tmp_path / 'file'} is not a folder)"),
        (("--output", tmp_path / "new", "--json", tmp_path / "result.json"), "(it is a folder)"),
    ):
        assert run("--resume", result.checkpoint, *options) == 2
        assert f"cannot be written {problem}. Name a file that you may write to." in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_best_is_of_the_newest_run_of_the_same_config(finished, tmp_path, caplog):
    _, config = finished
    config = json.loads(json.dumps(config))
    config["trainer"] |= {"epochs": 1, "save_dir": str(tmp_path)}
    config["train_loader"]["args"]["samples"] = 4
    older = train(json.loads(json.dumps(config))).run_folder
    changed = json.loads(json.dumps(config)) | {"seed": 7}
    newer = train(json.loads(json.dumps(changed))).run_folder
    assert newer > older
    caplog.clear()
    assert find_checkpoint("best", config)[0].parent == older
    assert find_checkpoint("best", changed)[0].parent == newer
    assert find_checkpoint("last", config)[0] == older / "checkpoint-last.pth"
    assert not caplog.messages
    assert find_checkpoint("best", {**config, "seed": 8})[0].parent == newer
    assert caplog.messages == [f"No run had exactly this config: {newer}, the newest, is used, which differs at seed."]


def test_weights_that_do_not_fit_are_named():
    model = torch.nn.Linear(2, 1)
    with pytest.raises(CheckpointError, match=r"bias is missing; extra is not in the network; weight is \(1, 3\), not"):
        load_all_weights(model, {"weight": torch.zeros(1, 3), "extra": torch.zeros(1)})
    load_all_weights(model, {"weight": torch.ones(1, 2), "bias": torch.ones(1)})
    assert np.array_equal(model.weight.detach().numpy(), [[1, 1]])


def test_network_is_the_checkpoints_and_data_is_what_was_asked_for():
    saved = {"arch": "A", "train_loader": 1, "valid_loader": 2, "metrics": ["miou"], "seed": 3}
    asked = {"arch": "B", "data_loader": 4, "metrics": ["dice"]}
    assert command.for_evaluation(saved, asked) == {"arch": "A", "data_loader": 4, "metrics": ["dice"], "seed": 3}
    assert command.for_evaluation(saved, None) == saved
    assert command.for_evaluation(None, asked) == asked
    with pytest.raises(ConfigError, match="Write -c FILE"):
        command.for_evaluation(None, None)


def test_nothing_is_fetched_for_a_network_whose_weights_are_there():
    config = {"arch": {"type": "UNet", "args": {"backbone": "resnet18", "weights": "DEFAULT", "pretrained": True}}}
    arguments = without_pretrained_weights(config)["arch"]["args"]
    assert arguments == {"backbone": "resnet18", "weights": None, "pretrained": False}
    assert config["arch"]["args"]["weights"] == "DEFAULT"
    assert without_pretrained_weights({"arch": "UNet"}) == {"arch": "UNet"}
