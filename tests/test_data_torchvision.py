"""Data sets of torchvision by their dotted name."""

import numpy as np
import pytest
from PIL import Image

from data_loader.classification.sources import DatasetImages
from data_loader.segmentation.torchvision_loader import TorchvisionPairs, TorchvisionSegmentationDataLoader
from tests.support.groups import from_flat
from tests.support.loader_cases import random_mask, voc
from utils.errors import ConfigError, DataError


@pytest.fixture
def arguments(tmp_path):
    return {**voc(tmp_path), "batch_size": 7}


def load(arguments, **changes):
    return from_flat(TorchvisionSegmentationDataLoader, **{**arguments, **changes})


def test_voc_has_21_classes_and_borders_are_ignored(arguments):
    loader = load(arguments, is_training=False)
    assert (loader.num_classes, loader.ignore_index, loader.class_names[15]) == (21, 255, "person")
    _, masks, sources = next(iter(loader))
    np.testing.assert_array_equal(masks[2], random_mask(2, [0, 15, 20, 255]))
    assert 255 in masks.unique()
    assert sources[2].name.endswith("JPEGImages/2007_000002.jpg")


def test_labels_can_be_mapped_and_samples_limited(arguments):
    loader = load(arguments, label_map={"15": 1, "0": 0}, samples=3, is_training=False)
    assert (loader.num_classes, loader.num_samples, loader.class_names) == (2, 3, ["class_0", "class_1"])
    assert set(next(iter(loader))[1].unique().tolist()) == {0, 1, 255}


def test_nothing_is_downloaded_unless_args_say_so(arguments, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r'cannot be opened: .*Correct root in args. Set "download": true in args'):
        load(arguments, args={"root": str(tmp_path / "empty")})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"source": "torchvision.datasets.VOCSegmentatoin"},
            ConfigError,
            "is not a data set of torchvision. Write torch",
        ),
        ({"source": "torchvision.datasets.folder.os.system"}, ConfigError, "is not a data set of torchvision"),
        ({"source": "os.path"}, ConfigError, "is not a data set of torchvision"),
        ({"args": {"rooot": "x"}}, ConfigError, "'rooot' is none of them here. It has root, year, image_set, download"),
        ({"args": {"root": "x", "transform": None}}, ConfigError, "'transform' is none of them here"),
        ({"args": {"root": "x", "image_set": "tset"}}, ConfigError, "refuses .*tset.*Correct args"),
        ({"reduced_decoding": True}, ConfigError, "a data set of torchvision cannot be decoded at a part .* Leave"),
        ({"args": {}}, ConfigError, "refuses {}: .*root.*Correct args"),
        (
            {"num_classes": 4, "samples": 1},
            DataError,
            r"000000\.jpg holds the labels 15, 20: masks must hold 0 to 3 or 255",
        ),
    ],
)
def test_what_is_wrong_is_named(arguments, changes, error, message):
    with pytest.raises(error, match=message):
        load(arguments, **changes).prepare()


def test_samples_that_are_no_masks_are_explained(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a/0.png")
    folder = {"source": "torchvision.datasets.ImageFolder", "args": {"root": str(tmp_path)}, "num_classes": 2}
    with pytest.raises(
        DataError, match=r"the mask of .*ImageFolder\[0\] is not an image of class ids. This loader takes"
    ):
        from_flat(TorchvisionSegmentationDataLoader, **folder).prepare()


@pytest.mark.parametrize(
    ("mode", "in_channels", "channels"), [("P", 3, 3), ("CMYK", 3, 3), ("RGBA", 3, 3), ("RGBA", 4, 4)]
)
def test_images_that_are_not_rgb_are_converted_unless_alpha_is_wanted(mode, in_channels, channels):
    colours = np.zeros((5, 6, 3), np.uint8)
    colours[2:, :, 0] = 255  # pure colours survive a palette and CMYK
    source = [(Image.fromarray(colours).convert(mode), Image.fromarray(colours[..., 0]))]
    image = TorchvisionPairs(source, "drawn", count=1, in_channels=in_channels).image(0)
    assert image.shape == (5, 6, channels)
    np.testing.assert_array_equal(image[..., :3], colours)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "RGB", "RGBA"])
def test_images_of_classes_are_grey_or_of_colours(mode, in_channels):
    values = np.zeros((5, 6), np.uint8)
    values[2:] = 255  # survive every mode
    image = DatasetImages([(Image.fromarray(values).convert(mode), 0)]).image(0, in_channels)
    assert image.dtype == np.uint8
    assert image.shape[2:] == {"1": (), "L": (), "LA": (), "RGBA": (4,)}.get(mode, (3,))
    np.testing.assert_array_equal(np.atleast_3d(image)[..., 0], values)


def test_a_fourth_channel_is_transparency_alone():
    palette = Image.frombytes("P", (4, 4), np.eye(4, dtype=np.uint8).tobytes())
    palette.putpalette([9, 8, 7, 0, 0, 255])
    palette.info["transparency"] = 0
    grey = Image.fromarray(np.full((4, 4), 50, np.uint8)).convert("LA")
    ink = Image.new("CMYK", (4, 4))
    for image, first in ((palette, [0, 0, 255, 255]), (grey, [50, 50, 50, 255])):
        assert DatasetImages([(image, 0)]).image(0, 4)[0, 0].tolist() == first
        assert TorchvisionPairs([(image, grey)], "drawn", count=1, in_channels=4).image(0)[0, 0].tolist() == first
    assert DatasetImages([(palette, 0)]).image(0, 4)[0, 1].tolist() == [9, 8, 7, 0]
    assert DatasetImages([(ink, 0)]).image(0, 4).shape == (4, 4, 3)
    assert TorchvisionPairs([(ink, grey)], "drawn", count=1, in_channels=4).image(0).shape == (4, 4, 3)


def test_images_of_16_bits_are_not_reduced():
    values = np.arange(30, dtype=np.uint16).reshape(5, 6) * 1000
    source = [(Image.fromarray(values), Image.fromarray(np.zeros((5, 6), np.uint8)))]
    image = TorchvisionPairs(source, "drawn", count=1, in_channels=3).image(0)
    np.testing.assert_array_equal(image[..., 0], values)
