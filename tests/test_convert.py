"""Annotations of COCO, labelme, CVAT and YOLO become masks that the loader of pairs trains on."""

import base64
import json
import os
import shutil

import cv2
import numpy as np
import pytest

import train
from config import cli
from data_loader.convert.__main__ import main, parser
from data_loader.convert.regions import expand, fill, ring_of, unpack_counts
from data_loader.convert.write import mask_names
from data_loader.segmentation.pairs import list_pairs

SIDE = 8


def picture(path, height=SIDE, width=SIDE):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def box(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def pairs_of(values):
    return [list(pair) for pair in zip(values[::2], values[1::2], strict=True)]


def convert(*words):
    return cli.run_command(main, parser(), [str(word) for word in words])


def mask_in(folder, name):
    return cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED)


def rows(mask):
    return ["".join(map(str, row)) for row in mask.tolist()]


def coco(folder, annotations, **more):
    picture(folder / "a.png")
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": SIDE, "width": SIDE}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}],
        "annotations": [{"id": number, "image_id": 7, **each} for number, each in enumerate(annotations)],
    } | more
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


def test_a_polygon_has_the_pixels_whose_centres_it_encloses():
    left, right = (
        fill(ring_of(values), (4, 6)) for values in ([0, 0, 3.2, 0, 2.2, 4, 0, 4], [3.2, 0, 9, 0, 9, 4, 2.2, 4])
    )
    both = np.zeros((4, 6), int)
    for top, start, inside, _ in (left, right):
        both[top : top + inside.shape[0], start : start + inside.shape[1]] += inside
    assert (both == 1).all()  # no pixel twice, none left out
    assert left.inside.sum(axis=1).tolist() == [3, 3, 3, 2]
    # A ring along a line into a hole and back, as YOLO writes it.
    ring = [*box(0, 0, 6, 6), 0, 0, 2, 2, 2, 4, 4, 4, 4, 2, 2, 2]
    assert rows(fill(ring_of(ring), (6, 6)).inside.astype(int)) == ["111111"] * 2 + ["110011"] * 2 + ["111111"] * 2
    assert fill(ring_of(box(-5, -5, 2, 2)), (4, 4)).area == 4
    assert fill(ring_of(box(9, 9, 12, 12)), (4, 4)).area == 0


def test_run_lengths_of_coco():
    expected = ["0000000", "0011100", "0010100", "0011100", "0000000"]
    counts = unpack_counts(";32NO0129")  # written by pycocotools 2.0.11
    assert rows(expand(counts, (5, 7), by_columns=True).astype(int)) == expected
    for text, reason in ((";32NO012P", "are cut off"), (";3\x07", "stands for no number")):
        with pytest.raises(ValueError, match=reason):
            unpack_counts(text)
    with pytest.raises(ValueError, match=r"sum 35 \(5x7\)"):
        expand([3, 4], (5, 7), by_columns=True)


def test_coco_draws_smaller_objects_over_larger_ones_and_ignores_crowds(tmp_path, capsys):
    source = coco(
        tmp_path,
        [
            {"category_id": 1, "segmentation": [box(1, 1, 3, 3)]},
            {"category_id": 3, "segmentation": [box(0, 0, 4, 4), box(6, 0, 8, 1)]},
            {"category_id": 1, "segmentation": {"counts": [0, 2, 62], "size": [SIDE, SIDE]}},
            {"category_id": 3, "segmentation": {"counts": [3, 5, 56], "size": [SIDE, SIDE]}, "iscrowd": 1},
        ],
    )
    assert convert(source, "--output", tmp_path / "masks") == 0
    mask = mask_in(tmp_path / "masks", "a.png")
    first = [row.replace("255", "i") for row in rows(mask)]
    assert first == ["12220022", "11120000", "21120000", "22220000", *["i0000000"] * 4]
    printed = capsys.readouterr().out
    assert "6 pixels belong to objects of two classes" in printed
    assert '"classes": [\n' in printed
    assert '"ignore_index": 255' in printed
    assert (tmp_path / "masks/classes.txt").read_text() == "background\ncat\ndog\n"
    assert convert(source, "--output", tmp_path / "two", "--crowd", "class", "--unlabelled", "ignore") == 0
    mask = mask_in(tmp_path / "two", "a.png")
    assert (mask[7, 0], mask[7, 7], mask[0, 0]) == (1, 255, 0)


