"""How long a network takes for one sample on this machine."""

import statistics
from collections.abc import Sequence
from time import perf_counter

import torch

from candidates.foresight import TrainingStep

WARM_UPS = 3
PASSES = 15


def median_latency(step: TrainingStep, input_size: Sequence[int] | None = None) -> float:
    """Milliseconds of a forward pass of one sample in evaluation: the median of several, after some that do not count.

    Threads are those that this process has, precision and device those of the training.

    Args:
        step: Makes the network.
        input_size: (H, W), or (T,) of a series; that of the training where not given.
    """
    arithmetic = step.arithmetic
    model = step.placed_model().eval()
    size = step.input_shape[2:] if input_size is None else input_size
    inputs = arithmetic.place(torch.zeros(1, step.input_shape[1], *size))
    is_gpu = arithmetic.device.type == "cuda"
    taken = []
    with torch.inference_mode(), arithmetic.autocast():
        for _ in range(WARM_UPS + PASSES):
            started = perf_counter()
            model(inputs)
            if is_gpu:
                torch.cuda.synchronize(arithmetic.device)
            taken.append(1000 * (perf_counter() - started))
    return statistics.median(taken[WARM_UPS:])
