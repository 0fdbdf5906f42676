"""The JSON Schema of a configuration (draft 2020-12), so that editors complete and check the files.

Wider than the validation: a file that extends another may leave anything out, and any value may be a `$ref` or a search
marker. So nothing is required here, and missing arguments are left to the validation.
"""

import inspect
import json
import re
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from config.checking.classes import available_names, find_class
from config.checking.sections import (
    EXTRAS,
    LOADER_SECTIONS,
    SCHEDULER_VALUES,
    SEARCH_CLASSES,
    Budget,
    CandidateLimits,
    RetrainOptions,
    SearchOptions,
    TopLevel,
)
from config.checking.signatures import OBJECTS, Parameter, signature_of
from utils.errors import ConfigError
from utils.registry import Registry, Section

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
LINES_TO_DEPTH = 4
WRITTEN_WITH = ("torch", "albumentations")
WITHOUT_MARKERS = {model.__name__ for model in (SearchOptions, CandidateLimits, Budget, RetrainOptions)}
PLACEHOLDER = {"$ref": "#/$defs/placeholder"}
_ARGUMENT = re.compile(r"^ {4,8}(\w+)(?: \([^)]*\))?: (.+)$")


def json_schema(registry: Registry) -> Schema:
    """Return the JSON Schema of a configuration; the same for the same registry and versions of the libraries."""
    definitions = _models(TopLevel)
    for key in EXTRAS:
        definitions |= _models(EXTRAS[key])
    for key, section in registry.items():
        if key != "trainer":
            definitions[key] = _spec_schema(key, section, definitions)
    for key in EXTRAS:
        del definitions[EXTRAS[key].__name__]  # its keys are among those of each class
    properties = definitions.pop(TopLevel.__name__)["properties"]
    class_sections = {"arch": "arch", "optimizer": "optimizer", **dict.fromkeys(LOADER_SECTIONS, "data_loader")}
    for name, key in class_sections.items():
        properties[name] = {"$ref": f"#/$defs/{key}", "description": properties[name]["description"]}
    for name in ("loss", "lr_scheduler"):
        properties[name] = _one_or_list({"$ref": f"#/$defs/{name}"}, properties[name]["description"])
    properties["metrics"]["anyOf"][0]["items"] = {"$ref": "#/$defs/metrics"}
    properties["search"] = {"$ref": "#/$defs/SearchOptions", "description": properties["search"]["description"]}
    parts = definitions[SearchOptions.__name__]["properties"]
    for name in SEARCH_CLASSES:
        if name in registry:
            parts[name] = {"$ref": f"#/$defs/{name}", "description": parts[name]["description"]}
    properties |= {
        "$schema": {"type": "string", "description": "Path of this schema, for the editor."},
        "$extends": {
            "type": ["string", "array"],
            "items": {"type": "string"},
            "description": "Files to lay this over.",
        },
        "$defs": {"type": "object", "description": 'Values to use as {"$ref": NAME}.'},
    }
    releases = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in WRITTEN_WITH)  # without "+cpu"
    return {
        "$schema": DIALECT,
        "$comment": f"Written with {releases}.",
        "title": "Espalier configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": {**definitions, "placeholder": _placeholder()},
    }


def schema_text(registry: Registry) -> str:
    """Return the schema as text, one class per line."""
    return f"{_text(json_schema(registry), LINES_TO_DEPTH)}\n"


