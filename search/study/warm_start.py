"""The results of another study for the sampler of this one, as far as the markers agree."""

import math
from collections.abc import Sequence
from typing import Any

from search.results.record import Constraint, Objective, Tally
from search.space.drawn import Drawn
from search.space.space import Space
from search.study.state import CandidateState, StudyState
from utils.errors import SearchError


def transferred(
    state: StudyState,
    theirs: Space,
    ours: Space,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
) -> list[dict[str, Any]]:
    """Return the observations of another study that hold in this one, as plain data for the journal.

    A candidate is taken over if this space has the same markers at every place where it chose, and nothing else to
    choose; and if it has a value of every objective and constraint.

    Args:
        state: The state of the other study.
        theirs: Its space.
        ours: The space of this study.
        objectives: Those of this study.
        constraints: Those of this study. The values of an epoch that violates them are those of `Tally.values`.

    Returns:
        For each candidate `choices`, `values` (a list per epoch, the larger the better), `has_failed`, and
        `is_unfinished`: whether it neither failed nor ended by itself before the last epoch.
    """
    taken = []
    for each in state.candidates.values():
        has_failed = each.record.status in ("failed", "out_of_memory")
        values = _values_of(each, objectives, constraints)
        if each.drawn is None or each.record.status == "duplicate" or not (values or has_failed):
            continue
        if _agrees(each.drawn, theirs, ours):
            ended_early = each.record.status == "completed" and len(values) < state.max_epochs
            taken.append(
                {
                    "choices": each.drawn.as_json(),
                    "values": values,
                    "has_failed": has_failed,
                    "is_unfinished": not has_failed and not ended_early,
                }
            )
    return taken


def _agrees(drawn: Drawn, theirs: Space, ours: Space) -> bool:
    """Whether choices meet the same markers in both spaces."""
    try:
        walk = ours.follow(drawn)[1]
    except SearchError:
        return False
    sites = theirs.follow(drawn)[1].sites
    return [(site.path, site.marker) for site in walk.sites] == [(site.path, site.marker) for site in sites]


def _values_of(
    each: CandidateState, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> list[list[float | None]]:
    """Return the objectives after each epoch; empty if one of them is unknown. None stands for NaN."""
    rows = []
    names = {*(goal.name for goal in objectives), *(bound.name for bound in constraints)}
    for row in each.record.reports:
        known = {**each.record.facts, **row}
        if not names <= known.keys():
            return []
        if constraints:
            numbers = list(Tally(objectives, each.record.facts, constraints).add(row))
        else:
            numbers = [known[goal.name] * goal.sign for goal in objectives]
        rows.append([None if math.isnan(number) else number for number in numbers])
    return rows
