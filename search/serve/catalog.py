"""The studies and runs below the folder of the service, with summaries that are read again only after a change."""

import hashlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.cli.study_commands import read_study
from search.comparison.runs import ENVIRONMENT, LOG, METRICS, RESULT, SPLITS, is_run_folder, read_run
from search.joining.lease import is_shared
from search.joining.published import journal_to_read
from search.results.record import StudyRecord
from search.serve.refusals import Refusal
from search.serve.run_files import require_records
from search.serve.summaries import run_summary, study_summary
from search.study.folders import CONFIG, is_study
from utils.errors import EspalierError, SearchError
from utils.files import read_json_object, write_json
from utils.runs.locks import is_held, lock_table
from utils.runs.stored_tests import stored_results
from utils.writing.text import in_one_line

logger = logging.getLogger("espalier")

SUMMARIES = "summaries.json"
_DEPTH = 6  # of folders between that of the service and a study
_MOST_CANDIDATES = 4000  # of the records in memory; the last one that was asked for stays in any case
_SHARE = 50  # a study that runs is read again after this many times the seconds that reading took
_FORMAT = 1

_RECORDS = (CONFIG, ENVIRONMENT, METRICS, RESULT)
_TESTS = tuple(str(stored_results(Path(), split)) for split in SPLITS)
_MOST_TEST_BYTES = 100_000_000  # with the score of each sample

Signature = tuple[Any, ...]


@dataclass
class Entry:
    """A study or run.

    Attributes:
        id: Of its folder.
        folder: The folder.
        is_study: Whether it is a study.
        signature: Times and sizes of its files at present.
        summary: From its files as they were at `read_signature`; empty before they are read.
        read_signature: See `summary`.
        error: Why it cannot be read; empty if it can.
        read_at: Monotonic time at which it was read last.
        read_seconds: Duration of that.
        is_running: Whether a process works on it.
    """

    id: str
    folder: Path
    is_study: bool
    signature: Signature = ()
    summary: dict[str, Any] = field(default_factory=dict)
    read_signature: Signature | None = None
    error: str = ""
    read_at: float = -1e9
    read_seconds: float = 0.0
    is_running: bool = False

    @property
    def is_current(self) -> bool:
        """Whether the summary is that of the present files."""
        return self.read_signature == self.signature


