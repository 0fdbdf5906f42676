"""The outcomes of a space, and how many there are."""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from config.markers import is_marker
from search.space.scales import scale_of

Definitions = Mapping[str, Any]  # name of a variable -> its value with markers
Normal = Callable[[Any], str]  # the text that a config shares with all configs that train the same
_MOST_COMPARED = 4096  # outcomes that are compared with each other
_MOST_VALUES = 4_000_000  # in all of them
_WRITTEN_OUT = 10**12  # counts from here on are printed as a power


def plain_json(value: Any) -> str:
    """Return JSON text that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def holds_marker(value: object) -> bool:
    """Whether a value is a marker or holds one, at any depth."""
    if isinstance(value, Mapping):
        return is_marker(value) or any(map(holds_marker, value.values()))
    return isinstance(value, list) and any(map(holds_marker, value))


def outcomes_of(
    value: Any, definitions: Definitions, variables: Definitions | None = None
) -> Iterator[tuple[Any, Definitions]]:
    """Yield every outcome of a value; an interval has one.

    Args:
        value: A value with markers.
        definitions: The values of `$defs`.
        variables: Outcomes of variables that are already fixed.

    Yields:
        The outcome, and the variables that are fixed in it.
    """
    fixed = variables or {}
    if not holds_marker(value):
        yield value, fixed
    elif not is_marker(value):
        for joint, now in _joint_outcomes(
            list(value.values()) if isinstance(value, Mapping) else value, definitions, fixed
        ):
            yield dict(zip(value, joint, strict=True)) if isinstance(value, Mapping) else joint, now
    elif "$choice" in value:
        for branch in value["$choice"]:
            yield from outcomes_of(branch, definitions, fixed)
    elif "$repeat" in value:
        repeat = value["$repeat"]
        for times, now in outcomes_of(repeat["times"], definitions, fixed):
            yield from outcomes_of([repeat["of"]] * times, definitions, now)
    elif "$var" in value:
        name = value["$var"]
        known = [(fixed[name], fixed)] if name in fixed else outcomes_of(definitions[name], definitions, fixed)
        for outcome, now in known:
            yield outcome, {**now, name: outcome}
    else:
        yield from ((number, fixed) for number in scale_of(value).outcomes)


def _joint_outcomes(
    items: list[Any], definitions: Definitions, fixed: Definitions
) -> Iterator[tuple[list[Any], Definitions]]:
    """Yield every outcome of a list, of which some item holds a marker; the last of these items changes first.

    A loop and no recursion, since a list may be longer than calls can be nested.
    """
    joint = list(items)
    places = [index for index, item in enumerate(items) if holds_marker(item)]
    opened = [outcomes_of(items[places[0]], definitions, fixed)]  # of the places so far, which may share variables
    while opened:
        outcome, now = next(opened[-1], (None, None))
        if now is None:
            opened.pop()
            continue
        joint[places[len(opened) - 1]] = outcome
        if len(opened) == len(places):
            yield list(joint), now
        else:
            opened.append(outcomes_of(items[places[len(opened)]], definitions, now))


@dataclass(frozen=True)
class Extent:
    """The size of a space.

    Attributes:
        outcomes: Different candidates if every continuous value had one outcome.
        continuous: The most continuous values that a candidate has.
        is_exact: Whether `outcomes` is the number; otherwise there are at least as many.
    """

    outcomes: int
    continuous: int
    is_exact: bool = True

    @property
    def count(self) -> float:
        """Number of different candidates; infinite with continuous values or if it is not known exactly."""
        return self.outcomes if self.is_exact and not self.continuous else math.inf

    def __str__(self) -> str:
        text = f"{self.outcomes:,}"
        if self.outcomes >= _WRITTEN_OUT:  # short, and as a power if it is one: `22^11 = 5.84e+14`
            text = f"{Decimal(self.outcomes):.2e}"
            for exponent in range(self.outcomes.bit_length(), 1, -1):
                root = round(math.exp(math.log(self.outcomes) / exponent))
                if root**exponent == self.outcomes:
                    text = f"{root}^{exponent} = {text}"
                    break
        text = text if self.is_exact else f"at least {text}"
        if not self.continuous:
            return f"{text} different candidates"
        values = "a continuous value" if self.continuous == 1 else f"{self.continuous} continuous values"
        return f"{text} outcomes times {values}"


def extent_of(space: Any, definitions: Definitions, normal: Normal) -> Extent:
    """Measure a space.

    All candidates of a small space are compared with each other. In a large one the outcomes of each small object or
    list are compared, such as a layer of operation and dilation, and the numbers are multiplied. There each `$var` has
    its first outcome, so that the result is a lower bound.

    Args:
        space: A value with markers.
        definitions: The values of `$defs`.
        normal: Returns the text that a config shares with all configs that train the same.
    """
    used = variables_of(space, definitions)
    continuous = sum(_count_continuous(value, definitions) for value in (space, *used.values()))
    listed = _few_outcomes(space, definitions)
    if listed is not None:
        return Extent(len(set(map(normal, listed))), continuous)
    fixed = {name: next(outcomes_of(value, definitions))[0] for name, value in used.items()}
    return Extent(_count(space, fixed, normal), continuous, is_exact=not any(map(holds_marker, used.values())))


def _few_outcomes(value: Any, definitions: Definitions, fixed: Definitions | None = None) -> list[Any] | None:
    """Return the outcomes of a value if they are so few and so small that all can be compared, else None."""
    outcomes = (outcome for outcome, _ in outcomes_of(value, definitions, fixed))
    first = next(outcomes)
    most = max(1, min(_MOST_COMPARED, _MOST_VALUES // _num_values(first)))
    listed = [first, *itertools.islice(outcomes, most)]
    return listed if len(listed) <= most else None


def _num_values(value: Any) -> int:
    return 1 + sum(map(_num_values, _items_of(value)))


def _count(value: Any, fixed: Definitions, normal: Normal, place: Callable[[Any], Any] = lambda value: value) -> int:
    """Count the outcomes of a part of a space; `place` completes an outcome of it to a whole config."""
    if not holds_marker(value):
        return 1
    if _is_compound(value):
        listed = _few_outcomes(value, {}, fixed)
        if listed is not None:
            return len({normal(place(outcome)) for outcome in listed})
    if not is_marker(value):
        # The outcomes of each item are counted with the first outcome of the others.
        firsts, _ = next(outcomes_of(value, {}, fixed))
        keys = list(value) if isinstance(value, Mapping) else range(len(value))
        return math.prod(
            _count(value[key], fixed, normal, partial(_replaced, firsts, key, place=place)) for key in keys
        )
    ((marker, content),) = value.items()
    if marker == "$choice":
        # Equal branches count once.
        plain = {plain_json(branch) for branch in content if not holds_marker(branch)}
        marked = {plain_json(branch): branch for branch in content if holds_marker(branch)}
        return len(plain) + sum(_count(branch, fixed, normal, place) for branch in marked.values())
    if marker == "$repeat":
        item = _count(content["of"], fixed, normal, lambda outcome: place([outcome]))
        return sum(item**times for times in {times for times, _ in outcomes_of(content["times"], {}, fixed)})
    return 1 if marker == "$var" else len(scale_of(value).outcomes)


def _replaced(firsts: Any, key: Any, outcome: Any, *, place: Callable[[Any], Any]) -> Any:
    changed = firsts.copy()
    changed[key] = outcome
    return place(changed)


def _is_compound(value: Any) -> bool:
    """Whether outcomes have parts, some of which may make others meaningless: those are compared."""
    if not is_marker(value):
        return isinstance(value, Mapping | list)
    return "$repeat" in value or any(map(_is_compound, value.get("$choice", ())))


def variables_of(value: Any, definitions: Definitions) -> dict[str, Any]:
    """Return the definitions on which a value depends, also indirectly."""
    if is_marker(value) and "$var" in value:
        name = value["$var"]
        return {name: definitions[name]} | variables_of(definitions[name], definitions)
    found: dict[str, Any] = {}
    for item in _items_of(value):
        found |= variables_of(item, definitions)
    return found


def _count_continuous(value: Any, definitions: Definitions) -> int:
    """Count the continuous values that a candidate has at most, those of variables excepted."""
    if not is_marker(value):
        return sum(_count_continuous(item, definitions) for item in _items_of(value))
    ((marker, content),) = value.items()
    if marker == "$choice":
        return max(_count_continuous(branch, definitions) for branch in content)
    if marker == "$repeat":
        longest: int = max(times for times, _ in outcomes_of(content["times"], definitions))
        return _count_continuous(content["of"], definitions) * longest
    return int(marker in ("$uniform", "$loguniform"))


def _items_of(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []
