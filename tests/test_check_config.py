"""The check of a configuration: every fault in one run, and the rest of the file checked without them."""

import json

import numpy as np
import pytest
from PIL import Image

import check
import train
from build import registry
from config import load_plugins
from config.checking.sound import place_of, sound_part
from config.loading.load import apply_override, load_config
from logger.check_report import CheckReport
from tests.test_check_data import FAULTY_IMAGES, FAULTY_MASKS, write_list
from utils.errors import ConfigError, DataError, Finding

SIZE = (32, 24)
# JSON path, value, and a part of the message that names it.
PLANTED = [
    ("name", "a/b", 'name: "a/b" cannot name a folder'),
    ("seed", -1, "seed: -1 must be"),
    ("n_gpu", "two", 'n_gpu: "two" must be'),
    ("trainr", {}, 'trainr: unknown key "trainr"'),
    ("trainer.epoch", 3, 'trainer.epoch: unknown key "epoch"'),
    ("trainer.len_epoch", 0, "trainer.len_epoch: 0 must be"),
    ("trainer.early_stop", 0, "trainer.early_stop: 0 must be"),
    ("trainer.precision", "fp8", 'trainer.precision: "fp8" must be'),
    ("trainer.accumulate", 0, "trainer.accumulate: 0 must be"),
    ("trainer.clip_norm", -1, "trainer.clip_norm: -1 must be"),
    ("trainer.ema", 1.5, "trainer.ema: 1.5 must be"),
    ("trainer.verbosity", 7, "trainer.verbosity: 7 must be"),
    ("trainer.save_period", "x", 'trainer.save_period: "x" must be'),
    ("trainer.freeze", "encoder", 'trainer.freeze: "encoder" must be'),
    ("trainer.monitor", "max val_mio", 'trainer.monitor: "val_mio" is not among the results'),
    ("arch.args.channel", 8, 'arch.args.channel: unknown argument "channel"'),
    ("arch.args.dropout", 2, "arch.args.dropout: 2 must be"),
    ("arch.args.backbone", "plane", '"plane"'),
    ("train_loader.args.flip_hor", 3, "train_loader.args.flip_hor: 3 must be"),
    ("train_loader.args.batchsize", 4, 'train_loader.args.batchsize: unknown argument "batchsize"'),
    ("train_loader.args.n_workers", -2, "train_loader.args.n_workers: -2 must be"),
    ("train_loader.args.angle", 500, "train_loader.args.angle: 500 must be"),
    ("train_loader.args.crop_range", [1.2, 0.5], "Wrong crop_range [1.2, 0.5]"),
    ("train_loader.args.color_channel", "RGBA", 'train_loader.args.color_channel: "RGBA" must be'),
    ("train_loader.args.in_channels", 7, "Wrong in_channels 7"),
    ("train_loader.args.cache_mb", -3, "train_loader.args.cache_mb: -3 must be"),
    ("valid_loader.args.is_training", True, "valid_loader.args.is_training: true would augment"),
    ("valid_loader.args.padding", "blue", "padding"),
    ("test_loader.type", "SegmentationDataLoadr", 'test_loader.type: unknown class "SegmentationDataLoadr"'),
    ("test_loader.args.batch_size", 0, "test_loader.args.batch_size: 0 must be"),
    ("optimizer.type", "AdmW", 'optimizer.type: unknown class "AdmW"'),
    ("optimizer.args.lr", "fast", 'optimizer.args.lr: "fast" must be'),
    ("optimizer.args.momentums", 1, 'optimizer.args.momentums: unknown argument "momentums"'),
    ("optimizer.layer_decay", 4, "optimizer.layer_decay: 4 must be"),
    ("loss.0.type", "cross", 'loss.0.type: unknown class "cross"'),
    ("loss.1.args.smoth", 1, 'loss.1.args.smoth: unknown argument "smoth"'),
    ("loss.1.weight", "a", 'loss.1.weight: "a" must be'),
    ("metrics.0", "mioux", 'metrics.0.type: unknown class "mioux"'),
    ("metrics.1.args.tops", 5, 'metrics.1.args.tops: unknown argument "tops"'),
    ("metrics.2", 5, "metrics.2: 5 must be a class"),
    ("lr_scheduler.type", "CosineAnealingLR", 'lr_scheduler.type: unknown class "CosineAnealingLR"'),
    ("lr_scheduler.warmup", 0, "lr_scheduler.warmup: 0 must be"),
    ("lr_scheduler.interval", "epochs", 'lr_scheduler.interval: "epochs" must be'),
    ("visualization.wandb.mode", "on", 'visualization.wandb.mode: "on" must be'),
    ("search.num_samples", 0, "search.num_samples: 0 must be"),
]


