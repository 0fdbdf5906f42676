"""Augmentation moves image and mask together, and draws from nothing but its generator."""

import numpy as np
import pytest

from data_loader.common.options import AugmentationOptions, ImageOptions
from data_loader.images.augmentation import Augmentation
from data_loader.images.preprocessing import Preprocessing
from utils.errors import ConfigError


def augment(image, mask, *, resize=None, padding_value=0, seed=0, **effects):
    channels = image.shape[2]
    preprocessing = Preprocessing(ImageOptions(resize, in_channels=channels, padding_value=padding_value))
    return Augmentation(AugmentationOptions(**effects), preprocessing, 255)(image, mask, np.random.default_rng(seed))


def numbered(height, width):
    """An image whose values tell where they came from, and the same as a mask."""
    mask = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    return np.stack([mask] * 3, axis=2), mask


@pytest.mark.parametrize("size", [(5, 8), (8, 5), (1, 1), (7, 7)])
def test_without_effects_nothing_changes(size):
    image, mask = numbered(*size)
    placed, placed_mask = augment(image, mask)
    np.testing.assert_array_equal(placed, image)
    np.testing.assert_array_equal(placed_mask, mask)


@pytest.mark.parametrize("size", [(5, 8), (8, 5), (6, 6), (1, 3)])
def test_a_flip_is_exact(size):
    image, mask = numbered(*size)
    placed, placed_mask = augment(image, mask, flip_hor=1.0)
    np.testing.assert_array_equal(placed, image[:, ::-1])
    np.testing.assert_array_equal(placed_mask, mask[:, ::-1])


@pytest.mark.parametrize("size", [(5, 8), (8, 5), (6, 6), (1, 3)])
def test_a_quarter_turn_is_exact_and_goes_to_both_sides(size):
    image, mask = numbered(*size)
    seen = set()
    for seed in range(12):
        placed, placed_mask = augment(image, mask, rotate=1.0, seed=seed)
        turned = [side for side in (1, -1) if np.array_equal(placed_mask, np.rot90(mask, side))]
        assert turned
        np.testing.assert_array_equal(placed, np.rot90(image, turned[0]))
        seen.add(turned[0])
    assert seen == {1, -1}


def test_the_letterbox_is_the_one_of_evaluation():
    image, mask = numbered(6, 3)
    placed, placed_mask = augment(image, mask, resize=[6, 8], padding_value=9)
    np.testing.assert_array_equal(placed[:, 2:5], image)
    np.testing.assert_array_equal(placed_mask[:, 2:5], mask)
    assert (placed[:, [0, 1, 5, 6, 7]] == 9).all()
    assert (placed_mask[:, [0, 1, 5, 6, 7]] == 255).all()


def test_growing_repeats_each_label_over_its_own_area():
    image, mask = numbered(2, 3)
    _, placed_mask = augment(image, mask, resize=[4, 6])
    np.testing.assert_array_equal(placed_mask, np.kron(mask, np.ones((2, 2), np.uint8)))


def test_a_crop_fills_the_frame_with_a_part_of_the_image():
    image, mask = numbered(12, 12)
    _, placed_mask = augment(image, mask, crop_range=[0.5, 0.5], seed=3)
    rows, columns = placed_mask // 12, placed_mask % 12
    assert 255 not in placed_mask
    assert rows.max() - rows.min() in (5, 6)
    assert columns.max() - columns.min() in (5, 6)


def test_a_window_larger_than_the_image_leaves_ignored_padding():
    image, mask = numbered(12, 12)
    placed, placed_mask = augment(image + 1, mask, crop_range=[2.0, 2.0], padding_value=0)
    outside = placed_mask == 255
    assert outside.sum() == 144 - 36
    assert (placed[outside].max(axis=1) < 146).all()


@pytest.mark.parametrize("seed", range(5))
def test_image_and_mask_stay_aligned_under_every_move(seed):
    """A white disc in the image and its mask still agree after the warp, up to the soft edge."""
    rows, columns = np.mgrid[:61, :47]
    mask = ((rows - 30) ** 2 + (columns - 20) ** 2 < 200).astype(np.uint8)
    image = np.stack([mask * 255] * 3, axis=2)
    moves = {"crop_range": [0.8, 1.2], "flip_hor": 0.5, "rotate": 0.5, "angle": 25.0}
    placed, placed_mask = augment(image, mask, resize=[64, 80], seed=seed, **moves)
    inside = placed_mask != 255
    white, labelled = placed[..., 0][inside] > 127, placed_mask[inside] == 1
    assert labelled.sum() > 100
    assert (white != labelled).sum() < 0.03 * labelled.sum()
    assert set(np.unique(placed_mask)) <= {0, 1, 255}


