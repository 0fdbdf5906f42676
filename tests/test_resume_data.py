"""A run continues with the data it began with, wherever that lies, in the newest folder of that run."""

import copy
import json
import shutil
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import test as test_command
from base.samples import data_identity
from build import build_loaders
from tests.support.loader_cases import random_image, random_mask, save
from train import main, parser, train
from trainer.checkpoints.resume import resolve_start, run_folders
from trainer.checkpoints.same_data import identify_data
from utils.checkpoint_file import read_checkpoint
from utils.errors import CheckpointError, ConfigError, DataError

SIZE = (12, 16)


def common(folder, name, loader, train_args, valid_args):
    return {
        "name": name,
        "n_gpu": 0,
        "train_loader": {"type": loader, "args": {"batch_size": 2, **train_args}},
        "valid_loader": {"type": loader, "args": {"batch_size": 2, **valid_args}},
        "optimizer": {"type": "SGD", "args": {"lr": 0.01}},
        "loss": "ce_loss",
        "trainer": {"epochs": 1, "save_dir": str(folder / "saved"), "tensorboard": False, "verbosity": 0},
    }


def class_folders(folder):
    for part, count in (("train", 2), ("val", 1)):
        for number, name in enumerate(("cat", "dog")):
            for index in range(count):
                save(folder / f"data/{part}/{name}/{index}.png", random_image(10 * number + index, SIZE))
    args = {"folder": str(folder / "data")}
    return {
        **common(folder, "folders", "ImageClassificationDataLoader", args, args),
        "arch": {"type": "ConvNet", "args": {"channels": [4]}},
    }


def list_of_images(folder):
    for index in range(4):
        save(folder / f"data/{index}.png", random_image(index, SIZE))
    (folder / "data/list.txt").write_text(
        "".join(f"{index}.png,{'dog' if index % 2 else 'cat'}\n" for index in range(4))
    )
    args = {"list_file": str(folder / "data/list.txt")}
    return {
        **common(folder, "list", "ImageClassificationDataLoader", args, args),
        "arch": {"type": "ConvNet", "args": {"channels": [4]}},
    }


def pairs(folder):
    for index in range(4):
        save(folder / f"data/{index}.png", random_image(index, SIZE))
        save(folder / f"data/{index}m.png", random_mask(index, [0, 1], SIZE))
    (folder / "data/list.txt").write_text("".join(f"{index}.png,{index}m.png\n" for index in range(4)))
    args = {"pairs_file": str(folder / "data/list.txt"), "classes": ["background", "person"], "resize": list(SIZE)}
    return {
        **common(folder, "pairs", "SegmentationDataLoader", args, args),
        "arch": {"type": "UNet", "args": {"channels": [4, 4]}},
    }


def series(folder):
    (folder / "data").mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for part in ("TRAIN", "VAL"):
        labels = np.array(["fall", "rise"] * 3)
        np.savez(folder / f"data/Toy_{part}.npz", x=generator.normal(size=(6, 1, 8)).astype(np.float32), y=labels)
    args = {"path": str(folder / "data"), "scaling": 0.1}
    return {
        **common(folder, "series", "TimeSeriesDataLoader", {**args, "split": "train"}, {"path": args["path"]}),
        "arch": {"type": "FCN", "args": {"channels": [4, 4, 4]}},
    }


EVERY_KIND = [class_folders, list_of_images, pairs, series]


def moved(config, folder):
    """Move the data, and return the config that says where it is now."""
    shutil.move(folder / "data", folder / "elsewhere")
    return json.loads(json.dumps(config).replace(f"{folder}/data", f"{folder}/elsewhere"))


def longer(config, epochs=2):
    changed = copy.deepcopy(config)
    changed["trainer"]["epochs"] = epochs
    return changed


