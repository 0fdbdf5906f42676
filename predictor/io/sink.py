"""The base of all sinks, and their errors of writing."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from predictor.io.frames import Frame
from utils.errors import DataError


@dataclass(eq=False)
class Sink(ABC):
    """A consumer of results in order; `close` finishes its files, also after an error.

    Attributes:
        wants_rgb: Accepts (h, w, 3) uint8 RGB only.
        remarks: Facts to report to the user, filled while writing.
        written: Files that are finished.
    """

    wants_rgb = False

    remarks: list[str] = field(init=False, default_factory=list)
    written: list[Path] = field(init=False, default_factory=list)

    @abstractmethod
    def write(self, frame: Frame, result: NDArray[Any]) -> bool:
        """Write one result; return False if no more are wanted."""

    def close(self) -> None:  # noqa: B027 (most sinks have nothing to finish)
        """Finish the files."""


class FormatTooSmall(DataError):
    """A result does not fit into its file format; other results may."""


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into one that names the file and the repair.

    Raises:
        DataError: Instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}). Check the rights and the free space there, or name "
            "another --output."
        ) from error