def test_labelme_draws_in_the_order_of_the_file_and_cuts_holes(tmp_path, capsys):
    stamp = base64.b64encode(cv2.imencode(".png", np.array([[255, 0], [0, 255]], np.uint8))[1]).decode()
    shapes = [
        {"label": "cat", "points": pairs_of(box(0, 0, 6, 6)), "shape_type": "polygon"},
        {"label": "_background_", "points": [[1, 1], [3, 3]], "shape_type": "rectangle"},
        {"label": "dog", "points": [[6, 6], [7.4, 6]], "shape_type": "circle"},
        {"label": "__ignore__", "points": [[0, 6], [1, 7]], "shape_type": "mask", "mask": stamp},
        {"label": "dog", "points": [[0, 0], [8, 8]], "shape_type": "line"},
    ]
    for name in ("a", "b"):
        picture(tmp_path / f"labelme/{name} 1.png")
        content = {"imagePath": f"..\\labelme\\{name} 1.png", "imageHeight": SIDE, "imageWidth": SIDE, "shapes": shapes}
        (tmp_path / f"labelme/{name}.json").write_text(json.dumps(content))
    assert convert(tmp_path / "labelme", "--output", tmp_path / "masks") == 0
    drawn = [row.replace("255", "i") for row in rows(mask_in(tmp_path / "masks", "a 1.png"))]
    assert drawn == ["11111100", "10011100", "10011100", "11111100", "11111100", "11111220", "i0000220", "0i000000"]
    assert "Left out, since they have no area: 2 line." in capsys.readouterr().err
    pairs = list_pairs(tmp_path / "masks/pairs.txt").whole()
    assert [pair.image.resolve().name for pair in pairs] == ["a 1.png", "b 1.png"]


def test_cvat_draws_by_z_order(tmp_path):
    shapes = """
      <box label="dog" xtl="0" ytl="0" xbr="4" ybr="4" z_order="1"/>
      <polygon label="cat" points="0,0;8,0;8,2;0,2" z_order="0"/>
      <mask label="cat" rle="1, 2, 1" left="6" top="6" width="2" height="2" z_order="0"/>
      <ellipse label="dog" cx="2" cy="7" rx="2" ry="1" z_order="0"/>
      <polyline label="cat" points="0,0;1,1" z_order="0"/>"""
    text = (
        "<annotations><meta><job><labels><label><name>dog</name></label><label><name>cat</name></label></labels></job>"
        f'</meta><image id="0" name="sub/a.png" width="8" height="8">{shapes}</image></annotations>'
    )
    picture(tmp_path / "images/sub/a.png")
    (tmp_path / "annotations.xml").write_text(text)
    assert convert(tmp_path / "annotations.xml", "--output", tmp_path / "masks") == 0
    expected = ["11112222", "11112222", "11110000", "11110000", "00000000", "00000000", "11110002", "11110020"]
    assert rows(mask_in(tmp_path / "masks", "a.png")) == expected


def yolo(folder, lines, names="names: {0: cat, 1: dog}"):
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        picture(folder / f"images/{split}/{name}.png", 32, 64)
        (folder / f"labels/{split}").mkdir(parents=True, exist_ok=True)
        (folder / f"labels/{split}/{name}.txt").write_text(lines)
    (folder / "data.yaml").write_text(names)
    return folder


