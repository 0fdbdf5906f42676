"""What a section of the JSON may name: the one mechanism behind every `"type"`.

Entries are strings, `"package.module:Attribute"`, imported on first use, so that listing a registry loads nothing.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


def root_of(name: str, roots: Iterable[str]) -> str | None:
    """The longest of the dotted roots that a name is under."""
    return max((root for root in roots if name.startswith(f"{root}.")), key=len, default=None)


def import_attribute(reference: str) -> Any:
    """Import what `"package.module:Attribute"` names.

    Raises:
        ImportError: The module is not there.
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
        renamed: Root -> {parameter of its classes: the run-time value that goes there}.
        adapters: Root -> reference of a function that makes an object of it one that fits here.
        companions: Role -> reference of a class that no JSON names: what the commands themselves put around an object.
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
        """The run-time values for the class of that name, under the names that its parameters have there."""
        root = root_of(name, self.renamed)
        others = self.renamed[root] if root else {}
        kept = {key: value for key, value in values.items() if key not in others.values()}
        return kept | {parameter: values[value] for parameter, value in others.items() if value in values}

    def adapter(self, name: str) -> Callable[[Any], Any] | None:
        """What an object of the class of that name must pass through; None for most."""
        root = root_of(name, self.adapters)
        return import_attribute(self.adapters[root]) if root else None

    def base_class(self) -> type:
        """The class that everything named in this section must inherit from."""
        base: type = import_attribute(self.expects)
        return base


Registry = Mapping[str, Section]
