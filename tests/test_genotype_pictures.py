"""Pictures of genotypes and of alpha and beta: read as a browser reads them."""

import itertools
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from utils.architecture.cells.cell import Cell
from utils.architecture.cells.pictures import block_cell_svg
from utils.architecture.decoding import encode
from utils.architecture.genotype import Genotype
from utils.architecture.pictures import alpha_svg, beta_svg, cell_svg, path_svg
from utils.architecture.reading import published_genotype
from utils.architecture.space import random_genotype

SVG = "{http://www.w3.org/2000/svg}"


def elements(picture, tag, style=""):
    found = ElementTree.fromstring(picture).iter(SVG + tag)
    return [each for each in found if not style or style in each.get("class", "").split()]


def text_boxes(picture):
    """Left, right, top, bottom of each text, with letters as wide as the widest font of the list makes them."""
    for text in elements(picture, "text"):
        width = len(text.text) * (7.4 if "strong" in text.get("class") else 6.6)
        left = float(text.get("x")) - width * {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")]
        yield left, left + width, float(text.get("y")) - 10, float(text.get("y")) + 3


def pictures_of(layers, blocks):
    genotype = random_genotype(layers, layers, blocks)
    alpha, beta = encode(genotype)
    return [path_svg(genotype), cell_svg(genotype), alpha_svg([alpha * 0, alpha]), beta_svg([beta * 0, beta])]


@pytest.mark.parametrize(("layers", "blocks"), [(1, 1), (3, 2), (12, 5), (24, 8)])
def test_labels_lie_inside_and_never_on_each_other(layers, blocks):
    for picture in pictures_of(layers, blocks):
        root = ElementTree.fromstring(picture)
        width, height = float(root.get("width")), float(root.get("height"))
        assert root.get("viewBox") == f"0 0 {width:g} {height:g}"
        boxes = list(text_boxes(picture))
        for left, right, top, bottom in boxes:
            assert left >= 0, boxes
            assert right <= width + 1, (right, width)
            assert top >= 0, boxes
            assert bottom <= height, (bottom, height)
        for one, other in itertools.combinations(boxes, 2):
            assert one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2], (one, other)


def test_pictures_name_colours_for_light_and_dark_and_nothing_from_outside():
    for picture in pictures_of(3, 2):
        style = ElementTree.fromstring(picture).find(SVG + "style").text
        assert "svg:root{color-scheme:light dark}" in style  # as a file; in a page the scheme is that of the page
        assert "fill:light-dark(#1d2327,#dfe3e6)" in style
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", picture)
        used = {word for each in ElementTree.fromstring(picture).iter() for word in each.get("class", "").split()}
        assert used <= {"arch", *re.findall(r"\.arch \.(\w+)\{", style)}


@pytest.mark.parametrize("draw", [path_svg, cell_svg])
def test_titles_are_escaped(draw):
    picture = draw(published_genotype(), title='a < b & "c"')
    assert ElementTree.fromstring(picture).find(SVG + "title").text == 'a < b & "c"'
    assert ElementTree.fromstring(picture).get("aria-label") == 'a < b & "c"'


def test_the_path_leads_through_its_strides():
    picture = path_svg(Genotype((4, 8, 16, 8), published_genotype().blocks))
    moves = [list(map(int, re.findall(r"\d+", line.get("d")))) for line in elements(picture, "path", "sep")]
    corners = [moves[0][:2], *(move[2:] for move in moves)]
    assert [move[:2] for move in moves] == corners[:-1]
    xs, ys = zip(*corners, strict=True)
    assert np.diff(xs).tolist() == [xs[1] - xs[0]] * 4
    step = ys[2] - ys[1]
    assert [(y - ys[0]) / step for y in ys] == [0, 0, 1, 2, 1]
    assert len(elements(picture, "path")) == 2 + 5 + 8 + 10  # all possible moves
    assert len(elements(picture, "circle")) == 1 + 2 + 3 + 4 + 4


def test_the_other_moves_are_as_strong_as_their_weights():
    beta = np.zeros((1, 4, 3))
    beta[0, 0] = [0, math.log(3), 0]
    (other,) = elements(path_svg(Genotype((8,), published_genotype().blocks), beta=beta), "path", "line")
    assert float(other.get("stroke-opacity")) == pytest.approx(0.06 + 0.94 * 0.75, abs=0.006)


