"""A candidate before its training: its canonical form, its training step, its costs, and the limits of these."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

import models
from base.base_model import BaseModel
from build import build_loader, build_loss, build_model, read_data_spec, registry
from config import instantiate, trainer_options
from config.checking.classes import find_class
from config.variants import rules_without_counts, without_pretrained_weights
from data_loader.common.image_cache import SHARED_CACHE
from search.worker.latency import alone_on_machine, shortest_pass
from train import check_config
from trainer.inspection.costs import Facts, TrainingStep, optimizer_copies, predict_costs
from trainer.runtime.devices import ALONE, RunPrecision, choose_devices, prepare_for_training
from trainer.trainer import TrainingPlan
from utils.errors import ConfigError

Config = Mapping[str, Any]


def canonical(config: Config) -> dict[str, Any]:
    """Return a drawn config with the arguments of its network in canonical form, equal for equal networks."""
    arch = config.get("arch")
    if not isinstance(arch, Mapping) or not isinstance(arch.get("args"), Mapping):
        return dict(config)
    try:
        target = find_class(arch["type"], "arch", "arch", models.SECTIONS["arch"]).target
    except ConfigError:
        return dict(config)  # it is refused when it is built, with the reason
    if not (isinstance(target, type) and issubclass(target, BaseModel)):
        return dict(config)
    return {**config, "arch": {**arch, "args": target.canonical_arguments(arch["args"])}}


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
    precision = RunPrecision.from_options(device, options)
    plan = TrainingPlan.from_options(options, precision=precision)
    loader = build_loader(config, "train")
    assert loader is not None  # a checked config has training data
    loader.is_training = True
    if SHARED_CACHE.get() is not None:  # the training decodes all data anyway, and then finds it in the shared cache
        loader.prepare()
    inputs, target, *_ = loader.example()
    spec = read_data_spec(config, loader)
    if any(rules_without_counts(config, registry())):
        spec = replace(spec, class_counts=[1] * (spec.num_classes or 0))  # only their number matters for the shapes

    def build_network() -> nn.Module:
        # No pretrained weights: their values do not matter, and they may have to be downloaded.
        model = build_model(without_pretrained_weights(config), spec)
        model = prepare_for_training(model, {**options, "compile": False}, precision, ALONE).train()
        if plan.freezing.until_epoch is None:
            plan.freezing.apply(model, epoch=1)
        return model

    copies = optimizer_copies(lambda weights: instantiate(config, "optimizer", registry(), runtime={"params": weights}))
    return TrainingStep(
        build_network,
        lambda model: build_loss(config, spec, model),
        tuple(inputs.shape),
        tuple(target.shape),
        target.dtype,
        precision,
        optimizer_copies=copies,
        has_average=plan.ema_decay is not None,
        accumulate=plan.accumulate,
    )


@dataclass(frozen=True)
class Limits:
    """The maximum costs of a candidate; None for no limit.

    Attributes:
        max_params: Weights of the network.
        max_flops: FLOPs of one sample's forward pass.
        max_memory_mb: Megabytes of a training step on its device.
        max_latency_ms: Milliseconds of one sample's forward pass.
        input_size: (H, W), or (T,) of a series, for FLOPs and latency; by default that of the training.
        wants_latency: Measure the latency even if it is not limited.
    """

    max_params: int | None = None
    max_flops: int | None = None
    max_memory_mb: float | None = None
    max_latency_ms: float | None = None
    input_size: Sequence[int] | None = None
    wants_latency: bool = False

    def refusal(self, facts: Facts) -> str:
        """Return the first limit that is exceeded, as a sentence; empty if there is none."""
        limits = asdict(self)
        for name, value in facts.known().items():
            limit = limits[f"max_{name}"]
            if limit is not None and value > limit:
                return f"{name} {value:,} is more than max_{name} {limit:,}"
        return ""


UNLIMITED = Limits()


def check_limits(
    config: Config, limits: Limits = UNLIMITED, *, devices: str | None = None, min_seconds: float = 0.5
) -> tuple[Facts, str]:
    """Determine the costs of training a config from shapes alone, and compare them with the limits.

    The network is run only to measure its latency, and only if no other limit is exceeded.

    Args:
        config: Of one candidate, without markers.
        limits: The maximum costs.
        devices: As on the command line, e.g. `"0"` or `"cpu"`.
        min_seconds: Seconds over which a latency is measured, at least.

    Returns:
        The costs that were determined, and the reason not to train the candidate; empty if there is none.

    Raises:
        DataError: Its data cannot be read, which is not the candidate's fault.
    """
    try:
        # The training checks its config again; a candidate that is refused here never gets a run folder.
        check_config(config)
        step = build_training_step(config, devices)
        facts = predict_costs(step, limits.input_size)
    except ConfigError as error:
        return Facts(), str(error)
    if facts.memory_mb is not None:
        facts = replace(facts, memory_mb=round(facts.memory_mb, 1))
    refusal = limits.refusal(facts)
    if refusal or not (limits.wants_latency or limits.max_latency_ms is not None):
        return facts, refusal
    facts = replace(facts, latency_ms=measure_latency(step, limits.input_size, min_seconds=min_seconds))
    return facts, limits.refusal(facts)


def measure_latency(step: TrainingStep, input_size: Sequence[int] | None = None, *, min_seconds: float = 0.5) -> float:
    """Return the milliseconds of one sample's forward pass, with precision, device and threads of the training.

    Args:
        step: Of the candidate.
        input_size: (H, W), or (T,) of a series; by default that of the training.
        min_seconds: Seconds over which the passes are spread, at least.
    """
    precision = step.precision
    model = step.placed_model().eval()
    size = step.input_shape[2:] if input_size is None else input_size
    inputs = precision.place(torch.zeros(1, step.input_shape[1], *size))

    def run() -> None:
        model(inputs)
        if precision.device.type == "cuda":
            torch.cuda.synchronize(precision.device)

    with torch.inference_mode(), precision.autocast(), alone_on_machine():
        return round(shortest_pass(run, min_seconds=min_seconds), 3)
