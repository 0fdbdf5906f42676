"""Class weights from the visible pixels of the training data: rules, counting, and where the counts are kept."""

import json
import math
import re
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from test_train import changed, small  # noqa: F401 (a fixture)

import test as test_command
from base import BaseDataLoader
from base.class_weights import class_weights
from base.samples import count_batches, count_targets
from build import build_loader, build_training
from data_loader.segmentation.loader import SegmentationDataLoader
from models.losses import CrossEntropyLoss
from tests.support.groups import from_flat
from tests.support.tiny import Blobs
from train import train
from utils.checkpoint_file import read_checkpoint
from utils.errors import ConfigError

# Of 100 pixels.
COUNTS = [70, 20, 10]


def test_balanced_by_hand() -> None:
    assert class_weights("balanced", COUNTS) == pytest.approx([1 / 2.1, 1 / 0.6, 1 / 0.3])


def test_log_by_hand() -> None:
    assert class_weights("log", COUNTS) == pytest.approx([1 / math.log(1.72), 1 / math.log(1.22), 1 / math.log(1.12)])
    assert class_weights("log", [1, 0]) == pytest.approx([1 / math.log(2.02), 1 / math.log(1.02)])


def test_bounded_by_hand() -> None:
    # c = (3 * 0.1 - 0.7) / (1 - 3) = 0.2 on top of each: 0.9, 0.4, 0.3, whose inverses are as 4 : 9 : 12.
    assert class_weights("bounded", COUNTS, max_ratio=3.0) == pytest.approx([4 / 25, 9 / 25, 12 / 25])


def test_bounded_adds_nothing_where_the_ratio_holds() -> None:
    inverse = [1 / 0.7, 1 / 0.2, 1 / 0.1]
    assert class_weights("bounded", COUNTS, max_ratio=7.5) == pytest.approx([each / sum(inverse) for each in inverse])


@pytest.mark.parametrize("rule", ["balanced", "log", "bounded"])
@pytest.mark.parametrize("ignored", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1000])
def test_a_class_that_is_ignored_has_no_part_in_a_rule(rule: Any, ignored: int, count: int) -> None:
    counts, expected = [*COUNTS], class_weights(rule, COUNTS, max_ratio=3.0)
    counts.insert(ignored, count)
    expected.insert(ignored, 0.0)
    assert class_weights(rule, counts, num_classes=4, ignore_index=ignored, max_ratio=3.0) == expected
    loss = CrossEntropyLoss(ignored, weight=rule, class_counts=counts, num_classes=4, max_weight_ratio=3.0)
    assert loss.weight.tolist() == pytest.approx(expected)
    target = torch.tensor([[0, 1, 2, 3]])
    assert loss(torch.randn(1, 4, 4), target).isfinite()
    assert class_weights([1.0, 2.0], ignore_index=0) == [1.0, 2.0], "numbers are taken as they are"


@pytest.mark.parametrize("counts", [[70, 20, 10], [10**9, 1, 0], [5, 5], [0, 0, 3]])
@pytest.mark.parametrize("ratio", [1.5, 10.0, 1000.0])
def test_bounded_is_bounded(counts: list[int], ratio: float) -> None:
    weights = class_weights("bounded", counts, max_ratio=ratio)
    assert weights is not None
    assert max(weights) / min(weights) <= ratio * (1 + 1e-9)
    assert sum(weights) == pytest.approx(1)
    assert sorted(weights, reverse=True) == [weights[place] for place in np.argsort(counts, kind="stable")]


