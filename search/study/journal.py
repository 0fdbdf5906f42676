"""The journal: every event of a study, in order, on disk before it takes effect.

It is an SQLite file with a write-ahead log: a killed process loses nothing that was written, and after a power cut the
journal ends earlier but is intact. Work that is lost by that is done again with the same results.

Each row holds a hash of itself and of the row before it, and the number and hash of the last row are stored once more,
so that a row that was changed, removed, doubled or moved is found with its place.

Events are named "stage.kind". Those of the study itself are `study.begin`, `study.grown` and `study.done`; the kinds
of events of the stages are listed in `KINDS`. A strategy may write others: they are counted and shown by a version of
this project that does not know them.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from utils.errors import SearchError
from utils.plugins import command_line
from utils.writing.text import shell_word

JOURNAL = "journal.sqlite"
FORMAT_VERSION = 2
RULES = 4
"""Version of the rules by which a new study decides, written to its first event; without one, they are its format's.

From 3 on the present defaults of sampler and scheduler hold; from 4 on no measured result makes an epoch the best.
"""
_FIRST_HASH = hashlib.sha256(b"journal of a study, format 2").digest()[:16]

Types = type | tuple[type, ...]
_NUMBER: Types = (int, float)
# The data of each kind of event that is read again, and its type. Journals of early versions lack other data.
KINDS: dict[str, dict[str, Types]] = {
    "drawn": {"seed": int, "drawn": list, "key": str},  # choices, sampler: a candidate was drawn
    "exploited": {
        "parent": int,
        "epoch": int,
    },  # replaces: the candidate begins with the parent's weights of this epoch
    "duplicate": {"of": int},  # it is equal to an earlier one and not trained
    "job": {"start": int, "end": int},  # it is to be trained for these epochs
    "facts": {"facts": dict},
    "report": {"epoch": int, "row": dict, "seconds": _NUMBER, "decision": str},  # rung, cutoff, folder
    "ended": {"status": str},  # reason, bytes, is_finished, facts: its job is over
    "lost": {"had_begun": bool},  # reason: the worker died, and the job starts again
    "measured": {"latency_ms": _NUMBER},  # again, at the end of the study
    "deleted": {"bytes": int},  # its checkpoints were deleted
    "decoded": {"epoch": int, "genotype": dict},  # results: the architecture that its supernet has found
    "untrained": {"epoch": int},  # the supernet has ended before its architecture learned, and is not decoded
    "generation": {"blocks": int, "round": int, "cells": list},  # estimates, predictors, audit: they are trained next
    "selected": {"candidates": list, "networks": list},  # networks of the best cells, which are trained longer
    "pooled": {"results": dict},  # reason: results over all folds, of which this candidate is the last
    "exhausted": {},  # reason: nothing more is drawn
    "done": {"reason": str},  # the stage is over
}
_KINDS_OF_RUNS: dict[str, dict[str, Types]] = {
    "retrain.job": {"run": str, "rank": int, "seed": int, "folder": str},  # epochs
    "retrain.report": {"run": str, "epoch": int, "row": dict, "seconds": _NUMBER},
    "retrain.ended": {"run": str, "status": str, "reason": str},  # test
    "retrain.lost": {"run": str},
    "retrain.tested": {"run": str, "metrics": dict},
}
# Names of format 1, with the status that some of them have become.
_NAMES_OF_FORMAT_1: dict[str, tuple[str, str | None]] = {
    "begin": ("study.begin", None),
    "draw": ("search.drawn", None),
    "duplicate": ("search.duplicate", None),
    "refused": ("search.ended", "refused"),
    "job": ("search.job", None),
    "facts": ("search.facts", None),
    "report": ("search.report", None),
    "job_done": ("search.ended", "ended"),
    "finished": ("search.finished", None),
    "failed": ("search.ended", "failed"),
    "out_of_memory": ("search.ended", "out_of_memory"),
    "lost": ("search.lost", None),
    "deleted": ("search.deleted", None),
    "no_more_draws": ("search.exhausted", None),
    "search_done": ("search.done", None),
    "retrain": ("retrain.job", None),
    "retrain_report": ("retrain.report", None),
    "retrain_done": ("retrain.ended", None),
    "tested": ("retrain.tested", None),
    "done": ("study.done", None),
}
_WITHOUT_CANDIDATE = ("begin", "created", "grown", "exhausted", "generation", "selected", "done")


@cache
def _stage_and_kind(name: str) -> tuple[str, str]:
    stage, _, kind = name.rpartition(".")
    return stage, kind


@dataclass(slots=True)
class Event:
    """An entry of the journal; it is never changed.

    Attributes:
        name: "stage.kind".
        candidate: Number of the candidate; None for an event of the study.
        data: Plain data.
        seconds: Unix time at which it was written.
        version: Version of its data, from 1; 0 in a journal of format 1.
        stage: The part of the name before the last point.
        kind: The part of the name after the last point.
    """

    name: str
    candidate: int | None
    data: dict[str, Any]
    seconds: float
    version: int = 1
    stage: str = field(init=False)
    kind: str = field(init=False)

    def __post_init__(self) -> None:
        self.stage, self.kind = _stage_and_kind(self.name)


class JournalDamage(SearchError):
    """A journal with an event that cannot be right.

    Attributes:
        num_good: Number of the events before it.
    """

    def __init__(self, path: Path, num_good: int, reason: str) -> None:
        self.num_good = num_good
        copy = "Put back a copy of it"
        repair = (
            f"or run: {command_line('python', '-m', 'search', 'repair', path.parent)}"
            if num_good
            else "or start a new search"
        )
        super().__init__(
            f"{path}: the journal is damaged ({reason}). It is the record of the study and cannot be guessed; "
            f"{num_good} events before that are good. {copy}, {repair}"
            + (" (it cuts the journal there, and stores the present one next to it)." if num_good else ".")
        )


class Journal:
    """A journal to which events are appended, one transaction each.

    A journal of format 1 is brought to the present format.

    Args:
        path: The file. It is created only by `create_journal`.
        wal: Whether it has a write-ahead log. A file on a shared folder must not have one.
        guard: Called in the transaction of each event before it is written; raises if this process may write no more.

    Attributes:
        now: Returns the time of an event in seconds.

    Raises:
        SearchError: It is missing or damaged, has an unknown format, or cannot be written.
    """

    def __init__(self, path: Path, *, wal: bool = True, guard: Callable[[], None] | None = None) -> None:
        self.path = path
        self.now: Callable[[], float] = time.time
        self._guard = guard
        _require_file(path)
        self._connection = _connect(path)
        with _sqlite_errors_explained(path):
            # No wait for the disk at each event: a kill loses nothing, a power cut the last moments, never the order.
            self._connection.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'TRUNCATE'}")
            self._connection.execute(f"PRAGMA synchronous = {'NORMAL' if wal else 'FULL'}")
            if _version_of(self._connection, path) == 1:
                _upgrade(self._connection, list(_rows_of_format_1(self._connection, path)))
            self._count, self._hash = self._connection.execute("SELECT count, hash FROM head").fetchone()

    def append(self, name: str, candidate: int | None = None, **data: Any) -> Event:
        """Write an event; it survives a kill of this process once this returns.

        Raises:
            SearchError: It cannot be written, e.g. because the disk is full.
        """
        event = Event(name, candidate, data, self.now())
        with _sqlite_errors_explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if self._guard is not None:  # within the transaction, which nobody else can begin meanwhile
                    self._guard()
                count, digest = _insert(self._connection, event, self._count, self._hash)
                self._connection.execute("UPDATE head SET count = ?, hash = ?", (count, digest))
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise
        self._count, self._hash = count, digest
        return event

    def publish(self, path: Path) -> None:
        """Copy the journal, as it is now, to a file that others read.

        Raises:
            SearchError: It cannot be written.
        """
        new = path.with_name(f".{path.name}.new")
        with _sqlite_errors_explained(path):
            new.unlink(missing_ok=True)
            with closing(sqlite3.connect(new)) as copy:
                self._connection.backup(copy)
            new.replace(path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def create_journal(path: Path) -> None:
    """Create a journal with the event `study.created`.

    Raises:
        SearchError: It exists or cannot be written.
    """
    if path.exists():
        raise SearchError(
            f"{path}: exists. A study is created in a new folder. Resume it: --resume {shell_word(path.parent)}"
        )
    # Under another name until it is complete: a kill or a full disk leaves no empty journal.
    new = path.with_name(f".{path.name}.new")
    try:
        with closing(_connect(new)) as connection, _sqlite_errors_explained(path):
            _upgrade(connection, [Event("study.created", None, {"rules": RULES}, time.time())])
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def read_events(path: Path) -> Iterator[Event]:
    """Yield every event of a journal, which a search may be writing to.

    Raises:
        SearchError: It is missing.
        JournalDamage: It is damaged: an event was changed, or events are missing.
    """
    _require_file(path)
    # Without a check of the file's pages: that of the rows says how far it is good.
    with _readable(path) as file, closing(_connect(file, path, check=False)) as connection:
        with _sqlite_errors_explained(path):
            connection.execute("BEGIN")  # all rows as of this moment
            is_format_1 = _version_of(connection, path) == 1
        rows, count = _rows_of_format_1(connection, path) if is_format_1 else _checked_rows(connection, path), 0
        while True:
            with _sqlite_errors_explained(path, count):
                event = next(rows, None)
            if event is None:
                return
            count += 1
            yield event


def last_event(path: Path, name: str) -> dict[str, Any]:
    """Return the data of the last event of a name, without a check of the journal; empty if there is none.

    Of a journal that is missing, damaged or of format 1 it is empty, too: whoever reads all of it says why.
    """
    try:
        _require_file(path)
        with _readable(path) as file, closing(_connect(file, path, check=False)) as connection:
            query = "SELECT data FROM events WHERE name = ? ORDER BY id DESC LIMIT 1"
            row = connection.execute(query, (name,)).fetchone()
        data = {} if row is None else json.loads(row[0])
    except (SearchError, sqlite3.Error, ValueError, TypeError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def cut_journal(path: Path, num_good: int) -> Path:
    """Cut a journal after some of its events.

    Args:
        path: The journal.
        num_good: Number of the events that remain.

    Returns:
        A copy of the journal as it was.

    Raises:
        SearchError: It cannot be written.
    """
    stored = next(
        each
        for number in range(1, 1000)
        if not (each := path.with_name(f"{path.stem}.damaged{number}.sqlite")).exists()
    )
    good: list[Event] = []
    try:
        for event in read_events(path):
            good.append(event)
            if len(good) == num_good:
                break
    except JournalDamage:
        pass
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with _sqlite_errors_explained(path):
        with closing(sqlite3.connect(path)) as old, suppress(sqlite3.DatabaseError):  # a damaged file may refuse it
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with closing(_connect(new)) as connection:
            _upgrade(connection, good)
    os.link(path, stored)
    for suffix in ("-wal", "-shm"):  # they belong to the old file
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    new.replace(path)
    return stored


def _require_file(path: Path) -> None:
    if not os.path.isfile(path):
        raise SearchError(
            f"{path.parent}: there is no study in it ({path.name} is missing). Name a study's folder, or put back the "
            "journal of this one."
        )


def _version_of(connection: sqlite3.Connection, path: Path) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:  # a new file; each journal has at least one event
        raise JournalDamage(path, 0, "it is empty")
    if version not in (1, FORMAT_VERSION):
        raise SearchError(
            f"{path}: format {version} is not known here, only 1 and {FORMAT_VERSION}. Use the version of this project "
            "that wrote it."
        )
    return version


def _checked_rows(connection: sqlite3.Connection, path: Path) -> Iterator[Event]:
    """Yield the events of the present format, each checked by its hash."""
    digest, count, loads, sha256 = _FIRST_HASH, 0, json.JSONDecoder().decode, hashlib.sha256
    rows = connection.execute("SELECT id, seconds, name, candidate, version, data, hash FROM events ORDER BY id")
    for number, seconds, name, candidate, version, data, stored in rows:
        text = f"{number}|{seconds!r}|{name}|{candidate}|{version}|{data}"
        digest = sha256(digest + text.encode()).digest()[:16]
        if number != count + 1 or digest != stored:
            raise JournalDamage(
                path,
                count,
                f"event {number}, {name} of candidate {candidate}: its hash does not fit, it was changed, or events "
                "before it are missing",
            )
        count = number
        event = Event(name, candidate, loads(data), seconds, version)
        reason = _fault_of(event)
        if reason:
            raise JournalDamage(path, count - 1, f"event {number}, {name}: {reason}")
        yield event
    if connection.execute("SELECT count, hash FROM head").fetchall() != [(count, digest)]:
        raise JournalDamage(path, count, f"events after number {count} are missing")
    if count == 0:
        raise JournalDamage(path, 0, "it holds no event")


def _rows_of_format_1(connection: sqlite3.Connection, path: Path) -> Iterator[Event]:
    """Yield the events of a journal of format 1, which has no hashes, under their present names.

    There, the first job of a candidate is before its draw; here, after it.
    """
    count, drawn, waiting = 0, set[int | None](), None
    for number, seconds, kind, candidate, data in connection.execute(
        "SELECT id, seconds, kind, candidate, data FROM events ORDER BY id"
    ):
        reason = f"{kind!r} is no kind of event"
        if kind in _NAMES_OF_FORMAT_1:
            name, status = _NAMES_OF_FORMAT_1[kind]
            try:
                content = json.loads(data)
            except ValueError as error:
                raise JournalDamage(path, count, f"event {number}, {kind}: {error}") from error
            if status is not None and isinstance(content, dict):
                content["status"] = status
            event = Event(name, candidate, content, seconds, version=0)
            reason = _fault_of(event)
        if reason:
            raise JournalDamage(path, count, f"event {number}, {kind}: {reason}")
        count += 1
        if kind == "job" and candidate not in drawn:
            waiting = event
            continue
        yield event
        if kind == "draw":
            drawn.add(candidate)
            if waiting is not None:
                yield waiting
            waiting = None
    if count == 0:
        raise JournalDamage(path, 0, "it holds no event")


def _fault_of(event: Event) -> str:
    """Return the fault of an event in words, such as a missing key; empty if it is good or of an unknown kind."""
    if not isinstance(event.data, dict):
        return f"it holds a {type(event.data).__name__}, not an object"
    stage, kind = event.stage, event.kind
    required = KINDS.get(kind) if stage not in ("retrain", "study") else _KINDS_OF_RUNS.get(event.name)
    if required is None:
        return ""
    if not isinstance(event.candidate, int) and kind not in _WITHOUT_CANDIDATE:
        return f"its candidate is {event.candidate!r}, not a number"
    for key, kinds in required.items():
        if key not in event.data:
            return f'it has no "{key}"'
        if not isinstance(event.data[key], kinds):
            return f'its "{key}" is {event.data[key]!r}'
    return ""


def _insert(connection: sqlite3.Connection, event: Event, count: int, digest: bytes) -> tuple[int, bytes]:
    """Insert an event after `count` others, the last of which has the hash `digest`; return both for this event."""
    number, data = count + 1, json.dumps(event.data)
    text = f"{number}|{event.seconds!r}|{event.name}|{event.candidate}|{event.version}|{data}"
    digest = hashlib.sha256(digest + text.encode()).digest()[:16]
    connection.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
        (number, event.seconds, event.name, event.candidate, event.version, data, digest),
    )
    return number, digest


def _upgrade(connection: sqlite3.Connection, events: list[Event]) -> None:
    """Replace the content of the file by events in the present format, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DROP TABLE IF EXISTS events")
    connection.execute(
        "CREATE TABLE events (id INTEGER PRIMARY KEY, seconds REAL NOT NULL, name TEXT NOT NULL, candidate INTEGER, "
        "version INTEGER NOT NULL, data TEXT NOT NULL, hash BLOB NOT NULL)"
    )
    connection.execute("CREATE TABLE head (count INTEGER NOT NULL, hash BLOB NOT NULL)")
    count, digest = 0, _FIRST_HASH
    for event in events:
        count, digest = _insert(connection, event, count, digest)
    connection.execute("INSERT INTO head VALUES (?, ?)", (count, digest))
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    connection.execute("COMMIT")


def _connect(path: Path, shown: Path | None = None, *, check: bool = True) -> sqlite3.Connection:
    with _sqlite_errors_explained(shown or path):  # the file that the user knows
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0] if check else "ok"
        if fault != "ok":
            connection.close()
            raise sqlite3.DatabaseError(fault)
    return connection


@contextmanager
def _readable(path: Path) -> Iterator[Path]:
    """Yield a file with which a journal can be read: in a folder that cannot be written to, SQLite needs a copy."""
    if os.access(path.parent, os.W_OK):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            file = path.with_name(path.name + suffix)
            try:
                if not suffix or file.exists():
                    shutil.copyfile(file, Path(folder) / file.name)
            except OSError as error:
                raise SearchError(
                    f"{file}: cannot be copied to {folder} ({error.strerror}). The journal in a folder that cannot be "
                    "written to is read from a copy. Free some space, or set TMPDIR to another folder."
                ) from error
        yield Path(folder) / path.name


@contextmanager
def _sqlite_errors_explained(path: Path, num_good: int = 0) -> Iterator[None]:
    """Turn errors of SQLite into a `SearchError`; that of a file that is damaged after some good events says so."""
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
        raise JournalDamage(path, num_good, reason.partition(" with text ")[0]) from error
