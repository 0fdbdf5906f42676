"""The files of a run or an output that requests may read: log, config, result, pictures. Nothing behind a link."""

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from search.comparison.runs import CONFIG, METRICS, RESULT, damaged_record, read_reports
from search.serve.refusals import Refusal
from utils.files import read_json_object

PICTURES = "pictures"
_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
_MOST_PICTURES = 500
_MOST_BYTES = 50_000_000  # of a picture
_MOST_RECORD_BYTES = 5_000_000  # of a config, a result or the table of epochs, each of which is read as a whole
_PIECE = 65_536  # bytes of a file that is sent
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


@dataclass(frozen=True)
class SentFile:
    """A file that is sent in pieces, so that memory does not depend on its size.

    Attributes:
        file: Open, at its beginning.
        size: Of the file in bytes; bytes appended later are not sent.
        media_type: Such as "image/png".
    """

    file: BinaryIO
    size: int
    media_type: str

    def pieces(self) -> Iterator[bytes]:
        """Yield the content, and close the file."""
        left = self.size
        with self.file:
            while left > 0 and (piece := self.file.read(min(left, _PIECE))):
                left -= len(piece)
                yield piece


def read_log(path: Path, offset: int, limit: int = MOST_LOG_BYTES) -> LogPiece:
    """Read a piece of an output.

    Args:
        path: The file; one that is missing is empty.
        offset: First byte; negative: from the end, and there from the beginning of a line.
        limit: Maximum number of bytes.

    Raises:
        Refusal: It is a link, a folder or a pipe, or cannot be read.
    """
    try:
        file, size = _open_regular(path)
    except FileNotFoundError:
        return LogPiece("", 0, 0, 0)
    with file:
        first = min(offset, size) if offset >= 0 else max(0, size + offset)
        file.seek(first)
        content = file.read(min(limit, MOST_LOG_BYTES))
    if offset < 0 and first:
        line = content.find(b"\n") + 1
        first, content = first + line, content[line:]
    is_whole = first + len(content) >= size
    content = content if is_whole else _between_characters(content)
    return LogPiece(content.decode("utf-8", errors="replace"), first, first + len(content), size)


def _open_regular(path: Path) -> tuple[BinaryIO, int]:
    """Open a file, and return its size in bytes, too.

    Raises:
        FileNotFoundError: There is none.
        Refusal: It is a link, a folder or a pipe, or cannot be read.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would be waited for
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Refusal(409, f"{path.name}: cannot be read ({error.strerror}). Look at the file.") from error
    status = os.fstat(opened)
    if not stat.S_ISREG(status.st_mode):
        os.close(opened)
        raise Refusal(409, f"{path.name}: is a folder, a pipe or a device, which cannot be shown. Look at the file.")
    return open(opened, "rb"), status.st_size


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
    """Return config, rows of epochs, result and names of the pictures of a run; missing parts are empty.

    Raises:
        SearchError: A file is damaged.
        Refusal: A file is too large, or see `require_records`.
    """
    require_records(folder, (CONFIG, METRICS, RESULT))
    return {
        "config": read_json_object(folder / CONFIG, damaged_record),
        "reports": read_reports(folder / METRICS),
        "result": read_json_object(folder / RESULT, damaged_record),
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


def open_picture(folder: Path, name: str) -> SentFile:
    """Open a picture of a run.

    Raises:
        Refusal: There is none of this name, or it is too large.
    """
    if name not in picture_names(folder):
        raise Refusal(404, f"picture {json.dumps(name[:80])}: is none of this run. Its names are in its answer.")
    path = folder / PICTURES / name
    try:
        file, size = _open_regular(path)
    except FileNotFoundError as error:
        raise Refusal(404, f"picture {name}: was removed. Load the run again.") from error
    if size > _MOST_BYTES:
        file.close()
        raise Refusal(409, f"picture {name}: is larger than {_MOST_BYTES:,} bytes. Open the file itself.")
    return SentFile(file, size, _MEDIA_TYPES[path.suffix.lower()])


def require_below(folder: Path, base: Path) -> Path:
    """Return a folder, if no link on the way leads out of that of the service.

    Raises:
        Refusal: One does.
    """
    if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(base)):
        raise Refusal(409, f"{folder.name}: lies outside of the folder of the service, behind a link. Look there.")
    return folder


def require_records(folder: Path, names: Iterable[str], most_bytes: int = _MOST_RECORD_BYTES) -> None:
    """Raise if files of a run, which are read as a whole, are no regular files, or too large; they may be missing.

    Args:
        folder: Of the run.
        names: Of the files.
        most_bytes: Maximum size of each.

    Raises:
        Refusal: One is a link, a folder or a pipe, or is too large.
    """
    for name in names:
        try:
            status = (folder / name).lstat()
        except OSError:
            continue  # missing; a reader names anything else
        if stat.S_ISLNK(status.st_mode):
            raise Refusal(409, f"{name}: is a link, which a service does not follow. Copy the file.")
        if not stat.S_ISREG(status.st_mode):
            raise Refusal(409, f"{name}: is a folder, a pipe or a device, not a file. Remove it.")
        if status.st_size > most_bytes:
            raise Refusal(409, f"{name}: is larger than {most_bytes:,} bytes. Open the file itself.")


def as_json(piece: LogPiece) -> Mapping[str, Any]:
    """Return a piece as it is answered."""
    return {"text": piece.text, "offset": piece.offset, "next_offset": piece.next_offset, "size": piece.size}
