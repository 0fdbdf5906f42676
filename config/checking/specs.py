"""A class and its arguments as the JSON writes them: `{"type": "UNet", "args": {...}}`, or `"UNet"` alone."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from config.checking.sections import LOADER_SECTIONS
from config.faults import Faults, join_path, show, unknown_name
from utils.registry import Section

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
    """The key of the registry for a JSON path; every loader is a `data_loader`, `search` holds sections of its own."""
    head, *inner = path.split(".")
    if head == "search" and inner:
        return inner[0]
    return "data_loader" if head in LOADER_SECTIONS else head


def nested_values(spec: Spec, section: Section) -> Iterator[tuple[str, str, Items]]:
    """The arguments of a spec that hold specs: (argument, key of the registry, items)."""
    for name, key in section.nested.items():
        value = spec.args.get(name)
        if value is None:
            continue
        path = join_path(spec.args_path, name)
        if isinstance(value, list):
            yield name, key, [(item, join_path(path, index)) for index, item in enumerate(value)]
        else:
            yield name, key, [(value, path)]


ONE_CHANNEL = {"num_classes": 1}
SHARED_NAMES = ("num_classes", "in_channels", "ignore_index")


def shared_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """`num_classes`, `in_channels` and `ignore_index` as stated in the arguments of the network or of any loader.

    A network with `num_classes` 1 tells two classes apart by the sign of its one channel.

    Raises:
        ConfigError: Two places disagree.
    """
    faults = Faults()
    found: dict[str, tuple[Any, str]] = {}
    for section in ("arch", *LOADER_SECTIONS):
        spec = config.get(section)
        args = spec.get("args") if isinstance(spec, Mapping) else None
        for name in SHARED_NAMES:
            value = args.get(name) if isinstance(args, Mapping) else None
            if not isinstance(value, int) or isinstance(value, bool):
                continue
            here = f"{section}.args.{name}"
            if section == "arch" and {name: value} == ONE_CHANNEL:
                value, here = 2, f"{here} (1: one channel for two classes)"
            first, first_place = found.setdefault(name, (value, here))
            if first != value:
                faults.add(here, f"{show(value)}, but {first_place} is {show(first)}. Both must agree: say it once.")
    faults.raise_if_any()
    return {name: value for name, (value, _) in found.items()}


def own_outputs(config: Mapping[str, Any]) -> dict[str, int]:
    """What the network alone is told: one output channel, where `arch` says so, for the two classes of the task."""
    arch = config.get("arch")
    args = arch.get("args") if isinstance(arch, Mapping) else None
    is_binary = isinstance(args, Mapping) and {"num_classes": args.get("num_classes")} == ONE_CHANNEL
    return dict(ONE_CHANNEL) if is_binary else {}
