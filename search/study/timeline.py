"""When which candidate was in a worker, as far as the journal knows: the workers themselves are not in it."""

from collections.abc import Hashable
from dataclasses import dataclass, field

from search.results.record import Span


@dataclass
class Timeline:
    """The jobs of a study in time. A job takes the first worker that is free.

    Attributes:
        spans: The ended jobs of each candidate or run.
    """

    spans: dict[Hashable, list[Span]] = field(default_factory=dict)
    _open: dict[Hashable, tuple[int, float]] = field(default_factory=dict)  # worker and begin

    def begin(self, key: Hashable, seconds: float) -> None:
        """Note that a job began, unless it has begun already.

        Args:
            key: Candidate or run.
            seconds: Unix time.
        """
        if key not in self._open:
            taken = {worker for worker, _ in self._open.values()}
            worker = next(number for number in range(len(taken) + 1) if number not in taken)
            self._open[key] = (worker, seconds)

    def end(self, key: Hashable, seconds: float) -> None:
        """Note that a job ended."""
        if key in self._open:
            self.spans.setdefault(key, []).append(Span(*self._open.pop(key), seconds))

    def end_all(self, seconds: float) -> None:
        """Note that a session ended."""
        for key in list(self._open):
            self.end(key, seconds)

    def of(self, key: Hashable, now: float) -> list[Span]:
        """Return the jobs of a candidate or run until now, that which runs included."""
        running = [Span(*self._open[key], max(now, self._open[key][1]))] if key in self._open else []
        return [*self.spans.get(key, ()), *running]
