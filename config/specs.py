"""A class and its arguments as the JSON writes them: `{"type": "UNet", "args": {...}}`, or `"UNet"` alone."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from config.faults import Faults, join_path, show, unknown_name
from config.sections import LOADER_SECTIONS
from utils.catalogue import Section

WEIGHTED_LOSS = "WeightedLoss"
Items = list[tuple[Any, str]]
"""Values that should be specs, each with its JSON path."""


@dataclass(frozen=True)
class Spec:
    """A class by name, and what it is made with.

    Attributes:
        path: JSON path.
        type: Name of the class.
        args: Arguments by name.
        extras: Keys beside `type` and `args` that the section allows, e.g. a loss's `weight`.
    """

    path: str
    type: str
    args: Mapping[str, Any]
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def args_path(self) -> str:
        """JSON path of the arguments."""
        return join_path(self.path, "args")


def read_spec(value: Any, path: str, faults: Faults, extras: Collection[str] = ()) -> Spec | None:
    """Read a spec; None where it has no usable `type` or `args`, each reason in `faults`."""
    if isinstance(value, str) and value:
        return Spec(path, value, {})
    if not isinstance(value, Mapping):
        faults.add(path, f'{show(value)} must be a class. Write {{"type": NAME, "args": {{...}}}} or "NAME".')
        return None
    for key in value:
        if key not in ("type", "args", *extras):
            faults.add(join_path(path, key), unknown_name("key", key, ("type", "args", *extras)))
    name, args = value.get("type"), value.get("args")
    if not isinstance(name, str) or not name:
        wrong = f"{show(name)} must be the name of a class" if "type" in value else "missing"
        faults.add(join_path(path, "type"), f'{wrong}. Write "type": NAME.')
    if args is not None and not isinstance(args, Mapping):
        faults.add(join_path(path, "args"), f'{show(args)} must be an object. Write "args": {{NAME: VALUE}}.')
        return None
    if not isinstance(name, str) or not name:
        return None
    return Spec(path, name, args or {}, {key: value[key] for key in extras if key in value})


def read_losses(value: Any, faults: Faults) -> list[Spec]:
    """The losses of the `loss` section, one or a list, each with its weight checked."""
    items = list(enumerate(value)) if isinstance(value, list) else [("", value)]
    if not items:
        faults.add("loss", "[] names no loss. Add one.")
    specs = [read_spec(item, join_path("loss", index), faults, ("weight",)) for index, item in items]
    for spec in filter(None, specs):
        weight = spec.extras.get("weight", 1)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            faults.add(join_path(spec.path, "weight"), f"{show(weight)} must be a number.")
    return [spec for spec in specs if spec is not None]


def is_weighted(value: Any) -> bool:
    """Whether a `loss` section is a weighted sum."""
    return isinstance(value, list) or (isinstance(value, Mapping) and "weight" in value)


def section_key(path: str) -> str:
    """The key of the catalogue for a JSON path; every loader is a `data_loader`, `search` holds sections of its own."""
    head, *inner = path.split(".")
    if head == "search" and inner:
        return inner[0]
    return "data_loader" if head in LOADER_SECTIONS else head


def nested_values(spec: Spec, section: Section) -> Iterator[tuple[str, str, Items]]:
    """The arguments of a spec that hold specs: (argument, key of the catalogue, items)."""
    for name, key in section.nested.items():
        value = spec.args.get(name)
        if value is None:
            continue
        path = join_path(spec.args_path, name)
        if isinstance(value, list):
            yield name, key, [(item, join_path(path, index)) for index, item in enumerate(value)]
        else:
            yield name, key, [(value, path)]
