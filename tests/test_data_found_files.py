"""Which files of folders and lists are data."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_loader.classification.sources import list_in_folders, list_labelled
from data_loader.common.lists import split_entry
from data_loader.segmentation.cityscapes import list_cityscapes
from data_loader.segmentation.pairs import list_folder, list_pairs
from data_loader.time_series.files import find_series_file
from predictor.io.sources import Photos, open_source
from utils.errors import DataError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    form = {".jpg": "JPEG", ".jfif": "JPEG", ".tif": "TIFF", ".gif": "GIF"}.get(path.suffix.lower(), "PNG")
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(path, form)
    return path


def names(paths):
    return [path.name for path in paths]


HIDDEN = (".ipynb_checkpoints/1-checkpoint.png", "._1.png", "__MACOSX/1.png", "deep/.thumbs/1.png")


def test_hidden_files_are_no_data(tmp_path):
    for name in ("1.png", *HIDDEN):
        touch(tmp_path / "cls/train/cat" / name)
        touch(tmp_path / "cls/train/dog" / name)
        touch(tmp_path / "seg/data/train" / name)
        touch(tmp_path / "seg/labels/train" / name)
    for folder in (".git", "__MACOSX"):
        touch(tmp_path / "cls/train" / folder / "1.png")
    assert list_in_folders(tmp_path / "cls", "train").whole().labels == ["cat", "dog"]
    assert len(list_folder(tmp_path / "seg", "train").whole()) == 1
    source = open_source(str(tmp_path / "cls"), lambda path: np.zeros((2, 2, 3), np.uint8))
    assert isinstance(source, Photos)
    assert source.names == ["train/cat/1.png", "train/dog/1.png"]
    touch(tmp_path / "seg/labels/train/._lonely.png")  # no mask without an image
    assert len(list_folder(tmp_path / "seg", "train").whole()) == 1
    for name in ("a_leftImg8bit.png", "._a_leftImg8bit.png"):
        touch(tmp_path / "city/leftImg8bit/val/bonn" / name)
    touch(tmp_path / "city/gtFine/val/bonn/a_gtFine_labelIds.png")
    assert len(list_cityscapes(tmp_path / "city", "val").whole()) == 1
    for name in ("s_TRAIN.ts", "._s_TRAIN.ts"):
        (tmp_path / name).touch()
    assert find_series_file(tmp_path, "train").name == "s_TRAIN.ts"


@pytest.mark.parametrize(
    ("image", "mask"),
    [("1.JPG", "1.PNG"), ("1.jpg", "1.Png"), ("1.jfif", "1.tif"), ("1.a.jpg", "1.a.BMP"), ("1.PNG", "1.gif")],
)
def test_masks_are_found_whatever_case_and_kind_their_suffixes_have(tmp_path, image, mask):
    touch(tmp_path / "data/train" / image)
    touch(tmp_path / "labels/train" / mask)
    ((found, found_mask),) = list_folder(tmp_path, "train").whole()
    assert (found.name, found_mask.name) == (image, mask)


def test_a_png_is_the_mask_next_to_a_preview_of_it(tmp_path):
    touch(tmp_path / "data/train/1.jpg")
    for name in ("1.jpg", "1.bmp", "1.png", "overview.jpg"):
        touch(tmp_path / "labels/train" / name)
    assert names(pair.mask for pair in list_folder(tmp_path, "train").whole()) == ["1.png"]
    touch(tmp_path / "labels/train/2.PNG")
    with pytest.raises(DataError, match=r"1 masks without an image .*2\.PNG"):
        list_folder(tmp_path, "train").whole()


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("p, 1.png\tm, 1.png", ["p, 1.png", "m, 1.png"]),
        ('"p, 1.png", "m, 1.png"', ["p, 1.png", "m, 1.png"]),
        ('"p, 1.png",m.png', ["p, 1.png", "m.png"]),
        ('p.png,"m, 1.png"', ["p.png", "m, 1.png"]),
        ('"a b.png" "c d.png"', ["a b.png", "c d.png"]),
        ('"say ""hi"".png", m.png', ['say "hi".png', "m.png"]),
        ('5" disk.png, m.png', ['5" disk.png', "m.png"]),
        ("p.png,\tm.png", ["p.png", "m.png"]),
        ('"p, 1.png" "m, 1.png"', ["p, 1.png", "m, 1.png"]),
        ('"p\t1.png","m\t1.png"', ["p\t1.png", "m\t1.png"]),
        ('5" disk.png\tm 5".png', ['5" disk.png', 'm 5".png']),
        ("a b.png\tc d.png", ["a b.png", "c d.png"]),
        ("a.png   b.png", ["a.png", "b.png"]),
        ("p, 1.png, m, 1.png", ["p", "1.png", "m", "1.png"]),
    ],
)
def test_names_that_hold_the_separator(line, fields):
    assert split_entry(line) == fields


def test_lists_of_names_with_commas(tmp_path):
    touch(tmp_path / "p, 1.png")
    touch(tmp_path / "m, 1.png")
    for line in ("p, 1.png\tm, 1.png", '"p, 1.png", "m, 1.png"'):
        (tmp_path / "pairs.txt").write_text(line)
        ((image, mask),) = list_pairs(tmp_path / "pairs.txt").whole()
        assert (image.name, mask.name) == ("p, 1.png", "m, 1.png")
    (tmp_path / "pairs.txt").write_text("p, 1.png, m, 1.png")
    with pytest.raises(DataError, match=r"line 1: .* use a tab between them, or quotes around names"):
        list_pairs(tmp_path / "pairs.txt").whole()
    for line, label in (
        ("p, 1.png, cat", "cat"),
        ("p, 1.png\tcat, big", "cat, big"),
        ('"p, 1.png", "cat, big"', "cat, big"),
        ('"p, 1.png",cat', "cat"),
    ):
        (tmp_path / "classes.txt").write_text(line)
        source = list_labelled(tmp_path / "classes.txt").whole()
        assert (source.files[0].name, source.labels) == ("p, 1.png", [label])


def test_any_folder_that_split_names_is_a_split(tmp_path):
    for split in ("train", "valid", "fold_3"):
        for label in ("cat", "dog"):
            touch(tmp_path / split / label / "0.png")
    for name, folder in (("valid", "valid"), ("val", "valid"), ("validation", "valid"), ("train", "train")):
        assert list_in_folders(tmp_path, name).whole().files[0].parts[-3] == folder
    assert list_in_folders(tmp_path, "fold_3", is_named=True).whole().labels == ["cat", "dog"]
    with pytest.raises(DataError, match="holds train, valid, but not test"):
        list_in_folders(tmp_path, "test").whole()
    (tmp_path / "valid").rename(tmp_path / "val")
    assert list_in_folders(tmp_path, "valid").whole().files[0].parts[-3] == "val"
    for side in ("data", "labels"):
        touch(tmp_path / "seg" / side / "validation/0.png")
    assert len(list_folder(tmp_path / "seg", "val").whole()) == 1


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    for label in ("bus", "car", "train"):
        touch(tmp_path / label / "0.png")
    for is_named in (False, True):
        assert list_in_folders(tmp_path, "train", is_named=is_named).whole().labels == ["bus", "car", "train"]
    touch(tmp_path / "test/0.png")
    assert list_in_folders(tmp_path, "train").whole().labels == ["bus", "car", "test", "train"]
    shutil.rmtree(tmp_path / "test")
    # Folders of day and night in each of them: the names alone do not tell.
    for label in ("bus", "car", "train"):
        (tmp_path / label / "0.png").unlink()
        touch(tmp_path / label / "day/0.png")
    with pytest.raises(DataError, match="holds the folder train, the name of a split, next to bus, car, which are not"):
        list_in_folders(tmp_path, "train").whole()
    assert list_in_folders(tmp_path, "train", is_named=True).whole().labels == ["day"]
    for label in ("bus", "car"):
        shutil.rmtree(tmp_path / label)
    (tmp_path / "notes").mkdir()
    assert list_in_folders(tmp_path, "train").whole().labels == ["day"]


def test_kinds_that_are_not_read_are_counted(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    for name in ("cat/0.png", "cat/1.jfif", "cat/2.JFIF", "dog/0.png"):
        touch(tmp_path / name)
    for name in ("cat/a.heic", "cat/b.HEIC", "dog/c.gif", "dog/notes.txt", "dog/.hidden.heic"):
        (tmp_path / name).touch()
    assert names(list_in_folders(tmp_path, "train").whole().files) == ["0.png", "1.jfif", "2.JFIF", "0.png"]
    assert f"Left out: 1 .gif, 2 .heic in {tmp_path}. Convert them to PNG or JPEG" in caplog.text
    source = open_source(str(tmp_path), lambda path: np.zeros((2, 2, 3), np.uint8))
    assert [remark.partition(" in ")[0] for remark in source.remarks[1:]] == ["Left out: 2 .heic"]  # a GIF is a video
    for side in ("data", "labels"):
        touch(tmp_path / "seg" / side / "train/0.png")
    (tmp_path / "seg/data/train/1.avif").touch()
    list_folder(tmp_path / "seg", "train").whole()
    assert "Left out: 1 .avif" in caplog.text
    (tmp_path / "dog/0.png").unlink()
    with pytest.raises(DataError, match=r"dog holds no image \(.*; left out: 1 \.gif\)"):
        list_in_folders(tmp_path, "train").whole()
