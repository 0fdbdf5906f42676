"""What is known of a candidate before it is trained, and whether that rules it out."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any

import torch

from build import check_config
from search.worker.description import describe
from search.worker.foresight import TrainingStep, foresee
from utils.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """What a candidate may cost.

    Attributes:
        max_params: Weights of the network.
        max_flops: FLOPs of one sample's forward pass.
        max_memory_mb: Megabytes of a training step on its device.
        max_latency_ms: Milliseconds of one sample's forward pass.
        input_size: (H, W), or (T,) of a series, for FLOPs and latency; that of the training where not given.
    """

    max_params: int | None = None
    max_flops: int | None = None
    max_memory_mb: float | None = None
    max_latency_ms: float | None = None
    input_size: Sequence[int] | None = None


@dataclass(frozen=True)
class Facts:
    """What was found out; None where it was not.

    Attributes:
        params: Weights of the network, those that do not learn included.
        flops: FLOPs of one sample's forward pass.
        memory_mb: Predicted megabytes of a training step.
        latency_ms: Measured milliseconds of one sample's forward pass.
    """

    params: int | None = None
    flops: int | None = None
    memory_mb: float | None = None
    latency_ms: float | None = None

    def known(self) -> dict[str, float]:
        """By name, what was found out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Verdict:
    """What came of judging a candidate.

    Attributes:
        facts: What was found out until then.
        refusal: Why it is not to be trained; empty where it may be.
    """

    facts: Facts
    refusal: str = ""


UNLIMITED = Limits()


def judge(
    config: Mapping[str, Any], limits: Limits = UNLIMITED, *, wants_latency: bool = False, devices: str | None = None
) -> Verdict:
    """Find out what training a config would cost, from shapes alone, and compare it with the limits.

    The network runs in earnest only to measure its latency, and only if nothing else rules it out.

    Args:
        config: Of one candidate, without markers.
        limits: What it may cost.
        wants_latency: Measure the latency where it is not limited, too.
        devices: As on the command line, e.g. `"0"` or `"cpu"`.

    Raises:
        DataError: Its data cannot be read, which is not the candidate's fault.
    """
    try:
        check_config(config)
        step = describe(config, devices)
        foreseen = foresee(step, limits.input_size)
    except ConfigError as error:
        return Verdict(Facts(), str(error))
    memory_mb = None if foreseen.memory_mb is None else round(foreseen.memory_mb, 1)
    facts = Facts(foreseen.params, foreseen.flops, memory_mb)
    refusal = _exceeded(facts, limits)
    if refusal or not (wants_latency or limits.max_latency_ms is not None):
        return Verdict(facts, refusal)
    facts = replace(facts, latency_ms=round(median_latency(step, limits.input_size), 3))
    return Verdict(facts, _exceeded(facts, limits))


def _exceeded(facts: Facts, limits: Limits) -> str:
    """The first limit that is exceeded, in words."""
    for name, value in facts.known().items():
        limit = getattr(limits, f"max_{name}")
        if limit is not None and value > limit:
            return f"{name} {value:,} is more than max_{name} {limit:,}"
    return ""


WARM_UPS = 3
PASSES = 15


def median_latency(step: TrainingStep, input_size: Sequence[int] | None = None) -> float:
    """Milliseconds of a forward pass of one sample in evaluation: the median of several, after some that do not count.

    Threads are those that this process has, precision and device those of the training.

    Args:
        step: Makes the network.
        input_size: (H, W), or (T,) of a series; that of the training where not given.
    """
    precision = step.precision
    model = step.placed_model().eval()
    size = step.input_shape[2:] if input_size is None else input_size
    inputs = precision.place(torch.zeros(1, step.input_shape[1], *size))
    is_gpu = precision.device.type == "cuda"
    taken = []
    with torch.inference_mode(), precision.autocast():
        for _ in range(WARM_UPS + PASSES):
            started = perf_counter()
            model(inputs)
            if is_gpu:
                torch.cuda.synchronize(precision.device)
            taken.append(1000 * (perf_counter() - started))
    return statistics.median(taken[WARM_UPS:])
