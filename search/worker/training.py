"""The training of a task: where it starts from, with which callbacks, and in which of several processes."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import train
from base.base_trainer import BaseTrainer
from base.callback import Callback
from build import build_optimizer, build_schedule
from config import trainer_options
from config.foreign import TRACKING_URI, tracking_uri
from search.results.record import MEASURED, parse_constraints, parse_objectives
from search.worker.callbacks import BestByObjective, Report, Reporter, TrainingTime, present_world
from search.worker.fence import Fence
from trainer.checkpoints.resume import lock_run_folder
from trainer.runtime.devices import unwrap
from trainer.runtime.failures import leave_world
from utils.checkpoint_file import BEST, LAST, newest_good, write_checkpoint
from utils.environment import is_disk_full
from utils.errors import CheckpointError, ConfigError

_BEGIN, _START = "begin", "start.pth"  # where a training begins that continues another one
_SECONDS_TO_WAIT = 60.0  # for the end of a worker that was given up


def find_start(task: Mapping[str, Any]) -> str | None:
    """Return the folder or file that a training resumes; None if it starts from the beginning.

    A task with `begins_from` copies the newest checkpoint of that run once, with its own config, so that it begins with
    the same state after a kill, even if the other run has continued.

    Args:
        task: `folder`, `config`, optionally `begins_from`.

    Raises:
        CheckpointError: Another process trains in the folder, or there is no checkpoint to begin with.
    """
    folder, source = Path(task["folder"]), task.get("begins_from")
    folder.mkdir(parents=True, exist_ok=True)
    _wait_for(folder)
    begin = folder / _BEGIN
    if (folder / LAST).exists():
        remove_start(folder)
        return str(folder)
    if source is None or Path(source) == folder:
        # Earlier versions wrote the best checkpoint first: killed in the first epoch, a run may have only that one.
        return str(folder) if any(folder.glob("*.pth")) else None
    remove_checkpoints(folder)
    start = begin / _START
    if not start.exists():
        content = newest_good(Path(source))[1]
        before, now = (_type_of(each.get("optimizer")) for each in (content["config"], task["config"]))
        if before != now:
            raise CheckpointError(
                f"{source}: was trained with {before}, and the task has {now}. A training takes over the state of its "
                "optimizer. Search other values than optimizer.type."
            )
        begin.mkdir(exist_ok=True)
        if (Path(source) / BEST).exists():
            shutil.copyfile(Path(source) / BEST, begin / BEST)
        # Its schedule may have another form, and is moved anew to the same place.
        content |= {"config": dict(task["config"]), "lr_scheduler": None}
        write_checkpoint(content, [start])
    return str(start)


def _wait_for(folder: Path) -> None:
    """Wait until no other process trains in a run folder: one that lost its search takes a moment to end."""
    deadline = time.monotonic() + _SECONDS_TO_WAIT
    while True:
        try:
            with lock_run_folder(folder):
                return
        except CheckpointError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _type_of(section: Any) -> Any:
    return section.get("type") if isinstance(section, Mapping) else section


def remove_start(folder: Path) -> None:
    """Remove the copy of another run's checkpoint that a run began with, as soon as it has one of its own."""
    if (folder / LAST).exists():
        shutil.rmtree(folder / _BEGIN, ignore_errors=True)


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a run."""
    for path in folder.glob("*.pth"):
        path.unlink(missing_ok=True)


@dataclass(eq=False)
class ContinuesAnother(Callback):
    """Gives a training that begins with another run's state the optimizer values and schedule of its own config.

    They are those that a run of this config would have at this place. The weights, the averages of the optimizer, the
    epoch and the history stay.

    Args:
        config: Of the run.
        begin: Folder with the other run's checkpoints.
    """

    config: Mapping[str, Any]
    begin: Path

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Set the values, and take over the best weights so far."""
        optimizer = build_optimizer(self.config, unwrap(trainer.model))
        if trainer.lr_scheduler is not None:
            schedule = build_schedule(self.config, optimizer, trainer.plan, trainer.steps_per_epoch)  # type: ignore[attr-defined]
            assert schedule is not None  # the trainer has one of the same config
            for row in trainer.history:
                for _ in range(trainer.steps_per_epoch):
                    schedule.after("step")
                schedule.after("epoch", row)
            for _ in range(trainer.batch):
                schedule.after("step")
            trainer.lr_scheduler.load_state_dict(schedule.state_dict())
        for group, wanted in zip(trainer.optimizer.param_groups, optimizer.param_groups, strict=True):
            group |= {name: value for name, value in wanted.items() if name != "params"}
        assert trainer.run_folder is not None  # `train` has set it
        best = trainer.run_folder / BEST
        if trainer.is_main_process and (self.begin / BEST).exists() and not best.exists():
            shutil.copyfile(self.begin / BEST, best)
        present_world().gather(None)  # the others look for the file, too


