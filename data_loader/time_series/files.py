"""Time series from files: `.ts` of the UCR and UEA archives, and `.npz`. V variables, T steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_loader.classification.sources import in_order
from utils.errors import DataError

KNOWN = (
    "problemname", "timestamps", "missing", "univariate", "dimension", "dimensions", "equallength", "serieslength",
    "classlabel", "targetlabel", "data",
)  # fmt: skip


@dataclass(frozen=True)
class TsHeader:
    """What a header promises.

    Attributes:
        has_labels: Whether every line ends in a class.
        classes: The classes that it lists; empty where it lists none.
        dimensions: Variables of a series; 0 where it does not say.
        length: Steps of every series; 0 where they differ or it does not say.
    """

    has_labels: bool
    classes: tuple[str, ...] = ()
    dimensions: int = 0
    length: int = 0


def read_header(lines: Iterable[str], path: Path) -> tuple[TsHeader, int]:
    """Read the lines up to `@data`.

    Returns:
        The header, and the number of the line behind it.

    Raises:
        DataError: A key is unknown or its value wrong, the file is of a kind that is not read, or `@data` is missing.
    """
    found: dict[str, list[str]] = {}
    for number, text in enumerate(lines, start=1):
        words = text.split()
        if not words or words[0].startswith(("#", "%")):
            continue
        key = words[0].removeprefix("@").lower()
        if not words[0].startswith("@") or key not in KNOWN:
            raise DataError(
                f"{path}, line {number}: {text.strip()[:40]!r} is no line of a header, which are @problemName, "
                "@timeStamps, @missing, @univariate, @dimensions, @equalLength, @seriesLength, @classLabel and @data. "
                "Correct it."
            )
        if key == "data":
            return _checked(found, path), number + 1
        found[key] = words[1:]
    raise DataError(f"{path} has no line @data: series follow that line. It is cut off, or no .ts file.")


def _checked(found: dict[str, list[str]], path: Path) -> TsHeader:
    if _flag(found, "timestamps", path):
        raise DataError(f"{path}: @timeStamps true: series with time stamps are not read. Save the values alone.")
    if "targetlabel" in found:
        raise DataError(f"{path}: @targetLabel: numbers to predict are not classes. Name a file with @classLabel.")
    dimensions = _count(found, "dimensions", path) or _count(found, "dimension", path)
    if _flag(found, "univariate", path):
        if dimensions > 1:
            raise DataError(f"{path}: @univariate true, but @dimensions {dimensions}. Correct one of them.")
        dimensions = 1
    label = found.get("classlabel", ["false"])
    has_labels = _flag({"classlabel": label[:1]}, "classlabel", path)
    length = _count(found, "serieslength", path) if _flag(found, "equallength", path) else 0
    return TsHeader(has_labels, tuple(label[1:]) if has_labels else (), dimensions, length)


def _flag(found: dict[str, list[str]], key: str, path: Path) -> bool:
    words = found.get(key, ["false"])
    if len(words) != 1 or words[0].lower() not in ("true", "false"):
        raise DataError(f"{path}: @{key} {' '.join(words)!r} must be true or false. Correct it.")
    return words[0].lower() == "true"


def _count(found: dict[str, list[str]], key: str, path: Path) -> int:
    words = found.get(key, ["0"])
    if len(words) != 1 or not words[0].isdecimal():
        raise DataError(f"{path}: @{key} {' '.join(words)!r} must be a whole number. Correct it.")
    return int(words[0])


Values = NDArray[np.float32]
SUFFIXES = (".ts", ".npz")
SPLIT_NAMES = {"train": "TRAIN", "val": "VAL", "test": "TEST"}


@dataclass(frozen=True)
class SeriesFile:
    """The series of a file.

    Attributes:
        path: The file.
        series: (V, T) float32 each, NaN where a value is missing; T may differ.
        labels: Name of the class of each; None where the file has none.
        classes: Names of the classes, in the file's order.
        rows: Line of the file, or position in the array, of each.
    """

    path: Path
    series: Sequence[Values]
    labels: Sequence[str] | None
    classes: Sequence[str]
    rows: Sequence[int]

    def num_bytes(self) -> int:
        """Bytes of the series."""
        return sum(values.nbytes for values in self.series)

    def place(self, position: int) -> str:
        """Where a series is from, in words."""
        what = "line" if self.path.suffix == ".ts" else "series"
        return f"{self.path}, {what} {self.rows[position]}"


def find_series_file(path: str | Path, split: str) -> Path:
    """The file itself, or of a folder of the archives the one that ends in `_TRAIN`, `_VAL` or `_TEST`.

    Raises:
        DataError: There is none, or more than one.
    """
    folder = Path(path)
    if not folder.is_dir():
        return folder
    ending = SPLIT_NAMES.get(split, split)
    found = sorted(file for suffix in SUFFIXES for file in folder.glob(f"*_{ending}{suffix}"))
    if len(found) != 1:
        there = ", ".join(file.name for file in found) or "none"
        raise DataError(
            f"{folder} must hold one file *_{ending}.ts or *_{ending}.npz, and there is: {there}. Name the file itself."
        )
    return found[0]


def read_series(path: str | Path) -> SeriesFile:
    """Read a `.ts` or `.npz` file.

    Raises:
        DataError: It is missing, of another kind, or badly written; with the line.
    """
    file = Path(path)
    if not file.exists():
        raise DataError(f"{file} does not exist: a .ts or .npz file is wanted, or a folder of them. Correct the path.")
    if file.suffix not in SUFFIXES:
        raise DataError(f"{file} is no file of series: it must end in .ts or .npz. Convert it.")
    try:
        found = _read_ts(file) if file.suffix == ".ts" else _read_npz(file)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}.") from None
    if not found.series:
        raise DataError(f"{file} holds no series. Name another file.")
    widths = sorted({series.shape[0] for series in found.series})
    if len(widths) > 1:
        raise DataError(f"{file}: its series have {widths} variables, and all must have the same number. Correct it.")
    return found


def _read_ts(path: Path) -> SeriesFile:
    with path.open(encoding="utf-8-sig") as file:
        header, first_line = read_header(file, path)
        series, labels, rows = [], [], []
        for number, text in enumerate(file, start=first_line):
            if text.strip() and not text.startswith(("#", "%")):
                values, label = _parse_case(text.strip(), header, f"{path}, line {number}")
                series.append(values)
                labels.append(label)
                rows.append(number)
    return SeriesFile(path, series, labels if header.has_labels else None, header.classes or in_order(labels), rows)


def _parse_case(text: str, header: TsHeader, place: str) -> tuple[Values, str]:
    """One line: the variables, and the class behind the last colon."""
    *parts, last = text.split(":")
    parts, label = (parts, last.strip()) if header.has_labels else ([*parts, last], "")
    if header.has_labels and header.classes and label not in header.classes:
        raise DataError(
            f'{place}: the class "{label}" is not one that @classLabel lists ({", ".join(header.classes)}). Correct it.'
        )
    if not parts or (header.dimensions and len(parts) != header.dimensions):
        raise DataError(
            f"{place} has {len(parts)} variables, and the header promises {header.dimensions or 'at least 1'}. They "
            "are parted by colons. Correct the line or @dimensions."
        )
    variables = [_parse_numbers(part, f"{place}, variable {number}") for number, part in enumerate(parts, start=1)]
    lengths = sorted({len(variable) for variable in variables})
    if len(lengths) > 1 or (header.length and lengths != [header.length]):
        raise DataError(
            f"{place} has variables of {', '.join(map(str, lengths))} steps; all of a series must have the same "
            f"number{f', and @seriesLength is {header.length}' if header.length else ''}. Correct the line."
        )
    return np.stack(variables), label


def _parse_numbers(text: str, place: str) -> Values:
    words = [word.strip() for word in text.split(",")]
    try:
        return np.array([np.nan if word in ("?", "NaN", "nan") else float(word) for word in words], np.float32)
    except ValueError:
        wrong = next(word for word in words if word not in ("?", "NaN", "nan") and not _is_number(word))
        raise DataError(f'{place}: "{wrong}" is no number. Write numbers, or ? where one is missing.') from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _read_npz(path: Path) -> SeriesFile:
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}. Save plain arrays with numpy.savez.") from None
    if "x" not in arrays or arrays["x"].ndim not in (2, 3):
        shown = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise DataError(
            f"{path} holds {shown}: it must hold x (N, V, T) or (N, T), and the classes y (N,). Save it so."
        )
    values = np.asarray(arrays["x"], np.float32)
    values = values[:, None] if values.ndim == 2 else values
    for name in ("y", "lengths"):
        if name in arrays and arrays[name].shape != (len(values),):
            raise DataError(
                f"{path}: {name} is {arrays[name].shape}, but x holds {len(values)} series. Give one for each."
            )
    lengths = arrays["lengths"].tolist() if "lengths" in arrays else [_length(series) for series in values]
    labels = [str(label) for label in arrays["y"].tolist()] if "y" in arrays else None
    series = [each[:, :length] for each, length in zip(values, lengths, strict=True)]
    return SeriesFile(path, series, labels, in_order(labels or []), range(len(values)))


def _length(series: Values) -> int:
    """Steps up to the last that has a value: what follows is padding."""
    known = np.flatnonzero(~np.isnan(series).all(axis=0))
    return int(known[-1]) + 1 if len(known) else series.shape[1]
