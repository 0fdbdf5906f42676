"""A space as a geometry, for samplers that learn: all markers that may be met, vectors, and neighbours."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.faults import join_path
from config.markers import is_marker
from search.space.outcomes import Definitions, outcomes_of
from search.space.scales import Scale, WholeNumbers, scale_of
from search.space.walk import Identity, Site, Walk

_STEP = 0.2  # standard deviation of a step in the unit interval: Hutter et al., 2011 (SMAC), section 4.3
_STEPS = 4  # as many neighbours has a number there


@dataclass(frozen=True)
class Dimension:
    """One number of a vector.

    Attributes:
        site: The marker that it belongs to, with its path and the choices on which it depends.
        branch: Index of the branch of a `$choice` that it is 1 for, and 0 otherwise; None for the position of a number.
    """

    site: Site
    branch: int | None = None


def sites_of(template: Any, definitions: Definitions) -> list[Site]:
    """Return every marker that some candidate meets, in the order of the file; a repeated one as often as at most."""
    known_variables: set[str] = set()

    def visit(value: Any, here: Site) -> Iterator[Site]:
        if not is_marker(value):
            items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
            for key, item in items:
                yield from visit(item, _at(here, key))
            return
        ((kind, content),) = value.items()
        if kind == "$var":
            if content not in known_variables:
                known_variables.add(content)
                yield from visit(definitions[content], Site(join_path("$defs", content), "", (), {}))
        elif kind == "$repeat":
            yield from visit(content["times"], _at(here, "times"))
            for number in range(max(times for times, _ in outcomes_of(content["times"], definitions))):
                yield from visit(content["of"], _at(here, number))
        else:
            yield Site(here.path, here.branch, here.conditions, value)
            for number, branch in enumerate(content if kind == "$choice" else ()):
                inner = (*here.conditions, (here.path, number))
                yield from visit(branch, Site(here.path, f"{here.branch}/{number}", inner, {}))

    return list(visit(template, Site("", "", (), {})))


def _at(here: Site, key: object) -> Site:
    return Site(join_path(here.path, key), "", here.conditions, {})


def dimensions_of(sites: list[Site]) -> tuple[Dimension, ...]:
    """Return the dimensions of vectors: one per branch of a choice, one per other marker."""
    found: list[Dimension] = []
    for site in sites:
        branches = site.marker.get("$choice")
        found += [Dimension(site)] if branches is None else [Dimension(site, place) for place in range(len(branches))]
    return tuple(found)


@dataclass(frozen=True)
class Column:
    """The place of a marker in a vector.

    Attributes:
        first: Its first dimension.
        is_choice: Whether it has a dimension per branch.
        count: Number of its dimensions.
        scale: The scale of its numbers.
    """

    first: int
    is_choice: bool
    count: int
    scale: Scale


def columns_by_site(dimensions: tuple[Dimension, ...]) -> dict[Identity, Column]:
    """Return the place of each marker, by its identity."""
    columns: dict[Identity, Column] = {}
    for first, dimension in enumerate(dimensions):
        if not dimension.branch:  # also the first of a choice
            is_choice, marker = dimension.branch is not None, dimension.site.marker
            count = len(marker["$choice"]) if is_choice else 1
            columns[dimension.site.identity] = Column(first, is_choice, count, scale_of(marker))
    return columns


def vector_of(
    walk: Walk, columns: Mapping[Identity, Column], num_dimensions: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a point of the unit cube and the mask of its inactive dimensions, see `Space.vector`."""
    values, mask = np.zeros(num_dimensions), np.ones(num_dimensions, dtype=bool)
    for site, (_, number) in zip(walk.sites, walk.choices, strict=True):
        column = columns[site.identity]
        mask[column.first : column.first + column.count] = False
        if column.is_choice:
            values[column.first + int(number)] = 1
        else:
            values[column.first] = column.scale.unit(number)
    return values, mask


def moves_of(walk: Walk, rng: np.random.Generator) -> Iterator[tuple[Site, int | float]]:
    """Yield each change of one choice, in random order: one of each site, then a second one of each, and so on."""
    waiting = [(site, _moves(site, number, rng)) for site, (_, number) in zip(walk.sites, walk.choices, strict=True)]
    waiting = [waiting[place] for place in rng.permutation(len(waiting))]
    while waiting:
        remaining = []
        for site, moves in waiting:
            number = next(moves, None)
            if number is not None:
                yield site, number
                remaining.append((site, moves))
        waiting = remaining


def _moves(site: Site, number: float, rng: np.random.Generator) -> Iterator[int | float]:
    """Yield other numbers of a site: all other branches of a choice; of a number the next ones, and steps from it."""
    scale: Scale = scale_of(site.marker)
    near: list[int | float] = []
    if isinstance(scale, WholeNumbers):
        place = scale.numbers.index(int(number))
        others = range(len(scale.numbers)) if "$choice" in site.marker else (place - 1, place + 1)
        near = [scale.numbers[other] for other in others if 0 <= other < len(scale.numbers)]
    if "$choice" not in site.marker:
        steps = scale.unit(number) + rng.normal(0.0, _STEP, _STEPS)
        near += [scale.nearest(float(position)) for position in np.abs(1 - np.abs(1 - steps)).clip(0, 1)]  # reflected
    distinct = [other for other in dict.fromkeys(near) if other != number]
    yield from (distinct[place] for place in rng.permutation(len(distinct)))
