"""From a checked config to the objects of a run: data, network, loss, metrics, optimizer, schedule, trainer.

Every command builds its objects here, in this order. The loaders come first: the data settle the classes and channels
that network, loss and metrics are built for. They are one `DataSpec`, of which a class gets the values that it names.

Heavy packages (torch with all that uses it) are imported inside the functions that need them: `train.py --help` and a
faulty config are answered without them, and a program that only predicts never loads the trainer.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import (
    DataSpec,
    as_object,
    call_with_arguments,
    class_and_arguments,
    group_arguments,
    instantiate,
    load_plugins,
    shared_values,
    signature_of,
    trained_config,
    trainer_options,
    variants,
)
from config.checking.splits import SPLIT_FOLDERS, evaluation_section, is_merged, loader_section
from utils.errors import CheckpointError, ConfigError
from utils.registry import Section, import_attribute

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from base import BaseDataLoader, BaseTrainer, Metric
    from base.schedule import LearningRateSchedule
    from models.inference.views import Views
    from predictor.classifier import Classifier
    from predictor.segmenter import Segmenter
    from trainer.runtime.devices import World
    from trainer.trainer import TrainingPlan

Config = Mapping[str, Any]


def registry() -> dict[str, Section]:
    """Return everything that a config may name, by section."""
    import data_loader
    import models
    import trainer
    from search.registry import REGISTRY

    return {**models.SECTIONS, **data_loader.SECTIONS, **trainer.SECTIONS, **REGISTRY}


def build_loader(
    config: Config,
    split: str,
    *,
    as_evaluation: bool = False,
    learned: Mapping[str, Any] | None = None,
) -> "BaseDataLoader | None":
    """Build the loader of a split.

    Args:
        config: A validated config.
        split: `train`, `valid` or `test`.
        as_evaluation: Load in order and without augmentation, even if the section describes training data.
        learned: Arguments that the training data settled (class names, statistics), for those that the config omits.

    Returns:
        The loader, None if the config has none for this split.

    Raises:
        ConfigError: Validation or test data would be augmented.
    """
    section = loader_section(config, split)
    if section is None:
        return None
    loader_class, arguments = class_and_arguments(config, section, registry())
    if split != "train" and section != "data_loader" and arguments.get("is_training"):
        raise ConfigError(
            f"{section}.args.is_training: true would augment the data to evaluate on. It is false there by default. "
            "Remove it."
        )
    if as_evaluation and (section != "data_loader" or split == "train"):
        accepted = signature_of(loader_class).parameters
        ordered = {"is_training": False, "shuffle": False, "drop_last": False}
        arguments |= {name: value for name, value in ordered.items() if name in accepted}
        config = {**config, section: {**as_object(config[section]), "args": arguments}}
    # The section `data_loader` describes training data, of which `validation_split` holds out a part for validation.
    is_training = split == "train" or section == "data_loader"
    role = "train" if is_training else split
    known = {"role": role, "split": SPLIT_FOLDERS[role], "is_training": is_training, "shuffle": is_training}
    runtime, defaults = {**shared_values(config), "seed": config.get("seed", 0)}, {**known, **(learned or {})}
    loader = instantiate(config, section, registry(), runtime=runtime, defaults=defaults)
    return loader.split_validation() if section == "data_loader" and split == "valid" else loader  # type: ignore[no-any-return]


def build_loaders(config: Config) -> "tuple[BaseDataLoader, BaseDataLoader | None]":
    """Build the loaders of training and validation; the latter is None if the config has none, or trains on both.

    Raises:
        ConfigError: They do not fit together, or validation data would be augmented.
    """
    if is_merged(config):
        return build_merged_loader(config), None
    train_loader = build_loader(config, "train")
    assert train_loader is not None  # a validated config has training data
    if loader_section(config, "valid") in (loader_section(config, "train"), None):  # both are parts of one data set
        return train_loader, train_loader.split_validation()
    valid_loader = build_loader(config, "valid", learned=train_loader.learned)
    assert valid_loader is not None
    require_agreement(config, train_loader, valid_loader)
    return train_loader, valid_loader


def build_merged_loader(config: Config) -> "BaseDataLoader":
    """Build the loader of a training on training and validation data together.

    Raises:
        ConfigError: They do not fit together, or are the same.
    """
    from data_loader.common.joined import joined_loader

    first, *others = variants.merged_configs(config, registry())
    train_loader = build_loader(first, "train")
    assert train_loader is not None  # a validated config has training data
    for other in others:
        valid_loader = build_loader(other, "train", learned=train_loader.learned)
        assert valid_loader is not None
        require_agreement(config, train_loader, valid_loader)
        train_loader = joined_loader(train_loader, valid_loader)
    return train_loader


def require_agreement(config: Config, train_loader: "BaseDataLoader", valid_loader: "BaseDataLoader") -> None:
    """Refuse loaders of training and validation, of two sections, that do not fit together.

    Raises:
        ConfigError: Validation data is named twice, or has other classes.
    """
    from base.samples import require_same_classes

    section, valid_section = loader_section(config, "train") or "", loader_section(config, "valid") or ""
    if class_and_arguments(config, section, registry())[1].get("validation_split"):
        raise ConfigError(
            f"{section}.args.validation_split: holds out samples that would not be used, since {valid_section} is the "
            "validation data. Remove one of them."
        )
    require_same_classes(valid_loader.class_names, f"{valid_section}.args.classes", train_loader.class_names, section)


def read_data_spec(config: Config, loader: "BaseDataLoader", *, count_classes: bool = False) -> DataSpec:
    """Return the properties of a loader's data, completed by the values that the config states.

    Args:
        config: A validated config.
        loader: The loader of the data.
        count_classes: Count the targets of each class, if the loss weighs classes by a rule such as "balanced".

    Raises:
        ConfigError: Loader and config disagree, or classes cannot be counted since their number is not known.
        DataError: A target cannot be read.
    """
    values = shared_values(config)
    for name in ("num_classes", "in_channels", "dims", "ignore_index", "class_names", "learned"):
        value = getattr(loader, name, None)
        if name in ("num_classes", "in_channels") and value is not None and values.get(name, value) != value:
            raise ConfigError(
                f"{loader_section(config, 'train')}: its data has {name} {value}, and arch.args.{name} is "
                f"{values[name]}. Both must agree. Remove arch.args.{name}, or correct the data."
            )
        if value is not None:
            values[name] = value
    if count_classes and any(variants.rules_without_counts(config, registry())):
        values["class_counts"] = loader.class_counts()
    return DataSpec(**values)


def build_preprocessing(config: Config) -> Any:
    """Build the preprocessing of a config without its data, for inference and export.

    Raises:
        ConfigError: The config's loader does not say how it preprocesses an image.
    """
    section = evaluation_section(config)
    loader_class, arguments = class_and_arguments(config, section, registry())
    make = getattr(loader_class, "make_preprocessing", None)
    if make is None:
        raise ConfigError(
            f"{section}: {loader_class.__name__} does not say how it makes an input of an image. Using a network on "
            "other images needs that. Give the class a static method make_preprocessing."
        )
    return call_with_arguments(make, {**shared_values(config), **arguments}, section)


def build_model(config: Config, spec: DataSpec) -> "nn.Module":
    """Build the network of `arch`.

    A network for which `arch` says `num_classes` 1 gets one output channel for the two classes of the data.

    Raises:
        ConfigError: Its arguments contradict the data, or a network of torchvision gets other than three channels.
    """
    from base.subsampled_convolution import without_idle_dilation

    names, values = registry(), {**spec.arguments(), **variants.single_output(config)}
    model_class = class_and_arguments(config, "arch", names)[0]
    takes_three = model_class.__module__.startswith("torchvision.") and (
        "in_channels" not in signature_of(model_class).parameters
    )
    if takes_three and spec.in_channels not in (None, 3):
        raise ConfigError(
            f"arch.type: {model_class.__name__} takes images of 3 channels, but the loader has in_channels "
            f"{spec.in_channels}. Set in_channels of the loaders to 3: grey is then repeated."
        )
    return without_idle_dilation(instantiate(config, "arch", names, runtime=values))


def build_network(config: Config, spec: DataSpec, plan: "TrainingPlan") -> "nn.Module":
    """Build the network of a training on its device, unless it is too large to be trained there.

    Raises:
        OutOfMemory: Its weights, with all that a training has for each of them, do not fit.
    """
    from trainer.inspection.size import build_within_memory

    model = build_within_memory(
        lambda: build_model(config, spec),
        plan,
        lambda weights: instantiate(config, "optimizer", registry(), runtime={"params": weights}),
    )
    return model.to(plan.precision.device, memory_format=plan.precision.memory_format)  # type: ignore[call-overload,no-any-return]


def build_loss(config: Config, spec: DataSpec, model: "nn.Module") -> "nn.Module":
    """Build the loss: (output, target) -> ().

    For a network with auxiliary outputs it is the sum over all of them, each with the weight that the network names.
    """
    loss = instantiate(config, "loss", registry(), runtime=spec.arguments())
    weights = getattr(model, "auxiliary_weights", ())
    return import_attribute(registry()["loss"].wrappers["auxiliary"])(loss, weights) if weights else loss  # type: ignore[no-any-return]


def build_metrics(config: Config, spec: DataSpec, left_out: Collection[str] = ()) -> "list[Metric]":
    """Build the metrics, an empty list if none are named, without those at the paths that are left out.

    Raises:
        ConfigError: Two results of a run would have the same name.
    """
    from base.base_metric import check_result_names

    paths = [path for index in range(len(config.get("metrics", []))) if (path := f"metrics.{index}") not in left_out]
    metrics: list[Metric] = [instantiate(config, path, registry(), runtime=spec.arguments()) for path in paths]
    check_result_names(dict(zip(paths, metrics, strict=True)))
    return metrics


def build_optimizer(config: Config, model: "nn.Module") -> "Optimizer":
    """Build the optimizer over the parameters of a network, in groups if the `optimizer` section asks for them.

    Raises:
        ConfigError: A rule of a group matches no part of the network.
    """
    from trainer.optim.optimizers import with_lookahead
    from trainer.optim.weights import GroupRule, parameter_groups

    spec = as_object(config["optimizer"])
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if any(name in spec for name in ("decay_norm_and_bias", "groups", "layer_decay")):
        groups = parameter_groups(
            model,
            spec.get("args", {}).get("lr"),
            decay_norm_and_bias=spec.get("decay_norm_and_bias", True),
            rules=[GroupRule(**group) for group in spec.get("groups", [])],
            layer_decay=spec.get("layer_decay"),
        )
    return with_lookahead(instantiate(config, "optimizer", registry(), runtime={"params": groups}), spec)


def build_schedule(
    config: Config, optimizer: "Optimizer", plan: "TrainingPlan", steps_per_epoch: int
) -> "LearningRateSchedule | None":
    """Build the learning-rate schedule of the `lr_scheduler` section, None if there is none.

    Raises:
        ConfigError: The parts of a chain do not fit together, or not into the run.
    """
    from trainer.optim.schedules import combine_schedulers

    if not config.get("lr_scheduler"):
        return None

    def build_scheduler(path: str, defaults: Mapping[str, Any]) -> Any:
        return instantiate(config, path, registry(), runtime={"optimizer": optimizer}, defaults=defaults)

    length = {"epochs": plan.epochs, "steps_per_epoch": steps_per_epoch}
    return combine_schedulers(config["lr_scheduler"], optimizer, build_scheduler, **length, monitor=plan.monitor)


def count_steps(config: Config, plan: "TrainingPlan", train_loader: "BaseDataLoader") -> int:
    """Return the steps of an epoch of the config's trainer, before it is built."""
    kind = class_and_arguments({"trainer": trainer_options(config)}, "trainer", registry())[0]
    # A function of a plug-in may build the trainer.
    return plan.steps_per_epoch(len(kind.step_loader(train_loader) if hasattr(kind, "step_loader") else train_loader))


