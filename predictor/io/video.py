"""The frames of a video file with the time of each, decoded by PyAV."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from predictor.io.frames import FALLBACK_FRAME_RATE, Frame, FrameSource
from utils.errors import DataError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

HIGHEST_FRAME_RATE = 1000
LARGEST_PIXEL_ASPECT = 4  # those of films and DVDs lie between 0.5 and 2
LARGEST_PIXEL_TERM = 255  # the largest numerator or denominator that MPEG-4 holds
_NO_MATRIX = 2  # AVCOL_SPC_UNSPECIFIED
_MOST_LINES_OF_BT601, _WIDTH_OF_BT709 = 576, 1280


class Video(FrameSource):
    """The frames of a video file, upright, each with its time.

    Args:
        path: The file.
        name: Path relative to the source folder; the name of the file if None.

    Attributes:
        pixel_aspect: Width of a pixel of the stream as a multiple of its height; 1 if the file does not say.

    Raises:
        DataError: The file does not exist or cannot be read as a video.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        super().__init__([path], frame_rate=FALLBACK_FRAME_RATE)
        self.path, self.name = path, name or path.name
        with self._open() as (container, stream):
            rate = float(stream.average_rate or 0)
            self.pixel_aspect = _plausible(stream.sample_aspect_ratio)
            self.promised = stream.frames or None
            length = stream.duration * stream.time_base if stream.duration and stream.time_base else None
            seconds = float(length if length is not None else (container.duration or 0) / 1e6)
            self._seconds = seconds if self.promised is None else 0.0
        if 0 < rate <= HIGHEST_FRAME_RATE:
            self.frame_rate = rate
            self.expected = self.promised or round(seconds * rate) or None
        else:
            self.remarks.append(f"{path} does not say its frame rate; {FALLBACK_FRAME_RATE:g} frames/s are assumed.")

    @contextmanager
    def _open(self) -> "Iterator[tuple[InputContainer, VideoStream]]":
        import av

        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise DataError(f"{self.path} holds no images, only {_kinds(container)}. Name a video.")
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                yield container, stream
        except av.FFmpegError as error:
            raise DataError(
                f"{self.path} cannot be read as a video ({error.strerror}): it is damaged, no video, or of an unknown "
                "kind. Convert it, e.g. ffmpeg -i FILE -c:v libx264 new.mp4."
            ) from None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames until the stream ends, or cannot be decoded any more.

        Raises:
            DataError: There is not a single frame.
        """
        import av

        count, lost, end = 0, 0, 0.0
        start: float | None = None
        with self._open() as (container, stream):
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.InvalidDataError:  # players go on after damage as well
                    lost += 1
                    continue
                for frame in frames:
                    time = frame.time
                    if time is None:  # a stream without time stamps
                        time = (start or 0.0) + count / (self.frame_rate or FALLBACK_FRAME_RATE)
                    start = time if start is None else start
                    seconds = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else None
                    image: NDArray[Any] = _as_rgb(frame).to_ndarray()
                    aspect = self.pixel_aspect
                    if quarters := frame.rotation // 90 % 4:  # as a telephone was held
                        image = np.ascontiguousarray(np.rot90(image, quarters))
                        aspect = 1 / aspect if quarters % 2 else aspect
                    yield Frame(f"{count:06d}", image, max(0.0, time - start), seconds, aspect)
                    count, end = count + 1, time - start + (seconds or 0.0)
        if count == 0:
            raise DataError(f"{self.path} holds no frame that can be decoded. Use another file.")
        # Headers round: a frame more or less is common and no sign of damage.
        promised = self.promised
        if promised is not None and abs(count - promised) > max(1, promised // 100):
            self.remarks.append(
                f"{self.path} promises {promised} frames and {count} could be decoded; it may be cut off."
            )
        elif self._seconds - end > max(0.5, self._seconds / 10):  # the sound may be longer
            self.remarks.append(
                f"{self.path} promises {self._seconds:.1f} seconds, and its images end after {end:.1f}; it may be cut "
                "off."
            )
        elif lost:
            self.remarks.append(f"{self.path}: {lost} frames are damaged and were left out.")


def _plausible(aspect: Fraction | None) -> Fraction:
    """Return a width of pixels by their height as a fraction of small numbers; 1 if it is none that videos have."""
    if not aspect or not 1 / LARGEST_PIXEL_ASPECT <= aspect <= LARGEST_PIXEL_ASPECT:
        return Fraction(1)
    return aspect.limit_denominator(LARGEST_PIXEL_TERM // LARGEST_PIXEL_ASPECT)


def _kinds(container: "InputContainer") -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"


def _as_rgb(frame: "VideoFrame") -> "VideoFrame":
    """Return a frame in RGB; the colours of one that names no matrix are those of its size, as in players."""
    is_high = frame.height > _MOST_LINES_OF_BT601 or frame.width >= _WIDTH_OF_BT709
    if int(frame.colorspace) == _NO_MATRIX and is_high:
        return frame.reformat(format="rgb24", src_colorspace="ITU709")
    return frame.reformat(format="rgb24")
