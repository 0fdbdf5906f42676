"""Runs a scheduler and a sampler over a table of results: the same code as in a search, without training."""

import bisect
import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from search.results.record import Objective, Tally, parse_objectives
from search.samplers.base import Observation, Origin, Sampler
from search.schedulers.base import Decision, Ending, Job, Need, Scheduler, Values
from search.schedulers.ranking import best_first
from search.space.drawn import Drawn
from search.space.space import CANDIDATE_SEEDS
from search.space.table_space import TableSpace, draw_order
from search.tables.table import ResultTable, TableRun
from utils.seeding import derive_seed

MOST_DUPLICATES = 1000  # draws in a row that equal earlier ones: as in `MultiFidelity`


@dataclass(frozen=True)
class SimulatedEpoch:
    """A simulated epoch and the decision of the scheduler.

    Attributes:
        seconds: Simulated time.
        worker: Which one, from 0.
        candidate: Number of the draw.
        setting: Row of the table that was drawn.
        epoch: That was trained.
        value: First objective after it, the larger the better; NaN if it failed.
        decision: Decision of the scheduler; None if the candidate failed.
        values: All objectives after it.
    """

    seconds: float
    worker: int
    candidate: int
    setting: int
    epoch: int
    value: float
    decision: Decision | None
    values: Values = ()


@dataclass
class Simulation:
    """Result of a simulated search.

    Attributes:
        candidate: The one with the best last values, however long it was trained; None if all failed. With
            `is_best_so_far` the values are those of its best epoch.
        setting: Its row of the table.
        epochs: Trained in all.
        seconds: Until the last worker was done.
        trace: Every epoch in the order of its end.
        settings: Row of each candidate by its number.
        origins: Origin of each candidate by its number.
    """

    candidate: int | None = None
    setting: int | None = None
    epochs: int = 0
    seconds: float = 0.0
    trace: list[SimulatedEpoch] = field(default_factory=list)
    settings: dict[int, int] = field(default_factory=dict)
    origins: dict[int, Origin] = field(default_factory=dict)


def simulate(
    scheduler: Scheduler,
    table: ResultTable | ArrayLike,
    *,
    sampler: Sampler | None = None,
    objectives: Sequence[str] | None = None,
    seed: int = 0,
    workers: int = 1,
    epoch_seconds: ArrayLike | None = None,
    startup_seconds: float = 0.0,
    budget: int | None = None,
    max_seconds: float = math.inf,
    is_best_so_far: bool = False,
) -> Simulation:
    """Run a scheduler to its end.

    Args:
        scheduler: In its first state.
        table: The table; or values (S, E) after each epoch of each setting, the larger the better, NaN from where it
            diverged.
        sampler: Proposes rows; its space is the `TableSpace` of the settings of the table. None: a random order that
            follows from the seed.
        objectives: Like `search.objectives`; None: the first result, the larger the better.
        seed: Of the order in which settings are drawn if there is no sampler.
        workers: That train at the same time.
        epoch_seconds: What an epoch costs, of all settings or of each (S,); None: as the table says.
        startup_seconds: What the beginning of a job costs.
        budget: Epochs in all; what runs when they are spent is broken off.
        max_seconds: Simulated time in all; what ends later is broken off.
        is_best_so_far: Whether the scheduler compares the values of the best epoch so far, as a study does; else those
            of the last epoch. The sampler gets the values of each epoch.

    Raises:
        ValueError: The scheduler would train longer than the table knows, or the sampler has another space.
    """
    if not isinstance(table, ResultTable):
        table = ResultTable.of({"value": np.asarray(table, dtype=float)})
    if scheduler.max_epochs > table.epochs:
        raise ValueError(f"max_epochs {scheduler.max_epochs}: the curves have {table.epochs} epochs. Take as many.")
    goals = parse_objectives(objectives or [f"max {next(iter(table.results))}"])
    costs = None if epoch_seconds is None else np.broadcast_to(np.asarray(epoch_seconds, dtype=float), len(table))
    draws = _Draws(sampler, table, scheduler.max_epochs, seed)
    simulator = _Simulator(
        scheduler, table, goals, draws, None if costs is None else costs.tolist(), startup_seconds, budget, max_seconds
    )
    simulator.is_best_so_far = is_best_so_far
    return simulator.run(workers)


