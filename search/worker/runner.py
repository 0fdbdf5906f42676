"""The function that the workers of a search run: a task of plain data in, an outcome of plain data out.

Every fault of a candidate, of any kind and at any time, becomes an outcome, so that the worker continues with the next
task.
"""

import contextlib
import ctypes
import gc
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

import export
import test
from base.inspection.summary import network_summary
from data_loader.common.image_cache import share_decoded
from search.study.folders import ONNX, checkpoints_of, fold_folder
from search.worker.callbacks import Report
from search.worker.candidate import Limits, build_training_step, check_limits
from search.worker.estimating import costs_of_shapes, estimated_cells
from search.worker.fence import Fence
from search.worker.folds import pooled_results, train_in_folds
from search.worker.nested import run_search_task
from search.worker.ranks import RANK, Ranks, num_processes
from search.worker.training import find_start, remove_checkpoints, remove_start, train_as_rank, train_here
from trainer.checkpoints.saving import LABELLING, RESULT
from utils.checkpoint_file import BEST, LAST, newest_good, read_saved
from utils.environment import available_memory, is_disk_full
from utils.errors import CheckpointError, EspalierError, Interrupted, OutOfMemory
from utils.files import read_json_object
from utils.plugins import load_plugins

logger = logging.getLogger("espalier")

_LONGEST_REASON = 1000  # characters
_SECONDS_OF_MEASURING = 2.0


@contextmanager
def worker() -> Iterator[Callable[[Mapping[str, Any], Report], dict[str, Any]]]:
    """Yield `run_task` for the lifetime of a worker, with a cache of decoded data that its tasks share."""
    ranks = Ranks()
    with share_decoded(available_memory() / 2**20 / 4), contextlib.closing(ranks):
        yield partial(run_task, ranks=ranks)


def run_task(task: Mapping[str, Any], report: Report, *, ranks: Ranks | None = None) -> dict[str, Any]:
    """Run a task of a search.

    Args:
        task: `kind` ("train", "retrain", "search", "measure" for its costs alone, "pool" for the results of the runs
            in `folders` together, "estimate" for the predictions of `estimated_cells`, "shapes" for `costs_of_shapes`;
            these three take nothing else of the following), `config`, `folder` (of the run,
            which is resumed if it has a checkpoint), `reported` (epochs that the search knows), `until` (epochs to
            train in all; None: until a decision says so), `limits` (checked before training; None: unchecked),
            optionally `begins_from` (run folder whose newest checkpoint it begins with), `objectives` and
            `constraints` (of the search: `model_best.pth` is of the epoch that is best by them), `folds` (see
            `train_in_folds`), `token` (see `Fence`), `resources` (`gpus`: processes to train with), `onnx` (whether a
            retraining exports its network), `only_export` (it does nothing else: it was completed before), `plugins`
            and `verbose`, and of the worker `worker`, `device`, `devices`, `threads` and `logs`.
        report: Reports to the search and returns its decision.
        ranks: The processes of this worker for tasks of several; None: started for this task.

    Returns:
        `status`: "ended" (with `is_finished`, `bytes`, `artefacts`, for a retraining with test data `test` and with
        `onnx` the comparison, for a measurement `facts`; of pooled runs only `values`), "refused" (`reason`, `facts`),
        "interrupted" (`signal`), "out_of_memory" or "failed" (`reason`; with `is_disk_full` the task is not the cause).
    """
    outcome: dict[str, Any]
    try:
        outcome = plain_data(_run(task, lambda message: report(plain_data(message)), ranks))
    except Interrupted as stop:
        outcome = {"status": "interrupted", "signal": stop.signal_number}
    except (OutOfMemory, MemoryError, torch.OutOfMemoryError) as error:
        outcome = {"status": "out_of_memory", "reason": _first_line(error), "fresh_worker": True}
    except (Exception, SystemExit) as error:  # also of a plug-in that ends the process
        outcome = _failure(error)
    if task["kind"] == RANK:
        outcome["at"] = time.time()
    try:
        release_memory()
    except Exception as error:  # a GPU after an illegal access answers everything with an error
        logger.warning("The memory of a candidate is not released (%s): its worker is replaced.", _first_line(error))
        outcome["fresh_worker"] = True
    return outcome


def _failure(error: BaseException) -> dict[str, Any]:
    """Return the outcome of a task that ended with an error."""
    reason = _first_line(error)
    if not isinstance(error, EspalierError) and not is_disk_full(error):
        logger.exception("A candidate failed.")
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {reason}"
    return {"status": "failed", "reason": reason} | ({"is_disk_full": True} if is_disk_full(error) else {})


def _run(task: Mapping[str, Any], report: Report, ranks: Ranks | None) -> dict[str, Any]:
    if task.get("threads"):
        torch.set_num_threads(task["threads"])
    load_plugins(task.get("plugins", []))
    if task["kind"] == RANK:
        return train_as_rank(task, report)
    if task["kind"] in ("pool", "shapes"):
        is_pool, device = task["kind"] == "pool", task.get("device")
        found = {"values": pooled_results(task["folders"], device)} if is_pool else costs_of_shapes(task)
        return {"status": "ended", **found}
    if task["kind"] == "estimate":
        return estimated_cells(task, report)
    # The run writes its metrics and checkpoints, but neither prints nor draws.
    trainer_section = {**task["config"]["trainer"], "verbosity": 0, "tensorboard": False, "pictures": 0}
    config = {**task["config"], "trainer": trainer_section}
    task = {**task, "config": config}
    if task["kind"] == "measure":
        return _measure(task)
    if task["kind"] == "search":
        return run_search_task(task, report)
    return _train_and_test(task, report, ranks)