def test_what_is_printed_for_yolo_trains_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    yolo(tmp_path / "yolo", "0 0.5 0.5 0.75 0.5 0.75 1 0.5 1\n1 " + " ".join(map(str, box(0, 0, 1, 1))) + "\n")
    (tmp_path / "yolo/labels/train/b.txt").unlink()  # an image without objects
    assert convert("yolo", "--output", "masks") == 0
    mask = mask_in(tmp_path / "masks", "train/a.png")
    assert mask.shape == (32, 64)
    assert (mask[16:, 32:48] == 1).all()  # the smaller one lies on top
    assert np.bincount(mask.ravel()).tolist() == [0, 256, 32 * 64 - 256]
    assert not mask_in(tmp_path / "masks", "train/b.png").any()
    printed = capsys.readouterr().out
    sections = json.loads(printed[printed.index("{") :])
    assert set(sections) == {"train_loader", "valid_loader"}
    config = {
        "name": "converted",
        "arch": {"type": "UNet", "args": {"channels": [4, 8]}},
        "optimizer": {"type": "SGD", "args": {"lr": 0.1}},
        "loss": "ce_loss",
        "metrics": ["miou"],
        "trainer": {"epochs": 1, "save_dir": "saved", "tensorboard": False},
        **sections,
    }
    assert 0 <= train.train(config).history[-1]["val_miou"] <= 1


def test_images_of_yolo_may_lie_elsewhere(tmp_path, capsys):
    source = yolo(tmp_path / "yolo", "0 0 0 1 0 1 1 0 1\n")
    shutil.move(source / "images", tmp_path / "photos")
    assert convert(source, "--output", tmp_path / "masks") == 3
    assert "or name their folder with --images" in capsys.readouterr().err
    assert convert(source, "--images", tmp_path / "photos", "--output", tmp_path / "masks") == 0
    assert (mask_in(tmp_path / "masks", "train/a.png") == 1).all()
    assert (tmp_path / "masks/pairs_train.txt").read_text().splitlines()[1] == "../photos/train/a.png, train/a.png"
    assert convert(source, "--images", tmp_path / "photos/train", "--output", tmp_path / "other") == 3
    assert "c.txt has no image" in capsys.readouterr().err


def test_without_a_list_for_validation_a_part_of_the_training_data_is_held_out(tmp_path, capsys):
    source = yolo(tmp_path / "yolo", "0 0 0 1 0 1 1 0 1\n")
    shutil.rmtree(source / "images/val")
    shutil.rmtree(source / "labels/val")
    assert convert(source, "--output", tmp_path / "masks") == 0
    printed = capsys.readouterr().out
    sections = json.loads(printed[printed.index("{") :])
    assert set(sections) == {"data_loader"}
    assert sections["data_loader"]["args"]["validation_split"] == 0.1
    assert sections["data_loader"]["args"]["pairs_file"].endswith("masks/pairs_train.txt")


YOLO_FAULTS = [
    ("0 0.5 0.5 0.2 0.2", "a.txt, line 1: four numbers are a box, which has no outline"),
    ("2 0 0 1 0 1 1", "the class '2' is not one of 0 to 1"),
    ("0 0 0 9 0 9 9", "must be fractions of the image's sides"),
    ("0 0 0 1 0 1 nan", "its coordinates must be finite, and at most"),
    ("0 0 0 1 0 1 x", "its coordinates must be numbers"),
    ("0 0 0 1 0 1 1 0", "7 coordinates are no outline"),
]


@pytest.mark.parametrize(("line", "message"), YOLO_FAULTS)
def test_a_wrong_line_of_yolo_is_named(tmp_path, capsys, line, message):
    assert convert(yolo(tmp_path / "yolo", line), "--output", tmp_path / "masks") == 3
    printed = capsys.readouterr().err
    assert "3 annotations cannot be used; nothing was written" in printed
    assert message in printed
    assert [path.name for path in tmp_path.iterdir()] == ["yolo"]


