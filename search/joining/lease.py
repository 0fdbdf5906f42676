"""The lease of a shared study: which process leads, without a clock that several machines would have to agree on.

Each leader has a generation, a number that is claimed once: by creating a file that must not exist. The leader of the
newest generation advances a counter. Whoever observes, by its own clock, that the counter has not moved for a while
claims the next generation, and the earlier leader has lost from then on, whether it is dead or only slow. The
generation is a fencing token (M. Kleppmann, "How to do distributed locking", 2016): `Lease.check` is called within the
transaction of each entry of the journal.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from search.joining.timing import Timing, Watched, read_shared, write_shared
from utils.errors import SearchError

JOINED = "joined"
LEASES = "lease"

# The study is done; the leader left, others go on; the user stopped the study; the study cannot be continued.
End = Literal["done", "left", "stopped", "failed"]


class LeaseLost(SearchError):
    """Another process leads the study by now."""


@dataclass(frozen=True)
class LeaseView:
    """The present leadership, as an observer sees it.

    Attributes:
        generation: Number of the newest generation; 0 if nobody has led yet.
        is_free: Whether the next generation may be claimed.
        end: How the generation ended; None if it has not.
        message: The reason of a failed one.
    """

    generation: int
    is_free: bool
    end: End | None = None
    message: str = ""


class LeaseWatcher:
    """Observes the lease of a study.

    A leadership that has ended before the first look does not count: a study that was done, or failed, is led again by
    whoever joins it now, and ends anew if nothing is left to do.

    Args:
        study: Folder of the study.
        timing: Measures the time.
    """

    def __init__(self, study: Path, timing: Timing) -> None:
        self.folder = study / JOINED / LEASES
        self._timing = timing
        self._watched = Watched(timing)
        past = latest_generation(self.folder)
        self._past = past if read_end(study, past) is not None else 0

    def look(self) -> LeaseView:
        """Return the present leadership; to be called again and again, as only that shows whether the counter moves."""
        generation = latest_generation(self.folder)
        if generation == self._past:
            return LeaseView(generation, is_free=True)
        end = read_shared(_path(self.folder, generation, "end"))
        if end is not None:
            return LeaseView(generation, is_free=end["end"] == "left", end=end["end"], message=end["message"])
        # The holder may be more patient than this process; it trusts its lease for as long.
        claim = read_shared(_path(self.folder, generation)) or {}
        patience = max(self._timing.patience, claim.get("patience", 0.0))
        count = read_shared(_path(self.folder, generation, "count"))
        return LeaseView(generation, is_free=self._watched.silence((generation, count)) > patience)


class Lease:
    """The leadership of a study, held by this process until `release` or until another one takes it.

    Args:
        folder: Folder of the leases.
        generation: The generation that was claimed; see `claim`.
        timing: Measures the time.

    Attributes:
        generation: The generation.
    """

    def __init__(self, folder: Path, generation: int, timing: Timing) -> None:
        self.generation = generation
        self._folder = folder
        self._timing = timing
        self._count = 0
        self._renewed = timing.clock()  # when the last successful renewal began
        self._is_lost = self._is_released = False
        self._lock = timing.make_lock()
        timing.start_thread(self._beat)

    @classmethod
    def claim(cls, study: Path, generation: int, timing: Timing, holder: str = "") -> "Lease | None":
        """Claim a generation.

        Args:
            study: Folder of the study.
            generation: One more than the newest, which must be free.
            timing: Measures the time.
            holder: Name of this process, for the reader.

        Returns:
            The lease; None if another process was faster.

        Raises:
            SearchError: The folder cannot be written.
        """
        folder = study / JOINED / LEASES
        begun = timing.clock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if latest_generation(folder) >= generation:
                return None
            # Exclusive creation is one request to the server of a network file system, and fails for all but one.
            with open(_path(folder, generation), "x", encoding="utf-8") as file:
                file.write(f'{{"holder": "{holder}", "patience": {timing.patience}}}\n')
        except FileExistsError:
            return None
        except OSError as error:
            raise SearchError(
                f"{folder} cannot be written ({error.strerror}). Processes that share a study exchange files there. "
                "Correct the permissions, or free some space."
            ) from error
        lease = cls(folder, generation, timing)
        lease._renewed = begun
        return lease

    def check(self) -> None:
        """Raise if this process does not lead any more.

        Raises:
            LeaseLost: A later generation exists.
        """
        # Nobody takes over before `patience` has passed since the last renewal. Until half of it, a negative answer
        # that a network file system has cached does no harm; later, only a renewal asks the server for certain.
        is_old = self._timing.clock() - self._renewed > self._timing.patience / 2
        if is_old:
            self._renew()
            is_old = self._timing.clock() - self._renewed > self._timing.patience / 2
        if self._is_lost or is_old or _path(self._folder, self.generation + 1).exists():
            self._is_lost = True
            raise LeaseLost(
                f"{self._folder.parents[1]}: this process leads the study no more (generation {self.generation}), as "
                f"it could give no sign of life for {self._timing.patience / 2:g} s or longer. It wrote nothing since; "
                "another process takes over. Run the command again to take part."
            )

    def release(self, end: End, message: str = "") -> None:
        """End the leadership.

        Args:
            end: How; after "left" another process takes over at once.
            message: The reason of "failed".
        """
        with self._lock:
            if self._is_released:
                return
            self._is_released = True
        if not self._is_lost:
            write_shared(_path(self._folder, self.generation, "end"), {"end": end, "message": message})

    def _beat(self) -> None:
        while not (self._is_released or self._is_lost):
            self._renew()
            self._timing.sleep(self._timing.beat)

    def _renew(self) -> None:
        """Advance the counter, then look for a later generation: in this order, so that the look is a fresh one."""
        with self._lock:
            begun = self._timing.clock()
            self._count += 1
            try:
                write_shared(_path(self._folder, self.generation, "count"), self._count)
            except OSError:  # a full or absent share: the lease runs out unless it comes back
                return
            if latest_generation(self._folder) > self.generation:
                self._is_lost = True
            else:
                self._renewed = begun


def latest_generation(folder: Path) -> int:
    """Return the newest generation in a folder of leases; 0 if there is none."""
    try:
        names = os.listdir(folder)
    except OSError:
        return 0
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _path(folder: Path, generation: int, part: str = "") -> Path:
    return folder / f"{generation:06d}{f'.{part}' if part else ''}"


def is_shared(study: Path) -> bool:
    """Return whether a process leads a study with others, or died while it did."""
    folder = study / JOINED / LEASES
    generation = latest_generation(folder)
    return generation > 0 and read_shared(_path(folder, generation, "end")) is None


def read_end(study: Path, generation: int) -> Any:
    """Return the end of a generation as it was written; None if it has not ended."""
    return read_shared(_path(study / JOINED / LEASES, generation, "end"))
