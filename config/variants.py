"""Configurations derived from a configuration: trial runs, other input sizes, the data of another file.

Every function returns a copy; the configuration that it is given stays as it is.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from config.checking.classes import find_class
from config.checking.sections import LOADER_SECTIONS
from config.checking.signatures import signature_of
from config.objects import class_and_arguments
from utils.errors import ConfigError
from utils.registry import Registry

Config = Mapping[str, Any]
Size = tuple[int, int]

DEV_RUN_STEPS = 2
NAME = "class_counts"
# Arguments that ask for weights from elsewhere: ours, torchvision's, segmentation_models_pytorch's and timm's.
PRETRAINED_ARGUMENTS = {"weights": None, "weights_backbone": None, "encoder_weights": None, "pretrained": False}
# Arguments of loaders that may be left open and follow from the training data.
LEARNED_ARGUMENTS = ("classes", "mean", "std", "scale")


def for_dev_run(config: Config, save_dir: str) -> dict[str, Any]:
    """Return the config of one epoch of a few steps that writes below `save_dir`, and to no service."""
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    if isinstance(changed.get("trainer"), dict):  # otherwise left as it is, for the validation to report
        changed["trainer"] |= {"epochs": 1, "len_epoch": DEV_RUN_STEPS, "save_dir": save_dir, "early_stop": None}
    services = changed.get("visualization")
    if isinstance(services, dict):
        for name, quiet in (("wandb", {"mode": "disabled"}), ("mlflow", {"tracking_uri": None})):
            if isinstance(services.get(name), dict):
                services[name] |= quiet
    return changed


def for_overfit(config: Config, samples: int) -> dict[str, Any]:
    """Return a config that trains on the first samples without augmentation and validates on the same ones.

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
        changed["name"] += "_overfit"  # a folder that is not taken for one of the config's runs
    return changed


def input_size(config: Config, section: str, registry: Registry) -> Size | None:
    """Return the (height, width) that a loader section resizes images to; None if each keeps its size."""
    resize = class_and_arguments(config, section, registry)[1].get("resize")
    if resize is None:
        return None
    # One number means a square.
    return (resize, resize) if isinstance(resize, int) else (resize[0], resize[1])


def with_input_size(config: Config, size: Sequence[int] | None, registry: Registry, **more: Any) -> dict[str, Any]:
    """Return the config with images at another size.

    Args:
        config: A config.
        size: (height, width) of the input; None lets every image keep its size.
        registry: The classes that each section may name.
        more: Further arguments for the loaders that take them.

    Raises:
        ConfigError: No loader of the config has an argument for sizes.
    """
    changed = copy.deepcopy(dict(config))
    sections = [section for section in LOADER_SECTIONS if changed.get(section) is not None]
    new = {"resize": None if size is None else list(size), **more}
    is_known = False
    for section in sections:
        loader_class, arguments = class_and_arguments(changed, section, registry)
        accepted = signature_of(loader_class).parameters
        if "resize" in accepted:
            is_known = True
            spec = {"type": changed[section]} if isinstance(changed[section], str) else changed[section]
            taken = {name: value for name, value in new.items() if name in accepted}
            changed[section] = {**spec, "args": {**arguments, **taken}}
    if not is_known:
        raise ConfigError(
            f"{', '.join(sections) or 'the config'}: no loader has an argument resize. Another size of the input "
            "(--size), or windows over images at their own size (--window), need one. Leave that option out."
        )
    return changed


def window_size(config: Config, section: str, window: Sequence[int], registry: Registry) -> Size:
    """Return the (height, width) of sliding windows.

    Args:
        config: A config.
        section: The loader section whose size is the default.
        window: Height and width, one number for a square, or none: the size of the network's input.
        registry: The classes that each section may name.

    Raises:
        ConfigError: There are more than two numbers, or the size of the input is not known.
    """
    if len(window) > 2:
        raise ConfigError(
            f"--window {' '.join(map(str, window))}: a window has a height and a width. Write --window 512 512."
        )
    size = (window[0], window[-1]) if window else input_size(config, section, registry)
    if size is None:
        raise ConfigError(
            f"--window: {section} has no resize, so the size of the network's input is not known. Write the size of "
            "the window: --window 512 512."
        )
    return size


