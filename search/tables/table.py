"""`ResultTable`: the results of many trainings, and `TableRun`: those of one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.results.record import Objective
from search.schedulers.base import Values

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TableRun:
    """One training of a table.

    Attributes:
        results: Value after each epoch, by the name of the result; NaN if it diverged or is unknown.
        facts: Known before the training, e.g. `params`.
        seconds: Of each epoch. There are as many as the training has epochs.
    """

    results: Mapping[str, Sequence[float]]
    facts: Mapping[str, float]
    seconds: Sequence[float]
    _values: dict[tuple[Objective, ...], list[Values]] = field(default_factory=dict, compare=False)

    @property
    def epochs(self) -> int:
        """Epochs that it has results of; fewer than those of the table if it ended by itself."""
        return len(self.seconds)

    def row(self, epoch: int) -> dict[str, float]:
        """Return the results of an epoch, the first being 1, as a training reports them."""
        return {"epoch": epoch, **{name: values[epoch - 1] for name, values in self.results.items()}}

    def values(self, objectives: tuple[Objective, ...]) -> list[Values]:
        """Return the objectives after each epoch, the larger the better; NaN if one is unknown or diverged."""
        found = self._values.get(objectives)
        if found is None:
            columns = [
                [self.facts[each.name] * each.sign] * self.epochs
                if each.name in self.facts
                else [value * each.sign for value in self.results[each.name]]
                for each in objectives
            ]
            found = self._values[objectives] = list(zip(*columns, strict=True))
        return found


@dataclass(frozen=True)
class ResultTable:
    """Configurations, a row each, with the results of their trainings.

    All arrays have a first dimension of S rows. A configuration may have been trained R times, with different seeds;
    a repeat without results is NaN throughout. A value is NaN from the epoch on in which a training diverged.

    Attributes:
        results: By name, (S, E, R): the value after each of E epochs.
        settings: By JSON path, S values from JSON; None if the configuration has nothing there.
        facts: By name, (S,): known before the training.
        seconds: Of each epoch, (S, E).
        lengths: Epochs of each training, (S, R); those after them were not trained.
        places: Name of each row for messages, e.g. "line 7".
    """

    results: Mapping[str, Floats]
    settings: Mapping[str, Sequence[Any]]
    facts: Mapping[str, Floats]
    seconds: Floats
    lengths: NDArray[np.int64]
    places: Sequence[str]
    _runs: dict[tuple[int, int], TableRun] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        results: Mapping[str, ArrayLike],
        *,
        settings: Mapping[str, Sequence[Any]] | None = None,
        facts: Mapping[str, ArrayLike] | None = None,
        seconds: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        places: Iterable[str] = (),
    ) -> "ResultTable":
        """Return the table of some arrays.

        Args:
            results: By name, (S, E) or (S, E, R).
            settings: By JSON path.
            facts: By name, (S,).
            seconds: Of each epoch, (S, E), or an array that can be broadcast to it; None: 1.
            lengths: Epochs of each training, (S,) or (S, R); None: E.
            places: Of each row; by default its number, from 0.

        Raises:
            ValueError: Shapes disagree, or there is no result.
        """
        arrays = {name: np.asarray(values, dtype=float) for name, values in results.items()}
        arrays = {name: np.where(np.isfinite(values), values, np.nan) for name, values in arrays.items()}
        arrays = {name: values[..., None] if values.ndim == 2 else values for name, values in arrays.items()}
        shapes = {values.shape for values in arrays.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 3:
            raise ValueError(f"results of the shapes {sorted(shapes)}: all must have one, (S, E) or (S, E, R).")
        num_rows, num_epochs, num_repeats = next(iter(shapes))
        counts = num_epochs if lengths is None else np.asarray(lengths, dtype=np.int64)
        if isinstance(counts, np.ndarray) and counts.ndim == 1:
            counts = counts[:, None]
        return cls(
            arrays,
            {path: list(values) for path, values in (settings or {}).items()},
            {name: np.asarray(values, dtype=float) for name, values in (facts or {}).items()},
            np.broadcast_to(np.asarray(1.0 if seconds is None else seconds, dtype=float), (num_rows, num_epochs)),
            np.broadcast_to(counts, (num_rows, num_repeats)).astype(np.int64),
            list(places) or [f"row {number}" for number in range(num_rows)],
        )

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def epochs(self) -> int:
        """Epochs of the longest training."""
        return int(self.seconds.shape[1])

    @cached_property
    def _repeats(self) -> list[list[int]]:
        """Of each row the repeats with results; the first one if none has any."""
        has_any = np.zeros(self.lengths.shape, dtype=bool)
        for values in self.results.values():
            has_any |= ~np.isnan(values).all(axis=1)
        has_any &= self.lengths > 0
        return [np.flatnonzero(row).tolist() or [0] for row in has_any]

    def run(self, row: int, seed: int = 0) -> TableRun:
        """Return the training of a configuration with a seed: one of its repeats.

        Args:
            row: The configuration.
            seed: Of the training; equal ones choose the same repeat.
        """
        repeats = self._repeats[row]
        repeat = repeats[seed % len(repeats)]
        found = self._runs.get((row, repeat))
        if found is None:
            length = int(self.lengths[row, repeat])
            results = {name: values[row, :length, repeat].tolist() for name, values in self.results.items()}
            facts = {name: float(values[row]) for name, values in self.facts.items()}
            found = self._runs[row, repeat] = TableRun(results, facts, self.seconds[row, :length].tolist())
        return found

    def mean(self) -> "ResultTable":
        """Return the table whose only repeat of each row is the mean of those with results.

        The last value of a repeat that ended early counts at all later epochs; one that diverged is left out from there
        on. A mean of none is NaN.
        """
        last = np.minimum(np.arange(self.epochs)[None, :, None], self.lengths[:, None, :] - 1)  # (S, E, R); -1: none
        means = {}
        for name, values in self.results.items():
            held = np.take_along_axis(values, np.maximum(last, 0), axis=1)
            is_known = (last >= 0) & ~np.isnan(held)
            count = is_known.sum(axis=2)
            total = np.where(is_known, held, 0.0).sum(axis=2)
            means[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        lengths = self.lengths.max(axis=1)
        return ResultTable.of(
            means, settings=self.settings, facts=self.facts, seconds=self.seconds, lengths=lengths, places=self.places
        )
