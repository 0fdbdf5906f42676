"""The schedule of the learning rate: one of torch's schedulers, and the length of the run that it is built for."""

import copy
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from utils.errors import CheckpointError, ConfigError

Interval = Literal["epoch", "step"]
OnMoreEpochs = Literal["refuse", "rescale"]
_LENGTHS = ("total_steps", "T_max", "total_iters")  # torch's schedulers have their length under one of these names


class LearningRateSchedule:
    """One of torch's schedulers, stepped at the right moments.

    Args:
        scheduler: Any of torch's learning-rate schedulers, at its beginning.
        interval: Step after each `"step"` (optimizer update) or `"epoch"`.
        watched: The result that ReduceLROnPlateau follows, e.g. `val_loss`.
        moves: Number of moves in the whole run; None if it is not known.
        follows_run: Whether the scheduler was built for the length of the run.
        outgrown: JSON path and value of a stated length that is shorter than the run; empty if there is none.
        on_more_epochs: What happens to a checkpoint of a run of another length: `"refuse"` it, or `"rescale"`: continue
            at the same position of the curve of the new length.

    Raises:
        ConfigError: ReduceLROnPlateau without a result to watch, or per step.
    """

    def __init__(
        self,
        scheduler: LRScheduler,
        *,
        interval: Interval = "epoch",
        watched: str = "",
        moves: int | None = None,
        follows_run: bool = False,
        outgrown: str = "",
        on_more_epochs: OnMoreEpochs = "refuse",
    ) -> None:
        self.scheduler = scheduler
        self.interval = interval
        self.watched = watched
        self.moves = moves
        self.follows_run = follows_run
        self.outgrown = outgrown
        self.on_more_epochs = on_more_epochs
        if isinstance(scheduler, ReduceLROnPlateau) and (not watched or self.interval == "step"):
            raise ConfigError(
                "lr_scheduler: ReduceLROnPlateau looks at the result of an epoch. It needs trainer.monitor and the "
                'interval "epoch". Set trainer.monitor, for example to "min val_loss".'
            )
        # Many schedulers derive each rate from the one before it, and the optimizer is restored before its schedule.
        self._first_rates = [copy.deepcopy(group["lr"]) for group in scheduler.optimizer.param_groups]

    def after(self, interval: Interval, row: Mapping[str, float] | None = None) -> None:
        """Step the scheduler after a step or an epoch, if that is its interval.

        Args:
            interval: The part of the training that ended.
            row: The results of the epoch.
        """
        if interval != self.interval:
            return
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step((row or {})[self.watched])
            return
        self._move(1)

    def _move(self, count: int) -> None:
        with warnings.catch_warnings():
            # A run resumed at the end of an epoch moves the schedule before this process has made a step.
            warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before")
            for _ in range(count):
                self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state without the functions in it, which the constructor sets again."""
        state = {key: value for key, value in self.scheduler.state_dict().items() if not callable(value)}
        return state if self.moves is None else {**state, "moves_of_run": self.moves}

    def load_state_dict(
        self, state: Mapping[str, Any], *, moves_left: int | None = None, moves_due: int | None = None
    ) -> None:
        """Restore a checkpoint's state, or take its position on the curve of the new length of the run.

        Args:
            state: From `state_dict`.
            moves_left: Number of moves that the run will still make; None if it is not known.
            moves_due: Number of moves that the run would have made by now with its present steps of an epoch.

        Raises:
            CheckpointError: The checkpoint is from a run of another length, which this schedule refuses or cannot take
                over.
        """
        change = self._changed_length(state)
        kind, unchanged = type(self.scheduler).__name__, "Leave trainer.epochs and the steps of an epoch unchanged"
        if change and self.outgrown:
            raise CheckpointError(
                f"{self.outgrown} is shorter than the run, which shall now have {change[2]} moves instead of "
                f"{change[1]}: the learning rate would rise again. {unchanged}, or fine-tune without this length: -c "
                "with --resume FILE."
            )
        if change and self.on_more_epochs == "refuse":
            raise CheckpointError(
                f"The checkpoint's {kind} was built for {change[0]} {change[1]}, the config's for {change[2]}. A "
                f"schedule can only be continued at its original length. {unchanged}, set "
                '"on_more_epochs": "rescale" in lr_scheduler to continue on the curve of the new length, or fine-tune: '
                "-c with --resume FILE."
            )
        # Fewer epochs of more steps may have the same length.
        if not change and self.follows_run and moves_left and moves_due not in (None, _moves_made(state)):
            raise self._other_steps(_moves_made(state), moves_left)
        if not change or moves_left == 0:
            saved = {key: value for key, value in state.items() if key != "moves_of_run"}
            self.scheduler.load_state_dict(_as_built(saved, self.scheduler.state_dict()))
            return
        moves_made = _moves_made(state)
        if None not in (self.moves, moves_left) and moves_made + (moves_left or 0) != self.moves:
            raise self._other_steps(moves_made, moves_left)
        for group, rate in zip(self.scheduler.optimizer.param_groups, self._first_rates, strict=True):
            group["lr"] = rate
        self._move(moves_made)

    def _other_steps(self, moves_made: int, moves_left: int | None) -> CheckpointError:
        kind = type(self.scheduler).__name__
        return CheckpointError(
            f"The checkpoint's {kind} has made {moves_made} moves and {moves_left} are left, but "
            f'a run of this config has {self.moves}: the steps of an epoch have changed. "on_more_epochs" follows '
            "trainer.epochs alone. Use the same data, batch_size and trainer.len_epoch, or fine-tune: -c with --resume "
            "FILE."
        )

    def _changed_length(self, state: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
        """Return the name of a length, its value in a checkpoint, and the config's; None if all are the same."""
        planned, saved = _lengths(self.scheduler.state_dict()), _lengths(state)
        if self.outgrown or self.follows_run:  # a stated length is the same in both, and other classes have other names
            planned["moves"] = self.moves
            saved["moves"] = state.get("moves_of_run", self.moves)  # earlier versions did not save it
        for name in {**planned, **saved}:
            if planned.get(name) != saved.get(name):
                return name.rpartition(".")[2], saved.get(name), planned.get(name)
        return None


def _lengths(state: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Return the lengths in the state of a scheduler and of those that it consists of, by place and name."""
    found = {f"{place}{name}": state[name] for name in _LENGTHS if name in state}
    # SequentialLR and ChainedScheduler have no public attribute with their parts: they are in the state.
    for number, part in enumerate(state.get("_schedulers", ())):
        found |= _lengths(part, f"{place}{number}.")
    return found


def _moves_made(state: Mapping[str, Any]) -> int:
    """Return the number of moves after which a state was saved."""
    # A ChainedScheduler does not count; all of its parts do.
    return int(state["last_epoch"]) if "last_epoch" in state else _moves_made(state["_schedulers"][0])


def _as_built(saved: Mapping[str, Any], built: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved state with the types that a newly built scheduler has, in its parts, too.

    A checkpoint holds plain dictionaries, but MultiStepLR as a part of a chain calls methods of its Counter.
    """
    state = {key: Counter(value) if isinstance(built.get(key), Counter) else value for key, value in saved.items()}
    if "_schedulers" in state:
        pairs = zip(state["_schedulers"], built["_schedulers"], strict=True)
        state["_schedulers"] = [_as_built(*pair) for pair in pairs]
    return state
