import math

import cv2
import numpy as np
import pytest
import torch

from predictor.compositing import as_rgb, blurred, composite, cover, overlay_exactly, parse_background, to_show
from predictor.rendering import (
    BackgroundRenderer,
    CutoutRenderer,
    MaskRenderer,
    OverlayRenderer,
    make_renderer,
    most_probable,
    share_of_classes,
)
from tests.support.seen import red_segmenter, red_square
from utils.drawing import class_colors
from utils.errors import ConfigError, DataError
from utils.geometry import letterbox_geometry
from utils.images.palette import Palette


def no_reader(path):
    raise AssertionError(f"{path} should not be read")


def probabilities_of(image, **arguments):
    return red_segmenter(**arguments).probabilities([image])[0]


def test_class_ids_are_those_of_argmax_and_have_room_for_all_classes():
    generator = np.random.default_rng(1)
    few, many = generator.random((5, 7, 9), dtype=np.float32), generator.random((300, 4, 4), dtype=np.float32)
    few[:, 0] = 0.2  # a tie goes to the first
    assert (most_probable(few) == few.argmax(axis=0)).all()
    assert (most_probable(many) == many.argmax(axis=0)).all()
    assert most_probable(few).dtype == np.uint8
    assert most_probable(many).dtype == np.uint16


def test_mask_and_overlay():
    image, inside = red_square()
    probabilities = probabilities_of(image)
    assert (MaskRenderer()(image, probabilities) == inside).all()
    shown = OverlayRenderer()(image, probabilities)
    expected = image[inside][0] / 2 + class_colors(2)[1] / 2
    assert np.abs(shown[inside] - expected).max() <= 1


def test_cutout_has_the_foreground_and_nothing_else():
    image, inside = red_square()
    result = CutoutRenderer()(image, probabilities_of(image))
    assert result.shape == (*image.shape[:2], 4)
    assert (result[..., 3] == np.where(inside, 255, 0)).all()
    assert (result[inside][:, :3] == image[inside]).all()


def test_foreground_may_be_any_classes():
    image, inside = red_square()
    probabilities = probabilities_of(image, num_classes=4)
    for foreground, expected in (([0], ~inside), ([1, 3], inside), ([0, 1], inside | True), ([2], inside & False)):
        alpha = CutoutRenderer(foreground)(image, probabilities)[..., 3]
        assert (alpha == np.where(expected, 255, 0)).all()


def test_soft_cutout_is_partly_transparent_at_the_edge_only():
    image, inside = red_square((120, 160), 30, 40, 60)
    probabilities = np.stack([1 - inside, inside]).astype(np.float32)
    probabilities[:, 28:33] = 0.5  # undecided along one side
    alpha = CutoutRenderer(is_soft=True)(image, probabilities)[..., 3]
    assert (alpha[inside][200:-200] > 200).all()
    assert (alpha[:20] == 0).all()


@pytest.mark.parametrize(("text", "color"), [("#00ff00", (0, 255, 0)), ("#f80", (255, 136, 0))])
def test_background_color(text, color):
    image, inside = red_square()
    result = BackgroundRenderer(parse_background(text, no_reader))(image, probabilities_of(image))
    assert (result[~inside] == color).all()
    assert (result[inside] == image[inside]).all()


def test_background_image_fills_the_frame_in_its_own_proportions(tmp_path):
    file = tmp_path / "beach.png"
    file.touch()
    stripes = np.zeros((10, 40, 3), np.uint8)
    stripes[:, 10:30] = 255  # the middle half; the rest is cut off by a square frame
    background = parse_background(str(file), lambda path: stripes)
    image = np.zeros((20, 20, 3), np.uint8)
    assert (background(image, np.zeros((20, 20), np.float32))[:, 1:-1] == 255).all()
    assert background(np.zeros((5, 80, 3), np.uint8), np.zeros((5, 80), np.float32)).shape == (5, 80, 3)


@pytest.mark.parametrize(("shape", "axis"), [((10, 40), 1), ((40, 10), 0)])
def test_cover_fills_the_shorter_side_and_cuts_the_longer_one_evenly(shape, axis):
    ramp = np.arange(40, dtype=np.uint8) * 5
    image = np.broadcast_to(ramp if axis == 1 else ramp[:, None], shape)
    covered = cover(np.repeat(image[..., None], 3, axis=2), (20, 20)).take(10, axis=1 - axis)[:, 0].astype(int)
    assert abs(covered[0] - ramp[15]) <= 5
    assert abs(covered[-1] - ramp[24]) <= 5


