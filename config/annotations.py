"""What a type annotation means for a value from JSON: which part of it a value can satisfy, and how to say it."""

import collections.abc
import contextlib
import enum
import inspect
import json
import types
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Optional, TypeVar, Union, get_args, get_origin, get_type_hints

import annotated_types
from pydantic import StringConstraints, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from config.faults import show

PLAIN = {int: "an integer", float: "a number", str: "a string", bool: "true or false", type(None): "null"}
LISTS = (
    list,
    collections.abc.Iterable,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
)
COMMON_NAMES = {name: getattr(collections.abc, name) for name in collections.abc.__all__} | {
    "Any": Any, "Literal": Literal, "Optional": Optional, "Union": Union
}  # fmt: skip
"""What modules import for type checkers only."""
MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


class _Nothing:
    """Stands for an annotation that no JSON value satisfies, such as a tensor."""


def jsonable(annotation: Any) -> Any:
    """The part of an annotation that a JSON value can satisfy; `Any` where nothing can be said.

    `float | Tensor` becomes `float`, `Iterable[int]` becomes `list[int]`, a tensor alone or an unknown class `Any`.
    """
    part = _pruned(annotation)
    return Any if part is _Nothing else part


def evaluated(annotation: Any, target: Callable[..., Any]) -> Any:
    """An annotation of a class's or function's signature, also one written as text; `Any` if it makes no sense."""
    if not isinstance(annotation, str):
        return annotation
    holder = types.SimpleNamespace(__annotations__={"value": annotation})
    for names in _namespaces(target):
        try:
            return get_type_hints(holder, globalns=COMMON_NAMES | names, include_extras=True)["value"]
        except (NameError, TypeError, AttributeError, SyntaxError):  # imported for type checkers only
            continue
    return Any


def describe(annotation: Any) -> str:
    """An annotation in words, e.g. `a number > 0 or null`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in PLAIN:
        return PLAIN[annotation]
    if origin is Annotated:
        return _describe_constrained(args[0], args[1:])
    if origin is Literal:
        return _one_of([show(value) for value in args])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(part) for part in args))
    return _describe_container(annotation, origin, args)


def convert(value: Any, annotation: Any) -> tuple[Any, str | None]:
    """Check a JSON value against what `jsonable` gave: the value as that type (a list as a tuple), or what is wrong."""
    if annotation is Any:
        return value, None
    try:
        adapter = _adapter(annotation)
    except PydanticUserError:
        return value, None
    try:
        return adapter.validate_json(json.dumps(value), strict=True), None
    except ValidationError as error:
        reasons = [str(item["ctx"]["error"]) for item in error.errors() if item["type"] == "value_error"]
        return value, "; ".join([wrong_value(value, annotation), *reasons])


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return _kept_adapter(annotation)
    except TypeError:  # a constraint that has no hash
        return TypeAdapter(annotation)


@lru_cache(maxsize=1024)
def _kept_adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def wrong_value(value: Any, annotation: Any) -> str:
    """`"abc" must be a number > 0`, with a hint where quotes are the mistake."""
    return f"{show(value)} must be {describe(annotation)}.{_quotes_hint(value, annotation)}"


def field_annotation(field: FieldInfo) -> Any:
    """The annotation of a pydantic field with its constraints."""
    annotation: Any = field.annotation
    for constraint in field.metadata:
        annotation = Annotated[annotation, constraint]
    return annotation


def _namespaces(target: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """The modules in which a signature may have been written, the class's own first."""
    for holder in inspect.getmro(target) if inspect.isclass(target) else (target,):
        function = vars(holder).get("__init__") if inspect.isclass(holder) else inspect.unwrap(holder)
        names = getattr(inspect.unwrap(function), "__globals__", None) if function is not None else None
        if names is not None:
            yield names


def _pruned(annotation: Any) -> Any:
    origin = get_origin(annotation)
    if collections.abc.Callable in (annotation, origin):  # its arguments are no types to look into
        return _Nothing
    if annotation is None:
        return type(None)
    if annotation in PLAIN or origin is Literal or annotation in (Path, PurePath):
        return annotation
    if origin is Annotated:
        inner, *constraints = get_args(annotation)
        return _with_constraints(_pruned(inner), constraints)
    if origin in (Union, types.UnionType):
        return _pruned_union(get_args(annotation))
    return _pruned_container(annotation, origin)


