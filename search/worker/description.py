"""From a config to the step of its training that can be foreseen."""

from collections.abc import Mapping
from typing import Any

from torch import nn

import build as assemble
import config as configuration
import models
from base.base_model import BaseModel
from config.checking.classes import find_class
from config.variants import NAME as CLASS_COUNTS
from config.variants import needs_class_counts, without_pretrained_weights
from data_loader.common.shared_cache import current
from search.worker.foresight import TrainingStep, optimizer_copies
from trainer.runtime import distributed, setup
from trainer.runtime.distributed import ALONE
from utils.errors import ConfigError
from utils.registry import Registry

Config = Mapping[str, Any]


def describe(config: Config, registry: Registry, devices: str | None = None) -> TrainingStep:
    """The step that a checked config trains by: shapes from a batch of its loader, nothing else built.

    Args:
        config: Of one candidate.
        registry: What each section may name.
        devices: As on the command line, e.g. `"0"` or `"cpu"`.

    Raises:
        ConfigError: The config contradicts itself, or its data.
        DataError: A sample of the batch cannot be read.
    """
    options = configuration.trainer_options(config)
    precision = setup.precision(options, distributed.choose_devices(config.get("n_gpu"), devices)[0])
    plan = setup.plan(options, precision, ALONE)
    loader = assemble.build_loader(config, "train", registry)
    loader.is_training = True
    if current() is not None:  # its training would decode all of it anyway, and finds it then
        loader.prepare()
    inputs, target, *_ = loader.example()
    values = assemble.task_values(config, loader)
    if needs_class_counts(config, registry):
        values[CLASS_COUNTS] = [1] * values["num_classes"]  # any will do for the shape of the weights

    def build_model() -> nn.Module:
        model = build_network(config, registry, values)
        model = setup.equip(model, {**options, "compile": False}, ALONE, precision).train()
        if plan.freezing.until_epoch is None:
            plan.freezing.apply(model, epoch=1)
        return model

    def build_criterion(model: nn.Module) -> Any:
        return assemble.build_criterion(config, registry, values, model)

    def build_optimizer(weights: list[nn.Parameter]) -> Any:
        return configuration.instantiate(config, "optimizer", registry, runtime={"params": weights})

    return TrainingStep(
        build_model,
        build_criterion,
        tuple(inputs.shape),
        tuple(target.shape),
        target.dtype,
        precision,
        optimizer_copies=optimizer_copies(build_optimizer),
        has_average=plan.ema_decay is not None,
        accumulate=plan.accumulate,
    )


def build_network(config: Config, registry: Registry, values: Mapping[str, Any]) -> nn.Module:
    """The network of a config with random weights: none is fetched to find out what it costs."""
    model: nn.Module = assemble.build_model(without_pretrained_weights(config), registry, values)
    return model


def network_summary(config: Config, registry: Registry, devices: str | None = None) -> str:
    """The parts of a config's network with their output shapes, for a sample of its data."""
    step = describe(config, registry, devices)
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
