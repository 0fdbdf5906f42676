"""Values that several sections may state and that must be one: classes, channels, the label that counts nowhere."""

from collections.abc import Mapping
from typing import Any

from config.faults import Faults, show
from config.sections import LOADER_SECTIONS

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
