"""Counting a confusion matrix, and what follows from one. Rows are the truth, columns the prediction; K classes."""

import torch
from torch import Tensor

from utils.errors import ConfigError

LARGEST_INT16 = 32767
COUNTER_COPIES = 64


def confusion_counts(logits: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Pixels (or samples) of each true class (row) that were given to each class (column).

    Labels outside 0..K-1 are in no row. No wait for the device on CUDA, and the same counts in every run.

    Args:
        logits: (B, K, ...) float; the largest counts, among equals the first. With one channel, class 1 is above 0.
        target: (B, ...) int64, or (B, K, ...) float shares, of which the largest counts.
        num_classes: K, 2 for one channel.

    Returns:
        (K, K) int64 on the device of the logits.
    """
    # A row before the classes' and one behind them take the labels that are out of range: cheaper than masking.
    bins = (num_classes + 2) * num_classes
    small = torch.int16 if bins <= LARGEST_INT16 else torch.int64
    codes = (
        hard_target(logits, target)
        .to(small)
        .clamp_(-1, num_classes)
        .add_(1)
        .mul_(num_classes)
        .add_(predictions(logits).to(small))
    )
    return count_codes(codes, bins).view(num_classes + 2, num_classes)[1:-1]


def hard_target(logits: Tensor, target: Tensor) -> Tensor:
    """The class ids (B, ...) of a target: itself, or of shares (B, K, ...) the largest; -1 where all are 0."""
    if not target.is_floating_point() or target.shape != logits.shape:
        return target
    share, ids = target.max(dim=1)
    return ids.where(share > 0, -1)


def count_codes(codes: Tensor, bins: int) -> Tensor:
    """How often each of 0..bins-1 is in `codes`, any integers of any shape: (bins,) int64."""
    flat = codes.flatten()
    return torch.bincount(flat, minlength=bins) if flat.device.type == "cpu" else count_without_wait(flat, bins)


def require_logits_of(logits: Tensor, num_classes: int) -> None:
    """Refuse logits that are not one per class, nor the one channel of a binary network.

    Raises:
        ConfigError: They are of another number of classes.
    """
    if logits.shape[1] not in (num_classes, 1 if num_classes == 2 else num_classes):
        raise ConfigError(
            f"{logits.shape[1]} logits per pixel for {num_classes} classes: the model must give one per "
            "class. Set num_classes of the model to that of the data."
        )


def count_without_wait(codes: Tensor, bins: int) -> Tensor:
    """What `torch.bincount` gives, without its wait for the largest code, which would stall a GPU.

    Args:
        codes: (N,) any integers in 0..bins-1.
        bins: Their number.

    Returns:
        (bins,) int64.
    """
    # Neighbours mostly have the same code: several copies keep them from queueing at one counter.
    copy = torch.arange(codes.numel(), dtype=torch.int32, device=codes.device) % COUNTER_COPIES
    counts = torch.zeros(COUNTER_COPIES * bins, dtype=torch.int64, device=codes.device)
    counts.index_add_(0, copy * bins + codes.int(), torch.ones_like(codes, dtype=torch.int64))
    return counts.view(COUNTER_COPIES, bins).sum(dim=0)


def iou_per_class(matrix: Tensor) -> Tensor:
    """Intersection over union of each class, (K,) float64; NaN for a class absent from truth and prediction."""
    hits, truth, predicted = _sums(matrix)
    return hits / (truth + predicted - hits)


def dice_per_class(matrix: Tensor) -> Tensor:
    """Dice coefficient, which is F1, of each class, (K,) float64; NaN for a class absent from truth and prediction."""
    hits, truth, predicted = _sums(matrix)
    return 2 * hits / (truth + predicted)


def precision_per_class(matrix: Tensor) -> Tensor:
    """Share of the pixels given to a class that are of it, (K,) float64.

    0 for a class that is there and was never predicted, NaN for one absent from truth and prediction.
    """
    hits, truth, predicted = _sums(matrix)
    return (hits / predicted.clamp(min=1)).where(truth + predicted > 0, torch.nan)


def recall_per_class(matrix: Tensor) -> Tensor:
    """Share of a class's pixels that were found, (K,) float64.

    0 for a class that was predicted and is not there, NaN for one absent from truth and prediction.
    """
    hits, truth, predicted = _sums(matrix)
    return (hits / truth.clamp(min=1)).where(truth + predicted > 0, torch.nan)


def accuracy_per_class(matrix: Tensor) -> Tensor:
    """Share of a class's pixels that were found, (K,) float64; NaN for a class absent from the truth."""
    hits, truth, _ = _sums(matrix)
    return hits / truth


def frequency_weighted_iou(matrix: Tensor, first_class: int = 0) -> float:
    """Mean intersection over union of the classes from `first_class` on, each by its share of their true pixels."""
    hits, truth, predicted = _sums(matrix)
    weighted = truth * hits / (truth + predicted - hits).clamp(min=1)
    return float(weighted[first_class:].sum() / truth[first_class:].sum())


def overall_accuracy(matrix: Tensor, first_class: int = 0) -> float:
    """Share of the pixels of the classes from `first_class` on whose class was found; NaN where there are none."""
    hits, truth, _ = _sums(matrix)
    return float(hits[first_class:].sum() / truth[first_class:].sum())


def predictions(logits: Tensor) -> Tensor:
    """(B, K, ...) -> (B, ...), the index of the largest, or whether the only one is above 0."""
    if logits.shape[1] == 1:
        return logits[:, 0] > 0
    if logits.shape[1] == 2:
        return logits[:, 1] > logits[:, 0]
    return logits.max(dim=1).indices  # on a CPU several times as fast as argmax


def _sums(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Correct pixels, true pixels and predicted pixels per class, each (K,) float64."""
    matrix = matrix.to("cpu", torch.float64)
    return matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
