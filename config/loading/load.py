"""Changes from the command line: `optimizer.args.lr=0.01` for any path, and short flags for the common ones."""

import copy
import fnmatch
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from config.checking.sections import OptimizerExtras, SchedulerExtras
from config.faults import join_path, show, unknown_name
from config.loading.dialects import Translator
from config.loading.json_file import parse_json, read_json
from config.markers import is_marker
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


SPEC_KEYS = frozenset({"type", "args", "weight", *OptimizerExtras.model_fields, *SchedulerExtras.model_fields})


def deep_merge(parent: Any, child: Any) -> Any:
    """Lay `child` over `parent`: objects key by key, anything else (null and search markers too) replaces.

    Where the child names another `type`, the parent's `args` belong to another class and are left behind.
    """
    if isinstance(parent, str) and isinstance(child, Mapping) and child and "type" not in child:
        parent = {"type": parent} if SPEC_KEYS.issuperset(child) else parent
    both_objects = isinstance(parent, Mapping) and isinstance(child, Mapping)
    if not both_objects or is_marker(parent) or is_marker(child):
        return copy.deepcopy(child)
    other_class = "type" in child and "type" in parent and child["type"] != parent["type"]
    merged = {key: copy.deepcopy(value) for key, value in parent.items() if not (other_class and key == "args")}
    for key, value in child.items():
        merged[key] = deep_merge(merged[key], value) if key in merged else copy.deepcopy(value)
    return merged


def resolve_references(
    value: Any, definitions: Mapping[str, Any], path: str = "", open_names: tuple[str, ...] = ()
) -> Any:
    """Replace every `{"$ref": "name"}` by a copy of `definitions["name"]`; keys beside `$ref` are laid over it.

    Raises:
        ConfigError: The name is not defined, or a definition contains itself.
    """
    if isinstance(value, list):
        return [resolve_references(item, definitions, join_path(path, i), open_names) for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    beside = {
        key: resolve_references(item, definitions, join_path(path, key), open_names)
        for key, item in value.items()
        if key != "$ref"
    }
    if "$ref" not in value:
        return beside
    name = value["$ref"]
    if not isinstance(name, str) or name not in definitions:
        raise ConfigError(f"{join_path(path, '$ref')}: {unknown_name('definition', name, definitions)}")
    if name in open_names:
        chain = " -> ".join((*open_names, name))
        raise ConfigError(f"{join_path(path, '$ref')}: {show(name)} contains itself ({chain}). Break the circle.")
    target = resolve_references(definitions[name], definitions, path, (*open_names, name))
    return deep_merge(target, beside) if beside else copy.deepcopy(target)


logger = logging.getLogger(__name__)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a configuration as one plain dict with nothing left to look up.

    In this order: the files are read, old keys translated, `$extends` merged, `$ref` replaced, overrides applied.
    A configuration without a name gets that of its file. `$defs` stays only where a search's `$var` refers to it.

    Args:
        path: A JSON file.
        overrides: `a.b.c=VALUE`, VALUE being JSON or else a string.

    Raises:
        ConfigError: A file is missing or not strict JSON, a reference leads nowhere, an override cannot be applied.
    """
    parsed = [parse_override(text) for text in overrides]
    file = Path(path)
    translator = Translator()
    config = _read_merged(file, (), translator)
    config.pop("$schema", None)
    definitions = _definitions(config, file)
    config = resolve_references(config, definitions)
    translator.translate(config)
    for override in parsed:
        apply_override(config, override)
        translator.translate(config)
    translator.binarise_masks(config)
    warning = translator.warning(str(file))
    if warning:
        logger.warning(warning)
    config = {"name": file.stem} | {
        key: _without_empty_args(value) for key, value in config.items() if value is not None
    }
    if _holds_variable(config):
        config["$defs"] = resolve_references(definitions, definitions)
    return config


def _without_empty_args(section: Any) -> Any:
    """A section whose `args` a file has taken back with null, without them."""
    if isinstance(section, dict) and "args" in section and section["args"] is None:
        return {key: value for key, value in section.items() if key != "args"}
    return section


def _definitions(config: dict[str, Any], file: Path) -> dict[str, Any]:
    definitions = config.pop("$defs", None) or {}
    if not isinstance(definitions, dict):
        raise ConfigError(f"{file}: $defs: {show(definitions)} must be an object of name and value.")
    return definitions


def _read_merged(file: Path, chain: tuple[Path, ...], translator: Translator) -> dict[str, Any]:
    """A file laid over those that it extends."""
    place = file.resolve()
    if place in chain:
        circle = " -> ".join(str(link) for link in (*chain[chain.index(place) :], place))
        raise ConfigError(f"{file}: $extends goes in a circle ({circle}). Remove one of them.")
    own = read_json(file)
    parents = own.pop("$extends", [])
    if isinstance(parents, str):
        parents = [parents]
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise ConfigError(f"{file}: $extends: {show(parents)} must be a file name or a list of file names.")
    translator.translate_file(own, str(file))
    merged: dict[str, Any] = {}
    for parent in parents:
        merged = deep_merge(merged, _read_merged(file.parent / parent, (*chain, place), translator))
    return dict(deep_merge(merged, own))


def _holds_variable(value: Any) -> bool:
    if isinstance(value, dict):
        return "$var" in value or any(map(_holds_variable, value.values()))
    return isinstance(value, list) and any(map(_holds_variable, value))
