"""How fast the loop goes, and how much of its time it waits for data."""

import torch.distributed

from base.callback import StepReport


class Speedometer:
    """Sums over training steps; adding one costs three additions."""

    def __init__(self) -> None:
        self.steps = 0
        self.samples = 0
        self.seconds = 0.0
        self.data_seconds = 0.0
        is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._processes = torch.distributed.get_world_size() if is_distributed else 1

    def add(self, report: StepReport) -> None:
        """Count one step."""
        self.steps += 1
        self.samples += report.samples
        self.seconds += report.step_seconds
        self.data_seconds += report.data_seconds

    @property
    def samples_per_second(self) -> float:
        """Training samples per second, of all processes; 0 before the first step."""
        return self._processes * self.samples / self.seconds if self.seconds else 0.0

    @property
    def steps_per_second(self) -> float:
        """Training steps per second; 0 before the first step."""
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def data_share(self) -> float:
        """Share of the time spent waiting for the loader, 0..1."""
        return self.data_seconds / self.seconds if self.seconds else 0.0

    def summary(self) -> str:
        """`84.1 samples/s, data 3%`."""
        return f"{self.samples_per_second:.3g} samples/s, data {self.data_share:.0%}"
