"""Values on the scale on which predictors learn, and back.

Dimensions: N known values.
"""

import numpy as np
from numpy.typing import NDArray

from search.samplers.learning.warping import Warping

Array = NDArray[np.float64]


class ScoreScale:
    """Scores as quantiles of a normal distribution by their ranks, the better the larger.

    A few cells that do not learn at all then do not hide the differences between good ones. Failed trainings are the
    worst.

    Args:
        values: (N,) scores; NaN of failed trainings.
        sign: 1 if larger scores are better, else -1.
    """

    def __init__(self, values: Array, sign: int) -> None:
        self._sign = sign
        self.is_known = np.ones(len(values), dtype=bool)
        self._warping = Warping(np.where(np.isfinite(values), sign * values, -np.inf))
        self.normal = self._warping.normal

    def original(self, mean: Array, deviation: Array) -> tuple[Array, Array]:
        """Return means and deviations in the unit of the scores."""
        ends = self._warping.inverse(np.stack([mean, mean - deviation, mean + deviation]))
        return self._sign * ends[0], np.abs(ends[2] - ends[1]) / 2


class CostScale:
    """Costs less their mean, over their deviation. Costs that are not known are left out.

    Args:
        values: (N,) costs; NaN if unknown.
    """

    def __init__(self, values: Array) -> None:
        self.is_known = np.isfinite(values)
        known = values[self.is_known]
        self._mean = float(known.mean()) if len(known) else 0.0
        self._unit = float(known.std()) or 1.0 if len(known) else 1.0
        self._least = 0.0 if (known >= 0).all() else -np.inf
        self.normal: Array = (known - self._mean) / self._unit

    def original(self, mean: Array, deviation: Array) -> tuple[Array, Array]:
        """Return means, not negative if no cost is, and deviations in the unit of the costs."""
        return np.maximum(self._mean + self._unit * mean, self._least), self._unit * deviation
