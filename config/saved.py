"""A configuration that comes back from a checkpoint, to judge or to use its network."""

import copy
from collections.abc import Mapping
from typing import Any

from config.class_counts import carry_class_counts
from config.sections import LOADER_SECTIONS
from utils.errors import ConfigError

# Arguments that ask for weights from elsewhere: ours, torchvision's, segmentation_models_pytorch's and timm's.
PRETRAINED_ARGUMENTS = {"weights": None, "weights_backbone": None, "encoder_weights": None, "pretrained": False}

# Arguments of loaders that may be left open and follow from the training data.
LEARNED_ARGUMENTS = ("classes", "mean", "std", "scale")


def for_judging(saved: Mapping[str, Any] | None, asked: Mapping[str, Any] | None) -> dict[str, Any]:
    """The network of a checkpoint with the data, loss and metrics that are asked for.

    Args:
        saved: The checkpoint's configuration; None where it holds none.
        asked: Another configuration; what it says goes, but for `arch`. Where it names a loader, it names all.

    Raises:
        ConfigError: Neither is there.
    """
    if saved is None and asked is None:
        raise ConfigError(
            "the checkpoint holds no configuration. The network and its data must be known. Write -c FILE."
        )
    merged = copy.deepcopy(dict(saved or {}))
    if asked is not None:
        if any(section in asked for section in LOADER_SECTIONS):
            merged = {key: value for key, value in merged.items() if key not in LOADER_SECTIONS}
        merged |= copy.deepcopy(dict(asked))
        _carry_over(saved or {}, merged)
        if saved is not None and "loss" in asked:
            merged["loss"] = carry_class_counts(saved.get("loss"), asked["loss"])
    if saved is not None and "arch" in saved:
        merged["arch"] = copy.deepcopy(saved["arch"])
    return merged


def _carry_over(saved: Mapping[str, Any], merged: dict[str, Any]) -> None:
    """Give loaders of the same kind what the training data settled, where they are silent."""
    source = saved.get("train_loader") or saved.get("data_loader")
    if not isinstance(source, Mapping):
        return
    settled = {name: source.get("args", {}).get(name) for name in LEARNED_ARGUMENTS}
    for section in LOADER_SECTIONS:
        spec = merged.get(section)
        if isinstance(spec, Mapping) and spec.get("type") == source.get("type"):
            told = {name: value for name, value in settled.items() if value is not None}
            given = {name: value for name, value in spec.get("args", {}).items() if value is not None}
            merged[section] = {**spec, "args": {**spec.get("args", {}), **told, **given}}


def without_pretrained_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same network from scratch: its weights come from the checkpoint, so nothing need be fetched first."""
    changed = copy.deepcopy(dict(config))
    spec = changed.get("arch")
    if isinstance(spec, dict) and isinstance(spec.get("args"), dict):
        spec["args"] |= {name: value for name, value in PRETRAINED_ARGUMENTS.items() if name in spec["args"]}
    return changed