@pytest.mark.parametrize("make", EVERY_KIND)
def test_moved_data_continues_exactly(tmp_path, make):
    config = make(tmp_path)
    straight = train(longer(config), run_folder=tmp_path / "straight")
    first = train(config)
    assert read_checkpoint(first.run_folder / "checkpoint-last.pth")["data"]["train"]["digest"]
    config = moved(config, tmp_path)
    result = train(longer(config), resume="last")
    assert result.run_folder == first.run_folder
    assert result.history == straight.history


def test_moved_data_continues_without_the_config(tmp_path):
    config = pairs(tmp_path)
    config["trainer"] |= {"epochs": 2, "max_time": 1e-9}  # the first session ends at its first step
    run = train(config).run_folder
    moved(config, tmp_path)
    with pytest.raises(DataError, match=r"data/list\.txt does not exist"):
        train(None, resume=str(run))
    places = [f"{each}_loader.args.pairs_file={tmp_path}/elsewhere/list.txt" for each in ("train", "valid")]
    argv = ["--resume", str(run), *places]
    main(parser().parse_intermixed_args(argv))  # a step more: the limit is that of the checkpoint's config
    assert read_checkpoint(run / "checkpoint-last.pth")["global_step"] == 2
    with pytest.raises(ConfigError, match=r"seed=2: overrides change a file, and none is named"):
        main(parser().parse_intermixed_args([*argv, "seed=2"]))
    (tmp_path / "elsewhere/list.txt").write_text("0.png,0m.png\n1.png,1m.png\n")
    with pytest.raises(CheckpointError, match="the train data has 2 samples, not 4"):
        main(parser().parse_intermixed_args(argv))


def test_data_given_in_another_way_is_the_same_data(tmp_path):
    config = pairs(tmp_path)
    train(config)
    for section in ("train_loader", "valid_loader"):
        config[section]["args"]["data_root"] = str(tmp_path / "data")
    result = train(longer(config), resume="auto")
    assert (len(result.history), len(run_folders(config))) == (2, 1)


def test_other_data_at_another_place_begins_a_new_run(tmp_path):
    config = pairs(tmp_path)
    first = train(config)
    config = moved(config, tmp_path)
    (tmp_path / "elsewhere/0.png").rename(tmp_path / "elsewhere/9.png")
    file = tmp_path / "elsewhere/list.txt"
    file.write_text(file.read_text().replace("0.png", "9.png"))
    with pytest.raises(CheckpointError, match=r"differs at train_loader.args.pairs_file.* samples there are others or"):
        train(longer(config), resume="last")
    assert train(longer(config), resume="auto").run_folder != first.run_folder


def rename_class(folder):
    for part in ("train", "val"):
        (folder / f"data/{part}/cat").rename(folder / f"data/{part}/zebra")


def relabel(folder):
    file = folder / "data/list.txt"
    file.write_text(file.read_text().replace("cat", "zebra"))


def swap_labels(folder):
    file = folder / "data/list.txt"
    file.write_text(file.read_text().replace("1.png,dog", "1.png,cat"))


def add_image(folder):
    save(folder / "data/train/cat/7.png", random_image(7, SIZE))


def drop_pair(folder):
    file = folder / "data/list.txt"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def other_series(folder):
    np.savez(folder / "data/Toy_TRAIN.npz", x=np.random.default_rng(5).normal(size=(6, 1, 8)), y=["fall", "rise"] * 3)


