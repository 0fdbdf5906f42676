"""An executor whose clock is processor time, so that what else the machine does decides nothing about a search."""

import math
import os
import resource
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from search.executors.processes import Processes
from search.study.journal import Event


class ProcessorTime(Processes):
    """Worker processes; the search's time is the processor time of all its processes divided by the workers.

    On a machine that does nothing else, with as many workers as processors, it equals the time of day, since the
    processors are busy throughout. Only on systems with /proc.
    """

    def __init__(self, workers: int = 2, threads: int | None = None) -> None:
        super().__init__(workers, threads=threads)
        self._began_at = math.nan
        self._latest = 0.0

    def now(self) -> float:
        """Return the end of the session before, or the time of day of the start, plus the processor time since then."""
        self._latest = max(self._latest, self._began_at + self._spent() / self.workers)
        return self._latest

    def continue_after(self, events: Iterable[Event]) -> None:
        """Continue the clock of a journal."""
        last = max(event.seconds for event in events)
        has_worked = any(event.name != "study.created" for event in events)
        self._began_at = (last if has_worked else time.time()) - self._spent() / self.workers
        self._latest = last

    def _spent(self) -> float:
        """Return the processor time in seconds of this process, of its workers, and of those that have ended."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = time.process_time() + ended.ru_utime + ended.ru_stime
        for worker in self._pool:
            with suppress(OSError, IndexError):  # it ends at this moment
                fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
                spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return spent
