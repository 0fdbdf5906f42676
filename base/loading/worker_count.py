"""The number of loader workers that makes a training fastest."""

import os
from typing import Literal

import torch

from utils.environment import available_processors

WorkerCount = int | Literal["auto"]

_MOST = 8
_PROCESSORS_TO_SPARE = 4  # from so many on, augmentation alone is worth workers


def processors_to_share(*, feeds_accelerator: bool) -> int:
    """Return the number of processors for this process: its share under torchrun, else at most one per torch thread.

    A worker of a search has its share, too. `OMP_NUM_THREADS` gives any process a number of threads; next to a GPU that
    says nothing: torch hardly uses its threads, and each loader worker has one.

    Args:
        feeds_accelerator: The network runs on another device.
    """
    processors, processes = available_processors(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes > 1:  # torchrun gives a process one thread
        return max(1, processors // processes)
    return processors if feeds_accelerator else min(processors, torch.get_num_threads())


def workers_that_pay(*, is_in_memory: bool, processors: int, feeds_accelerator: bool) -> int:
    """Return the number of loader workers for `n_workers` "auto".

    A worker takes a processor from whatever else computes on it, and sending a batch costs time. So there is none

    - on a single processor, which would only be divided;
    - for samples that are decoded in memory, of which only augmentation is left, unless the network runs on another
      device and there are processors to spare.

    Of samples that are decoded anew in every epoch, as many workers decode as there are processors.

    Args:
        is_in_memory: The samples are decoded in memory.
        processors: Of `processors_to_share`.
        feeds_accelerator: The network runs on another device.
    """
    if processors == 1:
        return 0
    if is_in_memory:
        return min(processors // 2, _MOST) if feeds_accelerator and processors >= _PROCESSORS_TO_SPARE else 0
    return min(processors, _MOST)
