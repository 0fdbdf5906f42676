"""Arrays of any number of channels, from files to predictions."""

import ast
import json

import numpy as np
import pytest
import torch
from test_inference import save_untrained, use

import train
from build import registry
from config import cli, load_config, validate
from data_loader.common.options import TurnOptions
from data_loader.images.arrays import ArrayPreprocessing, array_header, read_array, read_channels
from data_loader.images.augmentation import Augmentation
from data_loader.images.files import read_mask
from data_loader.segmentation.array_loader import ArraySegmentationDataLoader
from tests.support.groups import from_flat
from tests.support.loader_cases import save
from utils.errors import ConfigError, DataError


def chargrid(folder, *, splits=("train", "val"), count=3, size=(20, 14)):
    """One-hot characters in 60 channels, and 92 classes."""
    generator = np.random.default_rng(0)
    for split in splits:
        for number in range(count):
            characters = generator.integers(0, 60, size)
            save(folder / f"data/{split}/{number}.npy", np.eye(60, dtype=np.uint8)[characters])
            save(folder / f"labels/{split}/{number}.npy", generator.integers(0, 92, size).astype(np.int64))
    return folder


def load(folder, **arguments):
    return from_flat(
        ArraySegmentationDataLoader, folder=str(folder), **{"num_classes": 92, "batch_size": 3, **arguments}
    )


def test_sixty_channels_and_ninety_two_classes(tmp_path):
    loader = load(chargrid(tmp_path), is_training=False)
    images, masks, _ = next(iter(loader))
    assert (loader.in_channels, loader.num_classes) == (60, 92)
    assert images.shape == (3, 60, 20, 14)
    assert torch.equal(images.sum(dim=1), torch.ones(3, 20, 14))
    np.testing.assert_array_equal(images[1], np.load(tmp_path / "data/val/1.npy").transpose(2, 0, 1))
    np.testing.assert_array_equal(masks[1], np.load(tmp_path / "labels/val/1.npy"))


def test_what_must_not_mix_is_taken_from_the_nearest(tmp_path):
    loader = load(chargrid(tmp_path), interpolation="nearest", resize=32, angle=30, crop_range=[0.6, 1.2])
    images, masks = next(iter(loader))
    assert set(images.unique().tolist()) == {0.0, 1.0}
    assert set(images.sum(dim=1).unique().tolist()) == {0.0, 1.0}  # nothing lies outside the array
    assert torch.equal(images.sum(dim=1) == 0, masks == 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_channel_moves_as_the_mask_does(dtype):
    mask = np.zeros((24, 24), np.uint8)
    mask[4:15, 3:10] = 1
    image = np.repeat(mask[..., None], 7, axis=2).astype(dtype) * 9
    preprocessing = from_flat(ArrayPreprocessing, in_channels=7, resize=24, interpolation="nearest")
    options = TurnOptions(crop_range=[0.7, 1.1], flip_hor=0.5, rotate=0.5, angle=20)
    augmentation = Augmentation(options, preprocessing, 255)
    for seed in range(5):
        generator = np.random.default_rng(seed)
        moved, moved_mask = augmentation(image, mask, generator)
        assert moved.dtype == dtype
        for channel in range(7):
            np.testing.assert_array_equal(moved[..., channel], 9 * (moved_mask == 1))


def test_values_are_normalised_as_the_json_says_and_no_more():
    image = np.array([[[10.0, 1.0], [20.0, 2.0]]], np.float32)
    result, geometry = from_flat(ArrayPreprocessing, in_channels=2, mean=[10, 1], std=[5, 0.5])(image)
    np.testing.assert_allclose(result, [[[0, 2]], [[0, 2]]])
    assert geometry.original == (1, 2)
    same, _ = from_flat(ArrayPreprocessing, in_channels=2)(image.astype(np.uint8))
    np.testing.assert_array_equal(same[:, 0], [[10, 20], [1, 2]])
    one, _ = from_flat(ArrayPreprocessing, in_channels=2, mean=10, std=2, padding_value=10, resize=2)(image)
    np.testing.assert_allclose(one, [[[0, 5], [0, 0]], [[-4.5, -4], [0, 0]]])


@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, -1.0), (np.uint8, 256.0), (np.uint16, -1.0)])
def test_padding_that_the_arrays_cannot_hold_is_refused(dtype, value):
    image = np.zeros((2, 4, 2), dtype)
    preprocessing = from_flat(ArrayPreprocessing, in_channels=2, padding_value=value, resize=4)
    with pytest.raises(ConfigError, match=rf"padding_value: {value:g} is no value of the arrays, which are uint"):
        preprocessing(image)
    assert preprocessing(image.astype(np.float32))[0].min() == min(value, 0.0)


