"""The sound of a video, copied to its result by the ffmpeg program if that is installed."""

import os
import shutil
import subprocess
from pathlib import Path

# The sound unchanged, or converted if the new file format cannot hold it (the last one for .webm).
_CODECS = ("copy", "aac", "libopus")


def add_sound(video: Path, original: Path, seconds: float) -> str | None:
    """Add the sound of the original to a written video; the images are copied unchanged.

    Args:
        video: Replaced by the same video with sound; unchanged if that fails.
        original: The video with the sound.
        seconds: Length of the images: longer sound is cut off there.

    Returns:
        The problem to report, None if all went well or there is no sound.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        return f"{video} has no sound: the ffmpeg program is not installed. Install it and run again to keep the sound."
    partial = video.with_name(f".{video.stem}.{os.getpid()}.sound{video.suffix}")
    inputs = [program, "-nostdin", "-v", "error", "-y", "-i", str(video), "-i", str(original)]
    problem = ""
    try:
        for codec in _CODECS:
            output = [
                "-map",
                "0:v",
                "-map",
                "1:a?",
                "-c:v",
                "copy",
                "-c:a",
                codec,
                "-t",
                f"{seconds:.3f}",
                str(partial),
            ]
            result = subprocess.run([*inputs, *output], capture_output=True, text=True, check=False)
            if result.returncode == 0:
                os.replace(partial, video)
                return None
            problem = (result.stderr.strip().splitlines() or ["no reason given"])[0]
    finally:
        partial.unlink(missing_ok=True)
    return f"{video} has no sound: ffmpeg could not add it ({problem})."
