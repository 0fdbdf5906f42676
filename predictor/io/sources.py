"""Sources of images: a photo, a folder of photos, a video or a camera, read frame by frame."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.errors import DataError
from utils.files import IMAGE_SUFFIXES, describe_left_out, is_hidden

PHOTO_SUFFIXES = IMAGE_SUFFIXES
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".gif"})
FALLBACK_FRAME_RATE = 25.0  # for a stream that does not say how fast it is

ReadPhoto = Callable[[Path], NDArray[Any]]


class Frame(NamedTuple):
    """One image of a source.

    Attributes:
        name: Path relative to the source folder, or the number of the frame in its stream.
        image: (h, w, 3 or 4) uint8 or uint16 RGB.
    """

    name: str
    image: NDArray[Any]


@dataclass(eq=False)
class FrameSource(ABC):
    """A sequence of images; a second iteration starts again, except with a camera.

    Attributes:
        files: The files of the user behind this source, which must not be overwritten.
        expected: The number of images, if it is known.
        frame_rate: Images per second; None for photos.
        is_live: Images that are not read in time are lost.
        failures: One line for each image that could not be read; filled during iteration.
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


class Photos(FrameSource):
    """Photos from files; one that cannot be read is named in `failures` and skipped.

    Args:
        paths: The files.
        root: The folder that the names of the frames are relative to.
        read: Path -> (h, w, 3 or 4) RGB; raises DataError.
    """

    def __init__(self, paths: list[Path], root: Path, read: ReadPhoto) -> None:
        super().__init__(paths, expected=len(paths))
        self.root, self.read = root, read
        self.names = [path.relative_to(root).as_posix() for path in paths]

    def __iter__(self) -> Iterator[Frame]:
        """Yield the photos that can be read."""
        for name, path in zip(self.names, self.files, strict=True):
            try:
                image = self.read(path)
            except DataError as error:
                self.failures.append(str(error))
            else:
                yield Frame(name, image)


class Video(FrameSource):
    """The frames of a video file.

    Raises:
        DataError: The file does not exist or cannot be read as a video.
    """

    def __init__(self, path: Path) -> None:
        super().__init__([path], frame_rate=FALLBACK_FRAME_RATE)
        self.path = path
        with self._capture() as capture:
            promised, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        self.expected = int(promised) if 0 < promised < 2**31 else None
        if math.isfinite(rate) and 0 < rate <= 1000:
            self.frame_rate = rate
        else:
            self.remarks.append(f"{path} does not say its frame rate; {FALLBACK_FRAME_RATE:g} frames/s are assumed.")

    @contextmanager
    def _capture(self) -> Iterator[cv2.VideoCapture]:
        with quiet_opencv():
            capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise DataError(
                    f"{self.path} cannot be read as a video: it is damaged, no video, or of a kind this OpenCV does "
                    "not know. Convert it, e.g. ffmpeg -i FILE -c:v libx264 new.mp4."
                )
            yield capture
        finally:
            capture.release()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames until the stream ends.

        Raises:
            DataError: There is not a single frame.
        """
        count = 0
        with self._capture() as capture:
            while (image := _next_frame(capture)) is not None:
                yield Frame(f"{count:06d}", image)
                count += 1
        if count == 0:
            raise DataError(f"{self.path} holds no frame that can be decoded. Use another file.")
        # Headers round: a frame more or less is common and no sign of damage.
        if self.expected is not None and abs(count - self.expected) > max(1, self.expected // 100):
            self.remarks.append(
                f"{self.path} promises {self.expected} frames and {count} could be decoded; it may be cut off."
            )


class Camera(FrameSource):
    """A camera whose image is flipped as in a mirror. It is opened when the iteration begins.

    Args:
        number: 0 is the system's first camera.
    """

    is_live = True

    def __init__(self, number: int) -> None:
        super().__init__(frame_rate=FALLBACK_FRAME_RATE)
        self.number = number

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the camera gives no more.

        Raises:
            DataError: There is no such camera, or it gives no image.
        """
        with quiet_opencv():
            capture = cv2.VideoCapture(self.number)
        count = 0
        try:
            while capture.isOpened() and (image := _next_frame(capture)) is not None:
                yield Frame(f"{count:06d}", np.ascontiguousarray(image[:, ::-1]))
                count += 1
        finally:
            capture.release()
        if count == 0:
            raise DataError(
                f"Camera {self.number} gives no image: it is not connected, in use elsewhere, or not permitted. "
                "Check it, or name another number or a file as --source."
            )
        self.remarks.append(f"Camera {self.number} stopped after {count} frames.")


def _next_frame(capture: cv2.VideoCapture) -> NDArray[Any] | None:
    """Read the next frame, (h, w, 3) uint8 RGB, or None at the end of the stream."""
    is_there, image = capture.read()
    if not is_there or image is None:
        return None
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Switch off the messages of OpenCV on the console for a block: its failures are reported as our errors."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def open_source(
    source: str, read: ReadPhoto, *, excluded: Path | None = None, suffixes: frozenset[str] = PHOTO_SUFFIXES
) -> FrameSource:
    """Open the source that `--source` names.

    Args:
        source: A photo, a folder (searched with all folders below it), a video, or the number of a camera.
        read: Path -> (h, w, 3 or 4) RGB; raises DataError.
        excluded: A folder below the source to skip: the results of an earlier run.
        suffixes: Suffixes of the files that `read` can read.

    Raises:
        DataError: It does not exist, or contains nothing that can be used.
    """
    path = Path(source).expanduser()
    if source.isdecimal() and not os.path.exists(path):
        return Camera(int(source))
    if not os.path.exists(path):
        raise DataError(
            f"--source {source} does not exist. Name a photo, a folder of photos, a video, or a camera's number (0)."
        )
    photo_kinds, video_kinds = (
        " ".join(sorted(suffix[1:] for suffix in kinds)) for kinds in (suffixes, VIDEO_SUFFIXES)
    )
    if not path.is_dir():
        if path.suffix.lower() in suffixes:
            return Photos([path], path.parent, read)
        if path.suffix.lower() in VIDEO_SUFFIXES:
            return Video(path)
        raise DataError(
            f"--source {source} is neither a photo ({photo_kinds}) nor a video ({video_kinds}). "
            "Convert it to one of these."
        )
    # A folder: its photos and those of all folders below it, without hidden files.
    skipped = excluded.resolve() if excluded is not None else None
    photos: list[Path] = []
    others: list[Path] = []
    videos = 0
    for directory, below, names in os.walk(path):
        here = Path(directory)
        below[:] = sorted(name for name in below if not is_hidden(name) and (here / name).resolve() != skipped)
        files = [here / name for name in sorted(names) if not is_hidden(name)]
        photos += [file for file in files if file.suffix.lower() in suffixes]
        others += files
        videos += sum(file.suffix.lower() in VIDEO_SUFFIXES for file in files)
    left_out = describe_left_out(others, suffixes | VIDEO_SUFFIXES)
    if not photos:
        also = f" but {videos} video(s): name one of them" if videos else ""
        also += f"; left out: {left_out}" if left_out else ""
        raise DataError(f"--source {path} holds no photo ({photo_kinds}){also}. Name another source.")
    found = Photos(photos, path, read)
    if videos:
        found.remarks.append(f"{path} also holds {videos} video(s), which are skipped. Name them one at a time.")
    if left_out:
        found.remarks.append(f"Left out: {left_out} in {path}. Convert them to PNG or JPEG to use them.")
    return found
