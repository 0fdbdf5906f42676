"""A table from a .npz file: arrays with names, a row per configuration."""

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.faults import show, unknown_name
from search.tables.assembling import known_seconds, merged
from search.tables.columns import (
    COLUMNS,
    CUMULATIVE_COLUMNS,
    SECONDS_COLUMNS,
    TableColumns,
    fact_columns,
    first_known,
    require_columns,
    result_columns,
    setting_columns,
)
from search.tables.csv_table import split_setting
from search.tables.table import Floats, ResultTable
from utils.errors import ConfigError, DataError
from utils.files import open_regular

Arrays = dict[str, NDArray[Any]]
# zipfile and NumPy raise them at whichever part is damaged.
_OF_DAMAGED_FILES: tuple[type[Exception], ...] = (
    ValueError, TypeError, LookupError, EOFError, MemoryError, OverflowError, RuntimeError, SyntaxError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_npz_table(path: Path, columns: TableColumns, marked: Sequence[str]) -> ResultTable:
    """Read a table.

    Args:
        path: A .npz file. Settings have the shape (S,), or (S, D) with an array of D names; results (S, E) with a value
            per epoch, (S,) with one value, and (S, R) or (S, E, R) if they are among `columns.seeds`.
        columns: As the user named them.
        marked: JSON paths of the config's markers.

    Raises:
        ConfigError: A name is none of an array, or none is a setting or a result.
        DataError: The file is missing or damaged, or the shapes disagree.
    """
    arrays = _read_arrays(path)
    require_columns(columns, [*arrays, *_column_names(arrays, columns)], str(path))
    arrays = _selected(arrays, columns, str(path))
    settings = _settings_of(arrays, columns, marked, str(path))
    num_rows = len(next(iter(settings.values())))
    results = _results_of(arrays, columns, num_rows, str(path))
    num_epochs = max(values.shape[1] for values in results.values())
    facts = {
        fact: _numbers(arrays[name], name, str(path)) for fact, name in fact_columns(columns, list(arrays)).items()
    }
    for fact, values in facts.items():
        if values.shape != (num_rows,):
            raise DataError(f"{path}: {fact}: the shape {values.shape}, and {num_rows} rows need ({num_rows},).")
    table = ResultTable.of(
        results,
        settings=settings,
        facts=facts,
        seconds=_seconds_of(arrays, columns, num_rows, num_epochs, str(path)),
        places=[f"row {row}" for row in range(num_rows)],
    )
    return merged(table)


def _read_arrays(path: Path) -> Arrays:
    try:
        with open_regular(path) as stream:
            file, arrays = np.load(stream, allow_pickle=False), {}
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: holds one array without a name. Save all arrays with np.savez.")
            for name in file.files:
                try:
                    arrays[name] = file[name]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    raise DataError(
                        f'{path}: the array "{name}" holds Python objects, which are not unpickled. Save numbers, or '
                        "text of one type: array.astype(str)."
                    ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}). Name the file of a table.") from error
    except _OF_DAMAGED_FILES as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: is no .npz file, or a damaged one ({reason}). Save the table again.") from error
    if not arrays:
        raise DataError(f"{path}: holds no array. Save the table with np.savez.")
    return arrays


def _names_of(name: str, arrays: Mapping[str, NDArray[Any]], columns: TableColumns) -> list[str] | None:
    """Return the names of the columns of an array (S, D) of settings; None if it has none."""
    if arrays[name].ndim != 2:
        return None
    chosen = columns.names.get(name)
    for other in (chosen,) if chosen is not None else (f"{name}_names", f"{name.removesuffix('s')}_names"):
        found = arrays.get(other)
        if found is not None and found.dtype.kind in "US" and found.shape == arrays[name].shape[1:]:
            return [str(each) for each in _plain(found)]
    return None


def _column_names(arrays: Arrays, columns: TableColumns) -> Iterator[str]:
    for name in arrays:
        yield from _names_of(name, arrays, columns) or ()


