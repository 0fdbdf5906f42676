"""Metrics against numbers worked out by hand and against scikit-learn."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
from torch import Tensor

from models import SECTIONS
from models.metrics.confusion import (
    Accuracy,
    ClassIoU,
    ConfusionMatrix,
    Dice,
    MeanAccuracy,
    MeanIoU,
    MeanIoUWithoutBackground,
    Precision,
    Recall,
    class_measures,
    confusion_counts,
    count_without_wait,
)
from trainer.evaluation import MetricSet
from utils.errors import ConfigError
from utils.registry import import_attribute

IGNORED = 255
BEYOND = ("top_k_accuracy", "top_k_acc", "boundary_iou")  # not from the confusion matrix: tests/test_metrics_beyond.py
OTHERS = (*BEYOND, "miou_without_background")  # with other arguments
NAMES = tuple(name for name in SECTIONS["metrics"].entries if name not in OTHERS)


def make(name: str, num_classes: int = 3, ignore_index: int | None = IGNORED, **args: bool) -> ConfusionMatrix:
    metric = import_attribute(SECTIONS["metrics"].entries[name])(num_classes, ignore_index, **args)
    assert isinstance(metric, ConfusionMatrix)
    return metric


def logits_for(prediction: Tensor, num_classes: int) -> Tensor:
    """Logits whose largest is the prediction."""
    return torch.nn.functional.one_hot(prediction, num_classes).permute(0, 3, 1, 2).float()


def predictions_and_truth(num_classes: int, samples: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    truth = torch.randint(0, num_classes, (samples, 9, 11), generator=generator)
    noise = torch.randint(0, num_classes, (samples, 9, 11), generator=generator)
    prediction = truth.where(torch.rand(truth.shape, generator=generator) < 0.6, noise)
    truth[:, :2] = IGNORED
    return prediction, truth


# Truth 0 0 0 1 1 2, prediction 0 0 1 1 0 1: three classes, the last one never found.
TRUTH = torch.tensor([[[0, 0, 0, 1, 1, 2, IGNORED]]])
PREDICTION = torch.tensor([[[0, 0, 1, 1, 0, 1, 2]]])
BY_HAND = {
    "miou": (2 / 4 + 1 / 4 + 0) / 3,
    "dice": (4 / 6 + 2 / 5 + 0) / 3,
    "f1": (4 / 6 + 2 / 5 + 0) / 3,
    "accuracy": 3 / 6,
    "mean_accuracy": (2 / 3 + 1 / 2 + 0) / 3,
    "precision": (2 / 3 + 1 / 3 + 0) / 3,
    "recall": (2 / 3 + 1 / 2 + 0) / 3,
    "macro_f1": (4 / 6 + 2 / 5 + 0) / 3,
    "balanced_accuracy": (2 / 3 + 1 / 2 + 0) / 3,
    "fw_iou": 3 / 6 * 2 / 4 + 2 / 6 * 1 / 4,
}
BY_HAND_WITHOUT_BACKGROUND = {
    "miou": (1 / 4 + 0) / 2,
    "dice": (2 / 5 + 0) / 2,
    "f1": (2 / 5 + 0) / 2,
    "accuracy": 1 / 3,
    "mean_accuracy": (1 / 2 + 0) / 2,
    "precision": (1 / 3 + 0) / 2,
    "recall": (1 / 2 + 0) / 2,
    "macro_f1": (2 / 5 + 0) / 2,
    "balanced_accuracy": (1 / 2 + 0) / 2,
    "fw_iou": 2 / 3 * 1 / 4,
}


def test_the_numbers_cover_the_registry(record_property: Callable[[str, object], None]) -> None:
    assert {*BY_HAND, "class_iou"} == {*BY_HAND_WITHOUT_BACKGROUND, "class_iou"} == set(NAMES)
    assert len(NAMES) == 11
    assert set(NAMES) | set(OTHERS) == set(SECTIONS["metrics"].entries)
    record_property("covered", f"metrics: {len(NAMES) + len(OTHERS)}")


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    for exclude, numbers in ((False, BY_HAND), (True, BY_HAND_WITHOUT_BACKGROUND)):
        metric = make(name, exclude_background=exclude)
        metric.update(logits_for(PREDICTION, 3), TRUTH)
        assert metric.compute() == pytest.approx({name: numbers[name]})


@pytest.mark.parametrize(
    ("background", "expected"), [(0, (1 / 4 + 0) / 2), (1, (2 / 4 + 0) / 2), (None, (2 / 4 + 1 / 4 + 0) / 3)]
)
def test_the_mean_without_background_leaves_out_that_class_and_counts_its_errors(background, expected) -> None:
    metric = MeanIoUWithoutBackground(3, IGNORED, background=background)
    metric.update(logits_for(PREDICTION, 3), TRUTH)
    assert metric.compute() == {"miou_without_background": pytest.approx(expected)}
    with pytest.raises(ConfigError, match=r"Wrong background 3: classes are 0 to 2\."):
        MeanIoUWithoutBackground(3, background=3)


def test_class_iou_has_the_names_of_the_classes() -> None:
    metric = ClassIoU(3, IGNORED, class_names=["sky", "tree", "road"])
    metric.update(logits_for(PREDICTION, 3), TRUTH)
    assert metric.compute() == pytest.approx({"iou_sky": 0.5, "iou_tree": 0.25, "iou_road": 0.0})
    without = make("class_iou", exclude_background=True)
    without.update(logits_for(PREDICTION, 3), TRUTH)
    assert without.compute() == pytest.approx({"iou_1": 0.25, "iou_2": 0.0})


def test_rows_are_the_truth() -> None:
    metric = ConfusionMatrix(3, IGNORED)
    metric.update(logits_for(PREDICTION, 3), TRUTH)
    assert metric.counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert metric.compute() == {}


def test_classes_that_are_nowhere_are_left_out() -> None:
    everything_right = torch.zeros(1, 2, 2, dtype=torch.int64)
    for name in BY_HAND:
        metric = make(name, num_classes=5)
        metric.update(logits_for(everything_right, 5), everything_right)
        assert metric.compute() == {name: 1.0}


def test_a_class_predicted_where_it_is_not_counts_against_iou_but_has_no_accuracy() -> None:
    truth = torch.tensor([[[0, 0]]])
    prediction = torch.tensor([[[0, 1]]])
    results = {}
    for metric in (MeanIoU(3), MeanAccuracy(3), Recall(3), Precision(3)):
        metric.update(logits_for(prediction, 3), truth)
        results.update(metric.compute())
    assert results == {"miou": 0.25, "mean_accuracy": 0.5, "recall": 0.25, "precision": 0.5}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_counted_is_not_a_number(name: str) -> None:
    metric = make(name)
    assert all(math.isnan(value) for value in metric.compute().values())
    metric.update(torch.randn(1, 3, 2, 2), torch.full((1, 2, 2), IGNORED))
    assert all(math.isnan(value) for value in metric.compute().values())


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_size_changes_nothing(name: str) -> None:
    prediction, truth = predictions_and_truth(3)
    results = []
    for size in (1, 2, 6):
        metric = make(name)
        for logits, target in zip(logits_for(prediction, 3).split(size), truth.split(size), strict=True):
            metric.update(logits, target)
        results.append(metric.compute())
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("name", NAMES)
def test_reset_forgets(name: str) -> None:
    prediction, truth = predictions_and_truth(3)
    metric = make(name)
    metric.update(logits_for(prediction, 3), truth)
    metric.reset()
    assert not metric.counts.any()
    assert metric.counts.shape == (3, 3)


def scikit(score: Callable[..., float], truth: np.ndarray, prediction: np.ndarray, **args: object) -> float:
    return float(score(truth, prediction, zero_division=0, **args))


@pytest.mark.parametrize("num_classes", [2, 3, 12, 200])
def test_scikit_learn_agrees(num_classes: int) -> None:
    prediction, truth = predictions_and_truth(num_classes)
    valid = truth != IGNORED
    pair = (truth[valid].numpy(), prediction[valid].numpy())
    metrics = MetricSet([make(name, num_classes) for name in NAMES])
    metrics.update(logits_for(prediction, num_classes), truth)
    results = metrics.compute()
    counted = metrics.counts()
    assert len(counted) == 1
    assert np.array_equal(counted[0].numpy(), reference.confusion_matrix(*pair, labels=range(num_classes)))
    assert results["miou"] == pytest.approx(scikit(reference.jaccard_score, *pair, average="macro"))
    assert results["f1"] == pytest.approx(scikit(reference.f1_score, *pair, average="macro"))
    assert results["precision"] == pytest.approx(scikit(reference.precision_score, *pair, average="macro"))
    assert results["recall"] == pytest.approx(scikit(reference.recall_score, *pair, average="macro"))
    assert results["accuracy"] == pytest.approx(float(reference.accuracy_score(*pair)))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_any_kind_of_logits(num_classes: int, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    logits = torch.randn(2, num_classes, 9, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    truth = torch.randint(0, num_classes, (2, 9, 7), generator=torch.Generator().manual_seed(1))
    counts = confusion_counts(logits.contiguous(memory_format=memory_format), truth, num_classes)
    expected = reference.confusion_matrix(truth.flatten(), logits.float().argmax(dim=1).flatten())
    assert np.array_equal(counts.numpy(), expected)


@pytest.mark.parametrize("num_classes", [2, 4, 190])
def test_labels_out_of_range_are_in_no_row(num_classes: int) -> None:
    truth = torch.tensor([[[0, num_classes, -1, 65535, -100, 254, 1]]])
    unchanged = truth.clone()
    counts = confusion_counts(torch.zeros(1, num_classes, 1, 7), truth, num_classes)
    assert torch.equal(truth, unchanged)
    assert counts[:, 0].tolist() == [1, 1] + [0] * (num_classes - 2)
    assert int(counts.sum()) == 2


def test_a_class_may_be_ignored() -> None:
    metric = MeanIoU(3, ignore_index=0)
    metric.update(logits_for(PREDICTION, 3), TRUTH)
    assert metric.counts[0].tolist() == [0, 0, 0]
    assert int(metric.counts.sum()) == 3


def test_counting_without_waiting_counts_the_same() -> None:
    for bins, dtype in ((24, torch.int16), (33_123, torch.int32), (1_002_000, torch.int32)):  # of 4, 181, 1000 classes
        codes = torch.randint(0, bins, (1000,), generator=torch.Generator().manual_seed(0), dtype=torch.int64).to(dtype)
        assert torch.equal(count_without_wait(codes, bins), torch.bincount(codes, minlength=bins))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_wait_for_the_device() -> None:
    logits = torch.randn(2, 5, 40, 50, device="cuda")
    truth = torch.randint(0, 5, (2, 40, 50), device="cuda")
    metric = MeanIoU(5)
    metric.update(logits, truth)
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.update(logits, truth)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(metric.counts.cpu(), 2 * confusion_counts(logits.cpu(), truth.cpu(), 5))


def test_metrics_of_the_same_classes_are_counted_once() -> None:
    shared = MetricSet([MeanIoU(3, IGNORED), Dice(3, IGNORED), Accuracy(3, IGNORED, exclude_background=True)])
    apart = MetricSet([MeanIoU(3, IGNORED), MeanIoU(3, 0)])
    assert len(shared.counts()) == 1
    assert len(apart.counts()) == 2


def test_a_checkpoint_in_mid_epoch_keeps_the_counts() -> None:
    prediction, truth = predictions_and_truth(3)
    whole, first, second = (MetricSet([MeanIoU(3, IGNORED), Dice(3, IGNORED)]) for _ in range(3))
    whole.update(logits_for(prediction, 3), truth)
    first.update(logits_for(prediction[:2], 3), truth[:2])
    second.set_counts(first.counts())
    second.update(logits_for(prediction[2:], 3), truth[2:])
    assert second.compute() == whole.compute()


def test_tables_come_from_a_matrix() -> None:
    matrix = torch.tensor([[6, 2], [1, 3]])
    assert class_measures(matrix)["iou"].tolist() == pytest.approx([6 / 9, 3 / 6])
    metric = Accuracy(2)
    metric.counts = matrix
    assert metric.compute() == {"accuracy": pytest.approx(9 / 12)}


def test_logits_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match="4 logits per pixel for 3 classes: the model must give one per class"):
        MeanIoU(3).update(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))


def test_names_of_classes_are_counted() -> None:
    with pytest.raises(ConfigError, match=r"2 class names \['sky', 'tree'\] for 3 classes"):
        ClassIoU(3, class_names=["sky", "tree"])
