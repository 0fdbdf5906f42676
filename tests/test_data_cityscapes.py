"""Cityscapes as it is unpacked, up to images for its server."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from test_inference import save_untrained, use

import test as evaluation
import train
from base.samples import NamedMask
from build import build_loader
from config import cli, load_config
from data_loader.images.files import read_mask
from data_loader.segmentation.cityscapes import CLASS_IDS, CityscapesDataLoader
from logger.test_report.predictions import PredictionFiles, prediction_names, require_export_folder
from tests.support.groups import from_flat
from tests.support.loader_cases import cityscapes, random_mask, save
from utils.errors import ConfigError, DataError
from utils.geometry import Geometry

CONFIG = Path(__file__).parents[1] / "config/cityscapes/deeplabv3plus.json"


@pytest.fixture
def folder(tmp_path):
    cityscapes(tmp_path / "cs")
    return tmp_path / "cs"


def load(folder, **arguments):
    return from_flat(CityscapesDataLoader, str(folder), **{"batch_size": 7, **arguments})


def test_raw_ids_become_the_19_classes_and_all_else_is_ignored(folder):
    loader = load(folder, is_training=False)
    assert (loader.num_classes, loader.ignore_index, loader.class_names[0]) == (19, 255, "road")
    _, masks, sources = next(iter(loader))
    classes = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13}
    classes |= {27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    assert sorted(classes) == list(CLASS_IDS.values())
    raw = read_mask(sources[0].name.replace("leftImg8bit", "gtFine", 1).replace("_leftImg8bit", "_gtFine_labelIds"))
    expected = [[classes.get(value, 255) for value in row] for row in raw.tolist()]
    assert masks[0].tolist() == expected


def test_images_come_by_city_and_name(folder):
    names = [Path(source.name).name for source in next(iter(load(folder, is_training=False)))[2]]
    assert names[0] == "aachen_000000_000019_leftImg8bit.png"
    assert [name[:4] for name in names] == ["aach"] * 4 + ["bonn"] * 3
    assert load(folder, samples=5).num_samples == 5
    assert load(folder, split="val").num_samples == 7


def test_train_ids_are_read_where_they_are_asked_for(folder):
    for path in folder.rglob("*_labelIds.png"):
        save(path.with_name(path.name.replace("labelIds", "labelTrainIds")), random_mask(1, [0, 18, 255]))
    masks = next(iter(load(folder, label_kind="labelTrainIds")))[1]
    assert set(masks.unique().tolist()) == {0, 18, 255}


def test_other_classes_by_a_map(folder):
    loader = load(folder, label_map={"24": 0, "25": 0, "26": 1}, classes=["person", "car"], is_training=False)
    assert (loader.num_classes, loader.class_names) == (2, ["person", "car"])
    assert CityscapesDataLoader.make_export_ids(label_map={"24": 0, "25": 0, "26": 1}) == [24, 26]


@pytest.mark.parametrize(
    ("kind", "ids", "label_map"),
    [
        ("labelIds", [0, 1, 2, 3], {str(number): int(number > 6) for number in range(34)}),
        ("labelTrainIds", [255], {"255": 0, **{str(number): 1 for number in range(19)}}),
    ],
)
def test_a_map_makes_no_labels_of_the_test_split(folder, kind, ids, label_map):
    arguments = {"label_kind": kind, "label_map": label_map, "classes": ["background", "else"], "is_training": False}
    cityscapes(folder, splits=("test",))
    for path in (folder / "gtFine/test").rglob("*_labelIds.png"):
        save(path.with_name(path.name.replace("labelIds", kind)), random_mask(1, ids))
    loader = load(folder, split="test", **arguments)
    with pytest.raises(DataError, match="The test split of Cityscapes has no labels"):
        loader.require_counted_targets("test_loader")
    assert all((masks == 255).all() for _, masks, _ in loader)
    for path in (folder / "gtFine/test").rglob(f"*_{kind}.png"):
        save(path, random_mask(1, [*ids, 7]))  # labels of the user's own
    load(folder, split="test", **arguments).require_counted_targets("test_loader")


def test_the_test_split_has_no_labels(folder):
    cityscapes(folder, splits=("test",))
    for path in (folder / "gtFine/test").rglob("*.png"):
        save(path, np.zeros((12, 16), np.uint8))
    message = r"The test split of Cityscapes has no labels \(.*is empty\); its server evaluates"
    with pytest.raises(DataError, match=message):
        load(folder, split="test")
    with pytest.raises(DataError, match=message):
        load(folder, split="test", is_training=False).require_counted_targets("test_loader")
    for path in (folder / "gtFine/test").rglob("*.png"):
        path.unlink()
    loader = load(folder, split="test", is_training=False)
    with pytest.raises(DataError, match=r"no labels \(.*does not exist\).*test.py --export-predictions FOLDER"):
        loader.require_counted_targets("test_loader")
    assert all((sample.target == 255).all() for batch in loader for sample in batch[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "vla"}, r"leftImg8bit/vla holds no CITY/\*_leftImg8bit.png. Set folder to the one in which"),
        ({"label_kind": "labelTrainIds"}, "7 masks are missing, .*Make them with cityscapesscripts, or read labelIds"),
        ({"annotations": "gtCoarse"}, "7 masks are missing, .*gtCoarse_labelIds.png the first of them. Unpack them"),
    ],
)
def test_what_is_missing_is_named(folder, arguments, message):
    with pytest.raises(DataError, match=message):
        load(folder, **arguments)


def test_names_must_be_as_many_as_classes(folder):
    with pytest.raises(ConfigError, match=r"classes lists 2 names .* but num_classes is 19"):
        load(folder, classes=["a", "b"])


def shipped(folder):
    paths = [f"{name}.args.folder={folder}" for name in ("train_loader", "valid_loader", "test_loader")]
    sizes = [f"{name}.args.resize=[32,48]" for name in ("train_loader", "valid_loader", "test_loader")]
    workers = [f"{name}.args.n_workers=0" for name in ("train_loader", "valid_loader", "test_loader")]
    return [*paths, *sizes, *workers]


def test_the_shipped_config_is_good(folder, capsys):
    words = ["-c", str(CONFIG), "--check", "-d", "cpu", *shipped(folder), 'arch.args.backbone="resnet18"']
    assert cli.run_command(train.main, train.parser(), words) == 0
    assert "The configuration is good" in capsys.readouterr().out


def test_overfitting_takes_the_same_images_to_validate(folder):
    config = train.for_overfit(load_config(CONFIG, shipped(folder)), 2)
    loaders = [build_loader(config, split) for split in ("train", "valid")]
    names = [[source.name for _, _, sources in loader for source in sources] for loader in loaders]
    assert names[0] == names[1]
    assert "/train/" in names[0][0]


def test_predictions_are_written_in_the_ids_of_the_server(folder, tmp_path):
    config = load_config(CONFIG, shipped(folder))
    config["arch"] = {"type": "UNet", "args": {"channels": [4, 8], "num_classes": 19, "in_channels": 3}}
    checkpoint = save_untrained(tmp_path / "model_best.pth", config)
    source, out = folder / "leftImg8bit/val", tmp_path / "out"
    for name, flags in (("plain", []), ("own", ["--own-ids"])):
        assert use(checkpoint, source, "--output", out / name, "--mode", "mask", *flags) == 0
    name = "bonn/bonn_000001_000019_leftImg8bit.png"
    plain, own = (read_mask(out / each / name) for each in ("plain", "own"))
    np.testing.assert_array_equal(own, np.array(list(CLASS_IDS.values()))[plain])
    assert len(torch.from_numpy(own).unique()) > 1


def test_own_ids_are_refused_where_there_are_none(folder, tmp_path, capsys):
    config = load_config(CONFIG, shipped(folder))
    config["arch"] = {"type": "UNet", "args": {"channels": [4, 8], "num_classes": 19, "in_channels": 3}}
    checkpoint = save_untrained(tmp_path / "model_best.pth", config)
    source = folder / "leftImg8bit/val"
    assert use(checkpoint, source, "--output", tmp_path / "out", "--mode", "overlay", "--own-ids") == 2
    assert "--own-ids has no effect in mode overlay. Use --mode mask" in capsys.readouterr().err


def evaluated(checkpoint, *words):
    return cli.run_command(evaluation.main, evaluation.parser(), ["--resume", str(checkpoint), "-d", "cpu", *words])


def test_a_test_exports_its_predictions_in_the_ids_of_the_server_also_without_labels(folder, tmp_path, capsys):
    cityscapes(folder, splits=("test",))
    for path in (folder / "gtFine/test").rglob("*.png"):
        path.unlink()
    config = load_config(CONFIG, shipped(folder))
    config["arch"] = {"type": "UNet", "args": {"channels": [4, 8], "num_classes": 19, "in_channels": 3}}
    checkpoint = save_untrained(tmp_path / "model_best.pth", config)

    out = tmp_path / "labelled"
    assert evaluated(checkpoint, "--export-predictions", str(out), "--json", str(tmp_path / "result.json")) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    counts = np.zeros((34, 34), int)
    for mask in sorted((folder / "gtFine/val").rglob("*_labelIds.png")):
        name = f"{mask.parent.name}/{mask.name.replace('gtFine_labelIds', 'leftImg8bit')}"
        np.add.at(counts, (read_mask(mask), read_mask(out / name)), 1)
    classes = list(CLASS_IDS.values())
    assert counts[np.ix_(classes, classes)].tolist() == result["confusion"]
    assert result["predictions"] == f"{out}.zip"

    unlabelled = tmp_path / "unlabelled"
    words = ["test_loader.args.split=test", "--export-predictions", str(unlabelled)]
    assert evaluated(checkpoint, *words) == 0
    with zipfile.ZipFile(f"{unlabelled}.zip") as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    assert names == sorted(path.relative_to(unlabelled).as_posix() for path in unlabelled.rglob("*.png"))
    assert names[0] == "aachen/aachen_000000_000019_leftImg8bit.png"
    assert len(names) == 7
    first = Path(f"{unlabelled}.zip").read_bytes()
    assert evaluated(checkpoint, *words) == 0
    assert Path(f"{unlabelled}.zip").read_bytes() == first
    assert f"Predictions:  {unlabelled}.zip" in capsys.readouterr().out

    assert evaluated(checkpoint, "test_loader.args.split=test") == 3
    (unlabelled / "notes.txt").write_text("mine")
    assert evaluated(checkpoint, *words) == 2
    captured = capsys.readouterr().err
    assert "its server evaluates results: test.py --export-predictions FOLDER" in captured
    assert "holds 1 files that are not of an earlier export (notes.txt)" in captured


def test_an_archive_of_masks_is_not_taken_for_an_earlier_export(tmp_path):
    (tmp_path / "masks").mkdir()
    with zipfile.ZipFile(tmp_path / "masks.zip", "w") as archive:
        archive.writestr("1.png", "mine")
    with pytest.raises(ConfigError, match=r"masks\.zip is no archive of predictions\. Name another folder\."):
        require_export_folder(tmp_path / "masks", tmp_path / "masks.zip")


def test_the_archive_of_predictions_has_the_name_of_the_folder(tmp_path, monkeypatch):
    photo = os.fsdecode(b"photos/\xe9.png")  # stored in the archive as UTF-8
    logits = torch.eye(2)[:, None].expand(2, 2, 2)
    (tmp_path / "out/in").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "out/in")
    for folder in (Path(), Path("more/..")):
        files = PredictionFiles(folder, [photo])
        files.add(NamedMask(photo, torch.zeros(2, 2), Geometry((2, 2), (2, 2), (2, 2), (0, 0)), 0), logits)
        assert files.finish() == tmp_path / "out/in.zip"
    with zipfile.ZipFile(tmp_path / "out/in.zip") as archive:
        assert archive.namelist() == [r"\udce9.png"]
    (tmp_path / "link").mkdir()
    (tmp_path / "link/a.png").symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"holds 1 files that are not of an earlier export \(a\.png\)"):
        PredictionFiles(tmp_path / "link", [photo])
    with pytest.raises(ConfigError, match="has no name"):
        PredictionFiles(Path("/"), [photo])


def test_predictions_have_different_names_below_the_common_folder():
    assert prediction_names(["a/x/1.jpg", "a/y/1.jpg", "a/y/1.png", "a/2.tif"]) == {
        "a/x/1.jpg": "x/1.png",
        "a/y/1.jpg": "y/1.jpg.png",
        "a/y/1.png": "y/1.png.png",
        "a/2.tif": "2.png",
    }
    assert prediction_names(["1.jpg"]) == {"1.jpg": "1.png"}
    assert prediction_names(["a/1.jpg", "b/1.jpg"]) == {"a/1.jpg": "a/1.png", "b/1.jpg": "b/1.png"}
    assert prediction_names(["../a/1.jpg", "b/1.jpg"])["b/1.jpg"].endswith("/b/1.png")  # never outside of the folder
    absolute = os.path.abspath("b/1.jpg")
    assert prediction_names(["a/1.jpg", "a/./1.jpg", absolute]) == {
        "a/1.jpg": "a/1.png",
        "a/./1.jpg": "a/1.png",
        absolute: "b/1.png",
    }
    assert prediction_names(["1.jpg", "1.png", "1.jpg.bmp"]) == {
        "1.jpg": "1.jpg.png",
        "1.png": "1.png.png",
        "1.jpg.bmp": "1.jpg.bmp.png",
    }
    assert prediction_names([]) == {}
