"""The JSON Schema of a configuration (draft 2020-12), so that editors complete and check the files.

Wider than the validation: a file that extends another may leave anything out, and any value may be a `$ref` or a search
marker. So nothing is required here, and missing arguments are left to the validation.
"""

import contextlib
import inspect
import json
import re
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, Field
from pydantic.errors import PydanticUserError

from config.checking import sections
from config.checking.classes import available_names, find_class
from config.checking.signatures import OBJECTS, signature_of
from utils.errors import ConfigError
from utils.registry import Registry, Section

Schema = dict[str, Any]
WRITTEN_WITH = ("torch", "albumentations")
PLACEHOLDER = {"$ref": "#/$defs/placeholder"}
_ARGUMENT = re.compile(r"^ {4,8}(\w+)(?: \([^)]*\))?: (.+)$")


class Repeat(sections.Strict):
    """A list of draws."""

    of: Any = Field(..., description="Drawn anew each time.")
    times: Any = Field(..., description="How often.")


class Placeholder(BaseModel):
    """A value defined elsewhere, or drawn by a search."""

    ref: str = Field(..., alias="$ref", description="A value of $defs, drawn anew if it holds markers.")
    var: str = Field(..., alias="$var", description="A value of $defs, drawn once for a candidate.")
    choice: list[Any] = Field(..., alias="$choice", min_length=1, description="One of these.")
    range: list[int] = Field(..., alias="$range", min_length=1, max_length=3, description="A number of Python's range.")
    uniform: tuple[float, float] = Field(..., alias="$uniform", description="A number between these.")
    loguniform: tuple[float, float] = Field(..., alias="$loguniform", description="A number between, on a log scale.")
    logrange: tuple[int, int] = Field(..., alias="$logrange", description="A whole number from these, on a log scale.")
    repeat: Repeat = Field(..., alias="$repeat", description="A list of draws.")


def json_schema(registry: Registry) -> Schema:
    """Return the JSON Schema of a configuration; the same for the same registry and versions of the libraries."""
    definitions = (
        _models(sections.TopLevel)
        | _models(sections.SearchOptions, markers=False)
        | _models(Placeholder, markers=False)
    )
    for key, section in registry.items():
        if key != "trainer":
            *within, (_, model) = _models(sections.CLASS_SECTIONS.get(key, sections.ClassSection)).items()
            definitions |= within
            definitions[key] = _spec_schema(key, section, model["properties"])
    properties = definitions.pop(sections.TopLevel.__name__)["properties"]
    search = definitions[sections.SearchOptions.__name__]["properties"]
    class_sections = {
        "arch": "arch",
        "optimizer": "optimizer",
        **dict.fromkeys(sections.LOADER_SECTIONS, "data_loader"),
    }
    references = [(properties, name, key) for name, key in class_sections.items()]
    references += [(properties, "search", sections.SearchOptions.__name__)]
    references += [(search, name, name) for name in sections.SEARCH_CLASSES if name in registry]
    for owner, name, key in references:
        field: Schema = {"$ref": f"#/$defs/{key}"}
        if owner[name].get("default", ...) is None:  # the key may be null, e.g. to remove an inherited value
            field = {"anyOf": [field, {"type": "null"}]}
        owner[name] = {**field, "description": owner[name]["description"]}
    for name in ("loss", "lr_scheduler"):  # a weighted sum, and a chain of schedules
        properties[name] = _one_or_list({"$ref": f"#/$defs/{name}"}, properties[name]["description"])
    properties["lr_scheduler"]["anyOf"].append({"type": "null"})
    properties["metrics"]["anyOf"][0]["items"] = {"$ref": "#/$defs/metrics"}
    paths = {"type": ["string", "array"], "items": {"type": "string"}}
    properties["$schema"] = {"type": "string", "description": "Path of this schema, for the editor."}
    properties["$extends"] = {**paths, "description": "Files to lay this over."}
    properties["$defs"] = {"type": "object", "description": 'Values to use as {"$ref": NAME}.'}
    placeholder = definitions.pop(Placeholder.__name__)
    placeholder["anyOf"] = [{"required": [name]} for name in placeholder.pop("required")]
    releases = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in WRITTEN_WITH)  # without "+cpu"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"Written with {releases}.",
        "title": "Espalier configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": {**definitions, "placeholder": placeholder},
    }


def schema_text(registry: Registry) -> str:
    """Return the schema as text, one class per line."""
    return f"{_text(json_schema(registry), 4)}\n"


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


def _models(model: type[BaseModel], *, markers: bool = True) -> dict[str, Schema]:
    """Return the schemas of a section with fixed keys and of those within it, by the names of their models.

    Args:
        model: The section.
        markers: Whether its values may be search markers, and its keys be left out.
    """
    schema = model.model_json_schema()
    definitions: dict[str, Schema] = {**schema.pop("$defs", {}), model.__name__: schema}
    for definition in definitions.values():
        definition.pop("title")
        if markers:  # a file that extends another may leave out any key
            definition.pop("required", None)
        for key, field in definition["properties"].items():
            field.pop("title", None)
            if isinstance(field.get("default"), dict):  # that of a section repeats those of its keys
                del field["default"]
            definition["properties"][key] = _with_placeholders(field) if markers else field
    return definitions


def _with_placeholders(schema: Schema) -> Schema:
    """Return a schema which allows a placeholder for the value, its items and its members."""
    described: Schema = {key: schema.pop(key) for key in ("description", "default", "deprecated") if key in schema}
    if not schema:  # anything is allowed, a placeholder too
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


def _spec_schema(key: str, section: Section, keys: Schema) -> Schema:
    """Return the schema of a section that names a class: one known by name with its arguments, or any other in full.

    Args:
        key: Of the section in the registry.
        section: The classes that it may name.
        keys: Schemas of the keys of the section.
    """
    extras = {name: keys[name] for name in keys.keys() - {"type", "args"}}
    names = available_names(section)
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


def _class_schema(type_name: str, key: str, section: Section, extras: Schema) -> Schema:
    """Return the schema of a class with its arguments, documented by its docstring."""
    args: Schema = {"type": "object"}
    schema: Schema = {
        "title": type_name,
        "type": "object",
        "properties": {"type": {"const": type_name}, "args": args, **extras},
        "required": ["type"],
        "additionalProperties": False,
    }
    try:
        target = find_class(type_name, key, key, section).target
    except ConfigError:  # it needs a package that is not here
        return schema
    signature = signature_of(target)
    lines = inspect.cleandoc(target.__doc__ or "").splitlines()
    documented = {match[1]: match[2] for match in map(_ARGUMENT.match, lines) if match}
    hidden = (*OBJECTS, *(sections.SEARCH_VALUES.get(key, ())))
    args |= {"properties": {}, "additionalProperties": signature.takes_more}
    for name, parameter in signature.parameters.items():
        if name in section.nested:
            reference = {"$ref": f"#/$defs/{section.nested[name]}"}
            args["properties"][name] = _one_or_list(reference, documented.get(name))
        elif name not in hidden:
            try:
                value = parameter.adapter.json_schema() if parameter.adapter else {}
            except PydanticUserError:
                value = {}
            value.pop("title", None)
            with contextlib.suppress(TypeError):  # one that is not plain data is not shown
                value["default"] = json.loads(json.dumps(parameter.default))
            if name in documented:
                value["description"] = documented[name]
            args["properties"][name] = _with_placeholders(value)
    if lines:
        schema["description"] = lines[0]
    return schema
