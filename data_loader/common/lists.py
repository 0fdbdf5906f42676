"""Lists of files, and folders that hold the parts of a data set."""

import csv
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from utils.errors import DataError, first_few, joined_faults
from utils.files import IMAGE_MB, IMAGE_SUFFIXES, describe_left_out, read_regular_text

VALIDATION_NAMES = ("val", "valid", "validation")
"""Names of the folder for validation; any of them is found under each other's name."""

_PATHS_SHOWN = 5
_COMMA_AND_TAB = re.compile(r",\s*\t|\t\s*,")
_QUOTED = re.compile(r'(?<![^,\t ])"(?:[^"]|"")*"(?![^,\t ])')  # a whole field
logger = logging.getLogger(__name__)

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Listing(Generic[Entry]):
    """The entries of a list or a folder.

    Attributes:
        entries: Those that can be used, as far as it shows without opening a file.
        faults: The others, as an error for each kind of fault, with a part for each entry.
    """

    entries: Sequence[Entry]
    faults: Sequence[DataError] = ()

    def whole(self) -> list[Entry]:
        """Return the entries.

        Raises:
            DataError: Some cannot be used.
        """
        if self.faults:
            raise joined_faults(self.faults)
        return list(self.entries)

    def usable(self) -> list[Entry]:
        """Return the entries that can be used.

        Raises:
            DataError: None can.
        """
        return list(self.entries) if self.entries else self.whole()


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
        if os.stat(path).st_size > IMAGE_MB * 2**20:
            raise ValueError(f"it is larger than {IMAGE_MB} MB, which no list is")
        lines = read_regular_text(path).splitlines()
    except FileNotFoundError:
        raise DataError(f"The {noun} {path} does not exist. Correct {argument}.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"The {noun} {path} cannot be read: {error}. It must be a text file (UTF-8).") from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    entries = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if not entries:
        raise DataError(f"The {noun} {path} is empty. It must hold one `{entry}` per line.")
    return entries


def split_entry(line: str) -> list[str]:
    """Return the fields of a line of a list: between tabs if it has any, else commas, else blanks.

    A field that holds such a character is put between double quotes, as in CSV files.
    """
    bare = _QUOTED.sub("", line) if '"' in line else line  # text between quotes separates nothing
    if "\t" in bare and not _COMMA_AND_TAB.search(bare):
        separator = "\t"
    else:
        separator = "," if "," in bare else " "
        line = line if "\t" not in bare else line.replace("\t", " ")
    if '"' not in line:
        fields = line.split(separator)
    else:
        try:
            (fields,) = csv.reader([line], delimiter=separator, skipinitialspace=True)
        except (csv.Error, ValueError):  # a field of more characters than the module reads
            fields = line.split(separator)
    return [field.strip() for field in fields if field.strip()]


def several_lines(faults: Sequence[DataError], headline: str) -> list[DataError]:
    """Return one error for the faulty lines of a file, below a headline if there are several; none for none."""
    if len(faults) < 2:
        return list(faults)
    return [DataError("\n".join([headline, *first_few(list(map(str, faults)))]), faults)]


def missing_fault(paths: Iterable[Path], source: str, root: Path | None = None) -> list[DataError]:
    """Return one error for the files that are missing, none if all are there; it names the first few and counts all.

    It has a part for each file, unless all are missing: that has one cause.

    Args:
        paths: The files.
        source: List or folder that names them, for the message.
        root: Folder that the names are relative to.
    """
    named = list(paths)
    missing = [path for path in named if not os.path.isfile(path)]
    if not missing:
        return []
    rule = "" if root is None else f" Paths are relative to {root.resolve()}; set data_root if that is wrong."
    repair = f"does not exist. {source} names it: add it, or correct the name."
    parts = [DataError(f"{path} {repair}", place=str(path)) for path in missing] if len(missing) < len(named) else []
    return [DataError(f"{source} names {len(missing)} files that do not exist: {first_paths(missing)}.{rule}", parts)]


def first_paths(paths: Sequence[Path]) -> str:
    """Return the first five paths as text."""
    return ", ".join(map(str, paths[:_PATHS_SHOWN])) + (", ..." if len(paths) > _PATHS_SHOWN else "")


def name_of_split(parent: Path, split: str) -> str:
    """Return the name of the folder of a split: `split`, or for validation another common name if only that exists."""
    others = VALIDATION_NAMES if split in VALIDATION_NAMES else ()
    return next((name for name in (split, *others) if os.path.isdir(parent / name)), split)


def warn_of_left_out(folder: Path, files: Iterable[Path], suffixes: frozenset[str] = IMAGE_SUFFIXES) -> str:
    """Warn of the images in a folder that are not read; return their number and kinds."""
    left_out = describe_left_out(files, suffixes)
    if left_out:
        logger.warning("Left out: %s in %s. Convert them to PNG or JPEG to use them.", left_out, folder)
    return left_out
