"""How many different candidates a space holds."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from config.faults import join_path
from config.markers import is_marker
from search.draws import holds_marker, plain_json

Normal = Callable[[str, Any], str]
_MOST_TRIED = 256  # outcomes of one object that are compared with each other


def count_outcomes(space: Any, definitions: Mapping[str, Any], normal: Normal) -> float:
    """Count what may be drawn.

    Args:
        space: A value with markers.
        definitions: What `$var` refers to; each counts once.
        normal: The form that an outcome at a JSON path shares with all that mean the same.
    """
    used: set[str] = set()
    count = _count(space, "", normal, used)
    counted: set[str] = set()
    while used - counted:
        name = min(used - counted)
        counted.add(name)
        count *= _count(definitions[name], "", lambda _path, outcome: plain_json(outcome), used)
    return count


def _count(value: Any, path: str, normal: Normal, used: set[str]) -> float:
    if is_marker(value):
        ((marker, content),) = value.items()
        return _count_marker(marker, content, path, normal, used)
    if not holds_marker(value):
        return 1
    parts = [_count(item, join_path(path, key), normal, used) for key, item in _items(value)]
    product = math.prod(parts)
    several = sum(part > 1 for part in parts) > 1
    if not several or product > _MOST_TRIED:
        return product
    outcomes = list(itertools.islice(_outcomes(value), _MOST_TRIED + 1))
    return len({normal(path, outcome) for outcome in outcomes}) if len(outcomes) <= _MOST_TRIED else product


def _count_marker(marker: str, content: Any, path: str, normal: Normal, used: set[str]) -> float:
    if marker == "$choice":
        plain = {plain_json(branch) for branch in content if not holds_marker(branch)}
        branches = [branch for branch in content if holds_marker(branch)]
        return len(plain) + sum(_count(branch, path, normal, used) for branch in branches)
    if marker == "$range":
        return len(range(*content))
    if marker == "$repeat":
        of = _count(content["of"], join_path(path, 0), normal, used)
        times = content["times"]
        return sum(of**number for number in _times(times))
    if marker == "$var":
        used.add(content)
        return 1
    return math.inf


def _times(times: Any) -> Iterator[int]:
    return (number for number in dict.fromkeys(_outcomes(times)))


def _outcomes(value: Any) -> Iterator[Any]:
    """Every outcome of a value whose markers are finitely many; a `$var` stands for itself."""
    if is_marker(value):
        ((marker, content),) = value.items()
        if marker == "$choice":
            yield from itertools.chain.from_iterable(map(_outcomes, content))
        elif marker == "$range":
            yield from range(*content)
        elif marker == "$repeat":
            for times in _times(content["times"]):
                yield from map(list, itertools.product(*[list(_outcomes(content["of"]))] * times))
        else:
            yield value
    elif isinstance(value, Mapping):
        for values in itertools.product(*(list(_outcomes(item)) for item in value.values())):
            yield dict(zip(value, values, strict=True))
    elif isinstance(value, list):
        yield from map(list, itertools.product(*(list(_outcomes(item)) for item in value)))
    else:
        yield value


def _items(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
