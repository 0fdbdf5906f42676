"""The JSON Schema of a configuration (draft 2020-12), so that editors complete and check the files.

Wider than the validation: a file that extends another may leave anything out, and any value may be a `$ref` or a search
marker. So nothing is required here, and what a class cannot be made without is left to the validation.
"""

import inspect
import json
import re
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError

from config.checking.classes import Target, available_names, find_class
from config.checking.sections import (
    LOADER_SECTIONS,
    SCHEDULER_VALUES,
    SEARCH_CLASSES,
    SEARCH_PARTS,
    TRACKERS,
    OptimizerExtras,
    ParameterGroup,
    SchedulerExtras,
    SearchOptions,
    TopLevel,
    TrainerOptions,
    Visualization,
)
from config.checking.signatures import OBJECTS, Parameter, signature_of
from utils.errors import ConfigError
from utils.registry import Registry, Section

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
LINES_TO_DEPTH = 4
WRITTEN_WITH = ("torch", "albumentations")
_ARGUMENT = re.compile(r"^ {4,8}(\w+)(?: \([^)]*\))?: (.+)$")


def json_schema(registry: Registry) -> Schema:
    """The JSON Schema of a configuration; the same for the same registry and versions of the libraries."""
    properties = _properties(TopLevel) | {
        "$schema": {"type": "string", "description": "Where the editor finds this schema."},
        "$extends": {
            "type": ["string", "array"],
            "items": {"type": "string"},
            "description": "Files to lay this over.",
        },
        "$defs": {"type": "object", "description": 'Values to use as {"$ref": NAME}.'},
    }
    for section, key in _section_keys(registry).items():
        properties[section] = _described({"$ref": f"#/$defs/{key}"}, TopLevel.model_fields[section].description)
    for section in ("loss", "lr_scheduler"):
        properties[section] = _one_or_list(properties[section])
    properties["metrics"]["anyOf"][0]["items"] = {"$ref": "#/$defs/metrics"}
    properties["trainer"] = {"$ref": "#/$defs/trainer"}
    properties["visualization"] = _visualization_schema()
    properties["search"] = _search_schema(registry)
    specs = {key: _spec_schema(key, section) for key, section in sorted(registry.items()) if key != "trainer"}
    return {
        "$schema": DIALECT,
        "$comment": f"Written with {', '.join(f'{name} {_release(name)}' for name in WRITTEN_WITH)}.",
        "title": "Espalier configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": {**specs, "placeholder": _placeholder(), "trainer": _trainer_schema()},
    }


def schema_text(registry: Registry) -> str:
    """The schema as text, one class per line."""
    return f"{_text(json_schema(registry), LINES_TO_DEPTH)}\n"


def _text(value: Any, depth: int, indent: str = "") -> str:
    """JSON with a line per item down to a depth, and on one line below."""
    if not depth or not value or not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    inner = f"{indent}  "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_text(value[key], depth - 1, inner)}" for key in sorted(value)]
    else:
        items = [_text(item, depth - 1, inner) for item in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n{inner}{f',{chr(10)}{inner}'.join(items)}\n{indent}{last}"


def _section_keys(registry: Registry) -> dict[str, str]:
    sections = {key: key for key in ("arch", "optimizer", "loss", "lr_scheduler")}
    sections |= dict.fromkeys(LOADER_SECTIONS, "data_loader")
    return {section: key for section, key in sections.items() if key in registry}


def _release(package: str) -> str:
    """A version without the build it is of (`+cpu`)."""
    return version(package).split("+", maxsplit=1)[0]


def _placeholder() -> Schema:
    """A reference or a marker; an editor is told what each wants."""
    numbers = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    repeat = {"of": {"description": "What is drawn anew each time."}, "times": {"description": "How often."}}
    known: dict[str, Schema] = {
        "$ref": {"type": "string", "description": "A value of $defs, drawn anew where it holds markers."},
        "$var": {"type": "string", "description": "A value of $defs, drawn once for a candidate."},
        "$choice": {"type": "array", "minItems": 1, "description": "One of these."},
        "$range": {
            "type": "array",
            "items": {"type": "integer"},
            "minItems": 1,
            "maxItems": 3,
            "description": "A whole number of [start, stop, step], as Python's range.",
        },
        "$uniform": {**numbers, "description": "A number between these."},
        "$loguniform": {**numbers, "description": "A number between these, each order of magnitude as likely."},
        "$repeat": {
            "type": "object",
            "properties": repeat,
            "required": list(repeat),
            "additionalProperties": False,
            "description": "A list of draws.",
        },
    }
    return {
        "description": "A value said elsewhere, or drawn by a search.",
        "type": "object",
        "properties": known,
        "anyOf": [{"required": [name]} for name in sorted(known)],
    }


def _open(schema: Schema) -> Schema:
    """A schema whose place, and those of its parts, may hold a placeholder; an empty one takes anything as it is."""
    described: Schema = {key: schema.pop(key) for key in ("description", "default") if key in schema}
    if not schema:
        return described
    choices = schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]
    return {"anyOf": [*map(_open_parts, choices), {"$ref": "#/$defs/placeholder"}], **described}


def _open_parts(schema: Schema) -> Schema:
    """An array or object each of whose items may be a placeholder."""
    opened = dict(schema)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict) and "$ref" not in schema[key]:
            opened[key] = _open(dict(schema[key]))
    if "prefixItems" in schema:
        opened["prefixItems"] = [_open(dict(item)) for item in schema["prefixItems"]]
    return opened


def _described(schema: Schema, description: str | None) -> Schema:
    return {**schema, "description": description} if description else schema


