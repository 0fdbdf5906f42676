"""Every pair is checked before the first step, and what fits is decoded once into shared memory."""

import pickle

import numpy as np
import pytest
from PIL import Image

from data_loader.common import image_cache
from data_loader.common.image_cache import ImageCache
from data_loader.common.options import LabelOptions
from data_loader.images.preprocessing import Preprocessing
from data_loader.segmentation.labels import Labels
from data_loader.segmentation.pair_decoder import PairDecoder
from data_loader.segmentation.pairs import ImagePairs, Pair
from tests.support.groups import from_flat
from utils.environment import available_memory
from utils.errors import ConfigError, DataError

SIZE = (12, 9)


def write_pair(folder, name, *, labels=(0, 1), size=SIZE, mask_size=None, dtype=np.uint8):
    generator = np.random.default_rng(len(name))
    image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = np.resize(np.asarray(labels, dtype), mask_size or size)
    Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(mask).save(folder / f"{name}_mask.png")
    return Pair(folder / f"{name}.png", folder / f"{name}_mask.png")


def make(pairs, *, labels=None, whole=False, cache_mb=None, resize=None):
    labels = labels or Labels(LabelOptions(num_classes=2))
    decoder = PairDecoder(
        ImagePairs(pairs, is_binary=labels.binary and labels.ignore_index is None),
        from_flat(Preprocessing, resize=resize),
        labels,
        has_whole_masks=whole,
    )
    return ImageCache(decoder, cache_mb)


def fault(pairs, **arguments):
    with pytest.raises(DataError) as caught:
        make(pairs, **arguments).prepare(range(len(pairs)))
    return str(caught.value)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("resize", [None, 6, 40])
def test_what_is_kept_is_what_would_be_decoded(tmp_path, whole, resize):
    pairs = [write_pair(tmp_path, name) for name in ("a", "bb", "ccc")]
    cache, plain = (make(pairs, whole=whole, resize=resize) for _ in range(2))
    cache.prepare(range(3))
    for index in range(3):
        kept, decoded = cache.load(index), plain.load(index)
        np.testing.assert_array_equal(kept.image, decoded.image)
        np.testing.assert_array_equal(kept.mask, decoded.mask)
        assert kept.original == SIZE
        assert not kept.image.flags.writeable
        assert kept.image.shape == ((6, 4, 3) if resize == 6 else (*SIZE, 3))
        assert kept.mask.shape == (SIZE if whole else kept.image.shape[:2])


def test_kept_pairs_need_their_files_no_more(tmp_path):
    pairs = [write_pair(tmp_path, name) for name in ("a", "b")]
    cache = make(pairs)
    cache.prepare([1])
    for path in (*pairs[0], *pairs[1]):
        path.unlink()
    assert cache.load(1).mask.shape == SIZE
    with pytest.raises(DataError, match=r"a\.png does not exist"):
        cache.load(0)


def test_what_does_not_fit_is_read_when_it_is_asked_for(tmp_path, caplog):
    pairs = [write_pair(tmp_path, f"p{n}", size=(600, 500)) for n in range(3)]
    cache = make(pairs, cache_mb=2)  # a pair takes 600 * 500 * 4 bytes: one of them
    with caplog.at_level("INFO"):
        cache.prepare(range(3))
    assert "1 of 3 pairs are decoded and kept in memory" in caplog.text
    assert cache.load(2).image.shape == (600, 500, 3)


def test_without_memory_headers_are_checked_and_pixels_when_read(tmp_path):
    good, bad = write_pair(tmp_path, "good"), write_pair(tmp_path, "bad", labels=[0, 7])
    cache = make([good, bad], cache_mb=0)
    cache.prepare([0, 1])
    with pytest.raises(DataError, match=r"bad_mask\.png holds the labels 7"):
        cache.load(1)
    wrong = write_pair(tmp_path, "wrong", mask_size=(5, 5))
    assert "wrong_mask.png is 5x5" in fault([good, wrong], cache_mb=0)


def test_a_copy_for_a_spawned_worker_leaves_the_memory_behind(tmp_path):
    cache = make([write_pair(tmp_path, "a", size=(200, 200))])
    cache.prepare([0])
    sent = pickle.dumps(cache)
    assert len(sent) < 20_000
    np.testing.assert_array_equal(pickle.loads(sent).load(0).image, cache.load(0).image)


def test_a_label_out_of_range_is_named_with_its_file_and_value(tmp_path):
    message = fault([write_pair(tmp_path, "a"), write_pair(tmp_path, "b", labels=[0, 1, 3, 9])])
    assert "b_mask.png holds the labels 3, 9: masks must hold 0 to 1." in message
    assert '"binary_masks": true' in message


