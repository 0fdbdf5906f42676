"""The deletion of checkpoints that a study does not need any more; curves and records remain."""

import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from pathlib import Path

from search.results.leaderboard import COUNTED, ParetoFront
from search.results.record import Constraint, Objective, Status
from search.schedulers.base import Values
from search.study.folders import checkpoints_of
from search.study.state import CandidateState, StudyState
from utils.errors import SearchError

_ASKED = 16  # paused candidates of which the scheduler is asked again at each call
LATENCY_FACTOR = 1.3  # by which a latency may differ if it is measured again with nothing running next to it
_WORST = sys.float_info.max


def compares_latency(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> bool:
    """Return whether a latency, which is measured again at the end, says who wins."""
    return "latency_ms" in [*(each.name for each in objectives), *(each.name for each in constraints)]


def compared_values(state: StudyState, each: CandidateState, latency_factor: float = 1.0) -> Values:
    """Return the values by which a candidate competes for being the best, the larger the better, NaN if unknown.

    They give the order of the leaderboard: with one objective the violation of the constraints decides first.

    Args:
        state: Of the study.
        each: The candidate.
        latency_factor: Factor of its latency, unless that was measured again.
    """
    goals, tally = state.objectives, each.tally
    if compares_latency(goals, state.constraints):
        factor = 1.0 if each.record.index in state.measured else latency_factor
        facts = each.record.facts
        tally = state.tally_of(each.record, {**facts, "latency_ms": facts.get("latency_ms", math.nan) * factor})
    if len(goals) > 1:
        return tally.values
    value = tally.as_written().get(goals[0].name, math.nan) * goals[0].sign
    return (max(-tally.violation, -_WORST), value)


class _UncertainFront:
    """The candidates that may be on the Pareto front, as each of them has a range of values."""

    def __init__(self) -> None:
        self._ranges: dict[int, tuple[Values, Values]] = {}

    def add(self, candidate: int, best: Values, worst: Values) -> list[int]:
        """Add a candidate and return those that another one dominates wherever both lie in their ranges."""
        if any(_dominates(other, best) for _, other in self._ranges.values()):
            return [candidate]
        beaten = [each for each, (other, _) in self._ranges.items() if _dominates(worst, other)]
        for each in beaten:
            del self._ranges[each]
        self._ranges[candidate] = (best, worst)
        return beaten


def _dominates(one: Values, other: Values) -> bool:
    return one != other and all(left >= right for left, right in zip(one, other, strict=True))


class CheckpointCleaner:
    """Deletes checkpoints of candidates that will not be resumed and are not among the best.

    Only candidates at their end compete for being the best: one that may still be trained keeps its checkpoints anyway,
    but may fail, or move in one objective when it improves in another. So a checkpoint that is deleted is not missing
    later.

    A call takes logarithmic time. Whether a paused candidate may be resumed is asked of the scheduler when it pauses,
    and then of a few candidates in rotation at each call; so with many of them a checkpoint may be deleted some calls
    later than possible. With a disk budget all are asked when it is exceeded. If values are uncertain, a call takes
    time in proportion to the candidates that may be on the front.

    Args:
        folder_of: Returns the run folder of a candidate.
        may_resume: Whether a candidate without a job may still be resumed, or another one may begin with its weights;
            once false, it is false for ever.
        record_deleted: Records that the checkpoints of a candidate were deleted, of this number of bytes.
        num_objectives: Objectives of the study: of several, the Pareto front is retained.
        disk_mb: Delete only while all checkpoints together take more megabytes; None: at once.
        retain: With one objective, number of the best candidates whose checkpoints remain.
        is_certain: Whether the values of candidates at their end are final; else a candidate remains while it may
            turn out to be among the best.
    """

    def __init__(
        self,
        folder_of: Callable[[int], Path],
        may_resume: Callable[[int], bool],
        record_deleted: Callable[[int, int], None],
        *,
        num_objectives: int = 1,
        disk_mb: int | None = None,
        retain: int = 1,
        is_certain: bool = True,
    ) -> None:
        self._folder_of = folder_of
        self._may_resume = may_resume
        self._record_deleted = record_deleted
        self._most_bytes = 0 if disk_mb is None else disk_mb * 2**20
        self._retain = retain
        self._front = ParetoFront(num_objectives) if num_objectives > 1 and is_certain else None
        self._uncertain_front = _UncertainFront() if num_objectives > 1 and not is_certain else None
        self._best: list[tuple[Values, int]] = []  # a heap of the best at their worst, the last of them first
        self._contenders: list[tuple[Values, int]] = []  # a heap of all at their best that are not beaten
        self._bytes: dict[int, int] = {}  # of the stored checkpoints, by candidate
        self._total = 0
        self._paused: OrderedDict[int, tuple[Values, Values]] = OrderedDict()  # in the order of asking
        self._ended: set[int] = set()
        self._resumed: set[int] = set()  # though they were given up: theirs are never deleted
        self._deletable: list[int] = []  # a heap of numbers
        self._total_asked = 0  # bytes when all paused candidates were asked for in vain

    def began(self, candidate: int) -> None:
        """Note that a job of a candidate began: its checkpoints are needed."""
        self._paused.pop(candidate, None)
        if candidate in self._ended:
            self._resumed.add(candidate)

    def ended(
        self, candidate: int, status: Status, num_bytes: int, values: Values, worst: Values | None = None
    ) -> None:
        """Note that a job of a candidate ended.

        Args:
            candidate: Number of the candidate.
            status: Its status, not "running".
            num_bytes: Size of its checkpoints.
            values: By which it is compared, the larger the better, NaN if unknown; the best that they may turn out.
            worst: The worst that they may turn out; None: they are certain.
        """
        ranges = (values, values if worst is None else worst)
        self._total += num_bytes - self._bytes.get(candidate, 0)
        self._bytes[candidate] = num_bytes
        # One that is complete may still be needed: by a child that begins with its weights.
        if status in ("paused", "stopped", "completed") and self._may_resume(candidate):
            self._paused[candidate] = ranges
        else:
            self._end(candidate, *ranges, is_ranked=status in COUNTED - {"failed"})

    def clean(self, *, thoroughly: bool = False) -> None:
        """Delete checkpoints that are known to be unneeded, the lowest number first, until the budget is kept.

        Args:
            thoroughly: Ask the scheduler of all paused candidates, e.g. at the end of the search.

        Raises:
            SearchError: A file cannot be deleted.
        """
        if self._total <= self._most_bytes:
            self._total_asked = 0
            return
        self._ask(len(self._paused) if thoroughly else min(_ASKED, len(self._paused)))
        self._delete()
        if self._total > self._most_bytes > 0 and self._total > self._total_asked * 17 / 16:
            # Not again before there is a sixteenth more: a budget may be too small for all that is needed.
            self._ask(len(self._paused))
            self._delete()
            self._total_asked = self._total

    def _ask(self, count: int) -> None:
        """Ask the scheduler of some paused candidates, those first of which it was not asked for longest."""
        for _ in range(count):
            candidate, ranges = self._paused.popitem(last=False)
            if self._may_resume(candidate):
                self._paused[candidate] = ranges
            else:
                self._end(candidate, *ranges, is_ranked=True)

    def _end(self, candidate: int, best: Values, worst: Values, *, is_ranked: bool) -> None:
        """Let a candidate at its end compete for being the best; those that are not can be deleted."""
        if candidate in self._ended:  # it was trained again, and is compared already
            return
        self._ended.add(candidate)
        if not self._bytes[candidate]:  # one without weights takes the place of none that has them
            return
        beaten = [candidate]
        if is_ranked and all(map(math.isfinite, (*best, *worst))):
            if self._front is not None:
                beaten = self._front.add(candidate, best)
            elif self._uncertain_front is not None:
                beaten = self._uncertain_front.add(candidate, best, worst)
            else:
                beaten = self._rank(candidate, best, worst)
        for each in beaten:
            heappush(self._deletable, each)

    def _rank(self, candidate: int, best: Values, worst: Values) -> list[int]:
        """Rank a candidate by one objective, and return those that are certainly behind the best ones by now."""
        heappush(self._contenders, (best, -candidate))
        heappush(self._best, (worst, -candidate))
        if len(self._best) > self._retain:
            heappop(self._best)
        beaten = []
        while len(self._best) == self._retain and self._contenders[0] < self._best[0]:
            beaten.append(-heappop(self._contenders)[1])
        return beaten

    def _delete(self) -> None:
        while self._deletable and self._total > self._most_bytes:
            candidate, num_bytes = heappop(self._deletable), 0
            if candidate in self._resumed:
                continue
            try:
                for path in list(checkpoints_of(self._folder_of(candidate))):
                    num_bytes += path.stat().st_size
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise SearchError(
                    f"{error.filename}: cannot be deleted ({error.strerror}). A search deletes checkpoints that are "
                    "not needed any more. Correct the permissions, and continue with --resume auto."
                ) from error
            self._total -= self._bytes[candidate]
            self._bytes[candidate] = 0
            self._record_deleted(candidate, num_bytes)
