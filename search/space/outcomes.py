"""A few candidates that between them have every branch of every choice, to find what is wrong before training."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from config.markers import holds_marker, is_marker
from utils.errors import ConfigError

Variables = Mapping[str, Any]  # name -> value that it has in an outcome
_WITHIN = 0.381966  # where in an interval the number is that stands for all of them


def parts(value: Any) -> list[Any]:
    """What an object or a list holds; nothing of any other value."""
    return list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []


class Outcomes:
    """Lists outcomes.

    Args:
        definitions: What `$var` refers to.
    """

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self.definitions = definitions

    def first(self, value: Any, variables: Variables | None = None) -> Any:
        """The first outcome of a value."""
        return next(self.of(value, variables or {}))[0]

    def lengths(self, times: Any) -> list[int]:
        """How long a `$repeat` may be, each length once."""
        return sorted({length for length, _ in self.of(times, {})})

    def of(self, value: Any, variables: Variables) -> Iterator[tuple[Any, Variables]]:
        """Every outcome of a value; one number stands for an interval.

        Args:
            value: With markers.
            variables: Those that have a value already.

        Yields:
            The outcome, and the variables with those that it needed.
        """
        if not holds_marker(value):
            yield value, variables
        elif is_marker(value):
            yield from self._of_marker(value, variables)
        elif isinstance(value, Mapping):
            for values, now in self._jointly(list(value.values()), variables):
                yield dict(zip(value, values, strict=True)), now
        else:
            yield from self._jointly(value, variables)

    def _of_marker(self, value: Mapping[str, Any], variables: Variables) -> Iterator[tuple[Any, Variables]]:
        ((marker, content),) = value.items()
        if marker == "$choice":
            for branch in content:
                yield from self.of(branch, variables)
        elif marker == "$range":
            yield from ((number, variables) for number in range(*content))
        elif marker == "$repeat":
            for times, now in self.of(content["times"], variables):
                yield from self._jointly([content["of"]] * times, now)
        elif marker == "$var":
            yield from self._of_variable(content, variables)
        else:
            yield content[0] + _WITHIN * (content[1] - content[0]), variables

    def _of_variable(self, name: str, variables: Variables) -> Iterator[tuple[Any, Variables]]:
        if name in variables:
            yield variables[name], variables
            return
        for outcome, now in self.of(self.definitions[name], variables):
            yield outcome, {**now, name: outcome}

    def _jointly(self, items: list[Any], variables: Variables) -> Iterator[tuple[list[Any], Variables]]:
        place = next((index for index, item in enumerate(items) if holds_marker(item)), None)
        if place is None:
            yield list(items), variables
            return
        for outcome, now in self.of(items[place], variables):
            for rest, then in self._jointly(items[place + 1 :], now):
                yield [*items[:place], outcome, *rest], then


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