class Catalog:
    """All studies and runs below a folder.

    Args:
        folder: The folder.
        storage: Folder of the service, in which summaries are stored.
        plugins: Files with the user's classes, loaded already.
    """

    def __init__(self, folder: Path, storage: Path, plugins: Sequence[str] = ()) -> None:
        self.folder = folder
        self.plugins = list(plugins)
        self._storage = storage / SUMMARIES
        self._entries: dict[str, Entry] = {}
        self._lock = threading.RLock()  # of the entries
        self._reading = threading.Lock()  # one study or run is read at a time
        self._records: OrderedDict[str, tuple[Signature, float, StudyRecord]] = OrderedDict()
        self._wanted = threading.Event()
        self._closed = False
        self._stored = self._load()
        self._thread = threading.Thread(target=self._work, name="catalog", daemon=True)

    def open(self) -> None:
        """Begin to read studies in the background."""
        self._thread.start()
        self._wanted.set()

    def close(self) -> None:
        """Stop reading, and store the summaries."""
        self._closed = True
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()
        self._store()

    def entries(self) -> list[Entry]:
        """Look at the folder, and return its studies and runs, the newest first.

        Summaries that are out of date are read again in the background.
        """
        with self._lock:
            self._scan()
            found = list(self._entries.values())
        if any(self._is_due(each) for each in found):
            self._wanted.set()
        return sorted(found, key=lambda each: (each.summary.get("began") or each.signature[0], each.id), reverse=True)

    def entry(self, entry_id: str, *, is_study: bool) -> Entry:
        """Return a study or a run.

        Raises:
            Refusal: There is none with this id.
        """
        with self._lock:
            found = self._entries.get(entry_id)
            if found is None or not found.folder.is_dir():
                self._scan()
                found = self._entries.get(entry_id)
        kind, places = ("study", "studies") if is_study else ("run", "runs")
        if found is None or found.is_study != is_study:
            raise Refusal(404, f"{kind} {entry_id[:80]}: there is none with this id. List them: GET /api/{places}.")
        return found

    def id_of(self, folder: str | None) -> str | None:
        """Return the id of a folder that is a study or run, or will be; None if it is not below that of the service."""
        if folder is None or not Path(folder).is_relative_to(self.folder):
            return None
        return _id_of(Path(folder).relative_to(self.folder))

    def record(self, entry: Entry) -> StudyRecord:
        """Return a study, as it is now or was a moment ago if reading it takes long.

        Raises:
            EspalierError: It cannot be read.
        """
        with self._reading:
            stored = self._records.get(entry.id)
            signature = _signature(entry.folder, is_study=True)
            if stored is not None and (stored[0] == signature or not self._is_over(entry)):
                self._records.move_to_end(entry.id)
                return stored[2]
            return self._read_study(entry, signature)

    def refresh(self, entry: Entry) -> None:
        """Read a study or run for its summary, if it has changed; its error becomes a part of the entry."""
        signature = _signature(entry.folder, entry.is_study)
        if entry.read_signature == signature:
            return
        began = time.monotonic()
        try:
            with self._reading:
                if entry.is_study:
                    self._read_study(entry, signature)
                else:
                    self._note(entry, signature, _read_summary(entry.folder), "", began)
        except (EspalierError, OSError) as error:
            self._note(entry, signature, {}, in_one_line(str(error)), began)

    def _read_study(self, entry: Entry, signature: Signature) -> StudyRecord:
        began = time.monotonic()
        with _damage_named(entry.folder):
            require_records(entry.folder, (CONFIG,))
            record = read_study(entry.folder, self.plugins)
            summary = study_summary(record)
        self._records[entry.id] = (signature, began, record)
        self._records.move_to_end(entry.id)
        while len(self._records) > 1 and sum(len(each[2].candidates) for each in self._records.values()) > (
            _MOST_CANDIDATES
        ):
            self._records.popitem(last=False)
        self._note(entry, signature, summary, "", began)
        return record

    def _note(self, entry: Entry, signature: Signature, summary: dict[str, Any], error: str, began: float) -> None:
        with self._lock:
            entry.summary, entry.error, entry.signature, entry.read_signature = summary, error, signature, signature
            entry.read_at = time.monotonic()
            entry.read_seconds = entry.read_at - began

    def _is_over(self, entry: Entry) -> bool:
        """Return whether a study may be read again, so that reading takes little of the machine's time."""
        return time.monotonic() - entry.read_at >= max(1.0, _SHARE * entry.read_seconds)

    def _is_due(self, entry: Entry) -> bool:
        return not entry.is_current and (entry.read_signature is None or self._is_over(entry))

    def _scan(self) -> None:
        """Look for new, changed and removed folders."""
        table = lock_table()
        present: dict[str, Entry] = {}
        for folder, is_study_folder in _walk(self.folder, _DEPTH):
            name = folder.relative_to(self.folder)
            entry_id = _id_of(name)
            entry = self._entries.get(entry_id) or Entry(entry_id, folder, is_study_folder)
            if entry.is_study != is_study_folder:
                entry = Entry(entry_id, folder, is_study_folder)
            with suppress(OSError):
                entry.signature = _signature(folder, is_study_folder)
                entry.is_running = is_worked_on(folder, is_study_folder, table)
                self._restore(entry, name.as_posix())
                present[entry_id] = entry
        self._entries = present

    def _restore(self, entry: Entry, name: str) -> None:
        """Take over the summary that an earlier service stored."""
        if entry.read_signature is None and name in self._stored:
            signature, summary = self._stored.pop(name)
            if tuple(signature) == entry.signature:
                entry.summary, entry.read_signature = summary, entry.signature

    def _work(self) -> None:
        """Read outdated summaries, until the service ends."""
        while not self._closed:
            self._wanted.wait()
            self._wanted.clear()
            with self._lock:
                due = [entry for entry in self._entries.values() if self._is_due(entry)]
            for entry in sorted(due, key=lambda each: (each.is_study, -each.signature[0])):
                if self._closed:
                    break
                with suppress(OSError):  # removed since
                    self.refresh(entry)
            if due:
                self._store()

    def _load(self) -> dict[str, tuple[Signature, dict[str, Any]]]:
        """Read the stored summaries; unreadable ones are read from the studies."""
        try:
            content = read_json_object(self._storage, SearchError)
            entries = content["entries"] if content.get("format") == _FORMAT else {}
            return {name: (tuple(each["signature"]), dict(each["summary"])) for name, each in entries.items()}
        except (SearchError, KeyError, TypeError, AttributeError, ValueError):
            return {}

    def _store(self) -> None:
        with self._lock:
            entries = {
                each.folder.relative_to(self.folder).as_posix(): {
                    "signature": list(each.read_signature or ()),
                    "summary": each.summary,
                }
                for each in self._entries.values()
                if each.summary
            }
        with suppress(OSError):  # a full disk: it is read again after a restart
            write_json(self._storage, {"format": _FORMAT, "entries": entries})