def _with_constraints(annotation: Any, constraints: list[Any]) -> Any:
    if annotation is Any or annotation is _Nothing:
        return annotation
    for constraint in constraints:
        annotation = Annotated[annotation, constraint]
    return annotation


def _pruned_union(members: tuple[Any, ...]) -> Any:
    parts = [_pruned(member) for member in members]
    kept = [part for part in parts if part is not _Nothing]
    if Any in kept or (len(kept) < len(parts) and all(part is type(None) for part in kept)):
        return Any
    return Union[tuple(kept)]  # noqa: UP007 - the members are only known here


def _pruned_container(annotation: Any, origin: Any) -> Any:
    kind, args = origin or annotation, get_args(annotation)
    parts = [part if part is Ellipsis else _pruned(part) for part in args]
    if _Nothing in parts:
        return _Nothing
    if kind in LISTS:
        return list[parts[0]] if parts else list[Any]  # type: ignore[valid-type]
    if kind in MAPPINGS:
        return dict[parts[0], parts[1]] if parts else dict[str, Any]  # type: ignore[valid-type]
    if kind in (tuple, set, frozenset):
        return kind[tuple(parts)] if parts else list[Any]
    return _pruned_class(annotation)


def _pruned_class(annotation: Any) -> Any:
    """A class of which JSON cannot hold an instance is nothing; for all else the class itself must judge."""
    is_class = isinstance(annotation, type) and annotation is not object
    if not is_class or isinstance(annotation, TypeVar) or issubclass(annotation, enum.Enum | dict | tuple):
        return Any
    return _Nothing


def _constraints(metadata: tuple[Any, ...]) -> Iterator[str]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _constraints(tuple(item.metadata))
        for kind, sign in _SIGNS.items():
            if isinstance(item, kind):
                yield sign(item)


_SIGNS: Mapping[type, Callable[[Any], str]] = {
    annotated_types.Gt: lambda item: f"> {item.gt}",
    annotated_types.Ge: lambda item: f">= {item.ge}",
    annotated_types.Lt: lambda item: f"< {item.lt}",
    annotated_types.Le: lambda item: f"<= {item.le}",
    annotated_types.MultipleOf: lambda item: f"and a multiple of {item.multiple_of}",
    annotated_types.MinLen: lambda item: f"of at least {item.min_length}",
    annotated_types.MaxLen: lambda item: f"of at most {item.max_length}",
    StringConstraints: lambda item: f"of the form {item.pattern}",
}


def _describe_constrained(annotation: Any, metadata: tuple[Any, ...]) -> str:
    """`an integer >= 1 or null`: constraints bear on what is not null."""
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    values = [describe(member) for member in members if member is not type(None)]
    null = " or null" if len(values) < len(members) else ""
    return " ".join([" or ".join(values), *_constraints(metadata)]) + null


def _describe_container(annotation: Any, origin: Any, args: tuple[Any, ...]) -> str:
    if origin is tuple and args[-1] is not Ellipsis:
        return f"a list of {len(args)} ({', '.join(describe(part) for part in args)})"
    if origin in (list, tuple, set, frozenset):
        return f"a list, each {describe(args[0])}"
    if origin is dict:
        return f"an object, each value {describe(args[1])}"
    return _describe_class(annotation)


def _describe_class(annotation: Any) -> str:
    if annotation in (list, tuple, set, frozenset):
        return "a list"
    if annotation is dict:
        return "an object"
    if annotation in (Path, PurePath):
        return "a path"
    return "any value" if annotation is Any else str(getattr(annotation, "__name__", annotation))


def _one_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _quotes_hint(value: Any, annotation: Any) -> str:
    if not isinstance(value, str):
        return ""
    for read in (json.loads, float):  # `.01` is a number, only not one of JSON
        with contextlib.suppress(ValueError):
            unquoted = read(value)
            if convert(unquoted, annotation)[1] is None:
                return f" Write {json.dumps(unquoted)} without quotes."
    return ""
