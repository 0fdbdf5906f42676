"""A scheduler for each generation of a search, so that only candidates of one generation are compared."""

from collections.abc import Callable
from dataclasses import replace

from search.schedulers.base import Ending, Job, Need, Rung, RungDecision, Scheduler, Values, check_grows


class Generations(Scheduler):
    """Schedulers one after the other, each for as many candidates as its generation has.

    A generation is opened when the one before it is done; until then, and before the first, there is no job.

    Args:
        make: Returns a scheduler that has decided nothing yet, for a number of candidates.
        max_epochs: Epochs of a full training.

    Attributes:
        most: Candidates of all generations at most, set by `grow`; None: no limit.
    """

    def __init__(self, make: Callable[[int], Scheduler], max_epochs: int) -> None:
        super().__init__(1, max_epochs)
        self.most: int | None = None
        self._make = make
        self._members: list[Scheduler] = []
        self._of: dict[int, Scheduler] = {}  # by candidate
        self._format: int | None = None

    def open(self, num_candidates: int) -> None:
        """Begin a generation.

        Args:
            num_candidates: Its candidates, at least one.
        """
        member = self._make(num_candidates)
        if self._format is not None:
            member.follow_format(self._format)
        self._members.append(member)

    def follow_format(self, version: int) -> None:
        """Decide by the rules of the time of a journal."""
        self._format = version
        for each in self._members:
            each.follow_format(version)

    def ask(self) -> Job | Need | None:
        """Return the answer of the present generation."""
        return self._members[-1].ask() if self._members else None

    def admit(self, number: int) -> Job:
        """Take a candidate into the present generation."""
        if not self._members:
            raise ValueError(f"Candidate {number}: none is needed. Admit one only in answer to a Need.")
        job = self._members[-1].admit(number)
        self._of[number] = self._members[-1]
        return job

    def report(self, candidate: int, epoch: int, values: Values) -> RungDecision:
        """Compare a candidate within its generation.

        Raises:
            ValueError: It was never admitted.
        """
        return self._member_of(candidate).report(candidate, epoch, values)

    def end(self, candidate: int, ending: Ending) -> None:
        """Note in its generation that a candidate ended other than by a decision."""
        self._member_of(candidate).end(candidate, ending)

    def _member_of(self, candidate: int) -> Scheduler:
        if candidate not in self._of:
            raise ValueError(f"Candidate {candidate}: it does not run. Report only jobs that were given.")
        return self._of[candidate]

    def end_draws(self) -> None:
        """Note that the present generation has no further candidate."""
        if self._members:
            self._members[-1].end_draws()

    def grow(self, num_samples: int) -> None:
        """Allow generations after the present one, until there are more candidates than before.

        Raises:
            ConfigError: They are not more.
        """
        if self.most is not None:
            check_grows(num_samples, self.most)
        self.most = num_samples

    def fidelities(self) -> tuple[int, ...]:
        """Return the epochs after which candidates of a generation are compared."""
        return (self._members[-1] if self._members else self._make(1)).fidelities()

    @property
    def is_done(self) -> bool:
        """Whether the present generation is done; true before the first."""
        return not self._members or self._members[-1].is_done

    def may_resume(self, candidate: int) -> bool:
        """Return whether a candidate of the present generation may be asked for again."""
        member = self._of.get(candidate)
        return member is not None and member is self._members[-1] and member.may_resume(candidate)

    def rungs(self) -> list[Rung]:
        """Return the rungs of all generations, their brackets numbered on."""
        found: list[Rung] = []
        for member in self._members:
            first = 1 + max((rung.bracket for rung in found), default=-1)
            found += [replace(rung, bracket=first + rung.bracket) for rung in member.rungs()]
        return found
