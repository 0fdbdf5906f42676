"""What every scheduler keeps: how many candidates it may still draw, and what runs."""

from search.schedulers.base import Job, Values
from utils.errors import ConfigError

FAILED: Values = (float("nan"),)
"""Values of a candidate that failed: worse than any other, whatever the number of objectives."""


def check_least(name: str, value: int, least: int) -> None:
    """Refuse an argument that is too small.

    Raises:
        ConfigError: It is below `least`.
    """
    if value < least:
        raise ConfigError(f"{name} {value}: must be at least {least}. Set {name} to {least} or more.")


def check_halving(max_epochs: int, grace_period: int, reduction_factor: int) -> None:
    """Refuse what no rungs can be made of.

    Raises:
        ConfigError: A number is too small, or the first rung lies beyond the end.
    """
    check_least("grace_period", grace_period, 1)
    check_least("reduction_factor", reduction_factor, 2)
    if grace_period > max_epochs:
        raise ConfigError(
            f"grace_period {grace_period}: must be at most the {max_epochs} epochs of a full training. "
            f"Set grace_period to {max_epochs} or less, or train longer."
        )


class Draws:
    """Numbers the candidates and counts those that count.

    Args:
        num_samples: Candidates to draw, without those given back.
    """

    def __init__(self, num_samples: int) -> None:
        self.remaining = num_samples
        self._next = 0
        self.is_ended = False

    def draw(self) -> int:
        """The number of the next candidate."""
        self.remaining -= 1
        self._next += 1
        return self._next - 1

    def give_back(self) -> None:
        """One that was drawn does not count: another may be drawn, unless draws have ended."""
        if not self.is_ended:
            self.remaining += 1

    def end(self) -> None:
        """No more are drawn."""
        self.remaining = 0
        self.is_ended = True


class Runs:
    """The jobs that run, and each candidate's last values."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self._epochs: dict[int, int] = {}
        self._values: dict[int, Values] = {}

    def begin(self, job: Job) -> Job:
        """A job is handed out."""
        self.jobs[job.candidate] = job
        self._epochs[job.candidate] = job.start
        return job

    def advance(self, candidate: int, epoch: int, values: Values) -> Job:
        """A candidate was trained for an epoch more; its job is returned.

        Raises:
            ValueError: It does not run, or this is not its next epoch.
        """
        job = self._job(candidate)
        expected = self._epochs[candidate] + 1
        if epoch != expected:
            raise ValueError(f"Epoch {epoch} of candidate {candidate}: epoch {expected} must be reported next.")
        self._epochs[candidate] = epoch
        self._values[candidate] = values
        return job

    def end(self, candidate: int) -> Job:
        """A candidate does not run any more; its job is returned.

        Raises:
            ValueError: It does not run.
        """
        job = self._job(candidate)
        del self.jobs[candidate]
        return job

    def epochs(self, candidate: int) -> int:
        """Epochs that it was trained for."""
        return self._epochs[candidate]

    def last_values(self, candidate: int) -> Values | None:
        """What it reported last; None before its first report."""
        return self._values.get(candidate)

    def _job(self, candidate: int) -> Job:
        if candidate not in self.jobs:
            raise ValueError(f"Candidate {candidate}: it does not run. Only a job that was handed out is reported.")
        return self.jobs[candidate]
