"""Search markers: values of a configuration that a search draws. Here they are only recognised."""

from collections.abc import Mapping
from typing import Any

from config.faults import join_path
from utils.errors import ConfigError

MARKERS = frozenset({"$choice", "$range", "$uniform", "$loguniform", "$repeat", "$var"})
_MAX_NAMED = 3


def is_marker(value: object) -> bool:
    """Whether `value` is drawn by a search, e.g. `{"$choice": [1, 2]}`."""
    return isinstance(value, Mapping) and not MARKERS.isdisjoint(value)


def holds_marker(value: object) -> bool:
    """Whether a value is a marker or holds one, at any depth."""
    if isinstance(value, Mapping):
        return is_marker(value) or any(map(holds_marker, value.values()))
    return isinstance(value, list) and any(map(holds_marker, value))


def find_markers(config: Any, path: str = "") -> list[str]:
    """Return the JSON paths of all search markers, in the order of the file; those inside a marker are part of it."""
    if is_marker(config):  # markers within its branches belong to it
        return [path]
    return [found for key, value in _items(config, path) for found in find_markers(value, join_path(path, key))]


def unknown_markers(config: Any, path: str = "") -> list[tuple[str, str]]:
    """Return the (path, key) of all keys that begin as a marker does and are none, such as `$choise`."""
    items = _items(config, path)
    found = [(join_path(path, key), key) for key, _ in items if key.startswith("$") and key not in MARKERS]
    return found + [inner for key, value in items for inner in unknown_markers(value, join_path(path, key))]


def refuse_markers(config: Mapping[str, Any], file: str = "FILE") -> None:
    """Raise, with the command to use, if a command that trains one network is given a search space.

    Raises:
        ConfigError: The configuration holds markers.
    """
    paths = find_markers(config)
    if paths:
        more = f" and {len(paths) - _MAX_NAMED} more" if len(paths) > _MAX_NAMED else ""
        raise ConfigError(
            f"{', '.join(paths[:_MAX_NAMED])}{more}: search markers, and this command takes one value each. "
            f"Run: python -m search -c {file}"
        )


def _items(value: Any, path: str) -> list[tuple[str, Any]]:
    """Return the content of a value by key; not the definitions at the top, which are used elsewhere or not at all."""
    if isinstance(value, Mapping):
        return [(key, item) for key, item in value.items() if path or key != "$defs"]
    return [(str(index), item) for index, item in enumerate(value)] if isinstance(value, list | tuple) else []