def build_trainer(config: Config, model: "nn.Module", optimizer: "Optimizer", **parts: Any) -> "BaseTrainer":
    """Build the trainer of the `trainer` section from the other parts of a training.

    Raises:
        ConfigError: It monitors a result that no epoch will have.
    """
    trainer_class, arguments = class_and_arguments({"trainer": trainer_options(config)}, "trainer", registry())
    trainer: BaseTrainer = trainer_class(model, optimizer, **parts, **group_arguments(trainer_class, arguments))
    trainer.monitor.check(trainer.result_names())  # before a run folder exists
    return trainer


@dataclass(frozen=True)
class TrainingParts:
    """The objects of a training, and the completed config that its checkpoints hold; `model` is wrapped for devices."""

    config: dict[str, Any]
    spec: DataSpec
    train_loader: "BaseDataLoader"
    valid_loader: "BaseDataLoader | None"
    model: "nn.Module"
    optimizer: "Optimizer"
    schedule: "LearningRateSchedule | None"
    loss: "nn.Module"
    metrics: "list[Metric]"
    trainer: "BaseTrainer"


def build_training(
    config: Config,
    world: "World | None" = None,
    *,
    devices: str | None = None,
    max_validation_batches: int | None = None,
    has_weights: bool = False,
) -> TrainingParts:
    """Build everything that a training needs from a checked config; nothing is written to disk.

    Args:
        config: A checked config; it is not changed.
        world: The processes that share the work; by default this one alone.
        devices: From the command line, e.g. `"0,1"` or `"cpu"`; by default the config's `n_gpu`.
        max_validation_batches: Validate on the first batches only.
        has_weights: All weights will come from a checkpoint: none need be downloaded for the network.
    """
    from trainer.inspection.memory import require_room_for_step
    from trainer.runtime.devices import ALONE, RunPrecision, choose_devices, prepare_for_training, seed_run
    from trainer.trainer import TrainingPlan
    from utils.seeding import derive_seed, seed_everything

    world, seed, options = world or ALONE, config.get("seed", 0), trainer_options(config)
    used_devices = choose_devices(config.get("n_gpu"), devices)
    precision = RunPrecision.from_options(used_devices[0], options)
    seed_run(seed, used_devices[0], deterministic=options["deterministic"])
    limits = {"max_validation_batches": max_validation_batches}
    plan = TrainingPlan.from_options(options, precision=precision, world=world, **limits)
    train_loader, valid_loader = build_loaders(config)
    loaders = [(split, each) for split, each in (("train", train_loader), ("valid", valid_loader)) if each is not None]
    for _, loader in loaders:  # before the first one is decoded
        loader.require_whole_listing()
    for split, loader in loaders:
        # A loader of a plug-in may not know its role: a shuffled one would count as training data.
        loader.is_training = loader is train_loader
        loader.shard(world.rank, world.size)
        loader.loader_timeout, loader.feeds_accelerator = options["loader_timeout"], precision.device.type != "cpu"
        loader.prepare()
        loader.require_counted_targets(loader_section(config, split) or split)
    spec = read_data_spec(config, train_loader, count_classes=True)

    model = build_network(variants.without_pretrained_weights(config) if has_weights else config, spec, plan)
    completed = variants.complete_config(config, spec, registry())
    # Before a wrapper adds prefixes to the names of the parameters.
    optimizer = build_optimizer(config, model)
    schedule = build_schedule(config, optimizer, plan, count_steps(config, plan, train_loader))
    loss = build_loss(config, spec, model).to(precision.device)
    model = prepare_for_training(model, options, precision, world, used_devices)
    metrics = build_metrics(config, spec)

    parts = {"train_loader": train_loader, "valid_loader": valid_loader, "metrics": metrics, "lr_scheduler": schedule}
    trainer = build_trainer(config, model, optimizer, criterion=loss, plan=plan, **parts)
    require_room_for_step(trainer, *(loader_section(config, split) or split for split in ("train", "valid")))
    # The loop draws other random numbers (dropout) than the construction, different ones in each process.
    seed_everything(derive_seed(seed, "loop", world.rank))
    return TrainingParts(
        completed, spec, train_loader, valid_loader, model, optimizer, schedule, loss, metrics, trainer
    )


