"""Configurations derived from a configuration, for several commands: other input sizes, known class counts.

Every function returns a copy; the configuration that it is given stays as it is.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from config.checking.classes import find_class
from config.checking.sections import LOADER_SECTIONS
from config.checking.signatures import Signature, signature_of
from config.checking.splits import HOLD_OUT, SPLIT_FOLDERS, evaluation_section, loader_section, section_of
from config.data_spec import DataSpec
from config.objects import as_object, class_and_arguments, group_arguments, values_by_parameter
from utils.errors import ConfigError
from utils.registry import Registry

Config = Mapping[str, Any]
Size = tuple[int, int]
# Arguments that ask for weights from elsewhere: ours, torchvision's, segmentation_models_pytorch's and timm's.
PRETRAINED_ARGUMENTS = {"weights": None, "weights_backbone": None, "encoder_weights": None, "pretrained": False}
# Arguments that say which samples a loader has, though they may lie in a group of options.
_SAMPLES = ("pairs_file", "folder", "split", "data_root", "samples", "subset", "subset_seed")
# Arguments by which a scheduler gets the length of the run, and takes that of the run if the file states none.
_LENGTHS = ("total_steps", "T_max")
_TAKE_TOTAL_ITERS = ("poly", "PolyLR", "PolynomialLR", "LinearLR")
# Arguments of a loader that say how a training goes, also of loaders that are none of ours.
_OF_TRAINING = ("batch_size", "shuffle", "drop_last", "n_workers", "num_workers", "is_training", "training")


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


def stated_task(config: Config, section: str | None, registry: Registry) -> str | None:
    """Return the task that the class of a loader section states; None if none does, as of many loaders of one's own."""
    if section is None:
        return None
    task: str | None = getattr(class_and_arguments(config, section, registry)[0], "task", None)
    return task


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


def window_options(config: Config, section: str, window: Sequence[int], registry: Registry) -> dict[str, Any]:
    """Return the size of sliding windows as `window_size` does, and as `windows_at_once` the loader's batch size.

    The batch size is that of the section, else the default of the loader's class, else 1.
    """
    loader_class, arguments = class_and_arguments(config, section, registry)
    parameter = signature_of(loader_class).parameters.get("batch_size")
    samples = arguments.get("batch_size", parameter.default if parameter else None)
    size = window_size(config, section, window, registry)
    return {"window": size, "windows_at_once": samples if isinstance(samples, int) else 1}


def without_pretrained_weights(config: Config) -> dict[str, Any]:
    """Return the config of the same network from scratch: its weights come from a checkpoint, none are fetched."""
    changed = copy.deepcopy(dict(config))
    spec = changed.get("arch")
    if isinstance(spec, dict) and isinstance(spec.get("args"), dict):
        spec["args"] |= {name: value for name, value in PRETRAINED_ARGUMENTS.items() if name in spec["args"]}
    return changed


def rules_without_counts(config: Config, registry: Registry) -> Iterator[dict[str, Any]]:
    """Yield the arguments of every loss that names a rule for its class weights, but not the class counts for it.

    Such a rule is "balanced". Losses within others are included.
    """
    for spec in nested_objects(config.get("loss")):
        match spec:
            case {"type": name, "args": {"weight": str()} as arguments} if arguments.get("class_counts") is None:
                if "class_counts" in signature_of(find_class(name, "loss", "loss", registry["loss"]).target).parameters:
                    yield arguments


def single_output(config: Config) -> dict[str, int]:
    """Return `num_classes` 1 if `arch` of a checked config says so: one output channel for two classes."""
    arch = config["arch"]
    arguments = (arch.get("args") if isinstance(arch, Mapping) else None) or {}
    return {"num_classes": 1} if arguments.get("num_classes") == 1 else {}