@pytest.mark.parametrize("size", [(7, 9), (90, 20), (20, 90), (1, 1)])
def test_cover_gives_the_size_asked_for(size):
    assert cover(np.zeros((31, 47, 3), np.uint8), size).shape == (*size, 3)


def test_blurred_background_has_no_halo_of_the_foreground():
    image, inside = red_square((120, 160), 30, 40, 60)
    result = blurred(image, inside.astype(np.float32))
    assert result.shape == image.shape
    assert np.abs(result[~inside].astype(int) - (0, 0, 200)).max() <= 2


@pytest.mark.parametrize("text", ["#12", "#gggggg", "#1234567"])
def test_wrong_color(text):
    with pytest.raises(ConfigError, match=f"--background {text}: a colour is # and six"):
        parse_background(text, no_reader)


def test_background_that_is_not_there():
    with pytest.raises(
        ConfigError, match=r"--background beach\.jpg: must be a colour like '#00ff00', blur, or an image"
    ):
        parse_background("beach.jpg", no_reader)


def test_unreadable_background(tmp_path):
    (tmp_path / "b.jpg").write_text("no image")

    def read(path):
        raise DataError(f"{path} cannot be read")

    with pytest.raises(DataError, match=r"b\.jpg cannot be read"):
        parse_background(str(tmp_path / "b.jpg"), read)


def test_modes_by_name():
    assert isinstance(make_renderer("mask"), MaskRenderer)
    assert isinstance(make_renderer("overlay"), OverlayRenderer)
    assert make_renderer("cutout", foreground=[2], is_soft=True).foreground == [2]
    assert make_renderer("background").background is blurred
    with pytest.raises(ConfigError, match="Wrong mode 'ghost': it must be one of mask, overlay, cutout, background"):
        make_renderer("ghost")


def test_options_without_effect_are_refused():
    with pytest.raises(ConfigError, match="--background has no effect in mode cutout"):
        make_renderer("cutout", background=blurred)
    with pytest.raises(ConfigError, match="--class and --soft have no effect in mode mask"):
        make_renderer("mask", is_soft=True)
    with pytest.raises(ConfigError, match="--class and --soft have no effect in mode overlay"):
        make_renderer("overlay", foreground=[1])


def test_composite_is_exact_where_alpha_is():
    generator = np.random.default_rng(2)
    front, back = (generator.integers(0, 256, (30, 40, 3), dtype=np.uint8) for _ in range(2))
    assert (composite(front, np.ones((30, 40), np.float32), back) == front).all()
    assert (composite(front, np.zeros((30, 40), np.float32), back) == back).all()
    half = composite(front, np.full((30, 40), 0.5, np.float32), back)
    assert np.abs(half - (front / 2 + back / 2)).max() <= 1


def test_a_layer_without_soft_edges_is_pasted_as_it_would_be_mixed():
    generator = np.random.default_rng(2)
    front, back = (generator.integers(0, 256, (30, 40, 3), dtype=np.uint8) for _ in range(2))
    inside = generator.integers(0, 2, (30, 40)).astype(np.float32)
    before = back.copy()
    assert (overlay_exactly(front, inside, back) == composite(front, inside, back)).all()
    assert (back == before).all()
    color = np.broadcast_to(np.array([1, 2, 3], np.uint8), front.shape)
    assert (overlay_exactly(front, inside, color) == composite(front, inside, color)).all()


def test_the_share_of_classes_is_the_same_for_any_number_of_them():
    ids = np.array([[0, 1, 5], [255, 2, 1]])
    expected = [[0, 1, 0], [1, 0, 1]]
    for dtype in (np.uint8, np.uint16):
        found = share_of_classes(ids.astype(dtype), [1, 255])
        assert found.tolist() == expected
        assert found.dtype == np.float32


def logits_with_ties():
    """Logits (2, 4, 4) of an image of that size; some differ by less than softmax tells apart."""
    logits = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1))
    logits[1, 0] = logits[0, 0]
    return logits


