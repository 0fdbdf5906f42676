"""The training data of the people model: crops, composites and empty scenes of annotated photos."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from data_loader.people_zoo import __main__ as command
from data_loader.people_zoo import scenes
from data_loader.people_zoo.photos import AnnotatedPhotos, Photo
from utils.errors import ConfigError, DataError

HEIGHT, WIDTH = 240, 160
BAG, COAT, HAIR = 2, 13, 19


def labels() -> np.ndarray:
    """A person in the middle: hair above a coat, a bag at its side."""
    result = np.zeros((HEIGHT, WIDTH), np.uint8)
    result[30:60, 70:90] = HAIR
    result[60:220, 60:100] = COAT
    result[120:150, 100:115] = BAG
    return result


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two splits of two photos, as the repository and the lists have them."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "annotations" / "pixel-level").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("0001", "0002", "0003"):
        image = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.jpg"), cv2.resize(image, (WIDTH, HEIGHT)))
        savemat(tmp_path / "annotations" / "pixel-level" / f"{name}.mat", {"groundtruth": labels()})
    (tmp_path / "train_pairs.txt").write_text(
        "x/images/0001.jpg, x/masks/0001.png\nx/images/0002.jpg, x/masks/0002.png\n"
    )
    (tmp_path / "valid_pairs.txt").write_text("x/images/0003.jpg, x/masks/0003.png\n")
    (tmp_path / "heads.csv").write_text("photo,x0,y0,x1,y1,face_found\n0001,0.4375,0.125,0.5625,0.25,1\n0002,,,,,0\n")
    return tmp_path


def arguments(source: Path, output: Path) -> list[str]:
    counts = ["--train", "40", "--valid", "6", "--processes", "1"]
    return ["--photos", str(source), "--splits", str(source), "--output", str(output), *counts]


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_photo_has_its_person_its_bag_and_its_head(source: Path) -> None:
    first, second = AnnotatedPhotos(source, source / "train_pairs.txt")
    assert first.image.shape == (HEIGHT, WIDTH, 3)
    assert first.mask.sum() == 30 * 20 + 160 * 40  # not the bag
    assert first.bags.sum() == 30 * 15
    assert (first.head.left, first.head.top, first.head.right, first.head.bottom) == (70, 30, 90, 60)
    assert second.head is None


@pytest.mark.slow
def test_two_calls_write_the_same_files_and_every_kind(source: Path) -> None:
    for name in ("a", "b"):
        command.main(command.parser().parse_args(arguments(source, source / name)))
    first = written(source / "a")

    assert first == written(source / "b")
    lines = (source / "a" / "train_pairs.txt").read_text().splitlines()
    assert len(lines) == 40
    kinds = {line.split(",")[0].split("_")[1].removesuffix(".jpg") for line in lines}
    assert kinds == set(command.KINDS)
    for line in lines:
        image, mask = (cv2.imread(str(source / "a" / part.strip()), cv2.IMREAD_UNCHANGED) for part in line.split(","))
        assert image.shape[:2] == mask.shape
        assert max(mask.shape) <= scenes.LONG_SIDE
        assert set(np.unique(mask)) <= {0, 1}
        if "empty" in line:
            assert not mask.any()


def test_a_cutout_covers_what_its_mask_says() -> None:
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    photo = Photo(image, (labels() == COAT).astype(np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8), None)
    colours, opacity = scenes.cutout(photo, 0.5, 0.0)
    into = scenes.Scene(np.zeros((100, 100, 3), np.uint8), np.zeros((100, 100), np.uint8))

    scenes.paste(into, colours, opacity, (-20, 80))  # cut off above and at the right

    assert into.mask.sum() == pytest.approx((into.image[..., 0] > 100).sum(), rel=0.05)
    assert into.mask[:, :80].sum() == 0
    assert into.mask[:, -1].any()


def test_a_window_without_people_has_none(source: Path) -> None:
    photo = AnnotatedPhotos(source, source / "train_pairs.txt")[0]
    wide = Photo(
        np.pad(photo.image, ((0, 0), (0, 200), (0, 0))), np.pad(photo.mask, ((0, 0), (0, 200))), photo.bags, photo.head
    )
    boxes = [scenes.empty_window(wide, np.random.default_rng(seed)) for seed in range(5)]
    assert all(box is not None and not box.cut(wide.mask).any() for box in boxes)
    assert scenes.empty_window(photo, np.random.default_rng(0)) is None  # too narrow beside the person


def test_passers_by_are_ignored_away_from_person_and_bag(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    photo = AnnotatedPhotos(source, source / "train_pairs.txt")[0]
    seen = np.zeros((HEIGHT, WIDTH), np.uint8)
    seen[100:140, 5:25] = 1  # a passer-by
    seen[120:150, 100:112] = 1  # the bag
    seen[60:220, 60:100] = 1
    monkeypatch.setattr("data_loader.people_zoo.passers_by.find_people", lambda *_: seen)

    sample = scenes.crop(photo, scenes.whole_window(photo), Path("model"))

    assert (sample.mask == 255).sum() == 40 * 20
    assert (sample.mask[100:140, 5:25] == 255).all()


def test_what_is_missing_is_named(source: Path) -> None:
    options = arguments(source, source / "out")
    (source / "annotations" / "pixel-level" / "0001.mat").write_bytes(b"no matrix")
    with pytest.raises(DataError, match=r"0001\.mat cannot be read .* Copy it again\."):
        AnnotatedPhotos(source, source / "train_pairs.txt")[0]
    with pytest.raises(
        DataError, match=r"nowhere.photos does not exist\. Name a copy of the repository clothing-co-parsing"
    ):
        AnnotatedPhotos(source / "nowhere", source / "train_pairs.txt")
    (source / "out").mkdir()
    with pytest.raises(ConfigError, match=r"--output .*out exists\. Name a new folder, or remove that one\."):
        command.main(command.parser().parse_args(options))
    (source / "heads.csv").write_text("photo,left\n1,2\n")
    with pytest.raises(DataError, match=r"heads\.csv has no boxes of heads .* photo, x0, y0, x1, y1\."):
        AnnotatedPhotos(source, source / "train_pairs.txt")


def test_a_disk_that_takes_nothing_is_named(source: Path) -> None:
    photos = AnnotatedPhotos(source, source / "train_pairs.txt")
    with pytest.raises(DataError, match=r"gone.images.00000_\w+\.jpg cannot be written .* start again\."):
        command.write_sample(0, photos, 0, source / "gone", None)
