"""Time series from files: `.ts` of the UCR and UEA archives, and `.npz`. V variables, T steps."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from data_loader.common.array_files import read_arrays
from data_loader.common.class_labels import in_order
from data_loader.common.lists import several_lines
from utils.errors import DataError, joined_faults
from utils.files import is_hidden, open_regular, require_decoded_size

Values = NDArray[np.float32]
SUFFIXES = (".ts", ".npz")
SPLIT_NAMES = {"train": "TRAIN", "val": "VAL", "valid": "VAL", "validation": "VAL", "test": "TEST"}
_MISSING_LABELS = frozenset({"", "?", "nan"})
_LONGEST_NUMBER = 18  # digits
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
        labels: Name of the class of each, "" if it is missing; None if the file has no classes.
        classes: Names of the classes, in the file's order.
        rows: Line of the file, or position in the array, of each.
        faults: Series of the file that cannot be used, and are not among these.
    """

    path: Path
    series: Sequence[Values]
    labels: Sequence[str] | None
    classes: Sequence[str]
    rows: Sequence[int]
    faults: Sequence[DataError] = ()

    def num_bytes(self) -> int:
        """Return the bytes of the series."""
        return sum(values.nbytes for values in self.series)

    def place(self, index: int) -> str:
        """Return file and line of a series, for messages."""
        unit = "line" if self.path.suffix.lower() == ".ts" else "series"
        return f"{self.path}, {unit} {self.rows[index]}"

    def select(self, indices: Sequence[int]) -> Self:
        """Return some of the series, with the same classes and faults."""
        return replace(
            self,
            series=[self.series[index] for index in indices],
            labels=None if self.labels is None else [self.labels[index] for index in indices],
            rows=[self.rows[index] for index in indices],
        )

    def labelled(self) -> Self:
        """Return the series that have a class, as training and testing need it; the others are faults.

        Raises:
            DataError: The file has no classes.
        """
        if self.labels is None:
            raise DataError(f"{self.path} has no classes, which training and testing need. Name a file with classes.")
        without = [index for index, label in enumerate(self.labels) if not label]
        if not without:
            return self
        more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
        repair = "has no class. Leave such series out, or give them one."
        parts = [DataError(f"{self.place(index)} {repair}", place=self.place(index)) for index in without]
        fault = DataError(f"{self.place(without[0])}{more} {repair}", parts)
        known = self.select([index for index, label in enumerate(self.labels) if label])
        classes = [name for name in self.classes if name]
        return replace(known, classes=classes, faults=(*self.faults, fault)).usable()

    def usable(self) -> Self:
        """Return the file itself.

        Raises:
            DataError: No series can be used.
        """
        return self if self.series else self.whole()

    def whole(self) -> Self:
        """Return the file itself.

        Raises:
            DataError: Some series cannot be used.
        """
        if self.faults:
            raise joined_faults(self.faults)
        return self


def find_series_file(path: str | Path, split: str) -> Path:
    """Return the file itself, or the one in a folder of the archives that ends in `_TRAIN`, `_VAL` or `_TEST`.

    Raises:
        DataError: There is none, or more than one.
    """
    folder = Path(path)
    if not os.path.isdir(folder):
        return folder
    ending = SPLIT_NAMES.get(split, split)
    names = {f"_{ending}{suffix}".lower() for suffix in SUFFIXES}
    files = [file for file in sorted(folder.iterdir()) if not is_hidden(file.name)]
    found = [file for file in files if file.name.lower().endswith(tuple(names))]
    if len(found) != 1:
        shown = ", ".join(file.name for file in found) or "none"
        raise DataError(
            f"{folder} must hold one file *_{ending}.ts or *_{ending}.npz, and there is: {shown}. Name the file itself."
        )
    return found[0]


def read_series(path: str | Path, *, max_decoded_mb: int | None = None) -> SeriesFile:
    """Read a `.ts` or `.npz` file, see `list_series`.

    Raises:
        DataError: It is missing, of another kind, too large, or badly written, or a value cannot be used; with the
            line.
    """
    return list_series(path, max_decoded_mb=max_decoded_mb).whole()


def list_series(path: str | Path, *, max_decoded_mb: int | None = None) -> SeriesFile:
    """Read the series of a `.ts` or `.npz` file that can be used; the others are its faults.

    Args:
        path: The file.
        max_decoded_mb: Limit on the series in memory; None: `FILE_MB`.

    Raises:
        DataError: It is missing, of another kind, too large, or no series in it can be used.
    """
    file = Path(path)
    if not os.path.exists(file):
        raise DataError(f"{file} does not exist. Name a .ts or .npz file, or a folder of them.")
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{file} is not a file of series: it must end in .ts or .npz. Convert it.")
    try:
        found = _read_ts(file, max_decoded_mb) if suffix == ".ts" else _read_npz(file, max_decoded_mb)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}.") from None
    if not found.series and not found.faults:
        raise DataError(f"{file} holds no series. Name another file.")
    widths = Counter(series.shape[0] for series in found.usable().series)
    faults, usual = list(found.faults), widths.most_common(1)[0][0]
    if len(widths) > 1:
        message = f"{file}: its series have {sorted(widths)} variables, and all must have the same number. Correct it."
        others = [index for index, series in enumerate(found.series) if series.shape[0] != usual]
        parts = [
            DataError(
                f"{found.place(index)}: {len(found.series[index])} variables, and most have {usual}. Correct it.",
                place=found.place(index),
            )
            for index in others
        ]
        faults.append(DataError(message, parts))
    infinite = [fault for index in range(len(found.series)) if (fault := _infinite_value(found, index)) is not None]
    faults += several_lines(infinite, f"{len(infinite)} series of {file} hold values that are not finite:")
    good = [index for index, each in enumerate(found.series) if each.shape[0] == usual and not np.isinf(each).any()]
    return replace(found.select(good), faults=tuple(faults)).usable()


