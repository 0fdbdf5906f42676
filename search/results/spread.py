"""The mean of a result over seeds, its deviation, and its interval: the same for all tables, plots and sentences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
INTERVAL_RULE = "Intervals are Student's t; equal values have none, as their deviation says nothing of another seed."
# Two differences of equal results differ by their rounding.
_RELATIVE_ROUNDING, _ROUNDING = 1e-9, 1e-12


@dataclass(frozen=True)
class Spread:
    """The mean of a result over seeds.

    Attributes:
        values: By seed, ascending; finite.
    """

    values: Mapping[int, float]

    @property
    def mean(self) -> float:
        """The mean; NaN without a value."""
        return math.fsum(self.values.values()) / len(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float | None:
        """That of a sample (n - 1); None for fewer than two values."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else None

    def minus(self, other: "Spread") -> "Spread":
        """Return the differences of the seeds that both have."""
        return Spread({seed: value - other.values[seed] for seed, value in self.values.items() if seed in other.values})

    def interval(self) -> tuple[float, float] | None:
        """Return the interval of the mean, see `student_interval`."""
        return student_interval(list(self.values.values()))


def student_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the interval of a mean by Student's t, which is wide enough for few values if they are normal.

    Student 1908, The Probable Error of a Mean, https://doi.org/10.2307/2331554.

    Args:
        values: Independent ones: differences of pairs, not the members of pairs.

    Returns:
        The limits for `CONFIDENCE`; None for fewer than two values. Also None if all are equal to within rounding,
        such as accuracies on few samples: an interval without width would claim certainty.
    """
    count = len(values)
    if count < 2 or max(values) - min(values) <= _ROUNDING + _RELATIVE_ROUNDING * max(map(abs, values)):
        return None
    from scipy.special import stdtrit  # loads for half a second: only several values need it

    mean = math.fsum(values) / count
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return mean - half, mean + half
