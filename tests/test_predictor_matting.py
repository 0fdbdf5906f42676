from pathlib import Path

import cv2
import numpy as np
import pytest

from data_loader.images.files import read_image, read_mask
from predictor.matting import foreground_colors, refine_alpha, size_at_most

PEOPLE = Path(__file__).parents[1] / "data" / "people"


def people(count=6):
    lines = (PEOPLE / "test_pairs.txt").read_text().splitlines()[:count]
    pairs = [line.split(", ") for line in lines]
    return [(read_image(PEOPLE / photo), (read_mask(PEOPLE / mask) > 0).astype(np.float32)) for photo, mask in pairs]


def coarse(mask, factor=8):
    """What a network says that is right, but at an eighth of the size."""
    height, width = mask.shape
    small = cv2.resize(mask, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    return np.clip(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)


def test_refined_alpha_is_nearer_to_hand_made_masks_than_what_went_in():
    errors = []
    for image, mask in people():
        probability = coarse(mask)
        candidates = (probability, (probability >= 0.5).astype(np.float32), refine_alpha(probability, image))
        errors.append([np.abs(alpha - mask).mean() for alpha in candidates])
    enlarged, decided, refined = np.mean(errors, axis=0)
    assert refined < 0.95 * decided
    assert refined < 0.4 * enlarged


@pytest.mark.parametrize(
    ("size", "scaled"), [((40, 20), (40, 20)), ((64, 9), (64, 9)), ((128, 64), (64, 32)), ((1, 900), (1, 64))]
)
def test_sizes_are_only_scaled_down(size, scaled):
    assert size_at_most(size, 64) == scaled


def test_the_edge_of_the_image_draws_the_edge_of_the_matte():
    image = np.full((180, 240, 3), 30, np.uint8)
    image[:, 120:] = 220
    ramp = np.clip(np.linspace(-7, 7, 240) + 0.36, 0, 1).astype(np.float32)  # crosses one half at column 122
    alpha = refine_alpha(np.tile(ramp, (180, 1)), image)
    assert alpha[:, :120].max() < 0.1
    assert alpha[:, 120:].min() > 0.5
    assert alpha[:, 122:].min() > 0.9


def test_alpha_is_decided_away_from_the_edge():
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    probability = np.full((90, 120), 0.2, np.float32)
    probability[:, 60:] = 0.8
    alpha = refine_alpha(probability, image)
    assert alpha.dtype == np.float32
    assert (alpha[:, :50] == 0).all()
    assert (alpha[:, 70:] == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (700, 5)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_any_size_and_a_image_without_an_edge(size, value):
    image = np.full((*size, 3), 77, np.uint8)
    alpha = refine_alpha(np.full(size, value, np.float32), image)
    assert alpha.shape == size
    assert (alpha == value).all()
    assert foreground_colors(image, alpha).shape == (*size, 3)


def test_foreground_colors_take_the_old_background_out_of_the_rim():
    errors = []
    for image, mask in people():
        alpha = cv2.GaussianBlur(mask, (0, 0), 2)
        foreground = np.full_like(image, (180, 120, 60))
        mixed = (foreground * alpha[..., None] + image * (1 - alpha[..., None])).round().astype(np.uint8)
        rim = (alpha > 0.2) & (alpha < 0.9)
        estimate = foreground_colors(mixed, alpha)
        errors.append([np.abs(each[rim].astype(float) - foreground[rim]).mean() for each in (mixed, estimate)])
    untouched, estimated = np.mean(errors, axis=0)
    assert estimated < 0.65 * untouched


def test_opaque_pixels_keep_their_colors():
    image, mask = people(1)[0]
    assert np.abs(foreground_colors(image, np.ones_like(mask)).astype(int) - image).max() <= 1
