"""Encoding of a video: H.264 where the format allows it, each frame at its time, with the sound of another video."""

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predictor.io.sound import SoundTrack, open_original
from utils.drawing import Image
from utils.writing.mark import MARK

if TYPE_CHECKING:
    from av.container import OutputContainer

TICKS = 60000
"""Parts of a second that time stamps count: common frame rates are whole numbers of them, and MPEG-4 allows no more."""

# Encoders with their options, the preferred one first, by the kind of file.
_MPEG4 = ("mpeg4", {"qmin": "2", "qmax": "5"})
ENCODERS = {
    ".webm": (("libvpx-vp9", {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "6"}),),
    ".avi": (_MPEG4,),
    ".wmv": (("wmv2", {"qmin": "2", "qmax": "5"}),),
    ".mpg": (("mpeg2video", {"qmin": "2", "qmax": "5"}),),
    ".mpeg": (("mpeg2video", {"qmin": "2", "qmax": "5"}),),
}
DEFAULT_ENCODERS = (("libx264", {"crf": "18", "preset": "veryfast"}), ("libopenh264", {"b": "8000000"}), _MPEG4)
CONSTANT_RATE = frozenset({".avi", ".wmv", ".mpg", ".mpeg"})
"""Kinds of files without a time for each frame: there a frame is repeated as long as it is shown."""

LONGEST_STILL = 60
"""Seconds for which a frame is repeated at most."""

_BT601 = 5  # the matrix by which the colours are converted; without this mark players guess by the size


class VideoWriter:
    """An open video file.

    Args:
        path: The file.
        encoder: Name of an encoder of FFmpeg, and its options.
        size: Height and width of the images, both even.
        frame_rate: Frames per second on average.
        sound_of: A video whose sound is copied, as long as there are images.
        pixel_aspect: Width of a pixel as a multiple of its height.

    Raises:
        av.FFmpegError: The encoder or the sound does not fit the kind of file.
        ValueError: There is no such encoder.
    """

    def __init__(
        self,
        path: Path,
        encoder: tuple[str, dict[str, str]],
        size: tuple[int, int],
        frame_rate: float,
        *,
        sound_of: Path | None = None,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        import av

        suffix = path.suffix.lower()
        self._rate = Fraction(frame_rate).limit_denominator(1001)
        self._is_constant = suffix in CONSTANT_RATE
        self._ticks = 1 / self._rate if self._is_constant else Fraction(1, TICKS)
        self._durations: dict[int, int] = {}
        self._next = 0  # first tick that is free
        self._last: Image | None = None
        self._left_out = 0  # ticks by which images are shown for a shorter time
        self._sound: SoundTrack | None = None
        self._start = 0.0
        with ExitStack() as files:
            flags = {"movflags": "+faststart"} if suffix in (".mp4", ".mov", ".m4v") else {}
            self._output: OutputContainer = files.enter_context(av.open(str(path), "w", container_options=flags))
            self._output.metadata["comment"] = MARK
            self._stream: Any = self._output.add_stream(encoder[0], rate=self._rate, options=encoder[1])
            context: Any = self._stream.codec_context
            context.height, context.width, context.pix_fmt = *size, "yuv420p"
            context.time_base, context.colorspace = self._ticks, _BT601
            context.sample_aspect_ratio = pixel_aspect
            self._stream.time_base = self._ticks
            if sound_of is not None and (original := open_original(sound_of)) is not None:
                files.enter_context(original)
                self._sound = SoundTrack(original, self._output, suffix)
                video = original.streams.video[0]
                self._start = float((video.start_time or 0) * (video.time_base or 0))
            self._output.start_encoding()
            self._files = files.pop_all()

    def write(self, image: Image, time: float, seconds: float) -> None:
        """Write an image (h, w, 3) uint8 RGB that is shown from a time on for some seconds.

        Raises:
            av.FFmpegError: It cannot be written.
        """
        first, end = (int(moment / self._ticks + 0.5) for moment in (time, time + seconds))
        if not self._is_constant:
            first = max(first, self._next)
            self._encode(image, first, max(1, end - first))
            self._next = first + 1
        else:
            if self._last is not None:
                self._repeat(self._last, first)
            self._repeat(image, end)
            self._last = image
        if self._sound is not None:
            self._sound.write_until(self._output, time + seconds, self._start)

    @property
    def seconds_left_out(self) -> float:
        """Seconds by which the file is shorter than the times of its images."""
        return float(self._left_out * self._ticks)

    def _repeat(self, image: Image, until: int) -> None:
        until -= self._left_out
        more = max(0, until - self._next - int(LONGEST_STILL / self._ticks))
        self._left_out, until = self._left_out + more, until - more
        for tick in range(self._next, until):
            self._encode(image, tick, 1)
        self._next = max(self._next, until)

    def _encode(self, image: Image | None, tick: int, duration: int) -> None:
        """Encode an image, or with None everything that the encoder holds back."""
        import av

        frame = None
        if image is not None:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = tick, self._ticks
            self._durations[tick] = duration
        for packet in self._stream.encode(frame):
            packet.duration = self._durations.pop(packet.pts or 0, 1)
            self._output.mux(packet)

    def close(self) -> None:
        """Finish the file.

        Raises:
            av.FFmpegError: It cannot be written.
        """
        with self._files:
            self._encode(None, 0, 0)