SQUARE = {"category_id": 1, "segmentation": [box(1, 1, 3, 3)]}
COCO_FAULTS = [
    ([{"category_id": 9, "segmentation": [box(1, 1, 3, 3)]}], {}, "annotation 0: its category_id 9 is no category"),
    ([{"category_id": 1, "bbox": [0, 0, 1, 1]}], {}, "annotation 0: it has no `segmentation`"),
    ([{"category_id": 1, "segmentation": [[1, 2, 3, 4]]}], {}, "4 coordinates are no outline"),
    ([{"category_id": 1, "segmentation": [box(20, 20, 30, 30)]}], {}, "it lies outside the image (8x8)"),
    ([{"category_id": 1, "segmentation": [box(8, 0, 9, 9), [9, 9, 9.1, 9, 9, 9.1]]}], {}, "it lies outside the image"),
    ([{"category_id": 1, "segmentation": {"counts": [5], "size": [8, 8]}}], {}, "with the sum 64"),
    ([{"category_id": 1, "segmentation": {"counts": [64], "size": [4, 16]}}], {}, "are of 16x4 pixels"),
    ([{"category_id": 1, "segmentation": [[10**400, 1, 2, 2, 3, 3]]}], {}, "its coordinates must be numbers"),
    ([{"category_id": 1, "segmentation": [[1e308, 0.5, -1e308, 9, 0, 9]]}], {}, "its coordinates must be finite"),
    ([SQUARE], {"images": [{"id": 7, "file_name": "b.png", "height": 8, "width": 8}]}, "b.png is not in"),
    ([SQUARE], {"images": [{"id": 7, "file_name": "a.png", "height": 9, "width": 8}]}, "is made for 8x9 pixels, but"),
    ([SQUARE], {"images": [{"id": 8, "file_name": "a.png", "height": 8, "width": 8}]}, "is of image 7, which"),
    ([SQUARE], {"categories": [{"id": 1, "name": "cat"}] * 2}, "an id of its own"),
    ([], {"images": {}}, "images must be a list of objects"),
    ([SQUARE], {"images": [{"id": 7, "file_name": "a.png", "height": 8, "width": 8}] * 2}, "is that of images[0]"),
    ([SQUARE, SQUARE | {"id": 0}], {}, "annotations[1]: its id 0 is that of annotations[0]"),
    ([SQUARE], {"categories": [{"id": 1, "name": "\ud800x"}]}, r"coco.json: the name '\ud800x' holds a control"),
    ([SQUARE], {"categories": [{"id": 1, "name": "cat\nerror: forged"}]}, r"the name 'cat\nerror: forged' holds"),
]


@pytest.mark.parametrize(("annotations", "more", "message"), COCO_FAULTS)
def test_a_wrong_entry_of_coco_is_named(tmp_path, capsys, annotations, more, message):
    source = coco(tmp_path, annotations, **more)
    assert convert(source, "--output", tmp_path / "masks") == 3
    assert message in capsys.readouterr().err
    assert not (tmp_path / "masks").exists()


def test_files_of_another_kind_are_refused(tmp_path, capsys):
    for name, text, message in (
        ("a.json", "{}", "neither of COCO"),
        ("b.json", "{", "cannot be read"),
        ("c.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotations/>", "declares entities"),
        ("d.xml", "<opencv_storage/>", "is no file of CVAT"),
        ("e.xml", "<annotations><track/></annotations>", "tracks of a video"),
        ("f.csv", "", "is no file of annotations"),
        ("g.json", '{"shapes": [{"points": [], "label": "x", "shape_type": "star"}]}', "the kind of shape 'star'"),
    ):
        (tmp_path / name).write_text(text)
        assert convert(tmp_path / name, "--output", tmp_path / "masks") == 3
        assert message in capsys.readouterr().err
    far = [[0, 0], [10**400, 2]]
    (tmp_path / "far.json").write_text(
        json.dumps({"shapes": [{"points": far, "label": "x", "shape_type": "rectangle"}], "imagePath": "a.png"})
    )
    (tmp_path / "far.xml").write_text('<annotations><image name="a.png" width="8" height="inf"/></annotations>')
    for name, message in (("far.json", "too large"), ("far.xml", "infinity")):
        assert convert(tmp_path / name, "--output", tmp_path / "masks") == 3
        assert message in capsys.readouterr().err
    assert convert(tmp_path / "none", "--output", tmp_path / "masks") == 3
    source = coco(tmp_path, [SQUARE])
    assert convert(source, "--output", tmp_path) == 3
    assert "is not empty" in capsys.readouterr().err


def test_the_names_of_the_user_decide_the_ids(tmp_path, capsys):
    source = coco(tmp_path, [SQUARE])
    (tmp_path / "names.txt").write_text("__ignore__\n_background_\ndog\ncat\n")  # labelme's file of labels
    assert convert(source, "--output", tmp_path / "masks", "--classes", tmp_path / "names.txt") == 0
    assert mask_in(tmp_path / "masks", "a.png").max() == 2
    (tmp_path / "names.txt").write_text("dog\ncats\n")
    assert convert(source, "--output", tmp_path / "other", "--classes", tmp_path / "names.txt") == 3
    assert "'cat' is no class (did you mean 'cats'?)" in capsys.readouterr().err


