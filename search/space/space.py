"""The space of a search: a configuration with markers, from which candidates are drawn.

Every draw follows from (study seed, number of the candidate, JSON path) alone. So candidates are the same on every
machine and in every order, and marking one more value leaves the draws of the others as they were.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from config.faults import join_path
from config.markers import find_markers, holds_marker, is_marker
from search.space.markers import check_markers
from search.space.outcomes import Extent, covering, extent_of, plain_json
from utils.seeding import derive_seed, keyed_share

Config = dict[str, Any]
Canonical = Callable[[Config], Config]
CANDIDATE_SEEDS = "candidate"
SIGNIFICANT_DIGITS = 6  # of a continuous value: readable, and the same on every machine
_NOT_TRAINED = ("search", "$defs")  # parts of the space that no candidate has
_NOT_COMPARED = ("seed", "name")


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

    def draw(self, index: int) -> Candidate:
        """Draw the candidate of a number."""
        drawer = _Drawer(self.study_seed, index, self.definitions)
        config: Config = drawer.fill(self._template, "")
        seed = derive_seed(self.study_seed, CANDIDATE_SEEDS, index) >> 31
        config["seed"] = seed
        key = hashlib.sha256(self._normal(config).encode()).hexdigest()[:32] if self.has_markers else f"seed {seed}"
        return Candidate(index, seed, config, drawer.drawn, key)

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


@dataclass
class _Drawer:
    """Replaces the markers of one candidate.

    Attributes:
        study_seed: Seed of the study.
        index: Number of the candidate.
        definitions: The values of `$defs`.
        variables: Those of them that are drawn already.
        drawn: JSON path and value, in the order in which they were drawn.
    """

    study_seed: int
    index: int
    definitions: Mapping[str, Any]
    variables: dict[str, Any] = field(default_factory=dict)
    drawn: list[tuple[str, Any]] = field(default_factory=list)

    def fill(self, value: Any, path: str, branch: str = "") -> Any:
        """Return a value of the space with every marker in it replaced.

        Args:
            value: The value.
            path: Its JSON path in the candidate.
            branch: For a branch of a choice, the positions of this and of the choices around it: they share a path.
        """
        if is_marker(value):
            return self._draw(value, path, branch)
        if isinstance(value, Mapping):
            return {key: self.fill(item, join_path(path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, join_path(path, index)) for index, item in enumerate(value)]
        return value

    def _draw(self, value: Mapping[str, Any], path: str, branch: str) -> Any:
        ((marker, content),) = value.items()
        if marker == "$var":
            if content not in self.variables:  # drawn once, at a path of $defs
                self.variables[content] = self.fill(self.definitions[content], join_path("$defs", content))
            return copy.deepcopy(self.variables[content])
        if marker == "$repeat":
            times = self.fill(content["times"], join_path(path, "times"))
            return [self.fill(content["of"], join_path(path, index)) for index in range(times)]
        share = keyed_share(self.study_seed, self.index, path, *([branch] if branch else []))  # uniform in [0, 1)
        if marker == "$choice":
            place = int(share * len(content))  # repeated entries bias the choice
            chosen = content[place]
            if is_marker(chosen):  # the next draw at the same path is the one to note
                return self.fill(chosen, path, f"{branch}/{place}")
            if holds_marker(chosen):
                name = chosen.get("type") if isinstance(chosen, Mapping) else None
                self.drawn.append((path, name if isinstance(name, str) else f"branch {place}"))
                return self.fill(chosen, path, f"{branch}/{place}")
            result = copy.deepcopy(chosen)
        elif marker == "$range":
            numbers = range(*content)
            result = numbers[int(share * len(numbers))]
        else:
            low, high = map(math.log, content) if marker == "$loguniform" else content
            number = low + (high - low) * share
            number = math.exp(number) if marker == "$loguniform" else number
            result = float(f"{number:.{SIGNIFICANT_DIGITS}g}")
        self.drawn.append((path, result))
        return result
