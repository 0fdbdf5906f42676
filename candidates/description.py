"""From a config to the step of its training that can be foreseen."""

from collections.abc import Mapping
from typing import Any

from torch import nn

import config as configuration
from base.base_model import BaseModel
from candidates.foresight import TrainingStep, optimizer_copies
from config import assemble
from config.class_counts import NAME as CLASS_COUNTS
from config.class_counts import needs_class_counts
from config.saved import without_pretrained_weights
from data_loader.kept import current
from trainer import distributed, setup
from trainer.distributed import ALONE
from utils.catalogue import Catalogue

Config = Mapping[str, Any]


def describe(config: Config, catalogue: Catalogue, devices: str | None = None) -> TrainingStep:
    """The step that a checked config trains by: shapes from a batch of its loader, nothing else built.

    Args:
        config: Of one candidate.
        catalogue: What each section may name.
        devices: As on the command line, e.g. `"0"` or `"cpu"`.

    Raises:
        ConfigError: The config contradicts itself, or its data.
        DataError: A sample of the batch cannot be read.
    """
    options = configuration.trainer_options(config)
    arithmetic = setup.arithmetic(options, distributed.choose_devices(config.get("n_gpu"), devices)[0])
    plan = setup.plan(options, arithmetic, ALONE)
    loader = assemble.build_loader(config, "train", catalogue)
    loader.is_training = True
    if current() is not None:  # its training would decode all of it anyway, and finds it then
        loader.prepare()
    inputs, target, *_ = loader.example()
    values = assemble.task_values(config, loader)
    if needs_class_counts(config, catalogue):
        values[CLASS_COUNTS] = [1] * values["num_classes"]  # any will do for the shape of the weights

    def build_model() -> nn.Module:
        model = build_network(config, catalogue, values)
        model = setup.equip(model, {**options, "compile": False}, ALONE, arithmetic).train()
        if plan.freezing.until_epoch is None:
            plan.freezing.apply(model, epoch=1)
        return model

    def build_criterion(model: nn.Module) -> Any:
        return assemble.build_criterion(config, catalogue, values, model)

    def build_optimizer(weights: list[nn.Parameter]) -> Any:
        return configuration.build(config, "optimizer", catalogue, runtime={"params": weights})

    return TrainingStep(
        build_model,
        build_criterion,
        tuple(inputs.shape),
        tuple(target.shape),
        target.dtype,
        arithmetic,
        optimizer_copies=optimizer_copies(build_optimizer),
        has_average=plan.ema_decay is not None,
        accumulate=plan.accumulate,
    )


def build_network(config: Config, catalogue: Catalogue, values: Mapping[str, Any]) -> nn.Module:
    """The network of a config with random weights: none is fetched to find out what it costs."""
    model: nn.Module = assemble.build_model(without_pretrained_weights(config), catalogue, values)
    return model


def network_summary(config: Config, catalogue: Catalogue, devices: str | None = None) -> str:
    """The parts of a config's network with their output shapes, for a sample of its data."""
    step = describe(config, catalogue, devices)
    model = step.build_model()
    return model.summary(step.input_shape[2:]) if isinstance(model, BaseModel) else str(model)
