"""The time, disk and memory of a whole run, from one step of it, next to what there is."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.checkpoints.saving import num_checkpoint_files
from trainer.inspection.memory import CROWDED, free_memory, memory_findings, size_in_words
from trainer.inspection.trial import StepFacts
from trainer.trainer import Trainer
from utils.durations import duration
from utils.errors import Finding

# Of a checkpoint in addition to its tensors: generators, config, history; and of each tensor its entry in the archive.
_PLAIN_BYTES, _ENTRY_BYTES = 15_000, 250
_SHORT = 60  # seconds, below which tenths are shown
_PREFETCHED = 2  # batches that a loader worker has ready


@dataclass(frozen=True)
class RunForecast:
    """Time, memory and disk that a run will take.

    Against whole runs of shipped configurations (`benchmarks/run_forecast.py`), the size of a checkpoint is exact to
    1 %, and time is as exact as the machine is steady: 0.80 to 1.69 while it had other work. Memory was 0.77 to 0.94 of
    the growth of the process in a version that wrote checkpoints without a copy of the weights. A loader whose
    `n_workers` is "auto" counts as one without workers.

    Attributes:
        epoch_seconds: Of an epoch with its validation, without checkpoints and pictures.
        total_seconds: Of all epochs; early stopping may end them before.
        steps: Steps of the optimizer in an epoch.
        checkpoint_bytes: Of one checkpoint.
        checkpoint_files: Checkpoints on the disk at the same time, at most.
        disk_bytes: Of these.
        free_disk_bytes: Free where the run is saved.
        memory_bytes: Of the device at the worst moment.
        available_bytes: Memory of the device that this run may take.
        findings: Warnings, and a fault if the memory is far too small.
        early_epochs: Epochs at the beginning whose steps do less.
        early_epoch_seconds: As `epoch_seconds`, of one of these; None if there are none.
    """

    epoch_seconds: float
    total_seconds: float
    steps: int
    checkpoint_bytes: int
    checkpoint_files: int
    disk_bytes: int
    free_disk_bytes: int
    memory_bytes: int
    available_bytes: int
    findings: Sequence[Finding] = field(default_factory=tuple)
    early_epochs: int = 0
    early_epoch_seconds: float | None = None


def forecast_run(
    trainer: Trainer,
    facts: StepFacts,
    *,
    save_dir: Path,
    save_period: int | None = None,
    load_seconds: float = 0.0,
    valid_load_seconds: float = 0.0,
    section: str = "train_loader",
) -> RunForecast:
    """Return time, disk and memory of a run.

    Args:
        trainer: Of `build_training`.
        facts: Of `try_step`.
        save_dir: Where run folders are made; it need not exist.
        save_period: As `trainer.save_period`.
        load_seconds: Measured seconds in which this process alone loads a batch of the training.
        valid_load_seconds: The same for the validation.
        section: JSON path of the training loader.
    """
    plan, steps = trainer.plan, trainer.steps_per_epoch
    workers = trainer.train_loader.num_workers
    valid, validation = trainer.valid_loader, 0.0
    if valid is not None and facts.validation_seconds is not None:
        batches = min(len(valid), plan.max_validation_batches or len(valid))
        validation = batches * _with_loading(facts.validation_seconds, valid_load_seconds, valid.num_workers)

    def of_epoch(seconds: float) -> float:
        return steps * _with_loading(seconds, plan.accumulate * load_seconds, workers) + validation

    epoch = of_epoch(facts.seconds)
    early_epochs = 0 if facts.early_seconds is None else trainer.epochs_before_trial
    early_epoch = None if facts.early_seconds is None else of_epoch(facts.early_seconds)
    copies = 1 if trainer.average is None else 2  # of the weights
    checkpoint = copies * facts.weight_bytes + facts.optimizer_bytes + _PLAIN_BYTES
    checkpoint += (copies * facts.weight_tensors + facts.optimizer_tensors) * _ENTRY_BYTES
    files = num_checkpoint_files(trainer.epochs, save_period)
    free_disk = shutil.disk_usage(_existing(save_dir)).free
    memory = facts.peak_bytes
    if plan.precision.device.type == "cpu":
        memory += workers * _PREFETCHED * facts.batch_bytes
        memory += copies * facts.weight_bytes + facts.optimizer_bytes  # the copy from which a checkpoint is written
    available = free_memory(plan.precision.device) + copies * facts.weight_bytes  # these are there already
    findings = [
        *memory_findings(memory, available, facts.input_shape, place=f"{section}.args.batch_size"),
        *disk_findings(files * checkpoint, free_disk, save_dir, files),
    ]
    return RunForecast(
        epoch_seconds=epoch,
        total_seconds=early_epochs * (early_epoch or 0.0) + (trainer.epochs - early_epochs) * epoch,
        steps=steps,
        checkpoint_bytes=checkpoint,
        checkpoint_files=files,
        disk_bytes=files * checkpoint,
        free_disk_bytes=free_disk,
        memory_bytes=memory,
        available_bytes=available,
        findings=tuple(findings),
        early_epochs=early_epochs,
        early_epoch_seconds=early_epoch,
    )


def forecast_text(forecast: RunForecast) -> str:
    """Return a forecast as lines for a reader."""

    def shown(seconds: float) -> str:
        return f"{seconds:.1f} s" if seconds < _SHORT else duration(seconds)

    epoch, early, total = shown(forecast.epoch_seconds), "", duration(forecast.total_seconds)
    if forecast.early_epoch_seconds is not None:
        early = f" ({shown(forecast.early_epoch_seconds)} until epoch {forecast.early_epochs})"
    return "\n".join(
        [
            f"Time:    {epoch} per epoch of {forecast.steps} steps{early}, {total} for all epochs",
            f"Memory:  {size_in_words(forecast.memory_bytes)} of {size_in_words(forecast.available_bytes)}",
            f"Disk:    {size_in_words(forecast.disk_bytes)} of {size_in_words(forecast.free_disk_bytes)} "
            f"({forecast.checkpoint_files} checkpoints of {size_in_words(forecast.checkpoint_bytes)})",
        ]
    )


def disk_findings(needed: float, free: float, folder: Path, files: int) -> list[Finding]:
    """Return a warning if the checkpoints of a run do not fit on the disk, or nearly fill it."""
    if needed <= CROWDED * free:
        return []
    problem = "they do not fit" if needed > free else "little is left"
    message = (
        f"{folder}: the {files} checkpoints of this run need {size_in_words(needed)}, and {size_in_words(free)} are "
        f"free: {problem}. Free some space, name another trainer.save_dir, or raise trainer.save_period."
    )
    return [Finding("config", "trainer.save_dir", message, is_fault=False)]


def _with_loading(seconds: float, loading: float, workers: int) -> float:
    """Return the seconds of a step with its data: loaded in between, or by workers at the same time."""
    return seconds + loading if not workers else max(seconds, loading / workers)


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next((each for each in (folder, *folder.parents) if each.exists()), Path.cwd())
