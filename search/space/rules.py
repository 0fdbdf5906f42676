"""The rules for markers: whether each can be drawn from."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from config.faults import Faults, join_path, show, unknown_name
from config.loading.limits import MAX_DEPTH, ValueCount
from config.markers import MARKERS, is_marker, unknown_markers
from search.space.outcomes import holds_marker, outcomes_of

SHARED_BY_ALL_CANDIDATES = ("name", "seed", "search", "trainer.epochs", "trainer.monitor", "trainer.save_dir")
_LARGEST = 1e300  # so that the width of an interval is a number, too
_MOST_TIMES = 10_000  # far more than a network has layers
_MOST_VALUES = 50_000  # of a space, all branches and repetitions together
_LARGEST_INT = 2**53  # up to which every program reads the same number from JSON


def _is_int(value: Any) -> bool:
    return type(value) is int and abs(value) <= _LARGEST_INT


def _is_times(value: Any) -> bool:
    return _is_int(value) and 0 <= value <= _MOST_TIMES


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST  # neither infinite nor NaN


_ASCENDS: tuple[Callable[[Any], bool], str] = (
    lambda content: content[0] < content[1],
    "has low not below high. Exchange them, or write the value itself.",
)
_HAS_LOGARITHM: tuple[Callable[[Any], bool], str] = (
    lambda content: content[0] > 0,
    "begins at or below 0, which has no logarithm. Begin above 0.",
)
_INTERVAL: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (
        lambda content: isinstance(content, list) and len(content) == 2 and all(map(_is_number, content)),
        "must be [low, high] of two numbers. Write for example [0.0, 0.5].",
    ),
    _ASCENDS,
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
    "$loguniform": (*_INTERVAL, _HAS_LOGARITHM),
    "$logrange": (
        (
            lambda content: isinstance(content, list) and len(content) == 2 and all(map(_is_int, content)),
            "must be [low, high] of two whole numbers. Write for example [8, 64], or $loguniform for real ones.",
        ),
        _ASCENDS,
        _HAS_LOGARITHM,
    ),
    "$repeat": (
        (
            lambda content: isinstance(content, Mapping) and content.keys() == {"of", "times"},
            'must be {"of": VALUE, "times": NUMBER}. Write these two keys.',
        ),
        (
            lambda content: is_marker(content["times"]) or _is_times(content["times"]),
            f"has times that is not a number of times. Write a whole number from 0 to {_MOST_TIMES}, or a marker.",
        ),
    ),
    "$var": ((lambda content: isinstance(content, str), "must be the name of a definition. Write a key of $defs."),),
}


def _largest_times(times: Any, definitions: Mapping[str, Any], open_names: tuple[str, ...] = ()) -> int:
    """Return the largest number that `times` can be, at least 0; a value that is never a number counts as 0."""
    if not is_marker(times):
        return max(times, 0) if type(times) is int else 0
    if len(open_names) > MAX_DEPTH:
        return 0
    content = next(iter(times.values()))
    if "$choice" in times and isinstance(content, list):
        return max((_largest_times(each, definitions, open_names) for each in content), default=0)
    if "$var" in times and isinstance(content, str) and content in definitions and content not in open_names:
        return _largest_times(definitions[content], definitions, (*open_names, content))
    if isinstance(content, list) and content and all(map(_is_int, content)):
        numbers: list[int] = content[:2]
        return max(0, *numbers)
    return 0


def check_markers(config: Mapping[str, Any]) -> None:
    """Raise if a marker cannot be drawn from.

    Raises:
        ConfigError: Lists all such markers with their JSON paths.
    """
    faults, definitions = Faults(), config.get("$defs", {})

    def most_repeated(times: Any) -> int:
        most = _largest_times(times, definitions)
        return most if most <= _MOST_TIMES else 0  # refused as a number of times, see `_check_value`

    count = ValueCount(definitions, "$var", most_repeated, limit=_MOST_VALUES)
    count.require_few({key: value for key, value in config.items() if key != "$defs"}, "the space")
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
        outcomes = outcomes_of(times, definitions) if len(faults) == num_faults else iter(())
        for outcome, _ in itertools.islice(outcomes, _MOST_TIMES + 2):
            if not _is_times(outcome):
                rule = f"is not a number of times. Use whole numbers from 0 to {_MOST_TIMES}."
                faults.add(times_path, f"{show(outcome)} {rule}")
                break  # a range may have any number of them
        if len(faults) == num_faults and (most := _largest_times(times, definitions)) > _MOST_TIMES + 1:
            faults.add(times_path, f"{show(most)} is not a number of times. Use whole numbers from 0 to {_MOST_TIMES}.")
    elif marker == "$var" and content not in definitions:
        faults.add(place, unknown_name("definition", content, definitions))
    elif marker == "$var" and content in open_names:
        chain = " -> ".join((*open_names, content))
        faults.add(place, f"{show(content)} contains itself ({chain}). Break the circle.")
    elif marker == "$var":
        _check_value(definitions[content], f"$defs.{content}", definitions, (*open_names, content), faults)
