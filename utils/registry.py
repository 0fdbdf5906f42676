"""The registry of the classes that a section of the JSON may name: the one mechanism behind every `"type"`.

Entries are strings, `"package.module:Attribute"`, imported on first use, so that listing a registry loads nothing.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def import_attribute(reference: str) -> Any:
    """Import the attribute that `"package.module:Attribute"` names.

    Raises:
        ImportError: There is no such module.
        AttributeError: The module has no such attribute.
    """
    module_name, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module_name), attribute)


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
        adapters: Root -> reference of a function that adapts its objects to this section.
        wrappers: Role -> reference of a class that no JSON names; the commands themselves wrap objects in it.
    """

    expects: str
    entries: Mapping[str, str] = field(default_factory=dict)
    roots: tuple[str, ...] = ()
    shortcuts: tuple[str, ...] = ()
    nested: Mapping[str, str] = field(default_factory=dict)
    run_values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    wrappers: Mapping[str, str] = field(default_factory=dict)


Registry = Mapping[str, Section]
