"""From an image to an input: hand-computed letterboxes and values."""

import numpy as np
import pytest

from data_loader.images.preprocessing import Preprocessing, place_mask
from tests.support.groups import from_flat
from utils.errors import ConfigError, DataError
from utils.geometry import Geometry

RED = np.full((4, 2, 3), (255, 0, 0), np.uint8)


def test_a_image_lies_in_the_middle_of_the_padding():
    image, geometry = from_flat(Preprocessing, resize=[4, 8], padding_value=51, normalize=False)(RED)
    assert geometry == Geometry(original=(4, 2), resized=(4, 2), offset=(0, 3), padded=(4, 8))
    assert image.shape == (3, 4, 8)
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    np.testing.assert_allclose(image[0, 0], [0.2, 0.2, 0.2, 1.0, 1.0, 0.2, 0.2, 0.2])
    np.testing.assert_allclose(image[1, 0], [0.2, 0.2, 0.2, 0.0, 0.0, 0.2, 0.2, 0.2])


def test_shrinking_averages_areas():
    stripes = np.zeros((12, 12, 3), np.uint8)
    stripes[:, ::4] = 200
    image, _ = from_flat(Preprocessing, resize=3, normalize=False)(stripes)
    np.testing.assert_allclose(image, 50 / 255)


@pytest.mark.parametrize(
    ("original", "resized", "offset"),
    [
        ((321, 213), (31, 21), (0, 5)),
        ((7, 100), (2, 32), (14, 0)),
        ((1, 100), (1, 32), (15, 0)),
        ((5, 5), (31, 31), (0, 0)),
    ],
)
def test_odd_sizes_keep_their_shape(original, resized, offset):
    image, geometry = from_flat(Preprocessing, resize=[31, 32])(np.zeros((*original, 3), np.uint8))
    assert image.shape == (3, 31, 32)
    assert geometry.resized == resized
    assert geometry.offset == offset


def test_without_resize_every_image_keeps_its_size():
    image, geometry = Preprocessing()(np.zeros((5, 7, 3), np.uint8))
    assert image.shape == (3, 5, 7)
    assert geometry == Geometry((5, 7), (5, 7), (0, 0), (5, 7))


def test_normalisation_is_that_of_imagenet_in_the_order_of_the_channels():
    rgb, _ = from_flat(Preprocessing, color_channel="RGB")(RED)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    np.testing.assert_allclose(rgb[:, 0, 0], expected, rtol=1e-5)
    bgr, _ = from_flat(Preprocessing, color_channel="BGR")(RED)
    np.testing.assert_array_equal(bgr, rgb[::-1])


def test_grey_takes_the_averages_and_the_luma_of_colours():
    image, _ = from_flat(Preprocessing, in_channels=1)(RED)
    assert image.shape == (1, 4, 2)
    np.testing.assert_allclose(image, (76 / 255 - 0.449) / 0.226, rtol=1e-5)  # 0.299 * 255, rounded


def test_a_grey_image_fills_three_channels():
    image, _ = from_flat(Preprocessing, normalize=False)(np.full((2, 3), 255, np.uint8))
    np.testing.assert_array_equal(image, np.ones((3, 2, 3), np.float32))


@pytest.mark.parametrize("color_channel", ["RGB", "BGR", "GRAY"])
def test_sixteen_bits_give_what_eight_bits_give(color_channel):
    eight = np.random.default_rng(0).integers(0, 256, (9, 6, 3), dtype=np.uint8)
    make = from_flat(Preprocessing, resize=[12, 6], padding_value=7, color_channel=color_channel)
    low, _ = make(eight)
    high, _ = make(eight.astype(np.uint16) * 257)
    np.testing.assert_allclose(high, low, atol=0.01)


def test_four_channels_stay_four():
    image = np.full((2, 2, 4), 255, np.uint8)
    assert from_flat(Preprocessing, in_channels=4)(image)[0].shape == (4, 2, 2)
    assert from_flat(Preprocessing, in_channels=3)(image)[0].shape == (3, 2, 2)


def test_a_description_makes_the_same_again():
    made = from_flat(Preprocessing, resize=64, padding_value=3, color_channel="BGR", normalize=False)
    again = from_flat(Preprocessing, **made.describe())
    assert again.describe() == made.describe()
    assert again.size == (64, 64)
    assert again.in_channels == 3


def test_masks_move_by_nearest_neighbour_and_padding_is_ignored():
    mask = np.array([[0, 1], [2, 3]], np.uint8)
    placed = place_mask(mask, Geometry((2, 2), (4, 4), (0, 1), (4, 6)), 255)
    expected = [[255, 0, 0, 1, 1, 255]] * 2 + [[255, 2, 2, 3, 3, 255]] * 2
    np.testing.assert_array_equal(placed, expected)


def test_a_shrunk_mask_has_the_label_under_the_centre():
    mask = np.arange(36, dtype=np.uint8).reshape(6, 6)
    placed = place_mask(mask, Geometry((6, 6), (2, 2), (0, 0), (2, 2)), 255)
    np.testing.assert_array_equal(placed, [[7, 10], [25, 28]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resize": 0}, "Wrong resize 0: it must be one side in pixels"),
        ({"resize": [3, 4, 5]}, r"Wrong resize \[3, 4, 5\]"),
        ({"resize": [3.5, 4]}, r"Wrong resize \[3.5, 4\]"),
        ({"padding_value": 256}, "Wrong padding_value 256: it must be 0 to 255"),
        ({"color_channel": "rgb"}, 'Wrong color_channel \'rgb\': it must be "RGB", "BGR" or "GRAY"'),
        ({"in_channels": 2}, "Wrong in_channels 2: images have 1"),
        ({"color_channel": "GRAY", "in_channels": 3}, 'color_channel "GRAY" has 1 channels, but in_channels is 3'),
        ({"color_channel": "RGB", "in_channels": 1}, 'color_channel "RGB" has 3 channels, but in_channels is 1'),
        ({"color_channel": "BGR", "in_channels": 4}, "is not known"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        from_flat(Preprocessing, **arguments)


@pytest.mark.parametrize(
    ("shape", "in_channels", "wanted"),
    [
        ((4, 4, 3), 4, "4"),
        ((4, 4), 4, "4"),
        ((4, 4, 2), 3, r"1 \(grey\), 3 or 4"),
        ((4, 4, 6), 1, r"1 \(grey\), 3 or 4"),
    ],
)
def test_channels_that_make_no_input_are_named(shape, in_channels, wanted):
    found = shape[2] if len(shape) == 3 else 1
    message = f"The image has {found} channels, but in_channels is {in_channels}, for which it must have {wanted}. Set"
    with pytest.raises(DataError, match=message):
        from_flat(Preprocessing, in_channels=in_channels, resize=8)(np.zeros(shape, np.uint8))


def test_a_fourth_channel_is_left_out_of_three_and_of_grey():
    image = np.dstack([RED, np.zeros((4, 2), np.uint8)])
    for in_channels in (3, 1):
        make = from_flat(Preprocessing, in_channels=in_channels)
        np.testing.assert_array_equal(make(image)[0], make(RED)[0])
