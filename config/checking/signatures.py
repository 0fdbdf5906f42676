"""What a type annotation means for a value from JSON: which part of it a value can satisfy, and how to say it."""

import collections.abc
import contextlib
import dataclasses
import enum
import inspect
import json
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Optional, TypeVar, Union, get_args, get_origin, get_type_hints

import annotated_types
from pydantic import StringConstraints, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from config.faults import Faults, join_path, show, unknown_name

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


RUNTIME_NAMES = frozenset(
    {
        "params", "optimizer", "num_classes", "in_channels", "ignore_index", "class_counts", "class_names", "seed",
        "total_steps", "total_iters", "T_max", "epochs", "steps_per_epoch",
    }
)  # fmt: skip
FETCHED_ARGUMENTS = ("encoder_weights",)
NETWORK_VALUES = ("num_classes", "in_channels")
FOREIGN_NAMES: Mapping[str, Mapping[str, str]] = {
    "timm": {"num_classes": "num_classes", "in_chans": "in_channels"},
    "torchvision": {"num_classes": "num_classes"},
}
"""Package -> what its networks call a run-time value, also where it passes through `**kwargs`."""
OBJECTS = ("params", "optimizer")
"""Run-time values that JSON cannot hold."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a class.

    Attributes:
        name: As in the JSON.
        annotation: What a JSON value must satisfy; `Any` where nothing is known.
        default: The default, `inspect.Parameter.empty` if it is required.
        group: The option group that it is a field of: the constructor's parameter that takes the dataclass.
    """

    name: str
    annotation: Any
    default: Any
    group: str | None = None

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty

    @property
    def fetches_by_default(self) -> bool:
        """Whether the default names weights on the network, as torchvision's and segmentation_models_pytorch's do."""
        names_weights = self.name in FETCHED_ARGUMENTS and isinstance(self.default, str)
        return names_weights or (isinstance(self.default, enum.Enum) and hasattr(self.default, "url"))


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a class or function takes by name.

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
        skip: Collection[str] = (),
    ) -> dict[str, Any]:
        """Check arguments by name and type.

        Args:
            args: From the JSON.
            path: JSON path of `args`.
            faults: Collects everything that is wrong.
            supplied: Names that the caller gives at run time: not missing.
            reserved: Names that only the caller may give.
            skip: Names whose values are specs, checked elsewhere.

        Returns:
            The arguments as their annotations want them (a tuple for a list).
        """
        converted = dict(args)
        for name, value in args.items():
            here = join_path(path, name)
            parameter = self.parameters.get(name)
            if parameter is None:
                if not self.takes_more:
                    faults.add(here, unknown_name("argument", name, self.parameters.keys() - set(reserved)))
            elif name in reserved:
                faults.add(here, f"{show(value)}: {name} is given at run time. Remove it.")
            elif name not in skip:
                converted[name], wrong = _checked(value, parameter)
                if wrong is not None:
                    faults.add(here, wrong)
        for name in self.missing({*args, *supplied}):
            faults.add(
                join_path(path, name), f"missing: the class cannot be made without it. Add {show(name)} to args."
            )
        return converted

    def missing(self, given: Collection[str]) -> list[str]:
        """Required names that are not given."""
        return [name for name, parameter in self.parameters.items() if parameter.is_required and name not in given]


@lru_cache(maxsize=512)
def signature_of(target: Callable[..., Any]) -> Signature:
    """The signature of a class or function, its annotations reduced to what JSON can hold.

    A class that passes `**kwargs` on to its base takes what the base takes.
    """
    signature = _own_signature(target)
    bases = list(inspect.getmro(target)[1:-1]) if inspect.isclass(target) else []  # the last is object
    while signature.takes_more and bases:
        base = bases.pop(0)
        if "__init__" in vars(base):
            inherited = _own_signature(base)
            signature = Signature(
                {**inherited.parameters, **signature.parameters},
                inherited.takes_more,
                {**inherited.groups, **signature.groups},
            )
    return signature


