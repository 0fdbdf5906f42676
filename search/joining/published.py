"""The journal of a shared study as others may read it: a copy, as only the leader opens the journal itself."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from search.joining.lease import JOINED, is_shared
from search.joining.timing import Timing
from search.study.journal import JOURNAL
from utils.errors import SearchError

PUBLISHED = "published.sqlite"
_SECONDS_BETWEEN = 5.0


class Publisher:
    """Copies a journal for readers on other machines.

    Args:
        study: Folder of the study. Its journal has no write-ahead log, which would be a file of its own.
        generation: Number of the leadership.
        timing: Its clock.
    """

    def __init__(self, study: Path, generation: int, timing: Timing) -> None:
        self._journal = study / JOURNAL
        self._generation = generation
        self._path = study / JOINED / PUBLISHED
        self._timing = timing
        self._next = 0.0
        self._copied = b""  # the counter of transactions of the last copy

    def publish_in_time(self) -> None:
        """Copy the journal if it has changed and the last copy is old; to be called by the thread that writes it."""
        if self._timing.clock() >= self._next:
            self.publish()

    def publish(self) -> None:
        """Copy the journal if it has changed, and put the copy in the place of the earlier one.

        Raises:
            SearchError: The copy cannot be written.
        """
        self._next = self._timing.clock() + _SECONDS_BETWEEN
        try:
            with open(self._journal, "rb") as file:
                counter = file.read(28)[24:]  # https://www.sqlite.org/fileformat.html, section 1.3.9
            if counter == self._copied:
                return
            temporary = self._path.with_name(f".{PUBLISHED}.{self._generation}.new")
            temporary.unlink(missing_ok=True)
            source = sqlite3.connect(f"file:{quote(str(self._journal.absolute()))}?mode=ro", uri=True)
            with closing(source), closing(sqlite3.connect(temporary)) as copy:
                source.backup(copy)
            os.replace(temporary, self._path)
        except (OSError, sqlite3.Error) as error:
            raise SearchError(
                f"{self._path}: the journal cannot be copied for its readers ({error}). Free some space or correct the "
                "permissions, and join the study again; nothing that was written is lost."
            ) from error
        self._copied = counter


def journal_to_read(study: Path) -> Path:
    """Return the file from which a study is read: of one that several processes share, the copy of its leader."""
    published = study / JOINED / PUBLISHED
    return published if is_shared(study) and published.is_file() else study / JOURNAL
