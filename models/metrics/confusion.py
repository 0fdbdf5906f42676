"""Metrics from counts of classes: the base of all metrics here, the confusion matrix, and the measures of one.

A matrix holds the pixels or, in classification, the samples of a whole data set; rows are the truth, columns the
prediction; K classes. Every result is NaN if nothing was counted.
"""

from collections.abc import Hashable, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from base.base_metric import Metric, class_ids
from models.layers.blocks import Count
from utils.errors import ConfigError

COUNTER_COPIES = 64
MAX_COUNTERS = 2**20  # 8 MB; of 1000 classes 64 copies would take half a gigabyte


def truth_and_prediction(logits: Tensor, target: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the true and the predicted class of each pixel (or sample), both (B, ...) integers.

    Args:
        logits: (B, K, ...) float; the largest counts, among equals the first. With one channel, class 1 is above 0.
        target: (B, ...) int64, or (B, K, ...) float probabilities, of which the largest counts, -1 if all are 0.
        num_classes: K; 2 for one channel that separates two classes by its sign. Of 1 class everything is class 0.

    Raises:
        ConfigError: The logits are of another number of classes.
    """
    channels = logits.shape[1]
    # Evaluation hands on the single channel z of a network as the pair (0, z).
    if channels not in (num_classes, {1: 2, 2: 1}.get(num_classes, num_classes)):
        raise ConfigError(
            f"{channels} logits per pixel for {num_classes} classes: the model must give one per "
            "class. Set num_classes of the model to that of the data."
        )
    if target.dim() == logits.dim():
        target = class_ids(target)
    if num_classes == 1:
        return target, torch.zeros_like(logits[:, 0], dtype=torch.bool)
    if channels == 1:
        return target, logits[:, 0] > 0
    if channels == 2:
        return target, logits[:, 1] > logits[:, 0]
    return target, logits.max(dim=1).indices  # on a CPU several times as fast as argmax


def confusion_counts(logits: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return the number of pixels (or samples) of each true class (row) that were predicted as each class (column).

    Labels outside 0..K-1 are in no row. No wait for the device on CUDA, and the same counts in every run. The arguments
    are those of `truth_and_prediction`.

    Returns:
        (K, K) int64 on the device of the logits.

    Raises:
        ConfigError: The logits are of another number of classes.
    """
    truth, predicted = truth_and_prediction(logits, target, num_classes)
    # A row before those of the classes and one after them take the labels that are out of range: cheaper than masking.
    bins = (num_classes + 2) * num_classes
    # A copy for any type: the target is the caller's. No smaller type, in which a label of 65536 would be 0.
    rows = truth.to(torch.int32, copy=True).clamp_(-1, num_classes).add_(1)
    codes = rows.mul_(num_classes).add_(predicted.to(torch.int32))
    return count_codes(codes, bins).view(num_classes + 2, num_classes)[1:-1]


def count_codes(codes: Tensor, bins: int) -> Tensor:
    """Return how often each of 0..bins-1 is in `codes`, integers of any type and shape: (bins,) int64."""
    flat = codes.flatten()
    return torch.bincount(flat, minlength=bins) if flat.device.type == "cpu" else count_without_wait(flat, bins)


def count_without_wait(codes: Tensor, bins: int) -> Tensor:
    """Return the result of `torch.bincount` without its wait for the largest code, which would stall a GPU.

    Args:
        codes: (N,) integers in 0..bins-1.
        bins: Their number.

    Returns:
        (bins,) int64.
    """
    # Neighbours mostly have the same code: with several copies they do not queue at one counter.
    copies = max(1, min(COUNTER_COPIES, MAX_COUNTERS // bins))
    copy = torch.arange(codes.numel(), dtype=torch.int32, device=codes.device) % copies
    counts = torch.zeros(copies * bins, dtype=torch.int64, device=codes.device)
    counts.index_add_(0, copy * bins + codes.int(), torch.ones_like(codes, dtype=torch.int64))
    return counts.view(copies, bins).sum(dim=0)


def class_measures(matrix: Tensor, ignore_index: int | None = None) -> dict[str, Tensor]:
    """Return measures of each class, (K,) float64 on the processor, from a confusion matrix.

    Args:
        matrix: (K, K) counts, rows are the truth, without those of ignored labels.
        ignore_index: The label that was not counted. If it is a class, it has no measures, although other classes may
            have been taken for it.

    Returns:
        `iou` (intersection over union), `f1` (which is the Dice coefficient), `precision` (correct fraction of the
        pixels predicted as the class), `recall` (fraction of its pixels that were found) and `accuracy` (the same).
        NaN for a class in neither truth nor prediction and for the ignored one; `accuracy` also for one absent from the
        truth, whose `recall` is 0; `precision` is 0 for a class that was never predicted.
    """
    matrix = matrix.to("cpu", torch.float64)
    hits, truth, predicted = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
    is_present = truth + predicted > 0
    measures = {
        "iou": hits / (truth + predicted - hits),
        "f1": 2 * hits / (truth + predicted),
        "precision": (hits / predicted.clamp(min=1)).where(is_present, torch.nan),
        "recall": (hits / truth.clamp(min=1)).where(is_present, torch.nan),
        "accuracy": hits / truth,
    }
    ignored = ignored_class(ignore_index, len(matrix))
    if ignored is not None:
        for values in measures.values():
            values[ignored] = torch.nan
    return measures


def ignored_class(ignore_index: int | None, num_classes: int) -> int | None:
    """Return the class whose label is ignored, None if the ignored label is no class."""
    return ignore_index if ignore_index is not None and 0 <= ignore_index < num_classes else None


class ClassMetric(Metric):
    """A metric of K classes whose counts are one int64 tensor.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count. If it is a class, this class is in no result. Other labels
            outside 0..K-1 do not count either.
        shape: Of the counts.
        key: Kind of counts, and the arguments on which they depend; metrics with equal ones share their counts.

    Attributes:
        ignored_class: `ignore_index` if it is a class, else None.
    """

    def __init__(self, num_classes: int, ignore_index: int | None, shape: Sequence[int], *key: Hashable) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.ignored_class = ignored_class(ignore_index, num_classes)
        self.key = (*key, num_classes, ignore_index)
        self.counts = torch.zeros(tuple(shape), dtype=torch.int64)

    def reset(self) -> None:
        """Set the counts to zero."""
        self.counts = torch.zeros_like(self.counts)

    def counts_key(self) -> Hashable:
        """Return the key by which metrics share their counts."""
        return self.key

    def reason_for_nan(self, name: str) -> str:
        """Return why `compute` gives NaN under a name."""
        if not self.counts.any():
            return super().reason_for_nan(name)
        return "no class that it covers is in the truth or in the prediction"

    def checked_labels(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the true and the predicted classes of a batch, (B, ...) int64, and which count, (B, ...) bool.

        Raises:
            ConfigError: The logits are of another number of classes.
        """
        truth, predicted = truth_and_prediction(logits, target, self.num_classes)
        labels = truth.to(torch.int64)  # a smaller type could not hold K
        counted = (labels >= 0) & (labels < self.num_classes)
        return (
            labels,
            predicted.to(torch.int64),
            counted if self.ignore_index is None else counted & (labels != self.ignore_index),
        )


class ConfusionMatrix(ClassMetric):
    """The matrix itself, in `counts`: (K, K) int64, rows the truth, columns the prediction.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count. Other labels outside 0..K-1 do not count either.
        exclude_background: Leave class 0 out of the results; the matrix holds it.
    """

    def __init__(
        self, num_classes: Count, ignore_index: int | None = None, *, exclude_background: bool = False
    ) -> None:
        super().__init__(num_classes, ignore_index, (num_classes, num_classes), "confusion")
        self.first_class = int(exclude_background)

    @torch.no_grad()
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            logits: (B, K, ...) float, or (B, 1, ...) of a binary network: class 1 is above 0.
            target: (B, ...) int64, or (B, K, ...) float probabilities, of which the largest counts.

        Raises:
            ConfigError: The logits are of another number of classes.
        """
        batch = confusion_counts(logits, target, self.num_classes)
        if self.ignored_class is not None:
            batch[self.ignored_class] = 0
        self.counts = self.counts.to(batch.device) + batch

    def compute(self) -> dict[str, float]:
        """Return nothing: the matrix is read from `counts`."""
        return {}


class ClassMean(ConfusionMatrix):
    """One measure under `name`: the mean over the classes whose value is not NaN, the ignored one left out.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count. If it is a class, pixels of others that were taken for it are
            errors of their classes, but it has no part in the mean.
        exclude_background: Leave class 0 out.
    """

    name: ClassVar[str]
    measure: ClassVar[str]  # a key of `class_measures`

    def compute(self) -> dict[str, float]:
        """Return the mean, NaN if nothing was counted."""
        values = class_measures(self.counts, self.ignore_index)[self.measure]
        return {self.name: float(values[self.first_class :].nanmean())}


class MeanIoU(ClassMean):
    """`miou`: intersection over union, mean over the classes that are in the truth or the prediction."""

    name = "miou"
    measure = "iou"


class MeanIoUWithoutBackground(ConfusionMatrix):
    """`miou_without_background`: intersection over union, mean over the classes without the background.

    Background that was taken for another class is an error of that class.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count. If it is a class, it has no part in the mean.
        background: The class that is left out; null if the data ignores its background, so that no class is left out.

    Raises:
        ConfigError: There is no such class.
    """

    def __init__(
        self,
        num_classes: Count,
        ignore_index: int | None = None,
        *,
        background: Annotated[
            int | None, Field(ge=0, description="Class that is left out; `null`: the background is ignored.")
        ] = 0,
    ) -> None:
        super().__init__(num_classes, ignore_index)
        if background is not None and background >= num_classes:
            raise ConfigError(
                f"Wrong background {background}: classes are 0 to {num_classes - 1}. Name one of them, or null if the "
                "background is ignored."
            )
        self.background = background

    def compute(self) -> dict[str, float]:
        """Return the mean, NaN if nothing was counted."""
        values = class_measures(self.counts, self.ignore_index)["iou"]
        if self.background is not None:
            values[self.background] = torch.nan
        return {"miou_without_background": float(values.nanmean())}


class Dice(ClassMean):
    """`dice`: Dice coefficient, mean over the classes that are in the truth or the prediction."""

    name = "dice"
    measure = "f1"


class F1(Dice):
    """`f1`: of precision and recall per class; of pixels it is the Dice coefficient."""

    name = "f1"


class MacroF1(Dice):
    """`macro_f1`: as `f1`, under its name in classification."""

    name = "macro_f1"


class Precision(ClassMean):
    """`precision`: mean over the classes that are in the truth or the prediction."""

    name = "precision"
    measure = "precision"


class Recall(ClassMean):
    """`recall`: mean over the classes that are in the truth or the prediction."""

    name = "recall"
    measure = "recall"


class MeanAccuracy(ClassMean):
    """`mean_accuracy`: fraction of a class's pixels that were found, mean over the classes that are in the truth."""

    name = "mean_accuracy"
    measure = "accuracy"


class BalancedAccuracy(MeanAccuracy):
    """`balanced_accuracy`: as `mean_accuracy`, under its name in classification."""

    name = "balanced_accuracy"


class FrequencyWeightedIoU(ConfusionMatrix):
    """`fw_iou`: intersection over union, mean over the classes weighted by their frequency in the truth."""

    def compute(self) -> dict[str, float]:
        """Return the mean."""
        matrix = self.counts.to("cpu", torch.float64)
        hits, truth = matrix.diagonal(), matrix.sum(dim=1)
        weighted = truth * hits / (truth + matrix.sum(dim=0) - hits).clamp(min=1)
        return {"fw_iou": float(weighted[self.first_class :].sum() / truth[self.first_class :].sum())}


class Accuracy(ConfusionMatrix):
    """`accuracy`: fraction of the pixels that got their class, those of an excluded background left out."""

    def compute(self) -> dict[str, float]:
        """Return the fraction."""
        matrix = self.counts[self.first_class :].to("cpu", torch.float64)
        return {"accuracy": float(matrix.diagonal(self.first_class).sum() / matrix.sum())}


class ClassIoU(ConfusionMatrix):
    """`iou_<class>`: intersection over union of each class that is not ignored.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count. If it is a class, no result has its name.
        class_names: A name per class; the numbers 0..K-1 if not given.
        exclude_background: Leave class 0 out.

    Raises:
        ConfigError: Not as many different names as classes.
    """

    def __init__(
        self,
        num_classes: Count,
        ignore_index: int | None = None,
        *,
        class_names: Sequence[str] | None = None,
        exclude_background: bool = False,
    ) -> None:
        super().__init__(num_classes, ignore_index, exclude_background=exclude_background)
        self.class_names = [str(index) for index in range(num_classes)] if class_names is None else list(class_names)
        if len(self.class_names) != num_classes or len(set(self.class_names)) != num_classes:
            raise ConfigError(
                f"{len(self.class_names)} class names {self.class_names} for {num_classes} classes: each needs one of "
                "its own. Correct class_names or num_classes."
            )

    def reason_for_nan(self, name: str) -> str:
        """Return why the value of a class is NaN."""
        if not self.counts.any():
            return super().reason_for_nan(name)
        return f'class "{name.removeprefix("iou_")}" is in neither the truth nor the prediction'

    def compute(self) -> dict[str, float]:
        """Return `iou_<class>` of each class, NaN for one that is in neither truth nor prediction."""
        values = class_measures(self.counts)["iou"].tolist()
        named = list(enumerate(zip(self.class_names, values, strict=True)))[self.first_class :]
        return {f"iou_{name}": value for index, (name, value) in named if index != self.ignored_class}