@pytest.mark.parametrize(
    ("num_classes", "values", "repair"),
    [
        (2, [0, 255], 'Set "binary_masks": true if 255 is the object, "ignore_index": 255 if it means unknown.'),
        (3, [0, 1, 2, 255], 'Set "ignore_index": 255 if 255 means unknown.'),
        (3, [0, 3, 5], "Set num_classes to 6 if these are classes"),
    ],
)
def test_the_repair_fits_the_labels_found(tmp_path, num_classes, values, repair):
    assert repair in fault(
        [write_pair(tmp_path, "a", labels=values)], labels=Labels(LabelOptions(num_classes=num_classes))
    )


def test_many_faults_are_counted_and_the_first_of_each_kind_named(tmp_path):
    pairs = [write_pair(tmp_path, f"label{n}", labels=[0, 10 + n]) for n in range(7)]
    pairs += [write_pair(tmp_path, f"size{n}", mask_size=(3, 3)) for n in range(2)]
    message = fault(pairs)
    assert message.startswith("9 of 9 pairs cannot be used.")
    assert "size0_mask.png is 3x3 (height x width)" in message
    message = fault(pairs[:7])
    assert message.startswith("7 of 7 pairs cannot be used.")
    assert "label4_mask.png holds the labels 14" in message
    assert "label5" not in message
    assert "... and 2 more like these." in message
    assert message.count("Masks must hold 0 to 1.") == 1


def test_unreadable_photos_are_named(tmp_path):
    pairs = [write_pair(tmp_path, name) for name in ("a", "b", "c")]
    pairs[1].image.write_bytes(pairs[1].image.read_bytes()[:100])
    pairs[2].mask.write_bytes(b"")
    message = fault(pairs)
    assert message.startswith("1 of 3 pairs cannot be used.") or "c_mask.png cannot be read as an image" in message
    pairs[2].mask.write_bytes(pairs[0].mask.read_bytes())
    assert "b.png cannot be read as an image" in fault(pairs)


def test_a_mask_made_for_the_unturned_photo_is_explained(tmp_path):
    pair = write_pair(tmp_path, "a", mask_size=SIZE[::-1])
    assert "if EXIF turns the photo, turn the mask, too." in fault([pair])


def test_jpeg_masks_are_explained(tmp_path):
    pair = write_pair(tmp_path, "a")
    Image.fromarray(np.resize(np.uint8([0, 90, 200]), SIZE)).save(tmp_path / "m.jpg")
    assert "JPEG changes labels: save masks as PNG." in fault([Pair(pair.image, tmp_path / "m.jpg")])


def test_black_and_white_jpeg_masks_have_no_ringing(tmp_path):
    pair = write_pair(tmp_path, "a", size=(32, 32))
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 13:] = 255
    Image.fromarray(mask).save(tmp_path / "m.jpg")
    pairs = [Pair(pair.image, tmp_path / "m.jpg")]
    np.testing.assert_array_equal(
        make(pairs, labels=Labels(LabelOptions(num_classes=2, binary_masks=True))).load(0).mask, mask > 0
    )
    assert "is a JPEG" in fault(
        pairs, labels=Labels(LabelOptions(num_classes=2, ignore_index=255, binary_masks=True))
    )  # which 255 is meant cannot be told


def test_every_label_above_zero_is_the_object_in_binary_masks(tmp_path):
    pair = write_pair(tmp_path, "a", labels=[0, 7, 255])
    assert np.unique(
        make([pair], labels=Labels(LabelOptions(num_classes=2, binary_masks=True))).load(0).mask
    ).tolist() == [0, 1]
    kept = make([pair], labels=Labels(LabelOptions(num_classes=2, ignore_index=255, binary_masks=True))).load(0).mask
    assert np.unique(kept).tolist() == [0, 1, 255]


def test_many_classes_take_sixteen_bits(tmp_path):
    pair = write_pair(tmp_path, "a", labels=[0, 299], dtype=np.uint16)
    labels = Labels(LabelOptions(num_classes=300))
    cache = make([pair], labels=labels)
    cache.prepare([0])
    assert cache.load(0).mask.dtype == np.uint16
    assert np.unique(cache.load(0).mask).tolist() == [0, 299]
    assert labels.ignored == 65535


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "Wrong num_classes 1: it must be 2 or more; background is a class"),
        ({"num_classes": 3, "binary_masks": True}, "binary_masks makes 2 classes, but num_classes is 3"),
        ({"num_classes": 3, "ignore_index": -100}, "Wrong ignore_index -100: it must be a value that a mask can hold"),
    ],
)
def test_wrong_labels_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Labels(LabelOptions(**arguments))


def test_memory_is_shared_between_the_processes_of_a_machine(tmp_path, monkeypatch):
    assert available_memory() > 2**20
    pairs = [write_pair(tmp_path, name, size=(60, 50)) for name in ("a", "b", "c", "d")]
    num_bytes = 60 * 50 * 4 + 16
    monkeypatch.setattr(image_cache, "available_memory", lambda: 8 * 2 * num_bytes)  # a quarter for two processes
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    cache = make(pairs)
    cache.prepare(range(4))
    assert sorted(cache.samples) == [0, 1]
    cache = make(pairs, cache_mb=0)
    cache.prepare(range(4))
    assert not cache.samples
