"""How one configuration is laid over another, and how `$defs` come to where `$ref` names them."""

import copy
from collections.abc import Mapping
from typing import Any

from config.faults import join_path, show, unknown_name
from config.markers import is_marker
from config.sections import OptimizerExtras, SchedulerExtras
from utils.errors import ConfigError

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