def _text(value: Any, depth: int, indent: str = "") -> str:
    """Return JSON with a line per item down to a depth, and on one line below."""
    if not depth or not value or not isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    inner = f"{indent}  "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_text(value[key], depth - 1, inner)}" for key in sorted(value)]
    else:
        items = [_text(item, depth - 1, inner) for item in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n{inner}{f',{chr(10)}{inner}'.join(items)}\n{indent}{last}"


def _models(model: type[BaseModel]) -> dict[str, Schema]:
    """Return the schemas of a section with fixed keys and of those within it, by the names of their models."""
    schema = model.model_json_schema()
    definitions = {**schema.pop("$defs", {}), model.__name__: schema}
    for name, definition in definitions.items():
        definition.pop("title"), definition.pop("required", None)
        for key, field in definition["properties"].items():
            field.pop("title", None)
            if isinstance(field.get("default"), dict):  # that of a section repeats those of its keys
                del field["default"]
            if name not in WITHOUT_MARKERS:
                definition["properties"][key] = _with_placeholders(field)
    return definitions


def _with_placeholders(schema: Schema) -> Schema:
    """Return a schema which allows a placeholder for the value, its items and its members."""
    described: Schema = {key: schema.pop(key) for key in ("description", "default", "deprecated") if key in schema}
    if not schema:  # anything is allowed
        return described
    choices = [dict(choice) for choice in (schema["anyOf"] if schema.keys() == {"anyOf"} else [schema])]
    for choice in choices:
        for key in ("items", "additionalProperties"):
            if isinstance(choice.get(key), dict) and "$ref" not in choice[key]:
                choice[key] = _with_placeholders(dict(choice[key]))
        if "prefixItems" in choice:
            choice["prefixItems"] = [_with_placeholders(dict(item)) for item in choice["prefixItems"]]
    return {"anyOf": [*choices, PLACEHOLDER], **described}


def _one_or_list(item: Schema, description: str | None) -> Schema:
    schema: Schema = {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}
    return {**schema, "description": description} if description else schema


def _placeholder() -> Schema:
    """Return the schema of a reference or marker."""
    numbers = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    repeat = {"of": {"description": "Drawn anew each time."}, "times": {"description": "How often."}}
    known: dict[str, Schema] = {
        "$ref": {"type": "string", "description": "A value of $defs, drawn anew if it holds markers."},
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
        "description": "A value defined elsewhere, or drawn by a search.",
        "type": "object",
        "properties": known,
        "anyOf": [{"required": [name]} for name in sorted(known)],
    }


def _spec_schema(key: str, section: Section, definitions: dict[str, Schema]) -> Schema:
    """Return the schema of a section that names a class: one known by name with its arguments, or any other in full."""
    names = available_names(section)
    extras: dict[str, Schema] = definitions[EXTRAS[key].__name__]["properties"] if key in EXTRAS else {}
    dotted = {"type": "string", "pattern": r"\."}
    changes: Schema = {"type": "object", "properties": {"args": {"type": "object"}, **extras}}
    changes["additionalProperties"] = False
    in_full = {**changes, "properties": {"type": dotted, **changes["properties"]}, "required": ["type"]}
    return {
        "anyOf": [
            {"enum": names},
            dotted,
            PLACEHOLDER,
            *(_class_schema(name, key, section, extras) for name in names),
            in_full,
            {"description": "Changes to the class of the file that this one extends.", **changes},
        ]
    }


def _class_schema(name: str, key: str, section: Section, extras: dict[str, Schema]) -> Schema:
    """Return the schema of a class with its arguments, documented by its docstring."""
    args: Schema = {"type": "object"}
    schema: Schema = {
        "title": name,
        "type": "object",
        "properties": {"type": {"const": name}, "args": args, **extras},
        "required": ["type"],
        "additionalProperties": False,
    }
    try:
        target = find_class(name, key, key, section)
    except ConfigError:  # it needs a package that is not here
        return schema
    signature = signature_of(target)
    lines = inspect.cleandoc(target.__doc__ or "").splitlines()
    documented = {match.group(1): match.group(2) for match in map(_ARGUMENT.match, lines) if match}
    hidden = (*OBJECTS, *(SCHEDULER_VALUES if key == "scheduler" else ()))
    args["properties"] = {
        parameter.name: _parameter_schema(parameter, documented.get(parameter.name), section)
        for parameter in signature.parameters.values()
        if parameter.name not in hidden
    }
    args["additionalProperties"] = signature.takes_more
    # An inherited docstring would describe another class.
    text = inspect.cleandoc((vars(target).get("__doc__") if inspect.isclass(target) else target.__doc__) or "")
    if text:
        schema["description"] = text.split("\n", maxsplit=1)[0]
    return schema


def _parameter_schema(parameter: Parameter, description: str | None, section: Section) -> Schema:
    if parameter.name in section.nested:
        return _one_or_list({"$ref": f"#/$defs/{section.nested[parameter.name]}"}, description)
    try:
        schema = parameter.adapter.json_schema() if parameter.adapter else {}
    except PydanticUserError:
        schema = {}
    schema.pop("title", None)
    if _is_plain(parameter.default):
        schema["default"] = json.loads(json.dumps(parameter.default))
    if description:
        schema["description"] = description
    return _with_placeholders(schema)


def _is_plain(default: Any) -> bool:
    if isinstance(default, list | tuple):
        return all(map(_is_plain, default))
    return default is None or type(default) in (bool, int, float, str)
