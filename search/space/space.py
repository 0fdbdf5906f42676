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

from config.faults import Faults, join_path, show, unknown_name
from config.markers import MARKERS, find_markers, is_marker, unknown_markers
from search.space.outcomes import Extent, covering, extent_of, holds_marker, outcomes_of, plain_json
from utils.seeding import derive_seed

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
        # Of 32 bits, which every library takes.
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
        if not is_marker(value):
            if isinstance(value, Mapping):
                return {key: self.fill(item, join_path(path, key)) for key, item in value.items()}
            is_list = isinstance(value, list)
            return [self.fill(item, join_path(path, index)) for index, item in enumerate(value)] if is_list else value
        ((marker, content),) = value.items()
        if marker == "$var":
            if content not in self.variables:  # drawn once, at a path of $defs
                self.variables[content] = self.fill(self.definitions[content], join_path("$defs", content))
            return copy.deepcopy(self.variables[content])
        if marker == "$repeat":
            times = self.fill(content["times"], join_path(path, "times"))
            return [self.fill(content["of"], join_path(path, index)) for index in range(times)]
        seed = derive_seed(self.study_seed, self.index, path, *([branch] if branch else []))
        share = (seed >> 10) / 2**53  # uniform in [0, 1)
        if marker == "$choice":
            place = int(share * len(content))  # repeated entries bias the choice
            chosen = content[place]
            if holds_marker(chosen):
                if not is_marker(chosen):  # otherwise the next draw at the same path is the one to note
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


SHARED_BY_ALL_CANDIDATES = ("name", "seed", "search", "trainer.epochs", "trainer.monitor", "trainer.save_dir")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_INTERVAL: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (
        lambda content: (
            isinstance(content, list)
            and len(content) == 2
            and all(type(end) in (int, float) and math.isfinite(end) for end in content)
        ),
        "must be [low, high] of two numbers. Write for example [0.0, 0.5].",
    ),
    (lambda content: content[0] < content[1], "has low not below high. Exchange them, or write the value itself."),
)
# The rules for the content of each marker, checked in this order, and the message if one is broken.
_RULES: dict[str, tuple[tuple[Callable[[Any], bool], str], ...]] = {
    "$choice": (
        (
            lambda content: isinstance(content, list) and bool(content),
            "must be a list of one or more values. Write [a, b].",
        ),
    ),
    "$range": (
        (
            lambda content: isinstance(content, list) and len(content) in (1, 2, 3) and all(map(_is_int, content)),
            "must be [start, stop] or [start, stop, step] of whole numbers. For others write $uniform or $choice.",
        ),
        (lambda content: content[2:] != [0], "has a step of 0. Write another step."),
        (
            lambda content: len(range(*content)) > 0,
            "holds no number: stop itself is left out, as in Python. Write a larger stop.",
        ),
    ),
    "$uniform": _INTERVAL,
    "$loguniform": (
        *_INTERVAL,
        (lambda content: content[0] > 0, "begins at or below 0, which has no logarithm. Begin above 0."),
    ),
    "$repeat": (
        (
            lambda content: isinstance(content, Mapping) and content.keys() == {"of", "times"},
            'must be {"of": VALUE, "times": NUMBER}. Write these two keys.',
        ),
        (
            lambda content: is_marker(content["times"]) or (_is_int(content["times"]) and content["times"] >= 0),
            "has times that is not a number of times. Write a whole number from 0, or a marker.",
        ),
    ),
    "$var": ((lambda content: isinstance(content, str), "must be the name of a definition. Write a key of $defs."),),
}


def check_markers(config: Mapping[str, Any]) -> None:
    """Raise if a marker cannot be drawn from.

    Raises:
        ConfigError: Lists all such markers with their JSON paths.
    """
    faults, definitions = Faults(), config.get("$defs", {})
    for path, key in unknown_markers(config):
        faults.add(path, unknown_name("marker", key, MARKERS))
    for key, value in config.items():
        if key == "trainer" and is_marker(value):
            faults.add(key, "the section holds for the whole search. Mark single values in it.")
        elif key != "$defs":
            _check_value(value, key, definitions, (), faults)
    for path in SHARED_BY_ALL_CANDIDATES:
        section, _, key = path.rpartition(".")
        holder = config.get(section, {}) if section else config
        if isinstance(holder, Mapping) and holds_marker(holder.get(key)):
            faults.add(path, "it holds for the whole search and is not searched itself. Write it without markers.")
    if faults:
        raise faults.error()


def _check_value(
    value: Any, path: str, definitions: Mapping[str, Any], open_names: tuple[str, ...], faults: Faults
) -> None:
    """Check a value and everything in it; `open_names` are the variables whose definitions contain it."""
    if not is_marker(value):
        items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            _check_value(item, join_path(path, key), definitions, open_names, faults)
        return
    if len(value) != 1:
        faults.add(
            path, f"{show(value)} has other keys next to its marker. A marker is alone in its object: move them."
        )
        return
    ((marker, content),) = value.items()
    place = join_path(path, marker)
    broken = next((message for is_good, message in _RULES[marker] if not is_good(content)), None)
    if broken is not None:
        faults.add(place, f"{show(content)} {broken}")
    elif marker == "$choice":
        _check_value(content, place, definitions, open_names, faults)
    elif marker == "$repeat":
        _check_value(content["of"], join_path(place, "of"), definitions, open_names, faults)
        times, times_path, num_faults = content["times"], join_path(place, "times"), len(faults)
        _check_value(times, times_path, definitions, open_names, faults)
        # Only a faultless one can be drawn.
        outcomes = outcomes_of(times, definitions) if len(faults) == num_faults else ()
        for outcome, _ in outcomes:
            if not _is_int(outcome) or outcome < 0:
                faults.add(times_path, f"{show(outcome)} is not a number of times. Use whole numbers from 0.")
    elif marker == "$var" and content not in definitions:
        faults.add(place, unknown_name("definition", content, definitions))
    elif marker == "$var" and content in open_names:
        chain = " -> ".join((*open_names, content))
        faults.add(place, f"{show(content)} contains itself ({chain}). Break the circle.")
    elif marker == "$var":
        _check_value(definitions[content], f"$defs.{content}", definitions, (*open_names, content), faults)
