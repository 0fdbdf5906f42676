"""Time series from files: `.ts` of the UCR and UEA archives, and `.npz`. V variables, T steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_loader.common.class_labels import in_order
from utils.errors import DataError

Values = NDArray[np.float32]
SUFFIXES = (".ts", ".npz")
SPLIT_NAMES = {"train": "TRAIN", "val": "VAL", "test": "TEST"}
HEADER_KEYS = (
    "problemname", "timestamps", "missing", "univariate", "dimension", "dimensions", "equallength", "serieslength",
    "classlabel", "targetlabel", "data",
)  # fmt: skip


@dataclass(frozen=True)
class SeriesFile:
    """The series of a file.

    Attributes:
        path: The file.
        series: (V, T) float32 each, NaN for a missing value; T may differ.
        labels: Name of the class of each; None if the file has no classes.
        classes: Names of the classes, in the file's order.
        rows: Line of the file, or position in the array, of each.
    """

    path: Path
    series: Sequence[Values]
    labels: Sequence[str] | None
    classes: Sequence[str]
    rows: Sequence[int]

    def num_bytes(self) -> int:
        """Return the bytes of the series."""
        return sum(values.nbytes for values in self.series)

    def place(self, index: int) -> str:
        """Return file and line of a series, for messages."""
        unit = "line" if self.path.suffix == ".ts" else "series"
        return f"{self.path}, {unit} {self.rows[index]}"


def find_series_file(path: str | Path, split: str) -> Path:
    """Return the file itself, or the one in a folder of the archives that ends in `_TRAIN`, `_VAL` or `_TEST`.

    Raises:
        DataError: There is none, or more than one.
    """
    folder = Path(path)
    if not folder.is_dir():
        return folder
    ending = SPLIT_NAMES.get(split, split)
    found = sorted(file for suffix in SUFFIXES for file in folder.glob(f"*_{ending}{suffix}"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise DataError(
            f"{folder} must hold one file *_{ending}.ts or *_{ending}.npz, and there is: {names}. Name the file itself."
        )
    return found[0]


def read_series(path: str | Path) -> SeriesFile:
    """Read a `.ts` or `.npz` file.

    Raises:
        DataError: It is missing, of another kind, or badly written; with the line.
    """
    file = Path(path)
    if not file.exists():
        raise DataError(f"{file} does not exist. Name a .ts or .npz file, or a folder of them.")
    if file.suffix not in SUFFIXES:
        raise DataError(f"{file} is not a file of series: it must end in .ts or .npz. Convert it.")
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


@dataclass(frozen=True)
class _TsHeader:
    """The properties that the header of a `.ts` file states.

    Attributes:
        has_labels: Every line ends in a class.
        classes: The classes that it lists; may be empty.
        dimensions: Variables of a series; 0 if not stated.
        length: Steps of every series; 0 if they differ or it is not stated.
    """

    has_labels: bool
    classes: tuple[str, ...]
    dimensions: int
    length: int


def _read_ts(path: Path) -> SeriesFile:
    header: _TsHeader | None = None
    stated: dict[str, list[str]] = {}  # lines of the header: keys in lower case, and the words after them
    series, labels, rows = [], [], []
    with path.open(encoding="utf-8-sig") as file:
        for number, text in enumerate(file, start=1):
            if header is not None:
                if text.strip() and not text.startswith(("#", "%")):
                    values, label = _parse_case(text.strip(), header, f"{path}, line {number}")
                    series.append(values)
                    labels.append(label)
                    rows.append(number)
                continue
            words = text.split()
            if not words or words[0].startswith(("#", "%")):
                continue
            key = words[0].removeprefix("@").lower()
            if not words[0].startswith("@") or key not in HEADER_KEYS:
                raise DataError(
                    f"{path}, line {number}: {text.strip()[:40]!r} is not a line of a header, which are @problemName, "
                    "@timeStamps, @missing, @univariate, @dimensions, @equalLength, @seriesLength, @classLabel and "
                    "@data. Correct it."
                )
            if key == "data":
                header = _parse_header(stated, path)
            stated[key] = words[1:]
    if header is None:
        raise DataError(f"{path} has no line @data, which comes before the series. It is cut off, or no .ts file.")
    return SeriesFile(path, series, labels if header.has_labels else None, header.classes or in_order(labels), rows)


def _parse_header(found: dict[str, list[str]], path: Path) -> _TsHeader:
    def flag(key: str, words: list[str]) -> bool:
        if len(words) != 1 or words[0].lower() not in ("true", "false"):
            raise DataError(f"{path}: @{key} {' '.join(words)!r} must be true or false. Correct it.")
        return words[0].lower() == "true"

    def count(key: str) -> int:
        words = found.get(key, ["0"])
        if len(words) != 1 or not words[0].isdecimal():
            raise DataError(f"{path}: @{key} {' '.join(words)!r} must be a whole number. Correct it.")
        return int(words[0])

    no = ["false"]
    if flag("timestamps", found.get("timestamps", no)):
        raise DataError(f"{path}: @timeStamps true: series with time stamps are not read. Save the values alone.")
    if "targetlabel" in found:
        raise DataError(f"{path}: @targetLabel: numbers to predict are not classes. Name a file with @classLabel.")
    dimensions = count("dimensions") or count("dimension")  # both spellings are in the archives
    if flag("univariate", found.get("univariate", no)):
        if dimensions > 1:
            raise DataError(f"{path}: @univariate true, but @dimensions {dimensions}. Correct one of them.")
        dimensions = 1
    # `@classLabel true up down`: the names are optional.
    is_labelled, *classes = found.get("classlabel", no) or [""]
    has_labels = flag("classlabel", [is_labelled])
    length = count("serieslength") if flag("equallength", found.get("equallength", no)) else 0
    return _TsHeader(has_labels, tuple(classes) if has_labels else (), dimensions, length)


def _parse_case(text: str, header: _TsHeader, place: str) -> tuple[Values, str]:
    """Parse a line: the variables, separated by colons, and the class after the last colon."""
    parts = text.split(":")
    label = parts.pop().strip() if header.has_labels else ""
    if header.has_labels and header.classes and label not in header.classes:
        raise DataError(
            f'{place}: the class "{label}" is not one that @classLabel lists ({", ".join(header.classes)}). Correct it.'
        )
    if not parts or (header.dimensions and len(parts) != header.dimensions):
        raise DataError(
            f"{place} has {len(parts)} variables, and the header states {header.dimensions or 'at least 1'}. They "
            "are separated by colons. Correct the line or @dimensions."
        )
    variables = []
    for number, part in enumerate(parts, start=1):
        values = []
        for word in part.split(","):
            try:
                values.append(np.nan if word.strip() == "?" else float(word))
            except ValueError:
                raise DataError(
                    f'{place}, variable {number}: "{word.strip()}" is not a number. Write one, or ? if it is missing.'
                ) from None
        variables.append(np.array(values, np.float32))
    lengths = sorted({len(variable) for variable in variables})
    if len(lengths) > 1 or (header.length and lengths != [header.length]):
        raise DataError(
            f"{place} has variables of {', '.join(map(str, lengths))} steps; all of a series must have the same "
            f"number{f', and @seriesLength is {header.length}' if header.length else ''}. Correct the line."
        )
    return np.stack(variables), label


def _read_npz(path: Path) -> SeriesFile:
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}. Save plain arrays with numpy.savez.") from None
    if "x" not in arrays or arrays["x"].ndim not in (2, 3):
        shown = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise DataError(
            f"{path} holds {shown}: it must hold x (N, V, T) or (N, T), and the classes y (N,). Save it like that."
        )
    values = np.asarray(arrays["x"], np.float32)
    values = values[:, None] if values.ndim == 2 else values
    for name in ("y", "lengths"):
        if name in arrays and arrays[name].shape != (len(values),):
            raise DataError(
                f"{path}: {name} is {arrays[name].shape}, but x holds {len(values)} series. Give one for each."
            )
    series = []
    for number, each in enumerate(values):
        # Without lengths, the steps after the last one that has a value are padding.
        steps = np.flatnonzero(~np.isnan(each).all(axis=0))
        length = arrays["lengths"][number] if "lengths" in arrays else steps[-1] + 1 if len(steps) else each.shape[1]
        series.append(each[:, :length])
    labels = [str(label) for label in arrays["y"].tolist()] if "y" in arrays else None
    return SeriesFile(path, series, labels, in_order(labels or []), range(len(values)))
