"""The merit of a cell by its predicted score: the mean, a confidence bound, or the expected improvement."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Acquisition = Literal["mean", "ei", "ucb"]
_CONFIDENCE = 1.0  # deviations of the upper confidence bound
_FAR = -5.0  # deviations below the best from which on the improvement follows from its asymptotic series


def acquired_values(acquisition: Acquisition, mean: Array, deviation: Array, best: float, sign: int) -> Array:
    """Return the merit of each of N cells, the larger the better.

    Args:
        acquisition: "mean"; "ucb", the mean plus a deviation; "ei", the logarithm of the expected improvement on the
            best known score, which tells small improvements apart (Ament et al., 2023,
            https://arxiv.org/abs/2310.20708).
        mean: (N,) predicted scores.
        deviation: (N,) their deviations.
        best: The best known score.
        sign: 1 if larger scores are better, else -1.
    """
    if acquisition == "mean":
        return sign * mean
    if acquisition == "ucb":
        return sign * mean + _CONFIDENCE * deviation
    unit = np.maximum(deviation, 1e-12 * max(1.0, abs(best)))
    return np.log(unit) + log_improvement(sign * (mean - best) / unit)


def log_improvement(excess: Array) -> Array:
    """Return the logarithm of the expected positive part of a normal variable of deviation 1.

    Args:
        excess: (N,) its mean.
    """
    from scipy.special import erfcx

    squared = excess**2
    log_density = -0.5 * squared - 0.5 * math.log(2 * math.pi)
    far = np.minimum(excess, _FAR)
    # E = density * (1 + z * Phi / density); the bracket is 1 / z^2 - 3 / z^4 + 15 / z^6 - ... far below the best.
    series = np.log(1 / far**2 - 3 / far**4 + 15 / far**6 - 105 / far**8)
    near = np.clip(excess, _FAR, 37.0)
    ratio = math.sqrt(math.pi / 2) * erfcx(-near / math.sqrt(2))
    bracket = np.log(np.maximum(1 + near * ratio, 1e-300))
    improvement: Array = np.where(
        excess > 37.0, np.log(np.maximum(excess, 1e-300)), log_density + np.where(excess < _FAR, series, bracket)
    )
    return improvement
