"""Sinks of results: image files, a window, and the choice among all sinks.

The file of each result is decided in advance: no two results share one, and no original is overwritten.
"""

import logging
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
from numpy.typing import NDArray

from predictor.io.frames import FALLBACK_FRAME_RATE, Frame, FrameSource
from predictor.io.sink import FormatTooSmall, Sink, writing_to
from predictor.io.sources import PHOTO_SUFFIXES, VIDEO_SUFFIXES, Photos
from predictor.io.video import Video
from predictor.io.video_sink import VideoFileSink
from predictor.rendering import MaskRenderer, Renderer
from utils.drawing import Image
from utils.errors import ConfigError, DataError
from utils.writing.mark import marked
from utils.writing.outputs import ANY_IMAGE, IMAGE, Originals, require_output

COLOR_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
WRITABLE_SUFFIXES = COLOR_SUFFIXES | {".ppm"}  # a file of that kind is written if it is asked for by name
LOSSLESS_SUFFIXES = frozenset({".png", ".tif", ".tiff"})
LONGEST_SIDES = {".webp": 16_383, ".jpg": 65_500, ".jpeg": 65_500, ".png": 1_000_000}
"""Pixels that the encoders of a format allow for each side; of formats without an entry the memory decides."""

JPEG_QUALITY = 95
_PROBE_SECONDS = 30
logger = logging.getLogger(__name__)


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
            FormatTooSmall: The format of the file cannot hold the result.
        """
        path = self.target(frame.name)
        self.require(path)  # the names of a video's frames are not known before
        content = marked(encoded(result, path))
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # cv2.imwrite leaves incomplete files and cannot open every path on every system.
            partial = path.with_name(f".{path.name}.{os.getpid()}.part")
            try:
                partial.write_bytes(content)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        self.written.append(path)
        return True


def encoded(result: NDArray[Any], path: Path) -> bytes:
    """Return (h, w) ids, (h, w, 3) RGB or (h, w, 4) RGBA as the content of an image file of the kind of `path`.

    Raises:
        FormatTooSmall: The format cannot hold it.
    """
    suffix = path.suffix.lower()
    height, width = result.shape[:2]
    other = ".tif" if suffix == ".png" else ".png"
    repair = f"Scale the image down, or use it alone, with a {other} file as --output."
    longest = LONGEST_SIDES.get(suffix)
    if longest is not None and max(height, width) > longest:
        raise FormatTooSmall(
            f"{path}: a result of {width}x{height} pixels; {suffix} holds at most {longest} for each side. {repair}"
        )
    if result.ndim == 3:
        result = cv2.cvtColor(result, cv2.COLOR_RGBA2BGRA if result.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix in {".jpg", ".jpeg"} else []
    try:
        is_encoded, data = cv2.imencode(suffix, result, options)
        reason = "OpenCV refuses it"
    except cv2.error as error:
        is_encoded, reason = False, str(error.err)
    if not is_encoded:
        raise FormatTooSmall(
            f"{path}: a result of {width}x{height} pixels ({result.dtype}) cannot be encoded as {suffix} ({reason}). "
            f"{repair}"
        )
    return data.tobytes()


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
        refuse_other_frames(output)
        return lambda name: output / f"{name}.png"
    is_file = suffix in PHOTO_SUFFIXES | VIDEO_SUFFIXES and not output.is_dir()
    if is_file and len(source.files) == 1:
        if is_lossless and suffix not in LOSSLESS_SUFFIXES:
            raise ConfigError(f"--output {output}: this mode's exact values need PNG. Name a .png file or a folder.")
        if suffix not in WRITABLE_SUFFIXES:
            known = ", ".join(sorted(WRITABLE_SUFFIXES))
            raise ConfigError(
                f"--output {output}: a photo in colours cannot be written as {suffix}, only as {known}. Name one of "
                "these, or a folder."
            )
        return lambda _name: output
    if is_file:
        raise ConfigError(f"--output {output} is one file, but there are several photos. Name a folder.")
    names = output_names(source.names, ".png" if is_lossless else None)
    return lambda name: output / names[name]


def refuse_other_frames(folder: Path) -> None:
    """Raise if a folder holds frames already: those of two videos would be taken for one.

    Raises:
        DataError: It does.
    """
    earlier = [path for path in folder.glob("*.png") if path.stem.isdecimal()] if folder.is_dir() else []
    if earlier:
        raise DataError(
            f"--output {folder} holds {len(earlier)} frames of an earlier run, such as {min(earlier).name}: frames of "
            "two runs must not be mixed. Remove them, or name another folder."
        )


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


def outputs_of(sources: Sequence[FrameSource], renderer: Renderer, output: Path | None) -> list[Path | None]:
    """Return the file or folder for the results of each source: of several videos a file, or a folder, for each.

    Raises:
        ConfigError: There are several sources, and `output` is one file.
    """
    if output is None or len(sources) == 1:
        return [output] * len(sources)
    if output.suffix.lower() in PHOTO_SUFFIXES | VIDEO_SUFFIXES and not output.is_dir():
        raise ConfigError(f"--output {output} is one file, but there are several sources. Name a folder.")
    files = output_names([source.name for source in sources if isinstance(source, Video)], ".mp4")
    if renderer.has_alpha or renderer.is_lossless:  # a folder of frames for each
        files = {name: file.removesuffix(".mp4") for name, file in files.items()}
    return [output / files[source.name] if isinstance(source, Video) else output for source in sources]


def open_sinks(
    source: FrameSource,
    renderer: Renderer,
    output: Path | None,
    *,
    is_shown: bool = False,
    may_be_empty: bool = False,
    originals: Sequence[Path] = (),
    may_overwrite: bool = False,
) -> list[Sink]:
    """Open every sink that the options ask for.

    Args:
        source: Its kind decides between images and a video.
        renderer: Makes the results.
        output: A file or a folder; None writes nothing.
        is_shown: Open a window; without a display there is a warning and no window.
        may_be_empty: Allow no sink at all, to measure the speed.
        originals: Files and folders of data, in addition to those of the source, that must not be overwritten.
        may_overwrite: Replace images and videos that no inference has written, too; never those that are read.

    Raises:
        ConfigError: The output cannot hold such results, would replace something else, or there is no sink.
        DataError: The output is the source, or cannot be written.
    """
    sinks: list[Sink] = []
    if output is not None:
        kind = ANY_IMAGE if may_overwrite else IMAGE
        require = partial(
            require_output, option="--output", kind=kind, originals=Originals([*source.files, *originals])
        )
        if isinstance(source, Photos) and output.resolve() == source.root.resolve() and len(source.files) > 1:
            raise DataError(f"--output {output} is the source itself. Name another folder.")
        is_video_file = output.suffix.lower() in VIDEO_SUFFIXES
        if isinstance(source, Photos) or renderer.has_alpha or (renderer.is_lossless and not is_video_file):
            target = image_targets(source, output, is_lossless=renderer.is_lossless)
            files = [target(name) for name in source.names] if isinstance(source, Photos) else []
            folder = files[0].parent if len(files) == 1 else output
            sinks.append(ImageFileSink(target, require))
            if isinstance(source, Video) and source.pixel_aspect != 1:
                sinks[-1].remarks.append(
                    f"The pixels of {source.path} are {float(source.pixel_aspect):.3f} times as wide as high, and "
                    "those of its frames as images are squares to a viewer. Scale them for those of the video."
                )
        else:
            path = video_target(source, output)
            files, folder = [path], path.parent
            sound_of = source.path if isinstance(source, Video) else None
            video = VideoFileSink(path, source.frame_rate or FALLBACK_FRAME_RATE, sound_of=sound_of)
            if renderer.is_lossless:
                if isinstance(renderer, MaskRenderer) and renderer.export_ids is not None:
                    raise ConfigError(f"--own-ids: {path} is a video, which holds colours, no ids. Name a folder.")
                video.remarks.append(
                    f"{path} shows the classes in colours, from which ids cannot be read. For one PNG of ids for each "
                    "frame, name a folder as --output."
                )
            sinks.append(video)
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
