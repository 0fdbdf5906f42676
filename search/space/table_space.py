"""The space of a table: its candidates are the rows, and no others."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.faults import Faults, join_path, show
from config.markers import is_marker
from search.space.cover import Check, CoveringConfig
from search.space.drawn import Drawn, read_choices
from search.space.known import KnownValues
from search.space.outcomes import holds_marker, plain_json
from search.space.scales import WholeNumbers, scale_of
from search.space.space import Canonical, Space
from search.space.walk import Fraction, Site
from utils.errors import ConfigError, SearchError

_NEIGHBOURS_OF_NUMBER = 4  # as many as a number has in a space without table
_MOST_FAULTS = 3
_LEAST_RATIO = 4  # between the largest and the least number of a logarithmic scale


def draw_order(num_rows: int, seed: int) -> NDArray[np.int64]:
    """Return the row that each random draw is: all follow from the seed, and none is drawn twice before all are."""
    return np.random.default_rng(seed).permutation(num_rows)


class TableSpace(Space):
    """The space of a table.

    Random draws are a permutation of the rows. Choices that are those of no row are replaced by the row that is nearest
    to them in the unit cube.

    Args:
        config: The config with its markers. A setting that is not in it gets a marker, see `marker_of`.
        settings: By JSON path, the value of each row; None if its configuration has nothing there.
        study_seed: The seed of all draws.
        canonical: As for `Space`.
        places: Name of each row for messages.

    Raises:
        ConfigError: A row has a value that the config cannot have, leaves a marker open, or equals another row.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        settings: Mapping[str, Sequence[Any]],
        *,
        study_seed: int = 0,
        canonical: Canonical | None = None,
        places: Sequence[str] = (),
    ) -> None:
        super().__init__(with_markers(config, settings), study_seed=study_seed, canonical=canonical)
        self.has_markers = True
        self._row_names = list(places) or [f"row {number}" for number in range(len(next(iter(settings.values()), ())))]
        columns = _with_types(settings)
        simple = self._simple_sites(columns)
        rows = self._simple_rows(simple, columns) if simple is not None else self._found_rows(columns)
        self._drawn = [Drawn(row) for row in rows]
        self._rows: dict[Drawn, int] = {}
        for number, drawn in enumerate(self._drawn):
            first = self._rows.setdefault(drawn, number)
            if first != number:
                raise ConfigError(
                    f"{self._row_names[number]}: has the same settings as {self._row_names[first]}. A configuration "
                    "has one row. Merge them, or name the setting in which they differ."
                )

    def _simple_sites(self, columns: Mapping[str, Sequence[Any]]) -> list[Site] | None:
        """Return the sites if each is met by every candidate and is the column of its path; else None."""
        is_simple = all(
            not site.conditions and site.path in columns and not any(map(holds_marker, site.marker.get("$choice", ())))
            for site in self.sites
        )
        is_complete = {site.path for site in self.sites} == columns.keys()
        return self.sites if is_simple and is_complete else None

    def _simple_rows(self, sites: list[Site], columns: Mapping[str, Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Return the choices of each row, column by column."""
        faults, chosen = Faults(), []
        for site in sites:
            numbers = _reader_of(site.marker)
            found = [numbers(value) for value in columns[site.path]]
            wrong = [number for number, each in enumerate(found) if each is None]
            for number in wrong[:_MOST_FAULTS]:
                value = show(columns[site.path][number])
                faults.add(
                    site.path,
                    f"{value} in {self._row_names[number]} of the table cannot be drawn: the space has "
                    f"{show(site.marker)} there. Write a marker that has all values of the table, or leave it out.",
                )
            chosen.append([(site.path, each) for each in found])
        if faults:
            raise faults.error()
        return list(zip(*chosen, strict=True)) if chosen else [()] * len(self._row_names)

    def _found_rows(self, columns: Mapping[str, Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Return the choices of each row, one row after the other, for a space with conditions."""
        faults, rows = Faults(), list[tuple[Any, ...]]()
        for number, name in enumerate(self._row_names):
            values = {path: column[number] for path, column in columns.items()}
            values = {path: value for path, value in values.items() if value is not None or self._may_be_null(path)}
            try:
                drawn = self._found(values, self._fractions(0))
            except ConfigError as error:
                faults.add(name, str(error))
            else:
                open_path = next((path for path, _ in self.label(drawn) if not _is_given(path, values)), None)
                if open_path is None:
                    rows.append(drawn.choices)
                    continue
                faults.add(
                    name,
                    f"the table has no value of {open_path}, which the config marks. Add it as a column, or write the "
                    "value itself.",
                )
            if len(faults) >= _MOST_FAULTS:
                break
        if faults:
            raise faults.error()
        return rows

    def _may_be_null(self, path: str) -> bool:
        return any(site.path == path and None in site.marker.get("$choice", ()) for site in self.sites)

    def reseeded(self, study_seed: int) -> "TableSpace":
        """Return the same space with other random draws; it shares everything else with this one."""
        other = copy.copy(self)
        other.study_seed = study_seed
        other.__dict__.pop("_order", None)
        return other

    @cached_property
    def _order(self) -> list[int]:
        order: list[int] = draw_order(len(self._drawn), self.study_seed).tolist()
        return order

    @property
    def listed(self) -> Sequence[Drawn]:
        """The rows in the order of the table."""
        return self._drawn

    @cached_property
    def listed_vectors(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The vectors of all rows, see `Space.listed_vectors`."""
        if any(site.conditions for site in self.sites):
            return super().listed_vectors
        columns = []
        for position, site in enumerate(self.sites):
            numbers = np.array([drawn.choices[position][1] for drawn in self._drawn])
            if "$choice" in site.marker:
                columns += list(numbers == np.arange(len(site.marker["$choice"]))[:, None])
            else:
                unit = scale_of(site.marker).unit
                columns.append(np.array([unit(number) for number in numbers.tolist()]))
        points = np.stack(columns, axis=1).astype(float) if columns else np.zeros((len(self._drawn), 0))
        return points, np.zeros(points.shape, dtype=bool)

    def row(self, drawn: Drawn) -> int:
        """Return the row of some choices.

        Raises:
            SearchError: They are those of no row.
        """
        number = self._rows.get(drawn)
        if number is None:
            raise SearchError(
                f"{show(drawn.as_json())}: no row of the table has these choices. They are those of another table: use "
                "the one that they were drawn with."
            )
        return number

    def random(self, number: int) -> Drawn:
        """Return the row of a number: a permutation that follows from the study's seed, again from its beginning."""
        return self._drawn[self._order[number % len(self._drawn)]]

    def at(self, fraction: Fraction) -> Drawn:
        """Return the row that is nearest to the choices that fractions lead to."""
        return self.nearest(super().at(fraction))

    def nearest(self, drawn: Drawn) -> Drawn:
        """Return the row that is nearest to choices in the unit cube, of equals the first."""
        if drawn in self._rows:
            return drawn
        point, _ = super().vector(drawn)
        return self._drawn[int(np.argmin(self._distances(point)))]

    def _distances(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the squared distance of each row from a point of the unit cube; NaN in it: any value is as near."""
        distances: NDArray[np.float64] = np.nansum((self.listed_vectors[0] - point) ** 2, axis=1)
        return distances

    def find(self, overrides: Mapping[str, Any], number: int = 0, *, prefix: str = "") -> Drawn:
        """Return a row that has given values; of several, another one for each number.

        Raises:
            ConfigError: No row has them; the message names the nearest one.
        """
        known = KnownValues(self.definitions, self._fractions(number)).find(self._template, overrides, prefix)
        wanted = {(path, choice) for (_, path), choice in known.items()}
        first = number % len(self._order)
        for row in (*self._order[first:], *self._order[:first]):
            if wanted.issubset(self._drawn[row].choices):
                return self._drawn[row]
        # In the values that were given: all others are random.
        point, _ = super().vector(super().find(overrides, number, prefix=prefix))
        given = {path for _, path in known}
        is_given = np.array([each.site.path in given for each in self.dimensions], dtype=bool)
        found = self._drawn[int(np.argmin(self._distances(np.where(is_given, point, np.nan))))]
        nearest = dict(self.label(found))
        paths = [path for _, path in known if path in nearest]
        shown = ", ".join(f"{path}={show(nearest[path])}" for path in dict.fromkeys(paths))
        raise ConfigError(
            f"{join_path(prefix, paths[0]) if prefix else ', '.join(paths)}: no row of the table has "
            f"{show(dict(overrides))}. The nearest one has {shown}. Give these values, or fewer."
        )

    def read(self, choices: Sequence[Sequence[Any]]) -> Drawn:
        """Return the row that a journal holds.

        Raises:
            SearchError: It is none of this table.
        """
        drawn = super().read(choices) if choices else read_choices(choices)
        self.row(drawn)
        return drawn

    def vector(self, drawn: Drawn) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return choices as a point of the unit cube, see `Space.vector`."""
        row = self._rows.get(drawn)
        if row is None:
            return super().vector(drawn)
        points, is_inactive = self.listed_vectors
        return points[row].copy(), is_inactive[row].copy()

    def neighbours(self, drawn: Drawn, rng: np.random.Generator) -> Iterator[Drawn]:
        """Yield the nearest rows in random order.

        There are as many as choices have neighbours without a table: 4 for a number, and all other branches of a
        choice. Which of equally distant ones are among them is random.
        """
        count = sum(len(site.marker.get("$choice", (0,) * (_NEIGHBOURS_OF_NUMBER + 1))) - 1 for site in self.sites)
        distances = self._distances(self.vector(drawn)[0])
        mixed = rng.permutation(len(distances))
        near = mixed[np.argsort(distances[mixed], kind="stable")[: count + 1]]
        own = self._rows.get(drawn, -1)
        others = [int(row) for row in near if row != own][:count]
        yield from (self._drawn[others[place]] for place in rng.permutation(len(others)))

    def covering(self) -> Iterator[CoveringConfig]:
        """Yield nothing: no candidate of a table is trained."""
        return iter(())

    def find_faults(self, check: Check) -> list[str]:
        """Return no faults: no candidate of a table is trained."""
        return []

    def distinct(self) -> float:
        """Return the number of rows."""
        return len(self._drawn)

    def describe(self) -> str:
        """Return the size in words."""
        return f"{len(self.sites)} searched values: the {len(self._drawn):,} rows of a table."


def _is_given(path: str, values: Mapping[str, Any]) -> bool:
    """Whether values by path determine the value at a path."""
    return any(f"{path}.".startswith(f"{each}.") or f"{each}.".startswith(f"{path}.") for each in values)


def _comparable(value: Any) -> Any:
    """Return a value that is equal for equal values from JSON: 1 and 1.0 are, 1 and true are not."""
    return value if type(value) in (int, float) else plain_json(value)


def _reader_of(marker: Mapping[str, Any]) -> Any:
    """Return a function from a value to the choice of a marker without inner markers; None for one that it lacks."""
    if "$choice" in marker:
        branches = {_comparable(value): number for number, value in reversed(list(enumerate(marker["$choice"])))}
        return lambda value: branches.get(_comparable(value))
    scale = scale_of(marker)
    if not isinstance(scale, WholeNumbers):
        return scale.read
    return lambda value: scale.read(int(value) if isinstance(value, float) and value.is_integer() else value)


def _with_types(settings: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Return settings by path, in which a class next to its own arguments is at `PATH.type`."""
    return {
        (join_path(path, "type") if any(other.startswith(f"{path}.") for other in settings) else path): values
        for path, values in settings.items()
    }


def with_markers(config: Mapping[str, Any], settings: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return a config with a marker for each setting of a table that it does not speak of.

    Args:
        config: The config, with markers or without.
        settings: By JSON path, the value of each row.

    Raises:
        ConfigError: A path leads into a value that is no object.
    """
    changed, faults = copy.deepcopy(dict(config)), Faults()
    made: dict[str, Any] = {}
    for path, values in _with_types(settings).items():
        here: Any = changed
        keys = path.split(".")
        while keys and isinstance(here, Mapping) and keys[0] in here and not is_marker(here):
            here = here[keys.pop(0)]
        if not keys or is_marker(here) or isinstance(here, list):
            continue  # the config speaks of it
        if not isinstance(here, Mapping):
            faults.add(path, f"the config has {show(here)} at a part of this path. Leave it out, or mark the value.")
        elif keys[0].startswith("$"):
            faults.add(path, "the config has no such definition. Write it, or name another path for this setting.")
        else:
            made[path] = marker_of(values)
    if faults:
        raise faults.error()
    added: set[str] = set()
    for path, marker in made.items():
        here = changed
        *outer, last = path.split(".")
        for depth, key in enumerate(outer):
            if key not in here:
                added.add(join_path(*outer[: depth + 1]))
            here = here.setdefault(key, {})
        here[last] = marker
    return {key: _with_lists(value, key, added) for key, value in changed.items()}


def _with_lists(value: Any, path: str, added: set[str]) -> Any:
    """Return a value in which objects that were added with the keys 0, 1, 2, ... are lists."""
    if not isinstance(value, dict) or is_marker(value):
        return value
    items = {key: _with_lists(item, join_path(path, key), added) for key, item in value.items()}
    is_list = path in added and items.keys() == {str(number) for number in range(len(items))}
    return [items[str(number)] for number in range(len(items))] if is_list else items


def marker_of(values: Sequence[Any]) -> Any:
    """Return a marker that has all values of a column, or the value itself if there is only one.

    Numbers are a `$range` or a `$uniform`, or with a logarithmic scale `$logrange` or `$loguniform`: of the two scales
    that on which the middle number is nearer to the middle between the ends. All else, such as text, is a `$choice`. If
    some rows have no value, it is a choice between null and the marker of the others.
    """
    known = [value for value in values if value is not None]
    distinct = list({plain_json(value): value for value in known}.values())
    if len(known) < len(values):
        return {"$choice": [None, *([marker_of(known)] if known else [])]}
    if not distinct or not all(type(value) in (int, float) for value in distinct):
        return distinct[0] if len(distinct) == 1 else {"$choice": distinct}
    low, high = min(distinct), max(distinct)
    if low == high:
        return low
    is_log = low > 0 and high / low >= _LEAST_RATIO and _is_evener_in_logarithm(known, low, high)
    if all(type(value) is int for value in distinct):
        if is_log:
            return {"$logrange": [low, high]}
        step = math.gcd(*(value - low for value in distinct))
        return {"$range": [low, high + 1, step] if step > 1 else [low, high + 1]}
    return {"$loguniform" if is_log else "$uniform": [float(low), float(high)]}


def _is_evener_in_logarithm(values: Sequence[float], low: float, high: float) -> bool:
    middle = float(np.median(values))
    in_logarithm = math.log(middle / low) / math.log(high / low)
    return abs(in_logarithm - 0.5) < abs((middle - low) / (high - low) - 0.5)
