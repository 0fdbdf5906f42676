"""From a config to the step of its training that can be foreseen."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

import models
from base.base_model import BaseModel
from build import (
    DataSpec,
    build_loader,
    build_loss,
    build_model,
    build_plan,
    prepare_for_training,
    read_data_spec,
    registry,
)
from config import instantiate, trainer_options
from config.checking.classes import find_class
from config.variants import needs_class_counts, without_pretrained_weights
from data_loader.common.image_cache import shared_cache
from search.worker.foresight import TrainingStep, optimizer_copies
from trainer.runtime.devices import ALONE, RunPrecision, choose_devices
from utils.errors import ConfigError

Config = Mapping[str, Any]


def describe(config: Config, devices: str | None = None) -> TrainingStep:
    """The step that a checked config trains by: shapes from a batch of its loader, nothing else built.

    Args:
        config: Of one candidate.
        devices: As on the command line, e.g. `"0"` or `"cpu"`.

    Raises:
        ConfigError: The config contradicts itself, or its data.
        DataError: A sample of the batch cannot be read.
    """
    options, device = trainer_options(config), choose_devices(config.get("n_gpu"), devices)[0]
    precision = RunPrecision.choose(device, options["precision"], channels_last=options["channels_last"])
    plan = build_plan(options, precision, ALONE)
    loader = build_loader(config, "train")
    assert loader is not None  # a checked config has training data
    loader.is_training = True
    if shared_cache() is not None:  # its training would decode all of it anyway, and finds it then
        loader.prepare()
    inputs, target, *_ = loader.example()
    spec = read_data_spec(config, loader)
    if needs_class_counts(config, registry()):
        spec = replace(spec, class_counts=[1] * (spec.num_classes or 0))  # any will do for the shape of the weights

    def build_network() -> nn.Module:
        model = build_random_network(config, spec)
        model = prepare_for_training(model, {**options, "compile": False}, precision, ALONE).train()
        if plan.freezing.until_epoch is None:
            plan.freezing.apply(model, epoch=1)
        return model

    def build_optimizer(weights: list[nn.Parameter]) -> Any:
        return instantiate(config, "optimizer", registry(), runtime={"params": weights})

    return TrainingStep(
        build_network,
        lambda model: build_loss(config, spec, model),
        tuple(inputs.shape),
        tuple(target.shape),
        target.dtype,
        precision,
        optimizer_copies=optimizer_copies(build_optimizer),
        has_average=plan.ema_decay is not None,
        accumulate=plan.accumulate,
    )


def build_random_network(config: Config, spec: DataSpec) -> nn.Module:
    """The network of a config with random weights: none is fetched to find out what it costs."""
    return build_model(without_pretrained_weights(config), spec)


def network_summary(config: Config, devices: str | None = None) -> str:
    """The parts of a config's network with their output shapes, for a sample of its data."""
    step = describe(config, devices)
    model = step.build_model()
    return model.summary(step.input_shape[2:]) if isinstance(model, BaseModel) else str(model)


def canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """A drawn config with the arguments of its network in the form that the network's class gives them."""
    arch = config.get("arch")
    if not isinstance(arch, Mapping) or not isinstance(arch.get("args"), Mapping):
        return dict(config)
    try:
        target = find_class(arch["type"], "arch", "arch", models.SECTIONS["arch"])
    except ConfigError:
        return dict(config)  # it is refused when it is built, with the reason
    if not (isinstance(target, type) and issubclass(target, BaseModel)):
        return dict(config)
    return {**config, "arch": {**arch, "args": target.canonical_arguments(arch["args"])}}