@pytest.mark.parametrize(
    ("weight", "counts", "message"),
    [
        ("log", None, 'weight "log" follows from the classes of the training data, which are not known here.'),
        ("log", [1, 2], "2 class counts [1, 2] for 3 classes: each class needs one. Correct class_counts or"),
        ([1.0], COUNTS, "1 class weights [1.0] for 3 classes: each class needs one. Correct weight or"),
        ("balanced", [5, 0, 0], "shows nothing of class 1, 2, whose weight would be infinite. Use"),
        ("bounded", [0, 0, 0], 'weight "bounded": no pixel of the training data has a label that counts.'),
    ],
)
def test_what_cannot_be(weight: Any, counts: list[int] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        class_weights(weight, counts, num_classes=3)


def test_a_class_that_is_absent_and_not_ignored_is_refused() -> None:
    with pytest.raises(ConfigError, match="shows nothing of class 2, whose weight"):
        class_weights("balanced", [0, 5, 0], ignore_index=0)
    with pytest.raises(ConfigError, match="no pixel of the training data has a label that counts"):
        class_weights("log", [7, 0, 0], ignore_index=0)


def test_a_loss_takes_the_rule() -> None:
    rule = CrossEntropyLoss(weight="bounded", max_weight_ratio=3.0, class_counts=COUNTS)
    numbers = CrossEntropyLoss(weight=[4 / 25, 9 / 25, 12 / 25])
    torch.testing.assert_close(rule.weight, numbers.weight)


@pytest.fixture
def masks(tmp_path):
    """Three images of different sizes; 255 hides 11 pixels of the last one."""
    generator = np.random.default_rng(3)
    lines = []
    for number, (height, width) in enumerate([(9, 14), (20, 6), (8, 8)]):
        mask = generator.integers(0, 3, (height, width)).astype(np.uint8)
        if number == 2:
            mask.reshape(-1)[:11] = 255
        cv2.imwrite(str(tmp_path / f"{number}.png"), mask)
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), np.zeros((height, width, 3), np.uint8))
        lines.append(f"{number}.jpg, {number}.png")
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    return tmp_path


def seen(folder, numbers):
    """Counts of the three classes, by a plain look at the files."""
    pixels = np.concatenate([cv2.imread(str(folder / f"{number}.png"), 0).ravel() for number in numbers])
    return [int((pixels == label).sum()) for label in range(3)]


@pytest.mark.parametrize("resize", [4, 64])
@pytest.mark.parametrize("is_training", [True, False])
def test_pixels_are_counted_at_their_own_size_without_augmentation(masks, resize, is_training) -> None:
    args = {"num_classes": 3, "ignore_index": 255, "resize": resize, "flip_hor": 0.5, "angle": 30.0, "batch_size": 2}
    loader = from_flat(SegmentationDataLoader, str(masks / "pairs.txt"), is_training=is_training, **args)
    expected = seen(masks, range(3))
    assert sum(expected) == 9 * 14 + 20 * 6 + 8 * 8 - 11
    assert loader.class_counts() == expected
    loader.prepare()
    assert loader.class_counts() == expected
    loader.shard(1, 2)
    assert loader.class_counts() == expected
    few = from_flat(SegmentationDataLoader, str(masks / "pairs.txt"), is_training=is_training, samples=2, **args)
    assert few.class_counts() == seen(masks, range(2))
    assert count_batches(few.evaluation_loader(), 3, 255) == seen(masks, range(2))


def test_a_class_that_is_ignored_is_not_counted(masks) -> None:
    (masks / "two.txt").write_text("0.jpg, 0.png\n1.jpg, 1.png")
    loader = from_flat(
        SegmentationDataLoader, str(masks / "two.txt"), num_classes=3, ignore_index=1, resize=8, batch_size=2
    )
    first, _, last = seen(masks, range(2))
    assert loader.class_counts() == [first, 0, last]


def test_what_is_held_out_is_not_counted(masks) -> None:
    loader = from_flat(
        SegmentationDataLoader, str(masks / "pairs.txt"), num_classes=3, ignore_index=255, resize=8, validation_split=1
    )
    kept = loader.keys.indices.tolist()
    assert len(kept) == 2
    assert loader.class_counts() == seen(masks, kept)


