"""The function that a search's workers run: a task of plain data in, an outcome of plain data out.

Whatever a candidate does wrong becomes an outcome; the worker goes on to the next.
"""

import ctypes
import gc
import logging
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import test
import train
from base.base_trainer import BaseTrainer, TrainResult
from base.callback import Callback
from config.checking.classes import load_plugins
from data_loader.common.image_cache import share_decoded
from search.worker.description import network_summary
from search.worker.limits import Limits, judge
from trainer.checkpoints.resume import weights_of
from utils.checkpoint_file import LAST, read_checkpoint
from utils.errors import CheckpointError, EspalierError, Interrupted, OutOfMemory
from utils.hardware import available_memory

logger = logging.getLogger("espalier")

Report = Callable[[dict[str, Any]], str]
CONTINUE = "continue"


@contextmanager
def worker() -> Iterator[Callable[[Mapping[str, Any], Report], dict[str, Any]]]:
    """The life of a worker: decoded data stays from one task to the next."""
    with share_decoded(available_memory() / 2**20 / 4):
        yield run_and_tidy


def run_and_tidy(task: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """`run`, and leave no memory to the next task's loss."""
    try:
        return run(task, report)
    finally:
        release_memory()


def run(task: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Do a task of a search.

    Args:
        task: `kind` ("train" or "retrain"), `config`, `folder` (the run's; it goes on where it has a checkpoint),
            `reported` (epochs that the search knows), `until` (epochs to have in all; None: as the answers say),
            `limits` (what to judge before training; None: nothing), and of the worker `device` and `threads`.
        report: Tells the search and returns its decision.

    Returns:
        `status`: "ended" (with `is_finished`, `bytes`, for a retraining `test`), "refused" (`reason`, `facts`),
        "interrupted" (`signal`), "out_of_memory" or "failed" (`reason`).
    """
    if task.get("threads"):
        torch.set_num_threads(task["threads"])
    load_plugins(task.get("plugins", []))
    try:
        return _run(task, report)
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


def _run(task: Mapping[str, Any], report: Report) -> dict[str, Any]:
    config, folder, device = _quiet(task["config"]), Path(task["folder"]), task.get("device")
    if task.get("limits") is not None:
        refusal = _judge(config, task["limits"], device, report)
        if refusal is not None:
            return refusal
    if task.get("verbose") and not task["reported"]:
        report({"text": network_summary(config, device)})
    reporter = Reporter(report, task["reported"], task.get("until"))
    result = _train(config, folder, reporter, device)
    outcome = {"status": "ended", "is_finished": not reporter.was_stopped, "bytes": _checkpoint_bytes(folder)}
    if task["kind"] == "retrain" and outcome["is_finished"]:
        outcome["test"] = _test(result, device)
    return outcome


def _judge(
    config: Mapping[str, Any], limits: Mapping[str, Any], device: str | None, report: Report
) -> dict[str, Any] | None:
    """Tell what is known of a network before training it; the outcome where that rules it out."""
    wants_latency = limits.get("wants_latency", False)
    limited = Limits(**{name: value for name, value in limits.items() if name != "wants_latency"})
    verdict = judge(config, limited, wants_latency=wants_latency, devices=device)
    if verdict.refusal:
        return {"status": "refused", "reason": verdict.refusal, "facts": verdict.facts.known()}
    report({"facts": verdict.facts.known()})
    return None


def _train(config: dict[str, Any], folder: Path, reporter: "Reporter", device: str | None) -> TrainResult:
    """Begin a run in a folder, or go on with the one that is there."""
    if (folder / LAST).exists():
        try:
            return train.train(None, [reporter], resume=str(folder), devices=device)
        except CheckpointError as error:
            logger.warning("%s The candidate is trained from its beginning.", error)
            for path in folder.glob("*.pth"):
                path.unlink()
    return train.train(config, [reporter], run_folder=folder, devices=device)


class Reporter(Callback):
    """Tells a search of each epoch, and stops the training where the answer says so.

    Epochs that stand in the checkpoint and that the search does not know of, because it was killed between the two,
    are told when the training goes on.

    Args:
        report: Tells the search and returns its decision.
        reported: Epochs that the search knows.
        until: Epochs after which there is nothing more to train; None: as the answers say.

    Attributes:
        was_stopped: Whether a decision stopped the training, not its own end.
    """

    def __init__(self, report: Report, reported: int, until: int | None = None) -> None:
        self.report = report
        self.reported = reported
        self.until = until
        self.was_stopped = False
        self._begun = perf_counter()

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Tell what results there will be, and what the search has missed."""
        if not self.reported:
            self.report({"names": trainer.result_names()})
        for row in trainer.history[self.reported :]:
            self._tell(trainer, row, math.nan)
        if self.until is not None and trainer.epoch >= self.until:
            self._stop(trainer, "it was paused or stopped here")
        self._begun = perf_counter()

    def on_epoch_end(self, trainer: BaseTrainer, metrics: dict[str, float]) -> None:
        """Tell of this epoch."""
        now = perf_counter()
        seconds, self._begun = now - self._begun, now
        self._tell(trainer, metrics, seconds)

    def _tell(self, trainer: BaseTrainer, row: Mapping[str, float], seconds: float) -> None:
        decision = self.report({"epoch": int(row["epoch"]), "row": dict(row), "seconds": seconds})
        if decision != CONTINUE:
            self._stop(trainer, decision)

    def _stop(self, trainer: BaseTrainer, reason: str) -> None:
        self.was_stopped = True
        trainer.request_stop(f"the search: {reason}")


def _quiet(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose run leaves a record, but neither prints nor draws."""
    return {**config, "trainer": {**config["trainer"], "verbosity": 0, "tensorboard": False, "pictures": 0}}


def _test(result: TrainResult, device: str | None) -> dict[str, float]:
    """Results of the best weights on the test data, or on the validation data where there is no other."""
    assert result.checkpoint is not None
    content = read_checkpoint(result.checkpoint)
    config = content["config"]
    split = "test" if config.get("test_loader") is not None else "valid"
    images = result.checkpoint.parent / "pictures"
    judged = test.test(config, weights_of(content), split=split, devices=device, images=images)
    return {f"test_{name}": float(value) for name, value in judged["metrics"].items()}


def _checkpoint_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.pth"))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def release_memory() -> None:
    """Let go of what a training left: rings of objects, the GPU's cache, and pages that the allocator holds back.

    Without it a worker grows by some megabytes with each candidate. The first call takes what is loaded by then for
    permanent, so that later ones need not look through it.
    """
    gc.collect()
    if gc.get_freeze_count() == 0:
        gc.freeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; other libraries have none
        if trim is not None:
            trim(0)
