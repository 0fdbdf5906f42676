"""Sinks of results: image files, a video file, a window.

The file of each result is decided in advance: no two results share one, and no original is overwritten.
"""

import logging
import os
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
from numpy.typing import NDArray

from predictor.io.sound import add_sound
from predictor.io.sources import (
    FALLBACK_FRAME_RATE,
    PHOTO_SUFFIXES,
    VIDEO_SUFFIXES,
    Frame,
    FrameSource,
    Photos,
    Video,
    quiet_opencv,
)
from predictor.rendering import Renderer
from utils.drawing import Image, resize_to
from utils.errors import ConfigError, DataError
from utils.writing.outputs import IMAGE, Originals, require_output

COLOR_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
LOSSLESS_SUFFIXES = frozenset({".png", ".tif", ".tiff"})
JPEG_QUALITY = 95
# Codecs that OpenCV's own builds can write, best first, by the kind of file.
CODECS = {".avi": ("MJPG", "XVID"), ".webm": ("VP90", "VP80")}
DEFAULT_CODECS = ("mp4v", "MJPG")
LAST_RESORT = (".avi", "MJPG")
_PROBE_SECONDS = 30
logger = logging.getLogger(__name__)


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


@dataclass(eq=False)
class ImageFileSink(Sink):
    """One file for each result; folders are created as needed.

    Args:
        target: Name of a frame -> file.
        require: Raises an error if a file must not be replaced.
    """

    target: Callable[[str], Path]
    require: Callable[[Path], None] = lambda _file: None

    def write(self, frame: Frame, result: NDArray[Any]) -> bool:
        """Write (h, w) ids, (h, w, 3) RGB or (h, w, 4) RGBA.

        Raises:
            ConfigError: The file would replace something else.
            DataError: The file cannot be written.
        """
        path = self.target(frame.name)
        self.require(path)  # the names of a video's frames are not known before
        if result.ndim == 3:
            result = cv2.cvtColor(result, cv2.COLOR_RGBA2BGRA if result.shape[2] == 4 else cv2.COLOR_RGB2BGR)
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix.lower() in {".jpg", ".jpeg"} else []
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # cv2.imwrite leaves incomplete files and cannot open every path on every system.
            partial = path.with_name(f".{path.name}.{os.getpid()}.part")
            try:
                is_encoded, data = cv2.imencode(path.suffix, result, options)
                if not is_encoded:
                    raise OSError(f"OpenCV cannot encode {path.suffix}")
                partial.write_bytes(data.tobytes())
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        self.written.append(path)
        return True


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


