"""A faulty configuration without its faults, so that the rest of it can be checked as well.

A misspelt name is read as the one that its message suggests, and a value that contradicts another place as the value
there. Another value that is refused is removed, so that its default acts. A part that cannot be without it (a class
that does not exist, a missing section) gets a stand-in, of which nothing is built.
"""

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from config.checking.classes import validate
from config.checking.sections import LOADER_SECTIONS
from config.faults import join_path, suggestion_in
from config.markers import refuse_markers
from utils.errors import ConfigError, DataError, EspalierError, each_error
from utils.registry import Registry

Built = TypeVar("Built")

_ROUNDS = 50  # each takes out at least one value; faults within faults are few
_PATH = re.compile(r"[\w$-]+(?:\.[\w$-]+)*(?=[:, ])")
_DISAGREEMENT = re.compile(r", but (\S+) is .*\. Both must agree: say it once\.$", re.DOTALL)
_STAND_INS: Mapping[str, Any] = {
    "name": "check",
    "arch": "UNet",
    "optimizer": {"type": "SGD", "args": {"lr": 0.01}},
    "loss": "ce_loss",
    "metrics": "accuracy",
    "trainer": {"epochs": 1},
    **dict.fromkeys(LOADER_SECTIONS, "SegmentationDataLoader"),
}


@dataclass
class SoundPart:
    """The part of a configuration that passes `validate`.

    Attributes:
        config: A configuration without faults; None if nothing is left to go on with.
        faults: The messages of all faults.
        stand_ins: Paths (`arch`, `metrics.2`) of parts that are not the user's, and are not to be built.
    """

    config: dict[str, Any] | None
    faults: list[str] = field(default_factory=list)
    stand_ins: set[str] = field(default_factory=set)

    def is_own(self, path: str) -> bool:
        """Return whether the value at a path is the user's, not a stand-in."""
        return path not in self.stand_ins and path.partition(".")[0] not in self.stand_ins


def sound_part(config: Mapping[str, Any], registry: Registry) -> SoundPart:
    """Find all faults of a configuration, also those that only show once others are gone.

    Args:
        config: From `load_config`; it is not changed.
        registry: The classes that each section may name.
    """
    rest: dict[str, Any] = copy.deepcopy(dict(config))
    found = SoundPart(rest)
    try:
        refuse_markers(config)
    except ConfigError as error:  # another command reads it
        return SoundPart(None, [str(error)])
    removed: set[str] = set()
    for _ in range(_ROUNDS):
        try:
            validate(rest, registry)
        except ConfigError as error:
            messages = [str(part) for part in each_error(error)]
        else:
            return found
        places = {message: place_of(message) for message in messages}
        for message, place in places.items():
            is_consequence = place in removed or any(found.stand_ins & set(_ancestors(place)))
            if message not in found.faults and not is_consequence:
                found.faults.append(message)
        if not all(places.values()):  # it does not say where it is, such as a search space
            break
        renamed = [_rename(rest, place, suggestion_in(message)) for message, place in places.items()]
        for message, place in [] if any(renamed) else places.items():
            if _agree(rest, place, message):
                continue
            if place not in removed and _remove(rest, place):
                removed.add(place)
            else:
                found.stand_ins.add(_replace(rest, place))
    found.config = None
    return found


def place_of(message: str) -> str:
    """Return the JSON path that a message begins with; empty if it begins with none."""
    match = _PATH.match(message)
    return match.group() if match is not None and "." in match.group() + message[match.end()].replace(":", ".") else ""


def build_stepwise(
    build: Callable[[dict[str, Any]], Built], config: dict[str, Any]
) -> tuple[Built | None, list[EspalierError], dict[str, Any]]:
    """Build an object and return it with all errors of its arguments: a constructor raises the first one only.

    An argument that an error names is left out, and the object is built again.

    Args:
        build: From the configuration to the object; it may be called several times.
        config: A configuration that passes `validate`; it is not changed.

    Returns:
        The object, without the refused arguments, or None if it cannot be built; the errors; and the configuration
        without the refused arguments.
    """
    errors: list[EspalierError] = []
    while True:
        try:
            return build(config), errors, config
        except EspalierError as error:
            known = {str(each) for each in errors}
            errors += [each for each in each_error(error) if str(each) not in known]
            smaller = None if isinstance(error, DataError) else _without_cause(build, config, str(error))
        if smaller is None:
            return None, errors, config
        config = smaller


