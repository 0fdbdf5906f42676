"""The config of a trained network, as inference and export take it from a checkpoint or an exported file."""

import json
from collections.abc import Mapping
from typing import Any

from config.checking.sections import shared_values
from config.checking.splits import evaluation_section
from config.faults import Faults
from config.foreign import narrowed
from config.objects import class_and_arguments
from utils.errors import ConfigError
from utils.registry import Registry


def trained_config(config: Mapping[str, Any], registry: Registry, *, has_network: bool = True) -> dict[str, Any]:
    """Return a config of which network and preprocessing can be built, and which fetches nothing.

    Only these two parts are checked; an older version may have written the others, which are not used.

    Args:
        config: From the file; it is not changed.
        registry: The classes that each section may name.
        has_network: Whether `arch` names the network; an exported file is one itself.

    Raises:
        ConfigError: Lists every fault with its JSON path.
    """
    try:
        json.dumps(config)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"the config in the file is not plain JSON ({error}). train.py writes numbers, text, lists and objects. "
            "Use another file."
        ) from error
    changed, faults = narrowed(config, opens_data=False), Faults()
    for path in ("arch", evaluation_section(changed)) if has_network else (evaluation_section(changed),):
        with faults.collecting():
            _, arguments = class_and_arguments(changed, path, registry)
            name = changed[path] if isinstance(changed[path], str) else changed[path]["type"]
            changed[path] = {"type": name, "args": arguments}
    with faults.collecting():
        shared_values(changed)
    if faults:
        raise faults.error()
    return changed
