"""The files of a run or an output that requests may read: log, config, result, pictures. Nothing behind a link."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.comparison.runs import CONFIG, METRICS, RESULT, damaged_record, read_reports
from search.serve.refusals import Refusal
from utils.files import read_json_object

PICTURES = "pictures"
_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
_MOST_PICTURES = 500
_MOST_BYTES = 50_000_000  # of a picture
MOST_LOG_BYTES = 1_000_000  # of one answer


@dataclass(frozen=True)
class LogPiece:
    """A piece of an output.

    Attributes:
        text: The piece, cut between characters.
        offset: Its first byte.
        next_offset: The byte after it.
        size: Of the file.
    """

    text: str
    offset: int
    next_offset: int
    size: int


def read_log(path: Path, offset: int, limit: int = MOST_LOG_BYTES) -> LogPiece:
    """Read a piece of an output.

    Args:
        path: The file; one that is missing is empty.
        offset: First byte; negative: from the end, and there from the beginning of a line.
        limit: Maximum number of bytes.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return LogPiece("", 0, 0, 0)
    except OSError as error:
        raise Refusal(409, f"{path.name}: cannot be read ({error.strerror}). Look at the file.") from error
    with open(opened, "rb") as file:
        size = os.fstat(opened).st_size
        first = min(offset, size) if offset >= 0 else max(0, size + offset)
        file.seek(first)
        content = file.read(min(limit, MOST_LOG_BYTES))
    if offset < 0 and first:
        line = content.find(b"\n") + 1
        first, content = first + line, content[line:]
    is_whole = first + len(content) >= size
    content = content if is_whole else _between_characters(content)
    return LogPiece(content.decode("utf-8", errors="replace"), first, first + len(content), size)


def _between_characters(content: bytes) -> bytes:
    """Return bytes without the beginning of a character at their end."""
    for length in range(1, min(4, len(content)) + 1):
        byte = content[-length]
        if byte & 0xC0 == 0xC0:  # the first byte of several
            return content[:-length] if length < _num_bytes(byte) else content
        if byte < 0x80:
            break
    return content


def _num_bytes(first: int) -> int:
    return 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def run_content(folder: Path) -> dict[str, Any]:
    """Return config, rows of epochs, result and names of the pictures of a run; what is missing is empty.

    Raises:
        SearchError: A file is damaged.
    """
    return {
        "config": read_json_object(_inside(folder, CONFIG), damaged_record),
        "reports": read_reports(_inside(folder, METRICS)),
        "result": read_json_object(_inside(folder, RESULT), damaged_record),
        "pictures": picture_names(folder),
    }


def picture_names(folder: Path) -> list[str]:
    """Return the names of the pictures of a run."""
    if (folder / PICTURES).is_symlink():
        return []
    try:
        with os.scandir(folder / PICTURES) as entries:
            names = [
                each.name
                for each in entries
                if each.is_file(follow_symlinks=False) and Path(each.name).suffix.lower() in _MEDIA_TYPES
            ]
    except OSError:
        return []
    return sorted(names)[:_MOST_PICTURES]


def read_picture(folder: Path, name: str) -> tuple[bytes, str]:
    """Return content and media type of a picture of a run.

    Raises:
        Refusal: There is none of this name, or it is too large.
    """
    if name not in picture_names(folder):
        raise Refusal(404, f"picture {json.dumps(name[:80])}: is none of this run. Its names are in its answer.")
    path = folder / PICTURES / name
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with open(opened, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise Refusal(404, f"picture {name}: cannot be read ({error.strerror}).") from error
    if len(content) > _MOST_BYTES:
        raise Refusal(409, f"picture {name}: is larger than {_MOST_BYTES:,} bytes. Open the file itself.")
    return content, _MEDIA_TYPES[path.suffix.lower()]


def require_below(folder: Path, base: Path) -> Path:
    """Return a folder, if no link on the way leads out of that of the service.

    Raises:
        Refusal: One does.
    """
    if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(base)):
        raise Refusal(409, f"{folder.name}: lies outside of the folder of the service, behind a link. Look there.")
    return folder


def _inside(folder: Path, name: str) -> Path:
    """Return a file of a run.

    Raises:
        Refusal: It is a link to something else.
    """
    path = folder / name
    if path.is_symlink():
        raise Refusal(409, f"{name}: is a link, which a service does not follow. Copy the file.")
    return path


def as_json(piece: LogPiece) -> Mapping[str, Any]:
    """Return a piece as it is answered."""
    return {"text": piece.text, "offset": piece.offset, "next_offset": piece.next_offset, "size": piece.size}
