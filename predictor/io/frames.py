"""Frames and the base of all sources of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from utils.errors import DataError

FALLBACK_FRAME_RATE = 25.0  # for a stream that does not say how fast it is


class Frame(NamedTuple):
    """One image of a source.

    Attributes:
        name: Path relative to the source folder, or the number of the frame in its stream.
        image: (h, w, 3 or 4) uint8 or uint16 RGB.
        time: Seconds from the first frame to this one; None for photos.
        seconds: For how long it is shown; None if the stream does not say.
        pixel_aspect: Width of a pixel as a multiple of its height; players scale an image by it.
    """

    name: str
    image: NDArray[Any]
    time: float | None = None
    seconds: float | None = None
    pixel_aspect: Fraction = Fraction(1)


@dataclass(eq=False)
class FrameSource(ABC):
    """A sequence of images; a second iteration starts again, except with a camera.

    Attributes:
        files: The files of the user behind this source, which must not be overwritten.
        expected: The number of images, if it is known; of some videos an estimate.
        frame_rate: Images per second, on average; None for photos.
        is_live: Images that are not read in time are lost.
        failures: One line for each image that could not be used; filled during iteration.
        remarks: Other facts to report to the user.
    """

    files: list[Path] = field(default_factory=list)
    expected: int | None = None
    frame_rate: float | None = None
    failures: list[str] = field(init=False, default_factory=list)
    remarks: list[str] = field(init=False, default_factory=list)
    is_live = False

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the images in order."""

    def leave_out(self, name: str, error: DataError) -> None:
        """Add an image that cannot be used to the failures; the others still can.

        Args:
            name: Of its frame.
            error: The reason.

        Raises:
            DataError: It is a frame of a stream, whose other frames are like it.
        """
        if self.frame_rate is None:
            self.failures.append(f"{name}: {error}")
        else:
            raise DataError(f"Frame {name} of {self.files[0] if self.files else 'the camera'}: {error}") from error
