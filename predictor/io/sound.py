"""The sound of a video, copied into its result while this is written."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

# Codecs that players expect in any kind of file that allows them; other sound is encoded anew.
COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "vorbis"})
ENCODERS = {".webm": "libopus"}
logger = logging.getLogger(__name__)


class SoundTrack:
    """The first sound of a video on its way into another file.

    Args:
        original: The video with the sound.
        output: The new file, before anything is written into it.
        suffix: Of the new file.

    Raises:
        av.FFmpegError: The sound cannot be read, or the new file cannot hold it.
    """

    def __init__(self, original: "InputContainer", output: "OutputContainer", suffix: str) -> None:
        import av

        self._source = original.streams.audio[0]
        codec = self._source.codec_context.name
        self._resampler: av.AudioResampler | None = None
        if codec in COPIED and codec in output.supported_codecs:
            self._target: Any = output.add_stream_from_template(self._source)
        else:
            name = ENCODERS.get(suffix) or output.default_audio_codec
            rate = 48000 if name == "libopus" else self._source.rate
            # The order of channels may be unknown: then the common one of one or two.
            layout = self._source.layout.name
            layout = layout if "channels" not in layout else "mono" if self._source.channels == 1 else "stereo"
            self._target = output.add_stream(name, rate=rate, layout=layout)
            context = self._target.codec_context
            context.open()
            self._resampler = av.AudioResampler(context.format, context.layout, rate, context.frame_size or None)
        self._is_damaged = False
        self._packets = self._read(original)
        self._waiting: Any = None

    def _read(self, original: "InputContainer") -> Iterator[Any]:
        """Yield the packets for the new file."""
        if self._resampler is None:
            for packet in original.demux(self._source):
                if packet.dts is not None:  # the last one is empty
                    yield packet
            return
        for packet in original.demux(self._source):
            for decoded in self._decoded(packet):
                for frame in self._resampler.resample(decoded):
                    yield from self._target.encode(frame)
        for frame in self._resampler.resample(None):
            yield from self._target.encode(frame)
        yield from self._target.encode(None)

    def _decoded(self, packet: Any) -> list[Any]:
        """Return what is heard in a packet; nothing of a damaged one, which the log names once."""
        import av

        try:
            return list(packet.decode())
        except av.InvalidDataError as error:
            if not self._is_damaged:
                logger.warning("Damaged sound is left out: %s.", error.strerror)
            self._is_damaged = True
            return []

    def write_until(self, output: "OutputContainer", seconds: float, start: float) -> None:
        """Write what is heard before a time of the new file.

        Args:
            output: The new file.
            seconds: Time in it.
            start: Time of the original that is the beginning of the new file.
        """
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = packet
            if packet is None or packet.pts is None or packet.time_base is None:
                return
            time = float(packet.pts * packet.time_base) - start
            if time >= seconds:
                return
            self._waiting = None
            if time >= 0:
                shift = round(start / packet.time_base)
                packet.pts -= shift
                packet.dts = packet.pts if packet.dts is None else packet.dts - shift
                packet.stream = self._target
                output.mux(packet)


def open_original(path: Path) -> "InputContainer | None":
    """Open a video for its sound; None if it has none."""
    import av

    original = av.open(str(path))
    if original.streams.audio:
        return original
    original.close()
    return None
