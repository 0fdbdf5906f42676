"""From a file and the command line to one plain dict: `$extends`, `$defs`, older dialects, overrides."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config.dialects import Translator
from config.faults import show
from config.json_file import read_json
from config.merge import deep_merge, resolve_references
from config.overrides import apply_override, parse_override
from utils.errors import ConfigError

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
