"""Every metric in classification and with one channel, and those that no confusion matrix gives."""

import math
import re
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
import torchmetrics.functional.classification as peer
from torch import Tensor

from base.base_metric import Metric
from models import SECTIONS
from models.metrics.boundary_iou import BoundaryIoU, sliding_maximum
from models.metrics.top_k import TopKAccuracy
from trainer.evaluation import MetricSet
from utils.errors import ConfigError
from utils.registry import import_attribute

IGNORED = 255
NAMES = tuple(SECTIONS["metrics"].entries)
OF_SAMPLES = tuple(name for name in NAMES if name != "boundary_iou")


def make(name: str, num_classes: int = 7, ignore_index: int | None = IGNORED, **args: Any) -> Metric:
    metric = import_attribute(SECTIONS["metrics"].entries[name])(num_classes, ignore_index, **args)
    assert isinstance(metric, Metric)
    return metric


def samples(num_classes: int = 7, count: int = 90) -> tuple[Tensor, Tensor]:
    """Logits (B, K) that are often right, and labels (B,)."""
    generator = torch.Generator().manual_seed(2)
    target = torch.randint(0, num_classes, (count,), generator=generator) ** 2 // num_classes
    logits = torch.randn(count, num_classes, generator=generator)
    logits[torch.arange(count), target] += 1.0
    return logits, target


