"""Search markers: values of a configuration that a search draws. Here they are only recognised."""

from collections.abc import Iterator, Mapping
from typing import Any

from utils.errors import ConfigError

MARKERS = frozenset({"$choice", "$range", "$uniform", "$loguniform", "$logrange", "$repeat", "$var"})
_MAX_NAMED = 3


def is_marker(value: object) -> bool:
    """Whether `value` is drawn by a search, e.g. `{"$choice": [1, 2]}`."""
    return isinstance(value, Mapping) and not MARKERS.isdisjoint(value)


def find_markers(config: Any) -> list[str]:
    """Return the JSON paths of all search markers, in the order of the file; those inside a marker are part of it."""
    found: list[str] = []
    for path, item in _objects(config):
        if not MARKERS.isdisjoint(item) and not (found and path.startswith(f"{found[-1]}.")):
            found.append(path)
    return found


def unknown_markers(config: Any) -> list[tuple[str, str]]:
    """Return the (path, key) of all keys that begin as a marker does and are none, such as `$choise`."""
    keys = [(path, key) for path, item in _objects(config) for key in item if key.startswith("$")]
    return [
        (f"{path}.{key}" if path else key, key) for path, key in keys if key not in MARKERS and (path or key != "$defs")
    ]


def refuse_markers(config: Mapping[str, Any], command: str = "python -m search -c FILE") -> None:
    """Raise, with the command to use, if a command that trains one network is given a search space.

    Args:
        config: A configuration.
        command: The search of this configuration.

    Raises:
        ConfigError: The configuration holds markers.
    """
    paths = find_markers(config)
    if paths:
        more = f" and {len(paths) - _MAX_NAMED} more" if len(paths) > _MAX_NAMED else ""
        raise ConfigError(
            f"{', '.join(paths[:_MAX_NAMED])}{more}: search markers, and this command takes one value each. "
            f"Run: {command}"
        )


def _objects(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the path of every object with the object, an outer one before those in it.

    The definitions at the top are left out: they are used elsewhere or not at all.
    """
    if isinstance(value, Mapping):
        yield path, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        if path or key != "$defs":
            yield from _objects(item, f"{path}.{key}" if path else str(key))
