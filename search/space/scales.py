"""The numbers that a marker can draw, and the unit interval that they are spread over."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SIGNIFICANT_DIGITS = 6  # of a continuous value: readable, and the same on every machine
_WITHIN = 0.381966  # position in an interval of the number that represents it
_UP = 1 + 1e-12  # the exponential of a logarithm may be a little less than the number


class Scale(ABC):
    """The numbers of one marker, in their order."""

    @property
    @abstractmethod
    def outcomes(self) -> Sequence[int | float]:
        """All numbers; those of an interval are represented by one."""

    @abstractmethod
    def at(self, fraction: float) -> int | float:
        """Return the number that a fraction in [0, 1) of the probability leads to."""

    @abstractmethod
    def read(self, number: Any) -> int | float | None:
        """Return a number from JSON in the type that `at` returns; None if the marker cannot draw it."""

    @abstractmethod
    def unit(self, number: float) -> float:
        """Return the position of a number between the first (0) and the last (1)."""

    @abstractmethod
    def nearest(self, position: float) -> int | float:
        """Return the number at a position in [0, 1]."""


@dataclass(frozen=True)
class WholeNumbers(Scale):
    """Numbers of equal probability and distance: those of a `$range`, the indices of the branches of a `$choice`."""

    numbers: range

    @property
    def outcomes(self) -> range:
        """All numbers."""
        return self.numbers

    def at(self, fraction: float) -> int:
        """Return the number that a fraction leads to."""
        return self.numbers[int(fraction * len(self.numbers))]

    def read(self, number: Any) -> int | None:
        """Return the number if it is one of these."""
        return number if type(number) is int and number in self.numbers else None

    def unit(self, number: float) -> float:
        """Return the position of a number."""
        return self.numbers.index(int(number)) / max(1, len(self.numbers) - 1)

    def nearest(self, position: float) -> int:
        """Return the number at a position."""
        return self.numbers[round(position * (len(self.numbers) - 1))]


class LogWholeNumbers(WholeNumbers):
    """Whole numbers from 1 or more, with equal probability for each doubling.

    A number k has the share of [k, k + 1) on a logarithmic scale that ends at the last number plus 1.
    """

    def at(self, fraction: float) -> int:
        """Return the number that a fraction leads to."""
        low, high = self.numbers[0], self.numbers[-1]
        number = int(math.exp(math.log(low) + math.log((high + 1) / low) * fraction) * _UP)
        return min(max(number, low), high)

    def unit(self, number: float) -> float:
        """Return the position of a number."""
        return math.log(number / self.numbers[0]) / math.log(self.numbers[-1] / self.numbers[0])

    def nearest(self, position: float) -> int:
        """Return the number at a position."""
        low, high = self.numbers[0], self.numbers[-1]
        return min(max(round(low * math.exp(math.log(high / low) * position)), low), high)


@dataclass(frozen=True)
class Interval(Scale):
    """The real numbers from low to high, on a linear or a logarithmic scale."""

    low: float
    high: float
    is_log: bool = False

    @property
    def outcomes(self) -> tuple[float]:
        """One number within."""
        return (self.low + _WITHIN * (self.high - self.low),)

    def at(self, fraction: float) -> float:
        """Return the number that a fraction leads to, to six significant digits."""
        low, high = (math.log(self.low), math.log(self.high)) if self.is_log else (self.low, self.high)
        number = low + (high - low) * fraction
        return _rounded(math.exp(number) if self.is_log else number)

    def read(self, number: Any) -> float | None:
        """Return the number if it lies in the interval, or is one of its ends to six digits."""
        if type(number) not in (int, float):
            return None
        low, high = min(self.low, _rounded(self.low)), max(self.high, _rounded(self.high))
        return float(number) if low <= number <= high else None

    def unit(self, number: float) -> float:
        """Return the position of a number."""
        if self.is_log:
            position = _log_quotient(self.low, number) / _log_quotient(self.low, self.high)
        else:
            position = (number - self.low) / (self.high - self.low)
        return min(max(position, 0.0), 1.0)  # a rounded end may be outside

    def nearest(self, position: float) -> float:
        """Return the number at a position."""
        return self.at(position)


def _log_quotient(low: float, number: float) -> float:
    """Return the logarithm of number / low, also if the quotient is too large for a float."""
    quotient = number / low
    return math.log(quotient) if math.isfinite(quotient) else math.log(number) - math.log(low)


def _rounded(number: float) -> float:
    return float(f"{number:.{SIGNIFICANT_DIGITS}g}")


def scale_of(marker: Mapping[str, Any]) -> Scale:
    """Return the scale of a marker that draws a number or the index of a branch."""
    ((kind, content),) = marker.items()
    if kind == "$choice":
        return WholeNumbers(range(len(content)))
    if kind == "$range":
        return WholeNumbers(range(*content))
    if kind == "$logrange":
        return LogWholeNumbers(range(content[0], content[1] + 1))
    low, high = content
    return Interval(low, high, is_log=kind == "$loguniform")
