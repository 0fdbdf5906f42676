"""One palette for overlays, panels and legends; the background remains as it is."""

import numpy as np
import pytest

from data_loader.common.options import MaskLabelOptions
from data_loader.segmentation.labels import Labels
from logger.callbacks import content_area
from utils.drawing import class_colors
from utils.errors import ConfigError
from utils.images.palette import Palette, of_loaders

NAMES = ["background", "cat", "dog"]


def test_the_background_is_left_as_it_is():
    image = np.full((1, 3, 3), 100, np.uint8)
    mask = np.array([[0, 1, 2]], np.uint8)
    drawn = Palette.of(3, NAMES).overlay(image, mask, alpha=1.0)
    assert drawn[0].tolist() == [[100] * 3, *class_colors(3)[1:].tolist()]
    # Without a background every class has a bright colour, also the first.
    sky = Palette.of(3, ["sky", "road", "car"])
    assert sky.background is None
    assert (sky.overlay(image, mask, alpha=1.0)[0] == sky.colors).all()
    assert sky.colors.max(axis=1).min() > 100
    assert Palette.of(2, ["shirt", "skin"]).background == 0  # of two classes the first is the rest
    assert Palette.of(300).overlay(image, np.array([[0, 299, 1]], np.uint16), 1.0)[0, 0].tolist() == [100] * 3


def test_colours_of_the_loader_are_used():
    config = {"train_loader": {"args": {"classes": NAMES, "palette": ["#000000", "#ff0000", "#00ff80"]}}}
    palette = Palette.of(3, of_loaders(config, "classes"), of_loaders(config, "palette"))
    assert palette.colors.tolist() == [[0, 0, 0], [255, 0, 0], [0, 255, 128]]
    assert palette.colorize(np.array([[2, 255]]))[0, 0].tolist() == [0, 255, 128]
    assert of_loaders({"train_loader": "Name"}, "palette") == []
    with pytest.raises(ConfigError, match=r"Wrong palette entry 'red': a colour is # and six hexadecimal digits"):
        MaskLabelOptions(classes=NAMES, palette=["red", "#000000", "#000000"])
    with pytest.raises(ConfigError, match="palette lists 1 colours, but num_classes is 3"):
        Labels(MaskLabelOptions(classes=NAMES, palette=["#000000"]))


def test_a_legend_names_many_classes_below_the_image():
    image = np.zeros((100, 200, 3), np.uint8)
    palette = Palette.of(3, NAMES)
    drawn = palette.with_legend(image)
    legend = drawn[100:]
    assert drawn.shape[1:] == (200, 3)
    assert len(drawn) % 2 == 0
    assert all((legend == color).all(axis=2).sum() > 50 for color in palette.colors)
    few = palette.with_legend(image, [1])[100:]
    assert [bool((few == color).all(axis=2).any()) for color in palette.colors] == [False, True, False]
    assert palette.present(np.array([0, 2, 255]), np.array([2])) == [0, 2]
    assert Palette.of(2).with_legend(image) is image  # two classes explain themselves
    assert palette.with_legend(image[:, :20]).shape == (100, 20, 3)  # no room


def test_the_padding_of_an_input_is_found():
    pixels = np.full((3, 8, 10), -2.0)
    pixels[:, 2:6] = np.random.default_rng(0).normal(size=(3, 4, 10))
    ignored = np.ones((8, 10), bool)
    ignored[2:6, 3:] = False
    assert content_area(pixels, ignored) == (slice(2, 6), slice(0, 10))  # ignored columns of the image are no padding
    assert content_area(np.zeros((1, 2, 2)), np.ones((2, 2), bool)) == (slice(None), slice(None))
    assert content_area(np.zeros((1, 2, 2)), np.zeros((2, 2), bool)) == (slice(0, 2), slice(0, 2))
