"""Folders of studies: created with the config of the space, found again, and compared with another config."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from config.faults import Faults, join_path, show
from search.executors.table import is_tabulated
from search.joining.published import journal_to_read
from search.study.journal import JOURNAL, create_journal, last_event
from utils.errors import SearchError
from utils.files import make_stamped_folder, read_json_object, write_text_atomically, writing_problem

CompleteConfig = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From the config of a user to that of a new study, with the values that follow from its seed."""
CONFIG = "config.json"
WORKERS = "workers"  # the folder of their output
FOLD = "fold"  # and the number of the fold: its folder in that of its candidate
# These keys of the search section may change when a study is resumed: they do not change its draws and decisions.
_OPTIONS = ("executor", "budget", "max_epoch_time", "retrain")
_FREE = (*_OPTIONS, "num_samples")  # the last one is a matter of the study's growth


def checkpoints_of(run: Path) -> Iterator[Path]:
    """Yield the checkpoints in a run folder, with those of its further folds."""
    yield from run.glob("*.pth")
    yield from run.glob(f"{FOLD}*/*.pth")


def fold_folder(run: Path, fold: int) -> Path:
    """Return the run folder of a fold: that of the candidate for the first, else one in it."""
    return run / f"{FOLD}{fold}" if fold else run


def create_study_folder(save_dir: str, name: str, config: Mapping[str, Any]) -> Path:
    """Create `<save_dir>/<name>/<YYYYmmdd_HHMMSS>` with the config of the space and a journal in it.

    Raises:
        SearchError: It cannot be created.
    """
    parent = Path(save_dir) / name
    try:
        folder = make_stamped_folder(parent)
        if folder is not None:
            try:
                write_text_atomically(folder / CONFIG, json.dumps(config, indent=2) + "\n")
                create_journal(folder / JOURNAL)
            except BaseException:  # e.g. a full disk: half a study would be continued in the place of a whole one
                shutil.rmtree(folder, ignore_errors=True)
                raise
            return folder
    except OSError as error:
        raise SearchError(
            f"trainer.save_dir: {parent} cannot be written ({error.strerror}). A study is stored below it. Name a "
            "folder that you may write to: trainer.save_dir=FOLDER."
        ) from error
    raise SearchError(f"{parent} holds a thousand studies of this second. Try again.")


def require_place(config: Mapping[str, Any]) -> None:
    """Refuse a config whose study could not be stored; nothing is written.

    Args:
        config: Of the study, checked.

    Raises:
        ConfigError: `trainer.save_dir` or `search.run_dir` cannot be written.
    """
    save_dir, run_dir = config["trainer"].get("save_dir", "saved/"), config.get("search", {}).get("run_dir")
    places = {"trainer.save_dir": save_dir} | ({} if run_dir is None else {"search.run_dir": run_dir})
    faults = Faults()
    for path, folder in places.items():
        parent = Path(folder) / config["name"]
        if problem := writing_problem(parent / "study"):
            faults.add(
                path,
                f"{parent} cannot be written ({problem}). A study is stored below it. Name a folder that you may write "
                f"to: {path}=FOLDER.",
            )
    if faults:
        raise faults.error()


def find_studies(parent: Path) -> list[Path]:
    """Return the studies in a folder or anywhere below it, newest first; only the folder itself if it is one.

    Those in the folder of another study, which are its candidates, are left out. A study is as old as the first event
    of its journal, with any name of its folder.
    """
    if is_study(parent):
        return [parent]
    if not os.path.isdir(parent):
        return []
    folders = {path.parent for path in parent.glob(f"*/**/{CONFIG}") if is_study(path.parent)}
    folders |= {path.parent for path in parent.glob(f"*/**/{JOURNAL}")}
    folders = {folder for folder in folders if folders.isdisjoint(folder.parents)}
    return sorted(folders, key=lambda folder: (_began(folder), folder.name), reverse=True)


CANDIDATES, RETRAINED = "candidates", "retrained"
ONNX = "model.onnx"  # in the folder of a retraining, and in that of the winner


def place_runs(folder: Path, run_dir: str | None) -> None:
    """Let the runs of a study lie elsewhere, e.g. on a share, with links to them in the study's folder.

    Args:
        folder: Folder of the study.
        run_dir: Folder that gets `<name>/<time>/candidates` and `retrained`; None: they stay in the study's folder.

    Raises:
        SearchError: They cannot be created, or another study has its runs there.
    """
    for name in (CANDIDATES, RETRAINED) if run_dir is not None else ():
        link, target = folder / name, Path(run_dir or "").resolve() / folder.parent.name / folder.name / name
        try:
            if target == folder.resolve() / name:
                target.mkdir(exist_ok=True)
            elif link.is_symlink():
                link.resolve().mkdir(parents=True, exist_ok=True)
            elif not link.exists():  # else the study began without it
                _place_anew(link, target)
        except OSError as error:
            raise SearchError(
                f"search.run_dir: {target} cannot be used ({error.strerror}). The runs of candidates are stored there. "
                "Name a folder that this machine and all workers may write to."
            ) from error


