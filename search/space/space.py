"""The space of a search: a configuration some of whose values are drawn.

Every draw follows from (study seed, number of the candidate, JSON path) alone. So candidates are the same on every
machine and in every order, and marking one more value leaves the draws of the others as they were.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from config.markers import find_markers
from search.space.markers import CANDIDATE_SEEDS, Drawer, check_markers, plain_json
from search.space.outcomes import covering
from search.space.size import Extent, extent_of
from utils.seeds import derive_seed

Config = dict[str, Any]
Canonical = Callable[[Config], Config]
_NOT_TRAINED = ("search", "$defs")  # parts of the space that no candidate has
_NOT_COMPARED = ("seed", "name")


@dataclass(frozen=True)
class Candidate:
    """A plain config and how it came about.

    Attributes:
        index: Number of the draw.
        seed: Of its training.
        config: What to train, without markers.
        drawn: JSON path and value of each draw, in the order of the file. Of a choice between branches that hold
            markers themselves the value is a name of the branch.
        key: Equal for candidates that would train the same.
    """

    index: int
    seed: int
    config: Config
    drawn: list[tuple[str, Any]]
    key: str


class Space:
    """Draws candidates.

    Args:
        config: From `load_config`; without markers it is a space with one candidate, drawn with other seeds.
        study_seed: Everything follows from it.
        canonical: Brings a drawn config to the form that it shares with all that train the same.

    Raises:
        ConfigError: Markers that cannot be drawn from, all of them with their paths.
    """

    def __init__(self, config: Mapping[str, Any], *, study_seed: int = 0, canonical: Canonical | None = None) -> None:
        check_markers(config)
        self.study_seed = study_seed
        self.definitions: Mapping[str, Any] = config.get("$defs", {})
        self._template = {key: value for key, value in config.items() if key not in _NOT_TRAINED}
        self._canonical = canonical
        self.has_markers = bool(find_markers(self._template))

    def draw(self, index: int) -> Candidate:
        """The candidate of that number."""
        drawer = Drawer(self.study_seed, index, self.definitions)
        config: Config = drawer.fill(self._template, "")
        seed = derive_seed(self.study_seed, CANDIDATE_SEEDS, index) >> 31
        config["seed"] = seed
        return Candidate(index, seed, config, drawer.drawn, self._key(config, seed))

    def covering(self) -> Iterator[Config]:
        """A few configs that between them have every branch of every choice; none of them is a draw."""
        for config in covering(self._template, self.definitions):
            yield {**config, "seed": derive_seed(self.study_seed) >> 31}

    def distinct(self) -> float:
        """How many different candidates there are; infinite with continuous values, and where seeds are repeated."""
        return self.size() if self.has_markers else math.inf

    def size(self) -> float:
        """How many different outcomes the markers have; 1 without any, infinite with continuous values."""
        return self.extent.count

    @cached_property
    def extent(self) -> Extent:
        """The size; outcomes that train the same count once where they are compared, see `extent_of`."""
        return extent_of(self._template, self.definitions, self._normal)

    def describe(self) -> str:
        """The size in words."""
        if not self.has_markers:
            return "No value is searched: candidates are repeats with other seeds."
        return f"{len(find_markers(self._template))} searched values: {self.extent}."

    def _key(self, config: Config, seed: int) -> str:
        if not self.has_markers:
            return f"seed {seed}"
        return hashlib.sha256(self._normal(config).encode()).hexdigest()[:32]

    def _normal(self, config: Config) -> str:
        """The text that a config shares with all that train the same."""
        content = {key: value for key, value in config.items() if key not in _NOT_COMPARED}
        return plain_json(content if self._canonical is None else self._canonical(content))