def write_pairs(folder, split, count, first=0):
    """Write photos with a bright box and their masks in the layout data/SPLIT, labels/SPLIT."""
    for number in range(first, first + count):
        generator = np.random.default_rng(number)
        image, mask = generator.integers(0, 120, (*SIZE, 3), dtype=np.uint8), np.zeros(SIZE, np.uint8)
        top, left = generator.integers(0, 12, 2)
        image[top : top + 14, left : left + 10] += 120
        mask[top : top + 14, left : left + 10] = 1
        for kind, content in (("data", image), ("labels", mask)):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(folder / kind / split / f"{number}.png")


@pytest.fixture
def config(tmp_path):
    """A small configuration without a fault, and its data."""
    folder = tmp_path / "photos"
    for position, split in enumerate(("train", "val", "test")):
        write_pairs(folder, split, 4, 10 * position)
    common = {"folder": str(folder), "classes": ["background", "box"], "resize": list(SIZE), "batch_size": 2}

    def loader():
        return {"type": "SegmentationDataLoader", "args": {**common, "n_workers": 0, "cache_mb": 0}}

    return {
        "name": "small",
        "arch": {"type": "UNet", "args": {"backbone": "plain", "channels": [4, 8]}},
        "train_loader": loader(), "valid_loader": loader(), "test_loader": loader(),
        "optimizer": {"type": "AdamW", "args": {"lr": 0.01}},
        "loss": [{"type": "ce_loss"}, {"type": "dice_loss", "args": {}}],
        "metrics": ["miou", {"type": "accuracy", "args": {}}, "class_iou"],
        "lr_scheduler": {"type": "CosineAnnealingLR"},
        "trainer": {"epochs": 2, "save_dir": str(tmp_path / "saved"), "monitor": "max val_miou", "tensorboard": False},
    }  # fmt: skip


def planted(config, faults):
    for path, value, _ in faults:
        *parents, last = path.split(".")
        holder = config
        for part in parents:
            holder = holder[int(part)] if isinstance(holder, list) else holder.setdefault(part, {})
        holder[int(last) if isinstance(holder, list) else last] = value
    return config


def messages(report):
    return [finding.message for finding in report.findings if finding.is_fault]


def test_a_good_configuration_has_no_fault(config):
    report = check.check_run(config)
    assert messages(report) == []
    assert report.faults("config") == report.faults("data") == []
    report.raise_faults()


def test_all_planted_faults_are_found_in_one_run(config):
    before = json.dumps(planted(config, PLANTED))
    report = check.check_run(config)
    assert json.dumps(config) == before
    missing = [text for _, _, text in PLANTED if not any(text in message for message in messages(report))]
    assert missing == []
    assert len(messages(report)) <= len(PLANTED) + 2, messages(report)  # nothing is a fault that is not planted
    assert len(PLANTED) >= 40
    assert not report.faults("data")  # the data was read in spite of them, and is good
    assert [row[:2] for row in report.tables[0].rows] == [("train", "4"), ("valid", "4"), ("test", "4")]
    with pytest.raises(ConfigError, match=r"faults found: \d+ in the configuration\. They are listed above"):
        report.raise_faults()


