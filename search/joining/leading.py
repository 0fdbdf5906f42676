"""The leadership of a shared study from its claim to its end."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from search.executors.base import Executor
from search.joining.leader import JoinedMembers
from search.joining.lease import Lease, LeaseLost, read_end
from search.joining.published import Publisher
from search.joining.timing import Timing
from search.study.commands import drop_commands_of_the_past
from search.study.journal import JOURNAL, Journal
from utils.errors import EspalierError, Interrupted, SearchError
from utils.files import folder_lock
from utils.plugins import command_line

_LOCK_PATIENCES = 4  # a journal that is locked for so many times the patience of the lease is given up


class StoppedByCommand(Interrupted):
    """The user stopped the study, not only the process that leads it."""


def lead(study: Path, lease: Lease, timing: Timing, run: Callable[[Executor, Journal], None]) -> None:
    """Lead a study, and tell the others how that ended.

    Args:
        study: Folder of the study.
        lease: The leadership of this process.
        timing: Its clock.
        run: Runs the study on an executor, with an open journal.

    Raises:
        LeaseLost: Another process took over.
        Interrupted: A signal asked to stop, and another process takes over; or a command, and all stop.
        EspalierError: The study cannot be continued; it ends for all.
    """
    publisher = Publisher(study, lease.generation, timing)
    try:
        settle(study, lease, timing)
        if not _takes_over(study, lease):
            drop_commands_of_the_past(study)
        with closing(Journal(study / JOURNAL, wal=False, guard=lease.check)) as journal:
            publisher.publish()  # the last copy may be older than a search that shared with nobody
            run(JoinedMembers(study, lease, timing, publisher.publish_in_time), journal)
        publisher.publish()
    except LeaseLost:
        raise
    except (Interrupted, KeyboardInterrupt) as stop:
        publisher.publish()
        lease.release("stopped" if isinstance(stop, StoppedByCommand) else "left")
        raise
    except Exception as error:
        kind = "" if isinstance(error, EspalierError) else f"{type(error).__name__}: "
        lease.release("failed", f"{kind}{error}")
        raise
    lease.release("done")


def _takes_over(study: Path, lease: Lease) -> bool:
    """Return whether a leadership continues the work of the one before it, for the members of that one."""
    if lease.generation == 1:
        return False
    end = read_end(study, lease.generation - 1)
    return end is None or end["end"] == "left"


def settle(study: Path, lease: Lease, timing: Timing) -> None:
    """Wait for the end of a transaction that an earlier leader has begun, and of a search that shares with nobody.

    A transaction that an earlier leader begins after this sees the new generation; one begun before is in the journal
    when that is read. A search of one process that begins after this sees the lease.

    Raises:
        LeaseLost: Another process took over meanwhile.
        SearchError: The folder or the journal remains locked.
    """

    def in_use(process: str) -> SearchError:
        return SearchError(
            f"{study}: process {process} is searching there alone. Stop it "
            f"({command_line('python', '-m', 'search', 'stop', study)}), and join the study again."
        )

    until = timing.clock() + _LOCK_PATIENCES * timing.patience
    while True:
        lease.check()
        try:
            with folder_lock(study, in_use):
                _begin_transaction(study / JOURNAL)
            return
        except SearchError:
            if timing.clock() > until:
                raise
        timing.sleep(timing.poll)


def _begin_transaction(journal: Path) -> None:
    """Begin and end a transaction that changes nothing.

    Raises:
        SearchError: Another process is within one.
    """
    try:
        with closing(
            sqlite3.connect(f"{journal.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            raise SearchError(
                f"{journal}: the journal is locked. A process that leads the study no more may hold it without "
                "running: end it, and join the study again; nothing that was written is lost."
            ) from error
        # Missing or damaged: whoever reads it says how.
