"""The tables of learning curves that a search is simulated on, with the final values that its choice is judged by."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.space.table_space import TableSpace
from search.tables.table import ResultTable

FULL_RUNS = 9
REAL, LCBENCH = "real curves", "LCBench"


@dataclass(frozen=True)
class Task:
    """A table and what a search of it may cost.

    Attributes:
        name: Of the table.
        kind: REAL, whose epochs cost 1 each, or LCBENCH, which has seconds.
        table: Its result is larger the better: a negative loss or a percentage.
        space: Of its settings.
        final: (S,) value of each setting after a full training; minus infinity where it diverged.
    """

    name: str
    kind: str
    table: ResultTable
    space: TableSpace
    final: NDArray[np.float64]

    @property
    def epochs(self) -> int:
        """Of a full training."""
        return self.table.epochs

    @property
    def budget(self) -> int:
        """Epochs that a search may train."""
        return self.epochs * FULL_RUNS

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """Of each setting (S,) by its final value: 1 plus the number of better ones; those that diverged are last."""
        ascending = np.sort(self.final)
        return np.where(
            np.isfinite(self.final),
            1 + len(ascending) - np.searchsorted(ascending, self.final, side="right"),
            len(ascending),
        )

    @property
    def regrets(self) -> NDArray[np.float64]:
        """How far the final value of each setting (S,) is below the best, points or loss; infinity if it diverged."""
        best: np.float64 = self.final.max()
        return best - self.final


def read_tasks(folder: Path) -> list[Task]:
    """Read all tables of a folder, see its SOURCE.md.

    Raises:
        SystemExit: There is none.
    """
    tasks = [task for path in sorted(folder.glob("*.npz")) for task in _read(path)]
    if not tasks:
        raise SystemExit(f"{folder}: holds no .npz of learning curves. Give the folder of the tables.")
    return tasks


def _read(path: Path) -> Iterator[Task]:
    data = np.load(path)
    if "hp" in data:
        settings = {name: column.tolist() for name, column in zip(data["hp_names"].tolist(), data["hp"].T, strict=True)}
        for name in ("beta1", "beta2"):  # drawn as 1 - 10**u: the distance to 1 has a logarithmic scale
            settings[f"1-{name}"] = [1.0 - value for value in settings.pop(name)]
        # What stands before the first epoch is free and not shown.
        yield _task(path.stem, REAL, settings, -data["valid"][:, 1:].astype(float), 1.0)
    elif "tasks" in data:
        settings = {
            name: [
                int(value) if column.dtype.kind == "f" and (column == column.round()).all() else value
                for value in column.tolist()
            ]
            for name, column in zip(data["setting_names"].tolist(), data["settings"].T, strict=True)
        }
        for name, values, seconds in zip(
            data["tasks"].tolist(), data["val_accuracy"], data["cumulative_seconds"], strict=True
        ):
            each = np.diff(seconds.astype(float), axis=1, prepend=0.0)
            yield _task(f"lcbench {name}", LCBENCH, settings, values.astype(float), each)


def _task(name: str, kind: str, settings: dict[str, list[Any]], curves: NDArray[np.float64], seconds: Any) -> Task:
    final = np.where(np.isnan(curves[:, -1]), -np.inf, curves[:, -1])
    table = ResultTable.of({"value": curves}, settings=settings, seconds=seconds)
    return Task(name, kind, table, TableSpace({}, table.settings), final)
