"""Images with one class each: the four sources, augmentation, mixing, and what is refused."""

import gzip
import shutil

import cv2
import numpy as np
import pytest
import torch
from torchvision.datasets import FakeData

from config.objects import instantiate
from data_loader import SECTIONS
from data_loader.classification.loader import (
    ClassificationCollate,
    ImageAugmentation,
    ImageClassificationDataLoader,
    PlacedImage,
    WholeImageOptions,
)
from data_loader.classification.sources import list_in_folders, list_labelled, read_idx
from data_loader.common.class_labels import NO_CLASS
from data_loader.common.image_cache import share_decoded
from data_loader.common.options import ImageOptions
from data_loader.images.preprocessing import Preprocessing
from tests.support.groups import from_flat
from utils.errors import ConfigError, DataError


def image(level, size=(10, 8)):
    return np.full((*size, 3), level, np.uint8)


@pytest.fixture
def folders(tmp_path):
    """train: three dark cats and two bright dogs; val: one of each."""
    for part, name, levels in [("train", "cat", (10, 20, 30)), ("train", "dog", (200, 220)), ("val", "cat", (15,))]:
        for level in levels:
            (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(tmp_path / part / name / f"{level}.png"), image(level))
    (tmp_path / "val" / "dog").mkdir()
    shutil.copy(tmp_path / "train/dog/200.png", tmp_path / "val/dog/210.png")
    return tmp_path