def group_arguments(target: Callable[..., Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `target` with the fields of its option groups gathered into their dataclasses.

    An option group is a parameter annotated with a frozen dataclass. A JSON names its fields directly in `args`:
    `{"resize": 64, "batch_size": 4}` becomes `{"images": ImageOptions(resize=64), "batch_size": 4}`.

    Args:
        target: A class or function.
        flat: Arguments by name; a group may also be given as an object, and fields next to it then replace its own.

    Raises:
        TypeError: A group has no default and lacks a required field.
    """
    signature = signature_of(target)
    arguments: dict[str, Any] = {}
    fields: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        group = signature.parameters[name].group if name in signature.parameters else None
        if group is None:
            arguments[name] = value
        else:
            fields.setdefault(group, {})[name] = value
    for group, default in signature.groups.items():
        base = arguments.get(group, default)
        if isinstance(base, type):  # no default: its required fields must be there
            arguments[group] = base(**fields.get(group, {}))
        elif group in fields:
            arguments[group] = dataclasses.replace(base, **fields[group])
    return arguments


def network_values(target: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The classes and channels that a network is made for, by the names that it has for them.

    Args:
        target: Class of the network, or function that builds it.
        values: `num_classes` and `in_channels`, where known.
    """
    signature = signature_of(target)
    names = {name: name for name in NETWORK_VALUES if name in signature.parameters}
    foreign = FOREIGN_NAMES.get(str(target.__module__).partition(".")[0], {})
    names |= {own: name for own, name in foreign.items() if own in signature.parameters or signature.takes_more}
    return {own: values[name] for own, name in names.items() if values.get(name) is not None}


def _own_signature(target: Callable[..., Any]) -> Signature:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (ValueError, TypeError):  # written in C, without a signature
        return Signature({}, takes_more=True)
    named: dict[str, Parameter] = {}
    groups: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            continue
        options = evaluated(parameter.annotation, target)
        if _is_option_group(options):
            groups[parameter.name] = options if parameter.default is parameter.empty else parameter.default
            members = _group_members(parameter.name, options, groups[parameter.name])
        else:
            members = [Parameter(parameter.name, _annotation(parameter, target), parameter.default)]
        for member in members:
            if member.name in named:
                raise TypeError(
                    f"{getattr(target, '__qualname__', target)}: {member.name} occurs twice, in "
                    f"{named[member.name].group or 'its signature'} and {member.group or 'its signature'}. Rename one."
                )
            named[member.name] = member
    return Signature(named, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters), groups)


def _is_option_group(annotation: Any) -> bool:
    """Whether a parameter's type is a frozen dataclass, whose fields the JSON names directly."""
    settings = vars(annotation).get("__dataclass_params__") if inspect.isclass(annotation) else None
    return settings is not None and bool(settings.frozen)


def _group_members(group: str, options: Any, default: Any) -> list[Parameter]:
    """Return the fields of an option group as parameters; `default` is an instance, or the class if there is none."""
    members = []
    for field in dataclasses.fields(options):
        if not isinstance(default, type):
            value = getattr(default, field.name)
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            value = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        members.append(Parameter(field.name, jsonable(evaluated(field.type, options)), value, group))
    return members


def _annotation(parameter: inspect.Parameter, target: Callable[..., Any]) -> Any:
    """The reduced annotation; where there is none, the type of a default keeps text, switches and numbers apart."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return _kind_of(parameter.default)
    return jsonable(evaluated(annotation, target))


def _kind_of(default: Any) -> Any:
    if isinstance(default, bool):
        return bool
    if isinstance(default, int | float):
        return float | list[Any] | None
    return str | None if isinstance(default, str) else Any


def _checked(value: Any, parameter: Parameter) -> tuple[Any, str | None]:
    if value is None and parameter.default is None:
        return value, None
    unannotated_number = parameter.annotation == (float | list[Any] | None)
    converted, wrong = convert(value, parameter.annotation)
    return (value if unannotated_number else converted), wrong