def _selected(arrays: Arrays, columns: TableColumns, file: str) -> Arrays:
    """Return the arrays of one of several tables.

    Raises:
        ConfigError: There is no such table.
    """
    for name, value in columns.select.items():
        keys = [str(each) for each in _plain(arrays[name].reshape(-1))]
        if str(value) not in keys:
            raise ConfigError(f"{COLUMNS}.select.{name}: {file}: {unknown_name('value', str(value), keys)}")
        place = keys.index(str(value))
        arrays = {
            other: array[place] if array.ndim > 1 and len(array) == len(keys) else array
            for other, array in arrays.items()
            if other != name
        }
    return arrays


def _settings_of(arrays: Arrays, columns: TableColumns, marked: Sequence[str], file: str) -> dict[str, list[Any]]:
    """Return the values of each setting by its path.

    Raises:
        ConfigError: There is none.
        DataError: They do not have one length.
    """
    found: dict[str, list[Any]] = {}
    arrays = {name: array for name, array in arrays.items() if array.dtype.kind in "biufUS"}
    paths = {name: path for path, name in columns.settings.items()}
    for name, array in arrays.items():
        names = _names_of(name, arrays, columns)
        for place, each in enumerate(names or ()):
            found[paths.get(each, each)] = _plain(array[:, place])
    single = [name for name, array in arrays.items() if array.ndim == 1 and not name.endswith("_names")]
    chosen = {name: path for path, name in setting_columns(columns, single, marked).items() if name in single}
    chosen |= {name: name for name in columns.split if name not in chosen and name in single}
    for name, path in chosen.items():
        if name not in columns.split:
            found[path] = _plain(arrays[name])
            continue
        rows = [
            split_setting(path, str(text), columns.split[name], f"{file}: {name}[{row}]")
            for row, text in enumerate(_plain(arrays[name]))
        ]
        for part in dict.fromkeys(part for each in rows for part in each):
            found[part] = [each.get(part) for each in rows]
    if not found:
        raise ConfigError(
            f"{COLUMNS}.settings: missing, and no array of {file} is called like a JSON path or has names in another "
            f'one (its arrays are {", ".join(arrays)}). Write for example {{"optimizer.args.lr": "lr"}}.'
        )
    lengths = {path: len(values) for path, values in found.items()}
    if len(set(lengths.values())) > 1 or not min(lengths.values()):
        raise DataError(f"{file}: settings of different lengths, {lengths}. Each has a value per row. Name others.")
    _require_finite(found, file)
    return found


def _require_finite(settings: Mapping[str, Sequence[Any]], file: str) -> None:
    for path, values in settings.items():
        wrong = next((row for row, each in enumerate(values) if isinstance(each, float) and math.isinf(each)), None)
        if wrong is not None:
            raise DataError(f"{file}: {path}: row {wrong} is {values[wrong]}. A setting is finite. Correct it.")


def _plain(array: NDArray[Any]) -> list[Any]:
    """Return an array as plain data: whole numbers as such, those of single precision with few digits, NaN as None."""
    if array.dtype.kind != "f":
        return [each.decode(errors="replace") if isinstance(each, bytes) else each for each in array.tolist()]
    values = [float(str(each)) for each in array] if array.dtype.itemsize < 8 else array.tolist()
    if all(math.isnan(each) or float(each).is_integer() for each in values):
        return [None if math.isnan(each) else int(each) for each in values]
    return [None if math.isnan(each) else each for each in values]


def _numbers(array: NDArray[Any], name: str, file: str) -> Floats:
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"{file}: {name}: holds {array.dtype}, and only numbers are results or costs. Name another one."
        )
    return array.astype(float)


