"""One rung of asynchronous successive halving: candidates come in one by one and are judged by those before them."""

import math
from bisect import insort

from search.schedulers.base import Decision, Rung, Values, Verdict
from search.schedulers.bookkeeping import FAILED
from search.schedulers.ranking import LEAST, comparable
from search.schedulers.standing import FrontStanding, SingleStanding, Standing


class AsyncRung:
    """What candidates came to at some epoch.

    Args:
        bracket: Number of its bracket.
        epochs: At which it compares.
        reduction_factor: One in so many goes on.
    """

    def __init__(self, bracket: int, epochs: int, reduction_factor: int) -> None:
        self.epochs = epochs
        self._bracket = bracket
        self._reduction_factor = reduction_factor
        self._values: dict[int, Values] = {}
        self._ascending: list[float] = []
        self._standing: Standing | None = None
        self._promoted: list[int] = []

    def __len__(self) -> int:
        return len(self._values)

    def record(self, candidate: int, values: Values) -> None:
        """A candidate reached the rung; it waits to be promoted."""
        self._values[candidate] = values
        insort(self._ascending, comparable(values[0]))
        if self._standing is None:
            self._standing = SingleStanding() if len(values) == 1 else FrontStanding(len(values))
        self._standing.add(candidate, values)

    def fail(self, candidate: int) -> None:
        """A candidate failed on its way to the rung: it counts as the worst and is never promoted."""
        self._values[candidate] = FAILED
        insort(self._ascending, comparable(FAILED[0]))

    def judge(self, candidate: int, values: Values) -> Verdict:
        """Record a candidate that reached the rung and say whether it goes on.

        By one objective, it stops below the (1 - 1 / reduction_factor) quantile of the values that were there before.
        By several, it stops if more than one in reduction_factor of all others stand before it, which is the same rule
        for a value that is not between two others.
        """
        before = len(self)
        cutoff = self.cutoff() if len(values) == 1 else None
        self.record(candidate, values)
        if len(values) == 1:
            stops = cutoff is not None and comparable(values[0]) < comparable(cutoff)
        else:
            stops = before > 0 and self.position(candidate) * self._reduction_factor > before - 1
        if not stops:
            self.promote(candidate)
        return Verdict(Decision.STOP if stops else Decision.CONTINUE, rung=self.epochs, cutoff=cutoff)

    def cutoff(self) -> float | None:
        """The quantile of the first objective, interpolated as numpy does; None where there is no number to reach.

        A quantile between minus infinity and a number is minus infinity.
        """
        if not self._ascending:
            return None
        below, rest = divmod((len(self._ascending) - 1) * (self._reduction_factor - 1), self._reduction_factor)
        low, high = self._ascending[below], self._ascending[min(below + 1, len(self._ascending) - 1)]
        if low == -math.inf:  # NaN
            return None
        if low == LEAST:
            return -math.inf
        if rest == 0 or high == math.inf:
            return high if rest else low
        share = rest / self._reduction_factor
        return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)

    def position(self, candidate: int) -> int:
        """How many stand before a candidate that did not fail."""
        assert self._standing is not None
        return self._standing.position(candidate)

    def promotable(self, places: int) -> int | None:
        """The best candidate that waits, if it is among the first so many."""
        candidate = None if self._standing is None else self._standing.first_waiting()
        return candidate if candidate is not None and self.position(candidate) < places else None

    def is_hopeful(self, candidate: int, places: int) -> bool:
        """Whether a candidate that waits may yet come to be among the first so many."""
        assert self._standing is not None
        return self._standing.least_position(candidate) < places

    def num_hopeful(self, places: int) -> int:
        """How many wait that may yet come to be among the first so many."""
        return 0 if self._standing is None else self._standing.num_hopeful(places)

    def promote(self, candidate: int) -> None:
        """Let a candidate that waits go on."""
        assert self._standing is not None
        self._standing.take(candidate)
        self._promoted.append(candidate)

    def as_rung(self) -> Rung:
        """The rung as it stands."""
        return Rung(self._bracket, self.epochs, dict(self._values), tuple(self._promoted))
