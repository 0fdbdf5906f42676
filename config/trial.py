"""Configs changed for trying things out: a dry run of everything, and the overfitting of a few samples."""

import copy
from collections.abc import Mapping
from typing import Any

from utils.errors import ConfigError

DEV_RUN_STEPS = 2


def for_dev_run(config: Mapping[str, Any], save_dir: str) -> dict[str, Any]:
    """One epoch of a few steps that writes below `save_dir`."""
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    if isinstance(changed.get("trainer"), dict):  # otherwise left as it is, for the validation to report
        changed["trainer"] |= {"epochs": 1, "len_epoch": DEV_RUN_STEPS, "save_dir": save_dir, "early_stop": None}
    services = changed.get("visualization")
    if isinstance(services, dict):  # nothing of a trial goes anywhere else
        for name, quiet in (("wandb", {"mode": "disabled"}), ("mlflow", {"tracking_uri": None})):
            if isinstance(services.get(name), dict):
                services[name] |= quiet
    return changed


def for_overfit(config: Mapping[str, Any], samples: int) -> dict[str, Any]:
    """Train on the first samples without augmentation and validate on the same ones.

    Raises:
        ConfigError: The number is not positive.
    """
    if samples < 1:
        raise ConfigError(f"--overfit {samples}: at least one sample is needed. Write for example --overfit 4.")
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    section = changed.get("train_loader") or changed.get("data_loader")
    spec: dict[str, Any] = section if isinstance(section, dict) else {"type": section} if section else {}
    arguments = spec.get("args") or {}
    if not spec or not isinstance(arguments, dict) or not isinstance(changed.get("trainer"), dict):
        return changed  # for the validation to report
    asked = arguments.get("batch_size", samples)
    batch_size = min(asked, samples) if isinstance(asked, int) else asked
    arguments = {
        key: value for key, value in arguments.items() if key not in ("validation_split", "folds", "drop_last")
    }
    if "folder" in arguments or "path" in arguments:
        arguments.setdefault("split", "train")
    arguments |= {"samples": samples, "is_training": False, "shuffle": False, "batch_size": batch_size}
    changed.pop("data_loader", None)
    changed["train_loader"] = {**spec, "args": arguments}
    changed["valid_loader"] = copy.deepcopy(changed["train_loader"])
    changed["trainer"]["early_stop"] = None
    if isinstance(changed.get("name"), str):
        changed["name"] += "_overfit"  # in a folder of its own: not to be taken for a run of the config
    return changed
