"""The mark of images and videos that inference.py writes, so that it replaces no others."""

import struct
import zlib
from pathlib import Path

MARK = "Made by inference.py of Espalier"
_BYTES = MARK.encode()
_PNG_HEADER = 33  # bytes: the signature and the chunk IHDR
_AT_THE_ENDS = 1 << 22  # bytes at the beginning and at the end of a file in which the mark is looked for


def marked(encoded: bytes) -> bytes:
    """Return an encoded image with the mark: a comment of PNG or JPEG, else behind the end of the image.

    Args:
        encoded: The content of an image file.
    """
    if encoded.startswith(b"\x89PNG"):
        chunk = b"tEXtComment\0" + _BYTES
        framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return encoded[:_PNG_HEADER] + framed + encoded[_PNG_HEADER:]
    if encoded.startswith(b"\xff\xd8"):
        return encoded[:2] + b"\xff\xfe" + struct.pack(">H", len(_BYTES) + 2) + _BYTES + encoded[2:]
    return encoded + _BYTES


def has_mark(path: Path) -> bool:
    """Return whether a file has the mark, as the images and videos of inference.py do."""
    with open(path, "rb") as file:
        head = file.read(_AT_THE_ENDS)
        file.seek(max(0, path.stat().st_size - _AT_THE_ENDS))
        return _BYTES in head or _BYTES in file.read()


def ensure_mark(path: Path) -> None:
    """Add the mark behind the end of a video whose format has no place for a comment."""
    if not has_mark(path):
        with open(path, "ab") as file:
            file.write(_BYTES)
