"""The space of a search: a configuration with markers, from which candidates are drawn.

Every draw follows from (study seed, number of the candidate, JSON path) alone. So candidates are the same on every
machine and in every order, and marking one more value leaves the draws of the others as they were.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from config.faults import show
from config.markers import find_markers
from search.space.cover import Check, CoveringConfig, covering, find_faults
from search.space.drawn import Drawn, read_choices
from search.space.geometry import Column, Dimension, columns_by_site, dimensions_of, moves_of, sites_of, vector_of
from search.space.known import KnownValues
from search.space.outcomes import Extent, extent_of, plain_json, variables_of
from search.space.rules import check_markers
from search.space.scales import scale_of
from search.space.walk import Fraction, Identity, Site, Walk, without_constants
from utils.errors import SearchError
from utils.seeding import derive_seed

Config = dict[str, Any]
_Walked = TypeVar("_Walked")
Canonical = Callable[[Config], Config]
CANDIDATE_SEEDS = "candidate"
_NOT_TRAINED = ("search", "$defs")  # parts of the space that no candidate has
_NOT_COMPARED = ("seed", "name")


def unit_fraction(*parts: int | str) -> float:
    """Return a number, uniform in [0, 1), that depends on `parts` alone."""
    return (derive_seed(*parts) >> 10) / 2**53


class Space:
    """A configuration with markers from which candidates are drawn.

    Args:
        config: From `load_config`; without markers it is a space with one candidate, drawn with different seeds.
        study_seed: The seed of all draws.
        canonical: Brings a drawn config to the form that it shares with all configs that train the same.

    Raises:
        ConfigError: Some markers cannot be drawn from; all are listed with their paths.
    """

    def __init__(self, config: Mapping[str, Any], *, study_seed: int = 0, canonical: Canonical | None = None) -> None:
        check_markers(config)
        self.study_seed = study_seed
        self.definitions: Mapping[str, Any] = config.get("$defs", {})
        self._template = {key: value for key, value in config.items() if key not in _NOT_TRAINED}
        self._canonical = canonical
        self.has_markers = bool(find_markers(self._template))

    def random(self, number: int) -> Drawn:
        """Return the choices of a number, which follow from it, the study's seed and the JSON paths alone."""
        return self.at(self._fractions(number))

    def at(self, fraction: Fraction) -> Drawn:
        """Return the choices that fractions lead to.

        Args:
            fraction: Called with the path, branch (see `Site`) and marker of each choice in the order of the file, the
                marker without the constants in its branches; returns a number in [0, 1), which is a share of the
                probability of all outcomes of the marker.
        """
        return self._completed({}, fraction)

    def find(self, overrides: Mapping[str, Any], number: int = 0, *, prefix: str = "") -> Drawn:
        """Return choices whose config has given values; all others are random ones of a number, other than `random`'s.

        Args:
            overrides: Values by path, as on the command line: `{"optimizer.args.lr": 0.01, "arch.type": "UNet"}`, also
                in objects; of an object the keys that are given, of a list all items.
            number: Number of the candidate.
            prefix: JSON path of the overrides, for messages.

        Raises:
            ConfigError: No candidate has these values; the message names the place that does not fit.
        """
        return self._found(overrides, self._fractions("known", number), prefix)

    def _found(self, overrides: Mapping[str, Any], fraction: Fraction, prefix: str = "") -> Drawn:
        """Return choices whose config has given values; all others follow from fractions."""
        known = KnownValues(self.definitions, fraction).find(self._template, overrides, prefix)
        return self._completed(known, fraction)

    def _fractions(self, *parts: int | str) -> Fraction:
        return lambda path, branch, _: unit_fraction(self.study_seed, *parts, path, *([branch] if branch else []))

    def _completed(self, known: Mapping[Identity, int | float], fraction: Fraction) -> Drawn:
        """Return choices of which some are known by the identities of their sites, the others follow from fractions."""

        def choose(site: Site) -> int | float:
            number = known.get(site.identity)
            if number is None:
                return scale_of(site.marker).at(fraction(site.path, site.branch, site.marker))
            return number

        return self.walk_choices(choose).drawn

    def read(self, choices: Sequence[Sequence[Any]]) -> Drawn:
        """Return the choices that a journal holds, see `Drawn.as_json`.

        Raises:
            SearchError: They are none of this space.
        """
        return self.follow(read_choices(choices))[1].drawn

    def config(self, drawn: Drawn) -> Config:
        """Return the config of some choices; its seed is that of the space, see `seed`.

        Raises:
            SearchError: They are none of this space.
        """
        return self.follow(drawn)[0]

    def seed(self, number: int) -> int:
        """Return the seed of a candidate's training: 32 bits, which every library takes."""
        return derive_seed(self.study_seed, CANDIDATE_SEEDS, number) >> 31

    def key(self, drawn: Drawn) -> str:
        """Return text that is equal for choices that would train the same with the same seed."""
        return hashlib.sha256(self._normal(self.config(drawn)).encode()).hexdigest()[:32]

    def label(self, drawn: Drawn) -> list[tuple[str, Any]]:
        """Return JSON path and value of each choice, in the order of the file, for people and for statistics.

        For a choice between branches that hold markers themselves, the value is a name of the branch.
        """
        return self.follow(drawn)[1].label

    @cached_property
    def sites(self) -> list[Site]:
        """Every marker that some candidate meets, in the order of the file; a repeated one as often as at most."""
        return sites_of(self._template, self.definitions)

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The dimensions of `vector`."""
        return dimensions_of(self.sites)

    @cached_property
    def _columns(self) -> dict[Identity, Column]:
        return columns_by_site(self.dimensions)

    def vector(self, drawn: Drawn) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return choices as a point of the unit cube.

        A `$choice` has one dimension per branch, of which one is 1. A number has its position between the first (0) and
        the last (1) number of its marker, on its scale. Markers of another branch, and those of a list longer than it
        is here, are inactive.

        Returns:
            The point, (D,) float64, 0 in inactive dimensions, and whether each dimension is inactive, (D,) bool; D is
            the number of `dimensions`.
        """
        return self.vector_of(self.follow_choices(drawn))

    def vector_of(self, walk: Walk) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the choices of a walk as a point, see `vector`."""
        return vector_of(walk, self._columns, len(self.dimensions))

    def neighbours(self, drawn: Drawn, rng: np.random.Generator) -> Iterator[Drawn]:
        """Yield choices of which one is another, in random order.

        These are all other branches of each choice, and a few other numbers near each number. Choices that a new branch
        or a longer list adds are drawn at random; all else remains. None is yielded twice, nor the choices themselves.
        """
        walk = self.follow_choices(drawn)
        chosen = {site.identity: number for site, (_, number) in zip(walk.sites, walk.choices, strict=True)}
        for site, number in moves_of(walk, rng):
            yield self._completed({**chosen, site.identity: number}, lambda *_: rng.random())

    def walk(self, choose: Callable[[Site], int | float]) -> tuple[Config, Walk]:
        """Return the config that a way to choose leads to, with the walk there."""
        walk = Walk(self.definitions, choose)
        return walk.fill(self._template, ""), walk

    def walk_choices(self, choose: Callable[[Site], int | float]) -> Walk:
        """Return the walk that a way to choose leads to, without its config and labels: a few times faster."""
        template, definitions = self._choices
        walk = Walk(definitions, choose)
        walk.fill(template, "")
        return walk

    @cached_property
    def _choices(self) -> tuple[Any, dict[str, Any]]:
        """The template and the definitions without their constants."""
        used = variables_of(self._template, self.definitions)  # the others are not checked
        return without_constants(self._template), {name: without_constants(value) for name, value in used.items()}

    def follow(self, drawn: Drawn) -> tuple[Config, Walk]:
        """Return the config of some choices, with the walk there.

        Raises:
            SearchError: They are none of this space.
        """
        return self._follow(drawn, self.walk)

    def follow_choices(self, drawn: Drawn) -> Walk:
        """Return the walk of some choices without its config, see `walk_choices`.

        Raises:
            SearchError: They are none of this space.
        """
        return self._follow(drawn, self.walk_choices)

    def _follow(self, drawn: Drawn, walk: Callable[[Callable[[Site], int | float]], _Walked]) -> _Walked:
        """Return the result of a way to walk for some choices."""
        rest = list(reversed(drawn.choices))

        def choose(site: Site) -> int | float:
            path, number = rest.pop() if rest else ("", None)
            read = scale_of(site.marker).read(number) if path == site.path else None
            if read is None:
                found = show([path, number]) if path else "nothing"
                raise SearchError(
                    f"{site.path}: the choices have {found} where the space has {show(site.marker)}. They are those of "
                    "another space: use the config that they were drawn with."
                )
            return read

        walked = walk(choose)
        if rest:
            raise SearchError(
                f"{rest[-1][0]}: the choices have {show(list(rest[-1]))} where the space has no marker. They are those "
                "of another space: use the config that they were drawn with."
            )
        return walked

    @property
    def listed(self) -> Sequence[Drawn] | None:
        """All candidates, if the space is a list of them that other choices of its markers are not in; else None."""
        return None

    @cached_property
    def listed_vectors(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The vectors of `listed`, N of them: points (N, D) and whether each dimension is inactive (N, D)."""
        vectors = [Space.vector(self, drawn) for drawn in self.listed or ()]
        shape = (len(vectors), len(self.dimensions))
        points, is_inactive = zip(*vectors, strict=True) if vectors else ((), ())
        return np.array(points, dtype=float).reshape(shape), np.array(is_inactive, dtype=bool).reshape(shape)

    def nearest(self, drawn: Drawn) -> Drawn:
        """Return the candidate that is nearest to choices of the markers: these themselves, unless it is `listed`."""
        return drawn

    def covering(self) -> Iterator[CoveringConfig]:
        """Yield a few candidates which together have every branch of every choice; none of them is drawn."""
        for each in covering(self._template, self.definitions):
            yield replace(each, config={**each.config, "seed": derive_seed(self.study_seed) >> 31})

    def find_faults(self, check: Check) -> list[str]:
        """Return the faults that some candidates have, each once.

        Args:
            check: Raises a `ConfigError` for a config that cannot be trained.

        Raises:
            ConfigError: No candidate can be trained, or a real number is drawn where a whole one is needed.
        """
        return find_faults(self.covering(), check)

    def distinct(self) -> float:
        """Return the number of different candidates; infinite with continuous values, and if only seeds differ."""
        return self.extent.count if self.has_markers else math.inf

    @cached_property
    def extent(self) -> Extent:
        """The size; outcomes that train the same count once if they are compared, see `extent_of`."""
        return extent_of(self._template, self.definitions, self._normal)

    def describe(self) -> str:
        """Return the size in words."""
        if not self.has_markers:
            return "No value is searched: candidates are repeats with other seeds."
        return f"{len(find_markers(self._template))} searched values: {self.extent}."

    def _normal(self, config: Config) -> str:
        """Return the text that a config shares with all configs that train the same."""
        content = {key: value for key, value in config.items() if key not in _NOT_COMPARED}
        return plain_json(content if self._canonical is None else self._canonical(content))