def other_class(folder):
    for part in ("TRAIN", "VAL"):
        file = folder / f"data/Toy_{part}.npz"
        np.savez(file, x=np.load(file)["x"], y=["jump", "rise"] * 3)


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (class_folders, rename_class, r"train_loader\.args\.classes is dog, zebra, not cat, dog"),
        (list_of_images, relabel, r"train_loader\.args\.classes is dog, zebra, not cat, dog"),
        (list_of_images, swap_labels, r"names or classes of the samples of the train data are others"),
        (class_folders, add_image, r"the train data has 5 samples, not 4"),
        (pairs, drop_pair, r"the train data has 3 samples, not 4"),
        (series, other_series, r"train_loader\.args\.std is \d.*, not \d"),
        (series, other_class, r"train_loader\.args\.classes is jump, rise, not fall, rise"),
    ],
)
@pytest.mark.parametrize("resume", ["auto", "last"])
def test_other_data_is_refused(tmp_path, make, change, message, resume):
    config = make(tmp_path)
    before = train(config).run_folder
    stored = (before / "checkpoint-last.pth").read_bytes()
    change(tmp_path)
    with pytest.raises(CheckpointError, match=rf"The data is not that of the checkpoint: .*{message}.*Undo the change"):
        train(longer(config), resume=resume)
    assert (before / "checkpoint-last.pth").read_bytes() == stored
    assert run_folders(config) == [before]


def test_a_run_of_an_earlier_version_is_compared_by_its_classes(tmp_path, monkeypatch):
    config = class_folders(tmp_path)
    monkeypatch.setattr("trainer.checkpoints.saving.plain", _without_data)
    train(config)
    monkeypatch.undo()
    assert resolve_start(config, "last").state["data"] == {}
    assert train(longer(config), resume="last").epochs == 2
    rename_class(tmp_path)
    with pytest.raises(CheckpointError, match="classes is dog, zebra, not cat, dog"):
        train(longer(config, 3), resume="auto")
    with pytest.raises(DataError, match='of the class "zebra"'):
        train(None, resume=str(run_folders(config)[0]))


def _without_data(value):
    from trainer.checkpoints.saving import Tensor

    if isinstance(value, dict):
        return (
            {} if "train" in value and "samples" in value["train"] else {k: _without_data(v) for k, v in value.items()}
        )
    if isinstance(value, list | tuple):
        return [_without_data(item) for item in value]
    return value.detach() if isinstance(value, Tensor) else value


def test_a_data_set_of_a_plugin_is_known_by_its_size():
    assert data_identity([1, 2, 3], [0, 2]) == {"samples": 2, "digest": None}


def test_the_identity_does_not_depend_on_the_place(tmp_path):
    config = pairs(tmp_path / "a")
    pairs(tmp_path / "b/c")
    other = json.loads(json.dumps(config).replace(f"{tmp_path}/a", f"{tmp_path}/b/c"))
    assert identify_data(*build_loaders(config)) == identify_data(*build_loaders(other))


def test_a_copy_of_a_run_stays_as_it_is(tmp_path):
    config = pairs(tmp_path)
    run = train(config).run_folder
    for name in (f"{run.name}_backup", "zz_copy", f"copy of {run.name}"):
        shutil.copytree(run, run.parent / name)
    assert run_folders(config)[0] == run
    assert train(longer(config), resume="auto").run_folder == run
    shutil.rmtree(run)  # then the copy is all there is
    assert train(longer(config), resume="auto").run_folder != run


def stamped(folder, stamp, *, name=None, has_record=True):
    """A run folder as `run_folders` looks at it."""
    path = folder / (name or stamp)
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "checkpoint-last.pth").touch()
    (path / "environment.json").write_text(json.dumps({"folder": stamp} if has_record else {}))
    return path


def test_runs_are_ordered_by_their_beginning_not_by_their_name(tmp_path):
    config = {"name": "run", "trainer": {"save_dir": str(tmp_path)}}
    parent = tmp_path / "run"
    oldest = stamped(parent, "20250101_120000", name="good_run")
    second = stamped(parent, "20250102_120000")
    copied = stamped(parent, "20250102_120000", name="20250102_120000_backup")
    plain_copy = stamped(parent, "20250103_120000", name="20250103_120000_old", has_record=False)
    third = stamped(parent, "20250103_120000", has_record=False)
    damaged = stamped(parent, "20250104_120000")
    (damaged / "environment.json").write_text('["no object"]')
    newest = stamped(parent, "x", name="a_word", has_record=False)  # of an earlier version, renamed: by its files
    assert run_folders(config) == [newest, damaged, third, plain_copy, second, copied, oldest]


