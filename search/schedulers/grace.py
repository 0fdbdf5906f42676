"""The choice of the first rung from results: the first epochs at which candidates are worth comparing."""

import math
from dataclasses import dataclass, field
from typing import Literal

from search.schedulers.base import Values
from search.schedulers.ranking import as_table, spearman

_MOST_RUNGS_BEFORE = 100  # the first rung of a long training is at a hundredth of it
_PAIRS_OF_TEST = 8
_LEAST_CORRELATION = 0.8


def starting_epochs(grace_period: int | Literal["auto"], max_epochs: int, brackets: int) -> int:
    """Return the epochs of the first rung; "auto" with several brackets is 1, as they begin at different rungs."""
    if grace_period != "auto":
        return grace_period
    return 1 if brackets > 1 else max(1, max_epochs // _MOST_RUNGS_BEFORE)


@dataclass
class FirstRung:
    """The first rung that compares: chosen in advance, or by the results of candidates that passed without a decision.

    At first every candidate passes rung 0. It compares from the moment on at which its rank correlation with rung 1 is
    known to be useful: at least 0.8 by all n candidates that passed it without a decision, which are eight or more.
    No decision has selected those, which would bias the correlation; promoted ones are not used. The rungs above are
    not tested, as a test at a rung costs eight times its next epochs, and later epochs predict more: with promotions,
    they hold back their decisions until eight candidates have shown whether rung 0 is of use. After that, rung 0 may
    still begin to compare; it never ceases to.

    Dimensions: n candidates.

    Attributes:
        num_rungs: Number of rungs, that of a full training included.
        is_chosen: Whether rung 0 compares from the beginning.
        pairs: Values at rung 0 and at rung 1 of the candidates that passed rung 0 without a decision.
    """

    num_rungs: int
    is_chosen: bool
    pairs: list[tuple[Values, Values]] = field(default_factory=list)
    _compares: bool = field(init=False)

    def __post_init__(self) -> None:
        self._compares = self.is_chosen or self.num_rungs < 3  # nothing lies between the rung and a full training

    def passes(self, rung: int) -> bool:
        """Return whether every candidate that reaches a rung now continues."""
        return rung == 0 and not self._compares

    def holds(self, rung: int) -> bool:
        """Return whether a rung waits with its decisions for the test of the one below."""
        return rung > 0 and not self._compares and len(self.pairs) < _PAIRS_OF_TEST

    def decides(self, rung: int) -> str:
        """Return the present rule of a rung, in words."""
        return "passes all" if self.passes(rung) else "waits" if self.holds(rung) else "compares"

    @property
    def next_stop(self) -> int:
        """The rung that a new candidate is trained up to."""
        return 0 if self._compares else 1

    def add(self, before: Values, after: Values) -> None:
        """Note the values of a candidate that passed rung 0 without a decision, there and at rung 1."""
        self.pairs.append((before, after))
        if not self._compares and len(self.pairs) >= _PAIRS_OF_TEST:
            self._compares = self.correlation() >= _LEAST_CORRELATION

    def correlation(self) -> float:
        """Return the rank correlation of the pairs; of several objectives the least one, NaN if all are undefined.

        An objective that is equal for all candidates says nothing. A candidate that failed has the worst rank.
        """
        if not self.pairs:
            return math.nan
        width = max(len(values) for pair in self.pairs for values in pair)
        before, after = (as_table([pair[side] for pair in self.pairs], width) for side in (0, 1))
        found = [spearman(*columns) for columns in zip(before.T, after.T, strict=True)]
        # Rounded, so that the last bits, which differ between machines, decide nothing.
        return round(min((each for each in found if not math.isnan(each)), default=math.nan), 9)


def earlier_defaults(grace_period: int | Literal["auto"], mode: str | None) -> tuple[int, str]:
    """Return both arguments of ASHA, as they were in studies of earlier versions: without a value, 3 and "stop"."""
    return 3 if grace_period == "auto" else grace_period, mode or "stop"