def _place_anew(link: Path, target: Path) -> None:
    """Create the folder of runs that a study has not begun yet, and a link to it.

    Raises:
        SearchError: Another study of the same name and second has it.
        OSError: It cannot be created.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target, target_is_directory=True)  # first: if it is killed now, the study continues with the link
    try:
        target.mkdir()
    except OSError as error:
        link.unlink()
        if isinstance(error, FileExistsError):
            raise SearchError(
                f"search.run_dir: {target} holds the runs of another study of this name and time. Start this one again."
            ) from error
        raise


def make_log_folder(folder: Path) -> Path:
    """Return the folder of the output of a study's workers, which is created.

    Raises:
        SearchError: It cannot be created.
    """
    logs = folder / WORKERS
    try:
        logs.mkdir(exist_ok=True)
    except OSError as error:
        raise SearchError(
            f"{logs}: cannot be created ({error.strerror}). The output of the workers is written there. Free some "
            "space, or correct the permissions, and continue with --resume auto."
        ) from error
    return logs


def run_folder(folder: Path, name: str) -> Path:
    """Return the folder of a run as its worker sees it: not through a link, which another machine may not have.

    Args:
        folder: Folder of the study.
        name: Of the run, relative to it.
    """
    path = folder / name
    return path.parent.resolve() / path.name if path.parent.is_symlink() else path


def is_study(folder: Path) -> bool:
    """Return whether a study is in a folder, also one that has lost its journal."""
    if os.path.isfile(folder / JOURNAL):
        return True
    return os.path.isdir(folder / WORKERS) and os.path.isfile(folder / CONFIG)


def _began(folder: Path) -> float:
    """Return the Unix time in seconds of a study's first event; that of its config's file if there is none."""
    journal = journal_to_read(folder).resolve()
    try:
        # `read_events` would check the whole file, and a damaged one must not hide the other studies.
        with closing(sqlite3.connect(f"{journal.as_uri()}?mode=rw", uri=True, timeout=1)) as connection:
            first = connection.execute("SELECT seconds FROM events ORDER BY id LIMIT 1").fetchone()
        if first is not None and isinstance(first[0], int | float):
            return float(first[0])
    except sqlite3.Error:
        pass
    try:
        return (folder / CONFIG).stat().st_mtime
    except OSError:
        return 0.0


def read_study_config(folder: Path) -> dict[str, Any]:
    """Read the config that a study was begun with.

    Raises:
        SearchError: There is no study in the folder, or its config is missing or damaged.
    """
    if not is_study(folder):
        raise SearchError(f"{folder}: there is no study in it. Name a study's folder, <save_dir>/<name>/<time>.")
    config = read_json_object(folder / CONFIG, _damaged_config)
    if not config:
        raise _damaged_config(f"{folder / CONFIG}: cannot be read (it is missing or empty)")
    return config


def session_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a study that may be others in each session, for the event that begins it."""
    search = config.get("search", {})
    return {key: search[key] for key in _OPTIONS if search.get(key) is not None}


def with_present_options(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the config of a study with the options of its newest session.

    Args:
        config: That the study was begun with. Its options remain if the journal has none: it is that of an earlier
            version.
        folder: Of the study.
    """
    options, search = last_event(journal_to_read(folder), "study.begin").get("options"), config.get("search", {})
    if not isinstance(options, Mapping) or not isinstance(search, Mapping):
        return dict(config)
    known = {key: value for key, value in options.items() if key in _OPTIONS}
    search = {key: value for key, value in search.items() if key not in _OPTIONS} | known
    return {**config, "search": search} if search or "search" in config else dict(config)


def read_present_config(folder: Path) -> dict[str, Any]:
    """Read the config of a study as it is now: that of its beginning with the options of its newest session.

    Raises:
        SearchError: There is no study in the folder, or its config is missing or damaged.
    """
    return with_present_options(read_study_config(folder), folder)


def _damaged_config(reason: str) -> SearchError:
    return SearchError(f"{reason}. It defines the space of the study. Put back a copy.")


def as_in_study(stored: Mapping[str, Any], config: Mapping[str, Any], complete: CompleteConfig) -> Mapping[str, Any]:
    """Return a config to compare with that of a study: completed, unless the study began without this.

    Args:
        stored: The config of the study, perhaps of an earlier version, which continues as it began.
        config: From `load_config`.
        complete: Completes the config of a new study.
    """
    return complete(config) if complete(stored) == stored else config


def differences(stored: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return the JSON paths in which two configs differ so that they are not the same search, with both values."""
    return list(_differences(_without_free_keys(stored), _without_free_keys(config), ""))


def changes(stored: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return the JSON paths of the permitted changes in a study that is continued, with both values."""
    return list(_differences(session_options(stored), session_options(config), "search"))


def _without_free_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the keys that may change when its study is resumed."""
    search = config.get("search", {})
    if not isinstance(search, Mapping):  # damaged
        return dict(config)
    table = _table_of(search["executor"]) if is_tabulated(config) else {}
    search = {key: value for key, value in search.items() if key not in _FREE} | table
    if isinstance(search.get("study"), Mapping):
        search["study"] = {key: value for key, value in search["study"].items() if key != "seeds"}
    return {**config, "search": search}


def _table_of(executor: Any) -> dict[str, Any]:
    """Return the part of a table executor's section that may not change: the table, as its rows are the space."""
    args = executor.get("args") if isinstance(executor, Mapping) else None
    fixed = {key: value for key, value in args.items() if key != "workers"} if isinstance(args, Mapping) else args
    return {"executor": {"type": "table", "args": fixed}}


def _differences(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in {**ours, **theirs}:
            inner = join_path(path, key)
            if key not in ours or key not in theirs:
                yield f"{inner} ({'only here' if key in theirs else 'only there'})"
            else:
                yield from _differences(ours[key], theirs[key], inner)
    elif ours != theirs:
        yield f"{path} ({show(ours)} there, {show(theirs)} here)"
