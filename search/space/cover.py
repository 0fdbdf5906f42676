"""A few candidates that cover every branch of every choice, and the faults that are found with them.

They are checked before a search begins, so that choices that can never be trained are known then.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from config.checking.sound import place_of
from config.faults import Faults, join_path, show
from config.markers import is_marker
from search.space.outcomes import Definitions
from search.space.scales import scale_of
from utils.errors import ConfigError, each_error

Path = tuple[str | int, ...]
Check = Callable[[Any], None]
_MOST_COVERING = 500
_WHOLE_NUMBER = "an integer"  # in the message of a check, for a place that takes whole numbers only


@dataclass
class CoveringConfig:
    """One of the covering candidates.

    Attributes:
        config: Without markers.
        reals: Path of each real number that the space draws there -> its marker, or the number itself if it is in a
            branch of a choice.
    """

    config: Any
    reals: dict[Path, Any] = field(default_factory=dict)


def covering(space: Any, definitions: Definitions) -> Iterator[CoveringConfig]:
    """Yield candidates in which every branch occurs, and both ends of every range and interval.

    There are as many as the value with the most alternatives needs; other values cycle through theirs meanwhile.

    Args:
        space: A value with markers.
        definitions: The values of `$defs`.
    """
    for turn in range(min(_num_turns(space, definitions), _MOST_COVERING)):
        picker = _Picker(definitions)
        yield CoveringConfig(picker.pick(space, turn, ()), picker.reals)


def _num_turns(value: Any, definitions: Definitions) -> int:
    """Count the candidates that are needed to see all of a value."""
    if not is_marker(value):
        items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        return max((_num_turns(item, definitions) for item in items), default=1)
    ((marker, content),) = value.items()
    if marker == "$choice":
        return sum(_num_turns(branch, definitions) for branch in content)
    if marker == "$repeat":
        return max(_num_turns(content["of"], definitions), _num_turns(content["times"], definitions))
    return _num_turns(definitions[content], definitions) if marker == "$var" else 2


@dataclass
class _Picker:
    """Makes one covering candidate."""

    definitions: Definitions
    reals: dict[Path, Any] = field(default_factory=dict)

    def pick(self, value: Any, turn: int, path: Path, *, is_chosen: bool = False) -> Any:
        """Return the outcome of a value in the candidate of a turn.

        Args:
            value: The value.
            turn: Number of the candidate; another one in a branch, or in an item of a list.
            path: Of the outcome in the candidate.
            is_chosen: Whether it is in a branch of a choice.
        """
        if not is_marker(value):
            if isinstance(value, Mapping):
                return {key: self.pick(item, turn, (*path, key), is_chosen=is_chosen) for key, item in value.items()}
            if isinstance(value, list):
                return [self.pick(item, turn, (*path, key), is_chosen=is_chosen) for key, item in enumerate(value)]
            if is_chosen and isinstance(value, float):
                self.reals[path] = value
            return value
        return self._pick_marked(value, turn, path, is_chosen=is_chosen)

    def _pick_marked(self, value: Mapping[str, Any], turn: int, path: Path, *, is_chosen: bool) -> Any:
        ((marker, content),) = value.items()
        if marker == "$choice":
            # The branches follow each other, each for as many turns as it needs.
            turns = [(branch, place) for branch in content for place in range(_num_turns(branch, self.definitions))]
            return self.pick(*turns[turn % len(turns)], path, is_chosen=True)
        if marker == "$repeat":
            times = self.pick(content["times"], turn, (*path, "times"))
            return [self.pick(content["of"], turn + key, (*path, key), is_chosen=is_chosen) for key in range(times)]
        if marker == "$var":
            return self.pick(self.definitions[content], turn, path, is_chosen=is_chosen)
        if marker in ("$uniform", "$loguniform"):
            self.reals[path] = value
            return float(content[-(turn % 2)])  # a real number, as each draw, even if the end is a whole one
        return scale_of(value).outcomes[-(turn % 2)]


def find_faults(candidates: Iterable[CoveringConfig], check: Check) -> list[str]:
    """Return the faults of some of the candidates, each once.

    Args:
        candidates: Configs to check.
        check: Raises a `ConfigError` for a config that cannot be trained.

    Raises:
        ConfigError: None of the candidates can be trained, or a real number is drawn where a whole one is needed.
    """
    faults: dict[str, None] = {}
    has_good, refused, accepted = False, dict[str, int](), set[str]()
    for candidate in candidates:
        found = faults_of(candidate.config, check)
        has_good = has_good or not found
        faults |= dict.fromkeys(found)
        places = {place_of(fault) for fault in found if _WHOLE_NUMBER in fault} - {""}
        misplaced = {path for place in places for path in _misplaced_reals(candidate, place, check)}
        for path, real in candidate.reals.items():
            message = f"{join_path(*path)}: {_repair(real)}"
            if path in misplaced:
                refused[message] = id(real)
            else:  # next to other values, such as another class, it is good
                accepted.add(message)
    # A marker that is repeated is named once.
    once = {marker: message for message, marker in reversed(refused.items()) if message not in accepted}
    if once:
        raise Faults(reversed(once.values())).error()
    if not has_good:
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise ConfigError(f"no candidate of this space can be trained:\n{listed}")
    return list(faults)


def faults_of(config: Any, check: Check) -> list[str]:
    """Return the faults of a config, by a function that raises them."""
    try:
        check(config)
    except ConfigError as error:
        return [str(each) for each in each_error(error)]
    return []


def changed_faults(config: Any, changed: Any, check: Check) -> list[str]:
    """Return the faults of a changed config that it did not have before."""
    before = set(faults_of(config, check))
    return [each for each in faults_of(changed, check) if each not in before]


def _misplaced_reals(candidate: CoveringConfig, place: str, check: Check) -> list[Path]:
    """Return the path of each real number at or below a place that must be a whole one.

    That is so if the place has no fault with whole numbers instead, and has it again with this number alone.
    """
    below = [path for path in candidate.reals if f"{join_path(*path)}.".startswith(f"{place}.")]

    def is_faulty(values: Mapping[Path, Any]) -> bool:
        config = copy.deepcopy(candidate.config)
        for path, value in values.items():
            _replace(config, path, value)
        return any(place_of(fault) == place for fault in faults_of(config, check))

    for rounded in (math.floor, math.ceil):
        whole = {path: rounded(_number_within(candidate.reals[path], rounded)) for path in below}
        if below and not is_faulty(whole):
            return [path for path in below if is_faulty({each: whole[each] for each in below if each != path})]
    return []


def _number_within(real: Any, rounded: Callable[[float], int]) -> float:
    """Return a number that the space draws, from which a whole one is near: for `floor` the highest."""
    if not is_marker(real):
        return float(real)
    ((low, high),) = real.values()
    return float(high if rounded is math.floor else low)


def _replace(config: Any, path: Path, value: Any) -> None:
    for key in path[:-1]:
        config = config[key]
    config[path[-1]] = value


def _repair(real: Any) -> str:
    """Return the message for a real number in the place of a whole one: its marker or value, rule and repair."""
    if not is_marker(real):
        near = " or ".join(map(str, sorted({math.floor(real), math.ceil(real)})))
        return f"{show(real)} must be an integer; write {near}."
    ((low, high),) = real.values()
    first, last = math.ceil(low), max(math.ceil(low), math.floor(high))
    return f'{show(real)} must be an integer; write $range or $logrange, e.g. {{"$range": [{first}, {last + 1}]}}.'
