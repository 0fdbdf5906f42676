"""A guard for the files that the commands of a search write: none of them may replace a file of a study."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from search.study.folders import CONFIG
from search.study.journal import JOURNAL
from utils.errors import ConfigError, SearchError
from utils.files import writing_problem

_SQLITE = b"SQLite format 3\0"


def require_free_output(path: Path, option: str, suffixes: Sequence[str]) -> None:
    """Raise if a file must not be written at `path`.

    Directly in a study's folder only files with the suffixes of the output are written, and nothing in the folders of
    its candidates. An SQLite file is replaced nowhere, since it may be the copy of a journal.

    Args:
        path: The file to create or replace.
        option: The option that named it, for messages.
        suffixes: Of this kind of file, the usual one first.

    Raises:
        ConfigError: The path is of a study, or cannot be written.
    """
    _refuse_files_of_a_study(path, option, suffixes)
    if _starts_as_sqlite(path):
        raise ConfigError(
            f"{option} {path}: it is an SQLite file, maybe a journal, and is not replaced. Name another file, "
            f"e.g. {path.with_suffix(suffixes[0]).name}."
        )


def require_free_database(path: Path, option: str) -> None:
    """Raise if an Optuna storage must not be written to an SQLite file; one that Optuna created may be added to.

    Raises:
        ConfigError: The path is of a study, or of a database of something else, or cannot be written.
    """
    _refuse_files_of_a_study(path, option, (".db", ".sqlite", ".sqlite3"))
    if not path.exists() or path.stat().st_size == 0:
        return
    tables: set[str] = set()
    if _starts_as_sqlite(path):
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as connection:
                tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        except sqlite3.Error:
            pass  # damaged: not to be touched
    if "version_info" not in tables:  # of Optuna
        raise ConfigError(
            f"{option} {path}: it is not a storage of Optuna, and nothing is added to another file. Name a new one."
        )


@contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """Turn an error of the disk into a `SearchError` while the file of an option is written."""
    try:
        yield
    except OSError as error:
        raise SearchError(
            f"{option} {path}: it cannot be written ({error.strerror}). Free some space, or name another file."
        ) from error


def _refuse_files_of_a_study(path: Path, option: str, suffixes: Sequence[str]) -> None:
    """Raise if a path is a file of a study, or could not be written anyway."""
    target = path.resolve()  # a link may lead into a study
    study = next((folder for folder in target.parents if _is_study(folder)), None)
    if study is not None:
        is_ours = target.parent == study and target.suffix.lower() in suffixes
        if not is_ours:
            raise ConfigError(
                f"{option} {path}: it is among the files of the study {study}, which are never overwritten. Name a "
                f"file elsewhere, or one directly in its folder that ends in {' or '.join(suffixes)}."
            )
    if target.name.startswith(JOURNAL):  # by this name a study is found
        raise ConfigError(f"{option} {path}: {JOURNAL} is the name of a study's journal. Name another file.")
    reason = writing_problem(path)
    if reason is None and not path.parent.is_dir():
        reason = f"there is no folder {path.parent}"
    if reason is not None:
        raise ConfigError(f"{option} {path}: it cannot be written ({reason}). Name a file that you may write.")


def _is_study(folder: Path) -> bool:
    """Return whether a folder is that of a study, even if its journal was deleted."""
    return (folder / JOURNAL).exists() or ((folder / CONFIG).exists() and (folder / "candidates").is_dir())


def _starts_as_sqlite(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False
