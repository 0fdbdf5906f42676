"""From a config to the objects of a task: the one way in which every command builds its world.

Loaders come first, since they know the classes and channels of the data; model, loss and metrics are told.
"""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

from config.build import build, build_list, callable_args
from config.shared import shared_values
from config.signatures import signature_of
from utils.catalogue import Catalogue, import_attribute
from utils.errors import ConfigError

Config = Mapping[str, Any]
SPLIT_SECTIONS = {"train": "train_loader", "valid": "valid_loader", "test": "test_loader"}
FOLDER_SPLITS = {"train": "train", "valid": "val", "test": "test"}  # names of the folders data/{train,val,test}
TASK_VALUES = ("num_classes", "in_channels", "ignore_index", "class_names")


def loader_section(config: Config, split: str) -> str | None:
    """The section that describes a split's loader; None where the config has none."""
    section = SPLIT_SECTIONS[split]
    if section in config:
        return section
    return "data_loader" if split != "test" and "data_loader" in config else None


def build_loader(
    config: Config, split: str, catalogue: Catalogue, *, as_evaluation: bool = False, seed: int | None = None
) -> Any:
    """Build the loader of a split.

    Args:
        config: A validated config.
        split: `train`, `valid` or `test`.
        catalogue: What each section may name.
        as_evaluation: In order and without augmentation, whatever the section says.
        seed: Seed of the order and the augmentation; the config's where not given.

    Returns:
        The loader; None where the config has none for this split.
    """
    section = loader_section(config, split)
    if section is None:
        return None
    if split != "train" and section != "data_loader":
        _refuse_training(config, section, catalogue)
    if as_evaluation and (section != "data_loader" or split == "train"):
        config = _as_evaluation(config, section, catalogue)
    runtime = {**shared_values(config), "seed": config.get("seed", 0) if seed is None else seed}
    trains = split == "train" or section == "data_loader"
    role = {"split": FOLDER_SPLITS["train" if trains else split], "is_training": trains, "shuffle": trains}
    loader = build(config, section, catalogue, runtime=runtime, defaults=role)
    return loader.split_validation() if section == "data_loader" and split == "valid" else loader


def build_training_loaders(config: Config, catalogue: Catalogue) -> tuple[Any, Any]:
    """The loaders of training and validation; the latter None where the config has none.

    Raises:
        ConfigError: Validation data is named twice, or would be augmented.
    """
    train_loader = build_loader(config, "train", catalogue)
    section, valid_section = loader_section(config, "train"), loader_section(config, "valid")
    if valid_section in (section, None):
        return train_loader, train_loader.split_validation()
    if callable_args(config, section or "", catalogue)[1].get("validation_split"):
        raise ConfigError(
            f"{section}.args.validation_split: holds out samples that nobody would see, since {valid_section} is the "
            "validation data. Remove one of them."
        )
    return train_loader, build_loader(config, "valid", catalogue)


def task_values(config: Config, loader: Any) -> dict[str, Any]:
    """What model, loss and metrics are told: the loader's word, else the config's.

    Raises:
        ConfigError: Loader and config disagree.
    """
    values = shared_values(config)
    for name in TASK_VALUES:
        told = getattr(loader, name, None)
        if told is None or (name == "class_names" and not told):
            continue
        if name in ("num_classes", "in_channels") and values.get(name, told) != told:
            raise ConfigError(
                f"arch.args.{name}: {values[name]} is not what the data loader has, {told}. Both must agree. "
                "Leave it out of arch.args."
            )
        values[name] = told
    return values


def build_model(config: Config, catalogue: Catalogue, values: Mapping[str, Any]) -> Any:
    """Build the network of `arch`."""
    return build(config, "arch", catalogue, runtime=values)


def build_criterion(config: Config, catalogue: Catalogue, values: Mapping[str, Any], model: Any) -> Any:
    """Build the loss; for a network with auxiliary outputs that of all of them, each with the network's weight."""
    criterion, weights = build(config, "loss", catalogue, runtime=values), getattr(model, "auxiliary_weights", ())
    return import_attribute(catalogue["loss"].companions["auxiliary"])(criterion, weights) if weights else criterion


def build_metrics(config: Config, catalogue: Catalogue, values: Mapping[str, Any]) -> list[Any]:
    """Build the metrics, an empty list where none are named."""
    return build_list(config, "metrics", catalogue, runtime=values) if config.get("metrics") else []


def build_preprocessing(config: Config, catalogue: Catalogue) -> Any:
    """Build a config's preprocessing without touching its data: what inference and export apply.

    Raises:
        ConfigError: The config's loader has no preprocessing of its own.
    """
    section = loader_section(config, "valid") or loader_section(config, "train")
    loader_class, arguments = callable_args(config, section or "train_loader", catalogue)
    make = getattr(loader_class, "make_preprocessing", None)
    if make is None:
        raise ConfigError(
            f"{section}: {loader_class.__name__} does not say how it makes an input of a picture. Using a network on "
            "other pictures needs that. Give the class a static method make_preprocessing."
        )
    known = {**shared_values(config), **arguments}
    return make(**{name: known[name] for name in inspect.signature(make).parameters if name in known})


def resolved(config: Config, catalogue: Catalogue, values: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the run-time values of its network written in: a checkpoint is rebuilt without any data."""
    complete: dict[str, Any] = copy.deepcopy(dict(config))
    model_class, arguments = callable_args(config, "arch", catalogue)
    accepted = signature_of(model_class).parameters
    spec = _spec(complete["arch"])
    known = {name: values[name] for name in ("num_classes", "in_channels") if name in values}
    known = catalogue["arch"].renamed_values(spec["type"], known)
    filled = {name: value for name, value in known.items() if name in accepted}
    complete["arch"] = {**spec, "args": {**arguments, **filled}}
    if values.get("class_names"):
        for split in SPLIT_SECTIONS:
            section = loader_section(complete, split)
            if section and "classes" in signature_of(callable_args(complete, section, catalogue)[0]).parameters:
                spec = complete[section] = _spec(complete[section])
                spec["args"] = {"classes": list(values["class_names"]), **spec.get("args", {})}
    return complete


def _spec(spec: Any) -> dict[str, Any]:
    return {"type": spec} if isinstance(spec, str) else dict(spec)


def _refuse_training(config: Config, section: str, catalogue: Catalogue) -> None:
    """Data to judge by is never augmented, whatever its section says."""
    if callable_args(config, section, catalogue)[1].get("is_training"):
        raise ConfigError(
            f"{section}.args.is_training: true would augment the data to judge by. It is false there by itself. "
            "Remove it."
        )


def _as_evaluation(config: Config, section: str, catalogue: Catalogue) -> dict[str, Any]:
    changed = copy.deepcopy(dict(config))
    loader_class, arguments = callable_args(config, section, catalogue)
    accepted = signature_of(loader_class).parameters
    quiet = {"is_training": False, "shuffle": False, "drop_last": False}
    changed[section] = {
        **_spec(changed[section]),
        "args": {**arguments, **{name: value for name, value in quiet.items() if name in accepted}},
    }
    return changed