def test_planted_faults_of_file_and_data_are_found_in_the_same_run(config, tmp_path):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        pairs = {"pairs_file": str(write_list(tmp_path / split)), "classes": ["sky", "road", "box"]}
        common = {"max_decoded_mb": 1, "batch_size": 2, "resize": list(SIZE), "n_workers": 0}
        config[f"{split}_loader"]["args"] = {**pairs, **common}
    config["test_loader"]["args"] = dict(config["valid_loader"]["args"])
    report = check.check_run(planted(config, PLANTED))
    assert [text for _, _, text in PLANTED if not any(text in message for message in messages(report))] == []
    files = {*FAULTY_IMAGES, *FAULTY_MASKS, "absent.jpg", "absent_mask.png", "of_large.png.png", "pairs.txt, line 4"}
    for split in ("train", "valid"):
        places = [f"{fault.place} {fault.message}" for fault in report.faults("data")]
        assert [name for name in files if not any(str(tmp_path / split / name) in place for place in places)] == []
    assert len(report.faults("data")) == 2 * 26
    assert len(report.faults("config")) <= len(PLANTED) + 2


@pytest.mark.parametrize(("path", "value", "text"), PLANTED, ids=[path for path, _, _ in PLANTED])
def test_each_fault_alone_is_the_only_one(config, path, value, text):
    report = check.check_run(planted(config, [(path, value, text)]))
    found = messages(report)
    assert any(text in message for message in found)
    assert len(found) <= 2, found  # a missing value may follow from a misspelt one
    assert not report.faults("data")


@pytest.mark.parametrize("monitor", ["max val_miou", "min val_loss"])
@pytest.mark.parametrize("broken", [["train"], ["valid"], ["test"], ["train", "valid"], ["train", "valid", "test"]])
def test_data_that_is_not_there_is_no_fault_of_the_file(config, tmp_path, broken, monitor):
    config["loss"][0]["args"] = {"weight": "balanced"}
    config["trainer"]["monitor"] = monitor
    for split in broken:
        config[f"{split}_loader"]["args"]["folder"] = str(tmp_path / "nowhere" / split)
    report = check.check_run(config)
    assert [finding.message for finding in report.faults("config")] == []
    found = messages(report)
    assert [split for split in broken if not any(f"nowhere/{split}" in message for message in found)] == []
    with pytest.raises(DataError):  # and the exit code 3
        report.raise_faults()


def test_the_rest_of_the_file_is_checked_without_the_data_of_a_split(config, tmp_path):
    config["valid_loader"]["args"]["folder"] = str(tmp_path / "nowhere")
    config["trainer"]["monitor"] = "max val_mio"
    assert len(check.check_run(config).faults("config")) == 1
    config["train_loader"]["args"]["folder"] = str(tmp_path / "nowhere")
    config["loss"][0]["args"] = {"weight": [1.0, 2.0, 3.0]}  # the test data has two classes
    (fault,) = check.check_run(config).faults("config")
    assert fault.place.startswith("loss.0")


def test_series_for_validation_need_the_statistics_of_the_training_data(config, tmp_path):
    np.savez(tmp_path / "series.npz", x=np.random.default_rng(0).normal(size=(6, 2, 9)), y=np.arange(6) % 2)
    config["arch"] = {"type": "FCN", "args": {"channels": [4, 4, 4]}}
    config["metrics"], config["loss"] = ["accuracy"], "ce_loss"
    config["trainer"]["monitor"] = "max val_accuracy"
    for split, file in (("train", "nowhere.npz"), ("valid", "series.npz"), ("test", "series.npz")):
        args = {"path": str(tmp_path / file), "batch_size": 2}
        config[f"{split}_loader"] = {"type": "TimeSeriesDataLoader", "args": args}
    report = check.check_run(config)
    assert [each.message for each in report.findings] == [report.faults("data")[0].message]
    assert "the data of valid_loader: it needs what the training data settles." in report.notes


@pytest.mark.parametrize(("name", "value"), [("validation_split", 0.99), ("folds", 5), ("folds", {"fold": 7, "of": 4})])
def test_a_wrong_division_leaves_the_monitor_alone(config, name, value):
    config["data_loader"] = config.pop("train_loader")
    del config["valid_loader"]
    config["data_loader"]["args"][name] = value
    (message,) = messages(check.check_run(config))
    assert name in message or "Wrong folds" in message


