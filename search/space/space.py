"""The space of a search: a configuration with markers, from which candidates are drawn.

Every draw follows from (study seed, number of the candidate, JSON path) alone. So candidates are the same on every
machine and in every order, and marking one more value leaves the draws of the others as they were.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from config.faults import show
from config.markers import find_markers
from search.space.drawn import Drawn
from search.space.outcomes import Extent, covering, extent_of, plain_json
from search.space.rules import check_markers
from search.space.scales import scale_of
from search.space.walk import Site, Walk
from utils.errors import SearchError
from utils.seeding import derive_seed

Config = dict[str, Any]
Canonical = Callable[[Config], Config]
Fraction = Callable[[str, str, Mapping[str, Any]], float]
CANDIDATE_SEEDS = "candidate"
_NOT_TRAINED = ("search", "$defs")  # parts of the space that no candidate has
_NOT_COMPARED = ("seed", "name")


def unit_fraction(*parts: int | str) -> float:
    """Return a number, uniform in [0, 1), that depends on `parts` alone."""
    return (derive_seed(*parts) >> 10) / 2**53


@dataclass(frozen=True)
class Candidate:
    """A drawn config and its draws.

    Attributes:
        index: Number of the candidate.
        seed: Seed of its training.
        config: The config to train, without markers.
        drawn: JSON path and value of each draw, in the order of the file. For a choice between branches that hold
            markers themselves, the value is a name of the branch.
        key: Text that is equal for candidates that would train the same.
    """

    index: int
    seed: int
    config: Config
    drawn: list[tuple[str, Any]]
    key: str


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
        return self.at(
            lambda path, branch, _: unit_fraction(self.study_seed, number, path, *([branch] if branch else []))
        )

    def at(self, fraction: Fraction) -> Drawn:
        """Return the choices that fractions lead to.

        Args:
            fraction: Called with the path, branch (see `Site`) and marker of each choice in the order of the file;
                returns a number in [0, 1), which is a share of the probability of all outcomes of the marker.
        """
        return self.walk(lambda site: scale_of(site.marker).at(fraction(site.path, site.branch, site.marker)))[1].drawn

    def read(self, choices: Sequence[Sequence[Any]]) -> Drawn:
        """Return the choices that a journal holds, see `Drawn.as_json`.

        Raises:
            SearchError: They are none of this space.
        """
        try:
            drawn = Drawn.from_json(choices)
        except (TypeError, ValueError) as error:
            raise SearchError(f"{show(choices)}: {error}. They were written by another program, or altered.") from error
        return self.follow(drawn)[1].drawn

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

    def walk(self, choose: Callable[[Site], int | float]) -> tuple[Config, Walk]:
        """Return the config that a way to choose leads to, with the walk there."""
        walk = Walk(self.definitions, choose)
        return walk.fill(self._template, ""), walk

    def follow(self, drawn: Drawn) -> tuple[Config, Walk]:
        """Return the config of some choices, with the walk there.

        Raises:
            SearchError: They are none of this space.
        """
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

        config, walk = self.walk(choose)
        if rest:
            raise SearchError(
                f"{rest[-1][0]}: the choices have {show(list(rest[-1]))} where the space has no marker. They are those "
                "of another space: use the config that they were drawn with."
            )
        return config, walk

    def draw(self, index: int) -> Candidate:
        """Draw the candidate of a number."""
        drawn, seed = self.random(index), self.seed(index)
        config = {**self.config(drawn), "seed": seed}
        return Candidate(
            index, seed, config, self.label(drawn), self.key(drawn) if self.has_markers else f"seed {seed}"
        )

    def covering(self) -> Iterator[Config]:
        """Yield a few configs which together have every branch of every choice; none of them is drawn."""
        for config in covering(self._template, self.definitions):
            yield {**config, "seed": derive_seed(self.study_seed) >> 31}

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
