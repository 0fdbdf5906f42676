"""The results of a study as its sampler gets them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.results.record import Constraint, Objective, Tally, leading_place
from search.samplers.base import Observation
from search.schedulers.base import Values
from search.space.drawn import Drawn
from search.study.state import CandidateState, StudyState


class ObservedCandidates:
    """The candidates of a study as observations; only those that have changed are looked at again.

    Args:
        state: The state of the study.
        objectives: Of the search.
        constraints: Of the search. The values of an epoch that violates them are those of `Tally.values`.
    """

    def __init__(self, state: StudyState, objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> None:
        self._state = state
        self._objectives = objectives
        self._constraints = constraints
        self._leading = leading_place(objectives)
        self._transferred: list[Observation] = []  # of another study
        self._known: dict[int, Observation] = {}  # by candidate
        self._awaited: dict[int, Drawn] = {}  # candidates without a result
        self._changed: set[int] = set()

    def transfer(self, observations: Sequence[Mapping[str, Any]]) -> None:
        """Add the results of another study; their numbers are below 0, so that they are none of this one."""
        self._transferred = [self._read(-1 - place, data) for place, data in enumerate(observations)]

    def note_change(self, candidate: int) -> None:
        """Note that an event has changed a candidate."""
        self._changed.add(candidate)

    def present(self) -> tuple[list[Observation], list[Drawn]]:
        """Return the results by number, and the choices of the candidates that run or wait without one."""
        for number in self._changed:
            self._update(number, self._state.candidates[number])
        self._changed.clear()
        return (
            self._transferred + [self._known[number] for number in sorted(self._known)],
            [self._awaited[number] for number in sorted(self._awaited)],
        )

    def _update(self, number: int, each: CandidateState) -> None:
        assert each.drawn is not None, "set when it was drawn"
        status = each.record.status
        has_failed, is_refused = status in ("failed", "out_of_memory"), status == "refused"
        is_running = status in ("running", "paused")
        self._known.pop(number, None)
        self._awaited.pop(number, None)
        if status != "duplicate" and (each.values or has_failed or is_refused):
            values = self._values_of(each)
            self._known[number] = Observation(
                number, each.drawn, values, has_failed, is_running, is_refused, each.record.origin, self._leading
            )
        elif is_running:
            self._awaited[number] = each.drawn

    def _values_of(self, each: CandidateState) -> tuple[Values, ...]:
        """Return the objectives after each epoch, each by itself."""
        if not self._constraints:
            return tuple(each.values)
        facts = each.record.facts
        return tuple(Tally(self._objectives, facts, self._constraints).add(row) for row in each.record.reports)

    def _read(self, number: int, data: Mapping[str, Any]) -> Observation:
        """Return an observation of another study; one that could have gone on there could do so here."""
        return Observation(
            number,
            Drawn.from_json(data["choices"]),
            tuple(tuple(math.nan if value is None else value for value in row) for row in data["values"]),
            data["has_failed"],
            is_running=data.get("is_unfinished", False),
            leading=self._leading,
        )