def _without_cause(
    build: Callable[[dict[str, Any]], Any], config: dict[str, Any], message: str
) -> dict[str, Any] | None:
    """Return a configuration without the argument that makes this message; None if none of them alone does."""
    specs = [path for path in _ancestors(place_of(message)) if isinstance(_at(config, f"{path}.args"), Mapping)]
    path = specs[-1] if specs else ""
    for name in _at(config, f"{path}.args") if path else ():
        if not re.search(rf"\b{re.escape(name)}\b", message.removeprefix(path)):
            continue
        smaller = copy.deepcopy(config)
        del _at(smaller, path)["args"][name]
        try:
            build(smaller)
        except EspalierError as error:
            if _reason(str(error)) == _reason(message) or re.search(
                rf"\b{re.escape(name)}\b", str(error).removeprefix(path)
            ):
                continue  # not its cause, or it must not be missing
        return smaller
    return None


def _reason(message: str) -> str:
    """Return a message without the arguments that it shows, of which one may have been left out."""
    return re.sub(r" refuses \{.*?: (?=\w+: )", ": ", message, count=1)


def _ancestors(path: str) -> Iterable[str]:
    parts = path.split(".")
    return (join_path(*parts[:count]) for count in range(1, len(parts) + 1))


def _at(value: Any, path: str) -> Any:
    """Return the value at a path; None if there is none."""
    for part in path.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping):
            value = value.get(part)
        else:
            return None
    return value


def _remove(config: dict[str, Any], path: str) -> bool:
    """Remove an optional value inside a section; return whether it was there and may be missing."""
    *parents, last = path.split(".")
    holder = _at(config, join_path(*parents)) if parents else config
    if not isinstance(holder, dict) or last not in holder or last == "type":
        return False
    if not parents and last in _STAND_INS:
        return False
    del holder[last]
    return True


def _rename(config: dict[str, Any], path: str, name: str | None) -> bool:
    """Read a misspelt class or key as the name that is suggested; return whether that was possible."""
    *parents, last = path.split(".")
    holder = _at(config, join_path(*parents)) if parents else config
    if name is None:
        return False
    if last == "type" and parents and (not isinstance(holder, Mapping) or "type" in holder):
        above = _at(config, join_path(*parents[:-1])) if parents[1:] else config
        key: Any = int(parents[-1]) if isinstance(above, list) else parents[-1]
        above[key] = {**holder, "type": name} if isinstance(holder, Mapping) else name
        return True
    if not isinstance(holder, dict) or last not in holder or name in holder:
        return False
    holder[name] = holder.pop(last)
    return True


def _agree(config: dict[str, Any], path: str, message: str) -> bool:
    """Take the value of the other place that a message names, if it is a disagreement; return whether it is."""
    other = _DISAGREEMENT.search(message)
    value = _at(config, other.group(1)) if other is not None else None
    holder, _, last = path.rpartition(".")
    if value is None:
        return False
    _at(config, holder)[last] = copy.deepcopy(value)
    return True


def _replace(config: dict[str, Any], path: str) -> str:
    """Put a stand-in at the section, or the item of a section that is a list, that holds a path; return its path."""
    section, *rest = path.split(".")
    stand_in = copy.deepcopy(_STAND_INS.get(section))
    value = config.get(section)
    if section in ("loss", "metrics") and isinstance(value, list) and rest and rest[0].isdecimal():
        value[int(rest[0])] = stand_in
        return join_path(section, rest[0])
    if section == "metrics":
        stand_in = []
    if stand_in is None:
        config.pop(section, None)
    elif section == "trainer" and isinstance(value, Mapping) and rest:  # its other options stay
        config[section] = {**value, **stand_in}
        return join_path(section, rest[0])
    else:
        config[section] = stand_in
    return section
