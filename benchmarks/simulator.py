"""Runs a scheduler over tabulated learning curves: the same code as in a search, without training."""

import heapq
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.schedulers.base import Decision, Ending, Job, Need, Scheduler, Values
from search.schedulers.ranking import best_first


@dataclass(frozen=True)
class SimulatedEpoch:
    """A simulated epoch and the decision of the scheduler.

    Attributes:
        seconds: Simulated time.
        worker: Which one, from 0.
        candidate: Number of the draw.
        setting: Row of the table that was drawn.
        epoch: That was trained.
        value: Value after it; NaN if it failed.
        decision: Decision of the scheduler; None if the candidate failed.
    """

    seconds: float
    worker: int
    candidate: int
    setting: int
    epoch: int
    value: float
    decision: Decision | None


@dataclass
class Simulation:
    """Result of a simulated search.

    Attributes:
        candidate: The one with the best last value, however long it was trained; None if all failed.
        setting: Its row of the table.
        epochs: Trained in all.
        seconds: Until the last worker was done.
        trace: Every epoch in the order of its end.
    """

    candidate: int | None = None
    setting: int | None = None
    epochs: int = 0
    seconds: float = 0.0
    trace: list[SimulatedEpoch] = field(default_factory=list)


@dataclass(order=True)
class _Step:
    """An epoch that is being trained; the earlier ends first, of equals that of the lower worker."""

    seconds: float
    worker: int
    job: Job = field(compare=False)
    epoch: int = field(compare=False)


def draw_order(num_settings: int, seed: int) -> NDArray[np.int64]:
    """The setting that each candidate is: candidate i's follows from (seed, i), and none is drawn twice."""
    return np.random.default_rng(seed).permutation(num_settings)


def simulate(
    scheduler: Scheduler,
    curves: ArrayLike,
    *,
    seed: int = 0,
    workers: int = 1,
    epoch_seconds: ArrayLike = 1.0,
    startup_seconds: float = 0.0,
    budget: int | None = None,
) -> Simulation:
    """Run a scheduler to its end.

    Args:
        scheduler: In its first state.
        curves: Values (S, E) after each epoch of each setting, the larger the better; NaN from where it diverged.
        seed: Of the order in which settings are drawn.
        workers: That train at the same time.
        epoch_seconds: What an epoch costs, of all settings or of each (S,).
        startup_seconds: What the beginning of a job costs.
        budget: Epochs in all; what runs when they are spent is broken off.

    Raises:
        ValueError: The scheduler would train longer than the curves are.
    """
    table = np.asarray(curves, dtype=float)
    if scheduler.max_epochs > table.shape[1]:
        raise ValueError(f"max_epochs {scheduler.max_epochs}: the curves have {table.shape[1]} epochs. Take as many.")
    costs = np.broadcast_to(np.asarray(epoch_seconds, dtype=float), len(table))
    simulator = _Simulator(scheduler, table, draw_order(len(table), seed), costs, startup_seconds, budget)
    return simulator.run(workers)


@dataclass
class _Simulator:
    scheduler: Scheduler
    table: NDArray[np.float64]
    order: NDArray[np.int64]
    epoch_seconds: NDArray[np.float64]
    startup_seconds: float
    budget: int | None
    num_drawn: int = 0
    result: Simulation = field(default_factory=Simulation)
    last: dict[int, Values] = field(default_factory=dict)

    def run(self, workers: int) -> Simulation:
        """Let workers train until there is nothing to do or no epoch left."""
        running: list[_Step] = []
        idle = list(range(workers))
        while True:
            while idle and (step := self._next_job(idle[0])):
                heapq.heappop(idle)
                heapq.heappush(running, step)
            if not running:
                break
            ended = heapq.heappop(running)
            self.result.seconds = ended.seconds
            if self._goes_on(ended) and not self._is_spent:
                heapq.heappush(running, self._step(ended.worker, ended.job, ended.epoch + 1))
            else:
                heapq.heappush(idle, ended.worker)
        self._choose()
        return self.result

    @property
    def _is_spent(self) -> bool:
        return self.budget is not None and self.result.epochs >= self.budget

    def _next_job(self, worker: int) -> _Step | None:
        """The first epoch of the next job that can be drawn from the table."""
        if self._is_spent:
            return None
        asked = self.scheduler.ask()
        if isinstance(asked, Need) and self.num_drawn == len(self.table):
            self.scheduler.end_draws()
            asked = self.scheduler.ask()
        if isinstance(asked, Need):
            asked = self.scheduler.admit(self.num_drawn)
            self.num_drawn += 1
        return None if asked is None else self._step(worker, asked, asked.start + 1, self.startup_seconds)

    def _step(self, worker: int, job: Job, epoch: int, extra_seconds: float = 0.0) -> _Step:
        self.result.epochs += 1
        seconds = self.result.seconds + extra_seconds + float(self.epoch_seconds[self.order[job.candidate]])
        return _Step(seconds, worker, job, epoch)

    def _goes_on(self, step: _Step) -> bool:
        """Tell the scheduler what came of an epoch; whether the job goes on."""
        candidate = step.job.candidate
        setting = int(self.order[candidate])
        value = float(self.table[setting, step.epoch - 1])
        decision = None
        if math.isnan(value):
            self.scheduler.end(candidate, Ending.FAILED)
            self.last.pop(candidate, None)
        else:
            decision = self.scheduler.report(candidate, step.epoch, (value,)).decision
            self.last[candidate] = (value,)
        self.result.trace.append(
            SimulatedEpoch(step.seconds, step.worker, candidate, setting, step.epoch, value, decision)
        )
        return decision is Decision.CONTINUE

    def _choose(self) -> None:
        """The candidate whose last value is the best of all."""
        if self.last:
            self.result.candidate = best_first(self.last)[0]
            self.result.setting = int(self.order[self.result.candidate])
