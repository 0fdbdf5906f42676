"""Callbacks of a training that a search has started: it reports, and its best weights are those by the objective."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Any

import torch
import torch.distributed as dist

from base.base_trainer import BaseTrainer
from base.callback import Callback, StepReport
from search.results.record import MEASURED, Tally, parse_constraints, parse_objectives
from trainer.runtime.devices import ALONE, World

Report = Callable[[dict[str, Any]], str]
CONTINUE = "continue"


def present_world() -> World:
    """Return the processes that share the work of the present training."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return ALONE


@dataclass(eq=False)
class TrainingTime(Callback):
    """Measures the training steps of each epoch, without validation and checkpoints after it.

    On the processor it is the time of this process on all its threads, so that other programs, which make it wait, do
    not count. On a GPU it is the time until the last step is done, less that in which the loop waited for data. Put it
    before the callback that writes checkpoints, with which its times are saved.

    Attributes:
        seconds: Of each epoch so far.
    """

    seconds: list[float] = field(default_factory=list)
    _before: float = field(default=0.0, init=False)  # of this epoch, in an earlier session
    _began: float | None = field(default=None, init=False)
    _waited: float = field(default=0.0, init=False)
    _device: torch.device | None = field(default=None, init=False)

    def typical(self, epochs: int) -> float:
        """Return the median over the first epochs, in seconds per epoch; NaN if they were not measured."""
        return statistics.median(self.seconds[:epochs]) if self.seconds[:epochs] else math.nan

    def on_epoch_start(self, trainer: BaseTrainer) -> None:
        """Begin to measure."""
        weight = next(iter(trainer.model.parameters()), None)
        self._device = weight.device if weight is not None and weight.device.type == "cuda" else None
        self._waited, self._began = 0.0, self._now()

    def on_step_end(self, trainer: BaseTrainer, report: StepReport) -> None:
        """Note how long the step has waited for its data."""
        self._waited += report.data_seconds if self._device is not None else 0.0

    def on_validation_start(self, trainer: BaseTrainer) -> None:
        """Note the time of the epoch."""
        if self._device is not None:
            torch.cuda.synchronize(self._device)
        self._before, self._began = self._spent(), None

    def on_epoch_end(self, trainer: BaseTrainer, metrics: dict[str, float]) -> None:
        """Count the epoch."""
        del self.seconds[trainer.epoch - 1 :]  # a resumed run may train an epoch again
        self.seconds += [self._before] * (trainer.epoch - len(self.seconds))
        self._before = 0.0

    def _now(self) -> float:
        return process_time() if self._device is None else perf_counter()

    def _spent(self) -> float:
        running = 0.0 if self._began is None else self._now() - self._began - self._waited
        return self._before + max(0.0, running)

    def state_dict(self) -> dict[str, Any]:
        """Return the times of the epochs, and of the steps so far in the present one."""
        return {"seconds": list(self.seconds), "before": self._spent()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the times of an earlier session."""
        self.seconds, self._before = list(state["seconds"]), float(state["before"])


@dataclass(eq=False)
class Reporter(Callback):
    """Reports each epoch to the search, and stops the training if the decision says so.

    If the search was killed between a checkpoint and its report, the epochs that it does not know are reported when
    the training is resumed. Of several processes the main one reports, and all of them obey the decision.

    Args:
        report: Reports to the search and returns its decision.
        reported: Epochs that the search knows.
        until: Epochs after which the training is complete; None: until a decision says so.
        timer: Measures the training time, if that is compared; it precedes this callback.

    Attributes:
        has_started: Whether the training could be built and, if it was resumed, restored.
        was_stopped: Whether a decision ended the training before its regular end.
    """

    report: Report
    reported: int
    until: int | None = None
    timer: TrainingTime | None = None
    has_started: bool = field(default=False, init=False)
    was_stopped: bool = field(default=False, init=False)
    _epoch_started: float = field(default=math.nan, init=False)

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Report the names of the results, and epochs that the search does not know."""
        self.has_started = True
        if not self.reported:
            self._decision_on({"names": [*trainer.result_names(), *(MEASURED if self.timer is not None else ())]})
        for row in trainer.history[self.reported :]:
            if self.was_stopped:  # the run is ahead of a journal that was cut: the rest is reported when it continues
                break
            self._report_epoch(trainer, row, math.nan)
        if self.until is not None and trainer.epoch >= self.until:
            self.was_stopped = True
            trainer.request_stop("the search: it was paused or stopped here")
        self._epoch_started = perf_counter()

    def on_epoch_end(self, trainer: BaseTrainer, metrics: dict[str, float]) -> None:
        """Report this epoch with its duration."""
        now = perf_counter()
        seconds, self._epoch_started = now - self._epoch_started, now
        self._report_epoch(trainer, metrics, seconds)

    def _report_epoch(self, trainer: BaseTrainer, row: Mapping[str, float], seconds: float) -> None:
        epoch, results = int(row["epoch"]), dict(row)
        if self.timer is not None:
            results["training_time"] = self.timer.typical(epoch)
        decision = self._decision_on({"epoch": epoch, "row": results, "seconds": seconds})
        if decision != CONTINUE:
            self.was_stopped = True
            trainer.request_stop(f"the search: {decision}")

    def _decision_on(self, message: dict[str, Any]) -> str:
        world = present_world()
        decision = self.report(message) if world.is_main else CONTINUE
        answer: str = world.gather(decision)[0]
        return answer


@dataclass(eq=False)
class BestByObjective(Callback):
    """Lets `model_best.pth` follow the objectives of the search; early stopping still follows `trainer.monitor`.

    Put it before the callback that writes checkpoints. Its state follows from the history of the run.

    Args:
        objectives: Of the search, as in its config; costs are ignored.
        constraints: Of the search; those on costs are ignored.
    """

    objectives: Sequence[str]
    constraints: Sequence[str] = ()
    _tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        goals, bounds = parse_objectives(self.objectives), parse_constraints(self.constraints)
        self._results = [each for each in goals if not each.is_cost]
        self._bounds = [each for each in bounds if not each.is_cost]
        self._tally = Tally(self._results, {}, self._bounds)

    @property
    def compares_epochs(self) -> bool:
        """Whether an objective or a constraint differs between epochs."""
        return bool(self._results or self._bounds)

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Find the best epoch of a resumed run."""
        self._tally = Tally(self._results, {}, self._bounds)
        for row in trainer.history:
            self._is_best(row)

    def on_epoch_end(self, trainer: BaseTrainer, metrics: dict[str, float]) -> None:
        """Say whether this epoch is the best one."""
        trainer.improved = self._is_best(metrics)

    def _is_best(self, row: dict[str, float]) -> bool:
        self._tally.add(row)
        return self._tally.best_epoch == row["epoch"]
