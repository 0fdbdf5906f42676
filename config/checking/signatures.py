"""The signature of a class or function: its parameters by name, and the JSON values that each of them accepts."""

import collections.abc
import contextlib
import dataclasses
import enum
import inspect
import json
import types
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from functools import cached_property, lru_cache
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from config.faults import Faults, show, unknown_name
from utils.registry import OptionGroup

REQUIRED = inspect.Parameter.empty
OBJECTS = ("params", "optimizer")
"""Run-time values that JSON cannot hold."""
# Never missing in a file: the data, the optimizer or the length of the run gives them.
RUNTIME_NAMES = frozenset({
    "params", "optimizer", "num_classes", "in_channels", "ignore_index", "class_counts", "class_names", "seed",
    "total_steps", "total_iters", "T_max", "epochs", "steps_per_epoch", "max_lr",
})  # fmt: skip
# Their defaults ("imagenet") would download weights that the JSON does not ask for.
FETCHED_ARGUMENTS = ("encoder_weights",)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a class.

    Attributes:
        name: As in the JSON.
        annotation: The type that a JSON value must have; `Any` or `_Nothing` if the class itself must check it.
        default: The default; `REQUIRED` if there is none.
        group: The option group that it is a field of: the constructor's parameter that takes the dataclass.
    """

    name: str
    annotation: Any
    default: Any
    group: str | None = None

    @cached_property
    def adapter(self) -> TypeAdapter[Any] | None:
        """The check of its values; None if nothing is known, or pydantic cannot check the annotation."""
        try:
            return None if self.annotation in (Any, _Nothing) else TypeAdapter(self.annotation)
        except PydanticUserError:
            return None


@dataclasses.dataclass(frozen=True)
class Signature:
    """The arguments that a class or function takes by name.

    Attributes:
        parameters: Name -> parameter; the fields of option groups are among them, each under its name.
        takes_more: Whether it has `**kwargs`, so that any further name binds.
        groups: Constructor's parameter -> the default of that option group, its dataclass if there is no default.
    """

    parameters: Mapping[str, Parameter]
    takes_more: bool
    groups: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def check(
        self,
        args: Mapping[str, Any],
        path: str,
        faults: Faults,
        *,
        supplied: Collection[str],
        reserved: Collection[str] = OBJECTS,
        unlisted: Collection[str] = (),
        skip: Collection[str] = (),
    ) -> dict[str, Any]:
        """Check arguments by name and type.

        Args:
            args: From the JSON.
            path: JSON path of `args`.
            faults: Collects all faults.
            supplied: Names that the caller gives at run time: not missing.
            reserved: Names that only the caller may give.
            unlisted: Names that the caller gives, which are no repair of a name that is unknown.
            skip: Names whose values are specs, checked elsewhere.

        Returns:
            The arguments as their annotations want them (a tuple for a list).
        """
        converted = dict(args)
        for name, value in args.items():
            parameter = self.parameters.get(name)
            if parameter is None:
                if not self.takes_more:
                    known = self.parameters.keys() - {*reserved, *unlisted}
                    faults.add(f"{path}.{name}", unknown_name("argument", name, known))
            elif name in reserved:
                faults.add(f"{path}.{name}", f"{show(value)}: {name} is given at run time. Remove it.")
            elif name not in skip and parameter.adapter and (value is not None or parameter.default is not None):
                try:  # as JSON text: strict mode takes a list for a tuple, and 1 for 1.0, only there
                    converted[name] = parameter.adapter.validate_json(json.dumps(value), strict=True)
                except ValidationError as error:
                    reasons = [str(item["ctx"]["error"]) for item in error.errors() if item["type"] == "value_error"]
                    faults.add(f"{path}.{name}", "; ".join([wrong_value(value, parameter.adapter), *reasons]))
        for name, parameter in self.parameters.items():
            if parameter.default is REQUIRED and name not in args and name not in supplied:
                faults.add(f"{path}.{name}", f"missing: the class cannot be made without it. Add {show(name)} to args.")
        return converted


@lru_cache(maxsize=512)
def signature_of(target: Callable[..., Any]) -> Signature:
    """Return the signature of a class or function, its annotations reduced to the types that JSON can hold.

    A class that passes `**kwargs` on to its base takes the arguments of the base, too.
    """
    signature = _read_signature(target)
    for base in inspect.getmro(target)[1:-1] if inspect.isclass(target) else ():  # the last is object
        # A base without `**kwargs` ends the chain: takes_more is then false.
        if signature.takes_more and "__init__" in vars(base):
            inherited = _read_signature(base)
            signature = Signature(
                {**inherited.parameters, **signature.parameters},
                inherited.takes_more,
                {**inherited.groups, **signature.groups},
            )
    return signature


def _read_signature(target: Callable[..., Any]) -> Signature:
    """Read the parameters of one function, without those that pass through its `**kwargs`."""
    try:
        written = inspect.signature(target).parameters.values()
    except (ValueError, TypeError):  # written in C, without a signature
        return Signature({}, takes_more=True)
    parameters: dict[str, Parameter] = {}
    groups: dict[str, Any] = {}
    for item in written:
        if item.kind not in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY):
            continue
        annotation = evaluated(item.annotation, target)
        # Only a declared group is flattened: a class may take any other dataclass as an ordinary argument.
        if inspect.isclass(annotation) and issubclass(annotation, OptionGroup):
            groups[item.name] = annotation if item.default is REQUIRED else item.default
            found = []
            for field in dataclasses.fields(annotation):  # type: ignore[arg-type]
                if item.default is not REQUIRED:
                    value = getattr(item.default, field.name)
                elif field.default_factory is not dataclasses.MISSING:
                    value = field.default_factory()
                else:
                    value = REQUIRED if field.default is dataclasses.MISSING else field.default
                kind = _json_part(evaluated(field.type, annotation))
                found.append(Parameter(field.name, kind, value, group=item.name))
        elif annotation is REQUIRED:
            kind = next((kind for types, kind in TYPES_OF_DEFAULTS if isinstance(item.default, types)), Any)
            found = [Parameter(item.name, kind, item.default)]
        else:
            found = [Parameter(item.name, _json_part(annotation), item.default)]
        for parameter in found:
            if parameter.name in parameters:
                raise TypeError(
                    f"{getattr(target, '__qualname__', target)}: {parameter.name} occurs twice, in "
                    f"{parameters[parameter.name].group or 'its signature'} and {parameter.group or 'its signature'}. "
                    "Rename one."
                )
            parameters[parameter.name] = parameter
    return Signature(parameters, any(item.kind is item.VAR_KEYWORD for item in written), groups)


# Types and limits of a JSON Schema, in words.
WORDS = {
    "integer": "an integer", "number": "a number", "string": "a string", "boolean": "true or false", "null": "null",
    "array": "a list", "object": "an object",
}  # fmt: skip
LIMITS = {
    "exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<=",
    "multipleOf": "divisible by", "pattern": "of the form",
    "minLength": "of at least", "minItems": "of at least", "maxLength": "of at most", "maxItems": "of at most",
}  # fmt: skip


def describe_type(schema: Mapping[str, Any]) -> str:
    """Return a JSON Schema in words, e.g. `a number > 0 or null`."""
    if "anyOf" in schema:
        parts = list(dict.fromkeys(map(describe_type, schema["anyOf"])))  # not the same words twice
        return " or ".join(part for part in parts if part != "an integer" or "a number" not in parts)
    if "enum" in schema or "const" in schema:
        values = ", ".join(map(show, schema.get("enum", [schema.get("const")])))
        return f"one of {values}" if len(schema.get("enum", [])) > 1 else values
    if "prefixItems" in schema:
        items = list(map(describe_type, schema["prefixItems"]))
        return f"a list of {len(items)} ({', '.join(items)})"
    words = WORDS["object"] if "$ref" in schema else WORDS.get(schema.get("type", ""), "any value")
    if schema.get("format") == "path":
        words = "a path"
    for key, each in (("items", "each"), ("additionalProperties", "each value")):
        if isinstance(schema.get(key), dict) and schema[key]:
            words += f", {each} {describe_type(schema[key])}"
    limits = " and ".join(f"{sign} {schema[key]}" for key, sign in LIMITS.items() if key in schema)
    return f"{words} {limits}".strip()


def wrong_value(value: Any, adapter: TypeAdapter[Any]) -> str:
    """Return `"abc" must be a number > 0`, with a hint if quotes are the mistake."""
    message = f"{show(value)} must be {describe_type(adapter.json_schema())}."
    if isinstance(value, str):
        for read in (json.loads, float):  # `.01` is a number, but not one of JSON
            with contextlib.suppress(ValueError):
                text = json.dumps(read(value), allow_nan=False)
                adapter.validate_json(text, strict=True)
                return f"{message} Write {text} without quotes."
    return message


# Names that a module may import for type checkers only, so that they are not in it at run time.
COMMON_NAMES = {name: getattr(collections.abc, name) for name in collections.abc.__all__} | {
    "Any": Any, "Literal": Literal, "Optional": Optional, "Union": Union
}  # fmt: skip
LISTS = (list, Iterable, Sequence, MutableSequence, Collection)
MAPPINGS = (dict, Mapping, MutableMapping)
PLAIN = (int, float, str, bool, type(None), Path, PurePath)


# The type of a parameter without annotation, by its default: text, switches and numbers are not taken for each other.
# Many functions without annotations take one number or several.
TYPES_OF_DEFAULTS: tuple[tuple[Any, Any], ...] = (
    (bool, bool), (int | float, int | float | list[Any] | None), (str, str | None)
)  # fmt: skip


class _Nothing:
    """Marks an annotation that no JSON value satisfies, such as a tensor."""


def evaluated(annotation: Any, target: Callable[..., Any]) -> Any:
    """Return an annotation of a class's or function's signature as a type, also if it is written as text.

    `Any` if its names are in none of the modules in which the signature may have been written.
    """
    if not isinstance(annotation, str):
        return annotation
    holder = types.SimpleNamespace(__annotations__={"value": annotation})
    for owner in inspect.getmro(target) if inspect.isclass(target) else (target,):
        function = vars(owner).get("__init__") if inspect.isclass(owner) else owner
        names = getattr(inspect.unwrap(function), "__globals__", {}) if function is not None else {}
        with contextlib.suppress(NameError, TypeError, AttributeError, SyntaxError):
            return get_type_hints(holder, globalns=COMMON_NAMES | names, include_extras=True)["value"]
    return Any


def _json_part(annotation: Any) -> Any:
    """Return the part of an annotation that a JSON value can satisfy; `Any` if nothing can be said.

    `float | Tensor` becomes `float`, `Iterable[int]` becomes `list[int]`, an unknown class `Any`; a tensor alone is
    `_Nothing`.
    """
    kind, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if kind is collections.abc.Callable:  # its arguments are no types to look into
        return _Nothing
    if annotation is None or kind is Literal or kind in PLAIN:
        return annotation
    if kind is Annotated:
        inner = _json_part(arguments[0])
        return inner if inner in (Any, _Nothing) else Annotated[(inner, *arguments[1:])]
    parts = [part if part is Ellipsis else _json_part(part) for part in arguments]
    if kind in (Union, types.UnionType):
        possible = [part for part in parts if part is not _Nothing]
        # Of `Tensor | None` only null is left, but the JSON may hold a list of which the class makes a tensor.
        only_null = len(possible) < len(parts) and all(part is type(None) for part in possible)
        return Any if only_null or Any in possible else Union[tuple(possible)]  # noqa: UP007 - known only here
    # JSON cannot hold an instance of another class; for all else the class that is built must decide.
    is_class = isinstance(annotation, type) and annotation is not object
    container: Any = _Nothing if is_class and not issubclass(annotation, enum.Enum | dict | tuple) else Any
    if _Nothing in parts:
        container = _Nothing
    elif kind in LISTS:
        container = list[parts[0]] if parts else list[Any]  # type: ignore[valid-type]
    elif kind in MAPPINGS:
        container = dict[parts[0], parts[1]] if parts else dict[str, Any]  # type: ignore[valid-type]
    elif kind in (tuple, set, frozenset):
        container = kind[tuple(parts)] if parts else list[Any]
    return container
