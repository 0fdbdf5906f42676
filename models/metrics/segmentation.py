"""Metrics from one confusion matrix over the data set, of pixels or, in classification, of samples.

Every result is NaN if nothing was counted.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from models.layers.blocks import Count
from models.metrics.confusion import ClassMetric, class_measures, confusion_counts, require_logits_of
from utils.errors import ConfigError


class ConfusionMatrix(ClassMetric):
    """The matrix itself, in `counts`: (K, K) int64, rows the truth, columns the prediction.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count. Other labels outside 0..K-1 do not count either.
    """

    def __init__(self, num_classes: Count, ignore_index: int | None = None) -> None:
        super().__init__(num_classes, ignore_index, (num_classes, num_classes), "confusion")

    @torch.no_grad()
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            logits: (B, K, ...) float, or (B, 1, ...) of a binary network: class 1 is above 0.
            target: (B, ...) int64, or (B, K, ...) float probabilities, of which the largest counts.

        Raises:
            ConfigError: The logits are of another number of classes.
        """
        require_logits_of(logits, self.num_classes)
        batch = confusion_counts(logits, target, self.num_classes)
        if self.ignore_index is not None and 0 <= self.ignore_index < self.num_classes:
            batch[self.ignore_index] = 0
        self.counts = self.counts.to(batch.device) + batch

    def compute(self) -> dict[str, float]:
        """Return nothing: the matrix is read from `counts`."""
        return {}


class NamedMetric(ConfusionMatrix):
    """One number of the matrix, under `name`.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count.
        exclude_background: Leave class 0 out.
    """

    name: ClassVar[str]

    def __init__(
        self, num_classes: Count, ignore_index: int | None = None, *, exclude_background: bool = False
    ) -> None:
        super().__init__(num_classes, ignore_index)
        self.first_class = int(exclude_background)

    def compute(self) -> dict[str, float]:
        """Return the one number, NaN if nothing was counted."""
        return {self.name: self.value()}

    @abstractmethod
    def value(self) -> float:
        """Return the number."""


class ClassMean(NamedMetric):
    """Mean over the classes whose value is not NaN."""

    measure: ClassVar[str]  # a key of `class_measures`

    def value(self) -> float:
        """Return the mean."""
        return float(class_measures(self.counts)[self.measure][self.first_class :].nanmean())


class MeanIoU(ClassMean):
    """`miou`: intersection over union, mean over the classes that are in the truth or the prediction."""

    name = "miou"
    measure = "iou"


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


class FrequencyWeightedIoU(NamedMetric):
    """`fw_iou`: intersection over union, mean over the classes weighted by their frequency in the truth."""

    name = "fw_iou"

    def value(self) -> float:
        """Return the mean."""
        matrix = self.counts.to("cpu", torch.float64)
        hits, truth = matrix.diagonal(), matrix.sum(dim=1)
        weighted = truth * hits / (truth + matrix.sum(dim=0) - hits).clamp(min=1)
        return float(weighted[self.first_class :].sum() / truth[self.first_class :].sum())


class Accuracy(NamedMetric):
    """`accuracy`: fraction of the pixels that got their class, those of an excluded background left out."""

    name = "accuracy"

    def value(self) -> float:
        """Return the fraction."""
        matrix = self.counts[self.first_class :].to("cpu", torch.float64)
        return float(matrix.diagonal(self.first_class).sum() / matrix.sum())


class ClassIoU(ConfusionMatrix):
    """`iou_<class>`: intersection over union of each class.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count.
        class_names: A name per class; the numbers 0..K-1 if not given.
        exclude_background: Leave class 0 out.

    Raises:
        ConfigError: Not as many names as classes.
    """

    def __init__(
        self,
        num_classes: Count,
        ignore_index: int | None = None,
        *,
        class_names: Sequence[str] | None = None,
        exclude_background: bool = False,
    ) -> None:
        super().__init__(num_classes, ignore_index)
        self.class_names = [str(index) for index in range(num_classes)] if class_names is None else list(class_names)
        self.first_class = int(exclude_background)
        if len(self.class_names) != num_classes:
            raise ConfigError(
                f"{len(self.class_names)} class names {self.class_names} for {num_classes} classes: each needs one. "
                "Correct class_names or num_classes."
            )

    def compute(self) -> dict[str, float]:
        """Return `iou_<class>` of each class, NaN for one that is in neither truth nor prediction."""
        values = class_measures(self.counts)["iou"].tolist()
        named = list(zip(self.class_names, values, strict=True))
        return {f"iou_{name}": value for name, value in named[self.first_class :]}
