"""The journal: everything that happened in a study, in order, on disk before it is acted upon.

SQLite with a write-ahead log: a killed process loses nothing that was written, and after a power cut the journal ends
earlier but whole. What was lost by that is trained again and comes out the same.
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from utils.errors import SearchError

JOURNAL = "journal.sqlite"
FORMAT_VERSION = 1


class Kind(StrEnum):
    """What an event tells. What each carries beside its candidate stands behind it."""

    BEGIN = "begin"  # a process began to work on the study: environment
    END = "end"  # ... and left it in good order: reason
    DRAW = "draw"  # seed, drawn, key
    DUPLICATE = "duplicate"  # of
    REFUSED = "refused"  # reason, facts
    JOB = "job"  # start, end
    FACTS = "facts"  # facts
    REPORT = "report"  # epoch, row, seconds, decision, rung, cutoff
    JOB_DONE = "job_done"  # epochs, bytes, finished
    FINISHED = "finished"  # it ended by itself: its values stand for all later epochs
    FAILED = "failed"  # reason
    OUT_OF_MEMORY = "out_of_memory"  # reason
    LOST = "lost"  # its worker died or was stopped, and it is begun again: reason, had_begun
    DELETED = "deleted"  # bytes
    NO_MORE_DRAWS = "no_more_draws"  # reason
    SEARCH_DONE = "search_done"  # reason
    RETRAIN = "retrain"  # run, rank, seed, folder, epochs
    RETRAIN_REPORT = "retrain_report"  # run, epoch, row, seconds
    RETRAIN_DONE = "retrain_done"  # run, status, reason
    TESTED = "tested"  # run, metrics
    DONE = "done"  # everything is done: winner


@dataclass(frozen=True)
class Event:
    """One line of the journal.

    Attributes:
        kind: What it tells.
        candidate: Whom it is about; None where it is about the study.
        data: Plain data.
        seconds: Unix time at which it was written.
    """

    kind: Kind
    candidate: int | None
    data: dict[str, Any]
    seconds: float


class Journal:
    """Appends events, one transaction each.

    Args:
        path: The file; made where it is not there.

    Raises:
        SearchError: It is damaged, of another format, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = _connect(path)
        with _explained(path):
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS events "
                "(id INTEGER PRIMARY KEY, seconds REAL NOT NULL, kind TEXT NOT NULL, candidate INTEGER, "
                "data TEXT NOT NULL)"
            )
            self._connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def append(self, kind: Kind, candidate: int | None = None, **data: Any) -> Event:
        """Write one event; it is there for whoever opens the journal after a kill when this returns.

        Raises:
            SearchError: It cannot be written: the disk is full.
        """
        event = Event(kind, candidate, data, time.time())
        with _explained(self.path):
            self._connection.execute(
                "INSERT INTO events (seconds, kind, candidate, data) VALUES (?, ?, ?, ?)",
                (event.seconds, kind.value, candidate, json.dumps(data)),
            )
        return event

    def events(self) -> Iterator[Event]:
        """Every event in order."""
        return _events(self._connection, self.path)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def read_events(path: Path) -> Iterator[Event]:
    """Every event of a journal that may be in use by a search.

    Raises:
        SearchError: It is missing or damaged.
    """
    if not path.is_file():
        raise SearchError(f"{path.parent}: there is no study in it ({path.name} is missing). Name a study's folder.")
    connection = _connect(path)
    try:
        yield from _events(connection, path)
    finally:
        connection.close()


def _events(connection: sqlite3.Connection, path: Path) -> Iterator[Event]:
    with _explained(path):
        for seconds, kind, candidate, data in connection.execute(
            "SELECT seconds, kind, candidate, data FROM events ORDER BY id"
        ):
            yield Event(Kind(kind), candidate, json.loads(data), seconds)


def _connect(path: Path) -> sqlite3.Connection:
    with _explained(path):
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT_VERSION):
            raise SearchError(
                f"{path}: format {version} is not known here, only {FORMAT_VERSION}. Use the version of this project "
                "that wrote it."
            )
        connection.execute("PRAGMA journal_mode = WAL")
        # No wait for the disk at each event: a kill loses nothing, a power cut the last moments, never the order.
        connection.execute("PRAGMA synchronous = NORMAL")
        fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if fault != "ok":
            connection.close()
            raise _damaged(path, fault)
    return connection


class _explained:  # noqa: N801 - used as a function
    """Turn SQLite's errors into ours."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, sqlite3.OperationalError):
            raise SearchError(
                f"{self.path}: the journal cannot be used ({error}). A search writes all that happens there. Free "
                "some space or mend the rights, and go on with --resume auto; nothing that was written is lost."
            ) from error
        if isinstance(error, sqlite3.DatabaseError | ValueError):
            raise _damaged(self.path, str(error)) from error


def _damaged(path: Path, fault: str) -> SearchError:
    return SearchError(
        f"{path}: the journal is damaged ({fault}). It is the record of the study and cannot be guessed. Put back a "
        "copy of it, or start a new search; the candidates' run folders beside it are untouched."
    )