def needs_class_counts(config: Config, registry: Registry) -> bool:
    """Whether a loss names a rule for its class weights, such as "balanced", but not the class counts for it."""
    return any(_rules_without_counts(config.get("loss"), registry))


def with_class_counts(config: Config, registry: Registry, counts: Sequence[int]) -> dict[str, Any]:
    """Return the config with the class counts written next to each rule for class weights."""
    complete = copy.deepcopy(dict(config))
    for arguments in _rules_without_counts(complete.get("loss"), registry):
        arguments[NAME] = list(counts)
    return complete


def _rules_without_counts(section: Any, registry: Registry) -> Iterator[dict[str, Any]]:
    """Yield the arguments of every loss, nested ones included, that lacks the counts for its rule."""
    for spec in _objects_in(section):
        arguments = spec.get("args")
        if isinstance(arguments, dict) and isinstance(arguments.get("weight"), str) and arguments.get(NAME) is None:
            loss_class = find_class(spec["type"], "loss", "loss", registry["loss"])
            if NAME in signature_of(loss_class).parameters:
                yield arguments


def for_judging(saved: Config | None, asked: Config | None) -> dict[str, Any]:
    """Return the network of a checkpoint with the data, loss and metrics that are asked for.

    Args:
        saved: The checkpoint's configuration; None if it holds none.
        asked: Another configuration, which replaces all but `arch`. If it names a loader, it names all.

    Raises:
        ConfigError: Neither is there.
    """
    if saved is None and asked is None:
        raise ConfigError(
            "the checkpoint holds no configuration. The network and its data must be known. Write -c FILE."
        )
    saved, merged = saved or {}, copy.deepcopy(dict(saved or {}))
    if asked is not None:
        # Loaders of two files would not fit together: one "data_loader", or one for each split.
        if any(section in asked for section in LOADER_SECTIONS):
            merged = {key: value for key, value in merged.items() if key not in LOADER_SECTIONS}
        merged |= copy.deepcopy(dict(asked))
        _carry_over_learned_arguments(saved, merged)
        counts = next((item[NAME] for item in _objects_in(saved.get("loss")) if item.get(NAME)), None)
        for item in _objects_in(merged.get("loss")):
            if isinstance(item.get("weight"), str) and item.get(NAME) is None and counts is not None:
                item[NAME] = list(counts)
    if "arch" in saved:  # the weights of the checkpoint fit no other network
        merged["arch"] = copy.deepcopy(saved["arch"])
    return merged


def _carry_over_learned_arguments(saved: Config, merged: dict[str, Any]) -> None:
    """Give loaders of the same kind the values that follow from the training data, if they do not have them."""
    source = saved.get("train_loader") or saved.get("data_loader")
    if not isinstance(source, Mapping):
        return
    learned = {name: value for name in LEARNED_ARGUMENTS if (value := source.get("args", {}).get(name)) is not None}
    for section in LOADER_SECTIONS:
        spec = merged.get(section)
        if isinstance(spec, Mapping) and spec.get("type") == source.get("type"):
            args = spec.get("args", {})
            given = {name: value for name, value in args.items() if value is not None}
            merged[section] = {**spec, "args": {**args, **learned, **given}}


def _objects_in(value: Any) -> Iterator[Any]:
    """Yield every object of a section, down to the innermost."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects_in(item)


def without_pretrained_weights(config: Config) -> dict[str, Any]:
    """Return the config of the same network from scratch: its weights come from a checkpoint, none are fetched."""
    changed = copy.deepcopy(dict(config))
    spec = changed.get("arch")
    if isinstance(spec, dict) and isinstance(spec.get("args"), dict):
        spec["args"] |= {name: value for name, value in PRETRAINED_ARGUMENTS.items() if name in spec["args"]}
    return changed
