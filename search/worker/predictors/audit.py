"""How the predictions of a generation compare with its trainings, next to the trivial predictors.

Dimensions: N cells of the generation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.worker.predictors.ensemble import OPERATIONS, PARENTS, rank_correlation

Array = NDArray[np.float64]
FEWEST_AUDITED = 5  # cells from which on a rank correlation decides
_NORMAL_80 = 1.2816  # standard deviations on each side that hold 80 %
_WIDENING = (1.0, 3.0)  # bounds of the factor of the next deviations


@dataclass(frozen=True)
class Audit:
    """The predictions of a generation, compared with the results of its trainings.

    Attributes:
        details: Plain data for the report; empty if there is nothing to compare.
        switched_off: Predictors that were worse than the trivial ones, with the reason.
        widening: Factor of the next deviations, if errors were larger than they said.
    """

    details: Mapping[str, Any] = field(default_factory=dict)
    switched_off: Mapping[str, str] = field(default_factory=dict)
    widening: float = 1.0


def compare_with_trainings(trained: Array, predicted: Array, deviations: Array, by_each: Mapping[str, Array]) -> Audit:
    """Return the comparison.

    A predictor is worse than the trivial ones if its rank correlation is less than that of the better of them by more
    than the standard error of the difference, sqrt(2 (1 - r) / (N - 1)) with the correlation r of both predictions.

    Args:
        trained: (N,) results.
        predicted: (N,) as they were predicted when the cells were chosen.
        deviations: (N,) of `predicted`; NaN if unknown.
        by_each: (N,) by each predictor and by both trivial ones, from the trainings before; empty if there were too
            few to compare.
    """
    if len(trained) == 0:
        return Audit()
    details: dict[str, Any] = {"cells": len(trained), **_agreement(trained, predicted)}
    deviates = np.isfinite(deviations) & (deviations > 0)
    widening = 1.0
    if deviates.any():
        errors = np.abs(predicted - trained)[deviates] / deviations[deviates]
        details["within_80"] = float((errors <= _NORMAL_80).mean())
        details["error_in_deviations"] = float(np.sqrt(np.mean(errors**2)))
        if len(errors) >= FEWEST_AUDITED:
            widening = float(np.clip(details["error_in_deviations"], *_WIDENING))
    details["by"] = {name: _agreement(trained, values) for name, values in by_each.items()}
    switched_off = _worse_than_trivial(trained, by_each) if len(trained) >= FEWEST_AUDITED else {}
    return Audit(details | {"switched_off": switched_off}, switched_off, widening)


def _agreement(trained: Array, predicted: Array) -> dict[str, float | None]:
    """Return rank correlation, None for too few cells, and mean absolute error."""
    ranked = rank_correlation(predicted, trained) if len(trained) >= FEWEST_AUDITED else None
    return {"rank_correlation": ranked, "error": float(np.mean(np.abs(predicted - trained)))}


def _worse_than_trivial(trained: Array, by_each: Mapping[str, Array]) -> dict[str, str]:
    reached = {name: rank_correlation(values, trained) for name, values in by_each.items()}
    trivial = max((name for name in (PARENTS, OPERATIONS) if name in reached), key=reached.__getitem__, default=None)
    if trivial is None:
        return {}
    worse = {}
    for name in reached.keys() - {PARENTS, OPERATIONS}:
        alike = rank_correlation(by_each[name], by_each[trivial])
        chance = math.sqrt(2 * (1 - alike) / (len(trained) - 1))
        if reached[name] < reached[trivial] - chance:
            worse[name] = (
                f"worse than {trivial} in the last generation (rank correlation {reached[name]:.2f} and "
                f"{reached[trivial]:.2f})"
            )
    return dict(sorted(worse.items()))
