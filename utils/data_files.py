"""Files of data: the kinds of images that are read, hidden files, which are not data, and limits on what is decoded.

The limits are checked before anything is decoded, because a small file may unpack to a huge one.
"""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from utils.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

IMAGE_MB = 512
"""Largest decoded image or mask: about 179 megapixels in colours of 8 bits."""

FILE_MB = 1024
"""Largest decoded file of many samples."""

_MB = 2**20
UNREAD_SUFFIXES = frozenset(
    {
        *(".gif", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".jpe", ".svg", ".psd", ".ico"),
        *(".tga", ".pcx", ".pbm", ".pnm", ".exr", ".hdr", ".dds", ".icns", ".apng", ".mpo"),
        # Raw photos of cameras.
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    }
)
"""Kinds of images that are not read."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is one that a system, an archive or a notebook creates, not the user."""
    return name.startswith(".") or name == "__MACOSX"


def files_below(folder: str | Path) -> list[Path]:
    """Return all files of a folder and the folders below it, sorted, without hidden ones."""
    found = []
    for directory, below, names in os.walk(folder):
        below[:] = [name for name in below if not is_hidden(name)]
        found += [Path(directory, name) for name in names if not is_hidden(name)]
    return sorted(found)


def describe_left_out(files: Iterable[Path], suffixes: frozenset[str] = IMAGE_SUFFIXES) -> str:
    """Return number and kinds of the images that are not read, as "2 .gif, 1 .heic"; empty if there are none.

    Args:
        files: Files of any kind.
        suffixes: Kinds that are read.
    """
    kinds = Counter(path.suffix.lower() for path in files)
    left_out = sorted(kind for kind in kinds if kind in UNREAD_SUFFIXES - suffixes)
    return ", ".join(f"{kinds[kind]} {kind}" for kind in left_out)


def require_decoded_size(path: str | Path, found: str, num_bytes: int, limit_mb: int | None, *, of_many: bool) -> None:
    """Raise an error if a file would take more memory than it may.

    Args:
        path: The file.
        found: Its content, for the message, as "13500x13500 pixels".
        num_bytes: Memory that reading it takes.
        limit_mb: The option `max_decoded_mb`; None: the default.
        of_many: The file holds many samples, not one image.

    Raises:
        DataError: It is larger than the limit.
    """
    default = FILE_MB if of_many else IMAGE_MB
    limit = default if limit_mb is None else limit_mb
    if num_bytes > limit * _MB:
        repair, megabytes = "Split the file" if of_many else "Scale it down", -(-num_bytes // _MB)
        raise DataError(
            f"{path} holds {found}, which take {megabytes} MB when they are decoded; the limit is {limit} MB "
            f"(max_decoded_mb). {repair}, or set max_decoded_mb of the loader higher."
        )
