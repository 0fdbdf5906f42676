"""A population that trains in rounds, after each of which the best replace the worst: the decisions of `PBT`.

Population based training with truncation selection: Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846. There the
members are asynchronous; here all of them wait for the end of a round, so that decisions depend on their values only,
not on the number of workers and not on the order of their reports.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from search.schedulers.base import (
    FAILED,
    Decision,
    Ending,
    Job,
    JobBook,
    Need,
    Rung,
    RungDecision,
    Scheduler,
    Values,
    check_at_least,
    check_grows,
)
from search.schedulers.ranking import best_first
from utils.errors import ConfigError
from utils.seeding import derive_seed


@dataclass(frozen=True)
class Offspring(Need):
    """The need of a candidate that begins with the weights of another one.

    Attributes:
        parent: The candidate with the weights.
        epochs: Epochs that these were trained for.
        replaces: The member whose place it takes.
    """

    parent: int
    epochs: int
    replaces: int


@dataclass
class _Round:
    """The members of a round and the known facts of them.

    Attributes:
        epochs: Epochs after which it ends.
        values: Values of the members that reached its end, or ended before.
        promoted: Members that were trained further.
    """

    epochs: int
    values: dict[int, Values] = field(default_factory=dict)
    promoted: tuple[int, ...] = ()


class Population(Scheduler):
    """Trains all members for `interval` epochs, lets children of the best take the places of the worst, and so on.

    A member that failed is worse than any other, and its place is taken at the end of the round. One that ended early
    remains with its last values. A child that is refused or out of memory counts as failed, for its number of epochs
    cannot be drawn again.

    Args:
        num_samples: Members.
        max_epochs: Epochs of a full training.
        interval: Epochs of a round.
        quantile: Share of the members that is replaced, and share of those that replace them.
        seed: Of the choice of parents.

    Raises:
        ConfigError: An argument is out of its range.
    """

    def __init__(self, num_samples: int, max_epochs: int, *, interval: int, quantile: float, seed: int = 0) -> None:
        super().__init__(num_samples, max_epochs)
        check_at_least("interval", interval, 1)
        if not 0 < quantile <= 0.5:
            raise ConfigError(
                f"quantile {quantile}: must be above 0 and at most 0.5, for none can be among the best and the worst. "
                "Set quantile to 0.2."
            )
        self._quantile = quantile
        self._seed = seed
        self._ends = [*range(interval, max_epochs, interval), max_epochs]
        self._book = JobBook(num_samples)
        self._rounds = [_Round(self._ends[0])]
        self._members: set[int] = set()
        self._awaited: set[int] = set()  # members that have not reached the end of the round
        self._queue: deque[int] = deque()  # those of them that wait for a worker
        self._needs: deque[Offspring] = deque()
        self._failed: set[int] = set()
        self._is_over = False

    def ask(self) -> Job | Need | None:
        """Return a need of a child, the job of a member, or a need of a new member."""
        if self._needs:  # first, so that all children are known before a parent is trained further
            return self._needs[0]
        if self._queue:
            candidate = self._queue.popleft()
            return self._book.begin(Job(candidate, self._book.epochs[candidate], self._rounds[-1].epochs))
        return Need() if self._is_filling else None

    @property
    def num_vacant(self) -> int:
        """Members that are still to be drawn."""
        return self._book.remaining if len(self._rounds) == 1 else 0

    @property
    def _is_filling(self) -> bool:
        return self.num_vacant > 0

    def admit(self, number: int) -> Job:
        """Return the job of a new member or of a child, whichever was asked for."""
        start = 0
        if self._needs:
            if number <= self._book.last_number:
                raise ValueError(f"Candidate {number}: must be above the last one, {self._book.last_number}.")
            self._book.last_number = number
            start = self._needs.popleft().epochs
        else:
            self._book.admit(number)
        self._members.add(number)
        self._awaited.add(number)
        return self._book.begin(Job(number, start, self._rounds[-1].epochs))

    def report(self, candidate: int, epoch: int, values: Values) -> RungDecision:
        """Let a member pause at the end of a round, and stop at the last one."""
        job = self._book.advance(candidate, epoch, values)
        if epoch < job.end:
            return RungDecision(Decision.CONTINUE)
        self._book.leave(candidate)
        self._reach(candidate, values)
        return RungDecision(Decision.STOP if epoch == self.max_epochs else Decision.PAUSE, rung=epoch)

    def end(self, candidate: int, ending: Ending) -> None:
        """Let a member that ended early remain as it is, and forget one that does not count."""
        job = self._book.end(candidate)
        if candidate in self._queue:
            self._queue.remove(candidate)
        if candidate not in self._members:
            return
        if ending is Ending.WITHDRAWN and job is not None and len(self._rounds) == 1:
            self._book.num_counted -= 1
            self._members.remove(candidate)
            self._awaited.remove(candidate)
            self._close_complete_rounds()
            return
        if ending is not Ending.FINISHED:
            self._failed.add(candidate)
        if candidate in self._awaited:
            has_values = ending is Ending.FINISHED and candidate in self._book.last_values
            self._reach(candidate, self._book.last_values[candidate] if has_values else FAILED)

    def end_draws(self) -> None:
        """Take no more members: the population is as large as it is."""
        self._book.has_ended_draws = True
        self._close_complete_rounds()

    def grow(self, num_samples: int) -> None:
        """Take more members, as long as all of them are in their first round."""
        check_grows(num_samples, self.num_samples)
        if len(self._rounds) > 1 or self._is_over:
            super().grow(num_samples)
        self.num_samples = num_samples
        self._book.grow(num_samples)

    def _reach(self, candidate: int, values: Values) -> None:
        """Note that a member is at the end of the round."""
        self._awaited.remove(candidate)
        self._rounds[-1].values[candidate] = values
        self._close_complete_rounds()

    def _close_complete_rounds(self) -> None:
        while not self._is_over and not self._awaited and not self._needs and not self._is_filling:
            if len(self._rounds) == len(self._ends):
                self._is_over = True
            else:
                self._begin_round()

    def _begin_round(self) -> None:
        """Replace the worst members by children of the best ones, and let the others be trained further."""
        closed = self._rounds[-1]
        children = self._children(closed.values)
        self._members -= {child.replaces for child in children}
        self._needs.extend(children)
        running = sorted(self._members - self._book.ended)
        closed.promoted = tuple(running)
        self._queue.extend(running)
        self._awaited |= set(running)
        # Those that ended early remain as they are; those that failed and were not replaced, too.
        remaining = {each: closed.values[each] for each in sorted(self._members & self._book.ended)}
        self._rounds.append(_Round(self._ends[len(self._rounds)], remaining))

    def _children(self, values: dict[int, Values]) -> list[Offspring]:
        """Return the children that the best members have after a round.

        As many as in Ray Tune: the share is rounded up, and at most half of the members are replaced.
        """
        ranked = best_first({each: FAILED if each in self._failed else values[each] for each in sorted(values)})
        count = min(math.ceil(len(ranked) * self._quantile), len(ranked) // 2)
        best = [each for each in ranked[:count] if each not in self._failed and not all(map(math.isnan, values[each]))]
        if not best:
            return []
        worst = {*ranked[len(ranked) - count :], *(self._failed & values.keys())} - set(best)
        rng = np.random.default_rng(derive_seed(self._seed, "parents", len(self._rounds)))
        parents = [best[place] for place in rng.integers(len(best), size=len(worst))]
        return [
            Offspring(parent, self._book.epochs[parent], replaced)
            for parent, replaced in zip(parents, sorted(worst), strict=True)
        ]

    def fidelities(self) -> tuple[int, ...]:
        """Return the ends of all rounds."""
        return tuple(self._ends)

    @property
    def is_done(self) -> bool:
        """Whether the last round is over."""
        return self._is_over

    def may_resume(self, candidate: int) -> bool:
        """Return whether a member may be trained further, or have a child."""
        if any(need.parent == candidate for need in self._needs):
            return True
        has_reached_end = len(self._rounds) == len(self._ends) and candidate not in self._awaited
        return candidate in self._members and candidate not in self._failed and not has_reached_end

    def rungs(self) -> list[Rung]:
        """Return the rounds so far."""
        return [Rung(0, each.epochs, dict(each.values), each.promoted) for each in self._rounds]

    def members(self) -> Sequence[int]:
        """Return the present members, in the order of their numbers."""
        return sorted(self._members)
