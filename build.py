"""From a config to the objects of a task: the one way in which every command builds its world.

Loaders come first, since they know the classes and channels of the data; model, loss and metrics are told.
"""

import copy
from collections.abc import Mapping
from typing import Any

from config.checking.signatures import group_arguments, network_values, signature_of
from config.checking.specs import own_outputs, shared_values
from config.objects import class_and_arguments, instantiate, instantiate_list
from config.variants import NAME as CLASS_COUNTS
from config.variants import needs_class_counts, with_class_counts
from utils.errors import ConfigError
from utils.registry import Registry, import_attribute

Config = Mapping[str, Any]
SPLIT_SECTIONS = {"train": "train_loader", "valid": "valid_loader", "test": "test_loader"}
FOLDER_SPLITS = {"train": "train", "valid": "val", "test": "test"}  # names of the folders data/{train,val,test}
TASK_VALUES = ("num_classes", "in_channels", "ignore_index", "class_names", "learned")


def loader_section(config: Config, split: str) -> str | None:
    """The section that describes a split's loader; None where the config has none."""
    section = SPLIT_SECTIONS[split]
    if section in config:
        return section
    return "data_loader" if split != "test" and "data_loader" in config else None


def build_loader(
    config: Config,
    split: str,
    registry: Registry,
    *,
    as_evaluation: bool = False,
    seed: int | None = None,
    learned: Mapping[str, Any] | None = None,
) -> Any:
    """Build the loader of a split.

    Args:
        config: A validated config.
        split: `train`, `valid` or `test`.
        registry: What each section may name.
        as_evaluation: In order and without augmentation, whatever the section says.
        seed: Seed of the order and the augmentation; the config's where not given.
        learned: Arguments that the training data settled, for where the config is silent.

    Returns:
        The loader; None where the config has none for this split.
    """
    section = loader_section(config, split)
    if section is None:
        return None
    if split != "train" and section != "data_loader":
        _refuse_training(config, section, registry)
    if as_evaluation and (section != "data_loader" or split == "train"):
        config = _as_evaluation(config, section, registry)
    runtime = {**shared_values(config), "seed": config.get("seed", 0) if seed is None else seed}
    trains = split == "train" or section == "data_loader"
    part = "train" if trains else split
    role = {"role": part, "split": FOLDER_SPLITS[part], "is_training": trains, "shuffle": trains}
    loader = instantiate(config, section, registry, runtime=runtime, defaults={**role, **(learned or {})})
    return loader.split_validation() if section == "data_loader" and split == "valid" else loader


def build_training_loaders(config: Config, registry: Registry) -> tuple[Any, Any]:
    """The loaders of training and validation; the latter None where the config has none.

    Raises:
        ConfigError: Validation data is named twice, or would be augmented.
    """
    train_loader = build_loader(config, "train", registry)
    section, valid_section = loader_section(config, "train"), loader_section(config, "valid")
    if valid_section in (section, None):
        return train_loader, train_loader.split_validation()
    if class_and_arguments(config, section or "", registry)[1].get("validation_split"):
        raise ConfigError(
            f"{section}.args.validation_split: holds out samples that nobody would see, since {valid_section} is the "
            "validation data. Remove one of them."
        )
    return train_loader, build_loader(config, "valid", registry, learned=getattr(train_loader, "learned", None))


def task_values(config: Config, loader: Any) -> dict[str, Any]:
    """What model, loss and metrics are told: the loader's word, else the config's.

    Raises:
        ConfigError: Loader and config disagree.
    """
    values = shared_values(config)
    for name in TASK_VALUES:
        told = getattr(loader, name, None)
        if told is None or (name in ("class_names", "learned") and not told):
            continue
        if name in ("num_classes", "in_channels") and values.get(name, told) != told:
            raise ConfigError(
                f"arch.args.{name}: {values[name]} is not what the data loader has, {told}. Both must agree. "
                "Leave it out of arch.args."
            )
        values[name] = told
    return values


def training_values(config: Config, loader: Any, registry: Registry) -> dict[str, Any]:
    """`task_values`, and the classes of the training data counted where the loss asks for that.

    Raises:
        ConfigError: Loader and config disagree, or the loader does not know its classes.
        DataError: A target cannot be read.
    """
    values = task_values(config, loader)
    if needs_class_counts(config, registry):
        values[CLASS_COUNTS] = loader.class_counts()
    return values


def build_model(config: Config, registry: Registry, values: Mapping[str, Any]) -> Any:
    """Build the network of `arch`; of two classes with one channel, where `arch` says `num_classes` 1.

    Raises:
        ConfigError: Its arguments are not what the data has, or a network of torchvision gets other than colour.
    """
    values = {**values, **own_outputs(config)}
    model_class, arguments = class_and_arguments(config, "arch", registry)
    told = network_values(model_class, values)
    parameters = signature_of(model_class).parameters
    channels = values.get("in_channels")
    if model_class.__module__.startswith("torchvision.") and channels not in (None, 3) and "in_channels" not in told:
        raise ConfigError(
            f"arch.type: {model_class.__name__} takes images of 3 channels, but the loader has in_channels "
            f"{channels}. Set in_channels of the loaders to 3: grey is then repeated."
        )
    foreign = {name: value for name, value in told.items() if name not in ("num_classes", "in_channels")}
    foreign |= {name: value for name, value in told.items() if name not in parameters}
    for name, value in foreign.items():
        if arguments.get(name) not in (None, value):
            raise ConfigError(
                f"arch.args.{name}: {arguments[name]} is not what the data loader has, {value}. Both must agree. "
                "Leave it out of arch.args."
            )
    complete = {**config, "arch": {**_spec(config["arch"]), "args": {**arguments, **foreign}}} if foreign else config
    return instantiate(complete, "arch", registry, runtime=values)


