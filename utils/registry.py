"""The registry of the classes that a section of the JSON may name: the one mechanism behind every `"type"`.

Entries are strings, `"package.module:Attribute"`, imported on first use, so that listing a registry loads nothing.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TARGET_NAMES = ("target", "targets", "label", "labels", "mask", "masks", "truth", "y", "y_true")
"""Names of the second parameter by which a function is known as a loss or a metric."""


def import_attribute(reference: str) -> Any:
    """Import the attribute that `"package.module:Attribute"` names.

    Raises:
        ImportError: There is no such module.
        AttributeError: The module has no such attribute.
    """
    module_name, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module_name), attribute)


def takes_output_and_target(target: Any) -> bool:
    """Return whether a callable is a function whose first two parameters are a network's output and its target.

    The second must be called so, as `def accuracy(output, target)`; the first may have any name.
    """
    if not inspect.isfunction(target):
        return False
    written = list(inspect.signature(target).parameters.values())[:2]
    required = [item for item in written if item.default is item.empty and item.kind is item.POSITIONAL_OR_KEYWORD]
    return len(required) == 2 and required[1].name in TARGET_NAMES


@functools.lru_cache(maxsize=512)
def as_class(function: Callable[..., Any], wrapper: Callable[..., Any]) -> Callable[..., Any]:
    """Return a builder of objects that compute a function (output, target, further arguments).

    Its signature is that of the further arguments.

    Args:
        function: The function.
        wrapper: (function, further arguments by name) -> object.
    """

    @functools.wraps(function)
    def build(**arguments: Any) -> Any:
        return wrapper(function, arguments)

    signature = inspect.signature(function)
    further = list(signature.parameters.values())[2:]
    build.__signature__ = signature.replace(parameters=further)  # type: ignore[attr-defined]
    return build


def given_arguments(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments without those that are None although the function has another default."""
    defaults = {name: each.default for name, each in inspect.signature(function).parameters.items()}
    return {name: value for name, value in arguments.items() if value is not None or defaults.get(name) is None}


class OptionGroup:
    """Base of the frozen dataclasses whose fields the JSON names directly in the `args` of a class that takes them."""


@dataclass(frozen=True)
class Section:
    """The classes that one section of the JSON may name.

    Attributes:
        expects: Reference of the base class that every class named here must inherit from.
        entries: Name in the JSON -> reference of the class (or of a function that returns an `expects`).
        roots: Top-level dotted names under which any class may be named in full, e.g. `torch.optim`.
        shortcuts: Roots whose members may be named without the root, searched in this order.
        nested: Parameter name -> section; such an argument holds a spec or a list of specs of that section.
        run_values: Root -> {parameter of its classes, also if it passes through `**kwargs`: run-time value for it}.
        presets: Root -> {class under it: arguments that it gets unless the JSON has them}.
        adapters: Root -> reference of a function that adapts its objects to this section.
        subclasses: Root -> reference of a function: a class under it -> the subclass to build instead.
        unfetched: Function of a library that builds by a name -> reference of a function: its arguments -> those with
            which it fetches no weights, unless the JSON has them.
        wrappers: Role -> reference of a class that no JSON names; the commands themselves wrap objects in it.
        function_wrapper: Reference of the class of this section that a function (output, target) becomes; "": none.
    """

    expects: str
    entries: Mapping[str, str] = field(default_factory=dict)
    roots: tuple[str, ...] = ()
    shortcuts: tuple[str, ...] = ()
    nested: Mapping[str, str] = field(default_factory=dict)
    run_values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    subclasses: Mapping[str, str] = field(default_factory=dict)
    unfetched: Mapping[str, str] = field(default_factory=dict)
    wrappers: Mapping[str, str] = field(default_factory=dict)
    function_wrapper: str = ""


Registry = Mapping[str, Section]