@pytest.mark.parametrize("difference", [0, 1e-9, 3e-8, 6e-8, 1e-7, 1e-5])
def test_scores_are_drawn_as_probabilities_are(difference):
    segmenter, geometry = red_segmenter(), letterbox_geometry((4, 4), None)
    logits = logits_with_ties()
    logits[0, 1], logits[1, 1] = 0, difference
    for renderer in (MaskRenderer(), OverlayRenderer(), BackgroundRenderer(blurred, is_soft=True)):
        segmenter.renderer = renderer
        image = np.full((4, 4, 3), 90, np.uint8)
        scores, probabilities = segmenter.scores(logits, geometry), segmenter.restore(logits, geometry)
        assert (segmenter.render(image, scores) == segmenter.render(image, probabilities)).all()
        has_values = renderer.uses_probabilities or 0 < difference < 1e-6
        assert (scores == probabilities).all() == has_values


def test_any_image_can_be_drawn_on():
    grey16 = np.full((3, 4), 65535, np.uint16)
    assert (as_rgb(grey16) == np.full((3, 4, 3), 255)).all()
    assert as_rgb(np.zeros((3, 4, 1), np.uint8)).shape == (3, 4, 3)
    assert as_rgb(np.zeros((3, 4, 4), np.uint8)).shape == (3, 4, 3)


def test_results_to_look_at():
    colors = class_colors(3)
    assert (to_show(np.array([[0, 2]], np.uint8), Palette.of(3)) == colors[[0, 2]]).all()
    see_through = np.zeros((40, 40, 4), np.uint8)
    assert {tuple(color) for color in to_show(see_through, Palette.of(2)).reshape(-1, 3).tolist()} == {
        (176,) * 3,
        (112,) * 3,
    }
    see_through[..., 3] = 255
    assert (to_show(see_through, Palette.of(2)) == 0).all()


def test_what_a_cutout_does_not_show_is_not_in_the_file():
    image, inside = red_square()
    result = CutoutRenderer()(image, probabilities_of(image))
    assert (result[~inside] == 0).all()


def test_a_blurred_background_holds_nothing_of_the_foreground():
    image, inside = red_square((60, 80), 20, 30, 20)
    background = blurred(image, inside.astype(np.float32))
    near = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~inside
    assert background[near][:, 0].max() <= 2  # no red halo around the square
    assert background[near][:, 2].min() >= 195


def test_a_blurred_edge_is_that_of_a_gaussian_of_a_fortieth_of_the_longer_side():
    image = np.zeros((240, 320, 3), np.uint8)
    image[:, 160:] = 200
    shown = blurred(image, np.zeros((240, 320), np.float32))[120, :, 0].astype(float)
    expected = [100 * (1 + math.erf((x - 159.5) / (8 * math.sqrt(2)))) for x in range(320)]
    np.testing.assert_allclose(shown[130:190], expected[130:190], atol=0.8)


def three_class_segmenter():
    """Without a background: class 0 is drawn, too."""
    segmenter = red_segmenter(num_classes=3)
    colors = ["#102030", "#ff8000", "#00ff00"]
    segmenter.config = {"valid_loader": {"args": {"classes": ["road", "tree", "sky"], "palette": colors}}}
    return segmenter


def test_a_legend_changes_nothing_but_the_rows_below_the_image():
    segmenter = three_class_segmenter()
    image, _ = red_square((160, 240))
    (of_python,) = segmenter([image])  # the renderer of a notebook
    drawn = []
    for has_legend in (True, False):
        segmenter.renderer = make_renderer("overlay", palette=segmenter.palette, has_legend=has_legend)
        drawn += segmenter([image])
    with_legend, without = drawn
    assert len(with_legend) > len(without) == len(image)
    assert (with_legend[: len(image)] == without).all()
    assert (of_python == without).all()
    assert (without[0, 0] == (image[0, 0] // 2 + np.array([8, 16, 24]))).all()  # class 0 in its colour


@pytest.mark.parametrize("export_ids", [None, [7, 300, 5], [1, 0, 2]])
def test_a_window_shows_ids_of_the_data_in_the_colours_of_their_classes(export_ids):
    segmenter = three_class_segmenter()
    image, inside = red_square()
    segmenter.renderer = make_renderer("mask", export_ids=export_ids)
    (ids,) = segmenter([image])
    assert (ids == np.where(inside, *(export_ids or [0, 1, 2])[1::-1])).all()
    colors = segmenter.palette(3).colors
    assert (segmenter.show(ids) == np.where(inside[..., None], colors[1], colors[0])).all()
