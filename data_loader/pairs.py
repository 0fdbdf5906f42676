"""Which picture goes with which mask: from a list, or from a folder's layout."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data_loader.pictures import PICTURE_SUFFIXES
from utils.errors import DataError

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
    path = Path(pairs_file)
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


def find_pairs(folder: str | Path, split: str) -> list[Pair]:
    """Pairs of the layout `folder/data/split/NAME.*` and `folder/labels/split/NAME.png`, sorted by name.

    Raises:
        DataError: A folder is missing or empty, or a name is on one side only.
    """
    pictures_folder, masks_folder = (Path(folder) / side / split for side in ("data", "labels"))
    for side in (pictures_folder, masks_folder):
        if not side.is_dir():
            raise DataError(f"The folder {side} does not exist. Pictures lie in data/{split}, masks in labels/{split}.")
    pictures = sorted(path for path in pictures_folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not pictures:
        raise DataError(f"The folder {pictures_folder} holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))}).")
    pairs = [Pair(path, masks_folder / path.relative_to(pictures_folder).with_suffix(".png")) for path in pictures]
    _require_files(pairs, f"The folder {folder}", None)
    lonely = set(masks_folder.rglob("*.png")) - {pair.mask for pair in pairs}
    if lonely:
        raise DataError(
            f"{len(lonely)} masks without a picture in {pictures_folder}: {_first(sorted(lonely))}. Add or remove."
        )
    return pairs


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
    missing = [path for pair in pairs for path in pair if not path.is_file()]
    if missing:
        where = "" if root is None else f" Paths are relative to {root.resolve()}; set data_root if that is wrong."
        raise DataError(f"{source} names {len(missing)} files that do not exist: {_first(missing)}.{where}")


def _first(paths: Iterable[Path]) -> str:
    names = [str(path) for path in paths]
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
