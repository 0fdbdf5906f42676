"""Saving a run so that it can go on from any step."""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from base.base_trainer import BaseTrainer, Row, TrainResult
from base.callback import Callback, StepReport
from trainer.runtime.devices import ALONE, World, unwrap
from trainer.trainer import AGREE_EVERY_STEPS
from utils.checkpoint_file import BEST, FORMAT_VERSION, LAST, commit_checkpoint, stage_checkpoint
from utils.errors import CheckpointError, Diverged
from utils.files import remove_temporary_files


class CheckpointWriter:
    """Serialises a checkpoint at once and leaves checksum and flushing, which wait for the disk, to a thread.

    At most one is under way: the next one waits for it. Nothing is in place before it is on the disk whole, so a kill
    in between leaves the checkpoint before.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def write(self, paths: Sequence[Path], content: dict[str, Any]) -> None:
        """Write `content` under each of `paths`, in this order; it may change as soon as this returns.

        Raises:
            CheckpointError: This one cannot be serialised to the disk, or the one before did not reach it.
        """
        self.wait()
        staged = stage_checkpoint(paths[-1], content)
        self._thread = self._thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending = self._thread.submit(commit_checkpoint, staged, list(paths))

    def wait(self) -> None:
        """Until everything is on the disk.

        Raises:
            CheckpointError: The last one did not reach the disk.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """`wait`, and end the thread."""
        try:
            self.wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
            self._thread = None


# A checkpoint holds the weights and, for most optimizers, two more numbers for each.
_OPTIMIZER_COPIES = 2


def plain(value: Any) -> Any:
    """The same value as tensors, lists, dictionaries and plain data, which `weights_only` loading accepts."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, bool | int | float | str | type(None)):
        return value
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"A checkpoint holds tensors and plain data only, not {type(value).__name__}")


def pack(trainer: BaseTrainer, config: Mapping[str, Any]) -> dict[str, Any]:
    """Everything of a run as one checkpoint (DESIGN: the checkpoint); a collective call."""
    model = unwrap(trainer.model)
    best = trainer.best[trainer.monitor_name] if trainer.best else None
    return {
        "format_version": FORMAT_VERSION,
        "arch": type(model).__name__,
        "state_dict": plain(model.state_dict()),
        "monitor_best": best,
        "config": plain(config),
        "scaler": None,
        "ema": None,
        **plain(trainer.state_dict()),
        "versions": {"torch": str(torch.__version__)},
    }


class Checkpoints(Callback):
    """Writes `checkpoint-last.pth`, `model_best.pth` and `checkpoint-epoch{N}.pth`.

    The last one is written at each epoch's end, every so many steps or minutes, and when a signal asks to stop. The
    best one and the N-th come before it, so that a run that dies in between writes them again. Put it last in the list
    of callbacks: their state is part of what it saves.

    Args:
        folder: The run's folder.
        config: The resolved config, kept in every checkpoint.
        save_period: Also keep every N-th epoch.
        save_every_steps: Also save in mid-epoch, every N steps of the run.
        save_every_minutes: Also save in mid-epoch, when the last save is this old.
        world: The processes that share the work; the main one writes.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        save_period: int | None = None,
        save_every_steps: int | None = None,
        save_every_minutes: float | None = None,
        world: World = ALONE,
    ) -> None:
        self.folder = folder
        self.config = config
        self.save_period = save_period
        self.save_every_steps = save_every_steps
        self.save_every_minutes = save_every_minutes
        self.world = world
        self._saved_at = monotonic()
        self._writer = CheckpointWriter()

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Find too little disk before the first step, and a run's checkpoints where it goes on.

        Raises:
            CheckpointError: The checkpoints of this run do not fit.
        """
        if self.world.is_main:
            remove_temporary_files(self.folder)
        needed = self._bytes_needed(trainer)
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise CheckpointError(
                f"{self.folder}: {free / 1e6:.0f} MB are free. The checkpoints of this run need about "
                f"{needed / 1e6:.0f} MB. Free some space, or name another trainer.save_dir."
            )
        is_best_epoch = trainer.best is not None and (trainer.best["epoch"], 0) == (trainer.epoch, trainer.batch)
        if is_best_epoch and not (self.folder / BEST).exists():  # a run that goes on from another's best one
            self._save(trainer, [BEST])
            self._writer.wait()
        there = [self.folder / name for name in (BEST, LAST) if (self.folder / name).exists()]
        trainer.checkpoint = there[0] if there else None

    def on_step_end(self, trainer: BaseTrainer, report: StepReport) -> None:
        """Save in mid-epoch where that is due."""
        is_due = bool(self.save_every_steps) and trainer.global_step % (self.save_every_steps or 1) == 0
        if is_due or self._minutes_are_over(trainer):
            self._save(trainer, [LAST])

    def on_interrupt(self, trainer: BaseTrainer) -> None:
        """Save where the run stands, and stay until it is on the disk."""
        self._save(trainer, [LAST])
        self._writer.wait()

    def on_epoch_end(self, trainer: BaseTrainer, metrics: Row) -> None:
        """Save the epoch, as best and under its number where it is due."""
        names = [BEST] if trainer.improved else []
        if self.save_period and trainer.epoch % self.save_period == 0:
            names.append(f"checkpoint-epoch{trainer.epoch}.pth")
        self._save(trainer, [*names, LAST])
        if trainer.improved or trainer.best is None:
            trainer.checkpoint = self.folder / (BEST if trainer.improved else LAST)

    def on_fit_end(self, trainer: BaseTrainer, result: TrainResult) -> None:
        """Stay until the last checkpoint is on the disk."""
        self._writer.wait()

    def on_close(self, trainer: BaseTrainer) -> None:
        """End the writing."""
        self._writer.close()

    def _save(self, trainer: BaseTrainer, names: list[str]) -> None:
        content = pack(trainer, self.config)
        self._saved_at = monotonic()
        if not self.world.is_main:
            return
        broken = [name for name, tensor in content["state_dict"].items() if not _is_finite(tensor)]
        if broken:
            raise Diverged(
                f"{broken[0]} and {len(broken) - 1} more weights are not finite after step {trainer.global_step}: a "
                "checkpoint of them would be worthless and was not written. Lower the learning rate; earlier "
                "checkpoints are good."
            )
        self._writer.write([self.folder / name for name in names], content)

    def _minutes_are_over(self, trainer: BaseTrainer) -> bool:
        if self.save_every_minutes is None:
            return False
        is_over = monotonic() - self._saved_at >= 60 * self.save_every_minutes
        if self.world.size == 1:
            return is_over
        return trainer.global_step % AGREE_EVERY_STEPS == 0 and bool(self.world.largest(int(is_over)))

    def _bytes_needed(self, trainer: BaseTrainer) -> int:
        one: int = sum(tensor.numel() * tensor.element_size() for tensor in trainer.model.state_dict().values())
        kept = 3 + (trainer.epochs // self.save_period if self.save_period else 0)
        return one * (1 + _OPTIMIZER_COPIES) * kept


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
