"""Choices that lead to given values, for candidates that a user or another study knows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from config.faults import join_path, show, unknown_name
from config.markers import is_marker
from search.space.outcomes import Definitions, outcomes_of
from search.space.scales import scale_of
from search.space.walk import Fraction, Identity, Site
from utils.errors import ConfigError


class _Disagreement(Exception):
    """Two values that are wanted at the same place."""


@dataclass(frozen=True)
class _Choices:
    """The choices made so far.

    Attributes:
        numbers: The choice at each site.
        variables: The value that is wanted of each variable.
    """

    numbers: Mapping[Identity, int | float] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Wish:
    """A part of a space with the value that is wanted there.

    Attributes:
        part: A value with markers.
        wanted: An object with some of its keys, a list or an object of some of its indices, or a plain value.
        place: Its JSON path, for messages.
        site: Its place in the space, which is another one in a variable; without the marker.
    """

    part: Any
    wanted: Any
    place: str
    site: Site

    def item(self, key: object, part: Any, wanted: Any) -> "_Wish":
        """Return the wish for an item of the value."""
        site = Site(join_path(self.site.path, key), "", self.site.conditions, {})
        return _Wish(part, wanted, join_path(self.place, key), site)


@dataclass
class KnownValues:
    """Finds choices whose config has given values.

    The values are looked for branch by branch. If a variable occurs at several places, other branches are tried until
    its values agree.

    Attributes:
        definitions: The values of `$defs`.
        fraction: Gives for each site the choice that is tried first, see `Space.at`.
        failures: Of each wish that was not fulfilled its place, its value, and the marker or value of the space there;
            instead of the latter the keys, in a tuple, if the place is none of the space.
    """

    definitions: Definitions
    fraction: Fraction
    failures: list[tuple[str, Any, Any]] = field(default_factory=list)

    def find(self, template: Mapping[str, Any], overrides: Mapping[str, Any], prefix: str = "") -> dict[Identity, Any]:
        """Return the choice at each site on which the values depend.

        Args:
            template: The space.
            overrides: Values by path, or objects of them.
            prefix: JSON path of the overrides, for messages.

        Raises:
            ConfigError: No candidate has these values; the message names the deepest place that does not fit.
        """
        wanted: Any = {}
        for path, value in overrides.items():
            for key in reversed(path.split(".")):
                value = {key: value}  # noqa: PLW2901 - from the inside out
            try:
                wanted = _joint(wanted, value, "")
            except _Disagreement as error:
                raise ConfigError(
                    f"{join_path(prefix, *error.args)}: given twice, with two values. Give one."
                ) from None
        root = Site("", "", (), {})
        variables = wanted.pop("$defs", {})
        wishes = [
            _Wish({"$var": name}, value, join_path("$defs", name), root)
            for name, value in (variables.items() if isinstance(variables, Mapping) else ())
            if name in self.definitions or self._fail(join_path("$defs", name), value, tuple(self.definitions))
        ]
        found = (
            None if self.failures else next(self._all([*wishes, _Wish(template, wanted, "", root)], _Choices()), None)
        )
        if found is None:
            raise ConfigError(self._message(prefix))
        return dict(found.numbers)

    def _fail(self, place: str, wanted: Any, offer: Any) -> bool:
        self.failures.append((place, wanted, offer))
        return False

    def _message(self, prefix: str) -> str:
        """Return the deepest failure as value, rule and repair."""
        place, wanted, _ = max(self.failures, key=lambda failure: failure[0].count("."))
        offers = [offer for other, _, offer in self.failures if other == place]
        keys = {key for offer in offers if isinstance(offer, tuple) for key in offer}
        here = f"{join_path(prefix, place)}: "
        if len(keys) > 0 and all(isinstance(offer, tuple) for offer in offers):
            return f"{here}{unknown_name('key', place.rpartition('.')[2], keys)} Give values of the space only."
        texts = sorted({show(offer) for offer in offers if not isinstance(offer, tuple)})
        there = " or ".join(texts) if texts else "nothing"
        return (
            f"{here}{show(wanted)} cannot be drawn: the space has {there} there. Give a value of it, or leave it out."
        )

    def _all(self, wishes: Sequence[_Wish], choices: _Choices) -> Iterator[_Choices]:
        """Yield the ways to fulfil all wishes."""
        if not wishes:
            yield choices
            return
        levels = [(choices, self._ways(wishes[0], choices))]
        while levels:
            now = next(levels[-1][1], None)
            if now is None:
                failed = levels.pop()[0]
                # Another way to fulfil an earlier wish is of use only if that one set a variable.
                while levels and levels[-1][0].variables == failed.variables:
                    failed = levels.pop()[0]
            elif len(levels) == len(wishes):
                yield now
            else:
                levels.append((now, self._ways(wishes[len(levels)], now)))

    def _ways(self, wish: _Wish, choices: _Choices) -> Iterator[_Choices]:
        """Yield the ways to fulfil a wish."""
        if not is_marker(wish.part):
            wishes = self._wishes_of_items(wish)
            if wishes is not None:
                yield from self._all(wishes, choices)
            return
        ((kind, content),) = wish.part.items()
        if kind == "$var":
            try:
                wanted = (
                    _joint(choices.variables[content], wish.wanted, "") if content in choices.variables else wish.wanted
                )
            except _Disagreement:
                self._fail(wish.place, wish.wanted, choices.variables[content])
                return
            site = Site(join_path("$defs", content), "", (), {})
            known = replace(choices, variables={**choices.variables, content: wanted})
            yield from self._ways(_Wish(self.definitions[content], wanted, wish.place, site), known)
        elif kind == "$repeat":
            yield from self._ways_of_repeat(wish, choices)
        elif kind == "$choice":
            yield from self._ways_of_choice(wish, choices)
        else:
            number = scale_of(wish.part).read(wish.wanted)
            if number is not None:
                yield replace(choices, numbers={**choices.numbers, wish.site.identity: number})
            else:
                self._fail(wish.place, wish.wanted, wish.part)

    def _wishes_of_items(self, wish: _Wish) -> list[_Wish] | None:
        """Return the wishes for the items of a value without marker; None if it is not the wanted one."""
        part, wanted = wish.part, wish.wanted
        if isinstance(part, Mapping) and isinstance(wanted, str) and "type" in part:
            wanted = {"type": wanted}  # the short form of a class
        elif isinstance(part, str) and isinstance(wanted, Mapping) and wanted.keys() == {"type"}:
            wanted = wanted["type"]
        if isinstance(part, list) and isinstance(wanted, list) and len(part) == len(wanted):
            return [wish.item(key, *pair) for key, pair in enumerate(zip(part, wanted, strict=True))]
        if isinstance(wanted, Mapping) and isinstance(part, Mapping | list):
            items = part if isinstance(part, Mapping) else {str(key): item for key, item in enumerate(part)}
            unknown = [key for key in wanted if key not in items]
            for key in unknown:
                self._fail(join_path(wish.place, key), wanted[key], tuple(items))
            # The class first: arguments of another class say little.
            keys = sorted(wanted, key=lambda key: key != "type")
            return None if unknown else [wish.item(key, items[key], wanted[key]) for key in keys]
        is_same = isinstance(part, bool) == isinstance(wanted, bool) and part == wanted
        if is_same and not isinstance(part, Mapping | list):
            return []
        self._fail(wish.place, wish.wanted, part)
        return None

    def _ways_of_choice(self, wish: _Wish, choices: _Choices) -> Iterator[_Choices]:
        """Yield the ways to fulfil a wish by each branch, that of the fraction first."""
        branches, site = wish.part["$choice"], wish.site
        first = int(scale_of(wish.part).at(self.fraction(site.path, site.branch, wish.part)))
        found, num_failures = False, len(self.failures)
        for place in (first, *(place for place in range(len(branches)) if place != first)):
            inner = Site(site.path, f"{site.branch}/{place}", (*site.conditions, (site.path, place)), {})
            chosen = replace(choices, numbers={**choices.numbers, site.identity: place})
            for now in self._ways(_Wish(branches[place], wish.wanted, wish.place, inner), chosen):
                found = True
                del self.failures[num_failures:]  # of other branches
                yield now
        if not found:
            self._fail(wish.place, wish.wanted, wish.part)

    def _ways_of_repeat(self, wish: _Wish, choices: _Choices) -> Iterator[_Choices]:
        """Yield the ways to fulfil a wish by a list of each length."""
        repeat, wanted = wish.part["$repeat"], wish.wanted
        known = sorted({times for times, _ in outcomes_of(repeat["times"], self.definitions)})
        if isinstance(wanted, list):
            lengths = [len(wanted)]
            items = dict(enumerate(wanted))
        elif isinstance(wanted, Mapping) and all(key == "times" or key.isdecimal() for key in wanted):
            items = {int(key): item for key, item in wanted.items() if key != "times"}
            least = max(items, default=-1) + 1
            lengths = [wanted["times"]] if "times" in wanted else [times for times in known if times >= least]
            first = int(self.fraction(join_path(wish.site.path, "times"), "", wish.part) * len(lengths))
            lengths = lengths[first:] + lengths[:first]
        else:
            lengths, items = [], {}
        found = False
        for length in lengths:
            times = [wish.item("times", repeat["times"], length)]
            for now in self._all(times + [wish.item(key, repeat["of"], item) for key, item in items.items()], choices):
                found = True
                yield now
        if not found:
            self._fail(wish.place, wish.wanted, wish.part)


def _joint(one: Any, other: Any, path: str) -> Any:
    """Return a value that has all of two values.

    Raises:
        _Disagreement: They differ at a path.
    """
    if isinstance(one, Mapping) != isinstance(other, Mapping):  # the short form of a class next to its arguments
        one, other = ({"type": each} if isinstance(each, str) else each for each in (one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        common = {key: _joint(one[key], other[key], join_path(path, key)) for key in one if key in other}
        return {**one, **other, **common}
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [_joint(*pair, join_path(path, key)) for key, pair in enumerate(zip(one, other, strict=True))]
    if isinstance(one, bool) != isinstance(other, bool) or one != other:
        raise _Disagreement(path)
    return other