def _measure(task: Mapping[str, Any]) -> dict[str, Any]:
    """Measure the costs of a network."""
    chosen = Limits(input_size=(task.get("limits") or {}).get("input_size"), wants_latency=True)
    facts, refusal = check_limits(task["config"], chosen, devices=task.get("device"), min_seconds=_SECONDS_OF_MEASURING)
    status = {"status": "failed", "reason": refusal} if refusal else {"status": "ended", "is_finished": True}
    return status | {"facts": facts.known()}


def _train_and_test(task: Mapping[str, Any], report: Report, ranks: Ranks | None) -> dict[str, Any]:
    """Train a candidate within its limits, and test it if it is a retraining."""
    if task.get("only_export"):
        return {"status": "ended", "is_finished": True, "onnx": _export_completed(task)}
    config, folder, device, limits = task["config"], Path(task["folder"]), task.get("device"), task.get("limits")
    if limits is not None:
        facts, refusal = check_limits(config, Limits(**limits), devices=device)
        if refusal:
            return {"status": "refused", "reason": refusal, "facts": facts.known()}
        report({"facts": facts.known()})
    if task.get("verbose") and not task["reported"]:
        step = build_training_step(config, device)
        report({"text": network_summary(step.placed_model(), torch.zeros(*step.input_shape))})

    if task.get("token") is not None:
        for number in range(task["folds"]["of"] if task.get("folds") else 1):
            Fence(fold_folder(folder, number), task["token"]).claim()
    if task.get("folds"):
        outcome = train_in_folds(task, report, partial(_train, ranks=ranks))
    else:
        outcome = _train(task, report, ranks)
    if outcome["status"] != "ended":
        return outcome
    artefacts = {name: file for name, file in (("best", BEST), ("last", LAST)) if (folder / file).exists()}
    outcome |= {"bytes": _size_of_checkpoints(folder), "artefacts": artefacts}
    if task["kind"] == "retrain" and outcome["is_finished"]:
        path, content = read_saved(folder)
        result = read_json_object(folder / RESULT, CheckpointError)
        outcome["facts"] = {name: result[name] for name in LABELLING if name in result}
        # Validation data has chosen the candidate and its epoch: no result of it is one of a test.
        if content["config"].get("test_loader") is not None:
            tested = test.evaluate_checkpoint(path, content, "test", devices=device, images=folder / "pictures")
            outcome["test"] = {f"test_{name}": float(value) for name, value in tested["metrics"].items()}
        if task.get("onnx"):
            outcome["onnx"] = _export(folder, task.get("plugins", ()))
    return outcome


def _export_completed(task: Mapping[str, Any]) -> dict[str, Any]:
    """Export the network of a completed training, unless its weights are not there any more; see `_export`."""
    folder = Path(task["folder"])
    try:
        epoch = newest_good(folder)[1].get("epoch")
    except CheckpointError:
        epoch = None
    if epoch != task["reported"]:
        return {
            "reason": f"{folder}: there is no good checkpoint of epoch {task['reported']}, the last one of this "
            "retraining. Put the folder back, or export the weights of best/ with export.py"
        }
    return _export(folder, task.get("plugins", ()))


def _export(folder: Path, plugins: Sequence[str]) -> dict[str, Any]:
    """Write the network of a run as ONNX, and return how it compares, or the reason why it cannot be written."""
    try:
        compared = export.export(folder, folder / ONNX, plugins=plugins)
    except EspalierError as error:
        if is_disk_full(error):
            raise
        return {"reason": _first_line(error)}
    return {"largest_difference": compared.largest_difference, "agreement": compared.agreement}


def _train(task: Mapping[str, Any], report: Report, ranks: Ranks | None) -> dict[str, Any]:
    """Train a task in this process or in several; a state that cannot be resumed is replaced by a new beginning."""

    def run(resume: str | None) -> dict[str, Any]:
        if num_processes(task) == 1:
            return train_here({**task, "resume": resume}, report)
        if ranks is not None:
            return ranks.train({**task, "resume": resume}, report)
        with contextlib.closing(Ranks()) as own:
            return own.train({**task, "resume": resume}, report)

    folder = Path(task["folder"])
    resume = find_start(task)
    outcome = run(resume)
    if outcome.pop("cannot_resume", False) and resume == str(folder):
        logger.warning("%s The candidate is trained from its beginning.", outcome["reason"])
        remove_checkpoints(folder)
        outcome = run(find_start(task))
        outcome.pop("cannot_resume", None)
    remove_start(folder)
    return outcome


def _size_of_checkpoints(folder: Path) -> int:
    """Return the bytes of all checkpoints of a run."""
    total = 0
    for path in checkpoints_of(folder):
        with contextlib.suppress(OSError):  # removed meanwhile
            total += path.stat().st_size
    return total


def plain_data(value: Any) -> Any:
    """Return a message as plain data that every executor and the journal can take.

    Raises:
        TypeError: A value is no number, text, list or object, nor an array of one number.
    """
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(item) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    if hasattr(value, "item"):  # of NumPy or torch
        return plain_data(value.item())
    for kind in (int, float, str):
        if isinstance(value, kind):  # a class of its own
            return kind(value)
    raise TypeError(f"a worker reports a {type(value).__name__}, and only numbers and text can be reported")


def _first_line(error: BaseException) -> str:
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # the error of a plug-in may be faulty itself
        lines = []
    return (lines or [type(error).__name__])[0][:_LONGEST_REASON]


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