def maps(num_classes: int = 3, count: int = 4) -> tuple[Tensor, Tensor]:
    """Logits (B, K, H, W) of blobs, and their labels with some pixels ignored."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.randn(count, num_classes, 4, 5, generator=generator)
    true = torch.nn.functional.interpolate(coarse, (24, 31), mode="bilinear")
    target = true.argmax(dim=1)
    target[:, 3:6, 4:20] = IGNORED
    return true + 0.5 * torch.randn(true.shape, generator=generator), target


def test_all_of_the_registry() -> None:
    assert (len(NAMES), len(OF_SAMPLES)) == (15, 14)


def test_classification_agrees_with_scikit_learn() -> None:
    logits, target = samples()
    judged = MetricSet([make(name) for name in OF_SAMPLES if "top_k" not in name])
    for part in zip(logits.split(40), target.split(40), strict=True):
        judged.update(*part)
    results = judged.compute()
    pair = (target.numpy(), logits.argmax(dim=1).numpy())
    assert np.array_equal(judged.counts()[0].numpy(), reference.confusion_matrix(*pair, labels=range(7)))
    every: dict[str, Any] = {"average": "macro", "zero_division": 0}
    assert results["accuracy"] == pytest.approx(reference.accuracy_score(*pair))
    assert results["macro_f1"] == results["f1"] == pytest.approx(reference.f1_score(*pair, **every))
    assert results["precision"] == pytest.approx(reference.precision_score(*pair, **every))
    assert results["recall"] == pytest.approx(reference.recall_score(*pair, **every))
    assert results["miou"] == pytest.approx(reference.jaccard_score(*pair, **every))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = reference.balanced_accuracy_score(*pair)
    assert results["balanced_accuracy"] == results["mean_accuracy"] == pytest.approx(expected)
    weighted = reference.jaccard_score(*pair, average="weighted", zero_division=0)
    assert results["fw_iou"] == pytest.approx(weighted)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("data", [samples(), maps(7)], ids=["samples", "maps"])
def test_top_k_agrees_with_its_peers(k: int, data: tuple[Tensor, Tensor]) -> None:
    logits, target = data
    metric = TopKAccuracy(7, IGNORED, k=k)
    for part in zip(logits.split(3), target.split(3), strict=True):
        metric.update(*part)
    flat, labels = logits.movedim(1, -1).reshape(-1, 7), target.flatten()
    flat, labels = flat[labels != IGNORED], labels[labels != IGNORED]
    value = metric.compute()[f"top{k}_accuracy"]
    assert value == pytest.approx(reference.top_k_accuracy_score(labels, flat, k=k, labels=range(7)))
    assert value == pytest.approx(float(peer.multiclass_accuracy(flat, labels, 7, "micro", top_k=k)))


def test_top_k_by_hand() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    target = torch.tensor([1, 2, 1, 2, IGNORED])  # of equals the first ones: class 1 is second, class 2 third
    metric = TopKAccuracy(3, IGNORED, k=2)
    metric.update(logits, target)
    assert metric.counts.tolist() == [2, 4]
    assert metric.compute() == {"top2_accuracy": 0.5}
    with pytest.raises(ConfigError, match=r"k is 4 for 3 classes: every answer would be right. Set k to 1 to 2"):
        TopKAccuracy(3, k=4)


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_shares_of_classes_count_by_the_largest(name: str) -> None:
    logits, target = samples()
    shares = 0.6 * torch.nn.functional.one_hot(target, 7) + 0.4 / 7
    shares[:3] = 0
    hard, soft = make(name), make(name)
    hard.update(logits[3:], target[3:])
    soft.update(logits, shares)
    assert soft.compute() == pytest.approx(hard.compute(), nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_one_channel_is_two_classes(name: str) -> None:
    logits, target = maps(2)
    args = {"k": 1} if "top_k" in name else {}
    one, two = make(name, 2, **args), make(name, 2, **args)
    difference = logits[:, 1:] - logits[:, :1]
    one.update(difference, target)
    two.update(logits, target)
    assert torch.equal(one.counts, two.counts)
    with pytest.raises(ConfigError, match="1 logits per pixel for 3 classes: the model must give one per class"):
        make(name, 3, **args).update(difference, target)


@pytest.mark.parametrize("name", ["top_k_accuracy", "boundary_iou"])
def test_the_batch_size_changes_nothing_and_nothing_is_not_a_number(name: str) -> None:
    logits, target = maps(7)
    metric = make(name)
    results = []
    for size in (1, 2, 4):
        metric.reset()
        assert all(math.isnan(value) for value in metric.compute().values())
        metric.update(logits, torch.full_like(target, IGNORED))
        assert all(math.isnan(value) for value in metric.compute().values())
        for part in zip(logits.split(size), target.split(size), strict=True):
            metric.update(*part)
        results.append(metric.compute())
    assert results[0] == results[1] == results[2]
    assert 0.1 < next(iter(results[0].values())) < 1
    assert metric.counts_key() == make(name).counts_key() != make(name, ignore_index=None).counts_key()


def slow_band(labels: list[list[int]], judged: list[list[bool]], width: int) -> set[tuple[int, int]]:
    """Pixels with the edge, or a judged pixel of another class, at most `width` rows and columns away."""
    height, length = len(labels), len(labels[0])
    band = set()
    for y, x in np.ndindex(height, length):
        around = [(b, a) for b in range(y - width, y + width + 1) for a in range(x - width, x + width + 1)]
        is_near_edge = any(not (0 <= b < height and 0 <= a < length) for b, a in around)
        others = [(b, a) for b, a in around if 0 <= b < height and 0 <= a < length and judged[b][a]]
        if judged[y][x] and (is_near_edge or any(labels[b][a] != labels[y][x] for b, a in others)):
            band.add((y, x))
    return band


@pytest.mark.parametrize(("distance", "width"), [(0.01, 1), (0.05, 2), (0.1, 4)])
def test_boundary_iou_equals_its_definition(distance: float, width: int) -> None:
    assert width == max(1, round(distance * math.hypot(24, 31)))
    logits, target = maps()
    sums = np.zeros((2, 3))
    for truth, predicted in zip(target.tolist(), logits.argmax(dim=1).tolist(), strict=True):
        judged = [[label != IGNORED for label in row] for row in truth]
        bands = [slow_band(labels, judged, width) for labels in (truth, predicted)]
        for index in range(3):
            true, found = (
                {(y, x) for y, x in band if labels[y][x] == index}
                for band, labels in zip(bands, (truth, predicted), strict=True)
            )
            sums += np.outer((len(true & found), len(true | found)), np.eye(3)[index])
    metric = BoundaryIoU(3, IGNORED, distance=distance)
    metric.update(logits, target)
    assert metric.counts.tolist() == sums.tolist()
    assert metric.compute()["boundary_iou"] == pytest.approx((sums[0] / sums[1]).mean())


def test_boundary_iou_by_hand() -> None:
    # A square of 4 in an image of 8, found a column too far right: bands of a pixel have 12 each and share 8.
    truth = torch.zeros(1, 8, 8, dtype=torch.int64)
    truth[:, 2:6, 2:6] = 1
    shifted = truth.roll(1, dims=2)
    metric = BoundaryIoU(2, distance=0.02, exclude_background=True)
    metric.update(torch.stack((1.0 - shifted, shifted.float()), dim=1), truth)
    assert metric.counts[:, 1].tolist() == [6, 18]
    assert metric.compute() == {"boundary_iou": pytest.approx(6 / 18)}


def test_a_void_line_hides_a_contour_no_more_than_none() -> None:
    truth = torch.zeros(1, 20, 20, dtype=torch.int64)
    truth[..., 10:] = 1
    void = truth.clone()
    void[..., 9:11] = IGNORED
    logits = torch.stack((1.0 - truth, truth.float()), dim=1)
    metric = BoundaryIoU(2, IGNORED, distance=0.1)  # 3 pixels
    metric.update(logits, void)
    # Of the 9 judged columns of a half: three at the outer edge, and one that is 3 pixels from the other half.
    assert metric.counts.tolist() == [[9 * 20 - 14 * (9 - 3 - 1)] * 2] * 2
    assert metric.compute() == {"boundary_iou": 1.0}


def test_boundary_iou_wants_images() -> None:
    message = "boundary_iou got logits of shape (90, 7): it needs (B, K, H, W), since only an image has contours"
    with pytest.raises(ConfigError, match=re.escape(message)):
        BoundaryIoU(7).update(*samples())


@pytest.mark.parametrize("reach", [1, 2, 3, 7, 9])
def test_the_sliding_maximum_is_a_pooling(reach: int) -> None:
    values = torch.randint(-50, 50, (2, 20, 31), generator=torch.Generator().manual_seed(0)).int()
    pooled = torch.nn.functional.max_pool2d(values[:, None].float(), 2 * reach + 1, 1, reach)[:, 0]
    assert torch.equal(sliding_maximum(values, reach), pooled.int())