def test_a_flip_and_a_rotation_together_distort_nothing():
    # A spot per channel: from the middle, 20 pixels to the right and 20 down.
    rows, columns = np.mgrid[:101, :101, :1][:2]
    squares = (columns - np.array([50, 70, 50])) ** 2 + (rows - np.array([50, 50, 70])) ** 2
    placed, _ = augment(
        np.rint(255 * np.exp(-squares / 18)).astype(np.uint8), np.zeros((101, 101), np.uint8), flip_hor=1.0, angle=40.0
    )
    spots = np.array([(columns * placed).sum(axis=(0, 1)), (rows * placed).sum(axis=(0, 1))]) / placed.sum(axis=(0, 1))
    np.testing.assert_allclose(spots[:, 0], 50, atol=0.02)
    linear = (spots[:, 1:] - spots[:, :1]) / 20
    np.testing.assert_allclose(linear @ linear.T, np.eye(2), atol=0.005)
    assert abs(linear[0, 1]) > 0.1
    assert np.linalg.det(linear) < 0


def test_noise_has_the_deviation_asked_for_and_spares_mask_and_padding():
    image, mask = np.full((64, 32, 3), 128, np.uint8), np.zeros((64, 32), np.uint8)
    placed, placed_mask = augment(image, mask, resize=64, noise_std=3.0)
    window = placed[:, 16:48].astype(float)
    assert 2.9 < window.std() < 3.2  # rounding to whole levels adds 1/12 to the variance
    assert abs(window.mean() - 128) < 0.2
    assert (placed[:, :16] == 0).all()
    assert set(np.unique(placed_mask)) == {0, 255}


def test_noise_covers_images_larger_than_its_table():
    image, mask = np.full((700, 600, 3), 128, np.uint8), np.zeros((700, 600), np.uint8)
    placed, _ = augment(image, mask, noise_std=3.0)
    assert (placed[-50:] != 128).mean() > 0.8


def test_noise_is_of_the_same_share_in_sixteen_bits():
    image, mask = np.full((64, 32, 3), 30000, np.uint16), np.zeros((64, 32), np.uint8)
    placed, _ = augment(image, mask, noise_std=3.0)
    assert placed.dtype == np.uint16
    assert 2.9 < placed.std() / 257 < 3.1


@pytest.mark.parametrize(("effect", "changed"), [("brightness", 128), ("contrast", 200), ("saturation", 200)])
def test_colour_effects_change_values_and_nothing_else(effect, changed):
    image = np.full((4, 4, 3), changed, np.uint8)
    image[..., 0] = 100
    placed, placed_mask = augment(image, np.zeros((4, 4), np.uint8), **{effect: 0.5})
    assert (placed != image).any()
    assert len(np.unique(placed.reshape(-1, 3), axis=0)) == 1
    assert (placed_mask == 0).all()


def test_saturation_leaves_grey_and_contrast_leaves_mid_grey():
    mask = np.zeros((4, 4), np.uint8)
    for effect, grey in (("saturation", 77), ("contrast", 128)):
        image = np.full((4, 4, 3), grey, np.uint8)
        np.testing.assert_array_equal(augment(image, mask, **{effect: 0.9})[0], image)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_number_of_channels_is_augmented(channels):
    image = np.random.default_rng(0).integers(0, 256, (9, 7, channels), dtype=np.uint8)
    effects = {"noise_std": 3.0, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "angle": 5.0}
    placed, _ = augment(image, np.zeros((9, 7), np.uint8), resize=[12, 8], **effects)
    assert placed.shape == (12, 8, channels)


def test_one_effect_does_not_shift_the_draws_of_another():
    image, mask = numbered(12, 12)
    alone = augment(image, mask, crop_range=[0.5, 1.0], seed=5)[1]
    together = augment(image, mask, crop_range=[0.5, 1.0], seed=5, noise_std=9.0, brightness=0.3)[1]
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize(
    ("effects", "message"),
    [
        ({"flip_hor": 1.5}, r"Wrong flip_hor 1.5: it must be from 0 \(off\) to 1"),
        ({"rotate": -0.1}, "Wrong rotate -0.1"),
        ({"noise_std": -1.0}, "Wrong noise_std -1.0: .* to 255"),
        ({"angle": 181.0}, "Wrong angle 181.0: .* to 180"),
        ({"contrast": 2.0}, "Wrong contrast 2.0"),
        ({"crop_range": [0.9]}, r"Wrong crop_range \[0.9\]: it must be \[smallest, largest\]"),
        ({"crop_range": [1.0, 0.9]}, "Wrong crop_range"),
        ({"crop_range": [0.0, 1.0]}, "Wrong crop_range"),
    ],
)
def test_wrong_effects_are_named(effects, message):
    with pytest.raises(ConfigError, match=message):
        AugmentationOptions(**effects)
