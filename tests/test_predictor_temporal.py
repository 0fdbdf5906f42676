import numpy as np

from predictor.segmenter import TemporalSmoothing


def certain(value, size=(20, 20)):
    return np.stack([np.full(size, 1 - value), np.full(size, value)]).astype(np.float32)


def test_where_nothing_moves_the_past_counts():
    smooth, image = TemporalSmoothing(0.5), np.full((20, 20, 3), 90, np.uint8)
    assert (smooth(image, certain(1.0)) == certain(1.0)).all()
    assert np.allclose(smooth(image, certain(0.0)), certain(0.5))
    assert np.allclose(smooth(image, certain(0.0)), certain(0.25))


def test_where_the_image_changes_the_past_is_forgotten():
    smooth, dark = TemporalSmoothing(0.9), np.full((20, 40, 3), 20, np.uint8)
    half_new = dark.copy()
    half_new[:, 20:] = 200
    smooth(dark, certain(1.0, (20, 40)))
    result = smooth(half_new, certain(0.0, (20, 40)))
    assert np.allclose(result[1, :, :15], 0.9)
    assert np.allclose(result[1, :, 25:], 0, atol=1e-6)
    assert np.allclose(result.sum(axis=0), 1)


def test_the_weight_of_the_past_falls_with_the_change_of_brightness():
    for change, weight in ((6, 0.5 * np.exp(-0.25)), (12, 0.5 * np.exp(-1)), (24, 0.5 * np.exp(-4))):
        smooth = TemporalSmoothing(0.5)
        smooth(np.full((20, 20, 3), 90, np.uint8), certain(1.0))
        result = smooth(np.full((20, 20, 3), 90 + change, np.uint8), certain(0.0))
        assert np.allclose(result[1], weight, atol=1e-6)


def test_a_video_of_another_size_begins_anew():
    smooth = TemporalSmoothing(0.9)
    smooth(np.zeros((20, 20, 3), np.uint8), certain(1.0))
    assert (smooth(np.zeros((8, 9, 3), np.uint8), certain(0.0, (8, 9))) == certain(0.0, (8, 9))).all()


def test_a_cut_between_colours_of_equal_brightness_is_seen():
    orange, teal = (np.full((8, 8, 3), color, np.uint8) for color in ((255, 80, 80), (87, 150, 150)))
    smoothing = TemporalSmoothing(0.9)
    smoothing(orange, np.full((1, 8, 8), 1, np.float32))
    assert smoothing(teal, np.zeros((1, 8, 8), np.float32)).max() < 0.01
