"""The fence around a run folder: only the worker that got the latest task for it may write there.

A worker that the search has given up may still run: on a machine that lost its network, or in a process that is slow to
end. The search numbers the tasks that it hands out in ascending order, and a worker writes the number of its task into
the run folder. A worker that finds a higher number there stops before it writes anything else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base.base_trainer import BaseTrainer
from base.callback import Callback, StepReport
from search.executors.ownership import owner_of, set_owner
from utils.errors import SearchError


@dataclass(eq=False)
class Fence(Callback):
    """Stops a training whose run folder was given to a later task, before it saves or reports.

    Args:
        folder: The run folder.
        token: Number of the task; those of later tasks are higher.
        save_every_steps: As in the `trainer` section.
        save_every_minutes: As in the `trainer` section.
    """

    folder: Path
    token: int
    save_every_steps: int | None = None
    save_every_minutes: float | None = None

    def claim(self) -> None:
        """Take the run folder.

        Raises:
            SearchError: It belongs to a later task.
        """
        self.check()
        set_owner(self.folder, self.token)

    def check(self) -> None:
        """Raise an error if the run folder belongs to a later task.

        Raises:
            SearchError: It does.
        """
        owner = owner_of(self.folder)
        if owner > self.token:
            raise SearchError(
                f"{self.folder}: task {self.token} was taken over by task {owner}. A run folder has one worker at a "
                "time. Nothing more is written by this one; the search continues with the other."
            )

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Check before the first record."""
        self.check()

    def on_step_end(self, trainer: BaseTrainer, report: StepReport) -> None:
        """Check if a checkpoint may follow."""
        is_due = self.save_every_steps is not None and trainer.global_step % self.save_every_steps == 0
        if is_due or self.save_every_minutes is not None:
            self.check()

    def on_interrupt(self, trainer: BaseTrainer) -> None:
        """Check before the state is saved."""
        self.check()

    def on_epoch_end(self, trainer: BaseTrainer, metrics: Mapping[str, Any]) -> None:
        """Check before the epoch is reported and saved."""
        self.check()
