"""Metrics from one confusion matrix over the data set, of pixels or, in classification, of samples.

Every result is NaN where nothing was counted.
"""

from abc import abstractmethod
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from base.base_metric import Metric
from models.layers.blocks import Count
from models.metrics.confusion import (
    accuracy_per_class,
    confusion_counts,
    dice_per_class,
    frequency_weighted_iou,
    iou_per_class,
    overall_accuracy,
    precision_per_class,
    recall_per_class,
    require_logits_of,
)
from utils.errors import ConfigError


class ConfusionMatrix(Metric):
    """The matrix itself, in `counts`: (K, K) int64, rows the truth, columns the prediction.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count. Other labels outside 0..K-1 do not count either.
    """

    def __init__(self, num_classes: Count, ignore_index: int | None = None) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def reset(self) -> None:
        """Set the counts to zero."""
        self.counts = torch.zeros_like(self.counts)

    @torch.no_grad()
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add one batch.

        Args:
            logits: (B, K, ...) float, or (B, 1, ...) of a binary network: class 1 is above 0.
            target: (B, ...) int64, or (B, K, ...) float shares, of which the largest counts.

        Raises:
            ConfigError: The logits are of another number of classes.
        """
        require_logits_of(logits, self.num_classes)
        batch = confusion_counts(logits, target, self.num_classes)
        if self.ignore_index is not None and 0 <= self.ignore_index < self.num_classes:
            batch[self.ignore_index] = 0
        self.counts = self.counts.to(batch.device) + batch

    def compute(self) -> dict[str, float]:
        """Nothing: the matrix is read from `counts`."""
        return {}

    def counts_key(self) -> Hashable:
        """All metrics here with the same classes and ignored label share one matrix."""
        return ("confusion", self.num_classes, self.ignore_index)


class _Named(ConfusionMatrix):
    """One number, under `name`.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count.
        exclude_background: Leave class 0 out.
    """

    name: str

    def __init__(
        self, num_classes: Count, ignore_index: int | None = None, *, exclude_background: bool = False
    ) -> None:
        super().__init__(num_classes, ignore_index)
        self.first_class = int(exclude_background)

    def compute(self) -> dict[str, float]:
        """The one number, NaN where nothing was counted."""
        return {self.name: self.value()}

    @abstractmethod
    def value(self) -> float:
        """The number."""


class _ClassMean(_Named):
    """Mean over the classes whose value is not NaN."""

    def value(self) -> float:
        """The mean."""
        return float(self.per_class()[self.first_class :].nanmean())

    @abstractmethod
    def per_class(self) -> Tensor:
        """The value of each class, (K,) float64."""


class MeanIoU(_ClassMean):
    """`miou`: intersection over union, mean over the classes that are in the truth or the prediction."""

    name = "miou"

    def per_class(self) -> Tensor:
        """Intersection over union."""
        return iou_per_class(self.counts)


class Dice(_ClassMean):
    """`dice`: Dice coefficient, mean over the classes that are in the truth or the prediction."""

    name = "dice"

    def per_class(self) -> Tensor:
        """Dice coefficient."""
        return dice_per_class(self.counts)


class F1(Dice):
    """`f1`: of precision and recall per class; of pixels it is the Dice coefficient."""

    name = "f1"


class MacroF1(Dice):
    """`macro_f1`: as `f1`, under its name in classification."""

    name = "macro_f1"


class Precision(_ClassMean):
    """`precision`: mean over the classes that are in the truth or the prediction."""

    name = "precision"

    def per_class(self) -> Tensor:
        """Precision."""
        return precision_per_class(self.counts)


class Recall(_ClassMean):
    """`recall`: mean over the classes that are in the truth or the prediction."""

    name = "recall"

    def per_class(self) -> Tensor:
        """Recall."""
        return recall_per_class(self.counts)


class MeanAccuracy(_ClassMean):
    """`mean_accuracy`: share of a class's pixels that were found, mean over the classes that are in the truth."""

    name = "mean_accuracy"

    def per_class(self) -> Tensor:
        """Accuracy."""
        return accuracy_per_class(self.counts)


class BalancedAccuracy(MeanAccuracy):
    """`balanced_accuracy`: as `mean_accuracy`, under its name in classification."""

    name = "balanced_accuracy"


class FrequencyWeightedIoU(_Named):
    """`fw_iou`: intersection over union, mean over the classes by their share of the truth."""

    name = "fw_iou"

    def value(self) -> float:
        """The mean."""
        return frequency_weighted_iou(self.counts, self.first_class)


class Accuracy(_Named):
    """`accuracy`: share of the pixels that got their class; without those of the background where it is excluded."""

    name = "accuracy"

    def value(self) -> float:
        """The share."""
        return overall_accuracy(self.counts, self.first_class)


class ClassIoU(ConfusionMatrix):
    """`iou_<class>`: intersection over union of each class.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count.
        class_names: A name per class; the numbers 0..K-1 where not given.
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
        """`iou_<class>` of each class, NaN for one that is in neither truth nor prediction."""
        values = iou_per_class(self.counts).tolist()
        named = zip(self.class_names, values, strict=True)
        return {f"iou_{name}": value for name, value in list(named)[self.first_class :]}
