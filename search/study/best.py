"""The folder `best/` of a study: the winner, and with several objectives every candidate of the Pareto front."""

import ctypes
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.executors.table import is_tabulated
from search.results.leaderboard import best_results, leaderboard, winner_of
from search.results.record import (
    CandidateRecord,
    RetrainedRecord,
    StudyRecord,
    leading_objective,
    parse_constraints,
    parse_objectives,
)
from search.schedulers.ranking import best_first
from search.strategies.multi_fidelity import candidate_folder
from search.study.folders import CONFIG, ONNX
from utils.errors import SearchError
from utils.files import read_json_object, write_json

BEST_FOLDER = "best"
CHECKPOINT, RESULT = "model_best.pth", "result.json"
_LAST, _IMAGES = "checkpoint-last.pth", "pictures"
_NEW, _OLD = ".best.new", ".best.old"

logger = logging.getLogger("espalier")


@dataclass(frozen=True)
class FrontFolder:
    """A candidate of the front as it is stored.

    Attributes:
        path: Its folder in `best/`.
        candidate: Number of the candidate.
    """

    path: Path
    candidate: int


def write_best(
    study: StudyRecord,
    config_of: Callable[[int], Mapping[str, Any]],
    *,
    retrained_config: Callable[[Mapping[str, Any], int], Mapping[str, Any]],
) -> int | None:
    """Write the winner to `best/`, and with several objectives the Pareto front to `best/0`, `best/1`, ....

    Each folder gets a config for `train.py`, the weights (unless a table was searched), and the results. The winner has
    the weights of its best retraining, if there is one; a candidate of the front those of the epoch whose values are
    reported. The front is in the order of the leaderboard. Everything is written next to `best/`, which is then
    replaced as a whole, so that a kill leaves the old or the new one. Files of the user in `best/` remain.

    Args:
        study: The study.
        config_of: Returns the drawn config of a candidate.
        retrained_config: Returns the config of a retraining for that of its candidate and a seed.

    Returns:
        Number of the winner; None if no candidate has results, and nothing is written.

    Raises:
        SearchError: A file cannot be written, e.g. because the disk is full, or the winner has no retraining.
    """
    winner = winner_of(study)
    if winner is None:
        return None
    if study.result_is_retrained and _best_retraining(study, winner) is None:
        raise _nothing_retrained(study)
    folder = Path(study.folder)
    best, new = folder / BEST_FOLDER, folder / _NEW
    try:
        _recover(folder)
        new.mkdir()
        run = _best_retraining(study, winner)
        config = config_of(winner.index)
        if run is not None:
            config = retrained_config(config, run.seed)
        source = folder / (run.folder if run and run.folder else winner.folder or candidate_folder(winner.index))
        has_weights = not is_tabulated(study.config)
        _write_candidate(new, best, source if has_weights else None, config, _winner_result(study, winner))
        if run is not None and run.onnx and (exported := _source_of(ONNX, source, best, config)) is not None:
            shutil.copyfile(exported, new / ONNX)
        if (source / _IMAGES).is_dir():
            shutil.copytree(source / _IMAGES, new / _IMAGES)
        front = [row.candidate for row in leaderboard(study) if row.is_on_front and len(study.objectives) > 1]
        for place, each in enumerate(front):
            (new / str(place)).mkdir()
            result = {**_result(study, each), "epoch": each.best_epoch}
            source = folder / (each.folder or candidate_folder(each.index))
            # Of several folds none has the weights whose values are reported.
            place_of_weights = source if has_weights and not study.config.get("search", {}).get("folds") else None
            _write_candidate(new / str(place), best / str(place), place_of_weights, config_of(each.index), result)
        _replace(best, new)
        _recover(folder)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise SearchError(
            f"{error.filename or best}: cannot be written ({error.strerror or error}). {best} gets the weights and "
            "configs of the best candidates. Free some space or correct the permissions, and continue with --resume "
            "auto; nothing that was written is lost."
        ) from error
    return winner.index


def earlier_winner(study: StudyRecord) -> int | None:
    """Return the candidate in `best/` if that is not the winner: the study was continued and is not done again.

    Raises:
        SearchError: The file that says so is damaged.
    """
    best, winner = Path(study.folder) / BEST_FOLDER, winner_of(study)
    if winner is None or not (best / RESULT).is_file():
        return None
    stored = _candidate_in(best)
    return None if stored == winner.index else stored


def read_front(folder: Path) -> list[FrontFolder]:
    """Return the stored front of a study in its order; empty if there is none, or the study has one objective.

    Raises:
        SearchError: A file is damaged.
    """
    paths = [path for path in (folder / BEST_FOLDER).glob("*") if path.name.isdecimal() and path.is_dir()]
    return [FrontFolder(path, _candidate_in(path)) for path in sorted(paths, key=lambda path: int(path.name))]


def _candidate_in(folder: Path) -> int:
    """Return the number of the candidate that is stored in a folder.

    Raises:
        SearchError: The file that says so is damaged.
    """

    def damaged(reason: str) -> SearchError:
        return SearchError(f"{reason}. It says which candidate is stored there. Put back a copy of it.")

    candidate = read_json_object(folder / RESULT, damaged).get("candidate")
    if not isinstance(candidate, int):
        raise damaged(f'{folder / RESULT}: its "candidate" is {candidate!r}, not a number')
    return candidate


