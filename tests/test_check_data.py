"""The check of data: all faults of a set in one pass, each with its file, and what the splits show together."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from base.base_data_loader import BaseDataLoader
from base.class_weights import class_weights
from base.samples import RawSample
from build import build_training
from data_loader.checking.compare import class_balance, compare_splits
from data_loader.checking.examine import examine
from data_loader.checking.facts import SplitFacts, facts_of
from data_loader.classification.loader import ImageClassificationDataLoader
from data_loader.segmentation.array_loader import ArraySegmentationDataLoader
from data_loader.segmentation.cityscapes import CityscapesDataLoader
from data_loader.segmentation.loader import SegmentationDataLoader
from data_loader.segmentation.torchvision_loader import TorchvisionSegmentationDataLoader
from data_loader.time_series.loader import TimeSeriesDataLoader
from tests.support.groups import from_flat
from tests.support.loader_cases import arrays, cityscapes, class_folders, pairs_list, save, series, voc
from utils.errors import ConfigError, DataError, Finding, each_error

SIZE = (96, 120)


def photo(number, size=SIZE):
    """A picture with large and small shapes, another one for each number."""
    generator = np.random.default_rng(number)
    layers = [
        cv2.resize(generator.normal(0, spread, (cells, cells, 3)), size[::-1], interpolation=cv2.INTER_CUBIC)
        for cells, spread in ((4, 60), (14, 40))
    ]
    return np.clip(sum(layers) + 128, 0, 255).astype(np.uint8)


def encoded(pixels, kind, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def mask(values=(0, 1, 2), size=SIZE, dtype=np.uint8):
    """Stripes of these values."""
    return np.repeat(np.resize(np.asarray(values, dtype), size[1])[None], size[0], axis=0)


def palette(colors, indices):
    image = Image.fromarray(indices)
    image.putpalette([channel for color in colors for channel in color])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def changed(content, start, new):
    return content[:start] + new + content[start + len(new) :]


JPEG, PNG = encoded(photo(0), "JPEG", quality=90), encoded(photo(0), "PNG")
IDS = encoded(mask(), "PNG")

FAULTY_IMAGES = {  # name -> content, words of the finding
    "cut.jpg": (JPEG[: len(JPEG) // 2], "it is cut off"),
    "hole.jpg": (changed(JPEG, len(JPEG) // 2, bytes(400)), "it is damaged at byte"),
    "empty.jpg": (b"", "it is empty"),
    "zeros.png": (bytes(500), "it holds nothing but zeros"),
    "page.jpg": (b"<!DOCTYPE html><html>404</html>", "it is not an image of a known kind"),
    "bit.png": (changed(PNG, 2000, bytes([PNG[2000] ^ 1])), "check sum of 'IDAT' is wrong"),
    "cut.png": (PNG[:-40], "it is cut off"),
    "cut.webp": (encoded(photo(0), "WEBP")[:-50], "cut off"),
    "large.png": (encoded(np.zeros((700, 700, 3), np.uint8), "PNG"), "the limit is 1 MB (max_decoded_mb)"),
    "small.jpg": (encoded(photo(0, (90, 120)), "JPEG"), "both must have the same size"),
    "turned.jpg": (encoded(photo(0, SIZE[::-1]), "JPEG"), "Height and width are swapped"),
}
FAULTY_MASKS = {
    "label.png": (encoded(mask((0, 1, 7)), "PNG"), "holds the labels 7: masks must hold 0 to 2"),
    "deep.png": (encoded(mask((0, 1, 300), dtype=np.uint16), "PNG"), "holds the labels 300"),
    "colored.png": (encoded(photo(1), "PNG"), "has colours; a mask must hold one class id"),
    "lossy.jpg": (encoded(mask(), "JPEG"), "is a JPEG. JPEG changes labels"),
    "lossy.webp": (encoded(photo(1)[..., 0], "WEBP"), "is a lossy WebP"),
    "lossy.tif": (encoded(photo(1), "TIFF", compression="jpeg"), "TIFF with JPEG inside"),
    "alpha.png": (
        encoded(np.dstack([np.full((*SIZE, 3), 1, np.uint8), mask((0, 255))]), "PNG"),
        "a shape in its alpha channel",
    ),
    "fractions.tif": (encoded(mask().astype(np.float32) / 2, "TIFF"), "holds float32 values"),
    "cut_mask.png": (IDS[:-30], "it is cut off"),
    "text.png": (b"no picture", "it is not an image of a known kind"),
}
FAULTY_LINES = {
    "alone.jpg": "is not one image and one mask",
    "too.jpg, many.png, names.png": "is not one image and one mask",
    "absent.jpg, good0_mask.png": "does not exist",
    "good0.jpg, absent_mask.png": "does not exist",
}


def write_list(folder):
    """A list of pairs with 26 faults between good pairs of three classes."""
    lines = []
    for number in range(3):
        (folder / f"good{number}.jpg").write_bytes(encoded(photo(number), "JPEG"))
        (folder / f"good{number}_mask.png").write_bytes(encoded(mask(np.roll([0, 1, 2], number)), "PNG"))
        lines.append(f"good{number}.jpg, good{number}_mask.png")
    for name, (content, _) in FAULTY_IMAGES.items():
        (folder / name).write_bytes(content)
        size = (700, 700) if name == "large.png" else SIZE
        (folder / f"of_{name}.png").write_bytes(encoded(mask(size=size), "PNG"))
        lines.append(f"{name}, of_{name}.png")
    for name, (content, _) in FAULTY_MASKS.items():
        (folder / name).write_bytes(content)
        (folder / f"of_{name}.jpg").write_bytes(encoded(photo(9), "JPEG"))
        lines.append(f"of_{name}.jpg, {name}")
    lines[2:2] = FAULTY_LINES
    (folder / "pairs.txt").write_text("\n".join(lines))
    return folder / "pairs.txt"


def loader_of(path, **args):
    defaults = {"num_classes": 3, "resize": 32, "batch_size": 4, "cache_mb": 1}
    return from_flat(SegmentationDataLoader, pairs_file=str(path), **{**defaults, **args})


def require_each(findings, expected):
    """Every expected fault is a finding whose place or message names its file, and there are no others."""
    for name, words in expected.items():
        texts = [f"{finding.place} {finding.message}" for finding in findings]
        assert any(name in text and words in text for text in texts), f"{name}: {words} not in {texts}"
    assert len(findings) == len(expected), [finding.message for finding in findings]
    assert all(finding.is_fault and finding.kind == "data" for finding in findings)


def test_one_pass_names_every_fault_of_a_list(tmp_path):
    path = write_list(tmp_path)
    expected = {name: words for name, (_, words) in (FAULTY_IMAGES | FAULTY_MASKS).items()} | FAULTY_LINES
    expected["absent.jpg"] = expected.pop("absent.jpg, good0_mask.png")
    expected["absent_mask.png"] = expected.pop("good0.jpg, absent_mask.png")
    expected["of_large.png.png"] = "the limit is 1 MB"
    assert len(expected) == 26
    seen = []
    facts, findings = examine(loader_of(path, max_decoded_mb=1), "train_loader", lambda *step: seen.append(step))
    require_each(findings, expected)
    places = {finding.place for finding in findings}
    assert {str(tmp_path / "cut.jpg"), str(tmp_path / "label.png")} <= places  # the faulty file of the two
    assert {str(tmp_path / "absent_mask.png"), f"{path}, line 3"} <= places
    assert (facts.num_samples, facts.num_readable, facts.num_unreadable) == (24, 3, 21)
    assert [name.rpartition("/")[2] for name in facts.names] == ["good0.jpg", "good1.jpg", "good2.jpg"]
    assert facts.class_counts == [3 * 96 * 40] * 3
    assert seen == [(number, 24) for number in range(1, 25)]


def test_a_training_is_refused_before_anything_is_decoded(tmp_path):
    loader = loader_of(write_list(tmp_path), max_decoded_mb=1)
    with pytest.raises(DataError, match=r"2 lines of .* are not `image, mask`:") as caught:
        loader.prepare()
    assert "names 2 files that do not exist" in str(caught.value)
    assert "cut.jpg" not in str(caught.value)
    with pytest.raises(DataError, match="2 lines of"):
        next(iter(loader.evaluation_loader()))


def test_faults_of_both_lists_come_before_those_of_the_files(tmp_path):
    path, valid = write_list(tmp_path), tmp_path / "valid.txt"
    path.write_text("cut.jpg, of_cut.jpg.png\ngood0.jpg, good0_mask.png")
    valid.write_text("absent.jpg, good1_mask.png\ngood1.jpg, good1_mask.png")
    args = {"num_classes": 3, "resize": 32, "batch_size": 2}
    config = {
        "name": "faulty",
        "n_gpu": 0,
        "arch": {"type": "UNet", "args": {"channels": [4, 4]}},
        **{
            section: {"type": "SegmentationDataLoader", "args": {**args, "pairs_file": str(file)}}
            for section, file in (("train_loader", path), ("valid_loader", valid))
        },
        "optimizer": {"type": "SGD", "args": {"lr": 0.1}},
        "loss": "ce_loss",
        "trainer": {"epochs": 1, "save_dir": str(tmp_path / "saved")},
    }
    with pytest.raises(DataError, match=r"valid\.txt names 1 files that do not exist: \S+absent\.jpg"):
        build_training(config)
    valid.write_text("good1.jpg, good1_mask.png")
    with pytest.raises(DataError, match=r"cut\.jpg cannot be read as an image: it is cut off"):
        build_training(config)


def test_faults_that_have_one_cause_are_one_finding(tmp_path):
    path = write_list(tmp_path)
    with pytest.raises(DataError, match="names 52 files that do not exist") as caught:
        loader_of(path, data_root=str(tmp_path / "elsewhere"))
    assert len(list(each_error(caught.value))) == 3  # two lines, and all files


def test_both_files_of_a_pair_are_reported(tmp_path):
    (tmp_path / "a.jpg").write_bytes(JPEG[:-900])
    (tmp_path / "b.png").write_bytes(encoded(mask((0, 9)), "PNG"))
    (tmp_path / "small.jpg").write_bytes(encoded(photo(0, (90, 120)), "JPEG"))
    (tmp_path / "pairs.txt").write_text("a.jpg, b.png\nsmall.jpg, b.png")
    _, findings = examine(loader_of(tmp_path / "pairs.txt"), "train_loader")
    assert [finding.place.rpartition("/")[2] for finding in findings] == ["a.jpg", "b.png", "b.png", "b.png"]
    assert [
        next(words for words in ("cut off", "labels 9", "same size") if words in finding.message)
        for finding in findings
    ] == ["cut off", "labels 9", "same size", "labels 9"]


def test_one_pass_names_every_fault_of_folders_with_black_and_white_masks(tmp_path):
    soft = mask((0, 128, 255))
    grey = np.dstack([mask((0, 255))] * 3 + [mask((0, 255, 0, 0))])
    grey[:, ::2, 3] = 255
    contents = {
        "areas.png": (encoded(np.repeat(soft, 3, axis=1)[:, : SIZE[1]], "PNG"), "has areas of the values 0, 128, 255"),
        "dark.png": (encoded(mask((0, 1)) * 90, "JPEG"), "is a JPEG whose largest value is"),
        "colors.png": (palette([(255, 0, 0), (0, 0, 255)], mask((0, 1))), "these are not"),
        "hidden.png": (encoded(grey, "PNG"), "is transparent at"),
    }
    for number in range(2):
        save(tmp_path / f"data/train/good{number}.png", photo(number))
        save(tmp_path / f"labels/train/good{number}.png", np.repeat(mask((0, 255)), 6, axis=1)[:, : SIZE[1]])
    for number, (name, (content, _)) in enumerate(contents.items()):
        save(tmp_path / f"data/train/{name}", photo(number))
        (tmp_path / f"labels/train/{name}").write_bytes(content)
    save(tmp_path / "data/train/unlabelled.png", photo(7))
    save(tmp_path / "labels/train/lonely.png", mask((0, 255)))
    args = {"folder": str(tmp_path), "binary_masks": True, "resize": 32, "batch_size": 2}
    facts, findings = examine(from_flat(SegmentationDataLoader, **args), "train_loader")
    expected = {name: words for name, (_, words) in contents.items()}
    expected |= {"unlabelled.png": "does not exist", "lonely.png": "is a mask without an image"}
    require_each(findings, expected)
    assert facts.num_readable == 2


def test_one_pass_names_every_fault_of_classes(tmp_path):
    for number in range(4):
        save(tmp_path / f"good{number}.png", photo(number))
    names = {"cut.jpg", "hole.jpg", "empty.jpg", "page.jpg", "bit.png", "large.png"}
    for name in names:
        (tmp_path / name).write_bytes(FAULTY_IMAGES[name][0])
    lines = [f"good{number}.png, {'ab'[number % 2]}" for number in range(4)] + [f"{name}, a" for name in sorted(names)]
    lines[1:1] = ["nothing_else", "no_class.png,", "absent.png, b", "good0.png, c"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    args = {"list_file": str(tmp_path / "list.txt"), "classes": ["a", "b"], "max_decoded_mb": 1, "resize": 32}
    facts, findings = examine(from_flat(ImageClassificationDataLoader, **args), "train_loader")
    expected = {name: FAULTY_IMAGES[name][1] for name in names}
    expected |= {"nothing_else": "is not one image and its class", "no_class.png,": "is not one image and its class"}
    expected |= {"absent.png": "does not exist", "good0.png": 'is of the class "c"'}
    require_each(findings, expected)
    assert (facts.num_readable, facts.class_counts, facts.class_samples) == (4, [2, 2], [2, 2])


def test_a_class_without_an_image_is_named_and_the_others_are_read(tmp_path):
    for name in ("bus", "car"):
        save(tmp_path / f"{name}/0.png", photo(0))
    (tmp_path / "car/1.png").write_bytes(PNG[:-9])
    (tmp_path / "tram").mkdir()
    facts, findings = examine(from_flat(ImageClassificationDataLoader, folder=str(tmp_path), resize=32), "train_loader")
    require_each(findings, {"tram": "holds no image", "1.png": "it is cut off"})
    assert facts.num_readable == 2


def test_one_pass_names_every_fault_of_series(tmp_path):
    lines = [
        "@problemName Toy", "@univariate false", "@dimensions 2", "@equalLength true", "@seriesLength 3",
        "@classLabel true", "@data", "1,2,3:4,5,6:up", "1,2,3:4,5,6:down", "1,two,3:4,5,6:up", "1,2,3:up",
        "1,2,3:4,5:up", "1,2:4,5:down", "1,2,3:4,1e39,6:up", "1,2,3:inf,5,6:up", "1,2,3:4,5,6:?", "1,2,3:4,5,6:",
        "1,2,?:4,5,6:sideways",
    ]  # fmt: skip
    (tmp_path / "toy.ts").write_text("\n".join(lines))
    args = {"path": str(tmp_path / "toy.ts"), "classes": ["up", "down"], "split": "train"}
    facts, findings = examine(from_flat(TimeSeriesDataLoader, **args), "train_loader")
    expected = {
        "line 10": '"two" is not a number', "line 11": "has 1 variables", "line 12": "variables of 2, 3 steps",
        "line 13": "@seriesLength is 3", "line 14": "variable 2 at step 2 is infinite",
        "line 15": "variable 2 at step 1 is infinite", "line 16": "has no class", "line 17": "has no class",
        "line 18": 'is of the class "sideways"',
    }  # fmt: skip
    require_each(findings, expected)
    assert (facts.num_readable, facts.class_counts) == (2, [1, 1])
    with pytest.raises(DataError, match=r"4 lines of .* cannot be used"):
        from_flat(TimeSeriesDataLoader, **args).prepare()


def test_one_pass_names_every_fault_of_arrays(tmp_path):
    x = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    x[1, 1, 2] = np.inf
    np.savez(tmp_path / "a.npz", x=x, y=np.array([0.0, 1.0, np.nan, 1.0]))
    loader = from_flat(TimeSeriesDataLoader, path=str(tmp_path / "a.npz"), split="train")
    assert loader.class_names == ["0", "1"]
    _, findings = examine(loader, "train_loader")
    require_each(findings, {"series 1": "variable 2 at step 3 is infinite", "series 2": "has no class"})
    for number, name in enumerate(("good", "nan", "text", "thin")):
        save(tmp_path / f"data/train/{name}.npy", np.full((8, 8, 4), number, np.float32))
        save(tmp_path / f"labels/train/{name}.npy", np.zeros((8, 8), np.uint8))
    save(tmp_path / "data/train/nan.npy", np.full((8, 8, 4), np.nan, np.float32))
    (tmp_path / "data/train/text.npy").write_bytes(b"no array")
    save(tmp_path / "data/train/thin.npy", np.zeros((8, 8, 3), np.float32))
    save(tmp_path / "labels/train/good.npy", np.full((8, 8), -1, np.int16))
    args = {"folder": str(tmp_path), "num_classes": 2, "in_channels": 4}
    _, findings = examine(from_flat(ArraySegmentationDataLoader, **args), "train_loader")
    expected = {"data/train/nan.npy": "not finite", "text.npy": "cannot be read", "thin.npy": "3 channels"}
    require_each(findings, expected | {"labels/train/good.npy": "holds the value -1"})


@pytest.mark.parametrize("label", [255, 1])
def test_validation_in_which_no_label_counts_is_one_fault(tmp_path, label):
    for number in range(3):
        save(tmp_path / f"{number}.png", photo(number))
        save(tmp_path / f"{number}_mask.png", np.full(SIZE, label, np.uint8))
    lines = [f"{number}.png, {number}_mask.png" for number in range(3)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    facts, findings = examine(loader_of(tmp_path / "pairs.txt", ignore_index=255, is_training=False), "valid_loader")
    message = "every label of its 3 samples is 255 (ignored) or of no class. There is nothing to evaluate on."
    assert [message in finding.message for finding in findings] == [True] * (label == 255)
    assert facts.ignored_share == (label == 255)


def test_every_transform_that_cannot_be_applied_is_a_fault(tmp_path):
    import albumentations as A

    args = pairs_list(tmp_path)
    transforms = [A.RandomCrop(99, 9), A.HorizontalFlip(), A.OneOf([A.CenterCrop(8, 88), A.VerticalFlip()])]
    loader = from_flat(SegmentationDataLoader, **args, transforms=transforms)
    _, findings = examine(loader, "train_loader")
    assert [(each.kind, each.place) for each in findings] == [("config", "train_loader.args.transforms")] * 2
    assert [each.message.split()[1] for each in findings] == ["RandomCrop", "CenterCrop"]
    with pytest.raises(ConfigError, match="RandomCrop cannot be applied"):
        loader.prepare()


@pytest.mark.parametrize("kind", ["segmentation", "classification"])
def test_images_that_cannot_share_a_batch_are_one_fault(tmp_path, kind):
    for number, size in enumerate([SIZE, SIZE, (80, 120), (50, 60)]):
        save(tmp_path / f"{'ab'[number % 2]}/{number}.png", photo(number, size))
        save(tmp_path / f"masks/{number}.png", mask(size=size))
    lines = [f"{'ab'[number % 2]}/{number}.png, masks/{number}.png" for number in range(4)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    (tmp_path / "list.txt").write_text(
        "\n".join(f"{'ab'[number % 2]}/{number}.png, {number % 2}" for number in range(4))
    )
    if kind == "segmentation":
        loaders = [loader_of(tmp_path / "pairs.txt", resize=None, batch_size=size) for size in (2, 1)]
    else:
        path = str(tmp_path / "list.txt")
        loaders = [from_flat(ImageClassificationDataLoader, list_file=path, batch_size=size) for size in (2, 1)]
    _, findings = examine(loaders[0], "train_loader")
    assert len(findings) == 1
    assert "2.png 80x120, and batch_size is 2. Set resize" in findings[0].message
    with pytest.raises(DataError, match="cannot share a batch"):
        loaders[0].prepare()
    assert examine(loaders[1], "train_loader")[1] == []


@pytest.mark.parametrize(
    ("loader", "case"),
    [
        (SegmentationDataLoader, pairs_list),
        (ArraySegmentationDataLoader, arrays),
        (CityscapesDataLoader, cityscapes),
        (TorchvisionSegmentationDataLoader, voc),
        (ImageClassificationDataLoader, class_folders),
        (TimeSeriesDataLoader, series),
    ],
)
def test_a_clean_set_has_no_fault_and_its_counts_are_those_of_the_loader(tmp_path, loader, case):
    made = from_flat(loader, **case(tmp_path), validation_split=2)
    for each in (made, made.split_validation()):
        facts, findings = examine(each, "data_loader")
        assert findings == []
        assert facts.num_readable == facts.num_samples == each.num_samples
        assert facts.class_counts == each.class_counts()
    assert len(class_balance({"train": facts})) == made.num_classes


def test_masks_that_cityscapes_lacks_are_named_one_by_one(tmp_path):
    args = cityscapes(tmp_path)
    lost = sorted((tmp_path / "gtFine/train").rglob("*_labelIds.png"))[:2]
    for path in lost:
        path.unlink()
    facts, findings = examine(from_flat(CityscapesDataLoader, **args), "train_loader")
    require_each(findings, {path.name: "is missing" for path in lost})
    assert facts.num_readable == 5


class Squares:
    """A data set of a plug-in, which gives whole samples only."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index == 1:
            raise ValueError("no such square")
        if index == 2:
            raise DataError("square 2 is round. Draw it again.")
        return np.full((3, 8, 8), index // 2, np.float32), index % 2


class SquareLoader(BaseDataLoader):
    def __init__(self):
        super().__init__(Squares(), 2)
        self.num_classes = 2


def test_a_loader_of_a_plug_in_is_read_sample_by_sample():
    facts, findings = examine(SquareLoader(), "train_loader")
    assert [finding.place for finding in findings] == ["train_loader, sample 1", "train_loader, sample 2"]
    assert "cannot be loaded: ValueError: no such square" in findings[0].message
    assert findings[1].message == "square 2 is round. Draw it again."
    assert (facts.num_samples, facts.num_readable, facts.class_counts) == (6, 4, [2, 2])
    warnings = compare_splits({"train": facts})
    assert ["twice with the same content but different labels" in each.message for each in warnings] == [True]


class Wrapped(BaseDataLoader):
    def __init__(self, samples, **args):
        super().__init__(samples, 2, **args)
        self.num_classes = 3


def test_what_a_plug_in_gives_decides_what_is_known_of_it():
    pairs = [(np.full((1, 70, 80), 0.1 * number, np.float32), np.full((70, 80), number)) for number in range(5)]
    facts, findings = examine(Wrapped(pairs), "train_loader")
    assert [finding.place for finding in findings] == ["train_loader, sample 3", "train_loader, sample 4"]
    assert findings[0].message.startswith("train_loader, sample 3 holds the labels 3: labels must be 0 to 2.")
    assert facts.size_range() == ((70, 80),) * 3
    assert facts.class_counts == [5600] * 3
    assert len(facts.fingerprints) == 5  # channels come first in a tensor
    mappings = [{"input": np.zeros(3), "target": 1} for _ in range(4)]
    facts, findings = examine(Wrapped(mappings), "train_loader")
    assert (findings, facts.num_readable, facts.class_counts) == ([], 4, [])
    other, _ = examine(Wrapped(mappings), "valid_loader")
    assert compare_splits({"train": facts, "valid": other}) == []
    assert class_balance({"train": facts}) == []


def test_of_very_many_samples_some_are_compared_or_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("data_loader.checking.examine.MOST_COMPARED", 2)
    facts = facts_of_photos(tmp_path, "train_loader", [photo(number) for number in range(5)])
    assert facts.compared.tolist() == [0, 3]
    assert len(facts.digests) == 5
    monkeypatch.setattr("data_loader.checking.examine._MOST_LOADED", 4)
    samples = [(np.full(3, number, np.float32), 1) for number in range(9)]
    facts, _ = examine(Wrapped(samples), "train_loader")
    assert (facts.num_samples, facts.num_examined, facts.num_readable, facts.num_unreadable) == (9, 3, 3, 0)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("channels", [(), (1,), (2,), (4,), (6,)])
def test_images_of_any_kind_of_number_have_a_look(dtype, channels):
    shades = np.linspace(0, 200, 70)[:, None] + np.linspace(0, 50, 80)
    values = np.broadcast_to(shades.reshape(70, 80, *[1 for _ in channels]), (70, 80, *channels)).astype(dtype)
    facts = facts_of(RawSample(values, 1), "a", 2, None, has_look=True)
    assert (facts.look is None) == (not channels and dtype != "uint8")  # a series otherwise
    if facts.look is not None and dtype != "bool":
        assert facts.look.fingerprint == 2**64 - 1  # brighter from left to right everywhere


def test_tensors_that_numpy_cannot_read_tell_nothing_and_are_no_fault():
    samples = [(torch.zeros(3, 8, 8, dtype=torch.bfloat16), torch.tensor(1)) for _ in range(2)]
    facts, findings = examine(Wrapped(samples), "train_loader")
    assert (findings, facts.num_readable) == ([], 2)


def test_a_variable_without_any_value_is_a_warning(tmp_path):
    x = np.arange(36, dtype=np.float32).reshape(3, 3, 4)
    x[1, [0, 2]] = np.nan
    x[2, 1, 1] = np.nan
    np.savez(tmp_path / "a.npz", x=x, y=np.array([0, 1, 0]))
    loader = from_flat(TimeSeriesDataLoader, path=str(tmp_path / "a.npz"), split="train")
    facts, (warning,) = examine(loader, "train_loader")
    assert not warning.is_fault
    assert "series 1: every value of variable 1, 3 is missing: the network gets zeros" in warning.message
    assert facts.num_readable == 3


def facts_of_photos(folder, section, images, **args):
    """Write photos with masks of two classes and return the facts of their loader."""
    lines = []
    for number, image in enumerate(images):
        save(folder / f"{section}{number}.png", image)
        save(folder / f"{section}{number}_mask.png", mask((0, 1, number % 2), image.shape[:2]))
        lines.append(f"{section}{number}.png, {section}{number}_mask.png")
    (folder / f"{section}.txt").write_text("\n".join(lines))
    facts, findings = examine(loader_of(folder / f"{section}.txt", num_classes=2, **args), section)
    assert findings == []
    return facts


def test_the_same_image_in_two_splits_is_a_warning_unless_that_is_meant(tmp_path):
    facts = {
        "train": facts_of_photos(tmp_path, "train_loader", [photo(0), photo(1), photo(2)]),
        "valid": facts_of_photos(tmp_path, "valid_loader", [photo(3), photo(1)], resize=48),
    }
    (all_of_them,) = compare_splits({"train": facts["train"], "valid": facts["train"]})
    assert (
        f"3 of 3 valid samples are train samples, too: {tmp_path}/train_loader0.png, {tmp_path}/" in all_of_them.message
    )
    (warning,) = compare_splits(facts)
    assert (warning.kind, warning.place, warning.is_fault) == ("data", "valid_loader", False)
    assert warning.message.startswith("1 of 2 valid samples are train samples, too: ")
    assert "train_loader1.png = " in warning.message
    assert "valid_loader1.png" in warning.message
    assert compare_splits(facts, is_overfit=True) == []


def test_the_same_image_twice_in_a_split_is_a_warning_that_names_different_labels(tmp_path):
    images = [photo(0), photo(1), photo(0), photo(2), photo(1), photo(3), photo(3)]
    (same, differing) = compare_splits({"train": facts_of_photos(tmp_path, "train_loader", images)})
    assert same.message.startswith("1 train sample is there twice with the same content: ")
    assert "train_loader0.png = " in same.message
    assert differing.message.startswith("2 train samples are there twice with the same content but different labels: ")
    assert "train_loader5.png = " in differing.message


def recompressed(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)


COPIES = {
    "compressed anew": recompressed,
    "half the size": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "shifted": lambda image: np.roll(image, (3, 4), axis=(0, 1)),
    "cut": lambda image: image[4:-4, 5:-5],
    "brighter": lambda image: cv2.convertScaleAbs(image, alpha=1.1, beta=10),
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
def test_near_copies_across_splits_are_found(tmp_path, change):
    size = (192, 240)
    train = facts_of_photos(tmp_path, "train_loader", [photo(number, size) for number in range(12)])
    images = [photo(20, size), np.ascontiguousarray(change(photo(7, size))), photo(21, size)]
    facts = {"train": train, "test": facts_of_photos(tmp_path, "test_loader", images)}
    (warning,) = compare_splits(facts)
    assert warning.place == "test_loader"
    assert warning.message.startswith("1 of 3 test images look like one of train: ")
    assert f"{tmp_path}/train_loader7.png ~ {tmp_path}/test_loader1.png. " in warning.message


def street(number, size=(192, 240)):
    """A bright sky above a dark road, houses that differ at its sides."""
    generator = np.random.default_rng(number)
    image = np.repeat(np.linspace(230, 60, size[0])[:, None], size[1], axis=1)
    for _ in range(14):
        left, width, top = generator.integers(0, 200), generator.integers(15, 50), generator.integers(20, 100)
        image[top : top + 70, left : left + width] += generator.normal(0, 40)
    return np.dstack([np.clip(image, 0, 255).astype(np.uint8)] * 3)


def sky(number, size=(192, 240)):
    """Blank, but for noise, and brighter at the bottom."""
    image = np.linspace(150 + number, 210, size[0])[:, None] + np.random.default_rng(number).normal(0, 2, size)
    return np.dstack([np.clip(image, 0, 255).astype(np.uint8)] * 3)


@pytest.mark.parametrize("draw", [photo, street, sky, lambda number: photo(number, (40, 50))])
def test_different_images_of_one_kind_are_no_near_copies(tmp_path, draw):
    facts = {
        "train": facts_of_photos(tmp_path, "train_loader", [draw(number) for number in range(20)]),
        "valid": facts_of_photos(tmp_path, "valid_loader", [draw(number) for number in range(20, 40)]),
    }
    assert compare_splits(facts) == []


def test_frames_of_a_video_are_near_copies(tmp_path):
    background, box = photo(0, (192, 320)), photo(1, (60, 40))
    frames = []
    for number in range(10):
        frame = background.copy()
        frame[80:140, 40 + 4 * number : 80 + 4 * number] = box
        frames.append(frame)
    train, valid = frames[::2], frames[1::2]
    facts = {
        "train": facts_of_photos(tmp_path, "train_loader", train),
        "valid": facts_of_photos(tmp_path, "valid_loader", valid),
    }
    (warning,) = compare_splits(facts)
    assert warning.message.startswith("5 of 5 valid images look like one of train: ")


def labelled(folder, section, values):
    """Return the facts of two photos whose masks hold these values of four classes."""
    folder.mkdir(exist_ok=True)
    for number in range(2):
        save(folder / f"{section}{number}.png", photo(10 * sum(map(ord, section)) + number))
        save(folder / f"{section}{number}_mask.png", mask(values))
    lines = [f"{section}{number}.png, {section}{number}_mask.png" for number in range(2)]
    (folder / f"{section}.txt").write_text("\n".join(lines))
    classes = ["sky", "road", "pole", "tram"]
    loader = loader_of(folder / f"{section}.txt", num_classes=4, classes=classes, ignore_index=255)
    return examine(loader, section)[0]


def test_classes_that_no_split_or_one_split_lacks_are_warnings(tmp_path):
    facts = {
        "train": labelled(tmp_path, "train_loader", (0, 1, 2, 255)),
        "valid": labelled(tmp_path, "valid_loader", (0, 1)),
    }
    nowhere, lacking = compare_splits(facts)
    assert nowhere == Finding("data", "train_loader, valid_loader", nowhere.message, is_fault=False)
    assert nowhere.message.startswith("No label of tram in any split.")
    assert (lacking.place, lacking.message.partition(".")[0]) == (
        "valid_loader",
        "No valid label of pole, which other splits show",
    )
    assert facts["train"].ignored_share == 0.25
    complete = {split: labelled(tmp_path, f"{split}_loader", (0, 1, 2, 3)) for split in ("train", "valid")}
    assert compare_splits(complete) == []
    (untaught, *_) = compare_splits({"train": facts["valid"], "valid": complete["train"]})
    assert (untaught.place, untaught.message.partition(".")[0]) == (
        "valid_loader",  # the section of these facts
        "No train label of pole, tram, which other splits show",
    )
    assert "A network cannot learn it." in untaught.message
    assert "Its result there is empty" in lacking.message


def test_a_class_that_is_ignored_is_not_missing(tmp_path):
    for number in range(2):
        save(tmp_path / f"{number}.png", photo(number))
        save(tmp_path / f"{number}_mask.png", mask((0, 1, 2)))
    (tmp_path / "pairs.txt").write_text("0.png, 0_mask.png\n1.png, 1_mask.png")
    facts, findings = examine(loader_of(tmp_path / "pairs.txt", ignore_index=0), "train_loader")
    assert (findings, facts.class_counts[0], facts.ignored_share) == ([], 0, pytest.approx(1 / 3))
    assert compare_splits({"train": facts}) == []
    assert [row.weight for row in class_balance({"train": facts})] == [None, 1.0, 1.0]


def test_a_strong_imbalance_suggests_the_weights_of_the_rule_balanced(tmp_path):
    values = [0] * 60 + [1] * 40 + [2] * 15 + [3] * 5
    mild = {"train": labelled(tmp_path, "train_loader", values)}
    assert compare_splits(mild) == []  # 12 to 1
    strong = {"train": labelled(tmp_path, "train_loader", [0] * 80 + [1] * 30 + [2] * 8 + [3] * 2)}
    (warning,) = compare_splits(strong)
    # 1 / (C f): 120 columns, 4 classes
    assert "[0.375, 1, 3.75, 15]" in warning.message
    assert "from tram (1.7 %) to sky (67 %)" in warning.message
    rows = class_balance(strong | {"valid": labelled(tmp_path, "valid_loader", (0, 1))})
    assert [row.name for row in rows] == ["sky", "road", "pole", "tram"]
    assert [row.weight for row in rows] == pytest.approx([0.375, 1, 3.75, 15])
    assert rows[3].shares == {"train": pytest.approx(2 / 120), "valid": 0.0}


def test_the_weights_suggested_are_those_that_the_rule_gives():
    counts = [0, 400, 50, 10]
    facts = SplitFacts("train_loader", 1, class_counts=counts, ignore_index=0)
    (warning,) = compare_splits({"train": facts})
    assert '"balanced" would be [-, 0.383, 3.07, 15.3];' in warning.message
    given = class_weights("balanced", counts, ignore_index=0)
    assert [row.weight or 0.0 for row in class_balance({"train": facts})] == given
    facts.ignore_index = None  # then the rule refuses the class that is absent
    _, warning = compare_splits({"train": facts})
    assert '"log" or "bounded" ("balanced" needs a label of class_0, too).' in warning.message
