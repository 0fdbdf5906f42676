"""Whether arguments bind to a signature and hold to its annotations, found out without calling anything."""

import enum
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from config.annotations import convert, evaluated, jsonable
from config.faults import Faults, join_path, show, unknown_name

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


@dataclass(frozen=True)
class Parameter:
    """One parameter of a class.

    Attributes:
        name: As in the JSON.
        annotation: What a JSON value must satisfy; `Any` where nothing is known.
        default: The default, `inspect.Parameter.empty` where it is required.
    """

    name: str
    annotation: Any
    default: Any

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty

    @property
    def fetches_by_default(self) -> bool:
        """Whether the default names weights on the network, as torchvision's and segmentation_models_pytorch's do."""
        names_weights = self.name in FETCHED_ARGUMENTS and isinstance(self.default, str)
        return names_weights or (isinstance(self.default, enum.Enum) and hasattr(self.default, "url"))


@dataclass(frozen=True)
class Signature:
    """What a class or function takes by name.

    Attributes:
        parameters: Name -> parameter.
        takes_more: Whether it has `**kwargs`, so that any further name binds.
    """

    parameters: Mapping[str, Parameter]
    takes_more: bool

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
            signature = Signature({**inherited.parameters, **signature.parameters}, inherited.takes_more)
    return signature


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
    named = {
        parameter.name: Parameter(parameter.name, _annotation(parameter, target), parameter.default)
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return Signature(named, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters))


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
