"""What the values of masks become, and which samples are held out."""

import numpy as np
import pytest

from data_loader.common.folds import Folds
from data_loader.common.options import LabelOptions
from data_loader.segmentation.labels import Labels, export_ids
from data_loader.segmentation.loader import SegmentationDataLoader
from tests.support.groups import from_flat
from tests.support.loader_cases import save
from utils.errors import ConfigError

MAP = {"7": 0, "8": 1, "300": 1}


def test_a_map_turns_values_into_classes_and_ignores_the_rest():
    labels = Labels(LabelOptions(num_classes=2, label_map=MAP))
    ids, unknown = labels.convert(np.array([[7, 8, 0], [255, 33, 300]], np.uint16))
    assert ids.tolist() == [[0, 1, 255], [255, 255, 1]]
    assert (ids.dtype, unknown) == (np.uint8, [])
    assert Labels(LabelOptions(num_classes=2, ignore_index=9, label_map=MAP)).convert(np.array([[7, 9]], np.uint8))[
        0
    ].tolist() == [[0, 9]]


def test_many_classes_are_mapped_in_sixteen_bits():
    ids, _ = Labels(LabelOptions(num_classes=300, label_map={"5": 299})).convert(np.array([[5, 6]], np.uint8))
    assert ids.tolist() == [[299, 65535]]


def test_a_class_goes_back_to_the_first_value_that_became_it():
    assert export_ids(MAP) == [7, 8]
    assert export_ids({"9": 1, "4": 0}) == [4, 9]
    assert export_ids({"9": 1}) is None
    assert export_ids(None) is None


def test_the_map_tells_the_number_of_classes():
    labels = Labels(LabelOptions(label_map=MAP))
    assert (labels.num_classes, labels.class_names) == (2, ["class_0", "class_1"])
    assert Labels(LabelOptions(label_map=MAP, classes=["a", "b"])).class_names == ["a", "b"]


@pytest.mark.parametrize(
    ("label_map", "arguments", "message"),
    [
        ({"7": 2}, {}, "Wrong label_map: 7 becomes 2, but classes are 0 to 1. Correct it or num_classes"),
        ({"7": -1}, {}, 'Wrong label_map: "7" becomes -1, which is not a class'),
        ({"7": True}, {}, 'Wrong label_map: "7" becomes True'),
        ({"x": 0}, {}, 'Wrong label_map: "x" is no value of a mask. Keys are 0 to 65535'),
        ({"70000": 0}, {}, '"70000" is no value of a mask'),
        ({}, {}, "it must map at least one value"),
        (MAP, {"binary_masks": True}, "binary_masks and label_map both define the classes"),
        (MAP, {"ignore_index": 1}, "Wrong ignore_index 1 next to a label_map"),
    ],
)
def test_wrong_maps_are_refused(label_map, arguments, message):
    with pytest.raises(ConfigError, match=message):
        Labels(LabelOptions(num_classes=2, label_map=label_map, **arguments))


@pytest.mark.parametrize("arguments", [{"num_classes": 0}, {"num_classes": 0, "classes": ["a", "b"]}])
def test_no_classes_are_not_the_same_as_none_given(tmp_path, arguments):
    with pytest.raises(ConfigError, match=r"num_classes 0: it must be 2 or more|but num_classes is 0"):
        from_flat(SegmentationDataLoader, str(tmp_path / "none.txt"), **arguments)


def test_every_sample_is_in_exactly_one_fold():
    parts = [Folds(number, 4, seed=3).split(11) for number in range(4)]
    held_out = np.concatenate([fold for _, fold in parts])
    assert sorted(held_out.tolist()) == list(range(11))
    assert sorted(len(fold) for _, fold in parts) == [2, 3, 3, 3]
    for others, fold in parts:
        assert sorted([*others, *fold]) == list(range(11))
    assert Folds(0, 4, seed=3).split(11)[1].tolist() == parts[0][1].tolist()
    assert any(Folds(0, 4, seed=seed).split(11)[1].tolist() != parts[0][1].tolist() for seed in (4, 5))


@pytest.fixture
def pairs_file(tmp_path):
    for number in range(10):
        save(tmp_path / f"{number}.png", np.full((4, 4, 3), number, np.uint8))
    save(tmp_path / "m.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "pairs.txt").write_text("\n".join(f"{n}.png, m.png" for n in range(10)))
    return str(tmp_path / "pairs.txt")


def test_training_takes_the_other_folds_and_validation_the_fold(pairs_file):
    common = {"num_classes": 2, "folds": {"fold": 1, "of": 5}, "seed": 8}
    train = from_flat(SegmentationDataLoader, pairs_file, **common)
    valid = from_flat(SegmentationDataLoader, pairs_file, **common, is_training=False)
    others, fold = Folds(1, 5, 8).split(10)
    assert train.keys.indices.tolist() == others.tolist()
    assert valid.keys.indices.tolist() == fold.tolist()
    assert train.split_validation().keys.indices.tolist() == fold.tolist()
    assert valid.split_validation() is None
    # the training samples judged, as `test.py --split train` does
    judged = from_flat(SegmentationDataLoader, pairs_file, **common, role="train", is_training=False)
    assert judged.keys.indices.tolist() == others.tolist()
    own_seed = from_flat(
        SegmentationDataLoader, pairs_file, num_classes=2, folds={"fold": 1, "of": 5, "seed": 8}, seed=0
    )
    assert own_seed.keys.indices.tolist() == others.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": {"fold": 5, "of": 5}}, "of must be 2 or more, and fold from 0 to of - 1"),
        ({"folds": {"fold": 0, "of": 1}}, "of must be 2 or more"),
        ({"folds": {"fold": 0}}, "Wrong folds .*: it has fold, of and optionally seed"),
        ({"folds": {"fold": 0, "of": 5, "k": 1}}, "it has fold, of and"),
        ({"folds": {"fold": 0.0, "of": 5}}, "its values are whole numbers"),
        ({"folds": {"fold": 0, "of": 11}}, "10 samples cannot make 11 folds: each must have one"),
        ({"folds": {"fold": 0, "of": 2}, "validation_split": 2}, "folds and validation_split both hold samples out"),
    ],
)
def test_wrong_folds_are_refused(pairs_file, arguments, message):
    with pytest.raises(ConfigError, match=message):
        from_flat(SegmentationDataLoader, pairs_file, num_classes=2, **arguments)
