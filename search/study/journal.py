"""The journal: every event of a study, in order, on disk before it takes effect.

It is an SQLite file with a write-ahead log: a killed process loses nothing that was written, and after a power cut the
journal ends earlier but is intact. Work that is lost by that is done again with the same results.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from utils.errors import SearchError

JOURNAL = "journal.sqlite"
FORMAT_VERSION = 1


class Kind(StrEnum):
    """The kind of an event. The comments list its data."""

    BEGIN = "begin"  # a process began to work on the study: environment
    DRAW = "draw"  # seed, drawn, key
    DUPLICATE = "duplicate"  # of
    REFUSED = "refused"  # reason, facts
    JOB = "job"  # start, end
    FACTS = "facts"  # facts
    REPORT = "report"  # epoch, row, seconds, decision, rung, cutoff, with the first epoch folder
    JOB_DONE = "job_done"  # epochs, bytes
    FINISHED = "finished"  # the candidate ended by itself: its values hold for all later epochs
    FAILED = "failed"  # reason
    OUT_OF_MEMORY = "out_of_memory"  # reason
    LOST = "lost"  # the worker died or was stopped, and the job starts again: reason, had_begun
    DELETED = "deleted"  # bytes
    NO_MORE_DRAWS = "no_more_draws"  # reason
    SEARCH_DONE = "search_done"  # reason
    RETRAIN = "retrain"  # run, rank, seed, folder, epochs
    RETRAIN_REPORT = "retrain_report"  # run, epoch, row, seconds
    RETRAIN_DONE = "retrain_done"  # run, status, reason
    TESTED = "tested"  # run, metrics
    DONE = "done"  # the winner is in best/; its candidate is that of the event


# The data that is read again, and its type. Journals of early versions lack others that the comments list.
_REQUIRED: dict[Kind, dict[str, type | tuple[type, ...]]] = {
    Kind.DRAW: {"seed": int, "drawn": list, "key": str},
    Kind.DUPLICATE: {"of": int},
    Kind.JOB: {"start": int, "end": int},
    Kind.FACTS: {"facts": dict},
    Kind.REPORT: {"epoch": int, "row": dict, "seconds": (int, float), "decision": str},
    Kind.LOST: {"had_begun": bool},
    Kind.DELETED: {"bytes": int},
    Kind.SEARCH_DONE: {"reason": str},
    Kind.RETRAIN: {"run": str, "rank": int, "seed": int, "folder": str},
    Kind.RETRAIN_REPORT: {"run": str, "epoch": int, "row": dict, "seconds": (int, float)},
    Kind.RETRAIN_DONE: {"run": str, "status": str, "reason": str},
    Kind.TESTED: {"run": str, "metrics": dict},
}
_OF_STUDY = (Kind.BEGIN, Kind.NO_MORE_DRAWS, Kind.SEARCH_DONE)  # kinds of events without a candidate


@dataclass(frozen=True)
class Event:
    """An entry of the journal.

    Attributes:
        kind: The kind of the event.
        candidate: Number of the candidate; None for an event of the study.
        data: Plain data.
        seconds: Unix time at which it was written.
    """

    kind: Kind
    candidate: int | None
    data: dict[str, Any]
    seconds: float


class Journal:
    """A journal to which events are appended, one transaction each.

    Args:
        path: The file; created if it does not exist.

    Raises:
        SearchError: It is damaged, has an unknown format, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = _connect(path)
        with _sqlite_errors_explained(path):
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS events "
                "(id INTEGER PRIMARY KEY, seconds REAL NOT NULL, kind TEXT NOT NULL, candidate INTEGER, "
                "data TEXT NOT NULL)"
            )
            self._connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def append(self, kind: Kind, candidate: int | None = None, **data: Any) -> Event:
        """Write an event; it survives a kill of this process once this returns.

        Raises:
            SearchError: It cannot be written, e.g. because the disk is full.
        """
        event = Event(kind, candidate, data, time.time())
        with _sqlite_errors_explained(self.path):
            self._connection.execute(
                "INSERT INTO events (seconds, kind, candidate, data) VALUES (?, ?, ?, ?)",
                (event.seconds, kind.value, candidate, json.dumps(data)),
            )
        return event

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def read_events(path: Path) -> Iterator[Event]:
    """Yield every event of a journal, which a search may be writing to.

    Raises:
        SearchError: It is missing or damaged.
    """
    if not os.path.isfile(path):
        raise SearchError(f"{path.parent}: there is no study in it ({path.name} is missing). Name a study's folder.")
    with closing(_connect(path)) as connection, _sqlite_errors_explained(path):
        for number, seconds, kind, candidate, data in connection.execute(
            "SELECT id, seconds, kind, candidate, data FROM events ORDER BY id"
        ):
            try:
                event = Event(Kind(kind), candidate, json.loads(data), seconds)
                _check_event(event)
            except ValueError as error:
                raise ValueError(f"event {number}, {kind!s}: {error}") from error
            yield event


def _check_event(event: Event) -> None:
    """Raise a `ValueError` if an event lacks something that it must have, or has it in another type."""
    if not isinstance(event.data, dict):
        raise ValueError(f"it holds a {type(event.data).__name__}, not an object")
    if not isinstance(event.candidate, int) and event.kind not in _OF_STUDY:
        raise ValueError(f"its candidate is {event.candidate!r}, not a number")
    for key, kind in _REQUIRED.get(event.kind, {}).items():
        if key not in event.data:
            raise ValueError(f'it has no "{key}"')
        if not isinstance(event.data[key], kind):
            raise ValueError(f'its "{key}" is {event.data[key]!r}')


def _connect(path: Path) -> sqlite3.Connection:
    with _sqlite_errors_explained(path):
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
            raise sqlite3.DatabaseError(fault)
    return connection


@contextmanager
def _sqlite_errors_explained(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into a `SearchError`."""
    try:
        yield
    except (sqlite3.DatabaseError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        # Text that cannot be decoded is an error of operation for SQLite.
        if isinstance(error, sqlite3.OperationalError) and "decode" not in reason:
            raise SearchError(
                f"{path}: the journal cannot be used ({reason}). A search writes every event to it. Free some space or "
                "correct the permissions, and continue with --resume auto; nothing that was written is lost."
            ) from error
        raise SearchError(
            f"{path}: the journal is damaged ({reason.partition(' with text ')[0]}). It is the record of the study and "
            "cannot be guessed. Put back a copy of it, or start a new search; the candidates' run folders next to it "
            "are untouched."
        ) from error
