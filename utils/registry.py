"""The registry of the classes that a section of the JSON may name: the one mechanism behind every `"type"`.

Entries are strings, `"package.module:Attribute"`, imported on first use, so that listing a registry loads nothing.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


def root_of(name: str, roots: Iterable[str]) -> str | None:
    """Return the longest of the dotted roots that contain a name, or None."""
    return max((root for root in roots if name.startswith(f"{root}.")), key=len, default=None)


def import_attribute(reference: str) -> Any:
    """Import the attribute that `"package.module:Attribute"` names.

    Raises:
        ImportError: There is no such module.
        AttributeError: The module has no such attribute.
    """
    module_name, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module_name), attribute)


@dataclass(frozen=True)
class Section:
    """The classes that one section of the JSON may name.

    Attributes:
        expects: Reference of the base class that every class named here must inherit from.
        entries: Name in the JSON -> reference of the class (or of a function that returns an `expects`).
        roots: Top-level dotted names under which any class may be named in full, e.g. `torch.optim`.
        shortcuts: Roots whose members may be named without the root, searched in this order.
        nested: Parameter name -> section; such an argument holds a spec or a list of specs of that section.
        renamed: Root -> {parameter of its classes: name of the run-time value for it}.
        adapters: Root -> reference of a function that adapts its objects to this section.
        companions: Role -> reference of a class that no JSON names; the commands themselves wrap objects in it.
    """

    expects: str
    entries: Mapping[str, str] = field(default_factory=dict)
    roots: tuple[str, ...] = ()
    shortcuts: tuple[str, ...] = ()
    nested: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    companions: Mapping[str, str] = field(default_factory=dict)

    def renamed_values(self, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the run-time values for the class `name`, under the names of its parameters."""
        root = root_of(name, self.renamed)
        others = self.renamed[root] if root else {}
        plain = {key: value for key, value in values.items() if key not in others.values()}
        return plain | {parameter: values[value] for parameter, value in others.items() if value in values}

    def adapter(self, name: str) -> Callable[[Any], Any] | None:
        """Return the function that adapts objects of the class `name`; None for most classes."""
        root = root_of(name, self.adapters)
        return import_attribute(self.adapters[root]) if root else None

    def base_class(self) -> type:
        """Import the base class of everything that this section names."""
        base: type = import_attribute(self.expects)
        return base


Registry = Mapping[str, Section]
