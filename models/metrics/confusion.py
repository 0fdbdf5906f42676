"""Counting of classes: the base of all metrics here, confusion matrices, and the measures of one.

Rows of a matrix are the truth, columns the prediction; K classes.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from base.base_metric import Metric
from utils.errors import ConfigError

LARGEST_INT16 = 32767
COUNTER_COPIES = 64


class ClassMetric(Metric):
    """A metric of K classes whose counts are one int64 tensor.

    Args:
        num_classes: K.
        ignore_index: Label of pixels that do not count. Other labels outside 0..K-1 do not count either.
        shape: Of the counts.
        key: Kind of counts, and the arguments on which they depend; metrics with equal ones share their counts.
    """

    def __init__(self, num_classes: int, ignore_index: int | None, shape: Sequence[int], *key: Hashable) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.key = (*key, num_classes, ignore_index)
        self.counts = torch.zeros(tuple(shape), dtype=torch.int64)

    def reset(self) -> None:
        """Set the counts to zero."""
        self.counts = torch.zeros_like(self.counts)

    def counts_key(self) -> Hashable:
        """Return the key by which metrics share their counts."""
        return self.key

    def checked_labels(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the labels of a batch, (B, ...) int64, and which of them count, (B, ...) bool.

        Raises:
            ConfigError: The logits are of another number of classes.
        """
        require_logits_of(logits, self.num_classes)
        labels = hard_target(logits, target)
        counted = (labels >= 0) & (labels < self.num_classes)
        return labels, counted if self.ignore_index is None else counted & (labels != self.ignore_index)


def confusion_counts(logits: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return the number of pixels (or samples) of each true class (row) that were predicted as each class (column).

    Labels outside 0..K-1 are in no row. No wait for the device on CUDA, and the same counts in every run.

    Args:
        logits: (B, K, ...) float; the largest counts, among equals the first. With one channel, class 1 is above 0.
        target: (B, ...) int64, or (B, K, ...) float probabilities, of which the largest counts.
        num_classes: K, 2 for one channel.

    Returns:
        (K, K) int64 on the device of the logits.
    """
    # A row before those of the classes and one after them take the labels that are out of range: cheaper than masking.
    bins = (num_classes + 2) * num_classes
    small = torch.int16 if bins <= LARGEST_INT16 else torch.int64
    rows = hard_target(logits, target).to(small, copy=True).clamp_(-1, num_classes).add_(1)
    codes = rows.mul_(num_classes).add_(predicted_classes(logits).to(small))
    return count_codes(codes, bins).view(num_classes + 2, num_classes)[1:-1]


def hard_target(logits: Tensor, target: Tensor) -> Tensor:
    """Return the class ids (B, ...) of a target: itself, or of (B, K, ...) the most probable; -1 if all are 0."""
    if not target.is_floating_point() or target.shape != logits.shape:
        return target
    probability, ids = target.max(dim=1)
    return ids.where(probability > 0, -1)


def predicted_classes(logits: Tensor) -> Tensor:
    """Return the index of the largest of (B, K, ...) logits, or whether the only one is above 0: (B, ...)."""
    if logits.shape[1] == 1:
        return logits[:, 0] > 0
    if logits.shape[1] == 2:
        return logits[:, 1] > logits[:, 0]
    return logits.max(dim=1).indices  # on a CPU several times as fast as argmax


def require_logits_of(logits: Tensor, num_classes: int) -> None:
    """Refuse logits that are neither one per class nor the one channel of a binary network.

    Raises:
        ConfigError: They are of another number of classes.
    """
    if logits.shape[1] not in (num_classes, 1 if num_classes == 2 else num_classes):
        raise ConfigError(
            f"{logits.shape[1]} logits per pixel for {num_classes} classes: the model must give one per "
            "class. Set num_classes of the model to that of the data."
        )


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
    copy = torch.arange(codes.numel(), dtype=torch.int32, device=codes.device) % COUNTER_COPIES
    counts = torch.zeros(COUNTER_COPIES * bins, dtype=torch.int64, device=codes.device)
    counts.index_add_(0, copy * bins + codes.int(), torch.ones_like(codes, dtype=torch.int64))
    return counts.view(COUNTER_COPIES, bins).sum(dim=0)


def class_measures(matrix: Tensor) -> dict[str, Tensor]:
    """Return measures of each class, (K,) float64 on the processor, from a confusion matrix.

    Returns:
        `iou` (intersection over union), `f1` (which is the Dice coefficient), `precision` (correct fraction of the
        pixels predicted as the class), `recall` (fraction of its pixels that were found) and `accuracy` (the same).
        NaN for a class in neither truth nor prediction; `accuracy` also for one absent from the truth, whose `recall`
        is 0; `precision` is 0 for a class that was never predicted.
    """
    matrix = matrix.to("cpu", torch.float64)
    hits, truth, predicted = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
    is_present = truth + predicted > 0
    return {
        "iou": hits / (truth + predicted - hits),
        "f1": 2 * hits / (truth + predicted),
        "precision": (hits / predicted.clamp(min=1)).where(is_present, torch.nan),
        "recall": (hits / truth.clamp(min=1)).where(is_present, torch.nan),
        "accuracy": hits / truth,
    }
