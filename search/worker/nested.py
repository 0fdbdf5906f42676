"""A search as a task of another study, to compare ways of searching."""

import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.results.leaderboard import winner_of
from search.results.record import StudyRecord
from search.study.best import BEST_FOLDER, CHECKPOINT
from search.study.folders import CONFIG, find_studies, read_study_config
from search.worker.callbacks import Report
from search.worker.launch import open_study
from utils.errors import SearchError

_PARTS_OF_A_CANDIDATE = 4  # of its path: name and time of the study, "candidates", number


def run_search_task(task: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Run a search in this process, or continue it, and report its winner as the results of one epoch.

    The folder of the task gets config and weights of the winner.

    Args:
        task: `config` (a space), `folder`, `reported` and, of the worker, `device`; see `run_task`.
        report: Reports to the study.

    Returns:
        `status` "ended" with `is_finished`, and `test` if the search has retrained and tested its winner: the mean of
        the retrainings.

    Raises:
        EspalierError: The search failed.
        Interrupted: A signal asked to stop; the search is saved.
    """
    config, folder, device = task["config"], Path(task["folder"]), task.get("device")
    executor = {"type": "serial", "args": {} if device is None else {"device": device}}
    trainer = {**config["trainer"], "save_dir": str(folder)}
    options = {**config["search"], "executor": executor}
    if options.get("run_dir") is not None:
        options["run_dir"] = _run_dir_of(folder, config)
    space = {**config, "trainer": trainer, "search": options}
    record = open_study(space, "auto", plugins=task.get("plugins", []), is_condition=True).run()
    winner = winner_of(record)
    if winner is None:
        raise SearchError(f"{record.folder}: the search has no winner. Look into its folder.")
    if not task["reported"]:
        row = next((row for row in winner.reports if row["epoch"] == winner.best_epoch), {})
        results = {name: value for name, value in row.items() if name.startswith("val_")} | winner.objectives
        counts = {
            "candidates": len(record.candidates),
            "candidate_epochs": sum(each.epochs for each in record.candidates),
        }
        report({"epoch": 1, "row": {"epoch": 1, **results, **counts}, "seconds": _seconds_of(record)})
    for name in (CONFIG, CHECKPOINT):
        source = Path(record.folder) / BEST_FOLDER / name
        if source.exists():
            shutil.copyfile(source, folder / name)
    tests = [run.test for run in record.retrained if run.candidate == winner.index and run.test]
    names = tests[0] if tests else {}
    test = {name: statistics.fmean(each[name] for each in tests) for name in names}
    return {"status": "ended", "is_finished": True, "test": test}


def _run_dir_of(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the folder below `search.run_dir` for the runs of a search: another one for each candidate.

    A search that an earlier version began continues with the one that it has.

    Args:
        folder: Of the candidate, `<name>/<time>/candidates/<number>`.
        config: Its space.
    """
    asked = str(config["search"]["run_dir"])
    if any(read_study_config(each)["search"].get("run_dir") == asked for each in find_studies(folder / config["name"])):
        return asked
    return str(Path(asked).joinpath(*folder.parts[-_PARTS_OF_A_CANDIDATE:]))


def _seconds_of(record: StudyRecord) -> float:
    return sum(end - begin for begin, end in record.sessions)