@dataclass(eq=False)
class VideoFileSink(Sink):
    """One video, written next to its final name and moved there when it is finished.

    Args:
        path: The file; an .avi next to it if this OpenCV cannot write its format.
        frame_rate: Frames per second.
        clock: For a live source, the current time in seconds: frames are repeated or left out so that the video has
            the speed of the scene.
        sound_of: A video whose sound is copied.
    """

    wants_rgb = True

    path: Path
    frame_rate: float
    _: KW_ONLY
    clock: Callable[[], float] | None = None
    sound_of: Path | None = None
    count: int = field(init=False, default=0)
    _writer: cv2.VideoWriter | None = field(init=False, default=None)
    _size: tuple[int, int] = field(init=False, default=(0, 0))
    _started: float = field(init=False, default=0.0)

    @property
    def part(self) -> Path:
        """The unfinished file."""
        return self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")

    def write(self, frame: Frame, result: Image) -> bool:
        """Write (h, w, 3) uint8 RGB; a frame of another size than the first is fitted to it.

        Raises:
            DataError: No video can be written there.
        """
        if self._writer is None:
            self._writer = self._open((result.shape[0], result.shape[1]))
            self._started = self.clock() if self.clock else 0.0
        pixels = cv2.cvtColor(resize_to(result, self._size), cv2.COLOR_RGB2BGR)
        copies = 1
        if self.clock is not None:
            copies = int((self.clock() - self._started) * self.frame_rate) + 1 - self.count
        for _ in range(copies):
            self._writer.write(pixels)
            self.count += 1
        return True

    def _open(self, size: tuple[int, int]) -> cv2.VideoWriter:
        """Open the file with the first codec that works; as .avi if none of its format does."""
        height, width = size
        self._size = (height, width) if height < 2 or width < 2 else (height - height % 2, width - width % 2)
        if self._size != size:
            self.remarks.append(f"A video's sides are even: {width}x{height} became {self._size[1]}x{self._size[0]}.")
        with writing_to(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.part.touch()  # OpenCV reports a folder that cannot be written as a missing codec
        suffix = self.path.suffix.lower()
        for codec in CODECS.get(suffix, DEFAULT_CODECS):
            if (writer := self._try(codec)) is not None:
                return writer
        self.part.unlink(missing_ok=True)
        self.remarks.append(f"This OpenCV cannot write {suffix} videos; {LAST_RESORT[0]} (Motion JPEG) is written.")
        self.path = self.path.with_suffix(LAST_RESORT[0])
        while self.path.exists():  # the user did not name this file, so it may be an original
            self.path = self.path.with_stem(self.path.stem + "_")
        if (writer := self._try(LAST_RESORT[1])) is not None:
            return writer
        self.part.unlink(missing_ok=True)
        raise DataError(
            f"{self.path}: this OpenCV has no codec to write videos. Install opencv-python from PyPI, or name a folder "
            "of photos as --source."
        )

    def _try(self, codec: str) -> cv2.VideoWriter | None:
        """Return an open writer, or None if the codec or the file format is not supported."""
        with quiet_opencv():
            code = cv2.VideoWriter.fourcc(*codec)
            writer = cv2.VideoWriter(str(self.part), cv2.CAP_FFMPEG, code, self.frame_rate, self._size[::-1])
        if writer.isOpened():
            return writer
        writer.release()
        return None

    def close(self) -> None:
        """Finish the file; after an interruption it contains the frames so far.

        Raises:
            DataError: It was not written completely.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            Video(self.part)  # OpenCV does not report a full disk
        except DataError:
            self.part.unlink(missing_ok=True)
            raise DataError(
                f"{self.path} was not written completely: the disk is probably full. Free some space and run again."
            ) from None
        with writing_to(self.path):
            os.replace(self.part, self.path)
        self.written.append(self.path)
        if self.sound_of is not None:
            problem = add_sound(self.path, self.sound_of, self.count / self.frame_rate)
            self.remarks += [problem] if problem else []


@dataclass(eq=False)
class WindowSink(Sink):
    """A window on the screen; q, Escape or closing it ends the loop.

    Args:
        is_slideshow: Show each image until a key is pressed.
    """

    TITLE = "Espalier (q quits)"
    wants_rgb = True

    is_slideshow: bool = field(default=False, kw_only=True)

    def write(self, frame: Frame, result: Image) -> bool:
        """Show (h, w, 3) uint8 RGB."""
        cv2.imshow(self.TITLE, cv2.cvtColor(result, cv2.COLOR_RGB2BGR))
        while True:
            key = cv2.waitKey(50 if self.is_slideshow else 1)
            if key & 0xFF in {ord("q"), 27} or cv2.getWindowProperty(self.TITLE, cv2.WND_PROP_VISIBLE) < 1:
                return False
            if key != -1 or not self.is_slideshow:
                return True

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()


def display_problem() -> str | None:
    """Return the reason if no window can be shown here, else None.

    Without a display the window library ends the whole process, so the attempt runs in another process.
    """
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display (DISPLAY is not set)"
    attempt = [sys.executable, "-c", "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1); cv2.destroyAllWindows()"]
    try:
        result = subprocess.run(attempt, capture_output=True, timeout=_PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"opening a window was tried and failed ({type(error).__name__})"
    return None if result.returncode == 0 else "this OpenCV or this display cannot open a window"


def output_names(names: Sequence[str], suffix: str | None) -> dict[str, str]:
    """Return the name of the result for the name of each image, below the same folders.

    If two would collide (`a.jpg` and `a.png` both become `a.png`), the old suffix stays part of the name: `a_jpg.png`
    and `a_png.png`. Names that differ only in case collide, as they do on some disks.

    Args:
        names: Paths relative to the source folder.
        suffix: Of the results, e.g. `.png`; None keeps the suffix of each image if colours can be written that way.
    """
    plain: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        keeps_suffix = suffix is None and path.suffix.lower() in COLOR_SUFFIXES
        plain[name] = str(path if keeps_suffix else path.with_suffix(suffix or ".png"))
    counts = Counter(result.casefold() for result in plain.values())
    taken = {result for result, count in counts.items() if count == 1}
    results: dict[str, str] = {}
    for name, result in plain.items():
        if counts[result.casefold()] > 1:
            path = PurePosixPath(name)
            stem = f"{path.stem}_{path.suffix[1:].lower()}"
            while (result := str(path.with_name(stem + PurePosixPath(result).suffix))).casefold() in taken:
                stem += "_"
            taken.add(result.casefold())
        results[name] = result
    return results


def image_targets(source: FrameSource, output: Path, *, is_lossless: bool) -> Callable[[str], Path]:
    """Return the function from the name of a frame to the file of its result.

    Args:
        source: Its kind and its names determine the files.
        output: A folder, or the file itself for a single photo.
        is_lossless: Write PNG, as masks and cut-outs need; otherwise a photo retains its file format.

    Raises:
        ConfigError: `output` is a file whose format cannot hold the result.
    """
    suffix = output.suffix.lower()
    if not isinstance(source, Photos):
        if suffix in VIDEO_SUFFIXES:
            raise ConfigError(
                f"--output {output}: a video file has no transparency. Name a folder (one PNG for each frame), "
                "or use --mode background --background '#00ff00'."
            )
        return lambda name: output / f"{name}.png"
    if len(source.files) == 1 and suffix in PHOTO_SUFFIXES and not output.is_dir():
        if is_lossless and suffix not in LOSSLESS_SUFFIXES:
            raise ConfigError(f"--output {output}: this mode's exact values need PNG. Name a .png file or a folder.")
        return lambda _name: output
    if suffix in PHOTO_SUFFIXES | VIDEO_SUFFIXES and not output.is_dir():
        raise ConfigError(f"--output {output} is one file, but there are several photos. Name a folder.")
    names = output_names(source.names, ".png" if is_lossless else None)
    return lambda name: output / names[name]


def video_target(source: FrameSource, output: Path) -> Path:
    """Return the file of a video: `output` itself if it is a video file, else that folder with the name of the source.

    Raises:
        ConfigError: `output` is an image.
    """
    suffix = output.suffix.lower()
    if suffix in PHOTO_SUFFIXES | {".gif"} and not output.is_dir():
        raise ConfigError(f"--output {output} is an image, but the source is a video. Name a .mp4 file or a folder.")
    if suffix in VIDEO_SUFFIXES:
        return output
    return output / f"{source.path.stem if isinstance(source, Video) else 'camera'}.mp4"


def open_sinks(
    source: FrameSource,
    renderer: Renderer,
    output: Path | None,
    *,
    is_shown: bool = False,
    may_be_empty: bool = False,
    originals: Sequence[Path] = (),
) -> list[Sink]:
    """Open every sink that the options ask for.

    Args:
        source: Its kind decides between images and a video.
        renderer: Makes the results.
        output: A file or a folder; None writes nothing.
        is_shown: Open a window; without a display there is a warning and no window.
        may_be_empty: Allow no sink at all, to measure the speed.
        originals: Files and folders of data, in addition to those of the source, that must not be overwritten.

    Raises:
        ConfigError: The output cannot hold such results, would replace something else, or there is no sink.
        DataError: The output is the source, or cannot be written.
    """
    sinks: list[Sink] = []
    if output is not None:
        require = partial(
            require_output, option="--output", kind=IMAGE, originals=Originals([*source.files, *originals])
        )
        if isinstance(source, Photos) and output.resolve() == source.root.resolve() and len(source.files) > 1:
            raise DataError(f"--output {output} is the source itself. Name another folder.")
        if isinstance(source, Photos) or renderer.has_alpha:
            target = image_targets(source, output, is_lossless=renderer.is_lossless)
            files = [target(name) for name in source.names] if isinstance(source, Photos) else []
            folder = files[0].parent if len(files) == 1 else output
            sinks.append(ImageFileSink(target, require))
        else:
            path = video_target(source, output)
            files, folder = [path], path.parent
            clock = time.monotonic if source.is_live else None
            sound_of = source.path if isinstance(source, Video) else None
            sinks.append(VideoFileSink(path, source.frame_rate or FALLBACK_FRAME_RATE, clock=clock, sound_of=sound_of))
        for file in files:
            require(file)
        with writing_to(folder):  # tried before any work is done
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    if is_shown:
        problem = display_problem()
        if problem is None:
            sinks.append(WindowSink(is_slideshow=isinstance(source, Photos)))
        else:
            logger.warning("No window is shown: %s.", problem)
    if not sinks and not may_be_empty:
        raise ConfigError("The results have nowhere to go. Name a file or a folder as --output.")
    return sinks
