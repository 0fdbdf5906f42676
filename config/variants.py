"""Other sizes of a network's input than the one it was trained with."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from config.checking.classes import find_class
from config.checking.sections import LOADER_SECTIONS
from config.checking.signatures import signature_of
from config.checking.specs import Spec, nested_values, read_losses, read_spec
from config.faults import Faults
from config.objects import class_and_arguments
from utils.errors import ConfigError
from utils.registry import Registry

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


Size = tuple[int, int]


def input_size(config: Mapping[str, Any], section: str, registry: Registry) -> Size | None:
    """The (height, width) that a loader section brings images to; None where each keeps its own."""
    resize = class_and_arguments(config, section, registry)[1].get("resize")
    if resize is None:
        return None
    return (resize, resize) if isinstance(resize, int) else (resize[0], resize[1])


def with_input_size(
    config: Mapping[str, Any], size: Sequence[int] | None, registry: Registry, **more: Any
) -> dict[str, Any]:
    """The config with images at another size.

    Args:
        config: A config.
        size: (height, width) of the input; None lets every image keep its own size.
        registry: What each section may name.
        more: Further arguments for the loaders that take them.

    Raises:
        ConfigError: No loader of the config knows of sizes.
    """
    changed = copy.deepcopy(dict(config))
    sections = [section for section in LOADER_SECTIONS if changed.get(section) is not None]
    is_known = False
    for section in sections:
        loader_class, arguments = class_and_arguments(changed, section, registry)
        accepted = signature_of(loader_class).parameters
        if "resize" not in accepted:
            continue
        is_known = True
        spec = {"type": changed[section]} if isinstance(changed[section], str) else dict(changed[section])
        new = {"resize": None if size is None else list(size), **more}
        taken = {name: value for name, value in new.items() if name in accepted}
        changed[section] = {**spec, "args": {**arguments, **taken}}
    if not is_known:
        raise ConfigError(
            f"{', '.join(sections) or 'the config'}: no loader has an argument resize. Another size of the input "
            "(--size), or windows over images at their own size (--window), need one. Leave that option out."
        )
    return changed


def window_size(config: Mapping[str, Any], section: str, window: Sequence[int], registry: Registry) -> Size:
    """The (height, width) of sliding windows.

    Args:
        config: A config.
        section: The loader section whose size is the window's where none is named.
        window: Height and width, one number for a square, or none: the size of the network's input.
        registry: What each section may name.

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
            f"--window: {section} has no resize, so the size of the network's input is not known. Write the window's "
            "own: --window 512 512."
        )
    return size


NAME = "class_counts"


def needs_class_counts(config: Mapping[str, Any], registry: Registry) -> bool:
    """Whether a loss names a rule for its class weights, such as "balanced", and no counts to follow it by."""
    return any(_asking(config.get("loss"), registry))


def with_class_counts(config: Mapping[str, Any], registry: Registry, counts: Sequence[int]) -> dict[str, Any]:
    """The config with the counts written beside each rule."""
    complete = copy.deepcopy(dict(config))
    for spec in list(_asking(complete.get("loss"), registry)):
        _write(spec.args, counts)
    return complete


def carry_class_counts(saved: Any, asked: Any) -> Any:
    """The `loss` section that is asked for, with the counts that a checkpoint's has, where its rules have none."""
    counts = next((item[NAME] for item in _objects(saved) if item.get(NAME)), None)
    carried = copy.deepcopy(asked)
    if counts is not None:
        for item in _objects(carried):
            if isinstance(item.get("weight"), str) and item.get(NAME) is None:
                _write(item, counts)
    return carried


def _asking(section: Any, registry: Registry) -> Iterator[Spec]:
    faults = Faults()
    waiting = read_losses(section, faults)
    faults.raise_if_any()
    while waiting:
        spec = waiting.pop()
        for _, _, items in nested_values(spec, registry["loss"]):
            waiting += [nested for value, path in items if (nested := read_spec(value, path, faults)) is not None]
        if isinstance(spec.args.get("weight"), str) and spec.args.get(NAME) is None:
            target = find_class(spec.type, spec.path, "loss", registry["loss"])
            if NAME in signature_of(target).parameters:
                yield spec


def _objects(value: Any) -> Iterator[Any]:
    """Every object of a section, down to the innermost."""
    if isinstance(value, dict):
        yield value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _objects(item)


def _write(args: Any, counts: Sequence[int]) -> None:
    args[NAME] = list(counts)


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
