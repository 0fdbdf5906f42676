"""Changes from the command line: `optimizer.args.lr=0.01` for any path, and short flags for the common ones."""

import fnmatch
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from config.faults import join_path, show
from config.json_file import parse_json
from config.merge import SPEC_KEYS
from utils.errors import ConfigError


class ShortFlag(NamedTuple):
    """A command-line flag that stands for an override.

    Attributes:
        flag: As typed.
        path: The path it sets; `*` stands for every key that is there.
        metavar: What the help shows for the value.
        help: What the help says.
    """

    flag: str
    path: str
    metavar: str
    help: str


SHORT_FLAGS = (
    ShortFlag("--lr", "optimizer.args.lr", "RATE", "learning rate"),
    ShortFlag("--bs", "*_loader.args.batch_size", "N", "batch size of every loader"),
    ShortFlag("--epochs", "trainer.epochs", "N", "number of epochs"),
    ShortFlag("--seed", "seed", "N", "seed of the run"),
)


class Override(NamedTuple):
    """A parsed override: the parts of its path, and the value to put there."""

    parts: tuple[str, ...]
    value: Any


def parse_override(text: str) -> Override:
    """Parse `a.b.c=VALUE`; the value is JSON where it parses as such, else a string.

    Raises:
        ConfigError: No `=`, an empty part of the path, or a list, object or quoted string that does not parse.
    """
    path, equals, value = text.partition("=")
    parts = tuple(path.strip().split("."))
    if not equals or not all(parts):
        raise ConfigError(f"override {show(text)}: must be PATH=VALUE. Write for example optimizer.args.lr=0.01.")
    return Override(parts, _parse_value(value, text))


def apply_override(config: dict[str, Any], override: Override) -> None:
    """Set the value in `config`, in place; missing objects on the way are made, a `*` visits every key that fits.

    Raises:
        ConfigError: The path leads through a value that holds no keys, or to a list item that is not there.
    """
    _set(config, override.parts, override.value, "")


def _parse_value(value: str, text: str) -> Any:
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        if value.lstrip()[:1] in ("[", "{", '"'):
            raise ConfigError(f"override {show(text)}: the value is not JSON. Check its brackets and quotes.") from None
        return value
    return parse_json(value, f"override {show(text)}")


def _set(container: Any, parts: Sequence[str], value: Any, path: str) -> None:
    part, rest = parts[0], parts[1:]
    for key in _matching_keys(container, part, path):
        here = join_path(path, key)
        if not rest:
            container[key] = value
            continue
        inside = container.get(key) if isinstance(container, dict) else container[key]
        container[key] = _opened(inside, here, rest[0])
        _set(container[key], rest, value, here)


def _opened(value: Any, path: str, next_part: str) -> Any:
    """The value as something that holds keys: nothing becomes an object, a class named by a string its long form."""
    if value is None:
        return {}
    if isinstance(value, str) and next_part in SPEC_KEYS:
        return {"type": value}
    if isinstance(value, dict | list):
        return value
    raise ConfigError(
        f"override of {join_path(path, next_part)}: {path} is {show(value)}, which has no keys. Shorten the path."
    )


def _matching_keys(container: Any, part: str, path: str) -> list[Any]:
    if isinstance(container, list):
        return [_list_index(container, part, path)]
    if "*" not in part:
        return [part]
    keys = [key for key in container if fnmatch.fnmatchcase(key, part)]
    if not keys:
        raise ConfigError(
            f"override of {join_path(path, part)}: no key fits {show(part)}. There are: {', '.join(container)}."
        )
    return keys


def _list_index(items: list[Any], part: str, path: str) -> int:
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    rule = f"a number from 0 to {len(items) - 1}" if items else "given as a whole, for it is empty"
    raise ConfigError(f"override of {join_path(path, part)}: {path} is a list, so {show(part)} must be {rule}.")
