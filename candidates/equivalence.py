"""Which drawn configs train the same network."""

from collections.abc import Mapping
from typing import Any

import models
from base.base_model import BaseModel
from config.resolve import resolve
from utils.errors import ConfigError


def canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """A drawn config with the arguments of its network in the form that the network's class gives them."""
    arch = config.get("arch")
    if not isinstance(arch, Mapping) or not isinstance(arch.get("args"), Mapping):
        return dict(config)
    try:
        target = resolve(arch["type"], "arch", "arch", models.SECTIONS["arch"])
    except ConfigError:
        return dict(config)  # it is refused when it is built, with the reason
    if not (isinstance(target, type) and issubclass(target, BaseModel)):
        return dict(config)
    return {**config, "arch": {**arch, "args": target.canonical_arguments(arch["args"])}}
