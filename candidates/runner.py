"""The function that a search's workers run: a task of plain data in, an outcome of plain data out.

Whatever a candidate does wrong becomes an outcome; the worker goes on to the next.
"""

import logging
import math
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import test
import train
from base.base_trainer import BaseTrainer, TrainResult
from base.callback import Callback
from candidates.limits import judge
from candidates.warmth import keep_warm
from trainer.weights import weights_of
from utils.checkpoint_file import read_checkpoint
from utils.errors import ConfigError, EspalierError, Interrupted, OutOfMemory
from utils.saved_runs import LAST

logger = logging.getLogger("espalier")

Report = Callable[[dict[str, Any]], str]
CONTINUE = "continue"


def run(task: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Do a task of a search.

    Args:
        task: `kind` ("train" or "retrain"), `config`, `folder` (the run's; it goes on where it has a checkpoint),
            `reported` (epochs that the search knows), `limits` (what to judge before training; None: nothing), and of
            the worker `device` and `threads`.
        report: Tells the search and returns its decision.

    Returns:
        `status`: "ended" (with `is_finished`, `bytes`, for a retraining `test`), "refused" (`reason`, `facts`),
        "interrupted" (`signal`), "out_of_memory" or "failed" (`reason`).
    """
    if task.get("threads"):
        torch.set_num_threads(task["threads"])
    keep_warm()
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
    config, folder = _quiet(task["config"]), Path(task["folder"])
    if task.get("limits") is not None:
        try:
            facts = judge(config, task["limits"])
        except ConfigError as error:
            return {"status": "refused", "reason": _first_line(error), "facts": {}}
        if facts.refusal:
            return {"status": "refused", "reason": facts.refusal, "facts": facts.known()}
        report({"facts": facts.known()})
    reporter = Reporter(report, task["reported"], folder)
    result = train.train(
        config,
        [reporter],
        resume=str(folder) if (folder / LAST).exists() else None,
        run_folder=folder,
        devices=task.get("device"),
    )
    outcome = {"status": "ended", "is_finished": not reporter.was_stopped, "bytes": _checkpoint_bytes(folder)}
    if task["kind"] == "retrain" and outcome["is_finished"]:
        outcome["test"] = _test(result, task.get("device"))
    return outcome


class Reporter(Callback):
    """Tells a search of each epoch, and stops the training where the answer says so.

    Epochs that stand in the checkpoint and that the search does not know of, because it was killed between the two,
    are told when the training goes on.

    Args:
        report: Tells the search and returns its decision.
        reported: Epochs that the search knows.
        folder: The run's.

    Attributes:
        was_stopped: Whether a decision stopped the training, not its own end.
    """

    def __init__(self, report: Report, reported: int, folder: Path) -> None:
        self.report = report
        self.reported = reported
        self.folder = folder
        self.was_stopped = False
        self._begun = perf_counter()

    def on_fit_start(self, trainer: BaseTrainer) -> None:
        """Tell what the search has missed."""
        for row in trainer.history[self.reported :]:
            self._tell(trainer, row, math.nan)
        self._begun = perf_counter()

    def on_epoch_end(self, trainer: BaseTrainer, metrics: dict[str, float]) -> None:
        """Tell of this epoch."""
        now = perf_counter()
        seconds, self._begun = now - self._begun, now
        self._tell(trainer, metrics, seconds)

    def _tell(self, trainer: BaseTrainer, row: Mapping[str, float], seconds: float) -> None:
        decision = self.report(
            {"epoch": int(row["epoch"]), "row": dict(row), "seconds": seconds, "folder": self.folder.name}
        )
        if decision != CONTINUE:
            self.was_stopped = True
            trainer.request_stop(f"the search: {decision}")


def _quiet(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose run leaves a record, but neither prints nor draws."""
    return {**config, "trainer": {**config["trainer"], "verbosity": 0, "tensorboard": False}}


def _test(result: TrainResult, device: str | None) -> dict[str, float]:
    """Results of the best weights on the test data, or on the validation data where there is no other."""
    assert result.checkpoint is not None
    content = read_checkpoint(result.checkpoint)
    config = content["config"]
    split = "test" if config.get("test_loader") is not None else "valid"
    judged = test.test(config, weights_of(content), split=split, devices=device)
    return {f"test_{name}": float(value) for name, value in judged["metrics"].items()}


def _checkpoint_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.pth"))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