def _one_or_list(item: Schema) -> Schema:
    description = item.pop("description", None)
    return _described({"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}, description)


def _properties(model: type[BaseModel]) -> dict[str, Schema]:
    """The fields of a section with fixed keys, each open to placeholders."""
    return {name: _open(field) for name, field in _fields(model).items()}


def _fields(model: type[BaseModel]) -> dict[str, Schema]:
    fields = model.model_json_schema()["properties"]
    return {name: {key: value for key, value in field.items() if key != "title"} for name, field in fields.items()}


def _trainer_schema() -> Schema:
    return {
        "type": "object",
        "description": TopLevel.model_fields["trainer"].description,
        "properties": _properties(TrainerOptions),
        "additionalProperties": False,
    }


def _visualization_schema() -> Schema:
    """The services with their keys; the keys of older dialects are marked as such."""
    known = {name: {**field, "deprecated": True} for name, field in _properties(Visualization).items()}
    for name, model in TRACKERS.items():
        option = {"type": "object", "properties": _properties(model), "additionalProperties": False}
        description = Visualization.model_fields[name].description
        known[name] = _described({"anyOf": [option, {"type": "null"}, {"$ref": "#/$defs/placeholder"}]}, description)
    return {"type": "object", "description": TopLevel.model_fields["visualization"].description, "properties": known}


def _search_schema(registry: Registry) -> Schema:
    """The keys of a search, which hold no markers themselves."""
    known = _fields(SearchOptions)
    for name, model in SEARCH_PARTS.items():
        part = {"type": "object", "properties": _fields(model), "additionalProperties": False}
        known[name] = _described({"anyOf": [part, {"type": "null"}]}, SearchOptions.model_fields[name].description)
    for name in SEARCH_CLASSES:
        if name in registry:
            known[name] = _described({"$ref": f"#/$defs/{name}"}, SearchOptions.model_fields[name].description)
    return {
        "type": "object",
        "description": TopLevel.model_fields["search"].description,
        "properties": known,
        "additionalProperties": False,
    }


def _spec_schema(key: str, section: Section) -> Schema:
    """A class of a section: one that is known by name with its arguments, or any other in full."""
    names = available_names(section)
    extras = _extras(key)
    in_full = {"type": {"type": "string", "pattern": r"\."}, "args": {"type": "object"}, **extras}
    return {
        "anyOf": [
            {"enum": names},
            {"type": "string", "pattern": r"\."},
            {"$ref": "#/$defs/placeholder"},
            *(_class_schema(name, key, section, extras) for name in names),
            {"type": "object", "properties": in_full, "required": ["type"], "additionalProperties": False},
            {
                "description": "Changes to the class of the file that this one extends.",
                "type": "object",
                "properties": {"args": {"type": "object"}, **extras},
                "additionalProperties": False,
            },
        ]
    }


def _extras(key: str) -> dict[str, Schema]:
    """What a spec of a section may say beside its class."""
    if key == "loss":
        return {"weight": _open({"type": "number", "description": "Its factor in the sum of losses."})}
    if key == "optimizer":
        groups = {"type": "object", "properties": _properties(ParameterGroup), "additionalProperties": False}
        extras = _properties(OptimizerExtras)
        extras["groups"]["anyOf"][0]["items"] = groups
        return extras
    return _properties(SchedulerExtras) if key == "lr_scheduler" else {}


def _class_schema(name: str, key: str, section: Section, extras: dict[str, Schema]) -> Schema:
    try:
        target = find_class(name, key, key, section)
    except ConfigError:  # it needs a package that is not here
        return _class_named(name, {"type": "object"}, extras)
    signature, documented = signature_of(target), _documented_arguments(target)
    arguments = {
        parameter.name: _parameter_schema(parameter, documented.get(parameter.name), section)
        for parameter in signature.parameters.values()
        if parameter.name not in (*OBJECTS, *(SCHEDULER_VALUES if key == "scheduler" else ()))
    }
    args = {"type": "object", "properties": arguments, "additionalProperties": signature.takes_more}
    return _described(_class_named(name, args, extras), _first_line(target))


def _class_named(name: str, args: Schema, extras: dict[str, Schema]) -> Schema:
    return {
        "title": name,
        "type": "object",
        "properties": {"type": {"const": name}, "args": args, **extras},
        "required": ["type"],
        "additionalProperties": False,
    }


def _parameter_schema(parameter: Parameter, description: str | None, section: Section) -> Schema:
    if parameter.name in section.nested:
        return _described(_one_or_list({"$ref": f"#/$defs/{section.nested[parameter.name]}"}), description)
    try:
        schema = TypeAdapter(parameter.annotation).json_schema()
    except PydanticUserError:
        schema = {}
    schema.pop("title", None)
    if _is_plain(parameter.default):
        schema["default"] = json.loads(json.dumps(parameter.default))
    return _open(_described(schema, description))


def _is_plain(default: Any) -> bool:
    if isinstance(default, list | tuple):
        return all(map(_is_plain, default))
    return default is None or type(default) in (bool, int, float, str)


def _first_line(target: Target) -> str | None:
    """What a class says of itself; a docstring that it inherited would speak of another."""
    text = inspect.cleandoc(vars(target).get("__doc__") or "" if inspect.isclass(target) else target.__doc__ or "")
    return text.split("\n", maxsplit=1)[0] or None


def _documented_arguments(target: Target) -> dict[str, str]:
    """Name -> the first line of what the `Args:` of a docstring say."""
    lines = inspect.cleandoc(target.__doc__ or "").splitlines()
    return {match.group(1): match.group(2) for match in map(_ARGUMENT.match, lines) if match}
