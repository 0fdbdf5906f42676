"""Weights of classes: given as numbers, or by a rule from the number of labels of each class."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from utils.errors import ConfigError, NotLearned

ClassWeight = Annotated[float, Field(ge=0.0)]
Rule = Literal["balanced", "log", "bounded"]
DEFAULT_RATIO = 10.0

_LOG_OFFSET = 1.02  # arXiv:1606.02147: limits the weights to 1 / ln(1.02), about 50


def class_weights(
    weight: list[ClassWeight] | Rule,
    class_counts: Sequence[int] | None = None,
    *,
    num_classes: int | None = None,
    ignore_index: int | None = None,
    max_ratio: float = DEFAULT_RATIO,
) -> list[float]:
    """Return the weight of each class: a list as it is, or by a rule from the fraction f of each of the C classes.

    `balanced` is 1 / (C f): every class has the same influence, and the mean weight of a pixel is 1. `log` is
    1 / ln(1.02 + f), from 1.4 to 50. `bounded` is 1 / f, made to sum to 1, after the same number was added to every f,
    such that the largest is at most `max_ratio` times the smallest. A class that is ignored is none of the C classes:
    a rule gives it the weight 0.

    Args:
        weight: Numbers, or a rule.
        class_counts: Pixels (or samples) of each class that count in the training data; a rule needs them.
        num_classes: C, to check the others against.
        ignore_index: Label that does not count; it may be that of a class.
        max_ratio: For `bounded`.

    Raises:
        ConfigError: Not one number per class, or a rule without the counts that it needs.
    """
    given = class_counts if isinstance(weight, str) else weight
    if given is None:
        raise NotLearned(
            f'weight "{weight}" follows from the classes of the training data, which are not known here. Train with a '
            'loader that counts them, or write the counts, "class_counts": [...], or the weights themselves.'
        )
    if num_classes not in (None, len(given)):
        described, argument = ("counts", "class_counts") if isinstance(weight, str) else ("weights", "weight")
        raise ConfigError(
            f"{len(given)} class {described} {list(given)} for {num_classes} classes: each class needs one. "
            f"Correct {argument} or num_classes."
        )
    if not isinstance(weight, str):
        return [float(each) for each in weight]
    numbers = [number for number in range(len(given)) if number != ignore_index]
    counts = [given[number] for number in numbers]
    if not sum(counts):
        raise ConfigError(f'weight "{weight}": no pixel of the training data has a label that counts. Label some.')
    absent = [str(number) for number in numbers if not given[number]]
    if weight == "balanced" and absent:
        raise ConfigError(
            f'weight "balanced": the training data shows nothing of class {", ".join(absent)}, whose weight '
            'would be infinite. Use "log" or "bounded", or add samples that show it.'
        )
    weights = [0.0] * len(given)
    for number, each in zip(numbers, _by_rule(weight, counts, max_ratio), strict=True):
        weights[number] = each
    return weights


def _by_rule(rule: Rule, counts: Sequence[float], max_ratio: float) -> list[float]:
    """Return the weights of the classes that are not ignored."""
    fractions = [count / sum(counts) for count in counts]
    if rule == "log":
        return [1 / math.log(_LOG_OFFSET + fraction) for fraction in fractions]
    if rule == "balanced":
        return [1 / (len(fractions) * fraction) for fraction in fractions]
    # With c = (r f_min - f_max) / (1 - r) added to each, the largest fraction is r times the smallest.
    added = max(0.0, (max_ratio * min(fractions) - max(fractions)) / (1 - max_ratio))
    inverse = [1 / ((fraction + added) / (1 + added * len(fractions))) for fraction in fractions]
    return [each / sum(inverse) for each in inverse]