def _results_of(arrays: Arrays, columns: TableColumns, num_rows: int, file: str) -> dict[str, Floats]:
    """Return the results, (S, E, R) each.

    Raises:
        ConfigError: There is none.
        DataError: Their shapes disagree.
    """
    found: dict[str, Floats] = {}
    for result, names in result_columns(columns, list(arrays)).items():
        parts = []
        for name in names:
            array = _numbers(arrays[name], name, file)
            has_seeds = name in columns.seeds or array.ndim == 3
            wanted = {1: (num_rows, 1, 1), 2: (num_rows, 1, -1) if has_seeds else (num_rows, -1, 1)}
            if array.ndim not in (1, 2, 3) or len(array) != num_rows or not array.size:
                raise DataError(
                    f"{file}: {name}: the shape {array.shape}, and the settings have {num_rows} rows. A result has as "
                    "many, or choose one of several tables: columns.select."
                )
            parts.append(array.reshape(wanted.get(array.ndim, array.shape)))
        joint = np.concatenate(parts, axis=1) if len({part.shape[2] for part in parts}) == 1 else None
        if joint is None:
            raise DataError(f"{file}: {result}: {', '.join(names)} have different numbers of seeds. Name others.")
        found[result] = joint[:, 1:] if columns.first_epoch == 0 and joint.shape[1] > 1 else joint
    if not found:
        raise ConfigError(
            f"{COLUMNS}.results: missing, and no array of {file} is called like a result, such as val_accuracy (its "
            f'arrays are {", ".join(arrays)}). Write for example {{"val_accuracy": "{next(iter(arrays))}"}}.'
        )
    return _of_one_shape(found, file)


def _of_one_shape(results: dict[str, Floats], file: str) -> dict[str, Floats]:
    """Return results of one shape: a single value holds in each epoch, and for each seed with other results.

    Raises:
        DataError: They have different numbers of epochs or seeds.
    """
    for axis, what in ((1, "epochs"), (2, "seeds")):
        sizes = {name: values.shape[axis] for name, values in results.items() if values.shape[axis] > 1}
        if len(set(sizes.values())) > 1:
            raise DataError(f"{file}: different numbers of {what}: {show(sizes)}. All results have one. Name others.")
    shape = np.broadcast_shapes(*(values.shape for values in results.values()))
    is_absent = np.zeros((shape[0], shape[2]), dtype=bool)
    for values in results.values():
        if values.shape[2] == shape[2] > 1:
            is_absent |= np.isnan(values).all(axis=1)
    return {
        name: np.where(is_absent[:, None, :], math.nan, np.broadcast_to(values, shape))
        for name, values in results.items()
    }


def _seconds_of(arrays: Arrays, columns: TableColumns, num_rows: int, num_epochs: int, file: str) -> Floats:
    """Return the seconds of each epoch, (S, E); 1 if the file has none.

    Raises:
        DataError: Their shape is another one, or some are below 0.
    """
    name = first_known(columns.seconds, SECONDS_COLUMNS, arrays)
    total = first_known(columns.cumulative_seconds, CUMULATIVE_COLUMNS, arrays)
    chosen = name if name is not None else total
    if chosen is None:
        return np.ones((num_rows, num_epochs))
    values = _numbers(arrays[chosen], chosen, file)
    if values.ndim == 1 and len(values) == num_rows:
        each = values[:, None] / (1 if name is not None else num_epochs)
        return _checked(np.broadcast_to(each, (num_rows, num_epochs)), chosen, file)
    skipped = values[:, 1:] if values.ndim == 2 and columns.first_epoch == 0 else values
    if skipped.shape != (num_rows, num_epochs):
        raise DataError(
            f"{file}: {chosen}: the shape {values.shape}, and the results have {num_rows} rows and {num_epochs} "
            "epochs. Name seconds of the same shape, or with one value per row."
        )
    if name is not None:
        return _checked(skipped, chosen, file)
    before = values[:, :1] if columns.first_epoch == 0 else np.zeros((num_rows, 1))
    return _checked(np.diff(skipped, axis=1, prepend=before), chosen, file)


def _checked(seconds: Floats, name: str, file: str) -> Floats:
    wrong = np.argwhere(seconds < 0)
    if len(wrong):
        row, epoch = wrong[0].tolist()
        raise DataError(
            f"{file}: {name}: row {row}: {seconds[row, epoch]:g} s for epoch {epoch + 1}: must be 0 or more. Correct "
            "them; columns.seconds are those of each epoch, columns.cumulative_seconds those up to it."
        )
    return known_seconds(seconds)
