"""The guard of every file that an option of a command names: nothing that must not be lost is replaced.

A file that exists is replaced only if it is of the kind that the option writes, which its content shows. So no output
takes the place of a checkpoint, a journal, a config, data, or source code, under any name or link.
"""

import json
import mmap
import os
import sqlite3
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from utils.errors import ConfigError, SearchError
from utils.files import writing_problem
from utils.writing.mark import has_mark

_SQLITE = b"SQLite format 3\0"
_JOURNAL, _CONFIG = "journal.sqlite", "config.json"
ARCHIVE_MARK = b"predictions of test.py"  # comment of an archive that may be replaced
_HEAD = 256  # bytes that identify a file
_LONGEST_HEADER = 1 << 17  # bytes: names of the columns of a table, or what stands before the text of a page
_POLICY = b"content=\"default-src 'none'; script-src 'unsafe-inline'"  # of search/report/layout.html
_FOREIGN = (_SQLITE, b"PK\x03\x04")  # a database; an archive, as a checkpoint is one


@dataclass(frozen=True)
class OutputKind:
    """A kind of file that an option writes.

    Attributes:
        name: For messages, as "a result of test.py".
        suffixes: The usual one first.
        is_one: Returns whether an existing file is of this kind and may be replaced.
        is_of_study: The file describes a whole study: it may be directly in the folder of one, in none of its folders.
        unless: An option of the same command by which other files of this kind are replaced, too.
    """

    name: str
    suffixes: tuple[str, ...]
    is_one: Callable[[Path], bool]
    is_of_study: bool = False
    unless: str = ""


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD)


def _with_keys(*keys: str) -> Callable[[Path], bool]:
    """Return the test of a JSON file: it is an object with these keys."""

    def test(path: Path) -> bool:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return False
        return isinstance(content, dict) and content.keys() >= set(keys)

    return test


def _beginning(*texts: str) -> Callable[[Path], bool]:
    """Return the test of a text file: it begins with one of these texts, in any case, or holds nothing.

    A comma at the end of a text also stands for the end of the line.
    """
    begins = tuple(text.encode() for text in texts)

    def test(path: Path) -> bool:
        head = _head(path).removeprefix(b"\xef\xbb\xbf").strip().lower()
        return not head or (head.splitlines()[0] + b",").startswith(begins)

    return test


def _is_table_of_study(path: Path) -> bool:
    """Return whether the header is that of candidates, of their epochs, of predictions, or of a study without any."""
    with open(path, "rb") as file:
        first = file.read(_LONGEST_HEADER).removeprefix(b"\xef\xbb\xbf").strip().split(b"\n")[0].strip().lower()
    names = first.split(b",")
    is_of_epochs = names[0] == b"index" and {b"begin", b"end"} <= set(names)
    return first in (b"", b"index") or first.startswith((b"index,status,", b"blocks,round,cell,")) or is_of_epochs


def _is_page(path: Path) -> bool:
    """Return whether a file is one of our HTML pages, which may load and send nothing; other people's may."""
    with open(path, "rb") as file:
        head = file.read(_LONGEST_HEADER).strip().lower()
    return not head or (head.startswith(b"<!doctype html") and _POLICY in head)


def _is_exported_onnx(path: Path) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"espalier") >= 0 and not content[:_HEAD].startswith(_FOREIGN)


