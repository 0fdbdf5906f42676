"""A table from single trainings, whose settings, epochs and repeats are not in order yet."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.space.outcomes import plain_json
from search.tables.table import Floats, ResultTable
from utils.errors import DataError


@dataclass
class Training:
    """One training as a file tells it.

    Attributes:
        place: Of its row in the file, e.g. "line 7".
        settings: By JSON path.
        curves: Of each result, the value after each epoch; NaN if it diverged.
        seconds: Of each epoch.
        total_seconds: Of all epochs, if those of each are unknown.
        facts: Known before the training.
        has_failed: Whether it failed after its last epoch.
    """

    place: str
    settings: dict[str, Any]
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    total_seconds: float | None = None
    facts: dict[str, float] = field(default_factory=dict)
    has_failed: bool = False

    @property
    def epochs(self) -> int:
        """The last epoch that has a value."""
        return max((epoch for curve in self.curves.values() for epoch in curve), default=0)


def assemble(trainings: Sequence[Training], file: str) -> ResultTable:
    """Return the table of some trainings; those with the same settings are repeats of a configuration.

    A value that is missing between others is that of the epoch before.

    Raises:
        DataError: There is no training, or a result begins after the first epoch.
    """
    num_epochs = max((each.epochs for each in trainings), default=0)
    if num_epochs == 0:
        raise DataError(f"{file}: no training has a result. A table holds trainings with the results of their epochs.")
    names = list(dict.fromkeys(name for each in trainings for name in each.curves))
    results = {name: np.full((len(trainings), num_epochs), math.nan) for name in names}
    seconds = np.full((len(trainings), num_epochs), math.nan)
    lengths = np.zeros(len(trainings), dtype=np.int64)
    for row, each in enumerate(trainings):
        length = each.epochs
        lengths[row] = min(length + each.has_failed, num_epochs)
        for name, curve in each.curves.items():
            results[name][row, :length] = _filled(curve, length, f"{file}: {each.place}: {name}")
            if each.has_failed and length == num_epochs:  # no epoch is left in which it could fail
                results[name][row, -1] = math.nan
        if each.seconds:
            seconds[row, : len(each.seconds)] = [each.seconds[epoch] for epoch in sorted(each.seconds)][:num_epochs]
        elif each.total_seconds is not None and length:
            seconds[row] = each.total_seconds / length
    facts = list(dict.fromkeys(name for each in trainings for name in each.facts))
    paths = list(dict.fromkeys(path for each in trainings for path in each.settings))
    table = ResultTable.of(
        results,
        settings={path: [each.settings.get(path) for each in trainings] for path in paths},
        facts={name: [each.facts.get(name, math.nan) for each in trainings] for name in facts},
        seconds=known_seconds(seconds),
        lengths=lengths,
        places=[each.place for each in trainings],
    )
    return merged(table)


def _filled(curve: Mapping[int, float], length: int, place: str) -> list[float]:
    """Return the value of each epoch; one that is missing is that of the epoch before."""
    first = min(curve, default=1)
    if first > 1:
        raise DataError(
            f"{place}: has no value before epoch {first}. A search compares from epoch 1. Number the epochs from 1, or "
            "name other results."
        )
    values: list[float] = []
    for epoch in range(1, length + 1):
        values.append(curve.get(epoch, values[-1] if values else math.nan))
    return values


def known_seconds(seconds: Floats) -> Floats:
    """Return seconds in which those that are unknown are the median of the others; 1 if all are unknown."""
    is_known = np.isfinite(seconds)
    median = float(np.median(seconds[is_known])) if is_known.any() else 1.0
    return np.where(is_known, seconds, median)


def merged(table: ResultTable) -> ResultTable:
    """Return a table in which rows with the same settings are repeats of one configuration."""
    columns = [[_same(value) for value in values] for values in table.settings.values()]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, key in enumerate(zip(*columns, strict=True) if columns else [(row,) for row in range(len(table))]):
        groups.setdefault(key, []).append(row)
    if len(groups) == len(table):
        return table
    firsts = [rows[0] for rows in groups.values()]
    per_row = table.lengths.shape[1]
    num_repeats = per_row * max(map(len, groups.values()))

    def gathered(values: NDArray[Any], empty: Any) -> NDArray[Any]:
        """Return (S, ..., R) as (groups, ..., all repeats of the group)."""
        found = np.full((len(groups), *values.shape[1:-1], num_repeats), empty, dtype=values.dtype)
        for place, rows in enumerate(groups.values()):
            joint = np.concatenate([values[row] for row in rows], axis=-1)
            found[place, ..., : joint.shape[-1]] = joint
        return found

    return ResultTable.of(
        {name: gathered(values, math.nan) for name, values in table.results.items()},
        settings={path: [values[row] for row in firsts] for path, values in table.settings.items()},
        facts={name: values[firsts] for name, values in table.facts.items()},
        seconds=np.stack([table.seconds[rows].mean(axis=0) for rows in groups.values()]),
        lengths=gathered(table.lengths, 0),
        places=[table.places[row] for row in firsts],
    )


def _same(value: Any) -> Any:
    """Return a key that is equal for equal settings: 1 and 1.0 are, 1 and true are not."""
    return value if type(value) in (int, float) else plain_json(value)
