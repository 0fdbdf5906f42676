"""A few candidates that between them have every branch of every choice, to find what is wrong before training."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from config.markers import holds_marker, is_marker
from search.outcomes import Outcomes, parts
from utils.errors import ConfigError

_MOST_TRIED = 500


def covering(space: Any, definitions: Mapping[str, Any]) -> Iterator[Any]:
    """Candidates in which every branch occurs, and both ends of every range and interval.

    Args:
        space: A value with markers.
        definitions: What `$var` refers to.

    Yields:
        As many as the value with the most alternatives needs; the alternatives of others are gone through beside it.
    """
    cover = _Cover(definitions)
    for turn in range(min(cover.turns(space), _MOST_TRIED)):
        yield cover.pick(space, turn)


def find_faults(candidates: Iterator[Any], check: Callable[[Any], None]) -> list[str]:
    """What is wrong with some of the candidates, each fault once.

    Args:
        candidates: To be checked.
        check: Raises a `ConfigError`.

    Raises:
        ConfigError: Not one of them is good.
    """
    faults: dict[str, None] = {}
    has_good = False
    for candidate in candidates:
        try:
            check(candidate)
            has_good = True
        except ConfigError as error:
            faults |= dict.fromkeys(_single(str(error)))
    if not has_good:
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise ConfigError(f"no candidate of this space can be trained:\n{listed}")
    return list(faults)


def _single(message: str) -> list[str]:
    """The faults that a message lists below its head; the message itself where it lists none."""
    lines = [line.strip() for line in message.splitlines()]
    return lines[1:] if len(lines) > 1 else lines


class _Cover:
    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self.definitions = definitions
        self.outcomes = Outcomes(definitions)

    def turns(self, value: Any) -> int:
        """How many candidates it takes to see all of a value."""
        if not is_marker(value):
            return max(map(self.turns, parts(value)), default=1)
        ((marker, content),) = value.items()
        if marker == "$choice":
            return sum(map(self.turns, content))
        if marker == "$repeat":
            return max(self.turns(content["of"]), len(self.outcomes.lengths(content["times"])))
        return self.turns(self.definitions[content]) if marker == "$var" else 2

    def pick(self, value: Any, turn: int) -> Any:
        """What a value is in one of the candidates."""
        if not holds_marker(value):
            return value
        if is_marker(value):
            return self._pick_of_marker(value, turn)
        if isinstance(value, Mapping):
            return {key: self.pick(item, turn) for key, item in value.items()}
        return [self.pick(item, turn) for item in value]

    def _pick_of_marker(self, value: Mapping[str, Any], turn: int) -> Any:
        ((marker, content),) = value.items()
        if marker == "$choice":
            place = turn % self.turns(value)
            for branch in content:
                if place < self.turns(branch):
                    return self.pick(branch, place)
                place -= self.turns(branch)
        if marker == "$repeat":
            return [self.pick(content["of"], turn + index) for index in range(self.pick(content["times"], turn))]
        if marker == "$var":
            return self.pick(self.definitions[content], turn)
        ends = range(*content) if marker == "$range" else content
        return ends[0] if turn % 2 == 0 else ends[-1]