def test_a_step_is_tried_although_the_monitor_will_never_exist(config):
    config["trainer"]["monitor"] = "max val_mio"
    report = check.check_run(config)
    (message,) = messages(report)
    assert "val_mio" in message
    assert "per epoch of 2 steps" in report.forecast
    assert report.notes == []


def test_files_of_unread_kinds_are_among_the_warnings(config, tmp_path):
    for name in ("a.heic", "b.gif", "c.gif"):
        (tmp_path / "photos/data/train" / name).write_bytes(b"x")
    report = check.check_run(config)
    (warning,) = [each for each in report.warnings if "gif" in each.message]
    assert warning.place == "train_loader"
    assert "1 .heic" in warning.message
    assert "2 .gif" in warning.message
    assert messages(report) == []


def test_a_transform_that_cannot_be_applied_to_any_image_is_one_fault(config):
    crop = {"type": "albumentations.RandomCrop", "args": {"height": 64, "width": 64}}
    config["train_loader"]["args"]["transforms"] = [crop]
    (fault,) = check.check_run(config).findings
    assert fault.place == "train_loader.args.transforms"


PLUGIN = """
import torch
from base import BaseDataLoader


class Samples(torch.utils.data.Dataset):
    def __init__(self, faulty):
        self.faulty = faulty

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index in self.faulty:
            raise OSError("the server is gone")
        return torch.rand(3, 16, 16), torch.randint(0, 2, (16, 16))


class Loader(BaseDataLoader):
    def __init__(self, faulty=(), is_training=True):
        super().__init__(Samples(faulty), 2, shuffle=is_training, is_training=is_training)
        self.num_classes = 2
"""


@pytest.mark.parametrize("faulty", [[3], [0, 1, 2, 3, 4, 5]])
def test_a_data_set_of_a_plug_in_may_raise_any_error(config, tmp_path, faulty):
    name = f"served_{len(faulty)}"  # a module is loaded once
    (tmp_path / f"{name}.py").write_text(PLUGIN)
    load_plugins([str(tmp_path / f"{name}.py")])
    del config["test_loader"]
    for section in ("train_loader", "valid_loader"):
        config[section] = {"type": f"{name}.Loader", "args": {"faulty": faulty}}
    report = check.check_run(config)
    assert [each.place for each in report.findings if each.is_fault] == [
        f"{section}, sample {index}" for section in ("train_loader", "valid_loader") for index in faulty
    ]
    assert bool(report.forecast) is (len(faulty) == 1)


@pytest.mark.parametrize("value", [5, [0, 5], "0 of 5"])
def test_a_value_of_the_wrong_kind_is_one_fault(config, value):
    config["data_loader"] = config.pop("train_loader")
    del config["valid_loader"], config["test_loader"]
    config["trainer"]["monitor"] = "off"
    config["data_loader"]["args"]["folds"] = value
    (message,) = messages(check.check_run(config))
    assert "olds" in message


def test_a_misspelt_name_is_read_as_the_suggested_one(config):
    config["arch"]["args"]["chanels"] = config["arch"]["args"].pop("channels")
    config["optimizer"]["type"] = "AdmW"
    sound = sound_part(config, registry())
    assert sound.config["arch"]["args"]["channels"] == [4, 8]
    assert sound.config["optimizer"] == {"type": "AdamW", "args": {"lr": 0.01}}
    assert len(sound.faults) == 2
    assert sound.stand_ins == set()


def test_what_cannot_be_without_a_value_gets_a_stand_in(config):
    del config["optimizer"]
    config["loss"][1] = {"args": {}}
    config["trainer"].pop("epochs")
    sound = sound_part(config, registry())
    assert [place_of(fault) for fault in sound.faults] == ["optimizer", "trainer.epochs", "loss.1.type"]
    assert sound.stand_ins == {"optimizer", "loss.1", "trainer.epochs"}
    assert not sound.is_own("optimizer")
    assert sound.is_own("loss.0")
    assert sound.is_own("train_loader")


