"""Errors that a user can repair, and findings, in which a check gathers them instead of raising the first.

A message holds the value, the rule and the repair, in that order.
The command line prints them without a traceback (`--debug` shows it) and ends with the class's `exit_code`.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

_FAULTS_SHOWN = 5


class EspalierError(Exception):
    """Base of every error that the user can repair."""

    exit_code = 1


class ConfigError(EspalierError):
    """The JSON, an override or a command-line option is wrong.

    Args:
        message: Shown to the user.
        parts: The faults one by one, if the message lists several.
    """

    exit_code = 2

    def __init__(self, message: str, parts: Sequence["ConfigError"] = ()) -> None:
        super().__init__(message)
        self.parts = tuple(parts)


class NotLearned(ConfigError):
    """A value is missing that is learned from the training data."""


class SearchError(EspalierError):
    """A search cannot be started or continued as asked."""

    exit_code = 5


class DiskFull(SearchError):
    """A search has stopped because a worker found the disk full; nothing is lost, and it can be continued."""


class DataError(EspalierError):
    """An image, a mask or a list of them is missing, unreadable or does not fit.

    Args:
        message: Shown to the user; of several faults it names the first few and counts the others.
        parts: The faults one by one, if there are several.
        place: The file (or file and line) that it is about, if that is known.
    """

    exit_code = 3

    def __init__(self, message: str, parts: Sequence["DataError"] = (), *, place: str = "") -> None:
        super().__init__(message)
        self.parts = tuple(parts)
        self.place = place


def first_few(lines: Sequence[str]) -> list[str]:
    """Return the first five lines, indented, and a line that counts the others."""
    more = len(lines) - _FAULTS_SHOWN
    return [f"  {line}" for line in lines[:_FAULTS_SHOWN]] + (
        [f"  ... and {more} more like these."] if more > 0 else []
    )


def joined_faults(faults: Sequence[DataError]) -> DataError:
    """Return one error for one or more faults, with a line and a part for each."""
    return faults[0] if len(faults) == 1 else DataError("\n".join(map(str, faults)), faults)


class CheckpointError(EspalierError):
    """A checkpoint is missing, damaged, or cannot be written."""

    exit_code = 4


class TrainingError(EspalierError):
    """Training cannot continue: a loss that is not finite, or no memory."""

    exit_code = 5


class OutOfMemory(TrainingError):
    """Memory ran out while building or training: a smaller network or batch would do."""


class Diverged(TrainingError):
    """The loss, or a weight, is no longer a finite number."""


class LoaderFailed(TrainingError):
    """A loader worker died or hangs, or cannot send its batches."""


class ExportError(EspalierError):
    """A network cannot be exported, or the exported network computes something else."""

    exit_code = 5


def signal_name(number: int) -> str:
    """Return the name of a signal, as SIGTERM."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


class Interrupted(EspalierError):
    """A signal asked the run to stop and its state was saved.

    Args:
        signal_number: The signal that arrived, e.g. 15 for SIGTERM.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(
            f"Interrupted by {signal_name(signal_number)}; the state was saved. "
            "Run the same command with --resume auto to continue."
        )
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


@dataclass(frozen=True)
class Finding:
    """One of the faults and warnings that a check found: a fault would stop a training.

    Attributes:
        kind: `config` if the JSON is to be changed, `data` if files are.
        place: JSON path, file name, or section.
        message: Value, rule, and repair.
        is_fault: False for a warning.
    """

    kind: Literal["config", "data"]
    place: str
    message: str
    is_fault: bool = True


def each_error(error: EspalierError) -> Iterator[EspalierError]:
    """Yield the errors that an error stands for: its parts, or itself."""
    parts: Sequence[EspalierError] = getattr(error, "parts", ())
    if not parts:
        yield error
    for part in parts:
        yield from each_error(part)


def fault_of(error: EspalierError, place: str) -> Finding:
    """Return an error as a fault; the place is the section that was being checked, if the error knows no other."""
    if isinstance(error, DataError):
        return Finding("data", error.place or place, str(error))
    return Finding("config", place, str(error))
