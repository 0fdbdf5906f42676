"""How many different candidates a space holds."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial, reduce
from typing import Any

from config.markers import holds_marker, is_marker
from search.space.markers import plain_json
from search.space.outcomes import Outcomes, parts

Normal = Callable[[Any], str]  # the text that a config shares with all that train the same
Place = Callable[[Any], Any]  # puts an outcome of a part into the config of a candidate
Counts = dict[frozenset[str], int]  # variables -> outcomes that there are for each of their values
_MOST_COMPARED = 4096  # outcomes that are compared with each other
_WRITTEN_OUT = 10**12
_ONE: Counts = {frozenset(): 1}


@dataclass(frozen=True)
class Extent:
    """The size of a space.

    Attributes:
        outcomes: Different candidates, continuous values apart.
        continuous: Continuous values that a candidate has at most.
    """

    outcomes: int
    continuous: int

    @property
    def count(self) -> float:
        """Different candidates; infinite with continuous values."""
        return math.inf if self.continuous else self.outcomes

    def __str__(self) -> str:
        if not self.continuous:
            return f"{_in_words(self.outcomes)} different candidates"
        values = "a continuous value" if self.continuous == 1 else f"{self.continuous} continuous values"
        return f"{_in_words(self.outcomes)} outcomes times {values}"


def extent_of(space: Any, definitions: Mapping[str, Any], normal: Normal) -> Extent:
    """Measure what may be drawn.

    All candidates of a small space are compared with each other. In a large one this is done for each object or list
    of few outcomes, such as a layer of op and dilation, and the numbers are multiplied; a `$var` counts once.

    Args:
        space: A value with markers.
        definitions: What `$var` refers to.
        normal: The text that a config shares with all that train the same.
    """
    counter = _Counter(space, definitions, normal)
    return Extent(counter.total(), counter.continuous())


class _Counter:
    def __init__(self, space: Any, definitions: Mapping[str, Any], normal: Normal) -> None:
        self.space = space
        self.definitions = definitions
        self.normal = normal
        self.outcomes = Outcomes(definitions)

    def total(self) -> int:
        """Outcomes of the whole space."""
        total = sum(
            _Counter(self.space, {**self.definitions, **known}, self.normal).product()
            for _, known in self.outcomes.of([{"$var": name} for name in sorted(self._bearing_on_lengths())], {})
        )
        listed = [config for config, _ in itertools.islice(self.outcomes.of(self.space, {}), _MOST_COMPARED + 1)]
        return total if len(listed) > _MOST_COMPARED else len(set(map(self.normal, listed)))

    def _bearing_on_lengths(self) -> set[str]:
        """The variables that lengths of lists depend on: there, numbers are counted for each of their values."""
        values = [self.space, *(self.definitions[name] for name in self.names(self.space))]
        return set().union(*(self.names(times) for value in values for times in _all_times(value)))

    def names(self, value: Any) -> set[str]:
        """The variables with markers that a value depends on, also by way of others."""
        found: set[str] = set()
        waiting = _variables(value)
        while waiting:
            found |= waiting
            waiting = set().union(*(_variables(self.definitions[name]) for name in waiting)) - found
        return {name for name in found if holds_marker(self.definitions[name])}

    def product(self) -> int:
        """Outcomes of the space where no length depends on a variable; each variable counts once."""
        counts = self._counts(self.space, lambda config: config)
        while names := sorted(set().union(*counts)):
            # One that no other depends on comes first: what it brings in may be used elsewhere, too.
            outer = next(each for each in names if not any(each in self._beneath(other) for other in names))
            own = self._counts(self.definitions[outer], partial(self._with_variable, outer))
            using = {rest - {outer}: number for rest, number in counts.items() if outer in rest}
            counts = _plus({rest: number for rest, number in counts.items() if outer not in rest}, _times(using, own))
        return sum(counts.values())

    def _beneath(self, name: str) -> set[str]:
        return self.names(self.definitions[name])

    def _with_variable(self, name: str, outcome: Any) -> Any:
        return self.outcomes.first(self.space, {name: outcome})

    def _counts(self, value: Any, place: Place) -> Counts:
        """The outcomes of a part of the space, what is outside of it being fixed."""
        if not holds_marker(value):
            return _ONE
        if _is_compound(value) and not self.names(value) and self._at_most(value) <= _MOST_COMPARED:
            return {frozenset(): len({self.normal(place(outcome)) for outcome, _ in self.outcomes.of(value, {})})}
        if is_marker(value):
            return self._marker_counts(value, place)
        keys = list(value) if isinstance(value, Mapping) else range(len(value))
        firsts = self.outcomes.first(value)

        def put(key: Any, outcome: Any) -> Any:
            changed = firsts.copy()
            changed[key] = outcome
            return place(changed)

        return reduce(
            _times, (self._counts(value[key], partial(put, key)) for key in keys if holds_marker(value[key])), _ONE
        )

    def _marker_counts(self, value: Mapping[str, Any], place: Place) -> Counts:
        ((marker, content),) = value.items()
        if marker == "$choice":
            plain = {plain_json(branch) for branch in content if not holds_marker(branch)}
            marked = {plain_json(branch): branch for branch in content if holds_marker(branch)}
            return reduce(_plus, (self._counts(each, place) for each in marked.values()), {frozenset(): len(plain)})
        if marker == "$repeat":
            item = self._counts(content["of"], lambda outcome: place([outcome]))
            return reduce(_plus, (_power(item, length) for length in self.outcomes.lengths(content["times"])), {})
        if marker == "$var" and holds_marker(self.definitions[content]):
            return {frozenset({content}): 1}
        return {frozenset(): len(range(*content)) if marker == "$range" else 1}

    def _at_most(self, value: Any) -> int:
        """Outcomes of a part without variables, equal ones counted as often as they come."""
        if not is_marker(value):
            return math.prod(map(self._at_most, parts(value)))
        ((marker, content),) = value.items()
        if marker == "$choice":
            return sum(map(self._at_most, content))
        if marker == "$repeat":
            return sum(self._at_most(content["of"]) ** length for length in self.outcomes.lengths(content["times"]))
        return len(range(*content)) if marker == "$range" else 1

    def continuous(self) -> int:
        """Continuous values that a candidate has at most; those of a variable count once."""
        return sum(map(self._continuous, (self.space, *map(self.definitions.__getitem__, self.names(self.space)))))

    def _continuous(self, value: Any) -> int:
        if not is_marker(value):
            return sum(map(self._continuous, parts(value)))
        ((marker, content),) = value.items()
        if marker == "$choice":
            return max(map(self._continuous, content))
        if marker == "$repeat":
            return self._continuous(content["of"]) * self.outcomes.lengths(content["times"])[-1]
        return int(marker in ("$uniform", "$loguniform"))


def _is_compound(value: Any) -> bool:
    """Whether outcomes have parts, some of which may make others meaningless."""
    if not is_marker(value):
        return isinstance(value, Mapping | list)
    ((marker, content),) = value.items()
    return marker == "$repeat" or (marker == "$choice" and any(map(_is_compound, content)))


def _variables(value: Any) -> set[str]:
    """The variables that stand in a value itself."""
    if is_marker(value) and "$var" in value:
        return {value["$var"]}
    return set().union(*map(_variables, parts(value)))


def _all_times(value: Any) -> list[Any]:
    """The `times` of every `$repeat` in a value."""
    own = [value["$repeat"]["times"]] if is_marker(value) and "$repeat" in value else []
    return own + [times for item in parts(value) for times in _all_times(item)]


def _plus(left: Counts, right: Counts) -> Counts:
    return {names: left.get(names, 0) + right.get(names, 0) for names in {**left, **right}}


def _times(left: Counts, right: Counts) -> Counts:
    product: Counts = {}
    for (ours, count), (theirs, number) in itertools.product(left.items(), right.items()):
        product[ours | theirs] = product.get(ours | theirs, 0) + count * number
    return product


def _power(counts: Counts, exponent: int) -> Counts:
    return reduce(_times, [counts] * exponent, _ONE)


def _in_words(number: int) -> str:
    """`1,000`; a very large one short, and as a power where it is one: `22^11 = 5.84e+14`."""
    if number < _WRITTEN_OUT:
        return f"{number:,}"
    short = f"{Decimal(number):.2e}"
    for exponent in range(number.bit_length(), 1, -1):
        root = round(math.exp(math.log(number) / exponent))
        if root**exponent == number:
            return f"{root}^{exponent} = {short}"
    return short