def test_shrinking_averages_areas_in_every_channel():
    image = np.random.default_rng(1).random((8, 8, 6), dtype=np.float32)
    result, _ = from_flat(ArrayPreprocessing, in_channels=6, resize=4)(image)
    expected = image.reshape(4, 2, 4, 2, 6).mean(axis=(1, 3)).transpose(2, 0, 1)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_a_description_makes_the_same_again():
    made = from_flat(
        ArrayPreprocessing, in_channels=2, resize=8, mean=[1, 2], std=3, interpolation="nearest", layout="chw"
    )
    assert from_flat(ArrayPreprocessing, **made.describe()).describe() == made.describe()
    json.dumps(made.describe())


def test_channels_may_come_first_and_arrays_lie_in_one_file(tmp_path):
    image = np.random.default_rng(0).random((5, 6, 4))
    mask = np.ones((6, 4), np.uint8)
    np.savez(tmp_path / "a.npz", image=image, mask=mask)
    (tmp_path / "pairs.txt").write_text("a.npz, a.npz")
    keys = {"picture_key": "image", "mask_key": "mask", "layout": "chw", "num_classes": 2, "is_training": False}
    loader = from_flat(ArraySegmentationDataLoader, str(tmp_path / "pairs.txt"), **keys)
    images, masks, _ = next(iter(loader))
    np.testing.assert_array_equal(images[0], image.astype(np.float32))
    assert masks.tolist() == [mask.tolist()]
    assert array_header(tmp_path / "a.npz", "image") == ((5, 6, 4), np.float64)
    with pytest.raises(DataError, match=r"holds the arrays image, mask; none is named. Name one: picture_key or mask"):
        read_array(tmp_path / "a.npz")
    with pytest.raises(DataError, match="'x' is not among them"):
        read_array(tmp_path / "a.npz", "x")


def test_masks_may_be_images_and_images_have_one_channel(tmp_path):
    save(tmp_path / "data/train/0.npy", np.full((4, 6), True))
    save(tmp_path / "labels/train/0.png", np.full((4, 6), 2, np.uint8))
    images, masks = next(iter(load(tmp_path, num_classes=3)))
    assert (images.shape, set(masks.unique().tolist())) == ((1, 1, 4, 6), {2})


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("data", np.array([[None]]), r"data\.npy cannot be read as an array: .*Save it anew with numpy.save"),
        ("data", np.zeros(4), r"holds float64 values of shape \(4,\); an image has height, width and channels"),
        ("data", np.full((4, 4, 2), np.nan), "holds values that are not finite"),
        (
            "data",
            np.zeros((4, 4, 3)),
            "The image has 3 channels, but in_channels is 2. Set in_channels right, or layout",
        ),
        ("mask", np.zeros((4, 4), np.float32), "holds float32 values; a mask must hold one class id per pixel"),
        ("mask", np.full((4, 4), -1), "holds the value -1; class ids are 0 to 65535"),
        ("mask", np.zeros((3, 4), np.uint8), r"mask\.npy is 3x4 \(height x width\) but its image .* is 4x4"),
        ("mask", np.full((4, 4), 7), "holds the labels 7: masks must hold 0 to 1"),
        ("mask", np.zeros((4, 4, 1, 1), np.uint8), r"has the shape \(4, 4, 1, 1\); it must be \(height, width\)"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, name, array, message):
    arrays = {"data": np.zeros((4, 4, 2), np.float32), "mask": np.zeros((4, 4), np.uint8), name: array}
    for each, content in arrays.items():
        np.save(tmp_path / f"{each}.npy", content)
    (tmp_path / "pairs.txt").write_text("data.npy, mask.npy")
    loader = from_flat(ArraySegmentationDataLoader, str(tmp_path / "pairs.txt"), num_classes=2, in_channels=2)
    with pytest.raises(DataError, match=message):
        loader.prepare()


