"""The function that the workers of a search run: a task of plain data in, an outcome of plain data out.

Every fault of a candidate becomes an outcome, so that the worker continues with the next task.
"""

import contextlib
import ctypes
import gc
import logging
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import test
import train
from base.base_trainer import BaseTrainer
from base.callback import Callback
from base.inspection.summary import network_summary
from data_loader.common.image_cache import share_decoded
from search.worker.candidate import Limits, build_training_step, check_limits
from trainer.checkpoints.resume import weights_of
from utils.checkpoint_file import LAST, read_checkpoint
from utils.environment import available_memory
from utils.errors import CheckpointError, EspalierError, Interrupted, OutOfMemory
from utils.plugins import load_plugins

logger = logging.getLogger("espalier")

Report = Callable[[dict[str, Any]], str]
CONTINUE = "continue"


@contextmanager
def worker() -> Iterator[Callable[[Mapping[str, Any], Report], dict[str, Any]]]:
    """Yield `run_task` for the lifetime of a worker, with a cache of decoded data that its tasks share."""
    with share_decoded(available_memory() / 2**20 / 4):
        yield run_task


def run_task(task: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Run a task of a search.

    Args:
        task: `kind` ("train" or "retrain"), `config`, `folder` (of the run, which is resumed if it has a checkpoint),
            `reported` (epochs that the search knows), `until` (epochs to train in all; None: until a decision says
            so), `limits` (checked before training; None: unchecked), optionally `plugins` and `verbose`, and of the
            worker `device` and `threads`.
        report: Reports to the search and returns its decision.

    Returns:
        `status`: "ended" (with `is_finished`, `bytes`, for a retraining `test`), "refused" (`reason`, `facts`),
        "interrupted" (`signal`), "out_of_memory" or "failed" (`reason`).
    """
    if task.get("threads"):
        torch.set_num_threads(task["threads"])
    load_plugins(task.get("plugins", []))
    try:
        return _check_and_train(task, report)
    except Interrupted as stop:
        return {"status": "interrupted", "signal": stop.signal_number}
    except (OutOfMemory, MemoryError, torch.OutOfMemoryError) as error:
        return {"status": "out_of_memory", "reason": _first_line(error), "fresh_worker": True}
    except EspalierError as error:
        return {"status": "failed", "reason": _first_line(error)}
    except Exception as error:
        logger.exception("A candidate failed.")
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return {"status": "failed", "reason": f"{type(error).__name__} at {place}: {_first_line(error)}"}
    finally:
        release_memory()


def _check_and_train(task: Mapping[str, Any], report: Report) -> dict[str, Any]:
    # The run writes its metrics and checkpoints, but neither prints nor draws.
    trainer_section = {**task["config"]["trainer"], "verbosity": 0, "tensorboard": False, "pictures": 0}
    config = {**task["config"], "trainer": trainer_section}
    folder, device = Path(task["folder"]), task.get("device")

    if task.get("limits") is not None:
        facts, refusal = check_limits(config, Limits(**task["limits"]), devices=device)
        if refusal:
            return {"status": "refused", "reason": refusal, "facts": facts.known()}
        report({"facts": facts.known()})
    if task.get("verbose") and not task["reported"]:
        step = build_training_step(config, device)
        report({"text": network_summary(step.placed_model(), torch.zeros(*step.input_shape))})

    reporter = Reporter(report, task["reported"], task.get("until"))
    result = None
    if (folder / LAST).exists():
        try:
            result = train.train(None, [reporter], resume=str(folder), devices=device)
        except CheckpointError as error:
            logger.warning("%s The candidate is trained from its beginning.", error)
            for path in folder.glob("*.pth"):
                path.unlink()
    if result is None:
        result = train.train(config, [reporter], run_folder=folder, devices=device)
    num_bytes = sum(path.stat().st_size for path in folder.glob("*.pth"))
    outcome = {"status": "ended", "is_finished": not reporter.was_stopped, "bytes": num_bytes}

    if task["kind"] == "retrain" and outcome["is_finished"]:
        assert result.checkpoint is not None  # a finished training has one
        content = read_checkpoint(result.checkpoint)
        # Without test data the result is that of the validation data.
        split = "test" if content["config"].get("test_loader") is not None else "valid"
        images = folder / "pictures"
        tested = test.test(content["config"], weights_of(content), split=split, devices=device, images=images)
        outcome["test"] = {f"test_{name}": float(value) for name, value in tested["metrics"].items()}
    return outcome


@dataclass(eq=False)
class Reporter(Callback):
    """Reports each epoch to the search, and stops the training if the decision says so.

    If the search was killed between a checkpoint and its report, the epochs that it does not know are reported when
    the training is resumed.

    Args:
        report: Reports to the search and returns its decision.
        reported: Epochs that the search knows.
        until: Epochs after which the training is complete; None: until a decision says so.

    Attributes:
        was_stopped: Whether a decision ended the training before its regular end.
    """

    report: Report
    reported: int
    until: int | None = None
    was_stopped: bool = field(default=False, init=False)
    _epoch_started: float = field(default=math.nan, init=False)

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Report the names of the results, and epochs that the search does not know."""
        if not self.reported:
            self.report({"names": trainer.result_names()})
        for row in trainer.history[self.reported :]:
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
        decision = self.report({"epoch": int(row["epoch"]), "row": dict(row), "seconds": seconds})
        if decision != CONTINUE:
            self.was_stopped = True
            trainer.request_stop(f"the search: {decision}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def release_memory() -> None:
    """Release the memory of a training: reference cycles, the GPU's cache, and freed pages of the C library.

    Without it a worker grows by some megabytes with each candidate. The first call declares everything that is loaded
    by then as permanent, so that later calls need not search it.
    """
    gc.collect()
    if gc.get_freeze_count() == 0:
        gc.freeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # only glibc has it
            ctypes.CDLL(None).malloc_trim(0)
