"""Which picture goes with which mask: from a list, or from a folder's layout."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data_loader.kept import read_once
from data_loader.pictures import PICTURE_SUFFIXES
from utils.errors import ConfigError, DataError

_SHOWN = 5


class Pair(NamedTuple):
    """A photo and its mask."""

    picture: Path
    mask: Path


def read_pairs(pairs_file: str | Path, data_root: str | Path | None = None) -> list[Pair]:
    """Read a list with one `picture, mask` per line; a comma, a tab or blanks between them, `#` begins a comment line.

    Paths are relative to `data_root`. Without it they are relative to the first of these places where the first pair
    is found: the folder of the list, that folder's parent, the working directory.

    Raises:
        DataError: The list is missing, empty, badly written, or names files that do not exist.
    """
    how = None if data_root is None else str(data_root), os.getcwd()
    return read_once(pairs_file, lambda path: _read_list(path, data_root), _list_bytes, how=how)


def _list_bytes(pairs: list[Pair]) -> int:
    return sum(sys.getsizeof(str(path)) for pair in pairs for path in pair)


def _read_list(path: Path, data_root: str | Path | None) -> list[Pair]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"The list of pairs {path} does not exist. Correct pairs_file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The list of pairs {path} cannot be read: {error}. It must be a text file (UTF-8).") from None
    names = [_parse(line, path, number) for number, line in enumerate(lines, start=1) if _holds_pair(line)]
    if not names:
        raise DataError(f"The list of pairs {path} is empty. It must hold one `picture, mask` per line.")
    root = Path(data_root) if data_root is not None else _find_root(path, names[0])
    pairs = [Pair(root / picture, root / mask) for picture, mask in names]
    _require_files(pairs, f"The list {path}", root)
    return pairs


def find_pairs(
    folder: str | Path,
    split: str,
    *,
    picture_suffixes: frozenset[str] = PICTURE_SUFFIXES,
    mask_suffixes: Sequence[str] = (".png",),
) -> list[Pair]:
    """Pairs of the layout `folder/data/split/NAME.*` and `folder/labels/split/NAME.png`, sorted by name.

    Args:
        folder: Holds `data` and `labels`.
        split: Name of the folders in them.
        picture_suffixes: What pictures end in.
        mask_suffixes: What masks end in; the first that is there goes.

    Raises:
        DataError: A folder is missing or empty, or a name is on one side only.
    """
    pictures_folder, masks_folder = (Path(folder) / side / split for side in ("data", "labels"))
    for side in (pictures_folder, masks_folder):
        if not side.is_dir():
            raise DataError(f"The folder {side} does not exist. Pictures lie in data/{split}, masks in labels/{split}.")
    pictures = sorted(path for path in pictures_folder.rglob("*") if path.suffix.lower() in picture_suffixes)
    if not pictures:
        raise DataError(f"The folder {pictures_folder} holds no picture ({', '.join(sorted(picture_suffixes))}).")
    pairs = [Pair(path, _mask_of(masks_folder / path.relative_to(pictures_folder), mask_suffixes)) for path in pictures]
    _require_files(pairs, f"The folder {folder}", None)
    masks = {mask for suffix in mask_suffixes for mask in masks_folder.rglob(f"*{suffix}")}
    lonely = masks - {pair.mask for pair in pairs}
    if lonely:
        raise DataError(
            f"{len(lonely)} masks without a picture in {pictures_folder}: {_first(sorted(lonely))}. Add or remove."
        )
    return pairs


def choose_pairs(
    pairs_file: str | None,
    folder: str | None,
    split: str,
    data_root: str | None,
    samples: int | None,
    *,
    picture_suffixes: frozenset[str] = PICTURE_SUFFIXES,
    mask_suffixes: Sequence[str] = (".png",),
) -> list[Pair]:
    """The pairs that a loader's arguments mean, from `read_pairs` or `find_pairs`.

    Raises:
        ConfigError: Neither list nor folder is named, or both are; or there would be no sample.
        DataError: The list or the folder does not hold what it should.
    """
    if (pairs_file is None) == (folder is None):
        raise ConfigError("A loader needs pairs_file (a list) or folder (with data/ and labels/), and not both.")
    sample_count(0, samples)
    if folder is None:
        return first_pairs(read_pairs(str(pairs_file), data_root), samples)
    found = find_pairs(
        Path(data_root or "") / folder, split, picture_suffixes=picture_suffixes, mask_suffixes=mask_suffixes
    )
    return first_pairs(found, samples)


def _mask_of(path: Path, suffixes: Sequence[str]) -> Path:
    candidates = [path.with_suffix(suffix) for suffix in suffixes]
    return next((candidate for candidate in candidates if candidate.is_file()), candidates[0])


def first_pairs(pairs: list[Pair], samples: int | None) -> list[Pair]:
    """The first `samples` pairs, all of them where it is None.

    Raises:
        ConfigError: There would be none.
    """
    return pairs[: sample_count(len(pairs), samples)]


def sample_count(count: int, samples: int | None) -> int:
    """How many of `count` samples to use.

    Raises:
        ConfigError: It would be none.
    """
    if samples is not None and samples < 1:
        raise ConfigError(f"Wrong samples {samples}: it must be 1 or more, or null for all.")
    return count if samples is None else min(count, samples)


def _holds_pair(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _parse(line: str, path: Path, number: int) -> tuple[str, str]:
    separator = "," if "," in line else "\t" if "\t" in line else None
    parts = [part.strip() for part in line.split(separator) if part.strip()]
    if len(parts) != 2:
        raise DataError(
            f"{path}, line {number}: {line.strip()!r} is not one picture and one mask. Write `picture, mask`; "
            "use a comma or a tab where names hold blanks."
        )
    return parts[0], parts[1]


def _find_root(path: Path, first: tuple[str, str]) -> Path:
    places = (path.parent, path.parent.parent if path.parent.name else Path(".."), Path())
    return next((place for place in places if all((place / name).exists() for name in first)), path.parent)


def _require_files(pairs: list[Pair], source: str, root: Path | None) -> None:
    missing = [path for pair in pairs for path in pair if not os.path.isfile(path)]
    if missing:
        where = "" if root is None else f" Paths are relative to {root.resolve()}; set data_root if that is wrong."
        raise DataError(f"{source} names {len(missing)} files that do not exist: {_first(missing)}.{where}")


def _first(paths: Iterable[Path]) -> str:
    names = [str(path) for path in paths]
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
