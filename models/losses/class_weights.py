"""One weight per class, from how often each class is to be seen in the training data."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from utils.errors import ConfigError

ClassWeight = Annotated[float, Field(ge=0.0)]
Rule = Literal["balanced", "log", "bounded"]
Weights = list[ClassWeight] | Rule | None
Ratio = Annotated[float, Field(gt=1.0)]
LOG_OFFSET = 1.02  # arXiv:1606.02147: keeps the weights below 1 / ln(1.02), about 50
DEFAULT_RATIO = 10.0


def class_weights(
    weight: Weights,
    class_counts: Sequence[int] | None = None,
    *,
    num_classes: int | None = None,
    max_ratio: float = DEFAULT_RATIO,
) -> list[float] | None:
    """The weights that are meant: a list as it is, or by a rule from the share f of each of the C classes.

    `balanced` is 1 / (C f): every class has the same say, and the mean weight of a pixel is 1. `log` is
    1 / ln(1.02 + f), from 1.4 to 50. `bounded` is 1 / f, made to sum to 1, after as much was added to every f as brings
    the largest to at most `max_ratio` times the smallest.

    Args:
        weight: Numbers, a rule, or None for no weights.
        class_counts: Pixels (or samples) of each class that count in the training data; what a rule needs.
        num_classes: C, to check the others against.
        max_ratio: For `bounded`.

    Raises:
        ConfigError: Not one number per class, or a rule without the counts that it needs.
    """
    if weight is None:
        return None
    if not isinstance(weight, str):
        _require_one_each(len(weight), "class weights", list(weight), num_classes)
        return [float(each) for each in weight]
    if class_counts is None:
        raise ConfigError(
            f'weight "{weight}" follows from the classes of the training data, which are not known here. Train with a '
            'loader that counts them, or write the counts, "class_counts": [...], or the weights themselves.'
        )
    _require_one_each(len(class_counts), "class counts", list(class_counts), num_classes)
    if not sum(class_counts):
        raise ConfigError(f'weight "{weight}": no pixel of the training data has a label that counts. Label some.')
    shares = [count / sum(class_counts) for count in class_counts]
    if weight == "log":
        return [1 / math.log(LOG_OFFSET + share) for share in shares]
    if weight == "bounded":
        return _bounded(shares, max_ratio)
    absent = [number for number, count in enumerate(class_counts) if not count]
    if absent:
        raise ConfigError(
            f'weight "balanced": the training data shows nothing of class {", ".join(map(str, absent))}, whose weight '
            'would be infinite. Use "log" or "bounded", or add samples that show it.'
        )
    return [1 / (len(shares) * share) for share in shares]


def _bounded(shares: Sequence[float], max_ratio: float) -> list[float]:
    """With c = (r f_min - f_max) / (1 - r) on top of each, the largest share is r times the smallest."""
    added = max(0.0, (max_ratio * min(shares) - max(shares)) / (1 - max_ratio))
    smoothed = [(share + added) / (1 + added * len(shares)) for share in shares]
    inverse = [1 / share for share in smoothed]
    return [each / sum(inverse) for each in inverse]


def _require_one_each(count: int, what: str, values: Sequence[float], num_classes: int | None) -> None:
    if num_classes not in (None, count):
        raise ConfigError(
            f"{count} {what} {values} for {num_classes} classes: each class needs one. "
            f"Correct {'weight' if what.endswith('weights') else 'class_counts'} or num_classes."
        )