def write_idx(file, array):
    head = b"\0\0\x08" + bytes([array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    content = head + array.astype(np.uint8).tobytes()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return str(file)


def make(folder=None, **args):
    return from_flat(ImageClassificationDataLoader, folder, **args)


def plain(**args):
    return make(normalize=False, is_training=False, **{"batch_size": 8, **args})


def test_class_folders_with_parts(folders):
    inputs, target, samples = next(iter(plain(folder=str(folders), split="train")))
    assert inputs.shape == (5, 3, 10, 8)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert [round(value * 255) for value in inputs[:, 0, 0, 0].tolist()] == [10, 20, 30, 200, 220]
    assert target.tolist() == [0, 0, 0, 1, 1]
    assert samples[3].name.endswith("train/dog/200.png")
    loader = plain(folder=str(folders), resize=[6, 6], in_channels=1)
    assert (loader.num_samples, loader.class_names, loader.in_channels) == (2, ["cat", "dog"], 1)
    assert next(iter(loader))[0].shape == (2, 1, 6, 6)


def test_class_folders_without_parts_and_a_part_held_out(folders):
    loader = make(str(folders / "train"), validation_split=2, flip_hor=0.5, batch_size=2)
    held_out = loader.split_validation()
    assert (loader.num_samples, held_out.num_samples) == (3, 2)
    assert held_out.learned == {"classes": ["cat", "dog"]}
    assert len(next(iter(held_out))) == 3
    assert len(next(iter(loader))) == 2


def test_each_image_is_held_out_by_one_fold(folders):
    held_out = []
    for fold in range(2):
        loader = make(str(folders / "train"), folds={"fold": fold, "of": 2}, batch_size=2)
        part = loader.split_validation()
        assert loader.num_samples + part.num_samples == 5
        held_out += part.keys.indices.tolist()
    assert sorted(held_out) == list(range(5))
    with pytest.raises(ConfigError, match="folds and validation_split both hold samples out"):
        make(str(folders / "train"), folds={"fold": 0, "of": 2}, validation_split=1)


def test_classes_of_validation_are_those_of_training(folders):
    (folders / "val/cat").rename(folders / "val/cow")
    message = r'val/cow/15\.png is of the class "cow", and 1 of 2 samples .* training data: cat, dog\.'
    loader = plain(folder=str(folders), classes=["cat", "dog"])
    assert loader.num_samples == 1  # those of known classes, for a check to go through
    for use in (loader.prepare, lambda: next(iter(loader))):
        with pytest.raises(DataError, match=message):
            use()


def test_folders_that_do_not_hold_what_they_should(folders):
    (folders / "train/dog/200.png").unlink()
    (folders / "train/dog/220.png").unlink()
    with pytest.raises(DataError, match=r"train/dog holds no image .* every class needs one"):
        list_in_folders(folders, "train").whole()
    with pytest.raises(DataError, match="holds train, val, but not test"):
        list_in_folders(folders, "test").whole()
    with pytest.raises(DataError, match=r"The folder .*none does not exist"):
        list_in_folders(folders / "none", "train").whole()
    with pytest.raises(DataError, match=r"holds no folder\. Each class has one"):
        list_in_folders(folders / "val/cat", "train").whole()


def test_all_unreadable_files_are_named_before_the_first_batch(folders):
    for name in ("10", "20"):
        (folders / f"train/cat/{name}.png").write_bytes(b"no image")
    message = r"(?s)2 of 5 images cannot be used\..*cat/10\.png cannot be read .*cat/20\.png cannot be read"
    with pytest.raises(DataError, match=message):
        plain(folder=str(folders), split="train").prepare()
    with pytest.raises(DataError, match=r"15\.png has no fourth channel"):
        plain(folder=str(folders), in_channels=4, samples=1).prepare()


def test_only_the_images_of_the_loader_are_read(folders):
    (folders / "train/cat/30.png").write_bytes(b"no image")
    plain(folder=folders, split="train").dataset.dataset.prepare([0])
    with pytest.raises(DataError, match=r"30\.png"):
        plain(folder=folders, split="train").prepare()


def test_what_does_not_fit_into_the_memory_is_still_checked(folders):
    loader = plain(folder=str(folders), split="train", cache_mb=0)
    loader.prepare()
    assert next(iter(loader))[0].shape == (5, 3, 10, 8)
    (folders / "train/cat/10.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"10\.png cannot be read"):
        plain(folder=str(folders), split="train", cache_mb=0).prepare()


@pytest.mark.parametrize("resize", [None, [6, 6], [40, 40]])
@pytest.mark.parametrize("kind", ["folder", "idx", "dataset"])
def test_the_footprint_of_an_image_is_enough_for_its_decoded_array(folders, tmp_path, kind, resize):
    if kind == "folder":
        args = {"folder": str(folders), "split": "train"}
    elif kind == "idx":
        pair = [write_idx(tmp_path / name, np.zeros(shape)) for name, shape in (("i", (2, 9, 5)), ("l", (2,)))]
        args = {"images_file": pair[0], "labels_file": pair[1], "classes": ["a", "b"]}
    else:
        args = {"dataset": FakeData(size=4, image_size=(3, 8, 7), num_classes=2)}
    loader = plain(**args, resize=resize)
    loader.prepare()
    cache = loader.dataset.dataset.cache
    assert sorted(cache.samples) == list(range(loader.num_samples))
    for index, sample in cache.samples.items():
        assert sample.image.nbytes <= cache.decoder.footprint(index).num_bytes <= 40 * 40 * 3
        assert not sample.image.flags.writeable  # it lies in the block that forked workers share


def test_loaders_of_one_process_share_decoded_images_until_a_file_changes(folders):
    with share_decoded(16):
        first, second, other = (plain(folder=str(folders), **args) for args in ({}, {}, {"in_channels": 1}))
        for loader in (first, second, other):
            loader.prepare()
        images = [loader.dataset.dataset.cache.samples[0].image for loader in (first, second, other)]
        assert images[0] is images[1]
        assert images[2].shape[2] == 1
        assert cv2.imwrite(str(folders / "val/cat/15.png"), image(99))
        third = plain(folder=str(folders))
        third.prepare()
        samples = third.dataset.dataset.cache.samples
        assert samples[0].image.max() == 99
        assert samples[1].image is first.dataset.dataset.cache.samples[1].image


def test_samples_come_from_the_classes_in_turn(folders):
    loader = plain(folder=str(folders), split="train", samples=3)
    inputs, target, samples = next(iter(loader))
    assert [sample.name.split("/")[-1] for sample in samples] == ["10.png", "20.png", "200.png"]
    assert [round(value * 255) for value in inputs[:, 0, 0, 0].tolist()] == [10, 20, 200]
    assert target.tolist() == [0, 0, 1]


def test_four_channels(folders):
    rgba = np.dstack([image(40), np.full((10, 8), 7, np.uint8)])
    assert cv2.imwrite(str(folders / "val/cat/15.png"), rgba)
    assert cv2.imwrite(str(folders / "val/dog/210.png"), rgba)
    inputs = next(iter(plain(folder=str(folders), in_channels=4)))[0]
    assert [round(value * 255) for value in inputs[0, :, 0, 0].tolist()] == [40, 40, 40, 7]


def test_a_list(folders):
    (folders / "list.txt").write_text("# path, class\ntrain/cat/10.png, 10\ntrain/dog/200.png, 9\n")
    found = list_labelled(folders / "list.txt").whole()
    assert (list(found.labels), found.classes) == (["10", "9"], ["9", "10"])
    target = next(iter(plain(list_file=str(folders / "list.txt"))))[1]
    assert target.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png\n", r"line 1: 'a\.png' is not one image and its class\. Write `path, class`"),
        ("", "is empty. It must hold one `path, class` per line"),
        ("gone.png, cat\n", r"names 1 files that do not exist: .*gone\.png\. Paths are relative to"),
    ],
)
def test_lists_that_are_badly_written(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        list_labelled(tmp_path / "list.txt").whole()


def test_idx_files_plain_or_compressed(tmp_path):
    images = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    pair = {
        "images_file": write_idx(tmp_path / "images.gz", images),
        "labels_file": write_idx(tmp_path / "labels", np.array([2, 0, 2])),
    }
    inputs, target, samples = next(iter(plain(**pair, in_channels=1)))
    assert (inputs * 255).round().flatten().tolist() == list(range(60))
    assert target.tolist() == [2, 0, 2]
    assert samples[2].name.endswith("images.gz, image 2")
    named = plain(**pair, classes=["a", "b", "c"])
    assert (named.class_names, next(iter(named))[1].tolist()) == (["a", "b", "c"], [2, 0, 2])
    assert next(iter(named))[0].shape == (3, 3, 4, 5)  # grey, repeated for a network of colours
    with pytest.raises(DataError, match=r'image 0 is of the class "2", and 3 of 3 samples'):
        plain(**pair, classes=["a", "b"])


@pytest.mark.parametrize("sources", [{"images_file": "a", "labels_file": "b"}, {"dataset": []}])
def test_only_files_of_images_are_decoded_at_a_part_of_their_size(sources):
    with pytest.raises(ConfigError, match=r"reduced_decoding is true, but .* a JPEG file per image\. Leave"):
        make(**sources, reduced_decoding=True)


def test_idx_files_that_are_damaged(tmp_path):
    file = tmp_path / "x"
    write_idx(file, np.zeros((2, 3)))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"holds 5 bytes for a shape of \(2, 3\): it is cut off"):
        read_idx(file)
    file.write_bytes(b"\x89PNG....")
    with pytest.raises(DataError, match="is not an idx file of bytes"):
        read_idx(file)
    (tmp_path / "x.gz").write_bytes(b"not compressed")
    with pytest.raises(DataError, match=r"x\.gz cannot be read"):
        read_idx(tmp_path / "x.gz")
    pair = [write_idx(tmp_path / name, np.zeros(shape)) for name, shape in (("i", (2, 3, 3)), ("l", (3,)))]
    with pytest.raises(DataError, match=r"i is \(2, 3, 3\) and .*l \(3,\): there must be N images"):
        plain(images_file=pair[0], labels_file=pair[1])


def test_a_data_set_of_torchvision_by_name():
    args = {"size": 6, "image_size": [3, 8, 8], "num_classes": 4}
    spec = {"type": "torchvision.datasets.FakeData", "args": args}
    config = {"train_loader": {"type": "ImageClassificationDataLoader", "args": {"dataset": spec, "batch_size": 6}}}
    loader = instantiate(config, "train_loader", SECTIONS, runtime={"seed": 1})
    inputs, target = next(iter(loader))
    assert (inputs.shape, target.shape) == ((6, 3, 8, 8), (6,))
    outside = {"type": "torchvision.models.ResNet"}
    config["train_loader"]["args"]["dataset"] = outside
    with pytest.raises(ConfigError, match="is not a subclass of Dataset"):
        instantiate(config, "train_loader", SECTIONS, runtime={"seed": 1})


@pytest.mark.parametrize("sources", [{}, {"folder": "a", "list_file": "b"}, {"images_file": "a"}])
def test_exactly_one_source(sources):
    with pytest.raises(ConfigError, match="sources are given: images come from exactly one"):
        make(**sources)


@pytest.mark.parametrize(
    ("classes", "message"),
    [(["cat", "cat"], "classes lists 2 names, of which 1 differ"), (["cat"], r"There are 1 classes \(cat\)")],
)
def test_classes_that_make_no_sense(folders, classes, message):
    with pytest.raises(ConfigError, match=message):
        make(str(folders), classes=classes)


AUGMENTED = {
    "flip_hor": 0.5, "shift": 0.2, "cutout": 0.4, "angle": 10, "brightness": 0.1, "noise_std": 4, "mixup": 0.5,
    "crop_range": [0.8, 1.1], "seed": 5,
}  # fmt: skip


def test_batches_do_not_depend_on_workers_and_go_on_at_any_batch(folders):
    loaders = [make(str(folders), batch_size=2, n_workers=n, **AUGMENTED) for n in (0, 2)]
    first, second = ([list(loader) for _ in range(2)] for loader in loaders)
    for one, other in zip([*first[0], *first[1]], [*second[0], *second[1]], strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    loaders[0].set_position(1, 1)
    (last,) = list(loaders[0])
    assert torch.equal(last[0], first[1][1][0])
    assert torch.equal(last[1], first[1][1][1])
    for loader in loaders:
        loader.close()


def collate(samples, mixup):
    return ClassificationCollate(Preprocessing(ImageOptions(normalize=False)), 3, mixup)(samples)


def test_mixing_by_hand():
    samples = [PlacedImage(image(level), label, mixing_seed=7) for level, label in ((0, 0), (100, 2), (200, 2))]
    images, shares = collate(samples, 1.0)
    generator = np.random.default_rng(7)
    share, partners = generator.beta(1.0, 1.0), generator.permutation(3)
    levels, ids = np.array([0.0, 100, 200]) / 255, np.eye(3)[[0, 2, 2]]
    expected = share * levels + (1 - share) * levels[partners]
    np.testing.assert_allclose(images[:, 0, 0, 0].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(shares.numpy(), share * ids + (1 - share) * ids[partners], atol=1e-6)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(3))


def test_a_stand_in_counts_nowhere():
    dataset = ImageClassificationDataLoader
    sample = PlacedImage(image(3), 1)
    assert dataset.task == "classification"
    assert collate([sample._replace(label=NO_CLASS)], 0.4)[1].tolist() == [[0, 0, 0]]
    assert collate([sample._replace(label=NO_CLASS)], 0.0)[1].tolist() == [NO_CLASS]
    with pytest.raises(ConfigError, match=r"Wrong mixup -1: it must be 0 \(off\) or more"):
        WholeImageOptions(mixup=-1)


class Fixed:
    """A generator that gives the numbers it is told."""

    def __init__(self, own):
        self.own = own

    def random(self, count):
        return np.array(self.own) if count == 4 else np.full(count, 0.5)


def test_shift_and_cutout_by_hand():
    values = np.arange(1, 17, dtype=np.uint8).reshape(4, 4, 1)
    grey = Preprocessing(ImageOptions(in_channels=1))
    moved = ImageAugmentation(WholeImageOptions(shift=0.25), grey)(values, Fixed([0.99, 0.0, 0, 0]))
    assert moved[..., 0].tolist() == [[0, 0, 0, 0], [2, 3, 4, 0], [6, 7, 8, 0], [10, 11, 12, 0]]
    moved = ImageAugmentation(WholeImageOptions(shift=0.25), grey)(values, Fixed([0.0, 0.99, 0, 0]))
    assert moved[..., 0].tolist() == [[0, 5, 6, 7], [0, 9, 10, 11], [0, 13, 14, 15], [0, 0, 0, 0]]
    assert ImageAugmentation(WholeImageOptions(shift=0.25), grey)(values, Fixed([0.5] * 4)).tolist() == values.tolist()
    cut = ImageAugmentation(WholeImageOptions(cutout=0.5), grey)(values, Fixed([0, 0, 0.3, 0.99]))
    assert cut[..., 0].tolist() == [[1, 2, 0, 0], [5, 6, 0, 0], [9, 10, 11, 12], [13, 14, 15, 16]]
    assert values.min() == 1
    with pytest.raises(ConfigError, match=r"Wrong cutout 1\.5: it must be from 0 \(off\) to 1"):
        WholeImageOptions(cutout=1.5)