@dataclass(order=True)
class _Step:
    """An epoch that is being trained; the earlier ends first, of equals that of the lower worker.

    A job without an epoch, since its training has ended before, takes no time and comes first.
    """

    seconds: float
    has_epoch: bool
    worker: int
    job: Job = field(compare=False)
    epoch: int = field(compare=False)
    run: TableRun = field(compare=False)
    setting: int = field(compare=False)


class _Draws:
    """Draws candidates as `MultiFidelity` does: numbers count what equals an earlier draw, which is not admitted.

    Args:
        sampler: The sampler; None: a random order.
        table: The table.
        max_epochs: Epochs of a full training.
        seed: Of the random order.

    Raises:
        ValueError: The space of the sampler has other rows than the table.
    """

    def __init__(self, sampler: Sampler | None, table: ResultTable, max_epochs: int, seed: int) -> None:
        self._sampler = sampler
        self._max_epochs = max_epochs
        self._num_rows = len(table)
        self._order: list[int] = []
        self.seed_of: Callable[[int], int] = lambda number: derive_seed(seed, CANDIDATE_SEEDS, number) >> 31
        if sampler is None:
            self._order = draw_order(len(table), seed).tolist()
        else:
            if not isinstance(sampler.space, TableSpace) or sampler.space.distinct() != len(table):
                raise ValueError("the sampler has another space than the table. Build it with the TableSpace of it.")
            self._space = sampler.space
            self.seed_of = self._space.seed
        self.num_drawn = 0  # duplicates included
        self._rows: set[int] = set()
        self._drawn: dict[int, Drawn] = {}
        self._origins: dict[int, Origin] = {}
        self._numbers: list[int] = []  # of the observations, ascending
        self._observations: list[Observation] = []
        self._changed: set[int] = set()
        self._values: dict[int, list[Values]] = {}
        self._failed: set[int] = set()
        self._running: set[int] = set()

    def next(self) -> tuple[int, int, Origin] | None:
        """Return number, row and origin of a new candidate; None if there is none."""
        if self._sampler is None:
            if self.num_drawn == self._num_rows:
                return None
            self.num_drawn += 1
            return self.num_drawn - 1, self._order[self.num_drawn - 1], "random"
        for _ in range(MOST_DUPLICATES):
            if len(self._rows) == self._num_rows:
                return None
            self._update()
            waiting = [self._drawn[number] for number in sorted(self._running - self._values.keys())]
            proposed = self._sampler.propose(self.num_drawn, list(self._observations), waiting)
            if proposed is None:
                return None
            drawn = self._space.nearest(proposed.drawn)
            row, number = self._space.row(drawn), self.num_drawn
            self.num_drawn += 1
            if row not in self._rows:
                self._rows.add(row)
                self._drawn[number] = drawn
                self._origins[number] = proposed.origin
                self._running.add(number)
                return number, row, proposed.origin
        return None

    def note(self, number: int, epoch: int, values: Values, decision: Decision) -> None:
        """Note the values after an epoch."""
        if self._sampler is None:
            return
        self._values.setdefault(number, []).append(values)
        self._changed.add(number)
        is_paused = decision is Decision.PAUSE and epoch < self._max_epochs
        if decision is not Decision.CONTINUE and not is_paused:
            self._running.discard(number)

    def note_end(self, number: int, ending: Ending) -> None:
        """Note that a candidate ended by itself, or failed."""
        if self._sampler is None:
            return
        self._running.discard(number)
        self._changed.add(number)
        if ending is Ending.FAILED:
            self._failed.add(number)

    def _update(self) -> None:
        """Bring the observations up to date."""
        for number in self._changed:
            values = tuple(self._values.get(number, ()))
            has_failed, is_running = number in self._failed, number in self._running
            origin = self._origins[number]
            observation = Observation(number, self._drawn[number], values, has_failed, is_running, origin=origin)
            place = bisect.bisect_left(self._numbers, number)
            if place < len(self._numbers) and self._numbers[place] == number:
                self._observations[place] = observation
            else:
                self._numbers.insert(place, number)
                self._observations.insert(place, observation)
        self._changed.clear()


