"""Values that several sections may state and that must be one: classes, channels, the label that counts nowhere."""

from collections.abc import Mapping
from typing import Any

from config.faults import Faults, show
from config.sections import LOADER_SECTIONS

SHARED_NAMES = ("num_classes", "in_channels", "ignore_index")


def shared_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """`num_classes`, `in_channels` and `ignore_index` as stated in the arguments of the network or of any loader.

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
            first, first_place = found.setdefault(name, (value, here))
            if first != value:
                faults.add(here, f"{show(value)}, but {first_place} is {show(first)}. Both must agree: say it once.")
    faults.raise_if_any()
    return {name: value for name, (value, _) in found.items()}
