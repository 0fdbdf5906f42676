"""Colours, overlays and panels."""

import numpy as np
import pytest

from utils.drawing import (
    IGNORED_COLOR,
    IMAGENET_MEAN,
    IMAGENET_STD,
    class_colors,
    colorize,
    overlay,
    panel,
    to_displayable,
)


@pytest.mark.parametrize("num_classes", [1, 2, 11, 21, 150, 300])
def test_every_class_has_its_own_color(num_classes):
    colors = class_colors(num_classes)
    assert colors.shape == (num_classes, 3)
    assert colors.dtype == np.uint8
    assert len(np.unique(colors, axis=0)) == num_classes


def test_class_keeps_its_color_whatever_the_number_of_classes():
    assert np.array_equal(class_colors(5), class_colors(200)[:5])
    assert class_colors(2)[0].max() < 50
    assert class_colors(2)[1].max() > 150


def test_twenty_classes_are_far_apart():
    colors = class_colors(20).astype(int)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 999 * np.eye(20)
    assert distances.min() > 40


def test_colorize_draws_ignored_and_impossible_labels_alike():
    colors = class_colors(2)
    drawn = colorize(np.array([[0, 1], [255, -1]]), colors)
    assert drawn[0].tolist() == colors.tolist()
    assert drawn[1].tolist() == [list(IGNORED_COLOR)] * 2
    assert colorize(np.array([[1]], np.uint8), colors, ignore_index=1)[0, 0].tolist() == list(IGNORED_COLOR)


@pytest.mark.parametrize("num_classes", [1, 2, 255, 256, 300])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
@pytest.mark.parametrize("ignore_index", [None, 0, 255, -1])
def test_labels_of_any_type_are_drawn_alike(num_classes, dtype, ignore_index):
    generator = np.random.default_rng(0)
    mask = generator.integers(0, 256, (9, 7)).astype(dtype)
    colors = generator.integers(0, 200, (num_classes, 3)).astype(np.uint8)
    expected = [
        list(IGNORED_COLOR) if label == ignore_index or label >= num_classes else colors[label].tolist()
        for label in mask.ravel().tolist()
    ]
    assert colorize(mask, colors, ignore_index).reshape(-1, 3).tolist() == expected


def test_overlay_mixes_labels_and_leaves_ignored_pixels():
    image = np.full((1, 2, 3), 100, np.uint8)
    colors = np.array([[0, 0, 0], [200, 0, 50]], np.uint8)
    mixed = overlay(image, np.array([[1, 255]]), colors, alpha=0.5, ignore_index=255)
    assert mixed[0].tolist() == [[150, 50, 75], [100, 100, 100]]


def test_displayable_undoes_imagenet_normalisation():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 4)).astype(np.float32)
    mean, std = (np.array(numbers)[:, None, None] for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    shown = to_displayable((pixels / 255 - mean) / std)
    assert np.array_equal(shown, pixels.transpose(1, 2, 0).astype(np.uint8))


def test_displayable_shows_unit_range_as_is_and_stretches_the_rest():
    unit = np.array([[[0.0, 0.2, 1.0]]], np.float32)
    assert to_displayable(unit)[0, :, 0].tolist() == [0, 51, 255]
    assert to_displayable(np.array([[[-10.0, 0.0, 10.0]]]))[0, :, 2].tolist() == [0, 128, 255]
    assert to_displayable(np.full((5, 2, 2), 7.0)).shape == (2, 2, 3)


def test_panel_has_one_height_and_room_for_captions():
    rows = [
        panel([np.zeros((30, 40, 3), np.uint8), np.zeros((90, 20, 3), np.uint8)], ["a", "a long caption " * 9], height)
        for height in (60, 60, 240)
    ]
    assert rows[0].shape[0] > 60
    assert np.array_equal(rows[0], rows[1])
    assert rows[0].max() > 150, "the caption is written in a light colour"


def test_panel_needs_a_caption_for_each_image():
    with pytest.raises(ValueError, match="shorter"):
        panel([np.zeros((3, 3, 3), np.uint8)] * 2, ["one"])