@dataclass
class _Simulator:
    scheduler: Scheduler
    table: ResultTable
    objectives: tuple[Objective, ...]
    draws: _Draws
    epoch_seconds: list[float] | None
    startup_seconds: float
    budget: int | None
    max_seconds: float
    is_best_so_far: bool = False
    result: Simulation = field(default_factory=Simulation)
    last: dict[int, Values] = field(default_factory=dict)
    runs: dict[int, TableRun] = field(default_factory=dict)
    tallies: dict[int, Tally] = field(default_factory=dict)

    def run(self, workers: int) -> Simulation:
        """Let workers train until there is nothing to do, or no epoch or time left."""
        running: list[_Step] = []
        idle = list(range(workers))
        while True:
            while idle and (step := self._next_job(idle[0])):
                heapq.heappop(idle)
                heapq.heappush(running, step)
            if not running or running[0].seconds > self.max_seconds:
                break
            ended = heapq.heappop(running)
            self.result.seconds = ended.seconds
            if self._goes_on(ended) and not self._is_spent:
                heapq.heappush(running, self._step(ended.worker, ended.job, ended.epoch + 1))
            else:
                heapq.heappush(idle, ended.worker)
        if running:
            self.result.seconds = self.max_seconds
        if self.last:  # the candidate whose last values are the best of all
            self.result.candidate = best_first(self.last)[0]
            self.result.setting = self.result.settings[self.result.candidate]
        return self.result

    @property
    def _is_spent(self) -> bool:
        return self.budget is not None and self.result.epochs >= self.budget

    def _next_job(self, worker: int) -> _Step | None:
        """Return the first epoch of the next job; None if there is none now."""
        while not self._is_spent and (asked := self.scheduler.ask()) is not None:
            if isinstance(asked, Need):
                drawn = self.draws.next()
                if drawn is None:
                    self.scheduler.end_draws()
                    continue  # ask again, for a promotion
                number, row, origin = drawn
                asked = self.scheduler.admit(number)
                self.result.settings[number], self.result.origins[number] = row, origin
                self.runs[number] = self.table.run(row, self.draws.seed_of(number))
            return self._step(worker, asked, asked.start + 1, self.startup_seconds)
        return None

    def _step(self, worker: int, job: Job, epoch: int, extra_seconds: float = 0.0) -> _Step:
        run, setting = self.runs[job.candidate], self.result.settings[job.candidate]
        if epoch > run.epochs:
            return _Step(self.result.seconds, False, worker, job, epoch, run, setting)
        self.result.epochs += 1
        cost = run.seconds[epoch - 1] if self.epoch_seconds is None else self.epoch_seconds[setting]
        return _Step(self.result.seconds + extra_seconds + cost, True, worker, job, epoch, run, setting)

    def _goes_on(self, step: _Step) -> bool:
        """Report an epoch to the scheduler; return whether the job goes on."""
        candidate, epoch = step.job.candidate, step.epoch
        if not step.has_epoch:
            self._end(candidate, Ending.FINISHED if epoch > 1 else Ending.FAILED)
            return False
        values = step.run.values(self.objectives)[epoch - 1]
        decision = None
        if any(map(math.isnan, values)):
            self._end(candidate, Ending.FAILED)
        else:
            compared = self._compared(candidate, step.run, epoch, values)
            decision = self.scheduler.report(candidate, epoch, compared).decision
            self.last[candidate] = compared
            self.draws.note(candidate, epoch, values, decision)
        self.result.trace.append(
            SimulatedEpoch(step.seconds, step.worker, candidate, step.setting, epoch, values[0], decision, values)
        )
        if decision is Decision.CONTINUE and epoch == step.run.epochs:
            self._end(candidate, Ending.FINISHED)
            return False
        return decision is Decision.CONTINUE

    def _compared(self, candidate: int, run: TableRun, epoch: int, values: Values) -> Values:
        """Return the values that the scheduler compares."""
        if not self.is_best_so_far:
            return values
        if candidate not in self.tallies:
            self.tallies[candidate] = Tally(self.objectives, run.facts)
        return self.tallies[candidate].add(run.row(epoch))

    def _end(self, candidate: int, ending: Ending) -> None:
        """Note in scheduler and draws that a candidate ended other than by a decision."""
        self.scheduler.end(candidate, ending)
        self.draws.note_end(candidate, ending)
        if ending is Ending.FAILED:
            self.last.pop(candidate, None)
