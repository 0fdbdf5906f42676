"""The files that a run saves: checkpoints to resume from at any step, its records, its state when asked to stop."""

import errno
import logging
import math
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from base.base_trainer import BaseTrainer, Row, StopRequest, TrainResult
from base.callback import Callback, StepReport
from trainer.checkpoints.resume import RECORDS
from trainer.checkpoints.snapshot import TensorSnapshot
from trainer.runtime.devices import AGREE_EVERY_STEPS, ALONE, World, unwrap
from utils.checkpoint_file import BEST, FORMAT_VERSION, LAST, read_checkpoint, write_checkpoint
from utils.environment import record_signals
from utils.errors import CheckpointError, Diverged
from utils.files import read_json_object, remove_temporary_files, write_json

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
# A checkpoint holds the weights and, for most optimizers, two more numbers for each.
_OPTIMIZER_COPIES = 2
RESULT = "result.json"
LABELLING = ("labelled_images", "labelled_megapixels")
"""Keys of it in a run whose loader hides labels, or counts them with a density of 1."""
logger = logging.getLogger(__name__)


def plain(value: Any) -> Any:
    """Return a value as tensors, lists, dictionaries and plain data, which `weights_only` loading accepts."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, bool | int | float | str | type(None)):
        return value
    if hasattr(value, "item"):  # a scalar of NumPy
        return value.item()
    raise TypeError(f"A checkpoint holds tensors and plain data only, not {type(value).__name__}")


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity."""
    # The least and the largest value are NaN if any is; for 35 MB this takes 3 ms, and `isfinite` on all of it 180 ms.
    floating = {name: each for name, each in tensors.items() if each.is_floating_point() and each.numel()}
    return [name for name, each in floating.items() if not torch.stack(each.aminmax()).isfinite().all()]