def require_retrained(study: StudyRecord) -> None:
    """Require a result of a retraining, if there was to be one.

    Raises:
        SearchError: All of them failed.
    """
    if study.retrained and all(run.status == "failed" for run in study.retrained):
        raise _nothing_retrained(study)


def _nothing_retrained(study: StudyRecord) -> SearchError:
    """Return the error of a study whose result is a retraining, and that has none."""
    reasons = [run.reason for run in study.retrained if run.reason]
    last = f"; the last reason: {reasons[-1].rstrip('.')}" if reasons else ""
    if study.result_is_retrained:
        rest = "A candidate of this search is another network than the result. "
    else:
        rest = f"{Path(study.folder) / BEST_FOLDER} has the weights that the search trained. "
    return SearchError(
        f"{study.folder}: none of {len(study.retrained)} retrainings has a result{last}. {rest}Try the config with "
        "train.py, and continue with search.retrain.seeds or top raised and --resume auto."
    )


def _best_retraining(study: StudyRecord, winner: CandidateRecord) -> RetrainedRecord | None:
    """Return the completed retraining with the best validation; the first if all objectives are facts."""
    objectives, constraints = parse_objectives(study.objectives), parse_constraints(study.constraints)
    runs = [each for each in study.retrained if each.candidate == winner.index and each.status == "completed"]
    runs = [each for each in runs if each.reports]
    goal = leading_objective(objectives)
    if goal is not None and runs:
        results = [best_results(run, objectives, constraints, winner.facts).get(goal.name, math.nan) for run in runs]
        runs = [runs[best_first({index: (value * goal.sign,) for index, value in enumerate(results)})[0]]]
    return runs[0] if runs else None


def _result(study: StudyRecord, record: CandidateRecord) -> dict[str, Any]:
    """Return the part of a result.json on a candidate."""
    result: dict[str, Any] = {"candidate": record.index, "objectives": record.objectives, "facts": record.facts}
    if study.constraints:
        result |= {"constraints": study.constraints, "violation": record.violation}
    if record.origin:
        result["origin"] = record.origin
    return {**result, "drawn": dict(record.drawn)}


def _winner_result(study: StudyRecord, winner: CandidateRecord) -> dict[str, Any]:
    objectives, constraints = parse_objectives(study.objectives), parse_constraints(study.constraints)
    retrained = [
        {
            "seed": run.seed,
            "status": run.status,
            "best": best_results(run, objectives, constraints, winner.facts),
            "test": run.test,
        }
        | ({"onnx": run.onnx} if run.onnx else {})
        for run in study.retrained
        if run.candidate == winner.index
    ]
    return {**_result(study, winner), "retrained": retrained}


def _write_candidate(
    target: Path, final: Path, source: Path | None, config: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    """Write config, result and weights of a candidate.

    Args:
        target: An existing folder.
        final: Where it will be, for messages.
        source: The run folder with the weights; None if the candidate was not trained.
        config: The config.
        result: The content of result.json.
    """
    write_json(target / CONFIG, config)
    write_json(target / RESULT, result)
    if source is None:
        return
    checkpoint = next((path for name in (CHECKPOINT, _LAST) if (path := source / name).exists()), None)
    checkpoint = checkpoint or _source_of(CHECKPOINT, source, final, config)
    if checkpoint is None:
        logger.warning(
            "Candidate %s has no checkpoint in %s any more, so that %s holds no weights. Train it with its %s.",
            result["candidate"],
            source,
            final,
            CONFIG,
        )
        return
    try:
        # Checkpoints are only ever replaced, never changed, so that a second name of the file needs no space.
        os.link(checkpoint, target / CHECKPOINT)
    except OSError:
        shutil.copyfile(checkpoint, target / CHECKPOINT)


def _source_of(name: str, source: Path, final: Path, config: Mapping[str, Any]) -> Path | None:
    """Return a file of a run: in its folder, or if the user deleted that, in `best/` if it has the same run.

    Args:
        name: Of the file.
        source: The run folder.
        final: The folder in `best/`, as it was before.
        config: Of the run.
    """
    if (source / name).exists():
        return source / name
    try:
        is_same = read_json_object(final / CONFIG, SearchError) == config
    except SearchError:
        is_same = False
    return final / name if is_same and (final / name).exists() else None


def _replace(best: Path, new: Path) -> None:
    """Move `new` to the place of `best`; the old one, if any, is then at `new` or next to it."""
    if not best.exists():
        new.rename(best)
    elif not _exchange(new, best):
        # A kill between the two lines leaves both, and `_recover` puts the old one back.
        best.rename(best.with_name(_OLD))
        new.rename(best)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; return False where the system or its file system cannot."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    at_fdcwd, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of linux/fcntl.h and linux/fs.h
    return bool(renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), ctypes.c_uint(exchange)) == 0)


def _recover(folder: Path) -> None:
    """Remove traces of a replacement: an unfinished folder, or the old one after its other files were moved to `best/`.

    Raises:
        OSError: A file cannot be moved.
    """
    best = folder / BEST_FOLDER
    if (folder / _OLD).exists() and not best.exists():
        (folder / _OLD).rename(best)
    for left in (folder / _NEW, folder / _OLD):
        if not left.exists():
            continue
        for path in left.iterdir():
            is_ours = path.name in (CONFIG, CHECKPOINT, RESULT, ONNX, _IMAGES) or path.name.isdecimal()
            if not is_ours and best.exists() and not (best / path.name).exists():
                path.rename(best / path.name)
        shutil.rmtree(left)
