"""The limits of a candidate: its costs are determined before training and compared with them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any

import torch

from build import check_config
from search.worker.description import build_training_step
from search.worker.foresight import Facts, TrainingStep, predict_costs
from utils.errors import ConfigError

WARM_UPS = 3
PASSES = 15


@dataclass(frozen=True)
class Limits:
    """The maximum costs of a candidate; None for no limit.

    Attributes:
        max_params: Weights of the network.
        max_flops: FLOPs of one sample's forward pass.
        max_memory_mb: Megabytes of a training step on its device.
        max_latency_ms: Milliseconds of one sample's forward pass.
        input_size: (H, W), or (T,) of a series, for FLOPs and latency; by default that of the training.
    """

    max_params: int | None = None
    max_flops: int | None = None
    max_memory_mb: float | None = None
    max_latency_ms: float | None = None
    input_size: Sequence[int] | None = None

    def refusal(self, facts: Facts) -> str:
        """Return the first limit that is exceeded, as a sentence; empty if there is none."""
        limits = asdict(self)
        for name, value in facts.known().items():
            limit = limits[f"max_{name}"]
            if limit is not None and value > limit:
                return f"{name} {value:,} is more than max_{name} {limit:,}"
        return ""


@dataclass(frozen=True)
class LimitCheck:
    """The result of checking a candidate.

    Attributes:
        facts: The costs that were determined until then.
        refusal: The reason not to train it; empty if there is none.
    """

    facts: Facts
    refusal: str = ""


UNLIMITED = Limits()


def check_limits(
    config: Mapping[str, Any], limits: Limits = UNLIMITED, *, wants_latency: bool = False, devices: str | None = None
) -> LimitCheck:
    """Determine the costs of training a config from shapes alone, and compare them with the limits.

    The network is run only to measure its latency, and only if no other limit is exceeded.

    Args:
        config: Of one candidate, without markers.
        limits: The maximum costs.
        wants_latency: Measure the latency even if it is not limited.
        devices: As on the command line, e.g. `"0"` or `"cpu"`.

    Raises:
        DataError: Its data cannot be read, which is not the candidate's fault.
    """
    try:
        check_config(config)
        step = build_training_step(config, devices)
        facts = predict_costs(step, limits.input_size)
    except ConfigError as error:
        return LimitCheck(Facts(), str(error))
    if facts.memory_mb is not None:
        facts = replace(facts, memory_mb=round(facts.memory_mb, 1))
    refusal = limits.refusal(facts)
    if refusal or not (wants_latency or limits.max_latency_ms is not None):
        return LimitCheck(facts, refusal)
    facts = replace(facts, latency_ms=round(median_latency(step, limits.input_size), 3))
    return LimitCheck(facts, limits.refusal(facts))


def median_latency(step: TrainingStep, input_size: Sequence[int] | None = None) -> float:
    """Measure the median milliseconds of a forward pass of one sample in evaluation mode, after a warm-up.

    With the number of threads of this process, and with precision and device of the training.

    Args:
        step: Builds the network.
        input_size: (H, W), or (T,) of a series; by default that of the training.
    """
    precision = step.precision
    model = step.placed_model().eval()
    size = step.input_shape[2:] if input_size is None else input_size
    inputs = precision.place(torch.zeros(1, step.input_shape[1], *size))
    times = []
    with torch.inference_mode(), precision.autocast():
        for _ in range(WARM_UPS + PASSES):
            started = perf_counter()
            model(inputs)
            if precision.device.type == "cuda":
                torch.cuda.synchronize(precision.device)
            times.append(1000 * (perf_counter() - started))
    return statistics.median(times[WARM_UPS:])
