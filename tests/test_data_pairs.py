"""Which image goes with which mask."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_loader.images.files import image_size
from data_loader.segmentation.pairs import Pair, list_folder, list_pairs
from utils.errors import DataError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)
    return path


def test_lines_may_use_commas_tabs_or_blanks_and_hold_comments(tmp_path):
    for name in ("a", "b c", "d"):
        touch(tmp_path / "i" / f"{name}.png")
        touch(tmp_path / "m" / f"{name}.png")
    text = "# images, masks\n\ni/a.png, m/a.png\ni/b c.png\tm/b c.png\ni/d.png   m/d.png\n   # end\n"
    (tmp_path / "list.txt").write_text("\ufeff" + text, encoding="utf-8")
    pairs = list_pairs(tmp_path / "list.txt").whole()
    assert [(pair.image.name, pair.mask.name) for pair in pairs] == [(f"{n}.png",) * 2 for n in ("a", "b c", "d")]


def test_paths_are_found_beside_the_list_beside_its_folder_or_in_the_working_directory(tmp_path, monkeypatch):
    touch(tmp_path / "set" / "i.png")
    touch(tmp_path / "set" / "m.png")
    for line in ("i.png, m.png", "set/i.png, set/m.png"):
        (tmp_path / "set" / "list.txt").write_text(line)
        (pair,) = list_pairs(tmp_path / "set" / "list.txt").whole()
        assert pair.image.samefile(tmp_path / "set" / "i.png")
    (tmp_path / "lists" / "deep").mkdir(parents=True)
    (tmp_path / "lists" / "deep" / "list.txt").write_text("set/i.png, set/m.png")
    monkeypatch.chdir(tmp_path)
    assert list_pairs("lists/deep/list.txt").whole() == [Pair(Path("set/i.png"), Path("set/m.png"))]
    monkeypatch.chdir(tmp_path / "set")
    (tmp_path / "set" / "list.txt").write_text("set/i.png, set/m.png")
    assert list_pairs("list.txt").whole() == [Pair(Path("../set/i.png"), Path("../set/m.png"))]


def test_data_root_wins_over_every_guess(tmp_path):
    for place in ("here", "there"):
        touch(tmp_path / place / "i.png")
        touch(tmp_path / place / "m.png")
    (tmp_path / "here" / "list.txt").write_text("i.png, m.png")
    assert (
        list_pairs(tmp_path / "here" / "list.txt", tmp_path / "there").whole()[0].mask == tmp_path / "there" / "m.png"
    )


def test_faulty_lists_are_named_with_their_line(tmp_path):
    path = tmp_path / "list.txt"
    with pytest.raises(DataError, match=r"list\.txt does not exist. Correct pairs_file"):
        list_pairs(path).whole()
    path.write_text("# nothing\n\n")
    with pytest.raises(DataError, match=r"list\.txt is empty. It must hold one `image, mask` per line"):
        list_pairs(path).whole()
    path.write_text("a.png, b.png\na.png, b.png, c.png\n")
    with pytest.raises(DataError, match=r"line 2: 'a.png, b.png, c.png' is not one image and one mask"):
        list_pairs(path).whole()
    path.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(DataError, match="must be a text file"):
        list_pairs(path).whole()


def test_files_that_do_not_exist_are_counted_and_the_first_named(tmp_path):
    touch(tmp_path / "i0.png")
    (tmp_path / "list.txt").write_text("\n".join(f"i{n}.png, m{n}.png" for n in range(8)))
    with pytest.raises(DataError) as caught:
        list_pairs(tmp_path / "list.txt").whole()
    message = str(caught.value)
    assert "names 15 files that do not exist" in message
    assert "m0.png" in message
    assert "m7.png" not in message
    assert "set data_root if that is wrong" in message


def test_a_folder_pairs_by_name_in_sorted_order(tmp_path):
    for name in ("b", "a", "city/c"):
        touch(tmp_path / "data" / "val" / f"{name}.png")
        touch(tmp_path / "labels" / "val" / f"{name}.png")
    (tmp_path / "data" / "val" / "Thumbs.db").write_text("not an image")
    pairs = list_folder(tmp_path, "val").whole()
    assert [str(pair.image.relative_to(tmp_path / "data/val")) for pair in pairs] == ["a.png", "b.png", "city/c.png"]
    assert pairs[2].mask == tmp_path / "labels" / "val" / "city" / "c.png"


def test_a_folder_whose_sides_do_not_match_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"data/val does not exist. Images lie in data/val, masks in labels/val"):
        list_folder(tmp_path, "val").whole()
    (tmp_path / "data" / "val").mkdir(parents=True)
    (tmp_path / "labels" / "val").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no image"):
        list_folder(tmp_path, "val").whole()
    image = touch(tmp_path / "data" / "val" / "a.png")
    with pytest.raises(DataError, match=r"names 1 files that do not exist: .*labels/val/a\.png"):
        list_folder(tmp_path, "val").whole()
    touch(tmp_path / "labels" / "val" / "a.png")
    touch(tmp_path / "labels" / "val" / "b.png")
    with pytest.raises(DataError, match=r"1 masks without an image in .*b\.png"):
        list_folder(tmp_path, "val").whole()
    assert image.exists()


@pytest.mark.parametrize(("split", "count"), [("train", 140), ("valid", 30), ("test", 30)])
def test_the_shipped_lists_are_complete(split, count):
    pairs = list_pairs(f"data/people/{split}_pairs.txt").whole()
    assert len(pairs) == count
    assert all(max(image_size(pair.image, upright=True)) == 192 for pair in pairs)


def test_the_shipped_splits_share_no_image():
    pairs = [
        pair for split in ("train", "valid", "test") for pair in list_pairs(f"data/people/{split}_pairs.txt").whole()
    ]
    assert len({pair.image for pair in pairs}) == len({pair.mask for pair in pairs}) == 200
    assert sum(path.stat().st_size for path in Path("data/people").rglob("*")) < 3_000_000