def build_trained_network(config: Config, content: Mapping[str, Any], file: Path) -> "nn.Module":
    """Build the network of a checkpoint with its weights.

    Args:
        config: Of the checkpoint, as `trained_config` returns it.
        content: Of the checkpoint.
        file: Its name, for messages.

    Raises:
        CheckpointError: The weights do not fit the network.
        ConfigError: The network refuses its arguments.
        OutOfMemory: The network is too large.
    """
    from utils.checkpoint_file import evaluated_weights
    from utils.environment import resource_errors

    with resource_errors():
        model = build_model(variants.without_pretrained_weights(config), DataSpec.from_config(config))
        try:
            model.load_state_dict(evaluated_weights(content))
        except RuntimeError as error:
            reason = " ".join(line.strip() for line in str(error).splitlines()[:3])[:400]
            raise CheckpointError(
                f"{file}: its weights do not fit the network that its config describes ({reason}). "
                "Use the code it was trained with, or another checkpoint."
            ) from error
    return model


def build_predictor(
    checkpoint: str | Path,
    *,
    device: str | None = "cpu",
    plugins: Sequence[str] = (),
    window: Sequence[int] | None = None,
    views: "Views | None" = None,
    max_decoded_mb: int | None = None,
) -> "Segmenter | Classifier":
    """Build a trained network with its preprocessing: a `Segmenter`, or a `Classifier` for images or series.

    Args:
        checkpoint: A checkpoint, a run folder (its best one), a file of export.py, or "people", which comes with it.
        device: `cpu`, or the number of a GPU; None takes the first GPU if there is one.
        plugins: Python files with the custom classes that its config names; no other code is ever run.
        window: Slide a window (height, width) over images at their own size; () takes the size of the input.
        views: Overlap of the windows; flips and scales to average over.
        max_decoded_mb: Limit on a decoded file; by default that of the loader.

    Raises:
        CheckpointError: It is missing, damaged, or does not fit its config.
        ConfigError: Its config names something that does not exist, or it classifies, and views are asked for.
    """
    from base.base_inference import choose_device, read_trained, task_of_outputs
    from models.export.description import description_errors
    from models.export.files import SUFFIXES, open_exported
    from models.inference.views import Views, require_masks, with_views
    from models.zoo.cards import find_network
    from predictor.classifier import Classifier
    from predictor.segmenter import Segmenter

    load_plugins(plugins)
    views = views or Views()
    asked = [*views.options(), *([] if window is None else ["--window"])]
    path, target = Path(find_network(str(checkpoint))), choose_device(device)
    model: nn.Module
    if path.suffix.lower() in SUFFIXES.values():
        model, described = open_exported(path, target)
        config = trained_config(described, registry(), has_network=False)
        with description_errors(path):
            build_preprocessing(config)
    else:
        content, file = read_trained(path)
        config = trained_config(content["config"], registry())
        build_preprocessing(config)  # before the network, which may be large
        require_masks(asked, variants.stated_task(config, evaluation_section(config), registry()))
        model = build_trained_network(config, content, file)
    section, seen_config = evaluation_section(config), config
    loader_class, loader_arguments = class_and_arguments(config, section, registry())
    if max_decoded_mb is not None and "max_decoded_mb" in signature_of(loader_class).parameters:
        loader_arguments = {**loader_arguments, "max_decoded_mb": max_decoded_mb}
        seen_config = {**config, section: {**as_object(config[section]), "args": loader_arguments}}
    task = getattr(loader_class, "task", None) or task_of_outputs(model, build_preprocessing(seen_config))
    require_masks(asked, task)
    if task == "classification":
        classifier = Classifier(model, build_preprocessing(seen_config), device=target)
        classifier.config = config
        return classifier
    if window is not None:  # images at their own size, of which the network sees one window after the other
        size = variants.window_size(config, section, window, registry())
        views, seen_config = replace(views, window=size), variants.with_input_size(seen_config, None, registry())
    segmenter = Segmenter(model, build_preprocessing(seen_config), device=target)
    segmenter.config = config
    segmenter.model = with_views(segmenter.model, views)
    return segmenter
