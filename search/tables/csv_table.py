"""A table from a CSV file: a row per training, or per training and epoch; or as a study was exported."""

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.faults import show
from search.space.outcomes import plain_json
from search.tables.assembling import Training, assemble
from search.tables.columns import (
    COLUMNS,
    CUMULATIVE_COLUMNS,
    EPOCH_COLUMNS,
    SECONDS_COLUMNS,
    TRAINING_COLUMNS,
    TableColumns,
    fact_columns,
    first_known,
    require_columns,
    result_columns,
    setting_columns,
)
from search.tables.table import ResultTable
from utils.errors import ConfigError, DataError
from utils.files import read_regular_text

_DIVERGED = {"nan", "inf", "-inf", "+inf", "infinity", "-infinity"}
_NEVER_TRAINED = ("refused", "duplicate")  # statuses in an export
_FAILED = ("failed", "out_of_memory")
_MOST_NAMED = 12
_MOST_EPOCHS = 100_000


@dataclass(frozen=True)
class _Sheet:
    """A CSV file.

    Attributes:
        file: Its name, for messages.
        names: Of the columns.
        rows: Text of each cell by the name of its column.
        lines: Line of each row.
    """

    file: str
    names: list[str]
    rows: list[dict[str, str]]
    lines: list[int]

    def numbered(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield the place of each row and its cells."""
        for line, row in zip(self.lines, self.rows, strict=True):
            yield f"line {line}", row


def read_csv_table(path: Path, columns: TableColumns, marked: Sequence[str]) -> ResultTable:
    """Read a table.

    Args:
        path: A CSV file with a head. A file that `export` wrote is read with that of its epochs next to it.
        columns: As the user named them.
        marked: JSON paths of the config's markers.

    Raises:
        ConfigError: A column is not in the file, or none is a setting or a result.
        DataError: The file is missing or damaged, or a cell is no number.
    """
    sheet = _read_sheet(path)
    reports = path.with_name(f"{path.stem}_reports{path.suffix}")
    is_export = {"index", "status", "best_epoch"} <= set(sheet.names) and reports.is_file()
    epochs = _read_sheet(reports) if is_export else None
    require_columns(columns, [*sheet.names, *(epochs.names if epochs is not None else ())], sheet.file)
    if epochs is not None:
        return assemble(_exported(sheet, epochs, columns, marked), sheet.file)
    epoch = first_known(columns.epoch, EPOCH_COLUMNS, sheet.names)
    trainings = _wide(sheet, columns, marked) if epoch is None else _long(sheet, columns, marked, epoch)
    return assemble(trainings, sheet.file)


def _read_sheet(path: Path) -> _Sheet:
    try:
        text = read_regular_text(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8 ({error.reason}). Save the table as CSV in UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Name the file of a table.") from error
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    lines: list[int] = []
    rows: list[dict[str, str]] = []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names = [name.strip() for name in next(reader, [])]
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                raise DataError(
                    f"{path}: line {reader.line_num}: {len(cells)} cells, and the head has {len(names)} names. Each "
                    "line has a cell for each name. Correct it."
                )
            rows.append({name: cell.strip() for name, cell in zip(names, cells, strict=True)})
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}. Save the table as CSV again.") from error
    double = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if double is not None:
        raise DataError(f'{path}: two columns are called "{double}". Each has a name of its own. Rename one.')
    if not rows:
        raise DataError(f"{path}: has no rows below its head. A table has a row per training, or per epoch of one.")
    return _Sheet(str(path), names, rows, lines)


def _number(text: str, place: str) -> float | None:
    """Return the number in a cell; None if it is empty, NaN if it says that a training diverged.

    Raises:
        DataError: It is no number.
    """
    if not text:
        return None
    if text.lower() in _DIVERGED:
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{place}: {show(text)} is no number. Write one, nan if it diverged, or nothing.") from None


def _setting(text: str, place: str) -> Any:
    """Return the value of a setting from JSON, else the text; None if the cell is empty.

    Raises:
        DataError: It is a number that is not finite.
    """
    if not text:
        return None
    if text.lower() in _DIVERGED:
        raise DataError(f"{place}: {text} is no setting. Write a finite number, or nothing.")
    if text[0] in '[{"' or text in ("true", "false", "null") or re.fullmatch(r"-?\d+", text):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return int(text) if re.fullmatch(r"-?\d+", text) else text
    try:
        return float(text) if re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", text) else text
    except ValueError:
        return text


def _settings_of(sheet: _Sheet, columns: TableColumns, marked: Sequence[str], others: set[str]) -> list[dict[str, Any]]:
    """Return the settings of each row by their paths.

    Args:
        sheet: The file.
        columns: As the user named them.
        marked: JSON paths of the config's markers.
        others: Columns that are something else.

    Raises:
        ConfigError: There is none.
        DataError: A text that is to be split has no parts, or not as many as others.
    """
    chosen = setting_columns(columns, [name for name in sheet.names if name not in others], marked)
    chosen |= {name: name for name in columns.split if name not in chosen.values()}
    if not chosen:
        raise ConfigError(
            f"{COLUMNS}.settings: missing, and no column of {sheet.file} is called like a JSON path (its columns are "
            f"{_listed(sheet.names)}). Write for "
            'example {"optimizer.args.lr": "lr"}.'
        )
    rows = []
    for place, row in sheet.numbered():
        settings: dict[str, Any] = {}
        for path, name in chosen.items():
            if name in columns.split:
                settings |= split_setting(path, row[name], columns.split[name], f"{sheet.file}: {place}: {name}")
            else:
                settings[path] = _setting(row[name], f"{sheet.file}: {place}: {name}")
        rows.append(settings)
    for path in chosen:  # 1.0 next to 2.0 is a whole number, next to 0.5 it is none
        values = [settings.get(path) for settings in rows]
        if all(isinstance(value, float) and value.is_integer() for value in values if value is not None):
            for settings in rows:
                if path in settings and settings[path] is not None:
                    settings[path] = int(settings[path])
    return rows


def split_setting(path: str, text: str, pattern: str, place: str) -> dict[str, str]:
    """Return the finds of a pattern in a text, each at `PATH.number`.

    Raises:
        DataError: It finds nothing.
    """
    found = [each if isinstance(each, str) else each[0] for each in re.findall(pattern, text)]
    if not found:
        raise DataError(
            f"{place}: {show(text)}: the pattern {show(pattern)} finds nothing in it. Correct columns.split."
        )
    return {f"{path}.{number}": each for number, each in enumerate(found)}


def _facts_of(row: Mapping[str, str], facts: Mapping[str, str], place: str) -> dict[str, float]:
    found = {fact: _number(row[name], f"{place}: {name}") for fact, name in facts.items() if name in row}
    return {fact: value for fact, value in found.items() if value is not None}


def _require_results(sheet: _Sheet, results: Mapping[str, Sequence[str]]) -> None:
    if not results:
        raise ConfigError(
            f"{COLUMNS}.results: missing, and no column of {sheet.file} is called like a result, such as val_accuracy "
            f'(its columns are {_listed(sheet.names)}). Write for example {{"val_accuracy": "acc_*"}}.'
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")


def _wide(sheet: _Sheet, columns: TableColumns, marked: Sequence[str]) -> list[Training]:
    """Return the trainings of a file with a row for each."""
    results = result_columns(columns, sheet.names)
    _require_results(sheet, results)
    facts = fact_columns(columns, sheet.names)
    seconds = first_known(columns.seconds, SECONDS_COLUMNS, sheet.names)
    total = first_known(columns.cumulative_seconds, CUMULATIVE_COLUMNS, sheet.names)
    others = {*facts.values(), *(name for parts in results.values() for name in parts), seconds or "", total or ""}
    trainings = []
    longest = max(map(len, results.values()))
    for (place, row), settings in zip(sheet.numbered(), _settings_of(sheet, columns, marked, others), strict=True):
        where = f"{sheet.file}: {place}"
        curves = {}
        for result, names in results.items():
            # A single value of a training with several epochs holds in all of them.
            names_of_epochs = names * longest if len(names) == 1 else names
            values = [_number(row[name], f"{where}: {name}") for name in names_of_epochs]
            skipped = values[1 - columns.first_epoch :] if len(names) > 1 else values
            curves[result] = {epoch: value for epoch, value in enumerate(skipped, 1) if value is not None}
        training = Training(place, settings, curves, facts=_facts_of(row, facts, where))
        if len({len(names) for names in results.values()}) > 1:  # not longer than the curves are
            length = max((max(curves[result], default=0) for result, names in results.items() if len(names) > 1))
            training.curves = {name: {k: v for k, v in curve.items() if k <= length} for name, curve in curves.items()}
        if seconds is not None and (value := _seconds(row[seconds], f"{where}: {seconds}")) is not None:
            training.seconds = dict.fromkeys(range(1, training.epochs + 1), value)
        if total is not None:
            training.total_seconds = _seconds(row[total], f"{where}: {total}")
        trainings.append(training)
    return trainings


def _seconds(text: str, place: str) -> float | None:
    """Return the seconds in a cell; None if they are unknown.

    Raises:
        DataError: They are no number from 0.
    """
    value = _number(text, place)
    if value is not None and value < 0:
        raise DataError(f"{place}: {text} seconds: must be 0 or more. Correct it, or leave the cell empty.")
    return None if value is None or math.isnan(value) else value


def _long(sheet: _Sheet, columns: TableColumns, marked: Sequence[str], epoch_column: str) -> list[Training]:
    """Return the trainings of a file with a row for each epoch."""
    results = {name: parts[0] for name, parts in result_columns(columns, sheet.names).items()}
    _require_results(sheet, {name: [part] for name, part in results.items()})
    facts = fact_columns(columns, sheet.names)
    seconds = first_known(columns.seconds, SECONDS_COLUMNS, sheet.names)
    total = first_known(columns.cumulative_seconds, CUMULATIVE_COLUMNS, sheet.names)
    id_column = first_known(columns.training, TRAINING_COLUMNS, sheet.names)
    others = {*facts.values(), *results.values(), seconds or "", total or "", epoch_column, id_column or ""}
    settings_of_rows = _settings_of(sheet, columns, marked, others)
    trainings: dict[str, Training] = {}
    cumulative: dict[str, dict[int, float]] = {}
    for (place, row), settings in zip(sheet.numbered(), settings_of_rows, strict=True):
        where = f"{sheet.file}: {place}"
        key = row[id_column] if id_column is not None else plain_json([settings, row.get("seed")])
        training = trainings.setdefault(key, Training(place, settings, facts=_facts_of(row, facts, where)))
        if training.settings != settings:
            raise DataError(
                f"{where}: {id_column} {row[id_column or '']} has other settings than in {training.place}. A training "
                "has one configuration. Correct it, or name the column that tells trainings apart."
            )
        epoch = _epoch(row[epoch_column], f"{where}: {epoch_column}") + 1 - columns.first_epoch
        _add_epoch(training, epoch, row, results=results, seconds=seconds, where=where)
        if total is not None and (value := _seconds(row[total], f"{where}: {total}")) is not None:
            cumulative.setdefault(key, {0: 0.0})[epoch] = value
    for key, at in cumulative.items():
        _spread(trainings[key], at, sheet.file)
    return list(trainings.values())


def _epoch(text: str, place: str) -> int:
    number = _number(text, place)
    if number is None or not number.is_integer() or number < 0:
        raise DataError(f"{place}: {show(text)} is no epoch. Write a whole number, the first being 1.")
    if number > _MOST_EPOCHS:  # each of them takes memory, also those that are missing
        raise DataError(f"{place}: {show(text)}: a table has at most {_MOST_EPOCHS} epochs. Number them 1, 2, 3.")
    return int(number)


def _add_epoch(
    training: Training,
    epoch: int,
    row: Mapping[str, str],
    *,
    results: Mapping[str, str],
    seconds: str | None,
    where: str,
) -> None:
    """Add the results of an epoch to a training; that of epoch 0, before the training, is left out."""
    if epoch == 0:
        return
    for result, name in results.items():
        value = _number(row[name], f"{where}: {name}")
        if value is None:
            continue
        curve = training.curves.setdefault(result, {})
        if epoch in curve:
            raise DataError(
                f"{where}: epoch {epoch} of the training of {training.place} is there already. A training has each "
                "epoch once. Name the column that tells trainings apart: columns.training."
            )
        curve[epoch] = value
    if seconds is not None and (value := _seconds(row[seconds], f"{where}: {seconds}")) is not None:
        training.seconds[epoch] = value


def _spread(training: Training, at: Mapping[int, float], file: str) -> None:
    """Note the seconds of each epoch of a training whose seconds up to some epochs are known.

    Raises:
        DataError: They decrease.
    """
    known = sorted(at)
    for before, epoch in itertools.pairwise(known):
        if at[epoch] < at[before]:
            raise DataError(
                f"{file}: {training.place}: {at[epoch]:g} s up to epoch {epoch}, and {at[before]:g} s up to epoch "
                f"{before}. Cumulative seconds do not decrease. Correct them, or name the seconds of each epoch."
            )
        for each in range(before + 1, epoch + 1):
            training.seconds[each] = (at[epoch] - at[before]) / (epoch - before)


def _exported(sheet: _Sheet, epochs: _Sheet, columns: TableColumns, marked: Sequence[str]) -> list[Training]:
    """Return the trainings of a study that was exported."""
    results = {name: parts[0] for name, parts in result_columns(columns, epochs.names).items()}
    _require_results(epochs, {name: [part] for name, part in results.items()})
    facts = fact_columns(columns, sheet.names)
    fixed = {"index", "status", "reason", "seed", "epochs", "best_epoch", "seconds", "begin", "end", "folder", "origin"}
    settings = _settings_of(sheet, columns, marked, {*facts.values(), *epochs.names, *fixed})
    trainings: dict[str, Training] = {}
    for (place, row), chosen in zip(sheet.numbered(), settings, strict=True):
        if row["status"] not in _NEVER_TRAINED:
            facts_here = _facts_of(row, facts, f"{sheet.file}: {place}")
            has_failed = row["status"] in _FAILED
            trainings[row["index"]] = Training(place, chosen, facts=facts_here, has_failed=has_failed)
    for place, row in epochs.numbered():
        where = f"{epochs.file}: {place}"
        if row["index"] not in trainings:
            raise DataError(
                f"{where}: candidate {row['index']} is not in {sheet.file}. The two files are of one export. Export "
                "the study again."
            )
        epoch = _epoch(row["epoch"], f"{where}: epoch")
        _add_epoch(trainings[row["index"]], epoch, row, results=results, seconds="epoch_seconds", where=where)
    return list(trainings.values())
