"""Every metric against scikit-learn, torchmetrics or OpenCV, whatever is ignored and however the data are divided."""

import itertools
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import sklearn.metrics as reference
import torch
import torchmetrics.functional.classification as peer

from base.base_metric import class_ids
from models.metrics import boundary_iou as boundary_module
from models.metrics import confusion
from models.metrics.confusion import MeanIoU, confusion_counts, count_without_wait
from models.metrics.function import FunctionMetric
from tests.support.metric_cases import CLASSES, DISTANCE, IGNORED, Case, all_cases, draw_case, make_metrics
from tests.support.waits import Waits
from trainer.evaluation import MetricSet

ROOT = Path(__file__).resolve().parent.parent


def band(labels: np.ndarray, counted: np.ndarray, index: int, width: int) -> np.ndarray:
    """The pixels of a class that an erosion removes; void pixels and other classes beyond them remove nothing."""
    filled = ((labels == index) | ~counted).astype(np.uint8)
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    inner = cv2.erode(filled, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return (labels == index) & counted & (inner == 0)


def boundary_iou(case: Case, classes: list[int]) -> float:
    truth, found = case.target.numpy(), case.logits.argmax(dim=1).numpy()
    width = round(DISTANCE * math.hypot(*truth.shape[1:]))
    ratios = []
    for index in classes:
        sums = np.zeros(2)
        for true, predicted in zip(truth, found, strict=True):
            counted = np.full(true.shape, True) if case.ignore_index is None else true != case.ignore_index
            bands = [band(labels, counted, index, width) for labels in (true, predicted)]
            sums += (np.logical_and(*bands).sum(), np.logical_or(*bands).sum())
        ratios.append(sums[0] / sums[1] if sums[1] else math.nan)
    return float(np.nanmean(ratios)) if np.isfinite(ratios).any() else math.nan


def top_k(case: Case, k: int) -> float:
    """Of a total order of the classes, as no two logits are equal."""
    ranks = case.logits.movedim(1, -1).flatten(0, -2).argsort(dim=1, descending=True)[:, :k]
    truth = case.target.flatten()
    counted = torch.full_like(truth, 1).bool() if case.ignore_index is None else truth != case.ignore_index
    return float((ranks == truth[:, None]).any(dim=1)[counted].double().mean())


@cache
def expected(num_classes: int, ignored: str, *, of_images: bool = True) -> dict[str, float]:
    """What scikit-learn finds among the labels that count, for the classes that are true or predicted."""
    case = draw_case(num_classes, ignored, of_images=of_images)
    truth, found = case.target.flatten().numpy(), case.logits.argmax(dim=1).flatten().numpy()
    counted = np.full(truth.shape, True) if case.ignore_index is None else truth != case.ignore_index
    pair = (truth[counted], found[counted])
    classes = [index for index in range(num_classes) if index != case.ignore_index]
    present = np.intersect1d(np.union1d(*pair), classes)
    k = max(1, min(5, num_classes - 1))
    if not counted.any():
        every = make_metrics(case, of_images=of_images).values()
        return {name: math.nan for metric in every for name in metric.compute()}
    options: dict[str, Any] = {"labels": present, "average": "macro", "zero_division": 0}
    f1 = float(reference.f1_score(*pair, **options))
    recall_of_true = float(reference.recall_score(*pair, **{**options, "labels": np.unique(pair[0])}))
    of_classes = reference.jaccard_score(*pair, **{**options, "average": None})
    foreground = {**options, "labels": present[present != 0]}
    values = {
        "miou": float(reference.jaccard_score(*pair, **options)),
        "miou_without_background": (
            float(reference.jaccard_score(*pair, **foreground)) if len(foreground["labels"]) else math.nan
        ),
        **{f"iou_{index}": math.nan for index in classes},
        **{f"iou_{index}": float(value) for index, value in zip(present, of_classes, strict=True)},
        "dice": f1,
        "accuracy": float(reference.accuracy_score(*pair)),
        "mean_accuracy": recall_of_true,
        "precision": float(reference.precision_score(*pair, **options)),
        "recall": float(reference.recall_score(*pair, **options)),
        "f1": f1,
        "macro_f1": f1,
        "balanced_accuracy": recall_of_true,
        "fw_iou": float(reference.jaccard_score(*pair, **{**options, "average": "weighted"})),
        f"top{k}_accuracy": top_k(case, k),
        "top_k_acc": top_k(case, k),
    }
    return {**values, "boundary_iou": boundary_iou(case, classes)} if of_images else values


def half(output: torch.Tensor, target: torch.Tensor) -> float:
    return 0.5


@pytest.mark.parametrize("of_images", [True, False])
def test_no_metric_waits_for_a_gpu(of_images: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a GPU: torch.bincount would wait there.
    for module in (confusion, boundary_module):
        monkeypatch.setattr(module, "count_codes", lambda codes, bins: count_without_wait(codes.flatten(), bins))
    case = draw_case(3, IGNORED[0], of_images=of_images)
    metrics = MetricSet([*make_metrics(case, of_images=of_images).values(), FunctionMetric(half, {})])
    with Waits() as waits:
        metrics.update(case.logits, case.target)
    assert not waits.found


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("of_images", [True, False], ids=["images", "samples"])
@pytest.mark.parametrize("ignored", IGNORED)
@pytest.mark.parametrize("num_classes", CLASSES)
def test_every_metric_equals_its_reference(num_classes: int, ignored: str, of_images: bool, batch_size: int) -> None:
    case = draw_case(num_classes, ignored, of_images=of_images)
    metrics = MetricSet(make_metrics(case, of_images=of_images).values())
    for logits, target in zip(case.logits.split(batch_size), case.target.split(batch_size), strict=True):
        metrics.update(logits, target)
    found = metrics.compute()
    assert found == pytest.approx(expected(num_classes, ignored, of_images=of_images), rel=1e-9, nan_ok=True)
    assert list(found) == [name for metric in metrics.metrics for name in metric.compute()]


@pytest.mark.parametrize("ignored", IGNORED)
@pytest.mark.parametrize("num_classes", [each for each in CLASSES if each > 1])
def test_torchmetrics_agrees(num_classes: int, ignored: str) -> None:
    case = draw_case(num_classes, ignored)
    found = expected(num_classes, ignored)
    arguments = (case.logits, case.target, num_classes)
    options: dict[str, Any] = {"ignore_index": case.ignore_index}
    assert found["miou"] == pytest.approx(float(peer.multiclass_jaccard_index(*arguments, **options)), rel=1e-5)
    accuracy = peer.multiclass_accuracy(*arguments, average="micro", **options)
    assert found["accuracy"] == pytest.approx(float(accuracy), rel=1e-5)
    k = min(5, num_classes - 1)
    flat = (case.logits.movedim(1, -1).flatten(0, -2), case.target.flatten(), num_classes)
    best = peer.multiclass_accuracy(*flat, average="micro", top_k=k, **options)
    assert found[f"top{k}_accuracy"] == pytest.approx(float(best), rel=1e-5)
    if ignored in ("absent", "outside"):  # an ignored class has f1 0 in torchmetrics' mean
        assert found["f1"] == pytest.approx(float(peer.multiclass_f1_score(*arguments, **options)), rel=1e-5)


def test_an_ignored_class_is_in_no_mean_by_hand() -> None:
    # Truth 0 0 1 1 2 2 2 with class 0 ignored; predicted as 0 where it is 1 and where it is 2, which are errors.
    truth = torch.tensor([0, 0, 1, 1, 2, 2, 2])
    found = torch.tensor([0, 1, 1, 0, 2, 1, 0])
    case = Case(3, 0, torch.nn.functional.one_hot(found, 3).float(), truth)
    metrics = MetricSet(make_metrics(case, of_images=False).values())
    metrics.update(case.logits, truth)
    # Of the five that count: class 1 found once of two, and once where it is not; class 2 found once of three.
    assert metrics.compute() == pytest.approx(
        {
            "miou": (1 / 3 + 1 / 3) / 2, "miou_without_background": (1 / 3 + 1 / 3) / 2, "iou_1": 1 / 3, "iou_2": 1 / 3,
            "dice": (1 / 2 + 1 / 2) / 2, "f1": (1 / 2 + 1 / 2) / 2, "macro_f1": (1 / 2 + 1 / 2) / 2,
            "accuracy": 2 / 5, "mean_accuracy": (1 / 2 + 1 / 3) / 2, "balanced_accuracy": (1 / 2 + 1 / 3) / 2,
            "precision": (1 / 2 + 1) / 2, "recall": (1 / 2 + 1 / 3) / 2, "fw_iou": 1 / 3, "top2_accuracy": 3 / 5,
                "top_k_acc": 3 / 5,
        }
    )  # fmt: skip
    without_background = MeanIoU(3, 1, exclude_background=True)  # leaves class 2 alone
    without_background.update(case.logits, truth)
    assert without_background.compute() == {"miou": pytest.approx(1 / 3)}


ORDERS = list(itertools.permutations(("miou", "top_k_accuracy", "boundary_iou", "class_iou")))


@pytest.mark.parametrize("num_classes", [3, 181, 1000])
@pytest.mark.parametrize("order", ORDERS, ids=["-".join(order) for order in ORDERS])
def test_the_order_of_the_metrics_changes_nothing_and_the_target_stays(num_classes: int, order: list[str]) -> None:
    case = draw_case(num_classes, "outside")
    every = make_metrics(case)
    metrics, before = MetricSet([every[name] for name in order]), case.target.clone()
    metrics.update(case.logits, case.target)
    metrics.update(case.logits, case.target)
    assert torch.equal(case.target, before)
    found = metrics.compute()
    names = [name for name in expected(num_classes, "outside") if name in found]
    assert {name: found[name] for name in names} == pytest.approx(
        {name: expected(num_classes, "outside")[name] for name in names}, rel=1e-9, nan_ok=True
    )


LAYOUTS = {
    "contiguous": lambda target: target.contiguous(),
    "transposed": lambda target: target.transpose(1, 2).contiguous().transpose(1, 2),
    "part of a batch": lambda target: torch.cat((target, target), dim=2)[:, :, : target.shape[2]],
    "every second": lambda target: target.repeat_interleave(2, dim=2)[:, :, ::2],
    "one for all": lambda target: target[:1].expand(target.shape),
}
TYPES = [torch.int64, torch.int32, torch.int16, torch.uint8]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_classes", [181, 1000])
def test_no_metric_changes_the_target_of_any_type_and_layout(num_classes: int, layout: str) -> None:
    case = draw_case(num_classes, "first")
    small = case.target.clamp(max=200)  # labels that uint8 can hold
    results = []
    for dtype in TYPES:
        target = LAYOUTS[layout](small.to(dtype))
        before = target.clone()
        every = make_metrics(case)
        for metric in every.values():
            metric.update(case.logits, target)
            assert torch.equal(target, before), metric
        results.append({name: metric.compute() for name, metric in every.items()})
    for other in results[1:]:
        assert repr(other) == repr(results[0])


@pytest.mark.parametrize("of_images", [True, False], ids=["images", "samples"])
@pytest.mark.parametrize("ignored", IGNORED)
@pytest.mark.parametrize("num_classes", [3, 181])
def test_soft_targets_count_by_the_largest_and_stay(num_classes: int, ignored: str, of_images: bool) -> None:
    case = draw_case(num_classes, ignored, of_images=of_images)
    labels = case.target.where(case.target < num_classes, num_classes)  # an ignored one outside has no probability
    shares = torch.nn.functional.one_hot(labels, num_classes + 1).movedim(-1, 1)[:, :num_classes].double() * 0.7
    shares += 0.3 / num_classes * (shares.sum(dim=1, keepdim=True) > 0)
    before = shares.clone()
    for name, metric in make_metrics(case, of_images=of_images).items():
        metric.update(case.logits, shares)
        hard = make_metrics(case, of_images=of_images)[name]
        hard.update(case.logits, case.target)
        assert repr(metric.compute()) == repr(hard.compute()), name
        assert torch.equal(shares, before), name


def test_a_target_without_any_probability_is_ignored_in_training_too() -> None:
    shares = torch.tensor([[0.2, 0.8], [0.0, 0.0], [0.6, 0.4]])
    assert class_ids(shares).tolist() == [1, -1, 0]
    assert class_ids(shares, ignored=-100).tolist() == [1, -100, 0]
    ids = torch.tensor([3, 255])
    assert class_ids(ids, ignored=255) is ids


def test_soft_targets_of_a_network_with_one_channel() -> None:
    case = draw_case(2, "absent", of_images=False)
    shares = 0.8 * torch.nn.functional.one_hot(case.target, 2).float() + 0.1
    for name, metric in make_metrics(case, of_images=False).items():
        metric.update(case.logits[:, 1:] - case.logits[:, :1], shares)
        assert metric.compute() == pytest.approx(
            {each: value for each, value in expected(2, "absent", of_images=False).items() if each in metric.compute()}
        ), name


@pytest.mark.parametrize("ignored", IGNORED)
def test_one_channel_equals_its_reference(ignored: str) -> None:
    case = draw_case(2, ignored)
    metrics = MetricSet(make_metrics(case).values())
    metrics.update(case.logits[:, 1:] - case.logits[:, :1], case.target)
    assert metrics.compute() == pytest.approx(expected(2, ignored), rel=1e-9, nan_ok=True)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests/support/metric_cases.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        results = torch.load(tmp_path / f"{rank}.pt")
        assert set(results) == set(all_cases())
        for (num_classes, ignored), found in results.items():
            del found["loss"]
            assert found == pytest.approx(expected(num_classes, ignored), rel=1e-9, nan_ok=True), (num_classes, ignored)


@pytest.mark.parametrize("label", [65535, 65536, 65537, 1 << 20, -65536, -(1 << 20)])
@pytest.mark.parametrize("num_classes", [2, 11, 181])
def test_a_label_far_out_of_range_is_no_class(num_classes: int, label: int) -> None:
    target = torch.tensor([0, label, 1])
    counts = confusion_counts(torch.zeros(3, num_classes), target, num_classes)
    assert int(counts.sum()) == 2
    metric = MeanIoU(num_classes, ignore_index=label)
    metric.update(torch.nn.functional.one_hot(torch.tensor([0, 1, 1]), num_classes).float(), target)
    assert metric.compute() == {"miou": 1.0}
