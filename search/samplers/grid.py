"""All candidates of a space, one after the other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from search.samplers.base import Observation, Sampler
from search.space.drawn import Drawn
from search.space.scales import Interval, scale_of
from search.space.walk import Site
from utils.errors import ConfigError

if TYPE_CHECKING:
    from search.space.space import Space

_Digits = tuple[int, ...]


class GridSampler(Sampler):
    """Proposes every outcome of the space once, in a fixed order.

    The order is that of a number whose digits are the choices, the last marker of the file being the last digit. A
    choice can change which digits follow, and how many. A space without markers has one outcome for each number. The
    rows of a table are proposed in its order.

    Args:
        space: The space.
        steps: Numbers that stand for an interval: both ends, and others at equal distances on its scale between them.
            1: its middle.

    Raises:
        ConfigError: `steps` is below 1.
    """

    def __init__(self, space: "Space", steps: int = 5) -> None:
        super().__init__(space)
        if steps < 1:
            raise ConfigError(f"steps {steps}: must be at least 1. Set steps to 1 or more.")
        self.steps = steps
        # The last outcome that was asked for, from which the next one is a step: no memory that changes an answer.
        self._last: tuple[int, _Digits | None] = (0, ())

    def suggest(
        self, number: int, observations: Sequence[Observation], running: Sequence[Drawn], rng: np.random.Generator
    ) -> Drawn | None:
        """Propose the outcome of a number; None after the last one."""
        if not self.space.has_markers:
            return Drawn()
        if self.space.listed is not None:
            return self.space.listed[number] if number < len(self.space.listed) else None
        at, digits = self._last if self._last[0] <= number else (0, ())
        while at < number and digits is not None:
            at, digits = at + 1, self._digits_after(digits)
        self._last = at, digits
        return None if digits is None else self._outcome(digits)[0]

    def _outcome(self, digits: _Digits) -> tuple[Drawn, list[int]]:
        """Return the outcome of the first digits, the others being 0, and how many numbers each of its digits has."""
        counts: list[int] = []

        def choose(site: Site) -> int | float:
            numbers = self._numbers_at(site)
            digit = digits[len(counts)] if len(counts) < len(digits) else 0
            counts.append(len(numbers))
            return numbers[digit]

        return self.space.walk(choose)[1].drawn, counts

    def _digits_after(self, digits: _Digits) -> _Digits | None:
        """Return the first digits of the next outcome; None after the last one."""
        counts = self._outcome(digits)[1]
        complete = digits + (0,) * (len(counts) - len(digits))
        for place in reversed(range(len(counts))):
            if complete[place] + 1 < counts[place]:
                return (*complete[:place], complete[place] + 1)
        return None

    def _numbers_at(self, site: Site) -> Sequence[int | float]:
        scale = scale_of(site.marker)
        if not isinstance(scale, Interval):
            return scale.outcomes
        positions = np.linspace(0, 1, self.steps) if self.steps > 1 else [0.5]
        return list(dict.fromkeys(scale.nearest(float(position)) for position in positions))
