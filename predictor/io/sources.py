"""Sources of images: a photo, a folder of photos, a video or a camera, read frame by frame."""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from predictor.io.frames import FALLBACK_FRAME_RATE, Frame, FrameSource
from predictor.io.video import Video
from utils.errors import DataError
from utils.files import IMAGE_SUFFIXES, describe_left_out, is_hidden

PHOTO_SUFFIXES = IMAGE_SUFFIXES
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".gif"})
ReadPhoto = Callable[[Path], NDArray[Any]]


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
        count, start = 0, 0.0
        try:
            while capture.isOpened() and (image := _next_frame(capture)) is not None:
                now = monotonic()
                start = now if count == 0 else start
                yield Frame(f"{count:06d}", np.ascontiguousarray(image[:, ::-1]), now - start)
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
    source: str, read: ReadPhoto, *, excluded: Path | None = None, suffixes: Collection[str] = PHOTO_SUFFIXES
) -> FrameSource:
    """Open the source that `--source` names, of a folder only the photos.

    Args:
        source: A photo, a folder (searched with all folders below it), a video, or the number of a camera.
        read: Path -> (h, w, 3 or 4) RGB; raises DataError.
        excluded: A folder below the source to skip: the results of an earlier run.
        suffixes: Suffixes of the files that `read` can read.

    Raises:
        DataError: It does not exist, or contains nothing that can be used.
    """
    path = Path(source).expanduser()
    if not path.is_dir():
        return _open_single(source, read, frozenset(suffixes))
    photos, videos, left_out = _find_in_folder(path, excluded, frozenset(suffixes))
    if not photos:
        raise DataError(f"--source {path} holds no photo, but {len(videos)} video(s). Name one of them.")
    found = Photos(photos, path, read)
    if videos:
        found.remarks.append(f"{path} also holds {len(videos)} video(s), which are skipped. Name them one at a time.")
    found.remarks += left_out
    return found


def open_sources(
    source: str, read: ReadPhoto, *, excluded: Path | None = None, suffixes: Collection[str] = PHOTO_SUFFIXES
) -> list[FrameSource]:
    """Open the source that `--source` names; of a folder first all photos as one source, then each video.

    Args:
        source: As for `open_source`.
        read: As for `open_source`.
        excluded: As for `open_source`.
        suffixes: As for `open_source`.

    Raises:
        DataError: It does not exist, or contains nothing that can be used.
    """
    path = Path(source).expanduser()
    if not path.is_dir():
        return [_open_single(source, read, frozenset(suffixes))]
    photos, videos, left_out = _find_in_folder(path, excluded, frozenset(suffixes))
    found: list[FrameSource] = [Photos(photos, path, read)] if photos else []
    failures: list[str] = []
    for video in videos:
        try:
            found.append(Video(video, video.relative_to(path).as_posix()))
        except DataError as error:
            failures.append(str(error))
    if not found:
        raise DataError("\n".join(failures))
    found[0].failures += failures
    found[0].remarks += left_out
    return found


def _open_single(source: str, read: ReadPhoto, suffixes: frozenset[str]) -> FrameSource:
    """Open a photo, a video or a camera."""
    path = Path(source).expanduser()
    if source.isdecimal() and not os.path.exists(path):
        return Camera(int(source))
    if not os.path.exists(path):
        raise DataError(
            f"--source {source} does not exist. Name a photo, a video, a folder of them, or a camera's number (0)."
        )
    if path.suffix.lower() in suffixes:
        return Photos([path], path.parent, read)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return Video(path)
    raise DataError(
        f"--source {source} is neither a photo ({_listed(suffixes)}) nor a video ({_listed(VIDEO_SUFFIXES)}). "
        "Convert it to one of these."
    )


def _listed(suffixes: frozenset[str]) -> str:
    return " ".join(sorted(suffix[1:] for suffix in suffixes))


def _find_in_folder(
    path: Path, excluded: Path | None, suffixes: frozenset[str]
) -> tuple[list[Path], list[Path], list[str]]:
    """Return the photos and videos of a folder and of all folders below it, without hidden ones, and remarks.

    Raises:
        DataError: There are none.
    """
    skipped = excluded.resolve() if excluded is not None else None
    files: list[Path] = []
    for directory, below, names in os.walk(path):
        here = Path(directory)
        below[:] = sorted(name for name in below if not is_hidden(name) and (here / name).resolve() != skipped)
        files += [here / name for name in sorted(names) if not is_hidden(name)]
    photos = [file for file in files if file.suffix.lower() in suffixes]
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES - suffixes]
    left_out = describe_left_out(files, suffixes | VIDEO_SUFFIXES)
    if not photos and not videos:
        also = f"; left out: {left_out}" if left_out else ""
        raise DataError(
            f"--source {path} holds no photo ({_listed(suffixes)}) and no video{also}. Name another source."
        )
    remark = f"Left out: {left_out} in {path}. Convert them to PNG or JPEG to use them."
    return photos, videos, [remark] if left_out else []
