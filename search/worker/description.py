"""From the config of a candidate to its training step, its summary and its canonical form."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

import models
from base.base_model import BaseModel
from build import (
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


def build_training_step(config: Config, devices: str | None = None) -> TrainingStep:
    """Build the training step of a checked config: a batch of its loader for the shapes, and nothing else.

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
    if shared_cache() is not None:  # the training decodes all data anyway, and then finds it in the shared cache
        loader.prepare()
    inputs, target, *_ = loader.example()
    spec = read_data_spec(config, loader)
    if needs_class_counts(config, registry()):
        spec = replace(spec, class_counts=[1] * (spec.num_classes or 0))  # only their number matters for the shapes

    def build_network() -> nn.Module:
        # No pretrained weights: their values do not matter, and they may have to be downloaded.
        model = build_model(without_pretrained_weights(config), spec)
        model = prepare_for_training(model, {**options, "compile": False}, precision, ALONE).train()
        if plan.freezing.until_epoch is None:
            plan.freezing.apply(model, epoch=1)
        return model

    def build_optimizer(weights: list[nn.Parameter]) -> Optimizer:
        optimizer: Optimizer = instantiate(config, "optimizer", registry(), runtime={"params": weights})
        return optimizer

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


def network_summary(config: Config, devices: str | None = None) -> str:
    """Return the parts of a config's network with their output shapes, for a sample of its data."""
    step = build_training_step(config, devices)
    model = step.build_model()
    return model.summary(step.input_shape[2:]) if isinstance(model, BaseModel) else str(model)


def canonical(config: Config) -> dict[str, Any]:
    """Return a drawn config with the arguments of its network in canonical form, equal for equal networks."""
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