@pytest.mark.parametrize(
    ("message", "place"),
    [
        ("optimizer.args.lr: 3 must be", "optimizer.args.lr"),
        ("seed: -1 must be", "seed"),
        ("metrics.0.type: unknown", "metrics.0.type"),
        ("Wrong size 3: it must be", ""),
        ("data/a.png: cannot be read", ""),
    ],
)
def test_the_place_of_a_message(message, place):
    assert place_of(message) == place


def test_a_search_space_is_refused_and_nothing_else_is_tried(config):
    config["optimizer"]["args"]["lr"] = {"$uniform": [0, 1]}
    report = check.check_run(config)
    assert len(messages(report)) == 1
    assert "search markers" in messages(report)[0]
    assert report.notes


def run(config, tmp_path, *flags):
    file = tmp_path / "c.json"
    file.write_text(json.dumps(config))
    train.main(train.parser().parse_args(["-c", str(file), "--check", *flags]))


@pytest.mark.parametrize("place", ["saved", "saved/{name}"])
def test_a_place_that_cannot_be_written_is_a_fault(config, tmp_path, place):
    blocked = tmp_path / place.format(name=config["name"])
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("a file")
    config["trainer"]["save_dir"] = str(tmp_path / "saved")
    (found,) = [each for each in check.check_run(config).findings if each.place == "trainer.save_dir"]
    assert found.is_fault
    assert f"{blocked} is not a folder" in found.message


def test_the_command_prints_a_table_and_writes_json(config, tmp_path, capsys):
    before = {*tmp_path.rglob("*")}
    found = tmp_path / "new/found.json"
    run(config, tmp_path, "--json", str(found))
    out = capsys.readouterr().out
    assert "The configuration is good" in out
    assert {*tmp_path.rglob("*")} - before == {tmp_path / "c.json", found.parent, found}
    assert "Parameters" in out
    content = json.loads(found.read_text())
    assert content["faults"] == []
    assert set(content["splits"]) == {"train", "valid", "test"}


def test_faults_of_both_kinds_end_with_the_code_of_the_configuration(config, tmp_path, capsys):
    (tmp_path / "photos/data/val/11.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="faults found: 1 in the data"):
        run(config, tmp_path)
    config["trainer"]["ema"] = 2
    with pytest.raises(ConfigError, match="faults found: 1 in the configuration and 1 in the data") as raised:
        run(config, tmp_path, "--json", str(tmp_path / "found.json"))
    assert raised.value.exit_code == 2
    out = capsys.readouterr().out
    assert "11.png" in out
    assert "Faults in the configuration: 1" in out
    kinds = [fault["kind"] for fault in json.loads((tmp_path / "found.json").read_text())["faults"]]
    assert sorted(kinds) == ["config", "data"]


def test_a_long_list_is_cut_on_the_screen_and_whole_in_json():
    report = CheckReport(
        [Finding("data", f"{number}.png", f"{number}.png is cut off. Replace it.") for number in range(130)]
    )
    text = report.text(80)
    assert "Faults in the data: 130" in text
    assert "  99.png   is cut off. Replace it." in text
    assert "100.png" not in text
    assert "... and 30 more; --json FILE writes all of them." in text
    assert len(report.as_json()["faults"]) == 130
    assert max(map(len, text.splitlines())) <= 80


def test_a_name_with_control_characters_stays_on_its_line():
    text = CheckReport([Finding("data", "a\n\x1b[1m\udcff.png", "a\n\x1b[1m\udcff.png is cut off.")]).text(80)
    assert text.splitlines()[1] == r"  a\n\x1b[1m\udcff.png  is cut off."


def test_json_needs_the_check(config, tmp_path):
    file = tmp_path / "c.json"
    file.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="Add --check"):
        train.main(train.parser().parse_args(["-c", str(file), "--json", "x.json"]))


