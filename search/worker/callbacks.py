"""Callbacks of a training that a search has started: it reports, and its best weights are those by the objective."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch.distributed as dist

from base.base_trainer import BaseTrainer
from base.callback import Callback
from search.results.record import Tally, parse_constraints, parse_objectives
from trainer.runtime.devices import ALONE, World

Report = Callable[[dict[str, Any]], str]
CONTINUE = "continue"


def present_world() -> World:
    """Return the processes that share the work of the present training."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return ALONE


@dataclass(eq=False)
class Reporter(Callback):
    """Reports each epoch to the search, and stops the training if the decision says so.

    If the search was killed between a checkpoint and its report, the epochs that it does not know are reported when
    the training is resumed. Of several processes the main one reports, and all of them obey the decision.

    Args:
        report: Reports to the search and returns its decision.
        reported: Epochs that the search knows.
        until: Epochs after which the training is complete; None: until a decision says so.

    Attributes:
        has_started: Whether the training could be built and, if it was resumed, restored.
        was_stopped: Whether a decision ended the training before its regular end.
    """

    report: Report
    reported: int
    until: int | None = None
    has_started: bool = field(default=False, init=False)
    was_stopped: bool = field(default=False, init=False)
    _epoch_started: float = field(default=math.nan, init=False)

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Report the names of the results, and epochs that the search does not know."""
        self.has_started = True
        if not self.reported:
            self._decision_on({"names": trainer.result_names()})
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
        decision = self._decision_on({"epoch": int(row["epoch"]), "row": dict(row), "seconds": seconds})
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
        objectives: Of the search, as in its config; facts are ignored.
        constraints: Of the search; those on facts are ignored.
    """

    objectives: Sequence[str]
    constraints: Sequence[str] = ()
    _tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self._results = [each for each in parse_objectives(self.objectives) if not each.is_fact]
        self._bounds = [each for each in parse_constraints(self.constraints) if not each.is_fact]
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