def test_damaged_files_are_named(tmp_path):
    for name, content in (("a.npy", b"\x93NUMPY"), ("b.npz", b"PK"), ("c.npy", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} cannot be read as an array"):
            read_channels(tmp_path / name)
    with pytest.raises(DataError, match=r"gone\.npz does not exist"):
        read_channels(tmp_path / "gone.npz")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("failures", [1, 3])
def test_threads_that_disturb_the_parser_of_headers_do_no_harm(tmp_path, monkeypatch, suffix, failures):
    values = np.arange(6.0).reshape(2, 3)
    path = tmp_path / f"a{suffix}"
    save(path, values) if suffix == ".npy" else np.savez(path, values=values)
    calls = []

    def disturbed(text, parse=ast.literal_eval):
        calls.append(text)
        if len(calls) <= failures:
            raise SystemError("AST constructor recursion depth mismatch (before=42, after=39)")
        return parse(text)

    monkeypatch.setattr(ast, "literal_eval", disturbed)
    assert np.array_equal(read_array(path), values)
    assert len(calls) == failures + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": [1, 2, 3]}, "mean lists 3 values, but there are 2 channels. Give one number, or one per channel"),
        ({"std": [1, 0]}, r"Wrong std \[1, 0\]: every value must be above 0"),
        ({"in_channels": 0}, "Wrong in_channels 0: it must be 1 or more"),
        ({"resize": -1}, "Wrong resize -1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        from_flat(ArrayPreprocessing, **{"in_channels": 2, **arguments})


def config(folder, **arguments):
    loader = {"type": "ArraySegmentationDataLoader", "args": {"folder": str(folder), "batch_size": 2, **arguments}}
    return {
        "name": "chargrid",
        "arch": {"type": "UNet", "args": {"channels": [4, 8], "num_classes": 92}},
        "train_loader": loader,
        "valid_loader": loader,
        "optimizer": {"type": "Adam", "args": {"lr": 0.01}},
        "loss": "ce_loss",
        "trainer": {"epochs": 1},
    }


def test_what_changes_colours_is_refused(tmp_path):
    for name in ("brightness", "saturation", "noise_std", "transforms"):
        with pytest.raises(ConfigError, match=f'train_loader.args.{name}: unknown argument "{name}"'):
            validate(config(tmp_path, **{name: 0.2}), registry())


def test_training_and_inference_on_arrays(tmp_path, capsys):
    content = config(chargrid(tmp_path / "data"), mean=0.5, std=0.5)
    (tmp_path / "c.json").write_text(json.dumps(content))
    words = ["-c", str(tmp_path / "c.json"), "--fast-dev-run", "-d", "cpu"]
    assert cli.run_command(train.main, train.parser(), words) == 0, capsys.readouterr().err
    content = load_config(tmp_path / "c.json")
    content["arch"]["args"]["in_channels"] = 60
    checkpoint = save_untrained(tmp_path / "model_best.pth", content)
    for mode in ("mask", "overlay"):
        assert use(checkpoint, tmp_path / "data/data/val", "--output", tmp_path / mode, "--mode", mode) == 0
    assert read_mask(tmp_path / "mask/1.png").shape == (20, 14)
    capsys.readouterr()
    np.save(tmp_path / "narrow.npy", np.zeros((4, 4, 3), np.float32))
    assert use(checkpoint, tmp_path / "narrow.npy", "--output", tmp_path / "n.png", "--mode", "mask") != 0
    assert "The image has 3 channels, but the network was trained on 60" in capsys.readouterr().err
