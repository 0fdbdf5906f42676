"""The sound of a video, put back onto its images by the ffmpeg program where that is installed."""

import os
import shutil
import subprocess
from pathlib import Path

# The sound as it is, or converted where the new kind of file cannot hold it (the last one for .webm).
_CODECS = ("copy", "aac", "libopus")


def add_sound(video: Path, original: Path, seconds: float) -> str | None:
    """Give a written video the sound of the one it was made of; the images are copied as they are.

    Args:
        video: Replaced by itself with sound; unchanged where that fails.
        original: The video with the sound.
        seconds: Length of the images: longer sound is cut off there.

    Returns:
        What the user should know, None where all went well or there is no sound.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        return f"{video} has no sound: the ffmpeg program is not installed. Install it and run again to keep the sound."
    beside = video.with_name(f".{video.stem}.{os.getpid()}.sound{video.suffix}")
    inputs = [program, "-nostdin", "-v", "error", "-y", "-i", str(video), "-i", str(original)]
    problem = ""
    try:
        for codec in _CODECS:
            output = ["-map", "0:v", "-map", "1:a?", "-c:v", "copy", "-c:a", codec, "-t", f"{seconds:.3f}", str(beside)]
            result = subprocess.run([*inputs, *output], capture_output=True, text=True, check=False)
            if result.returncode == 0:
                os.replace(beside, video)
                return None
            problem = (result.stderr.strip().splitlines() or ["no reason given"])[0]
    finally:
        beside.unlink(missing_ok=True)
    return f"{video} has no sound: ffmpeg could not add it ({problem})."