def num_checkpoint_files(epochs: int, save_period: int | None) -> int:
    """Return how many checkpoints of a run are on the disk at the same time, at most."""
    # The last, the best, and the one that is being written; and those of every N-th epoch.
    return 3 + (epochs // save_period if save_period else 0)


def pack(trainer: BaseTrainer, config: Mapping[str, Any], data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return everything of a run as the content of a checkpoint; a collective call.

    Args:
        trainer: Has the state.
        config: The completed config.
        data: What tells the samples of the run from others, by split.
    """
    model = unwrap(trainer.model)
    return {
        "format_version": FORMAT_VERSION,
        "arch": type(model).__name__,
        "state_dict": plain(model.state_dict()),
        "monitor_best": trainer.best[trainer.monitor.name] if trainer.best else None,
        "config": plain(config),
        "data": plain(data or {}),
        "scaler": None,
        "ema": None,
        **plain(trainer.state_dict()),  # a trainer with a scaler or an average replaces the None above
        "versions": {"torch": str(torch.__version__)},
    }


@dataclass(eq=False)
class Checkpoints(Callback):
    """Writes `checkpoint-last.pth`, `model_best.pth` and `checkpoint-epoch{N}.pth`.

    The last one is written at each epoch's end, every N steps or minutes, and when a stop is requested. The best
    one and the N-th are copies of it, which a run that dies in between writes when it is resumed. Put this callback
    last in the list: it also saves the state of the others.

    The tensors are copied at once; a thread serialises and writes the copies. Memory is thus needed for one checkpoint.
    A file is in place only when it is complete on the disk, so a kill in between leaves the checkpoint before it. An
    error of the thread is raised by the next save, and by the end of the run.

    Args:
        folder: The run's folder.
        config: The completed config, stored in every checkpoint.
        save_period: Also save every N-th epoch under its number.
        save_every_steps: Also save inside an epoch, every N steps of the run.
        save_every_minutes: Also save inside an epoch, when the last save is this old.
        world: The processes that share the work; the main one writes.
        data: What tells the samples of the run from other data, by split; stored in every checkpoint.
    """

    folder: Path
    config: Mapping[str, Any]
    _: KW_ONLY
    save_period: int | None = None
    save_every_steps: int | None = None
    save_every_minutes: float | None = None
    world: World = ALONE
    data: Mapping[str, Any] = field(default_factory=dict)
    _saved_at: float = field(default_factory=monotonic, init=False)
    _snapshot: TensorSnapshot = field(default_factory=TensorSnapshot, init=False)
    _thread: ThreadPoolExecutor | None = field(default=None, init=False)
    _pending: Future[None] | None = field(default=None, init=False)

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Refuse too little disk before the first step, and find the checkpoints of a resumed run.

        Raises:
            CheckpointError: The checkpoints of this run do not fit.
        """
        self._saved_at = monotonic()
        if self.world.is_main:
            remove_temporary_files(self.folder)
        weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in trainer.model.state_dict().values())
        files = num_checkpoint_files(trainer.epochs, self.save_period)
        needed, free = weight_bytes * (1 + _OPTIMIZER_COPIES) * files, shutil.disk_usage(self.folder).free
        if free < needed:
            raise CheckpointError(
                f"{self.folder}: {free / 1e6:.0f} MB are free. The checkpoints of this run need about "
                f"{needed / 1e6:.0f} MB. Free some space, or name another trainer.save_dir."
            ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # The main process decides, since saving is a collective call: others may see another state of the disk.
        missing = self.world.gather(self._missing_copies(trainer) if self.world.is_main else [])[0]
        if missing:
            self._save(trainer, missing)
            self._wait()
        found = [self.folder / name for name in (BEST, LAST) if (self.folder / name).exists()]
        trainer.checkpoint = found[0] if found else None

    def on_step_end(self, trainer: BaseTrainer, report: StepReport) -> None:
        """Save inside an epoch when it is due."""
        is_due = bool(self.save_every_steps) and trainer.global_step % (self.save_every_steps or 1) == 0
        if self.save_every_minutes is not None and not is_due:
            is_old = monotonic() - self._saved_at >= 60 * self.save_every_minutes
            if self.world.size > 1:  # the clocks differ, but saving is a collective call
                is_agreed = trainer.global_step % AGREE_EVERY_STEPS == 0
                is_old = is_agreed and bool(self.world.largest(int(is_old)))
            is_due = is_old
        if is_due:
            self._save(trainer, [LAST])

    def on_interrupt(self, trainer: BaseTrainer) -> None:
        """Save the current state, and wait until it is on the disk."""
        self._save(trainer, [LAST])
        self._wait()

    def _missing_copies(self, trainer: BaseTrainer) -> list[str]:
        """Return the files of the last epoch that the run, now resumed, could not write any more."""
        if trainer.batch or not trainer.epoch:
            return []
        is_best = trainer.best is not None and trainer.best["epoch"] == trainer.epoch
        if not (self.folder / LAST).exists():  # a new folder, resumed from the best of another one
            return [BEST] if is_best and not (self.folder / BEST).exists() else []
        names = self._copies_of_epoch(trainer, is_best=is_best)
        return [name for name in names if _is_missing_or_older(self.folder / name, trainer.global_step)]

    def _copies_of_epoch(self, trainer: BaseTrainer, *, is_best: bool) -> list[str]:
        """Return the names of the files of the last epoch in addition to the last checkpoint."""
        is_due = self.save_period and trainer.epoch % self.save_period == 0
        return [*([BEST] if is_best else []), *([f"checkpoint-epoch{trainer.epoch}.pth"] if is_due else [])]

    def on_epoch_end(self, trainer: BaseTrainer, metrics: Row) -> None:
        """Save the epoch, also as the best and under its number if it is due."""
        self._save(trainer, [LAST, *self._copies_of_epoch(trainer, is_best=trainer.improved)])
        if trainer.improved or trainer.best is None:
            trainer.checkpoint = self.folder / (BEST if trainer.improved else LAST)

    def on_fit_end(self, trainer: BaseTrainer, result: TrainResult) -> None:
        """Wait until the last checkpoint is on the disk."""
        self._wait()

    def on_close(self, trainer: BaseTrainer) -> None:
        """End the writing: wait for the last checkpoint, and end the thread."""
        try:
            self._wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
            self._thread = None

    def _save(self, trainer: BaseTrainer, names: list[str]) -> None:
        """Write the current state under each of `names`, in this order; it may change as soon as this returns.

        Raises:
            CheckpointError: The one before did not reach the disk.
            Diverged: A weight is not finite.
        """
        content = pack(trainer, self.config, self.data)  # by every process: it gathers their states
        self._saved_at = monotonic()
        if not self.world.is_main:
            return
        broken = not_finite(content["state_dict"])
        if broken:
            raise Diverged(
                f"{broken[0]} and {len(broken) - 1} more weights are not finite after step {trainer.global_step}: a "
                "checkpoint of them would be worthless and was not written. Lower the learning rate; earlier "
                "checkpoints are good."
            )
        self._wait()  # two checkpoints in flight would need twice the disk, and could end in the wrong order
        paths = [self.folder / name for name in names]
        self._thread = self._thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending = self._thread.submit(write_checkpoint, self._snapshot.take(content), paths)

    def _wait(self) -> None:
        """Wait until everything is on the disk; raise `CheckpointError` if the last checkpoint did not reach it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def _is_missing_or_older(path: Path, global_step: int) -> bool:
    """Return whether there is no file, or a checkpoint from before a step; one that cannot be read is left alone."""
    try:
        return not path.exists() or read_checkpoint(path).get("global_step", global_step) < global_step
    except CheckpointError:
        return False


@dataclass(eq=False)
class RunRecords(Callback):
    """Writes the records of a run (config.json, environment.json) and its results (result.json).

    Attributes:
        folder: The run's folder.
        config: The completed config.
        environment: Versions, device, git commit, command.
    """

    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Write config.json and environment.json, unless the run is resumed in a folder that has them."""
        if not trainer.is_main_process:
            return
        for name, content in zip(RECORDS, (self.config, self.environment), strict=True):
            if not (self.folder / name).exists():
                write_json(self.folder / name, content)

    def on_fit_end(self, trainer: BaseTrainer, result: TrainResult) -> None:
        """Write result.json: the best epoch and its results; results of test.py in it are preserved."""
        if not trainer.is_main_process:
            return
        path = self.folder / RESULT
        try:
            earlier = read_json_object(path, CheckpointError)
        except CheckpointError as error:  # the training itself has succeeded
            logger.warning("%s. It is written anew; earlier results of test.py in it are lost.", error)
            earlier = {}
        content = {
            "monitor": f"{trainer.monitor.mode} {trainer.monitor.name}".strip(),
            "best": result.best,
            "last": result.history[-1] if result.history else None,
            "epochs": result.epochs,
            "stopped": trainer.stop_reason,
            "checkpoint": result.checkpoint.name if result.checkpoint else None,
        }
        loader: Any = getattr(trainer, "train_loader", None)
        if (megapixels := getattr(loader, "labelled_megapixels", None)) is not None:
            content |= {"labelled_images": loader.num_samples, "labelled_megapixels": megapixels}
        # A run that is resumed at its end has not read its data again.
        retained = {name: earlier[name] for name in ("test", *LABELLING) if name in earlier and name not in content}
        write_json(path, {**content, **retained})


def stop_at_next_step(trainer: BaseTrainer) -> AbstractContextManager[None]:
    """Let SIGINT, SIGTERM, SIGUSR1 and SIGHUP ask `trainer` to save and stop during a block; a second SIGINT ends it.

    A signal also ends the wait for a batch. Outside the main thread signals cannot be caught and the block changes
    nothing.
    """
    process = os.getpid()

    def ask(number: int) -> None:
        if os.getpid() == process:  # and not a loader worker that has just begun
            trainer.stop_request = StopRequest.from_signal(number)
            trainer.leave_waiting()

    return record_signals(STOP_SIGNALS, lambda: trainer.stop_request is not None, ask)


@dataclass(eq=False)
class TimeLimit(Callback):
    """Saves and ends a run after a number of minutes of this process, at the next step; `--resume auto` continues it.

    Args:
        minutes: How long this process may train; a resumed run may train as long again.
    """

    minutes: float
    _ends_at: float = field(default=math.inf, init=False)

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Start the clock."""
        self._ends_at = monotonic() + 60 * self.minutes

    def on_step_end(self, trainer: BaseTrainer, report: StepReport) -> None:
        """Request a stop when the time is over, unless a signal already has."""
        if monotonic() >= self._ends_at and trainer.stop_request is None:
            logger.info("The %g minutes of trainer.max_time are over: saving. --resume auto continues.", self.minutes)
            trainer.stop_request = StopRequest("max_time is over")