def test_the_findings_do_not_replace_the_configuration(config, tmp_path):
    with pytest.raises(ConfigError, match=r"would write over .*, which this command reads"):
        run(config, tmp_path, "--json", str(tmp_path / "c.json"))
    assert json.loads((tmp_path / "c.json").read_text()) == config


def test_the_folder_of_the_findings_is_made(config, tmp_path):
    run(config, tmp_path, "--json", str(tmp_path / "new/folder/found.json"))
    assert json.loads((tmp_path / "new/folder/found.json").read_text())["faults"] == []


def test_what_was_found_is_shown_if_its_file_cannot_be_written(config, tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train, "write_json", refuse)
    with pytest.raises(ConfigError, match="cannot be written, No space left on device"):
        run(config, tmp_path, "--json", str(tmp_path / "found.json"))
    assert "Share of the labels" in capsys.readouterr().out


def test_a_plug_in_that_exits_does_not_end_the_check_as_good(config, tmp_path):
    (tmp_path / "leaving_parts.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ConfigError, match="importing it failed with SystemExit"):
        run(config, tmp_path, "--plugin", str(tmp_path / "leaving_parts.py"))


def test_a_file_that_is_no_json_leaves_no_report_of_an_earlier_one(config, tmp_path):
    found = tmp_path / "found.json"
    run(config, tmp_path, "--json", str(found))
    (tmp_path / "c.json").write_text('{"name": "a", "name": "b",')
    with pytest.raises(ConfigError, match="the file ends too early"):
        train.main(train.parser().parse_args(["-c", str(tmp_path / "c.json"), "--check", "--json", str(found)]))
    (fault,) = json.loads(found.read_text())["faults"]
    assert fault["kind"] == "config"
    assert "the file ends too early" in fault["message"]


def test_a_check_and_a_dev_run_are_two_commands(config, tmp_path):
    with pytest.raises(ConfigError, match="--check with --fast-dev-run: a check tries a step, too"):
        run(config, tmp_path, "--fast-dev-run")


def test_overrides_are_checked_with_the_file(config, tmp_path):
    file = tmp_path / "c.json"
    file.write_text(json.dumps(config))
    loaded = load_config(file)
    apply_override(loaded, "trainer.epochs=-1")
    assert messages(check.check_run(loaded)) == ["trainer.epochs: -1 must be an integer >= 1."]


def test_data_that_cannot_be_loaded_is_no_fault_of_network_loss_and_metrics(config, tmp_path):
    config["loss"] = [{"type": "ce_loss", "args": {"weight": "balanced"}}]
    for section in ("train_loader", "valid_loader", "test_loader"):
        config[section]["args"]["folder"] = str(tmp_path / "absent")
    report = check.check_run(config)
    assert {fault.place for fault in report.faults("data")} == {"train_loader", "valid_loader", "test_loader"}
    assert report.faults("config") == []
    config["valid_loader"]["args"]["folder"] = str(tmp_path / "photos")
    assert check.check_run(config).faults("config") == []


def test_classes_that_only_missing_data_would_tell_are_guessed_for_the_network_alone(config, tmp_path):
    for section in ("train_loader", "valid_loader", "test_loader"):
        config[section] = {"type": "ImageClassificationDataLoader", "args": {"folder": str(tmp_path / "absent")}}
    config |= {"arch": {"type": "ConvNet", "args": {"channels": [0]}}, "loss": "ce_loss", "metrics": ["accuracy"]}
    config["trainer"]["monitor"] = "max val_accuracy"
    report = check.check_run(config)
    assert [fault.place for fault in report.faults("config")] == ["arch.args.channels"]
    assert any("only the data says the classes" in note for note in report.notes)


def test_metrics_of_equal_results_are_two_faults_with_a_place_each(config):
    config["metrics"] = ["miou", "miou", "accuracy", "accuracy"]
    assert [fault.place for fault in check.check_run(config).faults("config")] == ["metrics.1", "metrics.3"]


def test_classes_that_disagree_are_one_fault_for_each_section(config):
    config["train_loader"]["args"]["classes"] = ["background", "box", "lid"]
    found = [fault.place for fault in check.check_run(config).faults("config")]
    assert found == ["valid_loader.args.classes", "test_loader.args.classes"]


def test_validation_data_that_is_missing_is_no_fault_of_the_monitor(config, tmp_path):
    config["valid_loader"]["args"]["folder"] = str(tmp_path / "absent")
    report = check.check_run(config)
    assert {fault.place for fault in report.faults("data")} == {"valid_loader"}
    assert report.faults("config") == []
    assert report.forecast  # a step was tried
    config["trainer"]["monitor"] = "max val_mio"
    assert [fault.place for fault in check.check_run(config).faults("config")] == ["trainer.monitor"]


ODD_PLUGIN = """
import sys
from torch import nn
import torch
from base import BaseDataLoader, BaseModel, Metric
from utils.errors import ConfigError

class Net(BaseModel):
    def __init__(self, num_classes: int, at: str) -> None:
        super().__init__()
        self.at, self.head = at, nn.Conv2d(3, num_classes, 1)
        if at == "file":
            open("absent.bin")
        if at == "exit":
            sys.exit(0)

    def forward(self, x):
        if self.at == "exit_forward":
            sys.exit(0)
        return self.head(x).view(2, 2, *x.shape[2:]) if self.at == "batch" else self.head(x)

class Results(Metric):
    def reset(self): pass
    def update(self, logits, target): pass
    def compute(self): raise ValueError("no pixels")

class Holey(BaseDataLoader):
    def __init__(self, seed: int = 0) -> None:
        samples = [(torch.zeros(3, 16, 16), torch.zeros(16, 16).long())] * 3
        super().__init__(Samples(samples), 2, shuffle=False, seed=seed)
        self.num_classes = 2

class Samples(list):
    def __getitem__(self, index):
        return {}["absent"] if index == 1 else super().__getitem__(index)

class Refusing(Results):
    def update(self, logits, target): raise ConfigError("Refusing takes no images. Leave it out of metrics.")
    def compute(self): return {"refusing": 1.0}

class Counts(Results):
    def update(self, logits, target): raise KeyError("pixels")
    def compute(self): return {"counts": 1.0}
"""


@pytest.fixture(scope="module")
def odd_parts(tmp_path_factory):
    """Loaded once: a module cannot be loaded from two places."""
    file = tmp_path_factory.mktemp("plugins") / "odd_parts.py"
    file.write_text(ODD_PLUGIN)
    load_plugins([str(file)])


def odd_net(at):
    return {"arch": {"type": "odd_parts.Net", "args": {"at": at}}}


@pytest.mark.usefixtures("odd_parts")
@pytest.mark.parametrize(
    ("parts", "place", "text"),
    [
        (odd_net("file"), "arch", "FileNotFoundError: [Errno 2] No such file or directory: 'absent.bin'"),
        (odd_net("exit"), "arch", "SystemExit: 0"),
        (odd_net("exit_forward"), "trainer", "SystemExit: 0"),
        ({"metrics": ["miou", "odd_parts.Results"]}, "metrics", "ValueError: no pixels"),
        (
            {"metrics": ["miou", "odd_parts.Counts"]},
            "metrics",
            "Counts cannot count an output of 2x2x32x24: KeyError: 'pixels'",
        ),
    ],
)
def test_whatever_the_code_of_a_plug_in_raises_is_one_fault(config, parts, place, text):
    report = check.check_run(config | parts)
    assert [fault.place for fault in report.faults("config")] == [place]
    assert text in messages(report)[0]
    assert report.tables  # the data was read all the same


@pytest.mark.usefixtures("odd_parts")
def test_a_network_without_a_summary_is_good(config):
    report = check.check_run(config | odd_net("batch"))  # it takes two samples, no single one
    assert messages(report) == []
    assert any(note.startswith("the summary of the network: ") for note in report.notes)


def test_a_schedule_that_cannot_move_is_found_before_the_first_step(config):
    config["lr_scheduler"] = {"type": "StepLR", "args": {"step_size": 0}}
    assert [fault.place for fault in check.check_run(config).faults("config")] == ["lr_scheduler"]


def test_a_part_that_is_held_out_wrongly_is_no_fault_of_the_monitor(config):
    config["data_loader"] = config.pop("train_loader")
    config["data_loader"]["args"]["validation_split"] = 0.001
    del config["valid_loader"]
    assert [fault.place for fault in check.check_run(config).faults("config")] == ["data_loader"]


def test_what_the_reading_found_is_not_told_again_of_the_batch(config):
    config["train_loader"]["args"]["transforms"] = [{"type": "RandomCrop", "args": {"height": 100, "width": 100}}]
    report = check.check_run(config)
    assert [fault.place for fault in report.faults("config")] == ["train_loader.args.transforms"]
    assert any("a step of the training" in note for note in report.notes)


def test_class_weights_are_followed_through_shapes(config, capfd):
    config["loss"] = [{"type": "ce_loss", "args": {"weight": "balanced"}}]
    check.check_run(config)
    assert "fake_tensor" not in capfd.readouterr().err


def test_files_that_are_all_faulty_are_not_told_again_of_the_batch(config, tmp_path):
    for file in (tmp_path / "photos/data/train").iterdir():
        file.write_bytes(b"no image")
    report = check.check_run(config)
    assert [fault.place for fault in report.faults("data")] == [
        str(tmp_path / f"photos/data/train/{number}.png") for number in range(4)
    ]


def test_an_argument_that_is_no_cause_does_not_repeat_a_fault(config):
    config["optimizer"]["args"]["betas"] = [0.9, 2]
    found = messages(check.check_run(config))
    assert len(found) == 1
    assert "Invalid beta parameter at index 1" in found[0]


@pytest.mark.parametrize(
    ("section", "value", "place"),
    [
        ("loss", "bce_loss", "loss"),
        ("loss", "torch.nn.MSELoss", "loss"),
        ("metrics", ["odd_parts.Refusing"], "metrics"),
    ],
)
@pytest.mark.usefixtures("odd_parts")
def test_what_a_loss_or_metric_refuses_is_not_a_fault_of_the_network(config, section, value, place):
    config[section], config["trainer"]["monitor"] = value, "off"
    assert [fault.place for fault in check.check_run(config).faults("config")] == [place]


def test_what_a_run_cannot_be_saved_with_is_found(config, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    config["trainer"]["save_dir"] = str(tmp_path / "file")
    config["visualization"] = {"wandb": {"project": "x"}}
    monkeypatch.setattr("logger.trackers.find_spec", lambda _: None)
    found = [fault.place for fault in check.check_run(config).faults("config")]
    assert found == ["visualization.wandb", "trainer.save_dir"]


def test_values_of_the_training_data_are_no_fault_of_other_splits(config, tmp_path):
    head = "@univariate true\n@classLabel true a b\n@data\n"
    (tmp_path / "x_TRAIN.ts").write_text(f"{head}1,2,3:c\n")
    (tmp_path / "x_TEST.ts").write_text(f"{head}1,2,3:a\n2,3,1:b\n")
    for section, split in (("train_loader", "TRAIN"), ("valid_loader", "TEST"), ("test_loader", "TEST")):
        config[section] = {"type": "TimeSeriesDataLoader", "args": {"path": str(tmp_path / f"x_{split}.ts")}}
    config |= {"arch": "FCN", "loss": "ce_loss", "metrics": ["accuracy"]}
    config["trainer"]["monitor"] = "max val_accuracy"
    report = check.check_run(config)
    assert report.faults("config") == []
    assert report.faults("data")


@pytest.mark.usefixtures("odd_parts")
def test_a_sample_that_a_plug_in_cannot_load_is_a_fault_of_the_data_alone(config):
    config["train_loader"] = "odd_parts.Holey"
    report = check.check_run(config)
    assert [fault.place for fault in report.faults("data")] == ["train_loader, sample 1"]
    assert report.faults("config") == []