def test_the_cell_wires_each_block_to_its_inputs():
    picture = cell_svg(published_genotype())
    labels = [text.text for text in elements(picture, "text")]
    assert labels[:3] == ["two_back", "one_back", "block_1"]
    operations = [name for name in labels if "conv" in name]
    assert operations == [name for block in published_genotype().blocks for _, name in block]
    # The dots lie on the line of the input that is read: two_back at 20, one_back at 46, block_1 at 72, ...
    dots = [(int(each.get("cx")) - 20) / 26 for each in elements(picture, "circle", "good")]
    assert dots == [0, 1, 0, 1, 0, 3, 2, 4, 3, 5]


def cells_of(group):
    """The shades of a heat map as {(row, column): opacity}."""
    found = {}
    for path in group.iter(SVG + "path"):
        for x, y, n in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path.get("d")):
            found |= {(int(y), int(x) + step): float(path.get("fill-opacity")) for step in range(int(n))}
    return found


def test_a_heat_map_shows_each_weight_at_its_place():
    alphas = np.full((3, 2, 8), -np.inf)
    alphas[0, :, :4] = 0  # a quarter each
    alphas[1, :, 5] = 0
    alphas[2, 0, 6:], alphas[2, 1, 1] = 0, 0
    picture = alpha_svg(alphas)
    first, second = (cells_of(group) for group in elements(picture, "g"))
    start = {(row, 0): 0.25 for row in range(4)} | {(5, 1): 1.0}
    assert first == start | {(6, 2): 0.5, (7, 2): 0.5}
    assert second == start | {(1, 2): 1.0}
    assert [text.text for text in elements(picture, "text", "strong")] == [
        *("two_back → block_1", "atrous_conv_3x3 0.50", "one_back → block_1", "max_pool_3x3 1.00")
    ]


def test_moves_over_time_lie_at_layer_and_stride():
    betas = np.zeros((2, 3, 4, 3))
    betas[1, :, :, 2] = 99
    picture = beta_svg(betas, epochs=[5, 10])
    maps = [cells_of(group) for group in elements(picture, "g")]
    assert len(maps) == 1 + 2 + 3
    assert maps[0] == {(1, 0): 0.5, (2, 0): 0.5, (2, 1): 1.0}
    assert maps[-1] == {(0, 0): 0.33, (1, 0): 0.33, (2, 0): 0.33, (2, 1): 1.0}
    assert "epochs 5 to 10" in picture
    assert len(elements(picture, "rect", "sep")) == 3  # 4, 8, 16: where the decoded path 8, 16, 32 comes from


def test_epochs_that_are_missing_or_diverged_leave_gaps():
    alpha, beta = encode(random_genotype(0))
    for draw, logits in ((alpha_svg, alpha), (beta_svg, beta)):
        assert "No epoch yet" in draw(np.zeros((0, *logits.shape)))
        picture = draw(np.stack([logits, logits * np.nan]))
        assert {column for group in elements(picture, "g") for _, column in cells_of(group)} == {0}
        assert draw(np.full((1, *logits.shape), np.nan))


def test_a_long_search_stays_small():
    generator = np.random.default_rng(0)
    drifting = np.cumsum(generator.normal(size=(100, 20, 8)) * 0.02, axis=0)
    assert len(alpha_svg(drifting)) < 100_000


@pytest.mark.parametrize("concat_only_unused", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "[(-2, 'identity', -2, '1x7-7x1 conv')]",
        "[(-1, '3x3 conv:2dr', -4, '2x2 maxpool');(0, '3-2-1 cvt', 0, '8 SE');(-1, 'identity', 1, '3x3 dconv');"
        "(-2, '5x5 zconv:2', 0, '3-2 scvt');(-2, 'identity', -1, '2x2 avgpool')]",
    ],
)
def test_a_cell_of_blocks_shows_every_operator_and_what_is_joined(text, concat_only_unused):
    cell = Cell.parse(text)
    picture = block_cell_svg(cell, concat_only_unused=concat_only_unused)
    root = ElementTree.fromstring(picture)
    boxes = list(text_boxes(picture))
    for one, other in itertools.combinations(boxes, 2):
        assert one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2], (one, other)
    assert all(left >= 0 and right <= float(root.get("width")) + 1 for left, right, _, _ in boxes)
    shown = [each.text for each in elements(picture, "text")]
    for block in cell.blocks:
        assert all(operator in shown for operator in block.operators)
    dots = elements(picture, "circle", "good")
    assert len(dots) == 2 * len(cell)
    # Lines: two for each block's sides, one for each input that is read, one for each block that is joined.
    reads = {read for block in cell.blocks for read in block.inputs}
    joined = len(cell.unused_blocks) if concat_only_unused else len(cell)
    assert len(elements(picture, "path", "line")) == 2 * len(cell) + len(reads) + joined
