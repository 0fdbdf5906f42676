"""The sink that writes a video file."""

import os
from dataclasses import KW_ONLY, dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path

from predictor.io.frames import Frame
from predictor.io.sink import Sink, writing_to
from predictor.io.video import Video
from predictor.io.video_writer import DEFAULT_ENCODERS, ENCODERS, LONGEST_STILL, VideoWriter
from utils.drawing import Image, resize_to
from utils.errors import DataError
from utils.writing.mark import ensure_mark

LAST_RESORT = ".mp4"
SEEN = 0.02  # relative difference of proportions that is seen


@dataclass(eq=False)
class VideoFileSink(Sink):
    """One video, written next to its final name and moved there when it is finished.

    Args:
        path: The file; an .mp4 next to it if nothing can write its format.
        frame_rate: Frames per second on average, for frames without a time.
        sound_of: A video whose sound is copied, as long as there are images.
    """

    wants_rgb = True

    path: Path
    frame_rate: float
    _: KW_ONLY
    sound_of: Path | None = None
    count: int = field(init=False, default=0)
    _writer: VideoWriter | None = field(init=False, default=None)
    _size: tuple[int, int] = field(init=False, default=(0, 0))
    _pixel_aspect: Fraction = field(init=False, default=Fraction(1))

    @property
    def part(self) -> Path:
        """The unfinished file."""
        return self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")

    def write(self, frame: Frame, result: Image) -> bool:
        """Write (h, w, 3) uint8 RGB; a frame of another size than the first is fitted to it.

        Raises:
            DataError: No video can be written there.
        """
        import av

        if self._writer is None:
            self._writer = self._open((result.shape[0], result.shape[1]), frame.pixel_aspect)
        time = self.count / self.frame_rate if frame.time is None else frame.time
        self.count += 1
        try:
            self._writer.write(resize_to(result, self._size), time, frame.seconds or 1 / self.frame_rate)
        except (OSError, av.FFmpegError) as error:
            raise self._not_written(error.strerror) from error
        return True

    def _not_written(self, reason: str | None) -> DataError:
        return DataError(
            f"{self.path} was not written completely: the disk is probably full "
            f"({reason or 'it cannot be read again'}). Free some space and run again."
        )

    def _open(self, size: tuple[int, int], pixel_aspect: Fraction) -> VideoWriter:
        """Open the file with the first encoder that works; as .mp4 if none of its format does."""
        import av

        self._pixel_aspect = pixel_aspect
        height, width = size
        self._size = (max(2, height - height % 2), max(2, width - width % 2))
        if self._size != size:
            self.remarks.append(f"A video's sides are even: {width}x{height} became {self._size[1]}x{self._size[0]}.")
        with writing_to(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.part.touch()  # a folder that cannot be written is not reported as a missing encoder
        suffix = self.path.suffix.lower()
        for kind in (suffix, LAST_RESORT):
            if kind != suffix:
                self.part.unlink(missing_ok=True)
                self.remarks.append(f"{suffix} videos cannot be written here; {kind} is written.")
                self.path = self.path.with_suffix(kind)
                while self.path.exists():  # the user did not name this file, so it may be an original
                    self.path = self.path.with_stem(self.path.stem + "_")
            for encoder in ENCODERS.get(kind, DEFAULT_ENCODERS):
                for sound_of in dict.fromkeys((self.sound_of, None)):
                    try:
                        open_writer = partial(VideoWriter, sound_of=sound_of, pixel_aspect=pixel_aspect)
                        writer = open_writer(self.part, encoder, self._size, self.frame_rate)
                    except (av.FFmpegError, ValueError, OSError) as error:
                        problem = error
                    else:
                        if sound_of != self.sound_of:
                            self.remarks.append(
                                f"{self.path} has no sound: that of {self.sound_of} is lost ({problem})."
                            )
                        return writer
        self.part.unlink(missing_ok=True)
        raise DataError(f"{self.path} cannot be written as a video ({problem}). Name an .mp4 file, or a folder.")

    def close(self) -> None:
        """Finish the file; after an interruption it contains the frames so far.

        Raises:
            DataError: It was not written completely.
        """
        import av

        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            writer.close()
            found = Video(self.part)  # not every full disk is reported
            ensure_mark(self.part)
        except (OSError, av.FFmpegError, DataError) as error:
            self.part.unlink(missing_ok=True)
            raise self._not_written(getattr(error, "strerror", None)) from None
        if abs(found.pixel_aspect / self._pixel_aspect - 1) > SEEN:
            self.remarks.append(
                f"{self.path} is shown with other proportions: a {self.path.suffix} cannot say that its pixels are "
                f"{float(self._pixel_aspect):.3f} times as wide as high. Name an .mp4 or .mkv file as --output."
            )
        if writer.seconds_left_out:
            self.remarks.append(
                f"{self.path} is {writer.seconds_left_out:.0f} seconds shorter than its source, and no sound fits "
                f"from there on: a {self.path.suffix} has no times, so that an image is repeated while it is shown, at "
                f"most for {LONGEST_STILL} seconds. Name an .mp4 or .mkv file as --output."
            )
        with writing_to(self.path):
            os.replace(self.part, self.path)
        self.written.append(self.path)
