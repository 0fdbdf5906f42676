"""Decoded data that later loaders find: the same bytes, only where asked for, and no more than allowed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_loader.common.image_cache import SHARED_CACHE, SharedCache, read_once, share_decoded
from data_loader.segmentation.loader import SegmentationDataLoader
from data_loader.time_series.loader import TimeSeriesDataLoader
from tests.support.groups import from_flat

PEOPLE = Path(__file__).resolve().parent.parent / "data/people"


@pytest.fixture
def pairs(tmp_path):
    lines = (PEOPLE / "train_pairs.txt").read_text().splitlines()[:3]
    for line in lines:
        for name in line.split(", "):
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            shutil.copy(PEOPLE / name, tmp_path / name)
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    return tmp_path


def prepared(folder, **changes):
    arguments = {"num_classes": 2, "resize": [32, 24], "batch_size": 2, **changes}
    loader = from_flat(SegmentationDataLoader, str(folder / "pairs.txt"), **arguments)
    loader.prepare()
    return loader


def image(loader, index=0):
    return loader.dataset.dataset.cache.load(index).image


def test_a_later_loader_finds_what_an_earlier_one_decoded(pairs):
    with share_decoded(16):
        first, second = prepared(pairs), prepared(pairs, flip_hor=0.5, batch_size=1)
        assert image(first) is image(second)
    assert SHARED_CACHE.get() is None
    assert image(prepared(pairs)) is not image(first)


@pytest.mark.parametrize(
    "changes",
    [
        {"resize": [64, 48]},
        {"in_channels": 1},
        {"is_training": False},
        {"sparse": {"density": 0.5}},
        {"padding_value": 9},
    ],
    ids=str,
)
def test_another_way_of_decoding_is_decoded_anew(pairs, changes):
    with share_decoded(16):
        first = prepared(pairs)
        alone, kept = prepared(pairs, **changes), prepared(pairs, **changes)
        assert image(kept) is image(alone)
        assert image(kept) is not image(first)
    batches, expected = list(kept), list(prepared(pairs, **changes))
    assert all(np.array_equal(one[0], other[0]) for one, other in zip(batches, expected, strict=True))


def test_a_file_that_changed_is_read_again(pairs):
    with share_decoded(16):
        first = prepared(pairs)
        names = [line.split(", ")[0] for line in (pairs / "pairs.txt").read_text().splitlines()]
        untouched = image(first, 1)
        (pairs / names[0]).write_bytes((pairs / names[2]).read_bytes())
        masks = [line.split(", ")[1] for line in (pairs / "pairs.txt").read_text().splitlines()]
        (pairs / masks[0]).write_bytes((pairs / masks[2]).read_bytes())
        second = prepared(pairs)
        assert np.array_equal(image(second, 0), image(second, 2))
        assert image(second, 1) is untouched


def test_what_was_used_longest_ago_is_forgotten_first():
    kept = SharedCache(megabytes=3)
    for shelf in ("a", "b", "c"):
        kept.store(shelf, {shelf: 1}, 2**20)
    assert kept.find("a") == {"a": 1}
    kept.store("d", {"d": 1}, 2**20)
    assert (kept.find("b"), kept.find("a"), kept.num_bytes) == ({}, {"a": 1}, 3 * 2**20)
    kept.store("too large", {"e": 1}, 4 * 2**20)
    assert kept.find("too large") == {}
    assert kept.find("d") == {"d": 1}


def test_a_file_is_read_once_until_it_changes(tmp_path):
    file, read = tmp_path / "file", []

    def length(path):
        read.append(path)
        return len(path.read_text())

    file.write_text("one")
    assert [read_once(file, length, int), read_once(file, length, int), len(read)] == [3, 3, 2]
    with share_decoded(1):
        assert [read_once(file, length, int), read_once(file, length, int), len(read)] == [3, 3, 3]
        file.write_text("longer")
        assert [read_once(file, length, int), len(read)] == [6, 4]


def test_series_are_read_once(tmp_path):
    values = np.random.default_rng(0).standard_normal((6, 2, 8)).astype("float32")
    np.savez(tmp_path / "set_TRAIN.npz", x=values, y=[0, 1, 0, 1, 0, 1])
    with share_decoded(16):
        first, second = (from_flat(TimeSeriesDataLoader, str(tmp_path), batch_size=2) for _ in range(2))
        series = [loader.dataset.dataset.file.series for loader in (first, second)]
        assert series[0][0] is series[1][0]