def build_criterion(config: Config, registry: Registry, values: Mapping[str, Any], model: Any) -> Any:
    """Build the loss; for a network with auxiliary outputs that of all of them, each with the network's weight."""
    criterion, weights = instantiate(config, "loss", registry, runtime=values), getattr(model, "auxiliary_weights", ())
    return import_attribute(registry["loss"].companions["auxiliary"])(criterion, weights) if weights else criterion


def build_metrics(config: Config, registry: Registry, values: Mapping[str, Any]) -> list[Any]:
    """Build the metrics, an empty list where none are named."""
    return instantiate_list(config, "metrics", registry, runtime=values) if config.get("metrics") else []


def build_preprocessing(config: Config, registry: Registry) -> Any:
    """Build a config's preprocessing without touching its data: what inference and export apply.

    Raises:
        ConfigError: The config's loader has no preprocessing of its own.
    """
    section = loader_section(config, "valid") or loader_section(config, "train")
    loader_class, arguments = class_and_arguments(config, section or "train_loader", registry)
    make = getattr(loader_class, "make_preprocessing", None)
    if make is None:
        raise ConfigError(
            f"{section}: {loader_class.__name__} does not say how it makes an input of an image. Using a network on "
            "other images needs that. Give the class a static method make_preprocessing."
        )
    known = {**shared_values(config), **arguments}
    accepted = signature_of(make).parameters
    return make(**group_arguments(make, {name: known[name] for name in accepted if name in known}))


def build_export_ids(config: Config, registry: Registry) -> list[int] | None:
    """The data set's own id of each class, where its loader knows that they differ: for results in those ids."""
    section = loader_section(config, "valid") or loader_section(config, "train")
    loader_class, arguments = class_and_arguments(config, section or "train_loader", registry)
    make = getattr(loader_class, "make_export_ids", None)
    if make is None:
        return None
    accepted = signature_of(make).parameters
    known = {name: value for name, value in arguments.items() if name in accepted}
    ids: list[int] | None = make(**group_arguments(make, known))
    return ids


def resolved(config: Config, registry: Registry, values: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the run-time values of its network written in: a checkpoint is rebuilt without any data."""
    complete: dict[str, Any] = copy.deepcopy(dict(config))
    model_class, arguments = class_and_arguments(config, "arch", registry)
    spec = _spec(complete["arch"])
    told = {**values, **own_outputs(config)}
    known: Mapping[str, Any] = {name: told[name] for name in ("num_classes", "in_channels") if name in told}
    known = registry["arch"].renamed_values(spec["type"], known)
    accepted = signature_of(model_class).parameters
    filled = {name: value for name, value in known.items() if name in accepted}
    complete["arch"] = {**spec, "args": {**arguments, **network_values(model_class, told), **filled}}
    if CLASS_COUNTS in values:
        complete = with_class_counts(complete, registry, values[CLASS_COUNTS])
    learned = {"classes": list(values.get("class_names") or ()), **values.get("learned", {})}
    for section in filter(None, (loader_section(complete, split) for split in SPLIT_SECTIONS)):
        accepted = signature_of(class_and_arguments(complete, section, registry)[0]).parameters
        told = {name: value for name, value in learned.items() if value and name in accepted}
        if told:
            spec = complete[section] = _spec(complete[section])
            given = {name: value for name, value in spec.get("args", {}).items() if value is not None}
            spec["args"] = {**spec.get("args", {}), **told, **given}
    return complete


def task_of(config: Config, registry: Registry) -> str:
    """What the data of a config asks of a network: `segmentation` or `classification`; nothing is built."""
    section = loader_section(config, "valid") or loader_section(config, "train")
    return str(getattr(class_and_arguments(config, section or "train_loader", registry)[0], "task", "segmentation"))


def _spec(spec: Any) -> dict[str, Any]:
    return {"type": spec} if isinstance(spec, str) else dict(spec)


def _refuse_training(config: Config, section: str, registry: Registry) -> None:
    """Data to judge by is never augmented, whatever its section says."""
    if class_and_arguments(config, section, registry)[1].get("is_training"):
        raise ConfigError(
            f"{section}.args.is_training: true would augment the data to judge by. It is false there by itself. "
            "Remove it."
        )


def _as_evaluation(config: Config, section: str, registry: Registry) -> dict[str, Any]:
    changed = copy.deepcopy(dict(config))
    loader_class, arguments = class_and_arguments(config, section, registry)
    accepted = signature_of(loader_class).parameters
    quiet = {"is_training": False, "shuffle": False, "drop_last": False}
    changed[section] = {
        **_spec(changed[section]),
        "args": {**arguments, **{name: value for name, value in quiet.items() if name in accepted}},
    }
    return changed