def _is_exported_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("espalier.json") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _is_archive_of_predictions(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment == ARCHIVE_MARK
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _is_no_database_or_archive(path: Path) -> bool:
    return not _head(path).startswith(_FOREIGN)


TEST_RESULT = OutputKind("a result of test.py", (".json",), _with_keys("checkpoint", "metrics", "samples"))
FINDINGS = OutputKind("a report of --check", (".json",), _with_keys("faults", "warnings"))
GENOTYPE = OutputKind("a genotype", (".json",), _with_keys("strides", "blocks"), is_of_study=True)
PREDICTIONS = OutputKind(
    "a table of predictions", (".csv",), _beginning("file,class,probability", "row,class,probability")
)
CANDIDATES = OutputKind(
    "a table of a study",
    (".csv", ".tsv", ".txt"),
    _is_table_of_study,
    is_of_study=True,
)
RUNS = OutputKind(
    "a table of compared runs", (".csv", ".tsv", ".txt"), _beginning("group,seed,folder,"), is_of_study=True
)
PAGE = OutputKind("a page of a report", (".html", ".htm"), _is_page, is_of_study=True)
EXPORTED = {
    ".onnx": OutputKind("a network that export.py wrote", (".onnx",), _is_exported_onnx),
    ".pt2": OutputKind("a network that export.py wrote", (".pt2",), _is_exported_program),
}
PREDICTED_MASKS = OutputKind("an archive of predictions", (".zip",), _is_archive_of_predictions)
IMAGE = OutputKind("an image or a video of inference.py", (".png",), has_mark, unless="--overwrite")
ANY_IMAGE = OutputKind("an image or a video", (".png",), _is_no_database_or_archive)
_DATABASE = OutputKind(
    "a storage of Optuna",
    (".db", ".sqlite", ".sqlite3"),
    lambda path: "version_info" in _tables(path),
    is_of_study=True,
)


class Originals:
    """Files, and folders of data, that a command reads; no file of them is replaced, under any name or link.

    Args:
        paths: Those that do not exist are left out, and so is a folder that holds the working folder.
    """

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._files: dict[tuple[int, int], Path] = {}
        self._folders: dict[Path, Path] = {}
        for path in paths:
            try:
                status, place = path.stat(), Path(os.path.realpath(path))
            except (OSError, ValueError):  # missing, or a name that the system cannot look up
                continue
            if not stat.S_ISDIR(status.st_mode):
                self._files[status.st_dev, status.st_ino] = path
            elif not Path.cwd().is_relative_to(place):
                self._folders[place] = path

    def find(self, target: Path) -> Path | None:
        """Return the file or folder that an existing file, without links in its path, is or is in; else None."""
        status = target.stat()
        folder = next((path for place, path in self._folders.items() if target.is_relative_to(place)), None)
        return self._files.get((status.st_dev, status.st_ino), folder)


def require_output(path: Path, option: str, kind: OutputKind, originals: Originals | None = None) -> None:
    """Raise if a file must not be written at `path`; call it before anything is computed.

    Args:
        path: The file to create or replace; its folder need not exist. A pipe or a terminal may be written to.
        option: The option that named it, for messages.
        kind: What is written there.
        originals: They are not replaced, of whatever kind they are.

    Raises:
        ConfigError: The file would replace something else, belongs to a study, or cannot be written.
    """
    target = Path(os.path.realpath(path))  # a link may lead anywhere
    if _is_stream(target):
        return
    if kind.is_of_study:
        _refuse_files_of_a_study(path, target, option, kind)
    if target.name.startswith(_JOURNAL):  # by this name a study is found
        raise ConfigError(f"{option} {path}: {_JOURNAL} is the name of a study's journal. Name another file.")
    if problem := writing_problem(path):
        raise ConfigError(f"{option} {path}: cannot be written ({problem}). Name a file that you may write to.")
    if not target.exists():
        return
    if originals is not None and (original := originals.find(target)):
        raise ConfigError(
            f"{option} {path}: would write over {original}, which this command reads. An original is never replaced. "
            "Name another file or folder."
        )
    is_empty = target.is_file() and not target.stat().st_size  # a disk has the size 0, too
    if not is_empty and not _is_one(kind, target):
        others = f", or say {kind.unless}" if kind.unless else ""
        raise ConfigError(
            f"{option} {path}: would write over a file that is not {kind.name}. Only such a file is replaced. Name "
            f"another file, e.g. {_unused(target, kind.suffixes[0])}{others}."
        )


def require_image_folder(folder: Path, option: str, originals: Originals | None = None) -> None:
    """Raise if the images of a test must not be written into a folder: `confusion.png`, `worst-01.png` and so on.

    Args:
        folder: It need not exist. Worst cases of an earlier test, next to a confusion matrix, are replaced.
        option: The option that named it, for messages.
        originals: They are not replaced.

    Raises:
        ConfigError: It holds such images of something else, or cannot be written.
    """
    matrix = folder / "confusion.png"
    earlier = sorted(folder.glob("worst-*.png")) if folder.is_dir() else []
    for path in (matrix, *earlier):
        require_output(path, option, ANY_IMAGE, originals)
    if earlier and not matrix.is_file():
        raise ConfigError(
            f"{option} {folder}: holds {earlier[0].name}, which is not of a test, since there is no {matrix.name}. It "
            "would be replaced. Name another folder."
        )


def require_database(path: Path, option: str) -> None:
    """Raise if an Optuna storage must not be written to an SQLite file; one that Optuna created may be added to.

    Raises:
        ConfigError: The path is of a study, or of a database of something else, or cannot be written.
    """
    require_output(path, option, _DATABASE)


@contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """Create the folder of an option's file, and turn an error of the disk into a `SearchError` while it is written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise SearchError(
            f"{option} {path}: it cannot be written ({error.strerror}). Free some space, or name another file."
        ) from error


def _is_stream(path: Path) -> bool:
    """Return whether a path is a terminal, a pipe or the like, which nothing is lost in."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _is_one(kind: OutputKind, target: Path) -> bool:
    try:
        return target.is_file() and kind.is_one(target)
    except OSError:  # not readable: not to be touched
        return False


def _unused(target: Path, suffix: str) -> str:
    """Return the name of a file that does not exist, with the usual suffix."""
    names = (f"{target.stem}{number or ''}{suffix}" for number in range(10))
    return next((name for name in names if not target.with_name(name).exists()), f"new{suffix}")


def _refuse_files_of_a_study(path: Path, target: Path, option: str, kind: OutputKind) -> None:
    """Raise if a file that describes a study lies among the files of one, other than directly in its folder."""
    study = next((folder for folder in target.parents if _is_study(folder)), None)
    is_free = target.parent == study and target.suffix.lower() in kind.suffixes and target.name != _CONFIG
    if study is not None and not is_free:
        raise ConfigError(
            f"{option} {path}: it is among the files of the study {study}, which are never overwritten. Name a file "
            f"elsewhere, or one directly in its folder that ends in {' or '.join(kind.suffixes)}."
        )


def _is_study(folder: Path) -> bool:
    """Return whether a folder is that of a study, even if its journal was deleted."""
    return (folder / _JOURNAL).exists() or ((folder / _CONFIG).exists() and (folder / "candidates").is_dir())


def _tables(path: Path) -> set[str]:
    """Return the names of the tables of an SQLite file; none if it is another file, or damaged."""
    if not _head(path).startswith(_SQLITE):
        return set()
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as connection:
            return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error:
        return set()
