"""Lists of files: text files with one sample per line, and the files that they name."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from utils.errors import DataError

_PATHS_SHOWN = 5


def read_entries(path: Path, noun: str, argument: str, entry: str) -> list[tuple[int, str]]:
    """Return number and text of the lines of a list, without blank lines and comments, which begin with `#`.

    Args:
        path: The list.
        noun: Its name in messages.
        argument: The argument of the loader that names it.
        entry: Form of a line, for messages.

    Raises:
        DataError: The list is missing, unreadable or empty.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"The {noun} {path} does not exist. Correct {argument}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The {noun} {path} cannot be read: {error}. It must be a text file (UTF-8).") from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    entries = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if not entries:
        raise DataError(f"The {noun} {path} is empty. It must hold one `{entry}` per line.")
    return entries


def require_files(paths: Iterable[Path], source: str, root: Path | None = None) -> None:
    """Raise an error if files are missing.

    Args:
        paths: The files.
        source: List or folder that names them, for the message.
        root: Folder that the names are relative to.

    Raises:
        DataError: Some do not exist; names the first few and counts all.
    """
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        rule = "" if root is None else f" Paths are relative to {root.resolve()}; set data_root if that is wrong."
        raise DataError(f"{source} names {len(missing)} files that do not exist: {first_paths(missing)}.{rule}")


def first_paths(paths: Sequence[Path]) -> str:
    """Return the first five paths as text."""
    return ", ".join(map(str, paths[:_PATHS_SHOWN])) + (", ..." if len(paths) > _PATHS_SHOWN else "")