def test_recorded_times_decide_and_names_do_not(tmp_path):
    """Names of local times: those of a clock that was set back, or of another time zone, are not in order."""
    config = {"name": "run", "trainer": {"save_dir": str(tmp_path)}}
    began = {"20260102_000000": "2026-01-01T10:00:00+00:00", "20260101_000000": "2026-01-01T13:30:00.5+02:00"}
    folders = [stamped(tmp_path / "run", name) for name in began]
    for folder, started in zip(folders, began.values(), strict=True):
        (folder / "environment.json").write_text(json.dumps({"folder": folder.name, "started": started}))
    assert run_folders(config) == folders[::-1]


def test_a_run_records_when_it_began_and_is_named_by_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        run = train(pairs(tmp_path)).run_folder
    finally:
        monkeypatch.undo()
        time.tzset()
    started = datetime.fromisoformat(json.loads((run / "environment.json").read_text())["started"])
    assert started.utcoffset() == timedelta(0)
    named = datetime.strptime(run.name, "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
    assert timedelta(0) <= started - named < timedelta(minutes=1)


def test_a_folder_with_weights_of_others_alone_is_no_run(tmp_path):
    config = {"name": "run", "trainer": {"save_dir": str(tmp_path)}}
    foreign = stamped(tmp_path / "run", "20260102_000000")
    (foreign / "checkpoint-last.pth").rename(foreign / "resnet18.pth")
    run = stamped(tmp_path / "run", "20260101_000000")
    assert run_folders(config) == [run]


@pytest.mark.parametrize("order", [["dog", "cat"], ["cat", "dog", "emu"]])
def test_validation_with_other_classes_is_refused(tmp_path, order):
    config = class_folders(tmp_path)
    config["valid_loader"]["args"]["classes"] = order
    named = str(order).replace("'", '"').replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(
        ConfigError, match=rf'valid_loader\.args\.classes: {named}, but .* \["cat", "dog"\]. .*say it on'
    ):
        build_loaders(config)
    config["train_loader"]["args"]["classes"] = ["cat", "dog"]
    message = rf'valid_loader\.args\.classes: {named}, but train_loader\.args\.classes is \["cat", "dog"\]\. Both must'
    with pytest.raises(ConfigError, match=message):
        train(config)


@pytest.mark.parametrize("section", ["valid_loader", "test_loader"])
def test_classes_of_masks_have_one_order(tmp_path, section):
    config = pairs(tmp_path)
    config[section] = copy.deepcopy(config["train_loader"])
    config[section]["args"]["classes"] = ["person", "background"]
    with pytest.raises(ConfigError, match=rf'{section}\.args\.classes: \["person", "background"\], but train_loader'):
        train(config)


def test_loaders_that_name_no_classes_agree_with_any(tmp_path):
    config = pairs(tmp_path)
    config["valid_loader"]["args"] |= {"classes": None, "num_classes": 2}
    build_loaders(config)


def test_a_test_with_classes_in_another_order_is_refused(tmp_path):
    config = class_folders(tmp_path)
    saved = read_checkpoint(train(config).run_folder / "checkpoint-last.pth")["config"]
    asked = {"test_loader": copy.deepcopy(config["valid_loader"])}
    asked["test_loader"]["args"] |= {"split": "val"}
    assert test_command.for_evaluation(saved, asked)["test_loader"]["args"]["classes"] == ["cat", "dog"]
    asked["test_loader"]["args"] |= {"classes": ["dog", "cat"]}
    with pytest.raises(
        ConfigError, match=r'test_loader\.args\.classes: \["dog", "cat"\], but the checkpoint has \["cat"'
    ):
        test_command.for_evaluation(saved, asked)