def is_worked_on(folder: Path, is_study_folder: bool, table: str | None = None) -> bool:
    """Return whether a process works on a study or run.

    Args:
        folder: Its folder; one that was removed is not worked on.
        is_study_folder: Whether it is a study.
        table: See `is_held`.
    """
    return is_held(folder, table) or (is_study_folder and is_shared(folder))


def _read_summary(run: Path) -> dict[str, Any]:
    require_records(run, _RECORDS)
    require_records(run, _TESTS, _MOST_TEST_BYTES)
    with _damage_named(run):
        return run_summary(read_run(run))


@contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Turn any error of reading a folder into one that names it: its files may hold anything.

    Raises:
        EspalierError: It cannot be read.
    """
    try:
        yield
    except EspalierError:
        raise
    except Exception as error:
        logger.debug("A study or run cannot be read.", exc_info=error)
        reason = in_one_line(f"{type(error).__name__}: {error}")[:500]
        raise SearchError(
            f"{folder}: cannot be read ({reason}). Put back a copy of its files, or remove it."
        ) from error


def _id_of(name: Path) -> str:
    return hashlib.sha256(os.fsencode(name.as_posix())).hexdigest()[:16]


def _walk(folder: Path, depth: int) -> Iterator[tuple[Path, bool]]:
    """Yield studies and runs, and whether each is a study.

    Those within others, behind links, and in folders whose names are not UTF-8 are left out.
    """
    try:
        with os.scandir(folder) as entries:
            below = [
                each.name
                for each in entries
                if not each.name.startswith(".") and _is_text(each.name) and each.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return
    for name in below:
        path = folder / name
        if is_study(path):
            yield path, True
        elif is_run_folder(path):
            yield path, False
        elif depth > 1:
            yield from _walk(path, depth - 1)


def _is_text(name: str) -> bool:
    """Return whether a name can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _signature(folder: Path, is_study: bool) -> Signature:
    """Return times and sizes of the files that a summary follows from; the first is Unix seconds of the newest."""
    if is_study:
        journal = journal_to_read(folder)
        paths = [journal, journal.with_name(f"{journal.name}-wal"), folder / CONFIG]
    else:
        paths = [folder / name for name in (METRICS, RESULT, CONFIG, LOG)]
    found: list[int] = []
    for path in paths:
        try:
            status = path.stat()
            # An empty file of SQLite is there only while somebody reads the journal.
            found += [status.st_mtime_ns, status.st_size] if status.st_size else [0, 0]
        except FileNotFoundError:
            found += [0, 0]
    return (max(found[::2]) / 1e9, *found)
