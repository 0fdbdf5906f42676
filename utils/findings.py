"""What a check of a configuration, its data and its network found."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from utils.errors import DataError, EspalierError

Kind = Literal["config", "data"]


@dataclass(frozen=True)
class Finding:
    """A fault, which would stop a training, or a warning.

    Attributes:
        kind: `config` if the JSON is to be changed, `data` if files are.
        place: JSON path, file name, or section.
        message: Value, rule, and repair.
        is_fault: False for a warning.
    """

    kind: Kind
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