def test_labels_of_samples_are_counted() -> None:
    loader = BaseDataLoader(Blobs(), 4, shuffle=True, seed=3)
    loader.num_classes = 2
    labels = [int(Blobs().points[index].sum() > 0) for index in range(22)]
    assert loader.class_counts() == [labels.count(0), labels.count(1)] == [11, 11]


class Hidden:
    """A data set whose targets can be had alone; what is hidden from the training is ignored."""

    def target(self, index):
        return torch.tensor([[0, 1, 1, -1], [255, 255, 2, 7]]) if index else np.array(2)


def test_a_data_set_says_what_is_visible() -> None:
    assert count_targets(Hidden(), [0, 1, 1], 3, 255) == [2, 4, 3]


def test_probabilities_are_not_counted_as_ids() -> None:
    batch = (torch.zeros(2, 1), torch.tensor([[0.7, 0.3], [0.0, 1.0]]))
    with pytest.raises(ConfigError, match=r"A target is float32 \(2, 2\), but only ids of classes .* can be counted"):
        count_batches([batch], 2, None)


def test_a_loader_must_know_its_classes() -> None:
    with pytest.raises(ConfigError, match="does not know the number of classes, so it cannot count them"):
        BaseDataLoader(Blobs(), 4).class_counts()


RULED = {"type": "ce_loss", "args": {"weight": "balanced"}}


def people_counts(config) -> list[int]:
    loader = build_loader(config, "train")
    source = loader.dataset.dataset.decoder.source
    masks = [cv2.imread(str(source.names(index)[1]), 0) for index in range(loader.num_samples)]
    return [sum(int((mask == label).sum()) for mask in masks) for label in (0, 1)]


def test_the_counts_go_into_the_checkpoint_and_a_test_needs_no_training_data(small) -> None:  # noqa: F811
    config = changed(small, loss=[{**RULED, "weight": 2.0}, {"type": "dice_loss"}], trainer__epochs=1)
    result = train(config)
    counts = people_counts(config)
    content = read_checkpoint(result.checkpoint)
    assert content["config"]["loss"][0] == {
        "type": "ce_loss",
        "args": {"weight": "balanced", "class_counts": counts},
        "weight": 2.0,
    }
    assert json.loads((result.run_folder / "config.json").read_text()) == content["config"]
    assert train(config, resume="auto").run_folder == result.run_folder

    alone = {key: value for key, value in content["config"].items() if key != "train_loader"}
    judged = test_command.test(alone, content["state_dict"], split="valid")
    assert judged["metrics"]["loss"] == result.history[-1]["val_loss"]
    asked = {key: value for key, value in config.items() if key != "train_loader"}
    assert test_command.for_evaluation(content["config"], asked)["loss"] == content["config"]["loss"]


def test_a_weighted_sum_written_out_is_counted_too(small) -> None:  # noqa: F811
    nested = {"type": "WeightedLoss", "args": {"losses": [RULED, "dice_loss"], "weights": [1.0, 1.0]}}
    config = changed(small, loss=nested)
    parts = build_training(config)
    assert parts.config["loss"]["args"]["losses"][0]["args"]["class_counts"] == people_counts(config)
    total = sum(people_counts(config))
    expected = [total / (2 * count) for count in people_counts(config)]
    assert parts.loss.losses[0].weight.tolist() == pytest.approx(expected)


def test_nothing_is_counted_unless_asked(small, monkeypatch) -> None:  # noqa: F811
    def refuse(_loader):
        raise AssertionError

    monkeypatch.setattr(BaseDataLoader, "class_counts", refuse)
    build_training(small)
    build_training(changed(small, loss={"type": "ce_loss", "args": {"weight": "log", "class_counts": [3, 1]}}))


def test_a_rule_is_one_of_three(small) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match=r'loss\.args\.weight: "ballanced" must be .* or one of "balanced", "log"'):
        train(changed(small, loss={"type": "ce_loss", "args": {"weight": "ballanced"}}))
