"""Every outcome that a value with markers has, one after the other."""

from collections.abc import Iterator, Mapping
from typing import Any

from config.markers import holds_marker, is_marker

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