def _infinite_value(file: SeriesFile, index: int) -> DataError | None:
    """Return the fault of a series that holds an infinite value; NaN is a missing one."""
    values = file.series[index]
    if not np.isinf(values).any():
        return None
    variable, step = (int(place) for place in np.argwhere(np.isinf(values))[0])
    return DataError(
        f"{file.place(index)}: the value of variable {variable + 1} at step {step + 1} is infinite, or too "
        "large for a number of 32 bits. Correct it, or mark it as missing: ? in .ts, NaN in .npz.",
        place=file.place(index),
    )


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


def _read_ts(path: Path, max_decoded_mb: int | None) -> SeriesFile:
    # A value takes two characters or more, and four bytes in memory.
    require_decoded_size(path, "series", 2 * path.stat().st_size, max_decoded_mb, of_many=True)
    header: _TsHeader | None = None
    stated: dict[str, list[str]] = {}  # lines of the header: keys in lower case, and the words after them
    series, labels, rows = [], [], []
    faults: list[DataError] = []
    with TextIOWrapper(open_regular(path), encoding="utf-8-sig") as file:
        for number, text in enumerate(file, start=1):
            if header is not None:
                if text.strip() and not text.startswith(("#", "%")):
                    try:
                        values, label = _parse_case(text.strip(), header, f"{path}, line {number}")
                    except DataError as error:
                        faults.append(DataError(str(error), place=f"{path}, line {number}"))
                        continue
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
    known = labels if header.has_labels else None
    grouped = several_lines(faults, f"{len(faults)} lines of {path} cannot be used:")
    return SeriesFile(path, series, known, header.classes or in_order(labels), rows, grouped)


def _parse_header(found: dict[str, list[str]], path: Path) -> _TsHeader:
    def flag(key: str, words: list[str]) -> bool:
        if len(words) != 1 or words[0].lower() not in ("true", "false"):
            raise DataError(f"{path}: @{key} {' '.join(words)!r} must be true or false. Correct it.")
        return words[0].lower() == "true"

    def count(key: str) -> int:
        words = found.get(key, ["0"])
        if len(words) != 1 or not words[0].isdecimal() or len(words[0]) > _LONGEST_NUMBER:
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
    if header.has_labels and not header.classes and label.lower() in _MISSING_LABELS:
        label = ""  # reported with all others
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
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, which is reported
            variables.append(np.array(values, np.float32))
    lengths = sorted({len(variable) for variable in variables})
    if len(lengths) > 1 or (header.length and lengths != [header.length]):
        raise DataError(
            f"{place} has variables of {', '.join(map(str, lengths))} steps; all of a series must have the same "
            f"number{f', and @seriesLength is {header.length}' if header.length else ''}. Correct the line."
        )
    return np.stack(variables), label


def _read_npz(path: Path, max_decoded_mb: int | None) -> SeriesFile:
    arrays = read_arrays(path, max_decoded_mb=max_decoded_mb)
    if "x" not in arrays or arrays["x"].ndim not in (2, 3):
        shown = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise DataError(
            f"{path} holds {shown}: it must hold x (N, V, T) or (N, T), and the classes y (N,). Save it like that."
        )
    x = arrays["x"]
    if x.dtype.kind not in "biuf" or 0 in x.shape[1:]:
        raise DataError(
            f"{path}: x holds {x.dtype} values of shape {x.shape}; they must be numbers, and one step or more of each "
            "series. Save it like that."
        )
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, which is reported
        values = np.asarray(x, np.float32)
    values = values[:, None] if values.ndim == 2 else values
    for name in ("y", "lengths"):
        if name in arrays and arrays[name].shape != (len(values),):
            raise DataError(
                f"{path}: {name} is {arrays[name].shape}, but x holds {len(values)} series. Give one for each."
            )
    lengths = arrays.get("lengths")
    if lengths is not None and (lengths.dtype.kind not in "iu" or ((lengths < 1) | (lengths > values.shape[2])).any()):
        raise DataError(
            f"{path}: lengths must be whole numbers from 1 to the {values.shape[2]} steps of x. Correct them."
        )
    series = []
    for number, each in enumerate(values):
        # Without lengths, the steps after the last one that has a value are padding.
        steps = np.flatnonzero(~np.isnan(each).all(axis=0))
        length = lengths[number] if lengths is not None else steps[-1] + 1 if len(steps) else each.shape[1]
        series.append(each[:, :length])
    labels = list(map(_label_name, arrays["y"].tolist())) if "y" in arrays else None
    return SeriesFile(path, series, labels, in_order(labels or []), range(len(values)))


def _label_name(label: Any) -> str:
    """Return the name of a class: whole numbers of any type alike, bytes as their text, "" for a missing class."""
    if isinstance(label, bytes):
        label = label.decode("utf-8", "replace")
    if isinstance(label, str):
        return "" if label.strip().lower() in _MISSING_LABELS else label
    if isinstance(label, float):
        return "" if math.isnan(label) else str(int(label) if label.is_integer() else label)
    return str(label)
