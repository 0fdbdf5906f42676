"""Values of learning curves as a normal distribution, and back."""

import numpy as np
from numpy.typing import NDArray

from search.schedulers.ranking import mean_ranks

Array = NDArray[np.float64]
_LEAST_REAL = -1e49  # below are values that say how much constraints are violated, see `Tally.values`
_MOST_REAL = 1e49  # larger values count as this one: beyond the ends there would be no number


class Warping:
    """Values by their ranks, which become quantiles of a standard normal distribution.

    Losses that explode, constraints that are violated and trainings that diverged are then no more than the worst
    ranks, and the model needs no assumption on the distribution of the others.

    Args:
        values: (N,) the larger the better; those that are not finite are the worst.
    """

    def __init__(self, values: Array) -> None:
        known = np.where(np.isfinite(values), values, -np.inf)
        from scipy.special import ndtri  # scipy is imported when there is something to learn

        self.normal: Array = ndtri((mean_ranks(known) - 0.5) / len(known)) if len(known) else known
        if len(known):
            self.normal -= self.normal.mean()  # equal values may have moved it
            self.normal /= self.normal.std() or 1.0
        is_real = known > _LEAST_REAL
        self._normals, places = np.unique(self.normal[is_real], return_index=True)
        self._values = np.minimum(known[is_real][places], _MOST_REAL)

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest known value; NaN if there is none."""
        return (float(self._values[0]), float(self._values[-1])) if len(self._values) else (np.nan, np.nan)

    def inverse(self, normal: Array) -> Array:
        """Return the values at places of the normal distribution, any shape; NaN if no value is known.

        Beyond the ends, the line through the outermost tenth of all values continues.
        """
        if not len(self._values):
            return np.full_like(normal, np.nan)
        found: Array = np.interp(normal, self._normals, self._values)
        span = max(1, len(self._values) // 10)
        for end, inner in ((0, span), (-1, -1 - span)):
            if len(self._values) > span:
                run = self._normals[end] - self._normals[inner]
                slope = (self._values[end] - self._values[inner]) / run
                beyond = (
                    np.minimum(normal - self._normals[0], 0) if end == 0 else np.maximum(normal - self._normals[-1], 0)
                )
                found = found + slope * beyond
        return found