def test_the_working_folder_may_be_the_output(tmp_path, monkeypatch):
    source = coco(tmp_path, [SQUARE])
    (tmp_path / "masks").mkdir()
    monkeypatch.chdir(tmp_path / "masks")
    assert convert(source, "--output", ".") == 0
    assert (tmp_path / "masks/a.png").is_file()


def test_no_two_images_share_a_mask(tmp_path):
    images = [tmp_path / name for name in ("x/a.jpg", "x/A.png", "x/b.jpg", "y/b.jpg")]
    assert mask_names(images) == ["x/a.jpg.png", "x/A.png.png", "x/b.png", "y/b.png"]


def test_objects_that_cover_no_centre_of_a_pixel_are_left_out_and_named(tmp_path, capsys):
    outlines = [
        [box(1, 1, 3, 3)],
        [box(5.6, 5.6, 5.9, 5.9)],
        [[0, 0, 0, 4, 0, 8]],
        [box(7.8, 1, 30, 3)],
        {"counts": [64], "size": [8, 8]},
    ]
    source = coco(tmp_path, [{"category_id": 1, "segmentation": each} for each in outlines])
    assert convert(source, "--output", tmp_path / "masks") == 0
    assert mask_in(tmp_path / "masks", "a.png").sum() == 4
    printed = capsys.readouterr().out
    assert "Objects left out, since they cover the centre of no pixel: 4\n" in printed
    assert f"  {source}, annotation 2\n" in printed


def test_names_that_no_list_can_hold_are_refused(tmp_path, capsys):
    def refused(source, *words):
        assert convert(source, "--output", tmp_path / "masks", *words) != 0
        assert not (tmp_path / "masks").exists()
        return capsys.readouterr().err

    evil = "cat\nerror: forged"
    (tmp_path / "labelme").mkdir()
    picture(tmp_path / "labelme/a.png")
    shape = {"label": evil, "points": pairs_of(box(0, 0, 6, 6)), "shape_type": "polygon"}
    (tmp_path / "labelme/a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": [shape]}))
    assert r"a.json, shapes[0]: the name 'cat\nerror: forged' holds" in refused(tmp_path / "labelme")
    source = yolo(tmp_path / "yolo", "0 0 0 1 0 1 1", names='names: ["a\\nb", c]')
    assert r"data.yaml: the name 'a\nb' holds" in refused(source)
    (tmp_path / "names.txt").write_text("a\x1b]0;b\x07\nb")
    assert "holds a control character" in refused(source, "--classes", tmp_path / "names.txt")
    (source / "data.yaml").write_text("names: [a, b]")
    for name, shown in ((b"a\nb", r"images/train/a\nb.png' holds"), (b"\xe9", r"images/train/\udce9.png' holds")):
        path = shutil.copy(source / "images/train/a.png", source / "images/train" / f"{os.fsdecode(name)}.png")
        assert shown in refused(source)
        path.unlink()
    picture(tmp_path / " b.png")  # lists are read without the blank
    images = [{"id": 7, "file_name": " b.png", "height": SIDE, "width": SIDE}]
    assert " b.png: no list can hold this name" in refused(coco(tmp_path, [SQUARE], images=images))


def test_files_next_to_those_of_yolo_do_not_make_it_another_format(tmp_path, capsys):
    source = yolo(tmp_path / "yolo", "0 0 0 1 0 1 1")
    (source / "notes.json").write_text('{"categories": [], "info": {}}')  # as Label Studio writes it
    (source / "data.yaml").rename(source / "data.txt")
    assert convert(source, "--output", tmp_path / "masks") == 3
    assert "is neither of labelme (no .json in it has `shapes`) nor of YOLO" in capsys.readouterr().err
    (source / "classes.txt").write_text("a\nb\n")
    assert convert(source, "--output", tmp_path / "masks") == 0