def train_here(task: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Train in this process, alone or as one of several.

    Args:
        task: As for `run_task`; `resume` is the result of `find_start`.
        report: Reports to the search and returns its decision.

    Returns:
        `status` "ended" with `is_finished`, or "failed" with `reason` and `cannot_resume` if the state to resume does
        not fit.

    Raises:
        EspalierError: The training failed.
        Interrupted: A signal asked to stop; the state is saved.
    """
    config, folder, resume, devices = task["config"], Path(task["folder"]), task["resume"], task.get("device")
    names = [each.name for each in parse_objectives(task.get("objectives") or ["max loss"])]
    names += [each.name for each in parse_constraints(task.get("constraints", ()))]
    timer = TrainingTime() if any(name in MEASURED for name in names) else None
    reporter = Reporter(report, task["reported"], task.get("until"), timer)
    callbacks: list[Callback] = [reporter] if timer is None else [timer, reporter]
    if task.get("objectives"):
        best = BestByObjective(task["objectives"], task.get("constraints", ()))
        callbacks += [best] if best.compares_epochs else []
    if resume not in (None, str(folder)):
        callbacks.insert(0, ContinuesAnother(config, Path(resume).parent))
    if task.get("token") is not None:
        saving = {name: trainer_options(config)[name] for name in ("save_every_steps", "save_every_minutes")}
        callbacks.insert(0, Fence(folder, task["token"], **saving))
    named = [f"{TRACKING_URI}={json.dumps(uri)}"] if (uri := tracking_uri(config)) is not None else []
    try:
        if resume is None:
            train.train(config, callbacks, run_folder=folder, devices=devices)
        elif resume == str(folder):
            train.train(None, callbacks, resume=resume, devices=devices, moved=named)
        else:
            train.train(None, callbacks, resume=resume, run_folder=folder, devices=devices, moved=named)
    except CheckpointError as error:
        if resume is None or reporter.has_started or is_disk_full(error):
            raise
        return {"status": "failed", "reason": str(error), "cannot_resume": True}
    return {"status": "ended", "is_finished": not reporter.was_stopped}


def train_as_rank(task: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Train as one of several processes, as torchrun would start them.

    Args:
        task: As for `train_here`, with `rank`, `size` and `rendezvous` (a file that does not exist yet).
        report: Reports to the search; only the main process calls it.

    Raises:
        ConfigError: This machine has fewer GPUs than the task needs.
        EspalierError: The training failed.
    """
    rank, size, device = task["rank"], task["size"], task.get("device")
    local_rank = task["first_device"] + rank
    backend = "gloo"
    if device != "cpu" and torch.cuda.is_available():
        backend, count = "nccl", torch.cuda.device_count()
        if count < size:
            raise ConfigError(
                f"search.resources: gpus {size}, and this machine has {count}. A candidate runs on one machine. Write "
                "at most that many."
            )
        torch.cuda.set_device(local_rank % count if device is None else int(device.removeprefix("cuda:")))
    names = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": local_rank}
    os.environ.update({name: str(value) for name, value in names.items()})
    failure = None
    try:
        # A file needs no free port.
        dist.init_process_group(backend, init_method=f"file://{task['rendezvous']}", rank=rank, world_size=size)
        return train_here(task, report)
    except BaseException as error:
        failure = error
        raise
    finally:
        leave_world(failure)  # if `train` has not
        for name in names:
            os.environ.pop(name, None)
