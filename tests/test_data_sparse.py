"""Hidden labels: exact in parity and density, fixed per image, in training only, and counted."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from data_loader.segmentation.loader import SegmentationDataLoader
from data_loader.segmentation.sparse_labels import SparseLabels
from tests.support.groups import from_flat
from tests.support.loader_cases import random_image, random_mask, save
from utils.errors import ConfigError

COUNT, SIZE = 6, (10, 15)


@pytest.fixture
def pairs_file(tmp_path):
    for number in range(COUNT):
        save(tmp_path / f"{number}.png", random_image(number, SIZE))
        save(tmp_path / f"{number}m.png", random_mask(number, [0, 1], SIZE))
    (tmp_path / "pairs.txt").write_text("\n".join(f"{n}.png, {n}m.png" for n in range(COUNT)))
    return str(tmp_path / "pairs.txt")


def load(pairs_file, **arguments):
    return from_flat(
        SegmentationDataLoader, pairs_file, **{"num_classes": 2, "batch_size": COUNT, "shuffle": False, **arguments}
    )


def masks_of(loader):
    masks = next(iter(loader))[1]
    loader.close()
    return masks


@pytest.mark.parametrize("width", [1, 4, 15, 16])
def test_halves_are_the_left_one_of_even_and_the_right_one_of_odd_images(width):
    for number in range(4):
        expected = np.ones((3, width), bool)
        if number % 2 == 0:
            expected[:, width // 2 :] = False
        else:
            expected[:, : width // 2] = False
        np.testing.assert_array_equal(SparseLabels("halves", 0.5).visible((3, width), number), expected)


@pytest.mark.parametrize(("density", "even", "odd"), [(0.1, 10, 10), (0.29, 29, 29), (0.125, 12, 13), (1.0, 100, 100)])
def test_halves_of_any_density_show_that_share_of_the_columns(density, even, odd):
    sparse = SparseLabels("halves", density)
    columns = [sparse.visible((2, 100), number).all(axis=0) for number in (0, 1)]
    assert columns[0].tolist() == [True] * even + [False] * (100 - even)
    assert columns[1].tolist() == [False] * (100 - odd) + [True] * odd


@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.8, 1.0])
def test_strips_show_exactly_that_share_of_the_pixels(density):
    sparse = SparseLabels("strips", density, width=3)
    for number in range(3):
        assert sparse.visible((37, 53), number).sum() == int(Fraction(str(density)) * 37 * 53)


def test_strips_are_as_wide_as_a_pen_and_connected():
    visible = SparseLabels("strips", 0.1, width=5).visible((64, 64), 0)
    inner = visible[1:-1, 1:-1] & visible[:-2, 1:-1] & visible[2:, 1:-1] & visible[1:-1, :-2] & visible[1:-1, 2:]
    assert inner.sum() > 0.4 * visible.sum()  # no scattered pixels


@pytest.mark.parametrize(("density", "squares"), [(0.25, 6), (0.5, 12), (0.01, 1)])
def test_tiles_show_exactly_that_share_of_the_squares(density, squares):
    visible = SparseLabels("tiles", density, tile=4).visible((16, 24), 3)  # 4 x 6 squares
    grid = visible.reshape(4, 4, 6, 4).transpose(0, 2, 1, 3).reshape(24, 16)
    assert (grid.all(axis=1) | ~grid.any(axis=1)).all()
    assert grid.all(axis=1).sum() == squares


def test_tiles_fit_any_size():
    assert SparseLabels("tiles", 0.5, tile=7).visible((10, 15), 0).shape == (10, 15)


@pytest.mark.parametrize("pattern", ["tiles", "strips"])
def test_random_places_follow_from_seed_and_image(pattern):
    first, again, other_seed = (SparseLabels(pattern, 0.5, tile=4, width=2, seed=seed) for seed in (1, 1, 2))
    shown = [first.visible((32, 32), number) for number in range(3)]
    assert all((again.visible((32, 32), number) == shown[number]).all() for number in (2, 0, 1))
    assert not (shown[0] == shown[1]).all()
    assert not (other_seed.visible((32, 32), 0) == shown[0]).all()


@pytest.mark.parametrize("pattern", ["halves", "tiles", "strips"])
def test_labels_are_hidden_the_same_in_every_epoch_for_any_workers_and_without_memory(pairs_file, pattern):
    sparse = {"pattern": pattern, "density": 0.4, "tile": 4, "width": 2}
    full = masks_of(load(pairs_file))
    loader = load(pairs_file, sparse=sparse)
    expected = [batch[1] for batch in (*loader, *loader)]
    assert torch.equal(expected[0], expected[1])
    visible = expected[0] != 255
    assert torch.equal(expected[0][visible], full[visible])
    assert 0.25 < visible.float().mean() < 0.55
    for changes in ({"n_workers": 2}, {"cache_mb": 0}):
        assert torch.equal(masks_of(load(pairs_file, sparse=sparse, **changes)), expected[0])


def test_an_image_is_hidden_by_its_place_in_the_list_before_resizing(pairs_file):
    masks = masks_of(load(pairs_file, sparse={"density": 0.5}, resize=[20, 30]))
    for number in range(COUNT):
        hidden = (masks[number] == 255).all(dim=0)
        # 15 columns become 30: of an even image 7 are visible, of an odd one 8
        assert hidden.tolist() == ([False] * 14 + [True] * 16 if number % 2 == 0 else [True] * 14 + [False] * 16)


def test_the_side_of_an_image_follows_from_the_hash_of_its_name_in_every_list(pairs_file, tmp_path):
    def sides(names):
        (tmp_path / "list.txt").write_text("\n".join(f"{name}.png, {name}m.png" for name in names))
        sparse = {"by": "name"}
        masks = masks_of(load(str(tmp_path / "list.txt"), sparse=sparse, batch_size=len(names)))
        return {name: bool((mask[:, 0] != 255).all()) for name, mask in zip(names, masks, strict=True)}

    names = [str(number) for number in range(COUNT)]
    known = sides(names)
    assert set(known.values()) == {True, False}
    assert list(known.values()) != [number % 2 == 0 for number in range(COUNT)]
    assert sides(names[::-1]) == known
    assert sides(names[1:4]) == {name: known[name] for name in names[1:4]}


def test_a_subset_counts_its_own_labels_alone_and_hides_the_same_ones(pairs_file):
    loader = load(pairs_file, sparse={"density": 0.5}, subset=2, batch_size=2)
    loader.prepare()
    assert loader.labelled_megapixels == 10 * sum(7 + index % 2 for index in loader.keys.indices) / 1e6
    whole = masks_of(load(pairs_file, sparse={"density": 0.5}))
    assert torch.equal(masks_of(loader), whole[loader.keys.indices.tolist()])


def test_validation_and_test_are_never_hidden(pairs_file):
    sparse = {"pattern": "tiles", "density": 0.1, "tile": 2}
    full = masks_of(load(pairs_file))
    assert torch.equal(masks_of(load(pairs_file, sparse=sparse, is_training=False)), full)
    loader = load(pairs_file, sparse=sparse, validation_split=2)
    assert (masks_of(loader.split_validation()) != 255).all()
    assert (masks_of(loader.evaluation_loader()) != 255).all()


@pytest.mark.parametrize("cache_mb", [None, 0])
def test_labelled_megapixels_are_those_that_are_visible(pairs_file, cache_mb, caplog):
    loader = load(pairs_file, sparse={"density": 0.5}, resize=8, cache_mb=cache_mb)
    with caplog.at_level("INFO"):
        loader.prepare()
    visible = 10 * (7 + 8) * 3  # of 15 columns 7 in the even images, 8 in the odd ones
    assert loader.labelled_megapixels == visible / 1e6
    assert "Sparse labels (halves, density 0.5): 0.00 of 0.00 megapixels are labelled." in caplog.text
    assert load(pairs_file).labelled_megapixels is None


def test_what_is_ignored_anyway_is_not_counted(pairs_file):
    loader = load(pairs_file, sparse={"density": 1.0}, label_map={"1": 0}, num_classes=2)
    loader.prepare()
    ones = sum(int((random_mask(number, [0, 1], SIZE) == 1).sum()) for number in range(COUNT))
    assert loader.labelled_megapixels == ones / 1e6


@pytest.mark.parametrize(
    ("sparse", "message"),
    [
        ({"pattern": "thirds"}, "Wrong sparse pattern 'thirds': it must be one of halves, tiles, strips"),
        ({"density": 0}, "Wrong sparse density 0: it must be above 0 and at most 1"),
        ({"density": 1.5}, "Wrong sparse density 1.5"),
        ({"density": True}, "Wrong sparse density True"),
        ({"tile": 0}, "Wrong sparse tile 0: it must be a whole number from 1"),
        ({"width": 2.5}, "Wrong sparse width 2.5"),
        ({"by": "hash"}, "Wrong sparse by 'hash': images are numbered by index or name"),
        ({"denisty": 0.5}, "Wrong sparse: unknown key 'denisty'. It has pattern, density, tile, width, seed, by"),
    ],
)
def test_wrong_arguments_are_named(pairs_file, sparse, message):
    with pytest.raises(ConfigError, match=message):
        load(pairs_file, sparse=sparse)
