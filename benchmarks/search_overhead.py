"""What a search costs beside the training: a durable report, a study of many candidates, and their checkpoints.

`python benchmarks/search_overhead.py [--candidates 10000]`: candidates without a network run through the whole of a
search in this process, so that nothing but the search is measured; then the study is read, gone on with and reported.
Optuna, where it is installed, reports as many values to SQLite in the same run, alternating. Then studies with two
objectives, whose candidates leave checkpoints of `CHECKPOINT_MB` (sparse files, which fill no disk); the time of
writing these is left out.
"""

import argparse
import importlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from search.cli.study_commands import read_study
from search.executors.serial import Serial
from search.study.folders import create_study_folder
from search.study.journal import Journal, create_journal
from search.study.settings import build_study_parts
from search.study.study import Study

CONFIG: dict[str, Any] = {
    "name": "overhead",
    "trainer": {"epochs": 27, "monitor": "max val_miou"},
    "optimizer": {"type": "AdamW", "args": {"lr": {"$uniform": [0, 1]}}},
    "arch": {"type": "Net", "args": {"width": {"$range": [8, 64]}}},
    "search": {
        "sampler": "random",
        "scheduler": {"type": "ASHA", "args": {"grace_period": 1, "reduction_factor": 3, "mode": "promote"}},
    },
}
ROUNDS = 200
CHECKPOINT_MB = 50
WITH_CHECKPOINTS = (250, 500, 1_000, 2_000)  # candidates
OBJECTIVES = ["max val_miou", "min params"]


@contextmanager
def worker() -> Iterator[Callable[..., dict[str, Any]]]:
    """Workers whose training takes no time."""
    yield train_nothing


def train_nothing(task: Mapping[str, Any], report: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """A curve that follows from the config; a paused candidate goes on where it was."""
    quality, epochs = task["config"]["optimizer"]["args"]["lr"], task["config"]["trainer"]["epochs"]
    for epoch in range(task["reported"] + 1, epochs + 1):
        row = {"epoch": epoch, "loss": 1 - quality, "val_loss": 1 - quality, "val_miou": quality * (1 - 0.5**epoch)}
        if report({"epoch": epoch, "row": row, "seconds": 1.0}) != "continue":
            return {"status": "ended", "is_finished": False, "bytes": 0}
    return {"status": "ended", "is_finished": True, "bytes": 0}


@contextmanager
def saving_worker() -> Iterator[Callable[..., dict[str, Any]]]:
    """Workers whose training takes no time, with parameters as a fact and checkpoints on disk."""
    yield save_and_train_nothing


SAVING: list[tuple[float, float]] = []  # seconds that the worker took for its files, and of the processor


def save_and_train_nothing(task: Mapping[str, Any], report: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """`train_nothing`, with a fact before it and two checkpoints after it."""
    if task.get("limits") is not None:
        report({"facts": {"params": 100 * task["config"]["arch"]["args"]["width"] ** 2}})
    outcome = train_nothing(task, report)
    begun, folder = (time.perf_counter(), time.process_time()), Path(task["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("checkpoint-last.pth", "model_best.pth"):
        with open(folder / name, "wb") as file:
            file.truncate(CHECKPOINT_MB * 2**20)
    SAVING.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    return {**outcome, "bytes": 2 * CHECKPOINT_MB * 2**20}


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """What an action gives, and its seconds."""
    begun = time.perf_counter()
    return action(), time.perf_counter() - begun


def report_milliseconds(folder: Path) -> None:
    """One durable report here and in Optuna, alternating."""
    create_journal(folder / "journal.sqlite")
    journal, ours, theirs = Journal(folder / "journal.sqlite"), [], []
    row = {"epoch": 1, "loss": 0.5, "val_loss": 0.5, "val_miou": 0.5}
    trial = _optuna_trial(folder)
    for number in range(ROUNDS):
        report = {"epoch": number, "row": row, "seconds": 1.0, "decision": "continue", "rung": None, "cutoff": None}
        ours.append(timed(lambda told=report: journal.append("search.report", 0, **told))[1])  # type: ignore[misc]
        if trial is not None:
            theirs.append(timed(lambda step=number: trial.report(0.5, step))[1])  # type: ignore[misc]
    print(f"durable report: {1000 * statistics.median(ours):.3f} ms (median of {ROUNDS})", end="")
    print(f"; Optuna on SQLite {1000 * statistics.median(theirs):.3f} ms" if theirs else "; Optuna is not installed")


def _optuna_trial(folder: Path) -> Any:
    try:
        import optuna
    except ImportError:
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(storage=f"sqlite:///{folder / 'optuna.db'}").ask()


def many_candidates(folder: Path, candidates: int) -> None:
    """A study from its first draw to its report."""
    config = {**CONFIG, "search": {**CONFIG["search"], "num_samples": candidates}}
    study_folder = create_study_folder(str(folder), "overhead", config)

    def run() -> Any:
        parts = replace(build_study_parts(config), executor=Serial())
        return Study(study_folder, parts, worker="benchmarks.search_overhead:worker").run()

    record, seconds = timed(run)
    reports = sum(candidate.epochs for candidate in record.candidates)
    print(f"{candidates} candidates, {reports} reports: {1000 * seconds / reports:.2f} ms of search per report")
    replayed = Study(study_folder, replace(build_study_parts(config), executor=Serial()), worker="")
    print(f"replay with hashes checked: {timed(replayed.restore)[1]:.2f} s; resume: {timed(run)[1]:.2f} s")
    study, seconds = timed(lambda: read_study(study_folder))
    print(f"read, as list does: {seconds:.2f} s")
    from search.report.page import write_report

    _, seconds = timed(lambda: write_report(study, folder / "report.html"))
    print(f"report: {seconds:.2f} s; largest memory of this process {_megabytes():.0f} MB")


def with_checkpoints(folder: Path, candidates: int, disk_mb: int | None = None) -> None:
    """A study with two objectives and checkpoints on disk."""
    search = {**CONFIG["search"], "num_samples": candidates, "objectives": OBJECTIVES, "budget": {"disk_mb": disk_mb}}
    config = {**CONFIG, "search": search}
    study_folder = create_study_folder(str(folder), f"checkpoints{candidates}_{disk_mb}", config)
    saving = importlib.import_module("benchmarks.search_overhead").SAVING  # not __main__: where the worker is
    saving.clear()
    parts = replace(build_study_parts(config), executor=Serial())
    study = Study(study_folder, parts, worker="benchmarks.search_overhead:saving_worker")
    begun = time.process_time()
    record, seconds = timed(study.run)
    processor = time.process_time() - begun - sum(each for _, each in saving)
    seconds -= sum(each for each, _ in saving)
    reports = sum(candidate.epochs for candidate in record.candidates)
    left = sum(1 for _ in study_folder.glob("candidates/*/checkpoint-last.pth"))
    print(
        f"{candidates} candidates, two objectives, checkpoints on disk, budget {disk_mb} MB: {reports} reports, "
        f"{1000 * seconds / reports:.2f} ms of search per report, {1000 * processor / reports:.2f} ms of the "
        f"processor; {left} keep their checkpoints"
    )


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        report_milliseconds(Path(scratch))
        many_candidates(Path(scratch), arguments.candidates)
        for candidates in WITH_CHECKPOINTS:
            with_checkpoints(Path(scratch), candidates)
        with_checkpoints(Path(scratch), WITH_CHECKPOINTS[-1], disk_mb=100 * CHECKPOINT_MB)


if __name__ == "__main__":
    main()