def complete_config(config: Config, spec: DataSpec, registry: Registry) -> dict[str, Any]:
    """Return the config with everything that the run learned from its data, as a checkpoint holds it.

    Network and preprocessing can be rebuilt from the completed config without any data.
    """
    complete: dict[str, Any] = copy.deepcopy(dict(config))
    arch, values = as_object(complete["arch"]), {**spec.arguments(), **single_output(config)}
    sizes: dict[str, Any] = {name: values[name] for name in ("num_classes", "in_channels", "dims") if name in values}
    network = find_class(arch["type"], "arch", "arch", registry["arch"])
    arguments = {**(arch.get("args") or {}), **values_by_parameter(network, sizes)}
    if hasattr(network.target, "complete_arguments"):  # a network of ours
        arguments = network.target.complete_arguments(arguments)
    complete["arch"] = {**arch, "args": arguments}
    if spec.class_counts is not None:
        for arguments in rules_without_counts(complete, registry):
            arguments["class_counts"] = list(spec.class_counts)
    # Values that the config states win over learned ones; null counts as not stated.
    learned = {"classes": list(spec.class_names), **spec.learned}
    for section in filter(None, (loader_section(complete, split) for split in SPLIT_FOLDERS)):
        accepted = signature_of(class_and_arguments(complete, section, registry)[0]).parameters
        filled = {name: value for name, value in learned.items() if value and name in accepted}
        if filled:
            loader = as_object(complete[section])
            given = {name: value for name, value in loader.get("args", {}).items() if value is not None}
            complete[section] = {**loader, "args": {**loader.get("args", {}), **filled, **given}}
    return complete


def nested_objects(value: Any) -> Iterator[Any]:
    """Yield every object of a section, down to the innermost."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nested_objects(item)


def merged_configs(config: Config, registry: Registry) -> list[dict[str, Any]]:
    """Return configs whose training data together is the training and validation data of a checked config.

    The first one holds nothing out. If the validation data has a section of its own, its samples are those of a second
    config, whose other arguments are those of the training data, augmentation included.

    Raises:
        ConfigError: The second one would have the samples of the first.
    """
    section, spec = loader_section(config, "train") or "train_loader", section_of(config, "train")
    args = {name: value for name, value in spec["args"].items() if name not in HOLD_OUT}
    if "validation_split" in spec["args"]:
        args["validation_split"] = 0  # the class may have another default
    others = {name: value for name, value in config.items() if name != "valid_loader"}
    first = {**others, section: {**spec, "args": args}}
    if "valid_loader" not in config or spec["args"].get("folds"):
        return [first]
    signature = signature_of(class_and_arguments(config, "valid_loader", registry)[0])
    names = {*args, *section_of(config, "valid")["args"]}
    of_training = {name for name in names if _is_of_training(name, signature)}
    joined = {name: value for name, value in args.items() if name in of_training}
    joined |= {name: value for name, value in section_of(config, "valid")["args"].items() if name not in of_training}
    if "split" in signature.parameters:
        joined.setdefault("split", SPLIT_FOLDERS["valid"])
    if joined == args:
        raise ConfigError(
            f"valid_loader: names no other samples than {section}, and trainer.train_on would learn each twice. Name "
            'other data, or write "train".'
        )
    return [first, {**others, section: {**spec, "args": joined}}]


def _is_of_training(name: str, signature: Signature) -> bool:
    """Return whether an argument says how samples are loaded in training, and not which ones."""
    parameter = signature.parameters.get(name)
    is_option = parameter is not None and parameter.group is not None
    return name not in _SAMPLES and (is_option or name in _OF_TRAINING)


def dataset_ids(config: Config, registry: Registry) -> list[int] | None:
    """Return the id of each class in the data set of a config's loader, None if it has no ids but 0..K-1."""
    loader_class, arguments = class_and_arguments(config, evaluation_section(config), registry)
    make = getattr(loader_class, "make_export_ids", None)
    if make is None:
        return None
    known = {name: value for name, value in arguments.items() if name in signature_of(make).parameters}
    ids: list[int] | None = make(**group_arguments(make, known))
    return ids


def shorten_schedule(schedule: Any) -> int:
    """Let the warm-up and each part of a chain of schedulers last for one step of the optimizer, in place.

    Then the length that a part was stated to have, in moves of the whole training, is removed.

    Args:
        schedule: The `lr_scheduler` section, also a faulty one, which is left for the validation to report.

    Returns:
        The steps that they take in all.
    """
    parts = [part for part in (schedule if isinstance(schedule, list) else [schedule]) if isinstance(part, dict)]
    moves = 0
    for part in parts:
        for name in ("warmup", "moves"):
            if isinstance(part.get(name), int) and part[name] > 0:
                part[name], moves = 1, moves + 1
    if moves:
        for part in parts:
            part["interval"] = "step"
            takes_more = str(part.get("type")).rpartition(".")[2] in _TAKE_TOTAL_ITERS
            lengths = (*_LENGTHS, "total_iters") if takes_more else _LENGTHS
            if isinstance(part.get("args"), Mapping):
                part["args"] = {name: value for name, value in part["args"].items() if name not in lengths}
    return moves
